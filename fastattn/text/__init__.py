"""Text in, token ids out: tokenizers, readers and batching. Nothing here knows a model."""

from fastattn.text.batching import gather, token_budget_batches
from fastattn.text.conllu import ConlluSentence, parse_conllu, read_conllu
from fastattn.text.tokenizer import TokenizedTexts, Tokenizer
from fastattn.text.words import TokenizedWords, encode_words

__all__ = [
    "ConlluSentence",
    "TokenizedTexts",
    "TokenizedWords",
    "Tokenizer",
    "encode_words",
    "gather",
    "parse_conllu",
    "read_conllu",
    "token_budget_batches",
]
