"""A vocabulary of wordpieces, trained from text."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from fastattn.text import Tokenizer, train_wordpiece

WORDS = ["low lower lowest", "new newer newest", "wide wider widest"]


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
