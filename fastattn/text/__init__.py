"""Text in, token ids out: tokenizers and batching. Nothing here knows a model."""

from fastattn.text.batching import gather, token_budget_batches
from fastattn.text.tokenizer import TokenizedTexts, Tokenizer

__all__ = ["TokenizedTexts", "Tokenizer", "gather", "token_budget_batches"]
