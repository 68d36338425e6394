"""Every kernel from several threads at once, while others change the settings: run by sanitizers.py, under
ThreadSanitizer. All results must have the bits of calls one after another. The process ends beside a thread that calls
on."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from helpers_draws import Call, leaves, mapped

import fastattn
from examples import examples
from fastattn import _core, kernels
from fastattn.runtime import counters

CALLERS = 3
wrong: list[str] = []


def floats(*shape: int) -> Any:
    return np.random.default_rng(len(shape)).standard_normal(shape, dtype=np.float32)


def large() -> list[Callable[[], Any]]:
    """Calls that two threads share: pieces of rows, phases of products and of sequences."""
    x, weight = floats(300, 160), floats(256, 160)
    ends = np.array([0, 5, 60, 61, 90, 120], np.int32)
    packed, y = kernels.PackedMatrix(weight), floats(300, 256)
    words = floats(120, 32)
    lstm = [(floats(128, 32), floats(128, 32) * np.float32(0.1), None, None)] * 2
    gru = [(floats(96, 32), floats(96, 32) * np.float32(0.1), None, None)] * 2
    q = floats(120, 2, 16)
    ids = np.arange(120) % 7
    *_, lstm_kept = kernels.lstm(words, ends, lstm, return_reserve=True)
    *_, gru_kept = kernels.gru(words, ends, gru, return_reserve=True)
    out, lse = kernels.scaled_dot_product_attention(q, q, q, cu_seqlens_q=ends, return_softmax_lse=True)
    _, mean, rstd = kernels.layer_norm(y, return_stats=True)
    letters = np.arange(120 * 9).reshape(120, 9) % 7
    word_weights = ([floats(40, 3, 16)], [floats(40)])
    return [
        lambda: kernels.linear(x, weight, activation="gelu"),
        lambda: kernels.linear(x, packed),
        lambda: kernels.linear_backward(y, x, weight),
        lambda: kernels.layer_norm(y),
        lambda: kernels.layer_norm_backward(y, y, floats(256), mean, rstd),
        lambda: kernels.softmax(y),
        lambda: kernels.cross_entropy(y, np.arange(300) % 256),
        lambda: kernels.embedding_backward(y[:120], ids, 7),
        lambda: kernels.pooling(words, ends),
        lambda: kernels.char_cnn(letters, floats(7, 16), *word_weights),
        lambda: kernels.lstm(words, ends, lstm),
        lambda: kernels.lstm_backward(words.repeat(2, 1), None, None, words, ends, lstm, lstm_kept),
        lambda: kernels.gru(words, ends, gru),
        lambda: kernels.gru_backward(words.repeat(2, 1), None, words, ends, gru, gru_kept),
        lambda: kernels.scaled_dot_product_attention(q, q, q, cu_seqlens_q=ends),
        lambda: kernels.scaled_dot_product_attention_backward(q, q, q, q, out, lse, cu_seqlens_q=ends),
        lambda: kernels.gradient_norm([x, weight, y]),
        lambda: kernels.highway(floats(300, 64), floats(128, 64), floats(128)),
    ]


def small(example: Call) -> Callable[[], Any]:
    """A drawn call, with its own copies of what it may change."""
    function = getattr(kernels, example.kernel)

    def call() -> Any:
        arguments = mapped(example.given, lambda _, array: array.copy())
        return function(**arguments), arguments

    return call


def bits(result: Any) -> list[bytes]:
    return [array.tobytes() for _, array in leaves([result])]


def caller(calls: list[Callable[[], Any]], expected: list[list[bytes]], seed: int, rounds: int) -> None:
    for _ in range(rounds):
        for i in np.random.default_rng(seed).permutation(len(calls)):
            if i % 3 == 0:
                with _core.Pass():
                    result = calls[i]()
            else:
                result = calls[i]()
            if bits(result) != expected[i]:
                wrong.append(f"call {i}")


def disturber(stop: threading.Event) -> None:
    for i in range(1_000_000):
        if stop.is_set():
            return
        fastattn.set_num_threads(1 + i % 4)
        counters()
        if i % 5 == 0:
            fastattn.empty_cache()
        if i % 7 == 0:
            with fastattn.profile() as table:
                kernels.PackedMatrix(floats(200, 90)).unpack()
            str(table)
        time.sleep(0.002)


def endless() -> None:
    x = floats(600, 600)
    with fastattn.profile():
        while True:
            kernels.linear(x, x)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    begin = time.monotonic()
    fastattn.set_num_threads(1)
    calls = large() + [small(example) for example in examples(3) if "reserve" not in example.given]
    expected = [bits(call()) for call in calls]
    stop = threading.Event()
    threads = [threading.Thread(target=caller, args=(calls, expected, seed, rounds)) for seed in range(CALLERS)]
    other = threading.Thread(target=disturber, args=(stop,))
    other.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    other.join()
    threading.Thread(target=endless, daemon=True).start()
    time.sleep(0.5)
    print(f"storm: {CALLERS} callers, {CALLERS * rounds * len(calls)} calls, {time.monotonic() - begin:.0f} s")
    sys.exit("\n".join(["other bits:", *sorted(set(wrong))]) if wrong else 0)


if __name__ == "__main__":
    main()
