"""Tokenizers of Hugging Face folders, run by the `tokenizers` library (extra `[text]`)."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn import checks, ragged
from fastattn.files import read_regular, replacing
from fastattn.hub import folder_of
from fastattn.text.library import by_index, import_tokenizers, library_errors
from fastattn.text.long_texts import Cuts, Ids, encode_in_pieces
from fastattn.text.tokenizer_files import CONFIG, FILES, FLAGS, NAMES, TOKENIZER, plain, read_tokenizer

CHUNK = 1024  # texts tokenised at once: an Encoding takes some kilobytes, its ids a few dozen bytes
_SHOWN = 5  # tokens that a warning names


@dataclass(frozen=True)
class TokenizedTexts:
    """Token ids of many texts, one text after the other.

    Attributes:
        ids: int64 `[tokens]`, special tokens included.
        cu_seqlens: int32 `[texts + 1]`: text i is `ids[cu_seqlens[i]:cu_seqlens[i + 1]]`.
        full_lengths: int64 `[texts]`, how many tokens each text had before it was truncated.
    """

    ids: NDArray[np.int64]
    cu_seqlens: NDArray[np.int32]
    full_lengths: NDArray[np.int64]

    @classmethod
    def of(cls, ids: ArrayLike, lengths: ArrayLike, full_lengths: ArrayLike | None = None) -> TokenizedTexts:
        """Texts of `lengths` tokens each, which were not truncated unless `full_lengths` says so.

        Raises ValueError for 2^31 tokens and more.

        >>> TokenizedTexts.of([5, 1, 1], [2, 1]).cu_seqlens.tolist()
        [0, 2, 3]
        """
        lengths = np.asarray(lengths, np.int64)
        full = lengths if full_lengths is None else np.asarray(full_lengths, np.int64)
        return cls(np.asarray(ids, np.int64), ragged.cu_seqlens(lengths), full)

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each text, int32 `[texts]`."""
        return ragged.lengths(self.cu_seqlens)

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
        *,
        source: str = "Tokenizer",
    ) -> None:
        """Wrap a `tokenizers.Tokenizer`, which must not be changed afterwards; `config` is saved with it.

        Raises ValueError, naming `source`, for a tokenizer that cannot be used.
        """
        with library_errors(f"{source}: not a tokenizer that can be used"):
            backend.no_padding()
            backend.no_truncation()
            special = backend.encode("a").special_tokens_mask
            #: How many special tokens each text gets ([CLS] and [SEP]: 2).
            self.special_tokens: int = backend.num_special_tokens_to_add(False)
        self._backend = backend
        self._cuts_left = truncation_side == "left"
        self._leading: int = special.index(0) if 0 in special else 0
        self._trailing: int = self.special_tokens - self._leading
        self._cuts = Cuts(backend)
        #: The limit that the folder's tokenizer_config.json names, or None.
        self.model_max_length = model_max_length
        self._config = config or {}
        self._origin: tuple[str, bool, str] | None = None

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | os.PathLike[str], *, lowercase: bool = False, **place: Any
    ) -> Tokenizer:
        """Read tokenizer.json or else vocab.txt (BERT's WordPiece), and the files that add to it, as transformers does.

        These are tokenizer_config.json and, in old folders, added_tokens.json and special_tokens_map.json. The config's
        settings for case, accents and Chinese characters win.

        Args:
            name_or_folder: a Hugging Face folder, or the name of one, see `fastattn.hub.find_model`.
            lowercase: lower-case every text first, whatever the files say.
            place: options of `find_model`: `revision`, `token`, `local_files_only`.

        Raises:
            FileNotFoundError: neither tokenizer.json nor vocab.txt exists.
            ValueError: a file is damaged, vocab.txt is that of another `tokenizer_class` than BERT's, or an added token
                cannot get its id; the message names the file.
            ImportError: the `tokenizers` library is missing.
        """
        library = import_tokenizers()
        folder = folder_of(name_or_folder, FILES, **place)
        backend, config = read_tokenizer(folder)
        if lowercase and not _lowercases(backend.normalizer):
            steps = [library.normalizers.Lowercase()]
            if backend.normalizer is not None:
                steps.append(backend.normalizer)
            backend.normalizer = library.normalizers.Sequence(steps)
        side = config.get("truncation_side", "right")
        if side not in ("left", "right"):
            raise ValueError(
                f"{folder / 'tokenizer_config.json'}: truncation_side must be left or right, got {checks.shown(side)}"
            )
        tokenizer = cls(backend, length_limit(config), side, config, source=str(folder))
        tokenizer._origin = str(folder.absolute()), lowercase, _fingerprint(folder)
        return tokenizer

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write tokenizer.json and tokenizer_config.json, each whole or not at all; transformers reads them, too."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        added = self._backend.get_added_tokens_decoder().items()
        described = {str(i): {name: getattr(token, name) for name in ("content", *FLAGS)} for i, token in added}
        values = {
            **plain(self._config),
            "added_tokens_decoder": described,
        }
        with replacing(Path(folder, TOKENIZER), Path(folder, CONFIG)) as (tokenizer, config):
            tokenizer.write_text(self._backend.to_str(pretty=True), encoding="utf-8")
            config.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A pickle holds the folder's name and a checksum, or all of a tokenizer that has no folder."""
        return super().__reduce_ex__(protocol) if self._origin is None else (_from_origin, self._origin)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tokenizer:
        return self  # nothing changes it

    @property
    def vocab_size(self) -> int:
        """Number of token ids, added tokens included."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    def warn_of_tokens_beyond(self, rows: int) -> None:
        """Warn, naming the folder, about tokens that a model with `rows` embeddings does not have."""
        if self.vocab_size <= rows and self._backend.id_to_token(rows) is None:
            return
        beyond = sorted((i, token) for token, i in self._backend.get_vocab().items() if i >= rows)
        named = ", ".join(f"{checks.shown(token)} ({i})" for i, token in beyond[:_SHOWN])
        more = f" and {len(beyond) - _SHOWN} more" if len(beyond) > _SHOWN else ""
        source = self._origin[0] if self._origin else "Tokenizer"
        warnings.warn(
            f"{source}: the model has {rows} embeddings and none for these tokens: {named}{more}. "
            "A text with one of them is refused",
            stacklevel=3,
        )

    def encode(
        self,
        texts: Sequence[str],
        max_length: int | None = None,
        *,
        parallel: bool = True,
        name: str = "encode: texts",
        first: int = 0,
        rows: int | None = None,
    ) -> TokenizedTexts:
        """Tokenise texts, with special tokens.

        Args:
            texts: the texts.
            max_length: cut every text to this many tokens, special tokens included, at the folder's
                `truncation_side` (right unless it says left); None cuts nothing.
            parallel: let the `tokenizers` library use its threads.
            name: what error messages call `texts`.
            first: the index of the first text in error messages.
            rows: how many embeddings the model has; None if any id will do.

        Raises:
            TypeError: `texts` is one str, or an entry is not a str; the message names its index.
            ValueError: an entry cannot be written as UTF-8 or tokenised, or has an id from `rows` on; the message names
                its index. Or max_length is not more than the special tokens, or there are 2^31 tokens.
        """
        texts = checks.texts(name, texts, first=first)
        if max_length is not None:
            low, wanted = self.special_tokens + 1, f"more than the {self.special_tokens} special tokens"
            max_length = checks.integer("encode: max_length", max_length, low, wanted=wanted)
        ids: list[NDArray[np.int64]] = []
        full_lengths = np.empty(len(texts), np.int64)
        for start in range(0, len(texts), CHUNK):
            chunk = texts[start : start + CHUNK]
            chunk_ids = self._ids(chunk, parallel, name, first + start)
            full = np.fromiter(map(len, chunk_ids), np.int64, len(chunk_ids))
            full_lengths[start : start + len(chunk)] = full
            if max_length is not None and full.max() > max_length:
                for i in np.flatnonzero(full > max_length).tolist():
                    chunk_ids[i] = self._cut(chunk_ids[i], max_length)
                full = np.minimum(full, max_length)
            total = int(full.sum())
            ids.append(np.fromiter(itertools.chain.from_iterable(chunk_ids), np.int64, total))
        lengths = full_lengths if max_length is None else np.minimum(full_lengths, max_length)
        tokens = TokenizedTexts.of(np.concatenate(ids) if ids else [], lengths, full_lengths)
        if rows is not None:
            self.check_rows(tokens.ids, tokens.cu_seqlens, rows, name, first)
        return tokens

    def check_rows(
        self, ids: NDArray[np.int64], cu_seqlens: NDArray[np.integer[Any]], rows: int, name: str, first: int = 0
    ) -> None:
        """Raise ValueError for an id from `rows` on, with the index of its text."""
        if ids.max(initial=0) >= rows:
            place = int((ids >= rows).argmax())
            i = first + int(np.searchsorted(cu_seqlens, place, side="right")) - 1
            token = self._backend.id_to_token(int(ids[place]))
            raise ValueError(
                f"{name}[{i}] has the token {checks.shown(token)} ({ids[place]}), but the model has {rows} embeddings"
            )

    def _ids(self, texts: Sequence[str], parallel: bool, name: str, first: int) -> list[Ids]:
        backend = self._backend
        encode_batch = getattr(backend, "encode_batch_fast", backend.encode_batch)

        def encode(some: list[str]) -> list[list[int]]:
            if parallel and len(some) > 1:
                return [encoding.ids for encoding in encode_batch(some)]
            return [backend.encode(text).ids for text in some]

        def encode_all(some: Sequence[str]) -> list[Ids]:
            return encode_in_pieces(some, encode, self._cuts, self._leading, self._trailing)

        return by_index(name, texts, encode_all, first)

    def prefix_length(self, prefix: str) -> int:
        """Tokens that `prefix` takes at the start of a text, the leading [CLS] included."""
        ids: list[int] = self._backend.encode(prefix).ids
        return len(ids) - self._trailing

    def _cut(self, ids: Ids, max_length: int) -> Ids:
        """Drop the end (or, on the left, the beginning) of a text; the special tokens around it stay."""
        if self._cuts_left:
            return [*ids[: self._leading], *ids[len(ids) - (max_length - self._leading) :]]
        return [*ids[: max_length - self._trailing], *ids[len(ids) - self._trailing :]]


def _from_origin(folder: str, lowercase: bool, fingerprint: str) -> Tokenizer:
    """The tokenizer of a pickle. Raises ValueError when its files have changed since."""
    if _fingerprint(Path(folder)) != fingerprint:
        raise ValueError(f"{folder}: the files of this tokenizer have changed since it was pickled")
    return Tokenizer.from_pretrained(folder, lowercase=lowercase)


def _fingerprint(folder: Path) -> str:
    """A checksum of the files that a tokenizer is read from."""
    sha = hashlib.sha256()
    for name in NAMES:
        sha.update(b"%s\0" % (read_regular(folder / name) if (folder / name).is_file() else b""))
    return sha.hexdigest()


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
