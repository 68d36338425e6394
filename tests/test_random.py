"""fastattn.random: one state for the process, which can be saved and restored."""

from __future__ import annotations

import json
import os
import signal
import threading
from typing import Any

import numpy as np
import pytest

import fastattn
from fastattn.random import get_rng_state, next_seed, record_seeds, replay_seeds, set_rng_state


def test_the_same_seed_gives_the_same_numbers() -> None:
    draws = []
    for seed in (5, 5, 6):
        fastattn.manual_seed(seed)
        draws.append([next_seed() for _ in range(100)])
    assert draws[0] == draws[1]
    assert not set(draws[0]) & set(draws[2])
    assert len(set(draws[0])) == 100
    assert all(0 <= seed < 2**64 for seed in draws[0])
    assert 40 < sum(seed >> 63 for seed in draws[0]) < 60


def test_published_numbers() -> None:
    """The first outputs of SplitMix64 from the seed 1234567, as its author's test has them."""
    fastattn.manual_seed(1234567)
    assert [next_seed() for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_a_state_goes_through_json() -> None:
    fastattn.manual_seed(2**64 - 1)
    next_seed()
    state = json.loads(json.dumps(get_rng_state()))
    expected = [next_seed() for _ in range(5)]
    fastattn.manual_seed(0)
    set_rng_state(state)
    assert [next_seed() for _ in range(5)] == expected


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "1"])
def test_a_seed_that_is_none(seed: int) -> None:
    with pytest.raises(ValueError, match=r"^manual_seed: seed must be an integer in \[0, 2\^64\), got "):
        fastattn.manual_seed(seed)
    with pytest.raises(ValueError, match=r"^set_rng_state: counter must be an integer"):
        set_rng_state({"seed": 1, "counter": seed})


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.uint64])
def test_integers_of_numpy(kind: Any) -> None:
    fastattn.manual_seed(3)
    expected = next_seed()
    fastattn.manual_seed(kind(3))
    assert json.loads(json.dumps(get_rng_state())) == {"seed": 3, "counter": 0}
    assert next_seed() == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks, which this system cannot")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_while_another_thread_draws() -> None:
    """The child does not wait for a thread that it does not have."""
    with fastattn.random._state.lock:
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            next_seed()
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("state", [{}, {"seed": 1}, {"seed": 1, "counter": 2, "more": 3}])
def test_a_state_that_is_none(state: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must have 'seed' and 'counter'"):
        set_rng_state(state)


def test_threads_draw_from_one_state() -> None:
    fastattn.manual_seed(1)
    expected = {next_seed() for _ in range(4000)}
    fastattn.manual_seed(1)
    drawn: list[int] = []
    threads = [threading.Thread(target=lambda: drawn.extend([next_seed() for _ in range(1000)])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drawn) == 4000
    assert set(drawn) == expected


def test_recorded_and_replayed() -> None:
    """Only what this thread draws, and the state goes on from where it was."""
    with record_seeds() as seeds:
        first = [next_seed(), next_seed()]
        other = threading.Thread(target=next_seed)
        other.start()
        other.join()
    assert seeds == first
    state = get_rng_state()
    with replay_seeds(seeds):
        assert [next_seed(), next_seed()] == first
        with pytest.raises(RuntimeError, match="drew more random numbers"):
            next_seed()
    with pytest.raises(RuntimeError, match="drew fewer random numbers"), replay_seeds(seeds):
        next_seed()
    with pytest.raises(KeyError), replay_seeds(seeds):  # what went wrong first is told
        raise KeyError
    assert get_rng_state() == state
    assert next_seed() not in first
