"""BertModel against golden files of transformers, and everything a call can be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastattn import ragged
from fastattn.models import BertModel

DATA = Path(__file__).parents[2] / "data"
PARITY = 2e-5

Make = Callable[..., BertModel]


def assert_parity(actual: Any, expected: Any) -> None:
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=0, atol=PARITY)


@pytest.mark.parametrize("name", ["bert_f32", "bert_bf16_sharded_masked_lm", "bert_f16_gamma_beta"])
def test_golden(name: str, isa: str, threads: int) -> None:
    golden = np.load(DATA / name / "golden.npz")
    mask = golden["attention_mask"]
    model = BertModel.from_pretrained(DATA / name)
    output = model(
        golden["input_ids"],
        mask,
        golden["token_type_ids"],
        output_hidden_states=True,
        output_attentions=True,
    )
    assert output.hidden_states is not None
    assert output.attentions is not None
    assert_parity(np.stack(output.hidden_states), golden["hidden_states"])
    assert_parity(np.stack(output.attentions), golden["attentions"])
    np.testing.assert_array_equal(output.last_hidden_state, output.hidden_states[-1])
    if "pooler_output" not in golden:
        assert output.pooler_output is None
        return
    first = mask[:, 0] == 1  # transformers pools column 0 even where it is padding
    assert 0 < first.sum() < len(mask)
    assert output.pooler_output is not None
    assert_parity(output.pooler_output[first], golden["pooler_output"][first])


def test_without_the_pooler() -> None:
    ids = np.array([[2, 3, 4]])
    whole = BertModel.from_pretrained(DATA / "bert_f32")
    model = BertModel.from_pretrained(DATA / "bert_f32", add_pooling_layer=False)
    assert whole(ids).pooler_output is not None
    assert model(ids).pooler_output is None
    np.testing.assert_array_equal(model(ids).last_hidden_state, whole(ids).last_hidden_state)
    assert set(whole.state_dict()) - set(model.state_dict()) == {"pooler.dense.weight", "pooler.dense.bias"}


class TestCalls:
    def test_padding_is_zero_and_never_looked_at(self, make_bert: Make) -> None:
        model = make_bert()
        ids = np.array([[5, 6, 7, -100], [8, 10**12, -1, 0]])
        mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0]])
        output = model(ids, mask, output_hidden_states=True, output_attentions=True)
        assert output.last_hidden_state.shape == (2, 4, 32)
        assert output.hidden_states is not None
        assert output.attentions is not None
        assert len(output.hidden_states) == 3
        assert len(output.attentions) == 2
        for states in output.hidden_states:
            assert not states[mask == 0].any()
            assert states[mask == 1].any(axis=-1).all()
        for weights in output.attentions:
            assert weights.shape == (2, 4, 4, 4)
            np.testing.assert_allclose(weights.sum(-1), mask[:, None, :].repeat(4, axis=1), atol=1e-6)
            assert not weights.swapaxes(2, 3)[np.broadcast_to(mask[:, None] == 0, (2, 4, 4))].any()

    @pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.uint64])
    def test_ids_of_any_integer_dtype(self, make_bert: Make, dtype: Any) -> None:
        model = make_bert()
        ids = np.arange(12).reshape(2, 6)
        expected = model(ids, np.ones((2, 6), int), ids % 2).last_hidden_state
        actual = model(ids.astype(dtype), np.ones((2, 6), dtype), (ids % 2).astype(dtype)).last_hidden_state
        np.testing.assert_array_equal(actual, expected)
        np.testing.assert_array_equal(model(ids.tolist(), None, (ids % 2).tolist()).last_hidden_state, expected)

    def test_strided_and_read_only_ids(self, make_bert: Make) -> None:
        model = make_bert()
        wide = np.arange(24).reshape(2, 12)
        wide.flags.writeable = False
        expected = model(wide[:, ::2].copy()).last_hidden_state
        np.testing.assert_array_equal(model(wide[:, ::2]).last_hidden_state, expected)
        np.testing.assert_array_equal(
            model.forward_ragged(wide[0, ::2], np.array([0, 6])).last_hidden_state, expected[0]
        )

    def test_a_hole_and_left_padding_keep_columns_as_positions(self, make_bert: Make) -> None:
        model = make_bert()
        ids = np.array([[3, 4, 5, 6, 7, 8]])
        mask = np.array([[0, 0, 1, 0, 1, 1]])
        columns = np.flatnonzero(mask)
        output = model(ids, mask)
        expected = model.forward_ragged(ids[0, columns], np.array([0, 3]), position_ids=columns)
        np.testing.assert_array_equal(output.last_hidden_state[0, columns], expected.last_hidden_state)
        assert output.pooler_output is not None
        np.testing.assert_array_equal(output.pooler_output, expected.pooler_output)
        shifted = model.forward_ragged(ids[0, columns], np.array([0, 3])).last_hidden_state
        assert np.abs(shifted - expected.last_hidden_state).max() > 0.01

    def test_rows_without_tokens(self, make_bert: Make) -> None:
        model = make_bert()
        ids = np.arange(15).reshape(3, 5)
        mask = np.array([[1] * 5, [0] * 5, [1, 1, 0, 0, 0]])
        output = model(ids, mask, output_attentions=True)
        assert output.pooler_output is not None
        assert output.attentions is not None
        assert not output.last_hidden_state[1].any()
        assert not output.pooler_output[1].any()
        assert not output.attentions[0][1].any()
        np.testing.assert_array_equal(output.last_hidden_state[0], model(ids[:1]).last_hidden_state[0])

    @pytest.mark.parametrize("shape", [(0, 5), (0, 0), (3, 0), (2, 4)])
    def test_batches_without_tokens(self, make_bert: Make, shape: tuple[int, int]) -> None:
        model = make_bert()
        output = model(np.zeros(shape, int), np.zeros(shape, bool), output_hidden_states=True, output_attentions=True)
        assert output.last_hidden_state.shape == (*shape, 32)
        assert not output.last_hidden_state.any()
        assert output.pooler_output is not None
        assert output.pooler_output.shape == (shape[0], 32)
        assert not output.pooler_output.any()
        assert output.attentions is not None
        assert output.attentions[0].shape == (shape[0], 4, shape[1], shape[1])

    def test_ragged_gives_the_bits_of_padded(self, make_bert: Make) -> None:
        model = make_bert()
        rng = np.random.default_rng(0)
        sizes = np.array([3, 0, 7, 1])
        mask = np.arange(7) < sizes[:, None]
        ids, types = rng.integers(0, 60, mask.shape), rng.integers(0, 2, mask.shape)
        padded = model(ids, mask, types, output_hidden_states=True, output_attentions=True)
        tokens, offsets, _ = ragged.pack(ids, mask)
        packed = model.forward_ragged(tokens, offsets, types[mask], None, True, True)
        np.testing.assert_array_equal(padded.last_hidden_state[mask], packed.last_hidden_state)
        np.testing.assert_array_equal(padded.pooler_output, packed.pooler_output)
        for a, b in zip(padded.hidden_states or (), packed.hidden_states or (), strict=True):
            np.testing.assert_array_equal(a[mask], b)
        for a, b in zip(padded.attentions or (), packed.attentions or (), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_asking_for_more_changes_no_bit(self, make_bert: Make) -> None:
        model = make_bert()
        ids = np.arange(21).reshape(3, 7)
        plain = model(ids)
        more = model(ids, output_hidden_states=True, output_attentions=True)
        np.testing.assert_array_equal(plain.last_hidden_state, more.last_hidden_state)
        np.testing.assert_array_equal(plain.pooler_output, more.pooler_output)
        assert plain.hidden_states is plain.attentions is None

    def test_results_are_the_callers_own(self, make_bert: Make) -> None:
        model = make_bert()
        ids = np.arange(10).reshape(2, 5)
        first = model(ids, output_hidden_states=True, output_attentions=True)
        kept = [np.array(x) for x in (first.last_hidden_state, *(first.attentions or ()))]
        model(ids[::-1].copy(), output_hidden_states=True, output_attentions=True)
        for array, copy in zip((first.last_hidden_state, *(first.attentions or ())), kept, strict=True):
            np.testing.assert_array_equal(array, copy)
        first.last_hidden_state[...] = 0  # writable

    def test_the_longest_sequence(self, make_bert: Make) -> None:
        model = make_bert()
        ids = np.arange(80).reshape(2, 40) % 60
        assert model(ids).last_hidden_state.shape == (2, 40, 32)
        wide = np.zeros((2, 50), int)
        mask = np.arange(50) < np.array([[40], [3]])
        assert model(wide, mask).last_hidden_state.shape == (2, 50, 32)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"input_ids": [[1.0, 2.0]]}, TypeError, "input_ids must be an integer array, got float64"),
        ({"input_ids": np.ones((2, 3), bool)}, TypeError, "input_ids must be an integer array, got bool"),
        ({"input_ids": [["a"]]}, TypeError, "input_ids must be an integer array, got <U1"),
        ({"input_ids": [1, 2]}, ValueError, r"input_ids must have shape \(batch, seq\), got \(2,\)"),
        ({"input_ids": [[[1]]]}, ValueError, r"input_ids must have shape \(batch, seq\), got \(1, 1, 1\)"),
        ({"input_ids": [[1, 60]]}, ValueError, r"input_ids must be in \[0, 60\), got 60 at \(0, 1\)"),
        ({"input_ids": [[-1, 3]]}, ValueError, r"input_ids must be in \[0, 60\), got -1 at \(0, 0\)"),
        (
            {
                "input_ids": [[1, 99, 98], [3, 99, 4]],
                "attention_mask": [[1, 0, 0], [1, 0, 1]],
                "token_type_ids": [[0, 0, 7], [0, 7, 2]],
            },
            ValueError,
            r"token_type_ids must be in \[0, 2\), got 2 at \(1, 2\)",
        ),
        (
            {"input_ids": [[1, 99, 98], [3, 99, 60]], "attention_mask": [[1, 0, 0], [1, 0, 1]]},
            ValueError,
            r"input_ids must be in \[0, 60\), got 60 at \(1, 2\)",
        ),
        (
            {"input_ids": np.zeros((1, 41), int)},
            ValueError,
            "at position 40 in sequence 0, but max_position_embeddings is 40",
        ),
        ({"attention_mask": [[1, 1]]}, ValueError, r"attention_mask must have shape \(1, 3\), got \(1, 2\)"),
        ({"attention_mask": [1, 1, 1]}, ValueError, r"attention_mask must have shape \(1, 3\), got \(3,\)"),
        (
            {"attention_mask": [[1.0, 1.0, 0.0]]},
            TypeError,
            "attention_mask must be bool or integers .* float64",
        ),
        ({"attention_mask": [[1, 5, 0]]}, ValueError, "attention_mask must hold 0 and 1, got 5"),
        ({"token_type_ids": [[0, 1]]}, ValueError, r"token_type_ids must have shape \(1, 3\), got \(1, 2\)"),
        ({"token_type_ids": [[0, 1, 2]]}, ValueError, r"token_type_ids must .*2.*got 2"),
        ({"token_type_ids": [[0.0, 1.0, 0.0]]}, TypeError, "token_type_ids must be an integer array"),
    ],
)
def test_bad_arguments_are_named(
    make_bert: Make, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_bert()(**{"input_ids": [[1, 2, 3]], **arguments})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"input_ids": [[1, 2, 3]]}, ValueError, r"input_ids must have shape \(tokens,\), got \(1, 3\)"),
        ({"input_ids": [1.0, 2.0, 3.0]}, TypeError, "input_ids must be an integer array, got float64"),
        ({"cu_seqlens": [0, 2]}, ValueError, "BertModel: cu_seqlens must end at 3, .*got 2"),
        ({"cu_seqlens": [0, 2, 1, 3]}, ValueError, "BertModel: cu_seqlens must not decrease, got 2 then 1"),
        ({"cu_seqlens": [0.0, 3.0]}, TypeError, "BertModel: cu_seqlens must be an integer array"),
        ({"token_type_ids": [0, 1]}, ValueError, r"token_type_ids must have shape \(3,\), got \(2,\)"),
        ({"position_ids": [0, 1]}, ValueError, r"position_ids must have shape \(3,\), got \(2,\)"),
        ({"position_ids": [0, 1, -1]}, ValueError, r"position_ids must not be negative, got -1"),
        ({"position_ids": [0, 1, 40]}, ValueError, "at position 40 in sequence 1, but max_position_embeddings is 40"),
    ],
)
def test_bad_ragged_arguments_are_named(
    make_bert: Make, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_bert().forward_ragged(**{"input_ids": [1, 2, 3], "cu_seqlens": [0, 1, 3], **arguments})
