"""Passes: kernels that are called one by one and computed together, with the interpreter's lock given up once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, normal
from helpers_runtime import output

import fastattn
from fastattn import _core, kernels, nn
from fastattn import functional as F
from fastattn.models import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    BidirectionalLanguageModel,
    Elmo,
    ElmoConfig,
    Transformer,
    TransformerConfig,
)
from fastattn.runtime import counters
from fastattn.tasks import WordEncoder
from fastattn.tasks.embed.modules import Pooling

ROOT = Path(__file__).parents[1]


@pytest.fixture
def arrays() -> tuple[Any, Any]:
    return normal(np.random.default_rng(1), 2, 40, 48)


def transformer(**changes: Any) -> Transformer:
    sizes = {"d_model": 16, "max_position_embeddings": 128}
    for side in ("encoder", "decoder"):
        sizes |= {f"{side}_layers": 3, f"{side}_attention_heads": 2, f"{side}_ffn_dim": 24}
    return Transformer(TransformerConfig(vocab_size=50, **{**sizes, **changes})).eval().freeze()


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
    before = counters()["locks_given_up"]
    with _core.Pass():
        for _ in range(20):
            kernels.linear(x, w)
    assert counters()["locks_given_up"] == before + 1
    for _ in range(20):
        kernels.linear(x, w)
    assert counters()["locks_given_up"] == before + 21
    with _core.Pass():
        pass
    assert counters()["locks_given_up"] == before + 21


@pytest.mark.parametrize(("heads", "team"), [(2, 2), (4, 2), (4, 4)])
def test_a_pass_of_a_model_gives_up_the_lock_once_and_wakes_the_workers_once(heads: int, team: int) -> None:
    code = f"""
    import time, numpy as np, fastattn
    from fastattn.models import BertConfig, BertModel
    from fastattn.runtime import counters
    config = BertConfig(vocab_size=50, hidden_size=256, num_hidden_layers=4, num_attention_heads={heads},
                        intermediate_size=1024)
    model = BertModel(config).freeze().eval()
    ids = np.arange(40).reshape(1, 40)
    model(ids)
    counts, passes, end = set(), 0, time.monotonic() + 60
    while (passes < 5 or (1, 1) not in counts) and time.monotonic() < end:
        time.sleep(0.05)  # the worker falls asleep, unless the machine is busy
        before, start = counters(), time.monotonic()
        model(ids)
        after = counters()
        if time.monotonic() - start > 0.1:
            continue  # a longer pass takes the lock in between
        counts.add(tuple(after[name] - before[name] for name in ("locks_given_up", "workers_woken")))
        passes += 1
    print(*sorted(counts))
    """
    assert output(code, FASTATTN_NUM_THREADS=str(team)) in ("(1, 1)", "(1, 0) (1, 1)")


def test_the_transformer_reads_nothing_before_its_pass_ends() -> None:
    """Encoding, decoding whole targets, and a step, whatever rows it has and wherever the cache is moved.

    In a pass around it, nothing is computed; so its own pass gives up the lock once, unless it takes 100 ms.
    """
    model = transformer()
    ids, offsets = np.arange(2, 14).reshape(3, 4), [0, 5, 12]
    mask = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0]])

    def deferred(function: Any, *arguments: Any) -> Any:
        with _core.Pass():
            before = counters()["locks_given_up"]
            result = function(*arguments)
            assert counters()["locks_given_up"] == before
        return result

    memory = deferred(model.encode_ragged, ids.reshape(-1), offsets)
    target = ids.reshape(-1), offsets, memory, offsets
    assert_same_bits(deferred(model.decode_ragged, *target), model.decode_ragged(*target))
    decoder, other = model.begin(ids, mask, max_length=70), model.begin(ids, mask, max_length=70)
    for i in range(60):
        for length, rows in ((3, [0, 0, 2]), (9, [0, 2])):
            if i == length:
                decoder.keep(np.array(rows))
                other.keep(np.array(rows))
        assert_same_bits(
            deferred(decoder.step, np.full(len(decoder.sources), 5)), other.step(np.full(len(other.sources), 5))
        )
    step = decoder.step, np.full(len(decoder.sources), 5)
    for call, *given in ((model.encode_ragged, *target[:2]), (model.decode_ragged, *target), step):
        counts = []
        for _ in range(9):
            before = counters()["locks_given_up"]
            call(*given)
            counts.append(counters()["locks_given_up"] - before)
        assert min(counts) == 1


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
    with _core.Pass(), fastattn.use_isa("generic"):
        y = kernels.linear(x, w)
    assert_same_bits(y, expected)


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


ELMO = ElmoConfig(
    filters=((1, 8), (2, 24)), dim=48, projection_dim=16, n_highway=2, num_output_representations=1, vocabulary_size=30
)
SENTENCES = [["a", "few", "words"], [], ["and", "a", "few", "more", "of", "them"]]


def elmo_calls() -> dict[str, Any]:
    """What reads words, as functions without arguments that return arrays."""
    fastattn.manual_seed(1)
    elmo, model = Elmo(ELMO).freeze(), BidirectionalLanguageModel(ELMO).freeze()
    encoder, state = WordEncoder(elmo), WordEncoder(elmo).new_state()
    rng = np.random.default_rng(1)
    char_ids, ends = rng.integers(0, 261, (300, 50)), np.array([0, 180, 180, 300], np.int32)
    marked = np.array([0, 100, 102, 300], np.int32)
    words, targets = rng.integers(0, 300, (2, 300)), rng.integers(0, 30, (2, 300))

    def model_call() -> list[Any]:
        output = model(char_ids, words, targets, ends)
        losses = [output.loss.data, output.forward_loss.data, output.backward_loss.data]
        return [*losses, *(array for pair in output.state for array in pair)]

    def elmo_call() -> list[Any]:
        output = elmo(char_ids, marked)
        return [*output.layers, *output.elmo_representations, *(array for pair in output.state for array in pair)]

    return {
        "elmo": elmo_call,
        "language model": model_call,
        "words": lambda: encoder(SENTENCES),
        "stream": lambda: encoder(SENTENCES, state=state.copy()),
        "represent": lambda: encoder.represent(SENTENCES).elmo_representations,
    }


@pytest.mark.parametrize("name", ["elmo", "language model", "words", "stream", "represent"])
def test_what_reads_words_gives_up_the_lock_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    call = elmo_calls()[name]
    before = counters()["locks_given_up"]
    found = call()
    assert counters()["locks_given_up"] == before + 1
    monkeypatch.setattr(_core, "Pass", nullcontext)
    before = counters()["locks_given_up"]
    expected = call()
    assert counters()["locks_given_up"] > before + 5
    for ours, theirs in zip(found, expected, strict=True):
        assert_same_bits(ours, theirs)


def test_an_encoder_with_a_state_computes_before_it_keeps_the_state() -> None:
    fastattn.manual_seed(1)
    encoder = WordEncoder(Elmo(ELMO).freeze())
    stepwise, at_once = encoder.new_state(), encoder.new_state()
    parts = [encoder([["a", "b"]], state=stepwise)[0], encoder([["c"]], state=stepwise)[0]]
    with _core.Pass():
        again = [encoder([["a", "b"]], state=at_once)[0], encoder([["c"]], state=at_once)[0]]
    for ours, theirs in zip(again, parts, strict=True):
        assert_same_bits(ours, theirs)


def test_an_error_within_an_elmo_names_the_place_and_leaves_nothing_behind() -> None:
    fastattn.manual_seed(1)
    elmo = Elmo(ELMO).freeze()
    char_ids, ends = np.full((600, 50), 260), np.array([0, 600], np.int32)
    expected = elmo(char_ids, ends).layers[-1]
    wrong = char_ids.copy()
    wrong[500, 3] = 261
    before = counters()["locks_given_up"]
    with pytest.raises(ValueError, match=r"char_ids must be in \[0, 261\), .* index 25003"):
        elmo(wrong, ends)
    assert counters()["locks_given_up"] == before
    assert_same_bits(elmo(char_ids, ends).layers[-1], expected)


@pytest.mark.parametrize("name", ["elmo", "language model", "words"])
def test_reading_words_in_a_pass_takes_no_more_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    call = elmo_calls()[name]
    peaks = []
    for context in (_core.Pass, nullcontext):
        monkeypatch.setattr(_core, "Pass", context)
        call()
        tracemalloc.start()
        call()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] <= peaks[1] + 60_000  # the features of the words, and the ids


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


def test_a_pass_takes_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    config = BertConfig(
        vocab_size=50, hidden_size=64, num_hidden_layers=4, num_attention_heads=2, intermediate_size=128
    )
    model, ids = BertModel(config).freeze(), np.arange(40).repeat(20).reshape(8, 100)
    peaks = []
    for context in (_core.Pass, nullcontext):
        monkeypatch.setattr(_core, "Pass", context)
        model(ids)
        tracemalloc.start()
        model(ids)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] > 800 * 64 * 4  # the states of one layer
    assert peaks[0] <= peaks[1] + 20_000  # the ids


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("part", ["encode", "decode", "steps"])
def test_a_pass_of_the_transformer_takes_no_more_memory(
    monkeypatch: pytest.MonkeyPatch, part: str, norm_first: bool
) -> None:
    sizes = {"d_model": 64, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "normalize_before": norm_first}
    model, offsets = transformer(**sizes), np.arange(0, 801, 100)
    ids = np.arange(40).repeat(20)
    memory, peaks = model.encode_ragged(ids, offsets), []

    def call() -> None:
        if part == "encode":
            model.encode_ragged(ids, offsets)
        elif part == "decode":
            model.decode_ragged(ids, offsets, memory, offsets)
        else:
            decoder = model.begin(ids.reshape(8, 100), max_length=20)
            for _ in range(20):
                decoder.step(np.full(8, 3))

    for context in (_core.Pass, nullcontext):
        monkeypatch.setattr(_core, "Pass", context)
        call()
        tracemalloc.start()
        call()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] > 800 * 64 * 4
    assert peaks[0] <= peaks[1] + 30_000  # the ids and positions


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


def test_models_read_nothing_too_early() -> None:
    """The suites of what computes in passes, with NaN in every result that is not computed yet."""
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("the tests stand alone")
    if "FASTATTN_POISON" in os.environ:
        pytest.skip("all suites run in that mode")
    paths = ["tests/models", "tests/generation", "tests/tasks/embed", "tests/tasks/words", "tests/tasks/test_bilm.py"]
    paths += ["tests/tasks/test_tagger.py", "tests/tasks/test_translator.py", "tests/test_results_rule.py"]
    paths += ["tests/nn/test_blocks.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *paths]
    run = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"FASTATTN_POISON": "1"}, capture_output=True, text=True, timeout=1800
    )
    assert run.returncode == 0, run.stdout[-3000:]


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


def small_bert(**options: Any) -> BertModel:
    sizes = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 128}
    fastattn.manual_seed(0)
    return BertModel(BertConfig(vocab_size=50, **sizes, **options)).freeze().eval()


def test_a_signal_handler_may_use_the_model_that_it_interrupts() -> None:
    model, ids = small_bert(), np.arange(8).reshape(1, 8)
    expected = model(ids).last_hidden_state
    seen: list[bool] = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append((model(ids).last_hidden_state == expected).all()))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0013)
        end = time.monotonic() + 30
        while len(seen) < 100 and time.monotonic() < end:
            assert_same_bits(model(ids).last_hidden_state, expected)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(seen) >= 1
    assert all(seen)


def test_a_finalizer_within_a_pass_reads_results() -> None:
    model, ids = small_bert(), np.arange(8).reshape(1, 8)
    expected, seen = model(ids).last_hidden_state, []

    class Last:
        def __del__(self) -> None:
            seen.append(model(ids).last_hidden_state.tobytes())

    x, w = normal(np.random.default_rng(1), 4, 8), normal(np.random.default_rng(2), 6, 8)
    with _core.Pass():
        before = kernels.linear(x, w)
        Last()
        after = kernels.linear(x, w)
    assert seen == [expected.tobytes()]
    assert_same_bits(before, kernels.linear(x, w))
    assert_same_bits(after, before)


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


class Doubled(nn.Module):
    """Somebody's module, which reads what it is given."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def forward(self, *arguments: Any) -> Any:
        return np.asarray(self.inner(*arguments)) * 2


@pytest.mark.parametrize("part", ["pooler", "embeddings"])
def test_a_module_of_the_user_within_a_model_reads_results(part: str) -> None:
    model, ids = small_bert(), np.arange(8).reshape(1, 8)
    before = getattr(model, part)
    expected = model(ids).pooler_output * 2
    setattr(model, part, Doubled(before))
    found = model(ids)
    if part == "pooler":
        assert_same_bits(found.pooler_output, expected)
    else:
        assert np.isfinite(found.last_hidden_state).all()
        assert_same_bits(found.last_hidden_state, model(ids).last_hidden_state)


def test_a_head_computes_with_its_encoder() -> None:
    config = BertConfig(
        vocab_size=50, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128, num_labels=3
    )
    ids, mask = np.arange(8).reshape(1, 8), np.array([[1] * 6 + [0] * 2])
    for kind in (BertForSequenceClassification, BertForTokenClassification, BertForQuestionAnswering):
        model, releases = kind(config).freeze().eval(), []
        for _ in range(20):  # one that takes 100 ms gives up the lock in between
            before = counters()["locks_given_up"]
            model(ids, mask)
            releases.append(counters()["locks_given_up"] - before)
        assert min(releases) == 1


def test_functions_that_read_compute_the_pass_first() -> None:
    x = normal(np.random.default_rng(1), 4, 6)
    labels, numbers = np.array([1, 0, 2, 3]), np.ones((4, 6), np.float32) / 2
    functions: list[Any] = [
        lambda y: F.softmax(y, 0),
        lambda y: F.cross_entropy(y, labels),
        lambda y: F.cross_entropy(y, labels, weight=np.ones(6, np.float32), label_smoothing=0.1),
        lambda y: F.mse_loss(y, numbers),
        lambda y: F.binary_cross_entropy_with_logits(y, numbers),
        lambda y: F.cat([y, y], 1),
        lambda y: F.stack([y, y]),
    ]
    for function in functions:
        expected = function(kernels.gelu(x))
        with _core.Pass():
            found = function(kernels.gelu(x))
        assert_same_bits(np.asarray(found), np.asarray(expected))


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


def test_pooling_without_the_prompt_takes_no_more_memory_in_a_pass() -> None:
    model, pooling = small_bert(), Pooling(64, "mean", include_prompt=False).freeze()
    ids, offsets, peaks = np.arange(1600) % 50, np.arange(0, 1601, 32, dtype=np.int32), []

    for context in (nullcontext, _core.Pass, nullcontext):  # the first call fills caches
        tracemalloc.start()
        with context():
            hidden = model.forward_ragged(ids, offsets).last_hidden_state
            pooling({"token_embeddings": hidden, "cu_seqlens": offsets, "prompt_length": 3})
            del hidden
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] > 1600 * 64 * 4
    assert peaks[1] <= peaks[2] + 30_000
