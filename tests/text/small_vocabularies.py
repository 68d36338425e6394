"""Vocabularies of both kinds over a few texts."""

from __future__ import annotations

import pytest

from fastattn.text import BytePairs, Characters
from fastattn.text.subwords import Subwords

TEXTS = ["the cat sat on the mat", "the dog saw a cat", "a naïve dog", "ein Hund 🐈"]


def make(kind: str) -> Subwords:
    if kind == "characters":
        return Characters.build(TEXTS)
    pytest.importorskip("tokenizers", reason="needs the tokenizers library")
    return BytePairs.train(TEXTS, 60)
