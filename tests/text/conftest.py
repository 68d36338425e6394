"""The small model folders of tests/tasks are used here too."""

import sys
from pathlib import Path

import pytest
from small_vocabularies import make

from fastattn.text.subwords import Subwords

sys.path.insert(0, str(Path(__file__).parents[1] / "tasks"))


@pytest.fixture(params=["characters", "byte pairs"])
def vocabulary(request: pytest.FixtureRequest) -> Subwords:
    return make(request.param)
