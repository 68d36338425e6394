"""A WordPiece vocabulary, trained from text by the `tokenizers` library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from fastattn.checks import integer
from fastattn.text.library import import_tokenizers, library_errors
from fastattn.text.tokenizer import Tokenizer

__all__ = ["train_wordpiece"]

_SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
"""BERT's special tokens, by their names in a tokenizer_config.json."""
_PREFIX = "##"
_ALPHABET = 1000  # characters; a text in many scripts has thousands of rare ones
_CHUNK = 1 << 16  # characters that are normalised at once


def train_wordpiece(
    texts: Iterable[str],
    vocab_size: int = 30522,
    *,
    lowercase: bool = True,
    min_frequency: int = 2,
    model_max_length: int | None = None,
) -> Tokenizer:
    """A tokenizer as BERT has it, with wordpieces of `texts`.

    The same texts give the same vocabulary. It has [PAD], [UNK], [CLS], [SEP] and [MASK], the 1,000 most frequent
    characters, and the pieces that the library merges from them.

    Args:
        texts: the texts. They are read twice, so an iterator will not do.
        vocab_size: the most wordpieces; a small text has fewer.
        lowercase: make letters lower case and remove accents.
        min_frequency: how often a piece must occur.
        model_max_length: the limit that the tokenizer names.

    Raises ValueError for texts without characters and a vocabulary too small for the characters, and ImportError
    without the library.

    >>> tokenizer = train_wordpiece(["low lower lowest", "new newer newest"] * 9, vocab_size=60)
    >>> tokenizer.encode(["lowest"]).ids.tolist()
    [2, 29, 3]
    """
    library = import_tokenizers()
    vocab_size = integer("train_wordpiece: vocab_size", vocab_size)
    backend = library.Tokenizer(library.models.WordPiece(unk_token=_SPECIAL["unk_token"]))
    backend.normalizer = library.normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    letters = _alphabet(texts, backend)
    # The library numbers the pieces of one letter as its hash table has them, and ties depend on these numbers: the
    # same text would give another vocabulary each time. Given in order, as if they were special, they have an order.
    first = [*_SPECIAL.values(), *letters, *(_PREFIX + letter for letter in letters if _continues(backend, letter))]
    if len(first) > vocab_size:
        raise ValueError(f"train_wordpiece: vocab_size must be at least {len(first)} for the characters of the text, "
                         f"got {vocab_size}")  # fmt: skip
    trainer = library.trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=integer("train_wordpiece: min_frequency", min_frequency),
        special_tokens=first,
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        continuing_subword_prefix=_PREFIX,
        show_progress=False,
    )
    with library_errors("train_wordpiece"):
        backend.train_from_iterator(texts, trainer)
    return _tokenizer(library, backend, backend.get_vocab(), lowercase, model_max_length)


def _alphabet(texts: Iterable[str], backend: Any) -> list[str]:
    """The most frequent characters, in order."""
    counts: Counter[str] = Counter()
    for chunk in _chunks(texts):
        counts.update(backend.normalizer.normalize_str(chunk))
    found = sorted(letter for letter in counts if not letter.isspace())
    if not found:
        raise ValueError("train_wordpiece: the texts have no characters")
    return sorted(sorted(found, key=lambda letter: -counts[letter])[:_ALPHABET])


def _chunks(texts: Iterable[str]) -> Iterator[str]:
    some: list[str] = []
    size = 0
    for text in texts:
        some.append(text)
        size += len(text)
        if size >= _CHUNK:
            yield "\n".join(some)
            some, size = [], 0
    yield "\n".join(some)


def _continues(backend: Any, letter: str) -> bool:
    """Whether a word may have this letter behind another one. Punctuation and Chinese characters are words."""
    return len(backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(f"a{letter}"))) == 1


def _tokenizer(
    library: Any, trained: Any, vocabulary: dict[str, int], lowercase: bool, model_max_length: int | None
) -> Tokenizer:
    unknown, cls, sep = (_SPECIAL[name] for name in ("unk_token", "cls_token", "sep_token"))
    backend = library.Tokenizer(library.models.WordPiece(vocabulary, unk_token=unknown))
    backend.normalizer, backend.pre_tokenizer = trained.normalizer, trained.pre_tokenizer
    backend.post_processor = library.processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
    )
    backend.decoder = library.decoders.WordPiece(prefix=_PREFIX)
    backend.add_special_tokens([*_SPECIAL.values()])
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": lowercase, **_SPECIAL}
    if model_max_length is not None:
        config["model_max_length"] = model_max_length
    return Tokenizer(backend, model_max_length, config=config)
