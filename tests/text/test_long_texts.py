"""Long texts in pieces have the ids of whole texts, and the library gets few characters at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

import tokenizers
from helpers_sentences import write_bert

from fastattn.text import Tokenizer, long_texts
from fastattn.text.long_texts import Cuts

ALPHABET = [
    *"abcxyzABC İßéñ",
    *" \t\n\r\x0b\x0c\x85\u00a0\u2028\u3000\u200b\ufeff\0\x1c",
    *".,;:!?'\"-_()#@$%/\\",
    *"猫犬山\u3002\uff0c\u3001\uff01\u300c\u300d",
    *("e\u0301", "\u0301", "\u0338", "\u3099", "\ud55c", "\u1112\u1161", "\U0001f408", "\u200d"),
    *("the", "cat", "sat", "[MASK]", "[SEP]", "[PAD]", "[unused1]", "foo bar", "x.y", "abcdef", "a" * 120),
]


def texts(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(ALPHABET, size=rng.integers(0, 60))) for _ in range(count)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bert(tmp_path / "bert")


def variants(folder: Path) -> Iterator[tuple[str, Tokenizer]]:
    plain = Tokenizer.from_pretrained(folder)
    yield "plain", plain
    yield "lowercase", Tokenizer.from_pretrained(folder, lowercase=True)
    for name, options in (
        ("accents stay", {"strip_accents": False, "lowercase": True}),
        ("accents go", {"strip_accents": True, "lowercase": False}),
        ("ideographs stay", {"handle_chinese_chars": False}),
    ):
        state = json.loads(plain._backend.to_str())
        state["normalizer"] = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                               "strip_accents": None, "lowercase": True} | options  # fmt: skip
        yield name, Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(state)))
    for name, token in (
        ("a token of two words", tokenizers.AddedToken("foo bar")),
        ("a token with a mark", tokenizers.AddedToken("x.y", normalized=False)),
        ("a whole word", tokenizers.AddedToken("the", single_word=True)),
        ("an ideograph", tokenizers.AddedToken("猫犬", normalized=False)),
        ("greedy", tokenizers.AddedToken("cat", lstrip=True, rstrip=True, normalized=False)),
    ):
        backend = tokenizers.Tokenizer.from_str(plain._backend.to_str())
        backend.add_tokens([token])
        yield name, Tokenizer(backend)
    backend = tokenizers.Tokenizer.from_str(plain._backend.to_str())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    yield "other words", Tokenizer(backend)


@pytest.mark.parametrize(("piece", "at_once"), [(1, 1), (2, 20), (5, 7), (13, 1000)])
def test_ids_are_those_of_the_whole_text(folder, monkeypatch, piece, at_once):
    some = texts(150, piece)
    for name, tokenizer in variants(folder):
        whole = {limit: tokenizer.encode(some, limit) for limit in (None, 3, 10)}
        with monkeypatch.context() as patch:
            patch.setattr(long_texts, "PIECE", piece)
            patch.setattr(long_texts, "AT_ONCE", at_once)
            for limit, wanted in whole.items():
                found = tokenizer.encode(some, limit, parallel=bool(piece % 2))
                for field in ("ids", "cu_seqlens", "full_lengths"):
                    assert getattr(found, field).tolist() == getattr(wanted, field).tolist(), (name, limit, field)


def test_pieces_are_the_text(monkeypatch, folder):
    for name, tokenizer in variants(folder):
        for text in texts(50, 9):
            for size in (1, 4, 30):
                monkeypatch.setattr(long_texts, "PIECE", size)
                found = list(tokenizer._cuts.pieces(text))
                assert "".join(found) == text
                assert len(found) == 1 or all(found[:-1]), name


def test_what_is_not_berts_is_not_cut(folder):
    *_, (name, other) = variants(folder)
    assert name == "other words"
    assert list(other._cuts.pieces("a " * long_texts.PIECE)) == ["a " * long_texts.PIECE]
    backend = other._backend
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    assert len(list(Cuts(backend).pieces("a " * long_texts.PIECE))) == 2
    for steps in ([tokenizers.normalizers.NFKC()], [tokenizers.normalizers.Lowercase(), tokenizers.normalizers.NFC()]):
        backend.normalizer = tokenizers.normalizers.Sequence(steps)
        assert len(list(Cuts(backend).pieces("a " * long_texts.PIECE))) == 1
    backend.normalizer = None
    assert len(list(Cuts(backend).pieces("a " * long_texts.PIECE))) == 2


class Counting:
    """A backend that counts what it gets at once."""

    def __init__(self, backend: Any) -> None:
        self._backend, self.most, self.characters = backend, 0, 0

    def encode_batch(self, some: list[str], **options: Any) -> Any:
        self._count(sum(map(len, some)))
        return self._backend.encode_batch(some, **options)

    encode_batch_fast = encode_batch

    def encode(self, text: str, **options: Any) -> Any:
        self._count(len(text))
        return self._backend.encode(text, **options)

    def _count(self, characters: int) -> None:
        self.most = max(self.most, characters)
        self.characters += characters


def test_the_library_gets_few_characters_at_once(folder):
    tokenizer = Tokenizer.from_pretrained(folder)
    for some in (["the cat sat . " * 200_000], ["猫" * 1_000_000], ["the cat sat . " * 2000] * 100, ["cat"] * 3):
        backend = tokenizer._backend = Counting(Tokenizer.from_pretrained(folder)._backend)
        found = tokenizer.encode(some, 12)
        assert found.lengths.max() <= 12
        assert backend.characters == sum(map(len, some))  # each character once
        assert backend.most <= long_texts.AT_ONCE
    whole = Tokenizer.from_pretrained(folder)._backend.encode("the cat sat . " * 10_000).ids
    assert tokenizer.encode(["the cat sat . " * 10_000]).ids.tolist() == whole
