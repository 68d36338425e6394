"""What a user asks for: text in, answers out."""

from fastattn.hub import ModelNotFoundError, find_model
from fastattn.tasks.sentence_encoder import SentenceEncoder, TextTooLongError, TruncationWarning
from fastattn.tasks.tagger import Tagger
from fastattn.tasks.translator import Translator

__all__ = [
    "ModelNotFoundError",
    "SentenceEncoder",
    "Tagger",
    "TextTooLongError",
    "Translator",
    "TruncationWarning",
    "find_model",
]
