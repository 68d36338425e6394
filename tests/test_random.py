"""fastattn.random: one state for the process, which can be saved and restored."""

from __future__ import annotations

import doctest
import json
import threading

import pytest

import fastattn
from fastattn import random
from fastattn.random import get_rng_state, next_seed, record_seeds, replay_seeds, set_rng_state


def test_doctest() -> None:
    assert doctest.testmod(random).failed == 0


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
    with pytest.raises(ValueError, match="seed must be an integer in"):
        fastattn.manual_seed(seed)


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
    assert get_rng_state() == state
    assert next_seed() not in first
