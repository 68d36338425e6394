"""BertModel when it trains: Tensors out, gradients, and nothing left behind."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import array, assert_same_bits

import fastattn
from fastattn import Tensor, no_grad
from fastattn.models import BertConfig, BertForTokenClassification, BertModel

Make = Callable[..., BertModel]

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 72,
    "max_position_embeddings": 40,
}
IDS = np.arange(1, 13).reshape(2, 6)
MASK = np.array([[1, 1, 1, 1, 0, 0], [0, 1, 1, 0, 1, 1]])


def trainable(model: BertModel) -> BertModel:
    return BertModel(model.config, model.state_dict(), trainable=True)


def test_new_models_train_and_loaded_ones_are_frozen(make_bert: Make, tmp_path: Path) -> None:
    new = BertModel(BertConfig(**SIZES))
    assert new.training
    assert new.records()
    assert new.pooler is not None
    assert isinstance(new(IDS).last_hidden_state, Tensor)
    assert not BertModel(BertConfig(**SIZES), trainable=False).records()
    assert BertModel(BertConfig(**SIZES), add_pooling_layer=False).pooler is None
    loaded = make_bert()
    assert not loaded.training
    assert not loaded.records()
    new.save_pretrained(tmp_path)
    assert not BertModel.from_pretrained(tmp_path).records()
    again = BertModel.from_pretrained(tmp_path, trainable=True, hidden_dropout_prob=0.0)
    assert again.records()
    assert not again.training
    assert again.config.hidden_dropout_prob == 0.0
    for p in again.parameters():
        assert p.data.flags.writeable


def test_tensors_have_the_bits_of_the_frozen_model(make_bert: Make, isa: str, threads: int) -> None:
    frozen = make_bert()
    model = trainable(frozen)
    for arguments in ((IDS,), (IDS, MASK), (IDS, MASK, IDS % 2, True, True), (IDS[:0],), (IDS, MASK * 0)):
        expected, actual = frozen(*arguments), model(*arguments)
        with no_grad():
            plain = model(*arguments)
        pairs = [
            (actual.last_hidden_state, expected.last_hidden_state, plain.last_hidden_state),
            (actual.pooler_output, expected.pooler_output, plain.pooler_output),
            *zip(actual.hidden_states or (), expected.hidden_states or (), plain.hidden_states or (), strict=True),
        ]
        for tensor, wanted, other in pairs:
            assert tensor.requires_grad
            assert_same_bits(tensor, wanted)
            assert_same_bits(other, wanted)
        for a, b in zip(actual.attentions or (), expected.attentions or (), strict=True):
            assert_same_bits(a, b)


def test_gradients_of_padded_and_ragged_are_the_same_bits(make_bert: Make) -> None:
    model = trainable(make_bert())
    rng = np.random.default_rng(0)
    dy = rng.normal(size=(2, 6, 32)).astype(np.float32)
    model(IDS, MASK).last_hidden_state.backward(dy)
    padded = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    kept = MASK == 1
    offsets, columns = np.array([0, 4, 8]), np.concatenate([np.flatnonzero(row) for row in MASK])
    output = model.forward_ragged(IDS[kept], offsets, position_ids=columns)
    output.last_hidden_state.backward(dy[kept])
    for name, p in model.named_parameters():
        if name.startswith("pooler"):
            assert p.grad is padded[name] is None
        else:
            assert_same_bits(p.grad, padded[name])


def test_a_sequence_without_tokens_has_no_part_in_the_pooler(make_bert: Make) -> None:
    model = trainable(make_bert())
    mask = MASK * [[0], [1]]
    pooled = model(IDS, mask).pooler_output
    assert not pooled.data[0].any()
    pooled.backward(np.ones((2, 32), np.float32))
    both = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    model(IDS[1:], MASK[1:]).pooler_output.backward(np.ones((1, 32), np.float32))
    for name, p in model.named_parameters():
        np.testing.assert_allclose(both[name], p.grad, rtol=1e-5, atol=1e-6)


def test_the_padding_word_gets_no_gradient(make_bert: Make) -> None:
    model = trainable(make_bert())
    model(np.array([[0, 3, 4]])).last_hidden_state.backward(np.ones((1, 3, 32), np.float32))
    grad = model.embeddings.word_embeddings.weight.grad
    assert grad is not None
    assert np.flatnonzero(grad.any(-1)).tolist() == [3, 4]


def test_a_step_changes_the_next_call(make_bert: Make) -> None:
    """Nothing is cached of weights that train."""
    model = trainable(make_bert())
    before = model(IDS).last_hidden_state.data
    for p in model.parameters():
        p.data[...] *= np.float32(1.5)
    after = model(IDS).last_hidden_state.data
    assert (before != after).all()
    with no_grad():
        assert_same_bits(model(IDS).last_hidden_state, after)
    assert_same_bits(model.freeze()(IDS).last_hidden_state, after)


def test_threads_train_nothing_of_each_other(make_bert: Make) -> None:
    """One records while others serve."""
    model = trainable(make_bert())
    expected = model(IDS, MASK).last_hidden_state.data
    failures: list[object] = []

    def call(recorded: bool) -> None:
        try:
            for _ in range(20):
                if recorded:
                    output = model(IDS, MASK).last_hidden_state.data
                else:
                    with no_grad():
                        output = model(IDS, MASK).last_hidden_state
                if not np.array_equal(output, expected):
                    failures.append(output)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=call, args=(i % 2 == 0,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def _tree(module: Any) -> list[tuple[str, int]]:
    return [(name, id(value)) for part in module.modules() for name, value in vars(part).items()]


def steps(model: BertForTokenClassification, count: int, backward: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(count):
        mask = np.arange(20) < rng.integers(1, 21, (4, 1))
        labels = np.where(mask, rng.integers(0, 2, mask.shape), -100)
        output = model(rng.integers(0, 60, mask.shape), mask, labels=labels)
        if backward:
            output.loss.backward()
            model.zero_grad()


@pytest.mark.parametrize("backward", [True, False])
class TestNothingIsLeft:
    def test_on_a_module_or_in_a_cycle(self, backward: bool) -> None:
        model = BertForTokenClassification(BertConfig(**SIZES))
        for checkpointing in (False, True):
            if checkpointing:
                model.gradient_checkpointing_enable()
            before = _tree(model)
            gc.collect()
            gc.disable()
            try:
                steps(model, 2, backward)
                assert gc.collect() == 0
            finally:
                gc.enable()
            assert _tree(model) == before

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm, which Linux has")
    def test_memory_stays_flat(self, backward: bool) -> None:
        def resident() -> int:
            return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        fastattn.manual_seed(0)
        model = BertForTokenClassification(BertConfig(**{**SIZES, "num_hidden_layers": 1}))
        steps(model, 100, backward)
        before = resident()
        steps(model, 1000 if backward else 300, backward)
        assert resident() - before < 4 * 2**20


def test_the_reference_runs_whole_models(make_bert: Make) -> None:
    """Frozen, recorded and without gradients."""
    frozen = make_bert()
    model = trainable(frozen)
    expected = frozen(IDS, MASK, output_attentions=True)
    with fastattn.use_reference():
        outputs = [frozen(IDS, MASK, output_attentions=True), model(IDS, MASK, output_attentions=True)]
        with no_grad():
            outputs.append(model(IDS, MASK, output_attentions=True))
    for output in outputs:
        np.testing.assert_allclose(array(output.pooler_output), expected.pooler_output, atol=1e-5)
        for weights, wanted in zip(output.attentions, expected.attentions, strict=True):
            np.testing.assert_allclose(array(weights), wanted, atol=1e-5)
