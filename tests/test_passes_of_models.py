"""Passes of models: the lock is given up once, nothing is read too early, and no more memory is taken."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import tracemalloc
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, normal
from helpers_runtime import locks_given_up, output
from helpers_transformer import small_transformer

import fastattn
from fastattn import _core, kernels, nn
from fastattn.models import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    BidirectionalLanguageModel,
    Elmo,
    ElmoConfig,
)
from fastattn.runtime import counters
from fastattn.tasks import WordEncoder

ROOT = Path(__file__).parents[1]


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
    model = small_transformer()
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
        assert locks_given_up(partial(call, *given)) == 1


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
    found = call()
    assert locks_given_up(call) == 1
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
