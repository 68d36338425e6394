"""Text in, token ids out: tokenizers, readers and batching. Nothing here knows a model."""

from fastattn.text.batching import gather, token_budget_batches
from fastattn.text.characters import character_ids
from fastattn.text.conllu import ConlluSentence, parse_conllu, read_conllu
from fastattn.text.language_model import (
    Sentences,
    StreamBatches,
    Vocabulary,
    read_sentences,
    sentence_batches,
    unigram_perplexity,
)
from fastattn.text.tokenizer import TokenizedTexts, Tokenizer
from fastattn.text.words import TokenizedWords, encode_words

__all__ = [
    "ConlluSentence",
    "Sentences",
    "StreamBatches",
    "TokenizedTexts",
    "TokenizedWords",
    "Tokenizer",
    "Vocabulary",
    "character_ids",
    "encode_words",
    "gather",
    "parse_conllu",
    "read_conllu",
    "read_sentences",
    "sentence_batches",
    "token_budget_batches",
    "unigram_perplexity",
]
