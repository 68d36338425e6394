"""A tiny biLM, and a tagger of LSTMs over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fastattn
from fastattn.models import BidirectionalLanguageModel, ElmoConfig
from fastattn.tasks import Tagger
from fastattn.text import ConllSentence

SMALL: dict[str, Any] = {"word_dim": 6, "hidden_size": 8, "batch_size": 4, "epochs": 2, "plot": False}
NAMES = [["the", "cat", "sat"], ["query", "."]]


def write_bilm(folder: Path, **changes: Any) -> Path:
    fastattn.manual_seed(5)
    sizes: dict[str, Any] = {"filters": ((1, 4), (2, 4)), "dim": 8, "projection_dim": 4, "max_characters_per_token": 12}
    BidirectionalLanguageModel(ElmoConfig(vocabulary_size=5, **{**sizes, **changes})).save_pretrained(folder)
    return folder


def write_network(folder: Path) -> None:
    """A tagger of names, with a CRF over ELMo's layers."""
    bilm = write_bilm(folder.with_name(f"{folder.name}-bilm"))
    data = [ConllSentence.from_words(words, ["B-PER", *["O"] * (len(words) - 1)]) for words in NAMES]
    Tagger.for_training(bilm, data, network="lstm-crf", features="elmo", **SMALL).save_pretrained(folder)
