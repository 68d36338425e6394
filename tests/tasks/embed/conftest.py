"""A small encoder for the tests of sentence embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def encoder(tmp_path: Path) -> Any:
    pytest.importorskip("tokenizers", reason="needs the tokenizers library")
    from helpers_sentences import write_model

    from fastattn.tasks import SentenceEncoder

    return SentenceEncoder(write_model(tmp_path / "model"), truncation="silent")
