"""Tokenizers of Hugging Face folders, run by the `tokenizers` library (extra `[text]`)."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn import checks
from fastattn.files import replacing
from fastattn.formats.hugging_face import read_json
from fastattn.hub import Files, folder_of

CONFIG = "tokenizer_config.json"
_VOCABULARIES = ("tokenizer.json", "vocab.txt")
FILES = Files((*_VOCABULARIES, CONFIG), (_VOCABULARIES,), _VOCABULARIES, organization="sentence-transformers")
"""The files of a tokenizer."""
CHUNK = 1024  # texts tokenised at once: an Encoding takes some kilobytes, its ids a few dozen bytes


@dataclass(frozen=True)
class TokenizedTexts:
    """Token ids of many texts, one text after the other.

    Attributes:
        ids: int64 `[tokens]`, special tokens included.
        cu_seqlens: int64 `[texts + 1]`: text i is `ids[cu_seqlens[i]:cu_seqlens[i + 1]]`. All texts together may have
            more than 2^31 tokens; `gather` gives a batch of them with int32 offsets, as models read them.
        full_lengths: int64 `[texts]`, how many tokens each text had before it was truncated.
    """

    ids: NDArray[np.int64]
    cu_seqlens: NDArray[np.int64]
    full_lengths: NDArray[np.int64]

    @classmethod
    def of(cls, ids: ArrayLike, lengths: ArrayLike, full_lengths: ArrayLike | None = None) -> TokenizedTexts:
        """Texts of `lengths` tokens each, which were not truncated unless `full_lengths` says so.

        >>> TokenizedTexts.of([5, 1, 1], [2, 1]).cu_seqlens.tolist()
        [0, 2, 3]
        """
        lengths = np.asarray(lengths, np.int64)
        cu_seqlens = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=cu_seqlens[1:])
        full = lengths if full_lengths is None else np.asarray(full_lengths, np.int64)
        return cls(np.asarray(ids, np.int64), cu_seqlens, full)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text, int64 `[texts]`."""
        return self.cu_seqlens[1:] - self.cu_seqlens[:-1]  # np.diff takes ten times as long for a few

    @property
    def truncated(self) -> NDArray[np.bool_]:
        """Which texts were cut, bool `[texts]`."""
        return self.full_lengths > self.lengths


class Tokenizer:
    """A fast tokenizer that returns ragged ids, never padding. Safe to use from many threads.

    >>> tokenizer = Tokenizer.from_pretrained("path/to/all-MiniLM-L6-v2")   # doctest: +SKIP
    >>> tokenizer.encode(["Hello world", "Hi"]).ids                         # doctest: +SKIP
    array([ 101, 7592, 2088,  102,  101, 7632,  102])
    """

    def __init__(
        self,
        backend: Any,
        model_max_length: int | None = None,
        truncation_side: str = "right",
        config: dict[str, Any] | None = None,
    ) -> None:
        """Wrap a `tokenizers.Tokenizer`, which must not be changed afterwards; `config` is saved with it."""
        backend.no_padding()
        backend.no_truncation()
        self._backend = backend
        self._cuts_left = truncation_side == "left"
        content = [i for i, special in enumerate(backend.encode("a").special_tokens_mask) if not special]
        #: How many special tokens each text gets ([CLS] and [SEP]: 2).
        self.special_tokens: int = backend.num_special_tokens_to_add(False)
        self._leading: int = content[0] if content else 0
        self._trailing: int = self.special_tokens - self._leading
        #: The limit that the folder's tokenizer_config.json names, or None.
        self.model_max_length = model_max_length
        self._config = config or {}
        self._origin: tuple[str, bool, str] | None = None

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | os.PathLike[str], *, lowercase: bool = False, **place: Any
    ) -> Tokenizer:
        """Read tokenizer.json or else vocab.txt (WordPiece), and tokenizer_config.json if it exists.

        The config's settings for case, accents and Chinese characters win, as in transformers.

        Args:
            name_or_folder: a Hugging Face folder, or the name of one, see `fastattn.hub.find_model`.
            lowercase: lower-case every text first, whatever the files say.
            place: options of `find_model`: `revision`, `token`, `local_files_only`.

        Raises:
            FileNotFoundError: neither tokenizer.json nor vocab.txt exists.
            ValueError: a file is damaged; the message names it.
            ImportError: the `tokenizers` library is missing.
        """
        library = import_tokenizers()
        folder = folder_of(name_or_folder, FILES, **place)
        config = _read_config(folder / CONFIG)
        if (folder / "tokenizer.json").is_file():
            backend = _from_tokenizer_json(library, folder / "tokenizer.json", config)
        elif (folder / "vocab.txt").is_file():
            backend = _from_vocabulary(library, folder / "vocab.txt", config)
        else:
            raise FileNotFoundError(f"{folder}: no tokenizer.json and no vocab.txt")
        if lowercase and not _lowercases(backend.normalizer):
            steps = [library.normalizers.Lowercase()]
            if backend.normalizer is not None:
                steps.append(backend.normalizer)
            backend.normalizer = library.normalizers.Sequence(steps)
        side = config.get("truncation_side", "right")
        if side not in ("left", "right"):
            raise ValueError(f"{folder / 'tokenizer_config.json'}: truncation_side must be left or right, got {side!r}")
        tokenizer = cls(backend, length_limit(config), side, config)
        tokenizer._origin = str(folder.absolute()), lowercase, _fingerprint(folder)
        return tokenizer

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write tokenizer.json and tokenizer_config.json, each whole or not at all; transformers reads them, too."""
        with replacing(Path(folder, "tokenizer.json"), Path(folder, CONFIG)) as (tokenizer, config):
            tokenizer.write_text(self._backend.to_str(pretty=True), encoding="utf-8")
            config.write_text(json.dumps(self._config, indent=2) + "\n", encoding="utf-8")

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A pickle holds the folder's name and a checksum, or all of a tokenizer that has no folder."""
        return super().__reduce_ex__(protocol) if self._origin is None else (_from_origin, self._origin)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tokenizer:
        return self  # nothing changes it

    @property
    def vocab_size(self) -> int:
        """Number of token ids, added tokens included."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    def encode(
        self,
        texts: Sequence[str],
        max_length: int | None = None,
        *,
        parallel: bool = True,
        name: str = "texts",
    ) -> TokenizedTexts:
        """Tokenise texts, with special tokens.

        Args:
            texts: the texts.
            max_length: cut every text to this many tokens, special tokens included, at the folder's
                `truncation_side` (right unless it says left); None cuts nothing.
            parallel: let the `tokenizers` library use its threads.
            name: what error messages call `texts`.

        Raises:
            TypeError: an entry is not a str; the message names its index.
            ValueError: an entry cannot be written as UTF-8, or max_length is not more than the special tokens.
        """
        texts = checks.texts(name, texts)
        if max_length is not None and max_length <= self.special_tokens:
            raise ValueError(f"max_length must be more than the {self.special_tokens} special tokens, got {max_length}")
        ids: list[NDArray[np.int64]] = []
        full_lengths = np.empty(len(texts), np.int64)
        for start in range(0, len(texts), CHUNK):
            chunk = texts[start : start + CHUNK]
            chunk_ids = _ids(self._backend, chunk, parallel)
            full = np.fromiter(map(len, chunk_ids), np.int64, len(chunk_ids))
            full_lengths[start : start + len(chunk)] = full
            if max_length is not None and full.max() > max_length:
                for i in np.flatnonzero(full > max_length).tolist():
                    chunk_ids[i] = self._cut(chunk_ids[i], max_length)
                full = np.minimum(full, max_length)
            total = int(full.sum())
            ids.append(np.fromiter(itertools.chain.from_iterable(chunk_ids), np.int64, total))
        lengths = full_lengths if max_length is None else np.minimum(full_lengths, max_length)
        return TokenizedTexts.of(np.concatenate(ids) if ids else [], lengths, full_lengths)

    def prefix_length(self, prefix: str) -> int:
        """Tokens that `prefix` takes at the start of a text, the leading [CLS] included."""
        ids: list[int] = self._backend.encode(prefix).ids
        return len(ids) - self._trailing

    def _cut(self, ids: list[int], max_length: int) -> list[int]:
        """Drop the end (or, on the left, the beginning) of a text; the special tokens around it stay."""
        if self._cuts_left:
            return ids[: self._leading] + ids[len(ids) - (max_length - self._leading) :]
        return ids[: max_length - self._trailing] + ids[len(ids) - self._trailing :]


def _from_origin(folder: str, lowercase: bool, fingerprint: str) -> Tokenizer:
    """The tokenizer of a pickle. Raises ValueError when its files have changed since."""
    if _fingerprint(Path(folder)) != fingerprint:
        raise ValueError(f"{folder}: the files of this tokenizer have changed since it was pickled")
    return Tokenizer.from_pretrained(folder, lowercase=lowercase)


def _fingerprint(folder: Path) -> str:
    """A checksum of the files that a tokenizer is read from."""
    sha = hashlib.sha256()
    for name in ("tokenizer.json", "vocab.txt", CONFIG):
        sha.update(b"%s\0" % ((folder / name).read_bytes() if (folder / name).is_file() else b""))
    return sha.hexdigest()


def import_tokenizers() -> Any:
    """The `tokenizers` module, or an ImportError that says how to install it."""
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError('fastattn needs the tokenizers library to read text: pip install "fastattn[text]"') from error
    _keep_forks_quiet()
    return tokenizers


_fork_hooks_registered = False


def _keep_forks_quiet() -> None:
    """Let a forked child tokenise in one thread, without the library's warning.

    A child has no copy of the parent's thread pool. The library notices that only after the fork, warns on stderr and
    turns its threads off. TOKENIZERS_PARALLELISM=false, set during the fork and kept in the child, tells it in time. A
    value that the user has set stays.
    """
    global _fork_hooks_registered
    if _fork_hooks_registered or not hasattr(os, "register_at_fork"):
        return
    _fork_hooks_registered = True
    variable = "TOKENIZERS_PARALLELISM"
    set_by_us: list[bool] = []

    def before() -> None:
        set_by_us.append(variable not in os.environ)
        if set_by_us[-1]:
            os.environ[variable] = "false"

    def in_parent() -> None:
        if set_by_us.pop():
            os.environ.pop(variable, None)

    os.register_at_fork(before=before, after_in_parent=in_parent)


def _ids(backend: Any, texts: Sequence[str], parallel: bool) -> list[list[int]]:
    if parallel and len(texts) > 1:
        encode_batch = getattr(backend, "encode_batch_fast", backend.encode_batch)
        return [encoding.ids for encoding in encode_batch(texts)]
    return [backend.encode(text).ids for text in texts]


def _read_config(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _from_tokenizer_json(library: Any, path: Path, config: dict[str, Any]) -> Any:
    try:
        backend = library.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise ValueError(f"{path}: not a tokenizer that the tokenizers library reads: {error}") from None
    normalizer = backend.normalizer
    if isinstance(normalizer, library.normalizers.BertNormalizer):
        for key, attribute in _NORMALIZER_OPTIONS.items():
            if isinstance(config.get(key), bool):
                setattr(normalizer, attribute, config[key])
        backend.normalizer = normalizer
    return backend


_NORMALIZER_OPTIONS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}


def _from_vocabulary(library: Any, path: Path, config: dict[str, Any]) -> Any:
    """BERT's own WordPiece tokenizer; a line of vocab.txt is a token, its number the id."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8: {error}") from None
    vocabulary = {token: index for index, token in enumerate(text.rstrip("\n").split("\n"))}
    special = {
        key: special_token(config.get(key), default)
        for key, default in {
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "mask_token": "[MASK]",
        }.items()
    }
    for key in ("unk_token", "cls_token", "sep_token"):
        if special[key] not in vocabulary:
            raise ValueError(f"{path}: the {key} {special[key]!r} is not in the vocabulary")
    cls, sep = special["cls_token"], special["sep_token"]
    backend = library.Tokenizer(library.models.WordPiece(vocabulary, unk_token=special["unk_token"]))
    backend.normalizer = library.normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True),
    )
    backend.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    backend.post_processor = library.processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
    )
    backend.decoder = library.decoders.WordPiece(prefix="##")
    backend.add_special_tokens([token for token in special.values() if token in vocabulary])
    return backend


def special_token(value: Any, default: str) -> str:
    """A token of tokenizer_config.json: a string, or an object that holds one."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else default


def length_limit(config: dict[str, Any]) -> int | None:
    """The limit in tokens that a tokenizer_config.json names, or None; transformers writes 1e30 for none."""
    limit = config.get("model_max_length", config.get("max_len"))
    return limit if type(limit) is int and 0 < limit < 10**9 else None


def _lowercases(normalizer: Any) -> bool:
    if normalizer is None:
        return False
    state = json.loads(normalizer.__getstate__())
    steps = state["normalizers"] if state["type"] == "Sequence" else [state]
    return any(step["type"] == "Lowercase" or step.get("lowercase") is True for step in steps)
