"""What a user asks for: text in, answers out."""

from fastattn.tasks.find_model import ModelNotFoundError, find_model
from fastattn.tasks.sentence_encoder import SentenceEncoder, TextTooLongError, TruncationWarning
from fastattn.tasks.tagger import Tagger

__all__ = ["ModelNotFoundError", "SentenceEncoder", "Tagger", "TextTooLongError", "TruncationWarning", "find_model"]
