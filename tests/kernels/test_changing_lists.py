"""Another thread changes a list that was given to a kernel: the call computes with what was in the list when it began.

Each case runs in a process of its own: arrays of 40 MB are unmapped as soon as nobody keeps them, and whoever reads
them then is killed.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import threading
import numpy as np
from fastattn import kernels

def zeros(*shape):
    return np.zeros(shape, np.float32)

WIDE = 40_000
GATES = {"lstm": 4, "gru": 3}
cu_seqlens = np.array([0, 16], np.int32)
offsets = np.array([0, 2500], np.int32)

def layer(kind):
    rows = GATES[kind] * 64
    return [[zeros(rows, WIDE), zeros(rows, 64), None, None]]

def weights_of(kind):
    weights, x = layer(kind), zeros(16, WIDE)
    def call():
        *_, reserve = getattr(kernels, kind)(x, cu_seqlens, weights, return_reserve=True)
        none = (None,) * len(_)
        getattr(kernels, kind + "_backward")(*none, x, cu_seqlens, weights, reserve)
    return weights[0], call

def inputs_of(kind):
    weights, x = [tuple(zeros(GATES[kind] * 4, n) for n in (4000, 4)) + (None, None)], [zeros(2500, 4000)]
    return x, lambda: getattr(kernels, kind)(x, offsets, weights)

def weights_of_char_cnn():
    weights = [zeros(250, 1, WIDE)]
    chars, biases = np.zeros((4, 1), np.int64), [zeros(250)]
    return weights, lambda: kernels.char_cnn(chars, zeros(2, WIDE), weights, biases)

def gradients():
    arrays = [zeros(WIDE, 250)]
    return arrays, lambda: kernels.gradient_norm(arrays)

items, call = CASE
running = True

def replace():
    while running:
        items[0] = zeros(*items[0].shape)

thread = threading.Thread(target=replace)
thread.start()
try:
    for _ in range(12):
        call()
finally:
    running = False
    thread.join()
"""


@pytest.mark.parametrize(
    "case",
    [
        *(f"{what}('{kind}')" for kind in ("lstm", "gru") for what in ("weights_of", "inputs_of")),
        "weights_of_char_cnn()",
        "gradients()",
    ],
)
def test_what_a_call_reads_stays_alive(case: str) -> None:
    program = PROGRAM.replace("CASE", case)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, f"returned {run.returncode}: {run.stderr}"
