"""Vocabularies of both kinds."""

import pytest
from small_vocabularies import make

from fastattn.text.subwords import Subwords


@pytest.fixture(params=["characters", "byte pairs"])
def vocabulary(request: pytest.FixtureRequest) -> Subwords:
    return make(request.param)
