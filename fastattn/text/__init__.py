"""Text in, token ids out: tokenizers, readers and batching. This package imports no model."""

from fastattn.text.batching import gather, token_budget_batches, tokens_per_batch
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
from fastattn.text.marian_tokenizer import MarianTokenizer
from fastattn.text.parallel import ParallelText, read_parallel
from fastattn.text.subwords import BytePairs, Characters
from fastattn.text.tokenized import TokenizedTexts
from fastattn.text.tokenizer import Tokenizer
from fastattn.text.translation_tokenizer import (
    SubwordTokenizer,
    TranslationTokenizer,
    read_translation_tokenizer,
    sentencepiece_tokenizer,
)
from fastattn.text.words import TokenizedWords, encode_words

__all__ = [
    "BytePairs",
    "Characters",
    "ConlluSentence",
    "MarianTokenizer",
    "ParallelText",
    "Sentences",
    "StreamBatches",
    "SubwordTokenizer",
    "TokenizedTexts",
    "TokenizedWords",
    "Tokenizer",
    "TranslationTokenizer",
    "Vocabulary",
    "character_ids",
    "encode_words",
    "gather",
    "parse_conllu",
    "read_conllu",
    "read_parallel",
    "read_sentences",
    "read_translation_tokenizer",
    "sentence_batches",
    "sentencepiece_tokenizer",
    "token_budget_batches",
    "tokens_per_batch",
    "unigram_perplexity",
]
