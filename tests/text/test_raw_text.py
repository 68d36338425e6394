"""Raw text: documents, sentences, their wordpieces on disk, and a vocabulary made of them."""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from fastattn.text import (
    Documents,
    TokenizedDocuments,
    Tokenizer,
    split_sentences,
    tokenized_documents,
    train_wordpiece,
)

DATA = Path(os.environ.get("FASTATTN_DATA") or Path(__file__).parents[3] / "shared" / "data")
WORDS = ["low lower lowest", "new newer newest", "wide wider widest"]


def documents_of(sentences: Documents) -> list[list[str]]:
    groups = itertools.groupby(sentences, key=bool)
    return [list(group) for is_text, group in groups if is_text]


def test_a_sentence_a_line_and_a_blank_line_between_documents(tmp_path: Path) -> None:
    path, other = tmp_path / "a.txt", tmp_path / "b.txt"
    path.write_bytes("\ufeff\nOne.  \r\nTwo! Three.\r\n\r\n \r\nFour\u2028five.".encode())
    other.write_text("Six.\n", encoding="utf-8")
    data = Documents([path, other])
    assert documents_of(data) == [["One.", "Two! Three."], ["Four\u2028five."], ["Six."]]
    assert list(data) == list(data)
    assert data.crc32 == Documents([str(path), other]).crc32 != Documents([path]).crc32
    assert documents_of(Documents.of([["One.", " "], [], ["Two."]])) == [["One."], ["Two."]]


def test_paragraphs_and_headings(tmp_path: Path) -> None:
    path = tmp_path / "wiki.txt"
    text = """
 = Lobster =

 It is blue . It bites !

 = = Life = =

 It lives .
 = Crab =
 x = 3 = y
# Shrimp
Pink.
"""
    path.write_text(text, encoding="utf-8")
    assert documents_of(Documents([path], paragraphs=True)) == [
        ["= Lobster =", "It is blue .", "It bites !", "= = Life = =", "It lives ."],
        ["= Crab =", "x = 3 = y"],
        ["# Shrimp", "Pink."],
    ]
    assert documents_of(Documents([path]).with_paragraphs(True)) == documents_of(Documents([path], True))


@pytest.mark.parametrize(
    ("paragraph", "count"),
    [
        ("", 0),
        ("  ", 0),
        ("No end", 1),
        ("One. Two? Three! Four… Five", 5),
        ('He said "Go." She went.', 2),
        ("Pi is 3.14. Good.", 2),
        ("It costs e.g. two. Dr. No met H. Smith vs. them.", 2),
        ("It met H. americanus . it fled", 1),
        ("\u5b83\u4f86\u4e86\u3002\u5b83\u8d70\u4e86\uff01\u597d", 3),
        ("Wait... what? Yes.", 2),
    ],
)
def test_sentences_of_a_paragraph(paragraph: str, count: int) -> None:
    found = split_sentences(paragraph)
    assert len(found) == count
    assert "".join("".join(found).split()) == "".join(paragraph.split())


def test_real_texts() -> None:
    wiki, sample = DATA / "wikitext2" / "wiki.valid.raw", DATA / "google_bert" / "sample_text.txt"
    if not wiki.is_file() or not sample.is_file():
        pytest.skip(f"no texts in {DATA} (set FASTATTN_DATA)")
    found = documents_of(Documents([wiki], paragraphs=True))
    assert len(found) == 60  # the articles
    assert found[0][0] == "= Homarus gammarus ="
    assert sum(map(len, found)) > 8000
    assert len(documents_of(Documents([sample]))) > 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "text.txt: there is no text"),
        (b"\n \r\n", "text.txt: there is no text"),
        (b"\xff\xfea\0", "text.txt:1: not UTF-8 text, but UTF-16; convert it to UTF-8"),
        (b"fine\nnot \xff\n", "text.txt:2: not UTF-8: byte 0xff at 5"),
    ],
)
def test_files_that_are_no_text(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        list(Documents([path]))


def test_other_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError):
        Documents([tmp_path / "missing"])
    with pytest.raises(ValueError, match="/dev/zero: not a regular file"):
        Documents(["/dev/zero"])
    with pytest.raises(TypeError, match=r"paths must be a sequence of files, got the one 'a.txt'"):
        Documents("a.txt")
    with pytest.raises(TypeError, match=r"documents\[1\]\[0\] must be str, got int"):
        Documents.of([["a"], [1]])  # type: ignore[list-item]
    path = tmp_path / "long.txt"
    path.write_text("short\n" + "a " * 600, encoding="utf-8")
    monkeypatch.setattr("fastattn.files.LINE_LIMIT", 1000)
    with pytest.raises(ValueError, match=r"long.txt:2: the line has more than 1000 bytes"):
        list(Documents([path]))


# Wordpieces


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
        assert (len(encoded) == len(set(encoded))) == words
        wanted = [encode(each, [text]).ids[1:-1].tolist() for text in [*texts, *texts, "low lower"]]
        assert found.ids.tolist() == [i for some in wanted for i in some]
        assert np.diff(found.offsets).tolist() == [len(some) for some in wanted if some]
        monkeypatch.setattr(tokenized_documents, "_WORDS", 3)
        assert TokenizedDocuments.read(Documents.of([texts, texts, ["low lower"]]), each).crc32 == found.crc32


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


# A vocabulary


def test_a_vocabulary_from_text(tmp_path: Path) -> None:
    tokenizer = train_wordpiece(WORDS * 3, 40, model_max_length=64)
    tokenizer.save_pretrained(tmp_path)
    again = Tokenizer.from_pretrained(tmp_path)
    assert again.vocab_size == tokenizer.vocab_size <= 40
    assert again.model_max_length == 64
    texts = ["Low lowest!", "wider [MASK] newest"]
    assert again.encode(texts).ids.tolist() == tokenizer.encode(texts).ids.tolist()
    backend = tokenizer._backend
    assert [backend.id_to_token(i) for i in range(5)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert tokenizer.encode(["LOW"]).ids.tolist() == tokenizer.encode(["low"]).ids.tolist()
    cased = train_wordpiece(["Low low LOW"] * 3, 60, lowercase=False)
    assert cased.encode(["LOW"]).ids.tolist() != cased.encode(["low"]).ids.tolist()


def test_the_same_text_gives_the_same_vocabulary() -> None:
    rng = random.Random(0)
    texts = [" ".join("".join(rng.choices("abcdefghij", k=5)) for _ in range(20)) for _ in range(40)]
    found = [train_wordpiece(texts, 200)._backend.get_vocab() for _ in range(3)]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 200


def test_vocabularies_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"vocab_size must be at least .* for the characters of the text, got 10"):
        train_wordpiece(WORDS, 10)
    with pytest.raises(ValueError, match="the texts have no characters"):
        train_wordpiece(["", " "], 100)


def test_punctuation_does_not_go_on_with_a_word() -> None:
    vocabulary = train_wordpiece(["a,b c. \u732b"] * 5, 60)._backend.get_vocab()
    assert {",", ".", "\u732b", "##a", "##b"} <= set(vocabulary)
    assert not {"##,", "##.", "##\u732b"} & set(vocabulary)
