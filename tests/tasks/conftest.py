"""Models for the tests of the tasks."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def stsb() -> tuple[list[str], list[str], np.ndarray]:
    """The test split of the STS benchmark: first sentences, second sentences, scores."""
    data = Path(os.environ.get("FASTATTN_DATA") or Path(__file__).parents[3] / "shared" / "data")
    path = data / "stsb" / "stsb-en-test.csv"
    if not path.is_file():
        pytest.skip(f"the STS benchmark is missing: {path} (set FASTATTN_DATA)")
    with path.open(encoding="utf-8", newline="") as file:
        first, second, scores = zip(*csv.reader(file), strict=True)
    return list(first), list(second), np.array(scores, np.float64)
