"""`WordEncoder`: a vector for every word of a sentence, from ELMo."""

from fastattn.tasks.words.encoder import WordEncoder
from fastattn.tasks.words.state import ElmoState

__all__ = ["ElmoState", "WordEncoder"]
