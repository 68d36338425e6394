"""Long texts in pieces. The `tokenizers` library takes 50 to 600 bytes for each character of what it is given at once.

    [ids] = encode_in_pieces([text], encode, Cuts(backend), leading=1, trailing=1)

BERT's tokenizers cut a text into words before anything else, at whitespace and at punctuation, so the ids of a text are
the ids of its pieces, if these are cut there.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Ids = Sequence[int]

PIECE = 1 << 15
"""The most characters of a piece, where there is a place to cut. Shorter texts stay whole."""
AT_ONCE = 1 << 18
"""The characters that are given to the library at once, about."""

_ENDS = " \n\t.,;:!?\u3002\uff0c\u3001"  # a word of BERT's ends before and behind each
_IDEOGRAPHS = "\u4e00-\u9fff"  # each is a word, if the normalizer says so
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
        each = any(step.get("handle_chinese_chars") for step in steps) and not re.search(f"[{_IDEOGRAPHS}]", added)
        pattern = f"[{re.escape(''.join(ends))}{_IDEOGRAPHS if each else ''}]"
        self._end = re.compile(pattern) if self._ends else None

    def pieces(self, text: str) -> Iterator[str]:
        """The pieces of a text, which together are the text.

        A piece has at most `PIECE` characters. It is longer if there is no place to cut.
        """
        start = 0
        while self._end is not None and len(text) - start > PIECE:
            last = max(text.rfind(end, start, start + PIECE) for end in self._ends)
            if last < 0:
                found = self._end.search(text, start + PIECE)
                if found is None:
                    break
                last = found.start()
            yield text[start : last + 1]
            start = last + 1
        yield text[start:]


def encode_in_pieces(
    texts: Sequence[str], encode: Callable[[list[str]], list[list[int]]], cuts: Cuts, leading: int, trailing: int
) -> list[Ids]:
    """The ids of texts, as `encode` gives them, which gets about `AT_ONCE` characters in each call.

    `leading` and `trailing` are how many special tokens `encode` puts around each text.
    """
    if sum(map(len, texts)) <= PIECE:
        return list(encode(list(texts)))
    found: list[Ids] = []
    for owners, some in _batches(texts, cuts):
        for owner, ids in zip(owners, encode(some), strict=True):
            if owner == len(found):
                found.append(ids)
            else:
                found[owner] = _joined(found[owner], ids, leading, trailing)
    return found


def _joined(before: Ids, ids: list[int], leading: int, trailing: int) -> Ids:
    """The ids of two pieces of a text, which become one array of 4 bytes a token."""
    joined = before if isinstance(before, array) else array("i", before)
    end = joined[len(joined) - trailing :]
    del joined[len(joined) - trailing :]
    joined.extend(ids[leading : len(ids) - trailing])
    joined.extend(end)
    return joined


def _batches(texts: Sequence[str], cuts: Cuts) -> Iterator[tuple[list[int], list[str]]]:
    """Pieces of texts, and the places of their texts, of about `AT_ONCE` characters."""
    owners: list[int] = []
    some: list[str] = []
    length = 0
    for i, text in enumerate(texts):
        for piece in cuts.pieces(text) if len(text) > PIECE else (text,):
            if length + len(piece) > AT_ONCE and some:
                yield owners, some
                owners, some, length = [], [], 0
            owners.append(i)
            some.append(piece)
            length += len(piece)
    yield owners, some
