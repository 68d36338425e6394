"""A server with a model of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from helpers_serving import make_tasks

    return make_tasks(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def client(served: dict[str, Any]) -> Iterator[Any]:
    from helpers_serving import client_of

    with client_of(served) as client:
        yield client


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from helpers_sentences import write_case

    return write_case("normalize", tmp_path_factory.mktemp("folder") / "encoder")
