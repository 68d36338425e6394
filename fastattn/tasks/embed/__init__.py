"""`SentenceEncoder`, and its modules."""

from fastattn.tasks.embed.encoder import SentenceEncoder
from fastattn.tasks.embed.modules import Dense, Normalize, Pooling, Transformer
from fastattn.tasks.embed.truncation import TextTooLongError, TruncationWarning

__all__ = [
    "Dense",
    "Normalize",
    "Pooling",
    "SentenceEncoder",
    "TextTooLongError",
    "Transformer",
    "TruncationWarning",
]
