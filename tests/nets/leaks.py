"""Whether calls of kernels leave memory behind that nobody can reach: run by sanitizers.py, under AddressSanitizer.

Every kernel is called as it should be and with what it refuses, alone and in a pass. LeakSanitizer counts what is lost
before and after many rounds: Python's own losses, at its start, are the same in both.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
import sys
import tempfile
from typing import Any

import numpy as np
from helpers_draws import Call, mapped

import fastattn
from examples import examples
from fastattn import _core, kernels

ROUNDS = 20


def lost() -> int:
    """How many allocations nobody can reach."""
    gc.collect()
    with tempfile.TemporaryFile() as report:
        stderr = os.dup(2)
        os.dup2(report.fileno(), 2)
        ctypes.CDLL(None).__lsan_do_recoverable_leak_check()
        os.dup2(stderr, 2)
        os.close(stderr)
        report.seek(0)
        text = report.read().decode(errors="replace")
    summary = re.findall(r"leaked in (\d+) allocation", text)
    if "LeakSanitizer has encountered a fatal error" in text:
        sys.exit(f"LeakSanitizer does not work here:\n{text}")
    return int(summary[-1]) if summary else 0


def call(example: Call) -> None:
    function = getattr(kernels, example.kernel)
    arguments = {name: value for name, value in example.given.items() if name != "reserve"}
    if "reserve" in example.given:
        forward = getattr(kernels, example.kernel.removesuffix("_backward"))
        no = {"dout", "dh_n", "dc_n", "need_dx", "need_dweights", "dweights"}
        *_, reserve = forward(
            **{name: value for name, value in arguments.items() if name not in no}, return_reserve=True
        )
        arguments["reserve"] = reserve
    arguments = mapped(arguments, lambda _, array: array.copy())
    function(**arguments)
    for name, value in arguments.items():
        if isinstance(value, np.ndarray):
            for wrong in (value.astype(np.float16), None, value[..., None]):
                with contextlib.suppress(TypeError, ValueError):
                    function(**arguments | {name: wrong})


def others() -> None:
    weight = np.ones((40, 30), np.float32)
    packed = kernels.PackedMatrix(weight)
    packed.unpack()
    kernels.linear(np.ones((3, 30), np.float32), packed)
    with fastattn.profile() as table:
        kernels.softmax(weight)
    str(table)
    try:
        with _core.Pass():
            kernels.softmax(kernels.softmax(weight))
            raise KeyError
    except KeyError:
        pass


def one_round(all_of: list[Call]) -> None:
    for example in all_of:
        call(example)
        with _core.Pass():
            call(example)
    others()
    fastattn.empty_cache()


def main() -> None:
    all_of: list[Any] = examples(4)
    one_round(all_of)
    before = lost()
    for _ in range(ROUNDS):
        one_round(all_of)
    more = lost() - before
    print(f"leaks: {len(all_of)} calls, {ROUNDS} rounds; {before} allocations of Python's start were lost, then {more}")
    sys.stdout.flush()
    # One may be hidden by a stale pointer, and another one come to light.
    os._exit(more >= ROUNDS // 2)


if __name__ == "__main__":
    main()
