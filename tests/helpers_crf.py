"""Linear-chain conditional random fields: calls with the scores of all tags, and all tag sequences one by one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from helpers import cumulative, normal

SCORES = ("emissions", "transitions", "start_transitions", "end_transitions")


def case(
    rng: np.random.Generator, lengths: tuple[int, ...], num_tags: int, forbidden: float = 0.0, dtype: Any = np.float32
) -> dict[str, Any]:
    """The arguments of `crf`, with this part of the transitions forbidden."""
    tokens = sum(lengths)
    shapes = ((tokens, num_tags), (num_tags, num_tags), (num_tags,), (num_tags,))
    given = {name: normal(rng, *shape).astype(dtype) for name, shape in zip(SCORES, shapes, strict=True)}
    given["emissions"] *= 2
    given["transitions"][rng.random((num_tags, num_tags)) < forbidden] = -np.inf
    return given | {"tags": rng.integers(0, num_tags, tokens), "cu_seqlens": cumulative(lengths)}


def without_tags(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name != "tags"}


def sequences(given: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Each sequence as a call of its own."""
    for begin, end in itertools.pairwise(given["cu_seqlens"].tolist()):
        own = {name: given[name][begin:end].copy() for name in ("emissions", "tags") if name in given}
        yield given | own | {"cu_seqlens": cumulative((end - begin,))}


def scores(given: dict[str, Any]) -> dict[tuple[int, ...], float]:
    """The score of every tag sequence of a call with one sequence."""
    e, steps = given["emissions"].tolist(), given["transitions"].tolist()
    first, last = given["start_transitions"].tolist(), given["end_transitions"].tolist()
    if not e:
        return {(): 0.0}
    found = {}
    for path in itertools.product(range(len(first)), repeat=len(e)):
        terms = [first[path[0]], last[path[-1]], *(row[tag] for row, tag in zip(e, path, strict=True))]
        found[path] = math.fsum(terms) if -math.inf not in terms else -math.inf
        found[path] += sum(steps[a][b] for a, b in itertools.pairwise(path))
    return found


def ranked(given: dict[str, Any], n: int) -> list[tuple[tuple[int, ...], float]]:
    """The n best tag sequences, of equal ones that with the lower last tags first."""
    allowed = [(path, score) for path, score in scores(given).items() if score > -math.inf]
    return sorted(allowed, key=lambda item: (-item[1], item[0][::-1]))[:n]
