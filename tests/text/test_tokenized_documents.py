"""Wordpieces of documents, on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from fastattn.text import Documents, TokenizedDocuments, Tokenizer, tokenized_documents, train_wordpiece

WORDS = ["low lower lowest", "new newer newest", "wide wider widest"]


def test_wordpieces_of_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = train_wordpiece(WORDS * 3, 60)
    given = [["low lower", "\u200d", "new"], ["\u200d"], ["widest wide", "newest lowest low", "new"], ["low"] * 7]
    kept = [[text for text in document if text != "\u200d"] for document in given]
    kept = [document for document in kept if document]
    for most in (1, 2, 3, 4096):
        monkeypatch.setattr(tokenized_documents, "_SENTENCES", most)
        found = TokenizedDocuments.read(Documents.of(given), tokenizer)
        sentences = [text for document in kept for text in document]
        pieces = [tokenizer.encode([text]).ids[1:-1].tolist() for text in sentences]
        assert found.ids.tolist() == [i for some in pieces for i in some]
        assert np.diff(found.offsets).tolist() == [len(some) for some in pieces]
        assert np.diff(found.bounds).tolist() == [len(document) for document in kept]
        assert found.counts.tolist() == np.bincount(found.ids, minlength=tokenizer.vocab_size).tolist()
        assert len(found) == 3


def test_words_are_looked_up_only_where_they_are_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("tokenizers")
    texts = ["low  lower\u00a0new", " low\u2028new ", "new\u0085er [MASK] wide\tnew", "e\u0301 \u0301e Low,newest!"]
    texts += ["x" * 300, "\u732bnew", "low[MASK]er", "\u200dlow", "LOW\u03a3 new\u03a3"]
    tokenizer = train_wordpiece(WORDS * 3, 60)
    joined = Tokenizer(library.Tokenizer.from_str(tokenizer._backend.to_str()))
    joined._backend.add_tokens(["low lower"])
    encoded: list[str] = []
    encode = Tokenizer.encode
    monkeypatch.setattr(
        Tokenizer, "encode", lambda self, some, **more: encoded.extend(some) or encode(self, some, **more)
    )
    for each, words in ((tokenizer, True), (joined, False)):
        encoded.clear()
        found = TokenizedDocuments.read(Documents.of([texts, texts, ["low lower"]]), each)
        seen = (
            [word for text in encoded for word in text.removesuffix(" [SEP] ").split(" [SEP] ")] if words else encoded
        )
        assert (len(seen) == len(set(seen))) == words
        wanted = [encode(each, [text]).ids[1:-1].tolist() for text in [*texts, *texts, "low lower"]]
        assert found.ids.tolist() == [i for some in wanted for i in some]
        assert np.diff(found.offsets).tolist() == [len(some) for some in wanted if some]
        monkeypatch.setattr(tokenized_documents, "_WORDS", 3)
        assert TokenizedDocuments.read(Documents.of([texts, texts, ["low lower"]]), each).crc32 == found.crc32


def test_new_words_are_tokenised_together(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*WORDS, "[SEP] low [SEP][SEP] new[SEP]er", "low[sep]er [MASK]new`er", " \u200d [SEP]\u0301 low"]
    tokenizer = train_wordpiece(WORDS * 3, 60)
    calls: list[int] = []
    encode = Tokenizer.encode
    monkeypatch.setattr(
        Tokenizer, "encode", lambda self, some, **more: calls.append(len(some)) or encode(self, some, **more)
    )
    found = TokenizedDocuments.read(Documents.of([texts, [f"low{i}" for i in range(500)]]), tokenizer)
    assert sum(calls) < 20  # texts, for more than 500 words
    wanted = [encode(tokenizer, [text]).ids[1:-1].tolist() for text in texts]
    assert found.ids[: sum(map(len, wanted))].tolist() == [i for some in wanted for i in some]
    assert np.diff(found.offsets)[: len(texts)].tolist() == [len(some) for some in wanted]


def test_an_error_names_the_text() -> None:
    tokenizer = train_wordpiece(WORDS * 3, 60)
    with pytest.raises(ValueError, match=r"^sentences\[3\]"):
        TokenizedDocuments.read(["low low low", "new new", "", "wide", "low new \ud800"], tokenizer)


def test_the_checksum_sees_every_difference() -> None:
    tokenizer = train_wordpiece(WORDS * 3, 60)
    texts = [["low lower", "new"], ["new"]], [["low", "lower new"], ["new"]], [["low lower"], ["new", "new"]]
    assert len({TokenizedDocuments.read(Documents.of(text), tokenizer).crc32 for text in texts}) == 3


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = train_wordpiece(WORDS * 3, 60)
    monkeypatch.setattr(tokenized_documents.tempfile, "TemporaryFile", lambda: open("/dev/full", "wb"))  # noqa: SIM115
    if not Path("/dev/full").exists():
        pytest.skip("/dev/full is a device of Linux")
    with pytest.raises(OSError, match="No space left on device") as caught:
        TokenizedDocuments.read(Documents.of([WORDS, WORDS]), tokenizer)
    assert caught.value.filename == tokenized_documents.tempfile.gettempdir()
