"""Passes: kernels that are called one by one and computed together, with the interpreter's lock given up once."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, normal
from helpers_runtime import locks_given_up, output

import fastattn
from fastattn import _core, kernels
from fastattn.models import (
    BertConfig,
    BertModel,
)
from fastattn.runtime import counters

ROOT = Path(__file__).parents[1]


@pytest.fixture
def arrays() -> tuple[Any, Any]:
    return normal(np.random.default_rng(1), 2, 40, 48)


def chain(x: Any, w: Any) -> Any:
    """Kernels of every kind that can be deferred, each on the results of those before."""
    h = kernels.linear(x, w, activation="gelu")
    h = kernels.layer_norm(h, residual=kernels.linear(x, kernels.PackedMatrix(w)))
    parts = h.reshape(len(h), 3, 2, -1)  # views of results are no reading
    offsets = np.array([0, 3, len(h)], np.int32)
    h = kernels.scaled_dot_product_attention(parts[:, 0], parts[:, 1], parts[:, 2], cu_seqlens_q=offsets)
    h = kernels.scatter_rows(h.reshape(len(h), -1), np.arange(len(h)) + 2, np.ones((len(h) + 2, h[0].size), np.float32))
    h = kernels.softmax(kernels.gelu(h[2:]))
    return kernels.l2_normalize(kernels.pooling(h, offsets))


def test_the_bits_are_those_of_single_calls(isa: str, threads: int) -> None:
    x, w = normal(np.random.default_rng(1), 40, 40), normal(np.random.default_rng(2), 48, 40)
    expected = chain(x, w)
    with _core.Pass():
        found = chain(x, w)
    assert_same_bits(found, expected)


def test_what_python_gave_is_copied_or_kept(arrays: Any) -> None:
    """Ids and offsets are copied when a kernel is called; arrays live until the end of the pass."""
    x = arrays[0]
    expected = kernels.embedding(np.array([3, 5]), np.array(x))
    with _core.Pass():
        ids = np.array([3, 5])
        found = kernels.embedding(ids, np.array(x))  # nobody else has this table
        ids[:] = 10**9
        del ids
    assert_same_bits(found, expected)


def test_the_lock_is_given_up_once(arrays: Any) -> None:
    x, w = arrays

    def calls() -> None:
        for _ in range(20):
            kernels.linear(x, w)

    def in_a_pass() -> None:
        with _core.Pass():
            calls()

    assert (locks_given_up(in_a_pass), locks_given_up(calls, 20)) == (1, 20)
    before = counters()["locks_given_up"]
    with _core.Pass():
        pass
    assert counters()["locks_given_up"] == before


def test_nested_passes_are_one(arrays: Any) -> None:
    x, w = arrays
    before = counters()["locks_given_up"]
    with _core.Pass():
        with _core.Pass():
            y = kernels.linear(x, w)
        assert counters()["locks_given_up"] == before
        z = kernels.gelu(y)
    assert counters()["locks_given_up"] == before + 1
    assert_same_bits(z, kernels.gelu(kernels.linear(x, w)))


def test_what_must_be_seen_runs_the_list_first(arrays: Any) -> None:
    x, w = arrays
    expected = kernels.linear(x, w)
    with _core.Pass():
        y = kernels.linear(x, w)
        _core.run_pass()
        assert_same_bits(y, expected)
        z = kernels.linear(x, w)
        norm = kernels.gradient_norm([z])  # is computed at once, after z
        assert_same_bits(z, expected)
        packed = kernels.PackedMatrix(kernels.linear(x, w))  # reads what is not computed yet
        assert_same_bits(packed.unpack(), expected)
    assert norm == kernels.gradient_norm([expected])


def test_errors_come_at_the_call(arrays: Any) -> None:
    x, w = arrays
    done = np.zeros_like(kernels.linear(x, w))

    def wrong() -> None:
        with _core.Pass():
            kernels.linear(x, w, out=done)
            kernels.linear(x[:, 1:], w)

    with pytest.raises(ValueError, match="linear: x must have 48 columns"):
        wrong()
    assert not np.nan_to_num(done).any()  # a pass that an error ends is not computed; FASTATTN_POISON leaves NaN
    with _core.Pass():
        y = kernels.linear(x, w)
        with pytest.raises(ValueError, match="linear: x"):
            kernels.linear(x[:, 1:], w)
    assert_same_bits(y, kernels.linear(x, w))  # but one that somebody has caught does no harm


def test_a_pass_belongs_to_its_thread(arrays: Any) -> None:
    x, w = arrays
    expected, found = kernels.linear(x, w), []
    with _core.Pass():
        y = kernels.linear(x, w)

        def other() -> None:
            found.append(kernels.linear(x, w).tobytes())  # at once: this thread has no pass
            with _core.Pass():
                z = kernels.linear(x, w)
            found.append(z.tobytes())

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert found == [expected.tobytes()] * 2
    assert_same_bits(y, expected)
    one = _core.Pass()
    with pytest.raises(RuntimeError, match="a pass ends on the thread on which it began"):
        one.__exit__(None, None, None)


def test_the_table_of_kernels_is_read_once(arrays: Any) -> None:
    if len(fastattn.available_isas()) == 1:
        pytest.skip("this machine has one instruction set")
    x, w = arrays
    expected = kernels.linear(x, w)
    gradients = kernels.linear_backward(expected, x, w)
    with _core.Pass(), fastattn.use_isa("generic"):
        y = kernels.linear(x, w)
        at_once = kernels.linear_backward(expected, x, w)
    assert_same_bits(y, expected)
    for ours, theirs in zip(at_once, gradients, strict=True):
        assert_same_bits(ours, theirs)


def test_the_budget_of_threads_is_read_once() -> None:
    """A pass that begins with one thread starts no other, and takes the next pass's number no earlier."""
    if not Path("/proc/self/task").exists():
        pytest.skip("this system does not list threads")
    code = """
    import os, numpy as np, fastattn
    from fastattn import _core, kernels
    x = np.ones((600, 400), np.float32)
    def started():
        return len(os.listdir("/proc/self/task")) - before
    before = len(os.listdir("/proc/self/task"))
    with _core.Pass():
        kernels.linear(x, x)
        fastattn.set_num_threads(4)
        _core.run_pass()
        kernels.linear_backward(kernels.linear(x, x), x, x)
    print(started())
    with _core.Pass():
        kernels.linear(x, x)
    print(started())
    """
    assert output(code, FASTATTN_NUM_THREADS="1").split() == ["0", "3"]


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="no alarm on this system")
def test_a_signal_is_handled_within_a_long_pass() -> None:
    """Between kernels, every 100 ms. The handler computes, too, and a pass that it ends leaves nothing behind."""
    x = np.ones((2000, 1000), np.float32)
    seen = []

    class Stop(Exception):
        pass

    def handler(*_: Any) -> None:
        with _core.Pass():
            seen.append(kernels.linear(x[:1], x)[0, :3])
        raise Stop

    def compute_for_a_minute() -> None:
        out = np.empty((2000, 1000), np.float32)
        with _core.Pass():
            for _ in range(5000):
                kernels.linear(x, x[:1000], out=out)
            signal.setitimer(signal.ITIMER_REAL, 0.15)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(Stop):
            compute_for_a_minute()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert seen[0].tolist() == [1000, 1000, 1000]
    assert kernels.linear(x[:1], x)[0, 0] == 1000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_within_a_pass(arrays: Any) -> None:
    """Both have the list, and compute it."""
    x, w = arrays
    expected = kernels.linear(x, w).tobytes()
    with _core.Pass():
        y = kernels.linear(x, w)
        child = os.fork()
    if child == 0:
        os._exit(0 if y.tobytes() == expected else 3)
    assert os.waitpid(child, 0)[1] == 0
    assert y.tobytes() == expected


def test_memory_is_given_back(arrays: Any) -> None:
    x, w = arrays

    def refused() -> None:
        with suppress(ValueError):
            kernels.linear(x, w[:, 1:])

    calls = {
        "deferred": lambda: kernels.linear(x, w),
        "computed at once": lambda: kernels.linear_backward(x[:, :40], x, w[:40]),
        "refused": refused,
    }
    references = sys.getrefcount(x)
    for name, call in calls.items():
        for failed in (False, True):
            with suppress(KeyError), _core.Pass():
                for _ in range(10):
                    call()
                if failed:
                    raise KeyError
            assert sys.getrefcount(x) == references, name


def recurrent(kind: str, packed: bool) -> Any:
    rng = np.random.default_rng(2)
    gates, ends = (4 if kind == "lstm" else 3), np.array([0, 5, 5, 12], np.int32)

    def weight(n: int, k: int, groups: int = 1) -> Any:
        array = rng.standard_normal((n, k)).astype(np.float32)
        return kernels.PackedMatrix(array, groups) if packed else array

    def direction() -> Any:
        last = weight(8, 24) if kind == "lstm" else rng.standard_normal(72).astype(np.float32)
        bias, width = rng.standard_normal(24 * gates).astype(np.float32), 8 if kind == "lstm" else 24
        return weight(24 * gates, 16), weight(24 * gates, width, gates), bias, last

    x, weights = rng.standard_normal((12, 16)).astype(np.float32), [direction(), direction()]
    residual = {"residual": rng.standard_normal((12, 16)).astype(np.float32)} if kind == "lstm" else {}
    return lambda: getattr(kernels, kind)(kernels.gelu(x), ends.copy(), [tuple(w) for w in weights], **residual)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_recurrent_layers_in_a_pass(kind: str, packed: bool, isa: str) -> None:
    """Their order of steps lives until they are computed. What is packed for one call is computed at once."""
    call = recurrent(kind, packed)
    expected = call()
    with _core.Pass():
        before = counters()["locks_given_up"]
        found = [call() for _ in range(5)]
        assert (counters()["locks_given_up"] == before) == packed
    for results in found:
        for ours, theirs in zip(results, expected, strict=True):
            assert_same_bits(ours, theirs)


@pytest.mark.parametrize("packed", [True, False])
def test_a_char_cnn_in_a_pass(packed: bool, isa: str) -> None:
    rng = np.random.default_rng(3)
    ids, table = rng.integers(0, 9, (20, 7)), normal(rng, 9, 4)
    weights = [rng.standard_normal((n, width, 4)).astype(np.float32) for n, width in ((8, 1), (24, 3))]
    given = [kernels.PackedMatrix(w.reshape(len(w), -1)) for w in weights] if packed else weights
    biases = [rng.standard_normal(n).astype(np.float32) for n in (8, 24)]
    expected = kernels.char_cnn(ids, table, given, biases)
    with _core.Pass():
        before = counters()["locks_given_up"]
        found = kernels.char_cnn(ids.copy(), table, list(given), [bias.copy() for bias in biases])
        assert (counters()["locks_given_up"] == before) == packed
    assert_same_bits(found, expected)


def test_padding_reads_what_is_computed() -> None:
    config = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertModel(BertConfig(vocab_size=50, **config)).freeze()
    ids, mask = np.arange(12).reshape(3, 4), np.array([[1, 1, 1, 1], [0, 1, 1, 0], [1, 0, 0, 0]])
    asked = {"output_hidden_states": True, "output_attentions": True}
    expected = model(ids, mask, **asked)
    with _core.Pass():
        found = model(ids, mask, **asked)
    for name in ("last_hidden_state", "pooler_output"):
        assert_same_bits(getattr(found, name), getattr(expected, name))
    for name in ("hidden_states", "attentions"):
        for ours, theirs in zip(getattr(found, name), getattr(expected, name), strict=True):
            assert_same_bits(ours, theirs)


def test_poison_shows_who_reads_too_early() -> None:
    code = """
    import numpy as np
    from fastattn import _core, kernels, nn
    x = np.ones((3, 4), np.float32)
    out = np.zeros((3, 3), np.float32)
    with _core.Pass():
        y, z = kernels.linear(x, x), kernels.linear(x, x, out=out)
        early = np.isnan(y).all(), np.isnan(out).all()
        kernels.gelu(y, out=y)  # in place: y is still to be read
        kernels.linear(x, x, out=y)
    print(*early, np.isnan(y).any(), z is out, out[0, 0])
    """
    assert output(code, FASTATTN_POISON="1") == "True True False True 4.0"


def test_poison_fills_every_unfinished_result() -> None:
    """Second results, buffers that a kernel before still reads, and rows that are written into an array."""
    code = """
    import numpy as np
    from fastattn import _core, kernels
    q, ends = np.ones((12, 2, 8), np.float32), np.array([0, 5, 12], np.int32)
    x, target = np.ones((12, 16), np.float32), np.arange(12)
    attend = lambda: kernels.scaled_dot_product_attention(q, q, q, cu_seqlens_q=ends, return_attn_weights=True)
    expected = [*attend(), *kernels.cross_entropy(x, target), *kernels.layer_norm(x, return_stats=True)]
    expected += [kernels.linear(x, x), x + 1, x]
    with _core.Pass():
        found = [*attend(), *kernels.cross_entropy(x, target), *kernels.layer_norm(x, return_stats=True)]
        used, rows = x.copy(), x + 1
        found += [kernels.linear(used, x), kernels.scatter_rows(x[:3], np.arange(3), rows), used]
        kernels.linear(x[:, :3], x[:, :3], out=np.empty((12, 12), np.float32))
        kernels.linear(x, np.ones((16, 16), np.float32), out=used)
        early = [bool(np.isnan(array).all()) for array in found]
        try:
            kernels.linear(x, x, out=rows)  # of another shape
        except ValueError:
            pass
    expected[-2][:3], expected[-1] = 1, np.full((12, 16), 16, np.float32)
    print(all(early), [a.tobytes() == b.tobytes() for a, b in zip(found, expected)].count(False), rows is found[-2])
    kept = np.zeros((3, 3), np.float32)
    try:
        with _core.Pass():
            kernels.linear(kept, kept, out=np.empty((3, 3), np.float32))
            kernels.gelu(kept, out=kept)
            raise KeyError
    except KeyError:
        print(kept.sum())
    with _core.Pass():
        print(kernels.PackedMatrix(x).unpack().sum())
    """
    assert output(code, FASTATTN_POISON="1").splitlines() == ["True 0 True", "0.0", "192.0"]


def test_many_threads_with_a_pass_each() -> None:
    model = BertModel(
        BertConfig(vocab_size=50, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128)
    ).freeze()
    ids = np.arange(40).reshape(2, 20)
    expected = model(ids).last_hidden_state
    wrong = []

    def call() -> None:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            if model(ids).last_hidden_state.tobytes() != expected.tobytes():
                wrong.append(1)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_finalizer_at_the_end_of_a_failed_pass_has_a_list_of_its_own() -> None:
    w, seen = np.ones((4, 8), np.float32), []

    def compute() -> None:
        with _core.Pass():
            y = kernels.linear(np.ones((2, 8), np.float32), w)
        seen.append(float(y[0, 0]))

    for _ in range(20):
        with suppress(KeyError), _core.Pass():
            for _ in range(10):
                x = np.ones((2, 8), np.float32)
                weakref.finalize(x, compute)
                kernels.linear(x, w)
                del x
            raise KeyError
    assert seen == [8.0] * 200


def test_a_thread_that_ends_within_a_pass_keeps_nothing(arrays: Any) -> None:
    x, w = arrays
    counts = sys.getrefcount(x), sys.getrefcount(w)

    def call() -> None:
        _core.Pass().__enter__()
        kernels.linear(x, w)
        kernels.linear(x, w)

    for _ in range(3):
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
    end = time.monotonic() + 60
    while (sys.getrefcount(x), sys.getrefcount(w)) != counts and time.monotonic() < end:
        time.sleep(0.01)  # Python clears the state of a thread after it has been joined
    assert (sys.getrefcount(x), sys.getrefcount(w)) == counts


def test_a_pass_that_a_signal_ends_keeps_nothing() -> None:
    x, w = np.ones((512, 1024), np.float32), np.ones((1024, 1024), np.float32)
    refused = np.ones((4, 8), np.float32)
    counts = sys.getrefcount(x), sys.getrefcount(refused)

    def interrupt(*_: Any) -> None:
        raise KeyError

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyError), _core.Pass():  # noqa: PT012  # the end of the pass raises
            y = np.empty((512, 1024), np.float32)
            for _ in range(300):
                kernels.linear(x, w, out=y)
            with suppress(ValueError):
                kernels.linear(refused, w)
            signal.setitimer(signal.ITIMER_REAL, 0.01)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (sys.getrefcount(x), sys.getrefcount(refused)) == counts
