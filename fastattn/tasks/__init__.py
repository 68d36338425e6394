"""What a user asks for: text in, answers out."""

from fastattn.tasks.find_model import ModelNotFoundError, find_model
from fastattn.tasks.sentence_encoder import SentenceEncoder, TextTooLongError, TruncationWarning

__all__ = ["ModelNotFoundError", "SentenceEncoder", "TextTooLongError", "TruncationWarning", "find_model"]
