"""Transformer against golden numbers of torch and central differences, and everything a batch can be."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import array, assert_same_bits
from helpers_heads import assert_gradients
from helpers_transformer import CASES, SOURCE, WORDS, call, config_of, make_model

import fastattn
from fastattn import Tensor, kernels, no_grad, ragged, reference, use_reference
from fastattn import functional as F
from fastattn.models import Transformer, TransformerConfig
from fastattn.models.transformer.inputs import shift_right, up_to_the_last_label
from fastattn.random import record_seeds

GOLDEN = Path(__file__).parents[2] / "data" / "transformer.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    with np.load(GOLDEN) as file:
        return dict(file)


def gradients(model: Transformer) -> dict[str, Any]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def last_labels(labels: Any) -> Any:
    """Where a label that counts stands, or one follows."""
    return np.array([[any(row[column:] != -100) for column in range(len(row))] for row in labels])


def ragged_of(name: str) -> tuple[Any, ...]:
    """The arguments of `loss_ragged` for the batch of a case, but for its masks: all of it are tokens."""
    arguments, config = call(name), config_of(name)
    labels = arguments["labels"]
    kept = last_labels(labels)
    target_in = shift_right(labels, config.decoder_start_token_id, config.pad_token_id)
    cu_target = ragged.cu_seqlens(kept.sum(axis=1))
    cu_source = np.arange(5, dtype=np.int32) * SOURCE
    return arguments["input_ids"].ravel(), cu_source, target_in[kept], cu_target, labels[kept]


@pytest.mark.parametrize("name", CASES)
def test_loss_logits_and_gradients(golden: dict[str, Any], name: str, isa: str, threads: int) -> None:
    model, arguments = make_model(name), call(name)
    output = model(**arguments)
    assert output.loss is not None
    assert output.loss.item() == pytest.approx(float(golden[f"{name}/loss"]), rel=1e-5)
    wanted, computed = golden[f"{name}/logits"], last_labels(arguments["labels"])
    assert output.logits.dtype == np.float32
    assert output.logits.shape == wanted.shape
    logits = output.logits.data
    np.testing.assert_array_equal(logits[~computed], 0)
    np.testing.assert_allclose(logits[computed], wanted[computed], rtol=0, atol=2e-5 * np.abs(wanted).max())
    output.loss.backward()
    expected, start = {}, 0
    for key, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            stop = start + parameter.numel()
            expected[key] = golden[f"{name}/gradients"][start:stop].reshape(parameter.shape)
            start = stop
    assert start == golden[f"{name}/gradients"].size
    assert_gradients(gradients(model), expected)


@pytest.mark.parametrize("name", ["post-norm", "pre-norm", "learned positions"])
def test_central_differences(name: str) -> None:
    """In float64, dropout and all: of each parameter along one direction."""
    model = make_model(name, dropout=0.2, attention_dropout=0.1, activation_dropout=0.3).train()
    model.astype(np.float64)
    arguments = call(name)

    def loss() -> Any:
        fastattn.manual_seed(3)
        return model(**arguments).loss

    rng, step = np.random.default_rng(0), 1e-7  # seldom across a bend of the ReLU
    with use_reference():
        loss().backward()
        for key, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            direction, value = rng.normal(size=parameter.shape), parameter.data.copy()
            if key == "model.shared.weight":  # the padding gets no gradient where it is read
                direction[0] = 0
            results = []
            for sign in (1, -1):
                parameter.data[...] = value + sign * step * direction
                with no_grad():
                    results.append(loss().item())
            parameter.data[...] = value
            slope = (results[0] - results[1]) / (2 * step)
            gradient = parameter.grad
            assert gradient is not None
            assert float((gradient * direction).sum()) == pytest.approx(slope, abs=1e-6), key


@pytest.mark.parametrize("name", CASES)
def test_frozen_models_have_the_bits_of_trainable_ones(name: str, isa: str, threads: int) -> None:
    model, arguments = make_model(name), call(name)
    expected = model(**arguments, output_attentions=True)
    frozen = make_model(name).freeze()
    actual = frozen(**arguments, output_attentions=True)
    with no_grad():
        plain = model(**arguments, output_attentions=True)
    for output in (actual, plain):
        assert isinstance(output.loss, Tensor)
        assert output.loss.item() == expected.loss.item()
        assert_same_bits(output.logits, expected.logits)
        assert_same_bits(output.encoder_last_hidden_state, expected.encoder_last_hidden_state)
        for kind in ("encoder_attentions", "decoder_attentions", "cross_attentions"):
            for a, b in zip(getattr(output, kind), getattr(expected, kind), strict=True):
                assert_same_bits(a, b)


@pytest.mark.parametrize("name", ["post-norm", "pre-norm", "two vocabularies"])
def test_ragged_has_the_bits_of_padded(name: str) -> None:
    arguments = {**call(name), "attention_mask": None}
    padded, flat = make_model(name), make_model(name)
    output = padded(**arguments)
    source, cu_source, target_in, cu_target, target_out = ragged_of(name)
    loss = flat.loss_ragged(source, cu_source, target_in, cu_target, target_out, arguments["label_smoothing"])
    assert loss.item() == output.loss.item()
    output.loss.backward()
    loss.backward()
    for key, gradient in gradients(padded).items():
        assert_same_bits(gradients(flat)[key], gradient)
    memory = flat.encode_ragged(source, cu_source)
    assert_same_bits(memory.reshape(4, SOURCE, -1), output.encoder_last_hidden_state)
    scores = flat.logits(flat.decode_ragged(target_in, cu_target, memory, cu_source))
    assert_same_bits(scores, output.logits.data[last_labels(arguments["labels"])])


def test_reductions() -> None:
    model, arguments = make_model("pre-norm"), ragged_of("pre-norm")
    terms = model.loss_ragged(*arguments, reduction="none").data
    counted = np.count_nonzero(arguments[-1] != -100)
    assert terms.shape == (counted,)
    assert model.loss_ragged(*arguments, reduction="sum").item() == pytest.approx(terms.sum(), rel=1e-6)
    assert model.loss_ragged(*arguments).item() == pytest.approx(terms.mean(), rel=1e-6)


def test_padding_is_never_looked_at() -> None:
    model, arguments = make_model("post-norm"), call("post-norm")
    expected = model(**arguments)
    ids = np.where(arguments["attention_mask"] == 1, arguments["input_ids"], 10**9)
    output = model(**{**arguments, "input_ids": ids})
    assert output.loss.item() == expected.loss.item()
    assert_same_bits(output.logits, expected.logits)
    np.testing.assert_array_equal(output.encoder_last_hidden_state.data[arguments["attention_mask"] == 0], 0)


def test_what_the_decoder_reads() -> None:
    labels = np.array([[5, -100, 6, -100], [-100, -100, -100, -100], [7, 8, 9, 4]])
    assert shift_right(labels, 1, 0).tolist() == [[1, 5, 0, 6], [1, 0, 0, 0], [1, 7, 8, 9]]
    assert up_to_the_last_label(labels).tolist() == last_labels(labels).tolist()
    model, arguments = make_model("pre-norm"), call("pre-norm")
    expected = model(**arguments)
    shifted = shift_right(arguments["labels"], 1, 0)
    whole = model(**arguments, decoder_input_ids=shifted)  # nothing is left out
    assert whole.loss.item() == expected.loss.item()
    computed = last_labels(arguments["labels"])
    assert_same_bits(whole.logits.data[computed], expected.logits.data[computed])
    assert whole.logits.data.all(axis=-1).all()
    again = model(**arguments, decoder_input_ids=shifted, decoder_attention_mask=computed)
    assert_same_bits(again.logits, expected.logits)
    without = model(arguments["input_ids"], arguments["attention_mask"], shifted, computed)
    assert without.loss is None
    assert_same_bits(without.logits, expected.logits)


def test_attention_weights_are_at_their_tokens() -> None:
    model, arguments = make_model("marian"), call("marian")
    output = model(**arguments, output_attentions=True)
    seen, made = arguments["attention_mask"] == 1, last_labels(arguments["labels"])
    for weights, rows, columns, heads in (
        (output.encoder_attentions, seen, seen, 3),
        (output.decoder_attentions, made, made, 2),
        (output.cross_attentions, made, seen, 2),
    ):
        assert len(weights) == 2
        for layer in map(array, weights):
            assert layer.shape == (4, heads, rows.shape[1], columns.shape[1])
            np.testing.assert_allclose(layer.sum(axis=-1), np.broadcast_to(rows[:, None], layer.shape[:3]), atol=1e-6)
            assert not layer[np.broadcast_to(~columns[:, None, None], layer.shape)].any()
    assert not np.triu(output.decoder_attentions[0].data, 1).any()
    assert model(**arguments).cross_attentions is None


def test_scores_are_computed_for_labels_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, arguments, rows = make_model("post-norm"), call("post-norm"), []
    compute = kernels.linear

    def linear(x: Any, weight: Any, *others: Any, **options: Any) -> Any:
        if weight.shape[0] == WORDS:
            rows.append(len(x))
        return compute(x, weight, *others, **options)

    monkeypatch.setattr(kernels, "linear", linear)
    output = model(**arguments)
    assert rows == [np.count_nonzero(arguments["labels"] != -100)]
    assert output.logits is output.logits
    assert rows[1:] == [np.count_nonzero(last_labels(arguments["labels"]))]
    assert output.keys() == ["loss", "logits", "encoder_last_hidden_state"]
    assert output[0] is output.loss
    assert output["logits"] is output.logits


@pytest.mark.parametrize("name", ["post-norm", "pre-norm"])
def test_dropout_is_where_the_paper_has_it(name: str) -> None:
    """Embeddings and the result of each sub-layer; attention weights and the inner layer have rates of their own."""
    arguments = call(name)
    usual = make_model(name)(**arguments).loss.item()
    for options, draws in (
        ({"dropout": 0.1}, 2 + 2 * 2 + 2 * 3),
        ({"attention_dropout": 0.1}, 2 * 1 + 2 * 2),
        ({"activation_dropout": 0.1}, 2 + 2),
        ({}, 0),
    ):
        model = make_model(name, **options).train()
        with record_seeds() as seeds:
            first = model(**arguments).loss.item()
        assert len(seeds) == draws, options
        assert (model(**arguments).loss.item() == first) == (draws == 0)
        with record_seeds() as seeds:
            assert model.eval()(**arguments).loss.item() == usual
        assert not seeds


@pytest.mark.parametrize("name", ["post-norm", "pre-norm"])
def test_dropout_leaves_residuals_alone(name: str) -> None:
    """Sub-layers that give 0 have nothing to drop; of a token, embedding and position are dropped together."""
    model, arguments = make_model(name, dropout=0.5), call(name)
    for key, parameter in model.named_parameters():
        if "out_proj" in key or "fc2" in key:
            parameter.data[...] = 0
    usual = model(**arguments).loss.item()
    model.train()
    assert (model.encoder.embed(np.arange(1, 9), np.arange(8)).data == 0).any(axis=1).all()
    for stack in (model.encoder, model.decoder):
        stack.dropout.training = False
    assert model(**arguments).loss.item() == usual


def test_the_same_seed_the_same_bits() -> None:
    runs = []
    for _ in range(2):
        fastattn.manual_seed(5)
        model = Transformer(config_of("pre-norm", dropout=0.3))
        loss = model(**call("pre-norm")).loss
        loss.backward()
        runs.append((loss.item(), gradients(model)))
    assert runs[0][0] == runs[1][0]
    for name, gradient in runs[0][1].items():
        assert_same_bits(gradient, runs[1][1][name])


def test_tied_weights_stay_tied_in_a_copy() -> None:
    model = copy.deepcopy(make_model("post-norm"))
    assert model.lm_head.weight is model.encoder.embed_tokens.weight is model.decoder.embed_tokens.weight
    names = list(model.state_dict())
    assert "model.shared.weight" in names
    assert not {"lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"} & {*names}
    untied = make_model("two vocabularies untied")
    tables = {"lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"}
    assert tables < {*untied.state_dict()}
    assert untied.lm_head.weight.shape == (17, 12)


def test_first_values() -> None:
    sizes = {"vocab_size": 500, "d_model": 64, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256, "encoder_layers": 1}
    sizes.update(decoder_layers=1, tie_word_embeddings=False)
    for std, positions in itertools.product((0.05, None), ("sinusoidal", "learned")):
        model = Transformer(TransformerConfig(**sizes, init_std=std, position_embedding_type=positions))
        assert model.training
        for name, parameter in model.named_parameters():
            values = parameter.data
            if name.endswith("layer_norm.weight"):
                np.testing.assert_array_equal(values, 1)
            elif name.endswith("bias"):
                np.testing.assert_array_equal(values, 0)
            else:
                rows, columns = values.shape
                wanted = (
                    (1 / 64 if "shared" in name or "embed" in name else 2 / (rows + columns)) ** 0.5
                    if std is None
                    else std
                )
                assert values.std() == pytest.approx(wanted, rel=0.05), name
        np.testing.assert_array_equal(model.encoder.embed_tokens.weight.data[0], 0)  # the padding


def test_what_is_given_follows_from_the_model() -> None:
    """Tensors of one that trains, within no_grad and with requires_grad=False too; arrays of a frozen one."""
    trainable, arguments = make_model("post-norm"), call("post-norm")
    part = make_model("post-norm")
    for parameter in part.parameters():
        parameter.requires_grad = False
    frozen = make_model("post-norm").freeze()
    kinds = ("logits", "encoder_last_hidden_state")
    lists = ("encoder_attentions", "decoder_attentions", "cross_attentions")

    def results(model: Transformer) -> list[Any]:
        output = model(**arguments, output_attentions=True)
        return [getattr(output, name) for name in kinds] + [x for name in lists for x in getattr(output, name)]

    with no_grad():
        plain = results(trainable)
    recorded = results(trainable)
    assert all(isinstance(x, Tensor) and x.requires_grad for x in recorded)
    for found in (plain, results(part)):
        assert all(isinstance(x, Tensor) and not x.requires_grad for x in found)
    assert all(isinstance(x, np.ndarray) for x in results(frozen))


@pytest.mark.parametrize("name", ["post-norm", "pre-norm", "two vocabularies"])
def test_a_loss_of_ones_own(name: str) -> None:
    """Computed from the logits it has the gradients of the model's."""
    model, arguments = make_model(name), call(name)
    del arguments["label_smoothing"]
    output = model(**arguments)
    output.loss.backward()
    expected = gradients(model)
    model.zero_grad()
    labels = arguments["labels"]
    logits = model(**arguments).logits
    own = F.cross_entropy(logits.reshape(-1, logits.shape[2]), labels.reshape(-1))
    assert own.item() == pytest.approx(output.loss.item(), rel=1e-6)
    own.backward()
    assert_gradients(gradients(model), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logits_are_computed_as_the_call_was(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the reference or by the kernels, whoever reads them and wherever."""
    model, arguments = make_model("post-norm"), call("post-norm")
    model.astype(dtype)
    with use_reference():
        expected, outside = model(**arguments).logits, model(**arguments)
    assert expected.dtype == dtype
    np.testing.assert_array_equal(outside.logits.data, expected.data)
    if dtype == np.float32:
        output = model(**arguments)
        monkeypatch.setattr(reference, "linear", None)
        with use_reference():
            assert output.logits.data.any()


def test_nothing_at_all() -> None:
    for name in ("post-norm", "pre-norm"):
        model = make_model(name)
        none = np.zeros((0, 3), np.int64)
        output = model(none, decoder_input_ids=none, output_attentions=True)
        assert output.logits.shape == (0, 3, WORDS)
        assert output.encoder_last_hidden_state.shape == (0, 3, 12)
        assert output.cross_attentions is not None
        assert output.cross_attentions[0].shape == (0, 2, 3, 3)
        # a source without tokens and without a target is no error
        hidden = model.decode_ragged([3], [0, 1, 1], model.encode_ragged([4, 5], [0, 2, 2]), [0, 2, 2])
        assert hidden.shape == (1, 12)


IDS, LABELS = np.full((2, 3), 4), np.full((2, 3), 5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"input_ids": IDS * 1.0}, TypeError, "Transformer: input_ids must be an integer array, got float64"),
        ({"input_ids": IDS[0]}, ValueError, r"input_ids must have shape \(batch, seq\), got \(3,\)"),
        ({"input_ids": IDS * 6}, ValueError, r"input_ids must be in \[0, 23\), got 24 at \(0, 0\)"),
        ({"input_ids": IDS - 5, "attention_mask": [[0, 0, 1]] * 2}, ValueError, r"got -1 at \(0, 2\)"),
        ({"decoder_input_ids": IDS * 9}, ValueError, r"decoder_input_ids must be in \[0, 23\), got 36 at \(0, 0\)"),
        ({"labels": LABELS * 5}, ValueError, r"labels must be in \[0, 23\) or -100, got 25 at \(0, 0\)"),
        ({"labels": LABELS[0]}, ValueError, r"labels must have shape \(batch, seq\), got \(3,\)"),
        ({"labels": LABELS * 0 - 100}, ValueError, "labels must have something other than -100"),
        ({"decoder_input_ids": IDS[:, :2]}, ValueError, r"labels must have shape \(2, 2\), got \(2, 3\)"),
        ({"labels": None}, ValueError, "decoder_input_ids or labels must be given"),
        ({"labels": LABELS[:1]}, ValueError, "Transformer: labels must have as many sequences as input_ids, 2, got 1"),
        (
            {"labels": None, "decoder_input_ids": LABELS[:1]},
            ValueError,
            "Transformer: decoder_input_ids must have as many sequences as input_ids, 2, got 1",
        ),
        (
            {"input_ids": np.full((2, 3), 2**64 - 1, np.uint64)},
            ValueError,
            r"input_ids must be below 2\*\*63, got 18446744073709551615",
        ),
        (
            {"labels": np.full((2, 3), 2**64 - 100, np.uint64)},
            ValueError,
            r"labels must be below 2\*\*63, got 18446744073709551516",
        ),
        ({"attention_mask": IDS}, ValueError, "attention_mask must hold 0 and 1, got 4"),
        (
            {"attention_mask": [[1, 1, 1], [0, 0, 0]]},
            ValueError,
            "must have a token in each .* none in sequence 1",
        ),
        ({"attention_mask": IDS[:1] // 4}, ValueError, r"attention_mask must have shape \(2, 3\), got \(1, 3\)"),
        (
            {"decoder_attention_mask": [[1, 1, 0]] * 2},
            ValueError,
            r"labels must be -100 where decoder_attention_mask is 0, got 5 at \(0, 2\)",
        ),
        (
            {"input_ids": np.full((2, 13), 4)},
            ValueError,
            "input_ids has a token at position 12 in sequence 0, but max_",
        ),
        (
            {"labels": np.full((2, 13), 4)},
            ValueError,
            "Transformer: labels has a token at position 12 in sequence 0, but",
        ),
        ({"label_smoothing": 1.5}, ValueError, r"label_smoothing must be a number in \[0, 1\], got 1\.5"),
        (
            {"label_smoothing": -0.5, "labels": None, "decoder_input_ids": LABELS},
            ValueError,
            r"label_smoothing must be a number in \[0, 1\], got -0\.5",
        ),
        (
            {"label_smoothing": "much", "labels": None, "decoder_input_ids": LABELS},
            TypeError,
            "label_smoothing must be a number .*, got 'much'",
        ),
    ],
)
def test_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_model("post-norm")(**{"input_ids": IDS, "labels": LABELS, **arguments})


def test_refused_ragged() -> None:
    model = make_model("learned positions")
    memory = model.encode_ragged([4, 5], [0, 2])
    for refused, message in (
        (lambda: model.encode_ragged(IDS, [0, 6]), r"input_ids must have shape \(tokens,\), got \(2, 3\)"),
        (lambda: model.encode_ragged([1, 2], [0, 3]), "Transformer: cu_seqlens must end at 2"),
        (lambda: model.encode_ragged([1, 23], [0, 2]), r"input_ids must be in \[0, 23\), got 23 at index 1"),
        (lambda: model.encode_ragged([4] * 15, [0, 2, 15]), "token at position 12 in sequence 1, but max_position_emb"),
        (lambda: model.encode_ragged([4, 4], [0, 2], [0, 12]), "token at position 12 in sequence 0"),
        (
            lambda: model.encode_ragged([4, 4], [0, 2], [0, -1]),
            "input_ids: position_ids must not be negative, got -1",
        ),
        (
            lambda: model.encode_ragged([4, 4], [0, 2], [0]),
            r"position_ids must have shape \(2,\), got \(1,\)",
        ),
        (lambda: model.decode_ragged([4], [0, 1], memory, [0, 3]), "cu_seqlens_k must end at 2"),
        (
            lambda: model.decode_ragged([4], [0, 1], memory, [0, 1, 2]),
            "Transformer: decoder_input_ids must have as many sequences as memory, 2, got 1",
        ),
        (
            lambda: model.decode_ragged([4, 4], [0, 1, 2], memory, [0, 0, 2]),
            "Transformer: memory must have a token in each sequence, got none in sequence 0",
        ),
        (
            lambda: model.decode_ragged([4], [0, 1], memory[:, 1:], [0, 2]),
            r"memory must have shape \(tokens, 12\), got \(2, 11\)",
        ),
        (lambda: model.decode_ragged([4], [0, 1], memory.data[None], [0, 2]), r"memory must have .*, got \(1, 2, 12\)"),
        (lambda: model.logits(memory.data[0]), r"hidden must have shape \(tokens, 12\), got \(12,\)"),
        (
            lambda: model.loss_ragged([4, 5], [0, 1, 2], [1], [0, 1], [5]),
            "Transformer: target_in must have as many sequences as source_ids, 2, got 1",
        ),
        (lambda: model.loss_ragged([4], [0, 1], [1, 2], [0, 2], [5]), r"target_out must have shape \(2,\), got \(1,\)"),
        (lambda: model.loss_ragged([99], [0, 1], [1], [0, 1], [5]), "source_ids must be in .* got 99 at index 0"),
        (lambda: model.loss_ragged([4], [0, 1], [99], [0, 1], [5]), "target_in must be in .* got 99 at index 0"),
    ):
        with pytest.raises(ValueError, match=message):
            refused()  # type: ignore[no-untyped-call]
    for states, message in (
        (memory.data.tolist(), "an array or a Tensor, got list"),
        (np.ones((2, 12)), "float32, got"),
    ):
        with pytest.raises(TypeError, match=f"Transformer: memory must be {message}"):
            model.decode_ragged([4], [0, 1], states, [0, 2])
        with pytest.raises(TypeError, match=f"Transformer: hidden must be {message}"):
            model.logits(states)


def test_the_longest_that_fits() -> None:
    model = make_model("post-norm")
    output = model(np.full((1, 12), 4), labels=np.full((1, 12), 5))
    assert output.logits.shape == (1, 12, WORDS)
