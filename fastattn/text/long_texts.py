"""Long texts in pieces. The `tokenizers` library takes 50 to 600 bytes for each character of what it is given at once.

    flat = flattened([text], encode, Cuts(backend), places=False)

BERT's tokenizers cut a text into words before anything else, at whitespace and at punctuation, so the ids of a text are
the ids of its pieces, if these are cut there.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fastattn._types import IntArray
from fastattn.text.tokenized import Flat, Places

PIECE = 1 << 15
"""The most characters of a piece, where there is a place to cut. Shorter texts stay whole."""
AT_ONCE = 1 << 18
"""The characters that are given to the library at once, about."""

_ENDS = " \n\t.,;:!?\u3002\uff0c\u3001"  # a word of BERT's ends before and behind each
_IDEOGRAPHS = "\u4e00", "\u9fff"  # the first and the last: each is a word, if the normalizer says so
_BY_CHARACTER = ("BertNormalizer", "Lowercase")  # normalizers that see no more than a character


class Cuts:
    """Where a tokenizer's texts may be cut: behind a space, a punctuation mark or an ideograph, if it is BERT's."""

    def __init__(self, backend: Any) -> None:
        state = {"type": "Sequence", "normalizers": []}
        if backend.normalizer is not None:
            state = json.loads(backend.normalizer.__getstate__())
        steps: Any = state["normalizers"] if state["type"] == "Sequence" else [state]
        words = type(backend.pre_tokenizer).__name__ == "BertPreTokenizer"
        added = "".join(token.content for token in backend.get_added_tokens_decoder().values())  # none is cut
        ends = [end for end in _ENDS if end not in added]
        known = words and all(step["type"] in _BY_CHARACTER for step in steps)
        self._ends = ends if known else []
        first, last = _IDEOGRAPHS
        each = any(step.get("handle_chinese_chars") for step in steps) and not any(first <= c <= last for c in added)
        self._pattern = f"[{re.escape(''.join(ends))}{f'{first}-{last}' if each else ''}]"

    def pieces(self, text: str) -> Iterator[str]:
        """The pieces of a text, which together are the text.

        A piece has at most `PIECE` characters. It is longer if there is no place to cut.
        """
        start = 0
        while self._ends and len(text) - start > PIECE:
            last = max(text.rfind(end, start, start + PIECE) for end in self._ends)
            if last < 0:
                found = re.compile(self._pattern).search(text, start + PIECE)  # re keeps it: 2 ms that few texts need
                if found is None:
                    break
                last = found.start()
            yield text[start : last + 1]
            start = last + 1
        yield text[start:]


def flattened(
    texts: Sequence[Any],
    encode: Callable[[list[Any]], list[Any]],
    cuts: Cuts | None,
    around: tuple[list[int], list[int]] | None = None,
    places: bool = False,
) -> Flat:
    """Texts as `encode` gives them, which gets about `AT_ONCE` characters in each call.

    Args:
        texts: the texts; sequences of words, if `cuts` is None.
        encode: the library's Encodings of some texts, without special tokens.
        cuts: where a text may be cut.
        around: the special tokens before and behind each text; None adds none.
        places: keep the characters and words of each token.
    """
    lengths, starts, counts = ([0] * len(texts) for _ in range(3))  # tokens, characters and words of each so far
    offsets, words = [], []
    leading, trailing = around or ([], [])

    def tokens() -> Iterator[list[int]]:
        before = -1
        for owners, some in _batches(texts, cuts):
            for owner, piece, encoding in zip(owners, some, encode(some), strict=True):
                if owner != before and around is not None:
                    yield leading if before < 0 else trailing + leading
                before = owner
                ids = encoding.ids
                lengths[owner] += len(ids)
                yield ids
                if places:
                    found = np.array(encoding.word_ids, np.int64) + counts[owner]
                    words.append(found)
                    offsets.append(np.array(encoding.offsets, np.int64).reshape(-1, 2) + starts[owner])
                    starts[owner] += len(piece)
                    counts[owner] = int(found.max(initial=counts[owner] - 1)) + 1
        yield trailing if before >= 0 else []

    ids = np.fromiter(itertools.chain.from_iterable(tokens()), np.int64)
    kept = Places(_concatenated(offsets).reshape(-1, 2), _concatenated(words)) if places else None
    return Flat(ids, np.array(lengths, np.int64), kept, around is not None)


def _concatenated(parts: list[IntArray]) -> IntArray:
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _batches(texts: Sequence[Any], cuts: Cuts | None) -> Iterator[tuple[list[int], list[Any]]]:
    """Pieces of texts, and the places of their texts, of about `AT_ONCE` characters."""
    owners: list[int] = []
    some: list[Any] = []
    length = 0
    for i, text in enumerate(texts):
        for piece in (text,) if cuts is None or len(text) <= PIECE else cuts.pieces(text):
            size = len(piece) if cuts is not None else sum(map(len, piece))
            if length + size > AT_ONCE and some:
                yield owners, some
                owners, some, length = [], [], 0
            owners.append(i)
            some.append(piece)
            length += size
    if some:
        yield owners, some
