"""What a user asks for: text in, answers out."""

from fastattn.hub import ModelNotFoundError, find_model
from fastattn.tasks.embed import SentenceEncoder, TextTooLongError, TruncationWarning
from fastattn.tasks.tagger import Tagger
from fastattn.tasks.translator import Translator
from fastattn.tasks.words import WordEncoder

__all__ = [
    "ModelNotFoundError",
    "SentenceEncoder",
    "Tagger",
    "TextTooLongError",
    "Translator",
    "TruncationWarning",
    "WordEncoder",
    "find_model",
]
