"""The tokenizers of MarianMT folders: two SentencePiece models and a vocabulary (extra `[translate]`)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn import checks
from fastattn.files import replacing
from fastattn.formats.hugging_face import read_json
from fastattn.text.tokenizer import TokenizedTexts

__all__ = ["MarianTokenizer"]

SOURCE, TARGET = "source.spm", "target.spm"
VOCABULARY, TARGET_VOCABULARY = "vocab.json", "target_vocab.json"
CONFIG = "tokenizer_config.json"

_SPECIAL = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>"}
_SPACE = "\u2581"  # what SentencePiece writes for a space
# the spaces that transformers takes away, in its order, where the config says clean_up_tokenization_spaces
_CLEANED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


class MarianTokenizer:
    """Source text to ids, target text to ids, and ids back to target text. Safe to use from many threads.

    SentencePiece cuts a text into pieces, and the vocabulary has the id of each; a piece that it does not have becomes
    `<unk>`. Every text ends with `</s>`, an empty one too. A text may begin with the code of its target language
    (`>>fra<<`), which is one token. Special tokens that are written in a text are text.

    Args:
        source: a SentencePiece model, the bytes of a source.spm.
        target: that of the target side.
        vocabulary: the id of each piece, and of `<unk>`, `</s>` and `<pad>`, for both sides.
        target_vocabulary: that of the target side, where the two have their own.
        config: fields of a tokenizer_config.json: names of the special tokens, `model_max_length`, `source_lang`,
            `target_lang`, `clean_up_tokenization_spaces`. They are saved again, and all but the languages used.

    Raises ValueError for bytes that are no SentencePiece model, ids that are none and a special token that is not in
    a vocabulary; ImportError when the `sentencepiece` library is missing.

    >>> tokenizer = MarianTokenizer.from_pretrained("opus-mt-en-de")       # doctest: +SKIP
    >>> tokens = tokenizer.encode_target(["Ein kleiner Frosch."])          # doctest: +SKIP
    >>> tokenizer.decode([tokens.ids])                                     # doctest: +SKIP
    ['Ein kleiner Frosch.']
    """

    def __init__(
        self,
        source: bytes,
        target: bytes,
        vocabulary: Mapping[str, int],
        target_vocabulary: Mapping[str, int] | None = None,
        *,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self._models = {SOURCE: source, TARGET: target}
        self._source, self._target = sentencepiece_processor(SOURCE, source), sentencepiece_processor(TARGET, target)
        self._config = dict(config or {})
        names = {key: _token(self._config.get(key), default) for key, default in _SPECIAL.items()}
        self._vocabulary = dict(vocabulary)
        self._special = _special_ids(VOCABULARY, self._vocabulary, names)
        self._separate = None if target_vocabulary is None else dict(target_vocabulary)
        self._target_special = (
            self._special if self._separate is None else _special_ids(TARGET_VOCABULARY, self._separate, names)
        )
        self._source_pieces = {i: piece for piece, i in self._vocabulary.items()}
        self._pieces = {i: piece for piece, i in self._target_vocabulary.items()}
        limit = self._config.get("model_max_length")
        #: The limit that the folder's tokenizer_config.json names, or None.
        self.model_max_length: int | None = limit if isinstance(limit, int) and 0 < limit < 10**9 else None

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> MarianTokenizer:
        """Read source.spm, target.spm, vocab.json and, if they are there, tokenizer_config.json and target_vocab.json.

        target_vocab.json counts where the config says `separate_vocabs`.

        Raises:
            FileNotFoundError: one of the first three is missing, or target_vocab.json is and the config asks for it.
            ValueError: a file is damaged, or a tokenizer has tokens beside its vocabulary; the message names the file.
            ImportError: the `sentencepiece` library is missing.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder")
        config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
        needed = [SOURCE, TARGET, VOCABULARY, *([TARGET_VOCABULARY] if config.get("separate_vocabs") else [])]
        for name in needed:
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder / name}: no such file; a Marian tokenizer has {', '.join(needed)}")
        vocabularies = [read_json(folder / name) for name in needed[2:]]
        try:
            models = ((folder / name).read_bytes() for name in needed[:2])
            tokenizer = cls(*models, *vocabularies, config=config)  # type: ignore[arg-type]  # they are two
        except ValueError as error:
            raise ValueError(f"{folder}{os.sep}{error}") from None  # each message begins with the name of a file
        added = config.get("added_tokens_decoder") or {}
        if not isinstance(added, dict):
            raise ValueError(f"{folder / CONFIG}: added_tokens_decoder must be an object, got {type(added).__name__}")
        for i, token in added.items():
            content = _token(token, "")
            if all(str(vocabulary.get(content)) != i for vocabulary in vocabularies):
                raise ValueError(f"{folder / CONFIG}: added token {content!r}, {i}, is not in {VOCABULARY}")
        return tokenizer

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write what `from_pretrained` reads, each file whole or not at all; transformers reads it, too."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {**self._config, "separate_vocabs": self._separate is not None, "tokenizer_class": "MarianTokenizer"}
        contents = {**self._models, VOCABULARY: _json(self._vocabulary), CONFIG: _json(config)}
        if self._separate is not None:
            contents[TARGET_VOCABULARY] = _json(self._separate)
        with replacing(*(folder / name for name in contents)) as files:
            for file, content in zip(files, contents.values(), strict=True):
                file.write_bytes(content)

    @property
    def vocab_size(self) -> int:
        """Number of ids of the source side."""
        return max(self._vocabulary.values()) + 1

    @property
    def target_vocab_size(self) -> int:
        """Number of ids of the target side."""
        return max(self._target_vocabulary.values()) + 1

    @property
    def eos_token_id(self) -> int:
        """What ends a text of the target side, `</s>`."""
        return self._target_special["eos_token"]

    @property
    def pad_token_id(self) -> int:
        """`<pad>` of the target side, with which decoding begins."""
        return self._target_special["pad_token"]

    def encode(self, texts: Sequence[str], max_length: int | None = None, *, name: str = "texts") -> TokenizedTexts:
        """Tokenise texts of the source side.

        Args:
            texts: the texts.
            max_length: cut every text to so many tokens, the last of which is `</s>`; None cuts nothing.
            name: what error messages call `texts`.

        Raises:
            TypeError: `texts` is one str, or an entry is not a str; the message names its index.
            ValueError: an entry cannot be written as UTF-8, or max_length is less than 1.
        """
        return self._encode(self._source, self._vocabulary, self._special, texts, max_length, name)

    def encode_target(
        self, texts: Sequence[str], max_length: int | None = None, *, name: str = "texts"
    ) -> TokenizedTexts:
        """Tokenise texts of the target side; arguments and errors are those of `encode`."""
        return self._encode(self._target, self._target_vocabulary, self._target_special, texts, max_length, name)

    def decode(self, sequences: Iterable[ArrayLike]) -> list[str]:
        """The texts of sequences of target ids, without their special tokens: what `generate` gives will do.

        Args:
            sequences: an array `[texts, seq]`, or a sequence of ids for each text.

        Raises TypeError for ids that are not integers, and ValueError for one that the vocabulary does not have.
        """
        special = set(self._target_special.values())
        texts = []
        for i, sequence in enumerate(sequences):
            ids = np.asarray(sequence)
            if ids.dtype.kind not in "iu" and ids.size:
                raise TypeError(f"decode: sequences[{i}] must hold integers, got {ids.dtype}")
            if ids.ndim != 1:
                raise ValueError(f"decode: sequences[{i}] must have one axis, got shape {ids.shape}")
            kept = [j for j in ids.tolist() if j not in special]
            text = self._target.decode_pieces(_pieces_of("target", self._pieces, f"decode: sequences[{i}]", kept))
            text = text.replace(_SPACE, " ").strip()  # a piece that target.spm does not have keeps its sign
            if self._config.get("clean_up_tokenization_spaces"):
                for spaced in _CLEANED:
                    text = text.replace(spaced, spaced.strip())
            texts.append(text)
        return texts

    def tokens(self, ids: ArrayLike) -> list[str]:
        """The pieces that ids of the source side stand for, special tokens included.

        Raises ValueError for an id that the vocabulary does not have.
        """
        return _pieces_of("source", self._source_pieces, "tokens: ids", ids)

    def target_tokens(self, ids: ArrayLike) -> list[str]:
        """The pieces that ids of the target side stand for; as `tokens`."""
        return _pieces_of("target", self._pieces, "target_tokens: ids", ids)

    @property
    def _target_vocabulary(self) -> dict[str, int]:
        return self._vocabulary if self._separate is None else self._separate

    @staticmethod
    def _encode(
        model: Any,
        vocabulary: dict[str, int],
        special: dict[str, int],
        texts: Sequence[str],
        max_length: int | None,
        name: str,
    ) -> TokenizedTexts:
        if max_length is not None:
            check_max_length(max_length)
        codes, rest = [], []
        for text in checks.texts(name, texts):
            code, text = _split_code(text)
            codes.append(code)
            rest.append(text)
        unknown, end = special["unk_token"], special["eos_token"]
        full_lengths = np.empty(len(rest), np.int64)
        ids: list[int] = []
        lengths = np.empty(len(rest), np.int64)
        for i, (code, pieces) in enumerate(zip(codes, model.encode(rest, out_type=str), strict=True)):
            full_lengths[i] = len(code) + len(pieces) + 1
            lengths[i] = full_lengths[i] if max_length is None else min(full_lengths[i], max_length)
            ids.extend(vocabulary.get(piece, unknown) for piece in (code + pieces)[: lengths[i] - 1])
            ids.append(end)
        cu_seqlens: NDArray[np.int64] = np.zeros(len(rest) + 1, np.int64)
        np.cumsum(lengths, out=cu_seqlens[1:])
        return TokenizedTexts(np.array(ids, np.int64), cu_seqlens, full_lengths)


def sentencepiece_processor(name: str, model: bytes) -> Any:
    """A model of the library, from the bytes of the file `name`. Raises ImportError, and ValueError for other bytes."""
    try:
        import sentencepiece  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise ImportError(
            'fastattn needs the sentencepiece library to read .spm files: pip install "fastattn[translate]"'
        ) from error
    try:
        if not model:  # which the library takes for no model given
            raise RuntimeError("empty")
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise ValueError(f"{name}: not a SentencePiece model: {error}") from None


def _special_ids(name: str, vocabulary: Mapping[str, int], tokens: Mapping[str, str]) -> dict[str, int]:
    """The ids of the special tokens, once all ids are known to be ids, each of one token."""
    owners: dict[int, str] = {}
    for token, i in vocabulary.items():
        if type(i) is not int or not 0 <= i < 2**31:
            raise ValueError(f"{name}: {token!r} must have an id, got {i!r}")
        if owners.setdefault(i, token) != token:
            raise ValueError(f"{name}: {owners[i]!r} and {token!r} have the same id {i}")
    for key, token in tokens.items():
        if token not in vocabulary:
            raise ValueError(f"{name}: the {key} {token!r} is not in the vocabulary")
    return {key: vocabulary[token] for key, token in tokens.items()}


def check_max_length(max_length: int) -> int:
    """`max_length` as an int, at least 1. Raises ValueError."""
    wanted = "1, for the end of the text, or more"
    return checks.integer("max_length", max_length, 1, wanted=wanted, error=ValueError)


def _split_code(text: str) -> tuple[list[str], str]:
    """The language code that a text begins with, if any, and the rest."""
    if text.startswith(">>") and (end := text.find("<<")) >= 0:
        return [text[: end + 2]], text[end + 2 :]
    return [], text


def _pieces_of(side: str, pieces: Mapping[int, str], name: str, ids: ArrayLike) -> list[str]:
    """The pieces of ids, which errors call `name`."""
    found = []
    for i in np.asarray(ids).tolist():
        if i not in pieces:
            raise ValueError(f"{name} has {i!r}, which is not an id of the {side} vocabulary")
        found.append(pieces[i])
    return found


def _token(value: Any, default: str) -> str:
    """A token of tokenizer_config.json: a string, or an object that holds one."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else default


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
