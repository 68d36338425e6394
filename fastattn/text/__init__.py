"""Text in, token ids out: tokenizers, readers and batching. This package imports no model. Names are imported on
first use."""

from typing import TYPE_CHECKING

from fastattn._lazy import lazy

if TYPE_CHECKING:
    from fastattn.text.batching import gather, token_budget_batches, tokens_per_batch
    from fastattn.text.characters import character_ids
    from fastattn.text.conll import ConllSentence, parse_conll, read_conll
    from fastattn.text.conllu import ConlluSentence, parse_conllu, read_conllu
    from fastattn.text.documents import Documents, join_sentences, split_sentences
    from fastattn.text.entities import (
        Entity,
        convert_tags,
        crf_constraints,
        entities_to_tags,
        scheme_of,
        tags_to_entities,
    )
    from fastattn.text.labelled import LabelledTexts, labelled_texts, plain_texts
    from fastattn.text.language_model import Sentences, Vocabulary, read_sentences, unigram_perplexity
    from fastattn.text.marian_tokenizer import MarianTokenizer
    from fastattn.text.masking import Masking
    from fastattn.text.parallel import ParallelText, read_parallel
    from fastattn.text.pretraining import PretrainingBatches
    from fastattn.text.squad import Answer, SquadExample, is_squad, parse_squad, read_squad
    from fastattn.text.streams import StreamBatches, sentence_batches
    from fastattn.text.subwords import BytePairs, Characters
    from fastattn.text.tables import Row, parse_rows, read_rows
    from fastattn.text.tokenized import TokenizedTexts
    from fastattn.text.tokenized_documents import TokenizedDocuments, continuing_ids
    from fastattn.text.tokenizer import Tokenizer
    from fastattn.text.translation_tokenizer import (
        SubwordTokenizer,
        TranslationTokenizer,
        read_translation_tokenizer,
        sentencepiece_tokenizer,
    )
    from fastattn.text.vectors import WordVectors, read_word_vectors
    from fastattn.text.word_splitting import split_words
    from fastattn.text.wordpiece import train_wordpiece
    from fastattn.text.words import TokenizedWords, encode_words

__all__ = [
    "Answer",
    "BytePairs",
    "Characters",
    "ConllSentence",
    "ConlluSentence",
    "Documents",
    "Entity",
    "LabelledTexts",
    "MarianTokenizer",
    "Masking",
    "ParallelText",
    "PretrainingBatches",
    "Row",
    "Sentences",
    "SquadExample",
    "StreamBatches",
    "SubwordTokenizer",
    "TokenizedDocuments",
    "TokenizedTexts",
    "TokenizedWords",
    "Tokenizer",
    "TranslationTokenizer",
    "Vocabulary",
    "WordVectors",
    "character_ids",
    "continuing_ids",
    "convert_tags",
    "crf_constraints",
    "encode_words",
    "entities_to_tags",
    "gather",
    "is_squad",
    "join_sentences",
    "labelled_texts",
    "parse_conll",
    "parse_conllu",
    "parse_rows",
    "parse_squad",
    "plain_texts",
    "read_conll",
    "read_conllu",
    "read_parallel",
    "read_rows",
    "read_sentences",
    "read_squad",
    "read_translation_tokenizer",
    "read_word_vectors",
    "scheme_of",
    "sentence_batches",
    "sentencepiece_tokenizer",
    "split_sentences",
    "split_words",
    "tags_to_entities",
    "token_budget_batches",
    "tokens_per_batch",
    "train_wordpiece",
    "unigram_perplexity",
]

__getattr__ = lazy(
    __name__,
    {
        "batching": "gather token_budget_batches tokens_per_batch",
        "characters": "character_ids",
        "conll": "ConllSentence parse_conll read_conll",
        "conllu": "ConlluSentence parse_conllu read_conllu",
        "documents": "Documents join_sentences split_sentences",
        "entities": "Entity convert_tags crf_constraints entities_to_tags scheme_of tags_to_entities",
        "labelled": "LabelledTexts labelled_texts plain_texts",
        "language_model": "Sentences Vocabulary read_sentences unigram_perplexity",
        "marian_tokenizer": "MarianTokenizer",
        "masking": "Masking",
        "parallel": "ParallelText read_parallel",
        "pretraining": "PretrainingBatches",
        "squad": "Answer SquadExample is_squad parse_squad read_squad",
        "streams": "StreamBatches sentence_batches",
        "subwords": "BytePairs Characters",
        "tables": "Row parse_rows read_rows",
        "tokenized": "TokenizedTexts",
        "tokenized_documents": "TokenizedDocuments continuing_ids",
        "tokenizer": "Tokenizer",
        "translation_tokenizer": "SubwordTokenizer TranslationTokenizer read_translation_tokenizer "
        "sentencepiece_tokenizer",
        "vectors": "WordVectors read_word_vectors",
        "word_splitting": "split_words",
        "wordpiece": "train_wordpiece",
        "words": "TokenizedWords encode_words",
    },
)


def __dir__() -> list[str]:
    return __all__
