"""The tokenizers of MarianMT folders: two SentencePiece models and a vocabulary (extra `[translate]`)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastattn import checks
from fastattn.files import read_regular, replacing
from fastattn.formats.hugging_face import MAX_VOCABULARY, read_json
from fastattn.hub import Files, folder_of
from fastattn.text.subwords import check_max_length
from fastattn.text.tokenized import TokenizedTexts
from fastattn.text.tokenizer import length_limit
from fastattn.text.tokenizer_kinds import CONFIG, check_ids, special_token

__all__ = ["MarianTokenizer"]

SOURCE, TARGET = "source.spm", "target.spm"
VOCABULARY, TARGET_VOCABULARY = "vocab.json", "target_vocab.json"
NEEDED = (SOURCE, TARGET, VOCABULARY)
FILES = Files((*NEEDED, TARGET_VOCABULARY, CONFIG), NEEDED, NEEDED)
"""The files of a tokenizer."""

_SPECIAL = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>"}
_SPACE = "\u2581"  # what SentencePiece writes for a space
# the spaces that transformers takes away, in its order, where the config says clean_up_tokenization_spaces
_CLEANED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


class MarianVocabulary:
    """One side of a Marian tokenizer: text to ids, and ids back to text. Safe to use from many threads.

    Args:
        side: "source" or "target"; the model is `side`.spm.
        model: a SentencePiece model, the bytes of that file.
        file: what errors call the file of `numbers`.
        numbers: the id of each piece, and of `<unk>`, `</s>` and `<pad>`.
        config: fields of a tokenizer_config.json.

    Attributes:
        vocab_size: number of ids.
        eos_token_id: what ends every text, `</s>`.
        pad_token_id: `<pad>`, with which decoding begins.

    Raises as `MarianTokenizer` does.
    """

    def __init__(self, side: str, model: bytes, file: str, numbers: dict[str, int], config: Mapping[str, Any]) -> None:
        self._side, self._model = side, sentencepiece_processor(f"{side}.spm", model)
        self._numbers = numbers
        names = {key: special_token(config.get(key), default) for key, default in _SPECIAL.items()}
        self._special = _special_ids(file, self._numbers, names)
        self._pieces = {i: piece for piece, i in self._numbers.items()}
        self._cleaned = _CLEANED if config.get("clean_up_tokenization_spaces") else ()
        self.vocab_size: int = max(self._pieces) + 1
        self.eos_token_id: int = self._special["eos_token"]
        self.pad_token_id: int = self._special["pad_token"]
        self.unk_token_id: int = self._special["unk_token"]

    def encode(
        self, texts: Sequence[str], max_length: int | None = None, *, name: str = "encode: texts"
    ) -> TokenizedTexts:
        """Tokenise texts.

        Args:
            texts: the texts.
            max_length: cut every text to this many tokens, including the final `</s>`; None cuts nothing.
            name: what error messages call `texts`.

        Raises:
            TypeError: `texts` is one str, or an entry is not a str; the message names its index.
            ValueError: an entry cannot be written as UTF-8, or max_length is less than 1.
        """
        if max_length is not None:
            check_max_length(max_length)
        split = [_split_code(text) for text in checks.texts(name, texts)]
        unknown, end = self.unk_token_id, self.eos_token_id
        full_lengths = np.empty(len(split), np.int64)
        lengths = np.empty(len(split), np.int64)
        ids: list[int] = []
        encoded = self._model.encode([rest for _, rest in split], out_type=str)
        for i, ((code, _), pieces) in enumerate(zip(split, encoded, strict=True)):
            full_lengths[i] = len(code) + len(pieces) + 1
            lengths[i] = full_lengths[i] if max_length is None else min(full_lengths[i], max_length)
            ids.extend(self._numbers.get(piece, unknown) for piece in (code + pieces)[: lengths[i] - 1])
            ids.append(end)
        return TokenizedTexts.of(ids, lengths, full_lengths)

    def decode(self, sequences: Iterable[ArrayLike], unknowns: Sequence[Sequence[str]] | None = None) -> list[str]:
        """The texts of sequences of ids, without their special tokens: what `generate` gives will do.

        Args:
            sequences: an array `[texts, seq]`, or a sequence of ids for each text.
            unknowns: for each sequence, a word for each `<unk>`. None leaves them out.

        Raises TypeError for ids that are not integers, and ValueError for one that the vocabulary does not have.
        """
        special = set(self._special.values())
        texts = []
        for i, sequence in enumerate(sequences):
            ids = np.asarray(sequence)
            if ids.dtype.kind not in "iu" and ids.size:
                raise TypeError(f"decode: sequences[{i}] must hold integers, got {ids.dtype}")
            if ids.ndim != 1:
                raise ValueError(f"decode: sequences[{i}] must have one axis, got shape {ids.shape}")
            words = iter(() if unknowns is None else unknowns[i])
            pieces = []
            for number, piece in zip(ids.tolist(), self._tokens(ids, f"decode: sequences[{i}]"), strict=True):
                if number not in special:
                    pieces.append(piece)
                elif number == self.unk_token_id and (word := next(words, "")):
                    pieces.append(_SPACE + word)
            text = self._model.decode_pieces(pieces)
            text = text.replace(_SPACE, " ").strip()  # a piece that the model does not have keeps its sign
            for spaced in self._cleaned:
                text = text.replace(spaced, spaced.strip())
            texts.append(text)
        return texts

    def words(self, text: str) -> list[str]:
        """For each token of a text, but its `</s>`, the word in the text that the token belongs to."""
        code, rest = _split_code(text)
        pieces = self._model.encode(rest, out_type=str)
        numbers = np.cumsum([piece.startswith(_SPACE) for piece in pieces], dtype=np.int64)
        words: dict[int, str] = {}
        for number, piece in zip(numbers.tolist(), pieces, strict=True):
            words[number] = words.get(number, "") + piece
        return [*code, *(words[number].strip(_SPACE) for number in numbers.tolist())]

    def missing(self, size: int) -> list[int]:
        """The numbers below `size` that are not ids of the vocabulary."""
        return [i for i in range(size) if i not in self._pieces]

    def tokens(self, ids: ArrayLike) -> list[str]:
        """The pieces of ids, special tokens included.

        Raises ValueError for an id that the vocabulary does not have.
        """
        return self._tokens(ids, "tokens: ids")

    def _tokens(self, ids: ArrayLike, name: str) -> list[str]:
        found = []
        for i in np.asarray(ids).tolist():
            if i not in self._pieces:
                raise ValueError(f"{name} has {checks.shown(i)}, which is not an id of the {self._side} vocabulary")
            found.append(self._pieces[i])
        return found


class MarianTokenizer:
    """A SentencePiece model and a vocabulary for each side.

    SentencePiece cuts a text into pieces, and the vocabulary has the id of each; a piece that it does not have becomes
    `<unk>`. Every text ends with `</s>`, an empty one too. A text may begin with the code of its target language
    (`>>fra<<`), which is one token. Special tokens that are written in a text are text.

    Args:
        source: a SentencePiece model, the bytes of a source.spm.
        target: the same for the target side.
        vocabulary: the id of each piece, and of `<unk>`, `</s>` and `<pad>`, for both sides.
        target_vocabulary: the same for the target side, if the sides have separate vocabularies.
        config: fields of a tokenizer_config.json: names of the special tokens, `model_max_length`, `source_lang`,
            `target_lang`, `clean_up_tokenization_spaces`. They are saved again, and all except the languages are used.

    Attributes:
        source, target: the sides.
        model_max_length: the limit that the config names, or None.

    Raises ValueError for bytes that are no SentencePiece model, ids that are none and a special token that is not in
    a vocabulary; ImportError when the `sentencepiece` library is missing.

    >>> tokenizer = MarianTokenizer.from_pretrained("opus-mt-en-de")       # doctest: +SKIP
    >>> tokens = tokenizer.target.encode(["Ein kleiner Frosch."])          # doctest: +SKIP
    >>> tokenizer.target.decode([tokens.ids])                              # doctest: +SKIP
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
        self._config = dict(config or {})
        self._models = {SOURCE: source, TARGET: target}
        self._vocabularies = {VOCABULARY: dict(vocabulary)}
        if target_vocabulary is not None:
            self._vocabularies[TARGET_VOCABULARY] = dict(target_vocabulary)
        files = list(self._vocabularies.items())
        self.source = MarianVocabulary("source", source, *files[0], self._config)
        self.target = MarianVocabulary("target", target, *files[-1], self._config)
        self.model_max_length: int | None = length_limit(self._config)

    @classmethod
    def from_pretrained(cls, name_or_folder: str | os.PathLike[str], **place: Any) -> MarianTokenizer:
        """Read source.spm, target.spm, vocab.json and, if they are there, tokenizer_config.json and target_vocab.json.

        target_vocab.json counts where the config says `separate_vocabs`. A name is looked for by
        `fastattn.hub.find_model`, whose options `place` has.

        Raises:
            FileNotFoundError: one of the first three is missing, or a target_vocab.json that the config requires.
            ValueError: a file is damaged, or a tokenizer has tokens outside its vocabulary; the message names the file.
            ImportError: the `sentencepiece` library is missing.
        """
        folder = folder_of(name_or_folder, FILES, **place)
        config = read_json(folder / CONFIG) if os.path.lexists(folder / CONFIG) else {}
        needed = [*NEEDED, *([TARGET_VOCABULARY] if config.get("separate_vocabs") else [])]
        if missing := [name for name in needed if not (folder / name).is_file()]:
            has = ", ".join(needed)
            raise FileNotFoundError(f"{folder}: no {', no '.join(missing)}; a Marian tokenizer has {has}")
        vocabularies = [read_json(folder / name, MAX_VOCABULARY) for name in needed[2:]]
        models = [read_regular(folder / name, MAX_VOCABULARY) for name in needed[:2]]
        try:
            tokenizer = cls(*models, *vocabularies, config=config)  # type: ignore[arg-type]  # they are two
        except ValueError as error:
            raise ValueError(f"{folder}{os.sep}{error}") from None  # each message begins with the name of a file
        added = config.get("added_tokens_decoder") or {}
        if not isinstance(added, dict):
            raise ValueError(f"{folder / CONFIG}: added_tokens_decoder must be an object, got {type(added).__name__}")
        for i, token in added.items():
            content = special_token(token, "")
            if all(str(vocabulary.get(content)) != i for vocabulary in vocabularies):
                raise ValueError(f"{folder / CONFIG}: added token {checks.shown(content)}, {i}, is not in {VOCABULARY}")
        return tokenizer

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write what `from_pretrained` reads, each file whole or not at all; transformers reads it, too."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        separate = TARGET_VOCABULARY in self._vocabularies
        config = {**self._config, "separate_vocabs": separate, "tokenizer_class": "MarianTokenizer"}
        contents = {**self._models, CONFIG: _json(config)}
        contents |= {name: _json(vocabulary) for name, vocabulary in self._vocabularies.items()}
        with replacing(*(folder / name for name in contents)) as files:
            for file, content in zip(files, contents.values(), strict=True):
                file.write_bytes(content)


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
    check_ids(name, vocabulary)
    for token, i in vocabulary.items():
        if owners.setdefault(i, token) != token:
            raise ValueError(f"{name}: {checks.shown(owners[i])} and {checks.shown(token)} have the same id {i}")
    for key, token in tokens.items():
        if token not in vocabulary:
            raise ValueError(f"{name}: the {key} {checks.shown(token)} is not in the vocabulary")
    return {key: vocabulary[token] for key, token in tokens.items()}


def _split_code(text: str) -> tuple[list[str], str]:
    """The language code that a text begins with, if any, and the rest."""
    if text.startswith(">>") and (end := text.find("<<")) >= 0:
        return [text[: end + 2]], text[end + 2 :]
    return [], text


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
