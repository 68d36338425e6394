"""SentencePiece models, read field by field."""

from __future__ import annotations

import contextlib
import io
import struct
from pathlib import Path

import pytest
from helpers_bundles import field, fixed, varint

from fastattn.formats import protobuf
from fastattn.formats.sentencepiece_model import MAX_MODEL, read_sentencepiece_model


def piece(text: bytes, score: float = 0.0, kind: int | None = None) -> bytes:
    number = struct.unpack("<I", struct.pack("<f", score))[0]
    return field(1, field(1, text) + fixed(2, number) + (b"" if kind is None else field(3, kind)))


def write(folder: Path, data: bytes) -> Path:
    path = folder / "spiece.model"
    path.write_bytes(data)
    return path


def test_pieces_scores_and_types(tmp_path: Path) -> None:
    trainer, normalizer = field(2, field(3, 1) + field(4, 8000)), field(3, field(1, b"nfkc") + field(2, b"\x01\x02"))
    data = piece(b"<unk>", kind=2) + piece(b"[CLS]", kind=3) + piece("▁é".encode(), -1.5) + piece(b".", kind=4)
    model = read_sentencepiece_model(write(tmp_path, data + trainer + normalizer))
    assert model.pieces == [("<unk>", 0.0), ("[CLS]", 0.0), ("▁é", -1.5), (".", 0.0)]
    assert model.whole == {"[CLS]": True, ".": False}
    assert (model.kind, model.charsmap) == ("Unigram", b"\x01\x02")
    assert read_sentencepiece_model(write(tmp_path, data + field(2, field(3, 2)))).kind == "BPE"
    assert read_sentencepiece_model(write(tmp_path, data + field(2, field(3, 9)))).kind == "number 9"


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_models_of_the_library(tmp_path: Path, kind: str) -> None:
    library = pytest.importorskip("sentencepiece")
    written = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat on the mat", "a naïve dog", "ein Hund"]), model_writer=written,
        vocab_size=40, model_type=kind, hard_vocab_limit=False, minloglevel=2, user_defined_symbols=["<x>"],
    )  # fmt: skip
    model = read_sentencepiece_model(write(tmp_path, written.getvalue()))
    theirs = library.SentencePieceProcessor(model_proto=written.getvalue())
    assert model.pieces == [(theirs.id_to_piece(i), theirs.get_score(i)) for i in range(theirs.get_piece_size())]
    assert model.whole == {"<s>": True, "</s>": True, "<x>": False}
    assert model.kind.lower() == kind
    assert len(model.charsmap) > 1000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no pieces"),
        (b"<html>", "damaged"),
        (piece(b"a")[:-1], "damaged"),
        (field(1, 5), "damaged: an entry has a number for text"),
        (piece(b"\xff"), "is not UTF-8"),
        (piece(b"a", float("nan")), "the score of the piece 'a' must be finite"),
        (piece(b"a", float("inf")), "the score of the piece 'a' must be finite"),
        (piece(b"a") + varint(2 << 3 | 2) + varint(10**9), "damaged"),
        (piece(b"a") + field(2, 7), "damaged: an entry has a number for text"),
    ],
)
def test_damaged_models_are_refused_by_name(tmp_path: Path, data: bytes, message: str) -> None:
    path = write(tmp_path, data)
    with pytest.raises(ValueError, match=message) as caught:
        read_sentencepiece_model(path)
    assert str(caught.value).startswith(f"{path}: not a SentencePiece model: ")


def test_every_cut_of_a_model_is_read_or_refused(tmp_path: Path) -> None:
    data = piece(b"<unk>", kind=2) + piece(b"ab", -2.0) + field(2, field(3, 1)) + field(3, field(2, b"xyz"))
    read = []
    for end in range(len(data)):
        with contextlib.suppress(ValueError):
            read.append(read_sentencepiece_model(write(tmp_path, data[:end])).pieces)
    assert read  # a model may end behind any of its fields
    assert all(pieces[0] == ("<unk>", 0.0) for pieces in read)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path, b"")
    with open(path, "wb") as file:
        file.truncate(MAX_MODEL + 1)
    with pytest.raises(ValueError, match="at most"):
        read_sentencepiece_model(path)


def test_a_number_has_at_most_ten_bytes() -> None:
    assert protobuf.varint(b"\xff" * 9 + b"\x01", 0) == (2**64 - 1, 10)
    assert protobuf.varint(b"\x80" * 9 + b"\x00\x07", 0) == (0, 10)
    for data in (b"", b"\x80", b"\x80" * 10 + b"\x00"):
        with pytest.raises(ValueError, match="a number does not end"):
            protobuf.varint(data, 0)
