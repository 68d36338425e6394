"""Another thread writes to numbers that a kernel finds its memory by: the call uses those that it has checked.

NumPy writes to large arrays without the interpreter's lock, and kernels run without it. Each case has a process of its
own, which the wrong number would kill.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import threading, time
import numpy as np
import fastattn
from fastattn import kernels

fastattn.set_num_threads(1)
FAR = 2**40
ROWS, DIM = 20_000, 32

def zeros(*shape):
    return np.zeros(shape, np.float32)

def ids(count=ROWS):
    return np.zeros(count, np.int64), FAR

def embedding():
    given = ids()
    return given, lambda: kernels.embedding(given[0], zeros(4, DIM))

def embedding_of_positions():
    given, weight = ids(), zeros(4, DIM)
    words = np.zeros(ROWS, np.int64)
    return given, lambda: kernels.embedding(words, weight, position_ids=given[0], position_weight=weight)

def embedding_of_types():
    given, weight = ids(), zeros(4, DIM)
    words = np.zeros(ROWS, np.int64)
    return given, lambda: kernels.embedding(words, weight, token_type_ids=given[0], token_type_weight=weight)

def embedding_backward():
    given, dy = ids(), zeros(ROWS, DIM)
    return given, lambda: kernels.embedding_backward(dy, given[0], 4)

def scatter_rows():
    given, into = (np.arange(ROWS), FAR), zeros(ROWS, DIM)
    return given, lambda: kernels.scatter_rows(zeros(ROWS, DIM), given[0], into)

def cross_entropy():
    given, logits = ids(), zeros(ROWS, DIM)
    return given, lambda: kernels.cross_entropy(logits, given[0])

def cross_entropy_backward():
    given, logits = ids(), zeros(ROWS, DIM)
    dloss, lse = zeros(ROWS), kernels.cross_entropy(logits, np.zeros(ROWS, np.int64))[1]
    return given, lambda: kernels.cross_entropy_backward(dloss, logits, given[0], lse)

def log_softmax_topk():
    given, x = ids(), zeros(ROWS, DIM)
    options = {"cu_ids": np.arange(ROWS + 1, dtype=np.int32), "factors": zeros(ROWS) + 2}
    return given, lambda: kernels.log_softmax_topk(x, 4, ids=given[0], **options)

def log_softmax_topk_of_offsets():
    given, x = offsets(), zeros(ROWS, DIM)
    options = {"ids": np.zeros(ROWS, np.int64), "factors": zeros(ROWS) + 2}
    return given, lambda: kernels.log_softmax_topk(x, 4, cu_ids=given[0], **options)

def char_cnn():
    words = ROWS // 10
    given, embedding, weight, bias = ids(words * 10), zeros(4, 8), zeros(16, 3, 8), zeros(16)
    chars = given[0].reshape(words, 10)
    return given, lambda: kernels.char_cnn(chars, embedding, [weight], [bias])

def char_cnn_backward(places=False):
    words = ROWS // 10
    chars, embedding, weight, bias = np.zeros((words, 10), np.int64), zeros(4, 8), zeros(16, 3, 8), zeros(16)
    y, argmax = kernels.char_cnn(chars, embedding, [weight], [bias], return_argmax=True)
    y[...] = dy = np.ones_like(y)
    given = (argmax.reshape(-1), 2**30) if places else (chars.reshape(-1), FAR)
    return given, lambda: kernels.char_cnn_backward(dy, chars, embedding, [weight], [bias], y, argmax)

def offsets():
    return np.arange(ROWS + 1, dtype=np.int32), 2**30

def pooling():
    given, x = offsets(), zeros(ROWS, DIM)
    return given, lambda: kernels.pooling(x, given[0])

def pooling_backward():
    given, x = offsets(), zeros(ROWS, DIM)
    return given, lambda: kernels.pooling_backward(x, x, given[0])

def crf(kernel, changes):
    tags, ends, x = np.zeros(ROWS, np.int64), np.arange(ROWS + 1, dtype=np.int32), zeros(ROWS, 4)
    scores = zeros(4, 4), zeros(4), zeros(4)
    given = (tags, FAR) if changes == "tags" else (ends, 2**30)
    if kernel == "crf":
        return given, lambda: kernels.crf(x, tags, ends, *scores)
    if kernel == "crf_viterbi":
        return given, lambda: kernels.crf_viterbi(x, ends, *scores)
    found = kernels.crf(x, tags, ends, *scores)
    return given, lambda: kernels.crf_backward(zeros(ROWS), x, tags, ends, *scores, *found)

def attention():
    given, x = offsets(), zeros(ROWS, 1, 8)
    queries = given[0].copy()
    call = kernels.scaled_dot_product_attention
    return given, lambda: call(x, x, x, cu_seqlens_q=queries, cu_seqlens_k=given[0])

def attention_backward():
    (given, far), x = offsets(), zeros(ROWS, 1, 8)
    out, lse = kernels.scaled_dot_product_attention(x, x, x, cu_seqlens_q=given, return_softmax_lse=True)
    call = kernels.scaled_dot_product_attention_backward
    return (given, far), lambda: call(x, x, x, x, out, lse, cu_seqlens_q=given)

def recurrent(gates):
    given, x = offsets(), zeros(ROWS, 4)
    weights = [(zeros(gates * 4, 4), zeros(gates * 4, 4), None, None)]
    call = kernels.lstm if gates == 4 else kernels.gru
    return given, lambda: call(x, given[0], weights)

(array, far), call = CASE
good, bad = array.copy(), array.copy()
bad[len(bad) // 2 : len(bad) - 8] = far
running = True

def write():
    while running:
        array[...] = bad
        array[...] = good

thread = threading.Thread(target=write)
thread.start()
done = refused = 0
end = time.monotonic() + 2
while time.monotonic() < end and not (done > 400 and refused > 400):
    try:
        call()
        done += 1
    except ValueError as error:  # it was wrong when it was checked
        assert " must " in str(error), error
        refused += 1
running = False
thread.join()
assert done, refused
"""


@pytest.mark.parametrize(
    "case",
    [
        "embedding()",
        "embedding_of_positions()",
        "embedding_of_types()",
        "embedding_backward()",
        "scatter_rows()",
        "cross_entropy()",
        "cross_entropy_backward()",
        "log_softmax_topk()",
        "log_softmax_topk_of_offsets()",
        "char_cnn()",
        "char_cnn_backward()",
        "char_cnn_backward(places=True)",
        "pooling()",
        "pooling_backward()",
        "crf('crf', 'tags')",
        "crf('crf', 'cu_seqlens')",
        "crf('crf_backward', 'tags')",
        "crf('crf_backward', 'cu_seqlens')",
        "crf('crf_viterbi', 'cu_seqlens')",
        "attention()",
        "attention_backward()",
        "recurrent(4)",
        "recurrent(3)",
    ],
)
def test_what_was_checked_is_what_is_used(case: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("CASE", case)], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, f"returned {run.returncode}: {run.stderr}"
