"""The random state of the process: a seed and a counter. It can be saved and restored, and any thread may draw.

>>> manual_seed(7)
>>> first = next_seed()
>>> state = get_rng_state()
>>> second = next_seed()
>>> set_rng_state(state)
>>> next_seed() == second, first == second
(True, False)
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from fastattn.checks import integer

__all__ = ["get_rng_state", "manual_seed", "next_seed", "record_seeds", "replay_seeds", "set_rng_state"]

_MASK = 2**64 - 1


class _State:
    lock = threading.Lock()
    seed = 0
    counter = 0


class _Thread(threading.local):
    drawn: list[int] | None = None
    replay: Iterator[int] | None = None


_state = _State()
_thread = _Thread()


def _unlock() -> None:
    _state.lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # in the child no thread would release it
    os.register_at_fork(after_in_child=_unlock)


def manual_seed(seed: int) -> None:
    """Restart the draws. Dropout and new parameters depend only on `seed`, in [0, 2^64), from now on.

    Raises ValueError for another seed.
    """
    _set(checked_rng_state({"seed": seed, "counter": 0}, "manual_seed"))


def get_rng_state() -> dict[str, int]:
    """The current state: `seed` and `counter`, the number of draws since `manual_seed`."""
    with _state.lock:
        return {"seed": _state.seed, "counter": _state.counter}


def set_rng_state(state: Mapping[str, int]) -> None:
    """Go back to a state from `get_rng_state`. Raises ValueError if `state` is not one."""
    _set(checked_rng_state(state))


def checked_rng_state(state: Mapping[str, int], owner: str = "set_rng_state") -> dict[str, int]:
    """`state`, if it is one from `get_rng_state`. Raises ValueError, naming the `owner`."""
    if set(state) != {"seed", "counter"}:
        raise ValueError(f"{owner}: state must have 'seed' and 'counter', got {sorted(state)}")
    wanted = "an integer in [0, 2^64)"
    return {
        name: integer(f"{owner}: {name}", state[name], 0, 2**64, wanted, error=ValueError)
        for name in ("seed", "counter")
    }


def _set(state: Mapping[str, int]) -> None:
    with _state.lock:
        _state.seed, _state.counter = state["seed"], state["counter"]


def next_seed() -> int:
    """Draw 64 random bits: a seed for one dropout, or for one parameter.

    Source: SplitMix64 (Steele et al. 2014, figure 17), at the draw's number.
    """
    if _thread.replay is None:
        with _state.lock:
            _state.counter += 1
            z = _state.seed + 0x9E3779B97F4A7C15 * _state.counter & _MASK
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
        seed: int | None = z ^ z >> 31
    else:
        seed = next(_thread.replay, None)
    if seed is None:
        raise RuntimeError("checkpoint: the function drew more random numbers when it ran again")
    if _thread.drawn is not None:
        _thread.drawn.append(seed)
    return seed


@contextmanager
def record_seeds() -> Iterator[list[int]]:
    """Collect in a list the seeds that this thread, and no other, draws within the block."""
    before, _thread.drawn = _thread.drawn, []
    try:
        yield _thread.drawn
    finally:
        _thread.drawn = before


@contextmanager
def replay_seeds(seeds: list[int]) -> Iterator[None]:
    """Make `next_seed` return these seeds to this thread. Raises RuntimeError if more or fewer are drawn."""
    before, left = _thread.replay, iter(seeds)
    _thread.replay = left
    try:
        yield
        if next(left, None) is not None:
            raise RuntimeError("checkpoint: the function drew fewer random numbers when it ran again")
    finally:
        _thread.replay = before
