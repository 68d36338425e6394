"""What `fastattn info --selftest` tries on the machine that it is installed on.

Every kernel is compared with `fastattn.reference` in float64, on every instruction set that the processor has, with one
thread and with several. A tiny model runs, trains a step, and gives each sequence the same bits in every batch.
"""

from __future__ import annotations

import importlib
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastattn import kernels, reference, runtime
from fastattn.cli.selftest_kernels import CASES, Array, Draw, arrays_of

TOLERANCE = 2e-5
"""The largest difference from the reference, as a share of the largest number of an array."""
TEXT_PACKAGES = ("tokenizers", "huggingface_hub", "tqdm")
CHILD_SECONDS = 20.0


@dataclass
class Check:
    """A line of the table. What is optional and missing counts as good."""

    name: str
    good: bool
    found: str


def run() -> list[Check]:
    """All checks. The instruction set and the number of threads are afterwards as they were."""
    isa, threads = runtime.isa(), runtime.num_threads()
    expected = {name: list(arrays_of(case(reference, Draw(np.float64)))) for name, case in CASES.items()}
    try:
        return [_guarded(name, check) for name, check in _checks(expected, isa, max(2, threads))]
    finally:
        runtime.use_isa(isa)
        runtime.set_num_threads(threads)


def render(checks: list[Check]) -> str:
    """The table, and a last line that says whether all is well."""
    wide = max(len(check.name) for check in checks)
    lines = [f"{check.name:<{wide}}  {'ok    ' if check.good else 'FAILED'}  {check.found}" for check in checks]
    failed = sum(not check.good for check in checks)
    return "\n".join([*lines, "", f"{failed} of {len(checks)} checks failed" if failed else "all is well"])


def _checks(expected: dict[str, list[Array]], isa: str, threads: int) -> Iterator[tuple[str, Callable[[], str]]]:
    for each in runtime.available_isas():
        yield f"{each}: kernels", lambda each=each: _kernels(each, threads, expected)  # type: ignore[misc]
        yield f"{each}: model", lambda each=each: _model(each, threads)  # type: ignore[misc]
    yield "training", lambda: _training(isa)
    yield "forked child", _fork
    yield "text extra", _text_extra


def _guarded(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except Exception as error:  # a broken machine may raise anything
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        return Check(name, False, f"{kind}{error}")


def _kernels(isa: str, threads: int, expected: dict[str, list[Array]]) -> str:
    """Compare all kernels with the reference, and one thread with several."""
    runtime.use_isa(isa)
    worst = 0.0
    for name, case in CASES.items():
        results = []
        for count in (1, threads):
            runtime.set_num_threads(count)
            results.append(list(arrays_of(case(kernels, Draw(np.float32)))))
        for i, (one, several, wanted) in enumerate(zip(*results, expected[name], strict=True)):
            _require(one.shape == wanted.shape, f"{name}: result {i} has shape {one.shape}, not {wanted.shape}")
            off = _difference(one, wanted)
            _require(off <= TOLERANCE, f"{name}: result {i} is off by {off:.1e} of its largest number")
            _require(one.tobytes() == several.tobytes(), f"{name}: other bits with {threads} threads than with 1")
            worst = max(worst, off)
    return f"{len(CASES)} kernels within {worst:.0e} of the reference, the same bits with 1 and {threads} threads"


def _difference(found: Array, wanted: Array) -> float:
    largest = np.abs(wanted).max(initial=0.0)
    difference = np.abs(found.astype(np.float64) - wanted).max(initial=0.0)
    return float(np.nan_to_num(difference, nan=np.inf) / (largest or 1.0))


def _tiny_model() -> Any:
    from fastattn import random
    from fastattn.models import BertConfig, BertForSequenceClassification

    random.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 96,
    }
    return BertForSequenceClassification(BertConfig(vocab_size=100, max_position_embeddings=64, num_labels=2, **sizes))


def _model(isa: str, threads: int) -> str:
    """Run a tiny model, and compare each sequence alone with the batch."""
    runtime.use_isa(isa)
    runtime.set_num_threads(threads)
    model = _tiny_model().eval()
    lengths = np.array([1, 60, 7, 33])
    ids = np.random.default_rng(0).integers(0, 100, int(lengths.sum()))
    ends = np.cumsum(lengths)
    together = model.forward_ragged(ids, np.array([0, *ends])).logits.numpy()
    _require(bool(np.isfinite(together).all()), "the scores of a tiny model are not finite")
    for i, (end, length) in enumerate(zip(ends, lengths, strict=True)):
        alone = model.forward_ragged(ids[end - length : end], np.array([0, length])).logits.numpy()
        _require(alone.tobytes() == together[i : i + 1].tobytes(), f"sequence {i} has other bits alone than in a batch")
    return "runs; each sequence has the same bits alone and in a batch"


def _training(isa: str) -> str:
    """Train steps of a tiny model on one batch: its loss falls."""
    from fastattn.training import AdamW

    runtime.use_isa(isa)
    model = _tiny_model()
    optimizer = AdamW(model.parameters(), lr=1e-3)
    ids = np.random.default_rng(1).integers(0, 100, (8, 16))
    losses = []
    for _ in range(8):
        loss = model(ids, labels=np.arange(8) % 2).loss
        losses.append(float(loss.numpy()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    falls = bool(np.isfinite(losses).all()) and losses[-1] < losses[0]
    _require(falls, f"the loss goes from {losses[0]} to {losses[-1]}")
    return f"the loss of a tiny model falls from {losses[0]:.3f} to {losses[-1]:.3f} in 8 steps"


def _fork() -> str:
    """Compute in a forked child of this process, whose threads have worked."""
    if not hasattr(os, "fork"):
        return "this system has no fork"
    draw = Draw(np.float32)
    x, weight = draw(256, 256), draw(256, 256)
    expected = kernels.linear(x, weight)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forking with threads, which is what is tried
        child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(kernels.linear(x, weight), expected) else 1)
    until = time.monotonic() + CHILD_SECONDS
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError(f"a forked child has not computed after {CHILD_SECONDS:.0f} seconds")
        time.sleep(0.01)
    code = os.waitstatus_to_exitcode(ended[1])
    _require(code == 0, f"a forked child ended with status {code}")
    return "computes the same"


def _text_extra() -> str:
    missing = []
    for name in TEXT_PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    return f'missing: {", ".join(missing)}; pip install "fastattn[text]"' if missing else "installed"


def _require(good: bool, message: str) -> None:
    if not good:
        raise AssertionError(message)
