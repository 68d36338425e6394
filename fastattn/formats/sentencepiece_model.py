"""SentencePiece models (`sentencepiece.bpe.model`, `spiece.model`), read without the sentencepiece library.

A model is one protocol buffer. Source: sentencepiece_model.proto of SentencePiece.
"""

from __future__ import annotations

import math
import os
import struct
from typing import Any, NamedTuple

from fastattn.checks import shown
from fastattn.files import read_regular
from fastattn.formats.protobuf import content, integer, message

__all__ = ["SentencePieceModel", "read_sentencepiece_model"]

MAX_MODEL = 2**25
"""Bytes. The model of XLM-RoBERTa, with 250,000 pieces, has 5 MB."""

_KINDS = {1: "Unigram", 2: "BPE", 3: "word", 4: "character"}
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # types of pieces


class SentencePieceModel(NamedTuple):
    """A model.

    Attributes:
        kind: "Unigram", "BPE", "word" or "character".
        pieces: each piece with its score.
        whole: the pieces that are found in a text as they are: True for one that controls, False for a user's.
        charsmap: how characters are normalized, in SentencePiece's own form; empty if they are not.
    """

    kind: str
    pieces: list[tuple[str, float]]
    whole: dict[str, bool]
    charsmap: bytes


def read_sentencepiece_model(path: str | os.PathLike[str]) -> SentencePieceModel:
    """Read a model. Raises OSError, and ValueError, naming the file, for one that is damaged."""
    data = read_regular(path, MAX_MODEL)
    try:
        fields = message(data)
        pieces, whole = [], {}
        for piece in fields.get(1, []):
            text, score, kind = _piece(piece)
            pieces.append((text, score))
            if kind in (_CONTROL, _USER_DEFINED):
                whole[text] = kind == _CONTROL
        if not pieces:
            raise ValueError("no pieces")
        kind = integer(message(content(fields, 2)), 3, 1)
        return SentencePieceModel(
            _KINDS.get(kind, f"number {kind}"), pieces, whole, content(message(content(fields, 3)), 2)
        )
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: not a SentencePiece model: {error}") from None


def _piece(data: Any) -> tuple[str, float, int]:
    """The text, the score and the type of a piece."""
    if not isinstance(data, bytes):
        raise ValueError("damaged: an entry has a number for text")
    fields = message(data)
    try:
        text = content(fields, 1).decode()
    except UnicodeDecodeError:
        raise ValueError(f"damaged: the piece {shown(content(fields, 1))} is not UTF-8") from None
    bits = integer(fields, 2)
    score = struct.unpack("<f", bits.to_bytes(4, "little"))[0] if bits < 2**32 else math.nan
    if not math.isfinite(score):
        raise ValueError(f"the score of the piece {shown(text)} must be finite, got {score}")
    return text, score, integer(fields, 3, _NORMAL)
