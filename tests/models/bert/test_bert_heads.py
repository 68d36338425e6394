"""BERT's heads against golden numbers of transformers, central differences, and everything labels can be."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits
from helpers_heads import (
    BATCH,
    CASES,
    SEQ,
    WORDS,
    Case,
    assert_gradients,
    gradients,
    largest,
    make_case,
    make_model,
)

import fastattn
from fastattn import Tensor, models
from fastattn import functional as F
from fastattn.models import BertConfig
from fastattn.random import get_rng_state

GOLDEN = Path(__file__).parents[2] / "data" / "bert_heads.npz"
LOGITS = ("logits", "start_logits", "end_logits", "prediction_logits", "seq_relationship_logits")


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.mark.parametrize("name", CASES)
def test_loss_logits_and_gradients(golden: dict[str, Any], name: str, isa: str, threads: int) -> None:
    case = make_case(name)
    model = make_model(case)
    output = model(**case.call)
    assert output.loss.item() == pytest.approx(float(golden[f"{name}/loss"]), rel=1e-5)
    mask = case.call["attention_mask"]
    for key in LOGITS:
        assert hasattr(output, key) == (f"{name}/{key}" in golden)
        if hasattr(output, key):
            actual, wanted = getattr(output, key).data, golden[f"{name}/{key}"]
            assert actual.dtype == np.float32
            assert actual.shape == wanted.shape
            if wanted.shape[:2] == mask.shape:  # of tokens
                np.testing.assert_array_equal(actual[mask == 0], 0)
                actual, wanted = actual[mask == 1], wanted[mask == 1]
            np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    output.loss.backward()
    expected, start = {}, 0
    for key, parameter in sorted(model.named_parameters()):
        size = int(np.prod(parameter.shape))
        expected[key] = golden[f"{name}/gradients"][start : start + size].reshape(parameter.shape)
        start += size
    assert_gradients(gradients(model), {key: g for key, g in expected.items() if not np.isnan(g).all()})


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_central_differences_in_float64(name: str) -> None:
    case = make_case(name)
    model = make_model(case, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2, pad_token_id=None).train()
    model.astype(np.float64)
    rng = np.random.default_rng(0)
    step = 1e-6
    with fastattn.use_reference():

        def loss() -> Any:
            fastattn.manual_seed(4)
            return model(**case.call).loss

        total = loss()
        assert total.dtype == np.float64
        total.backward()
        exact = gradients(model)
        floor = 1e-3 * largest(exact)
        for key, parameter in model.named_parameters():
            if key not in exact:
                continue  # the bias that is not used in an untied model, in transformers neither
            direction, before = rng.normal(size=parameter.shape), parameter.data.copy()
            sides = []
            for sign in (1, -1):
                parameter.data[...] = before + sign * step * direction
                sides.append(loss().item())
            parameter.data[...] = before
            slope = (sides[0] - sides[1]) / (2 * step)
            wanted = float((exact[key] * direction).sum())
            assert slope == pytest.approx(wanted, abs=1e-5 * max(abs(wanted), floor)), key


class TestTraining:
    """The tape through whole models."""

    @pytest.mark.parametrize("name", ["BertForTokenClassification", "BertForPreTraining", "BertForMultipleChoice"])
    def test_same_seed_same_bits_with_and_without_checkpoint(self, name: str, isa: str, restore_runtime: None) -> None:
        case = make_case(name)
        model = make_model(case, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1).train()

        def step() -> list[Any]:
            fastattn.manual_seed(7)
            model.zero_grad()
            loss = model(**case.call).loss
            loss.backward()
            return [loss.data, *gradients(model).values()]

        first = step()
        model.gradient_checkpointing_enable()
        checkpointed = step()
        model.gradient_checkpointing_disable()
        fastattn.set_num_threads(1)
        alone = step()
        for a, b, c in zip(first, checkpointed, alone, strict=True):
            assert_same_bits(b, a)
            assert_same_bits(c, a)
        fastattn.manual_seed(8)
        assert model(**case.call).loss.item() != first[0].item()

    def test_dropout_acts_in_training_mode_alone(self) -> None:
        case = make_case("BertForSequenceClassification")
        model = make_model(case, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5, classifier_dropout=0.5)
        quiet = model(**case.call).loss.item()
        assert quiet == make_model(case)(**case.call).loss.item()
        model.train()
        assert len({model(**case.call).loss.item() for _ in range(5)} - {quiet}) == 5
        with fastattn.no_grad():  # as in torch
            assert len({model(**case.call).loss.item() for _ in range(5)} - {quiet}) == 5
        model.freeze()
        assert not model.train().training
        assert model(**case.call).loss.item() == quiet

    def test_dropout_of_what_is_not_trained(self) -> None:
        """Training mode alone decides, as in torch: the same draws and the same bits."""
        case = make_case("BertForSequenceClassification")
        dropout = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}
        whole, part, lower = (make_model(case, **dropout).train() for _ in range(3))
        for parameter in part.bert.parameters():
            parameter.requires_grad = False
        for parameter in lower.bert.embeddings.parameters():
            parameter.requires_grad = False
        results = []
        for model in (whole, part, lower):
            for checkpointing in (False, True):
                model._set_checkpointing(checkpointing)
                model.zero_grad()
                fastattn.manual_seed(3)
                output = model(**case.call)
                output.loss.backward()
                results.append([output.logits, model.classifier.weight.grad])
        for result in results[1:]:
            for a, b in zip(result, results[0], strict=True):
                assert_same_bits(a, b)

    def test_eval_between_a_checkpointed_call_and_backward_is_noticed(self) -> None:
        case = make_case("BertForTokenClassification")
        model = make_model(case, hidden_dropout_prob=0.3).train()
        model.gradient_checkpointing_enable()
        loss = model(**case.call).loss
        model.eval()
        with pytest.raises(RuntimeError, match="drew fewer random numbers"):
            loss.backward()

    def test_models_are_copied(self) -> None:
        case = make_case("BertForPreTraining")
        model = make_model(case)
        expected = model(**case.call).loss.item()
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), copy.deepcopy(model.freeze())):
            assert other(**case.call).loss.item() == expected

    def test_outputs_are_read_as_in_transformers(self) -> None:
        case = make_case("BertForTokenClassification")
        model = make_model(case)
        output = model(**case.call)
        assert output["loss"] is output[0] is output.loss
        assert output["logits"] is output[1] is output[-1] is output.logits
        assert output[:2] == (output.loss, output.logits)
        assert list(output) == output.keys() == ["loss", "logits"]
        assert "hidden_states" not in output
        for key, error in (("hidden_states", KeyError), ("keys", KeyError), (2, IndexError)):
            with pytest.raises(error):
                output[key]
        del case.call["labels"]
        output = model(**case.call, output_attentions=True)
        assert output[0] is output.logits
        assert output.keys() == ["logits", "attentions"]
        assert model.bert(**case.call)[0].shape == (BATCH, SEQ, 12)
        case = make_case("BertForPreTraining")
        output = make_model(case)(**case.call)
        assert output.keys() == ["loss", "prediction_logits", "seq_relationship_logits"]
        assert output[0].item() == output.loss.item()
        assert "prediction_logits" not in vars(output)  # computed when it is read
        assert output[1] is output["prediction_logits"] is output.prediction_logits

    @pytest.mark.parametrize(
        ("dropout", "places"),
        [
            ({"hidden_dropout_prob": 0.3}, 8),
            ({"attention_probs_dropout_prob": 0.3}, 2),
            ({"classifier_dropout": 0.3}, 1),
        ],
        ids=lambda x: "" if isinstance(x, int) else next(iter(x)),
    )
    def test_dropout_is_where_transformers_has_it(self, dropout: dict[str, float], places: int) -> None:
        """After the embeddings, in each layer after attention and feed-forward, on the weights, before the head."""
        case = make_case("BertForSequenceClassification")
        model = make_model(case, **dropout).train()
        if "hidden_dropout_prob" in dropout:
            places = 1 + 2 * 2 + 1
        fastattn.manual_seed(0)
        model(**case.call)

        assert get_rng_state()["counter"] == places

    def test_frozen_and_without_gradients_it_gives_the_same_bits(self, isa: str) -> None:
        for name in CASES:
            case = make_case(name)
            model = make_model(case)
            recorded = model(**case.call)
            with fastattn.no_grad():
                plain = model(**case.call)
                assert not plain.loss.requires_grad
            frozen = model.freeze()(**case.call)
            assert recorded.loss.requires_grad
            assert not frozen.loss.requires_grad
            for other in (plain, frozen):
                assert_same_bits(other.loss.data, recorded.loss.data)
                for key in LOGITS:
                    if hasattr(other, key):
                        assert_same_bits(getattr(other, key), getattr(recorded, key))

    def test_gradients_accumulate(self) -> None:
        case = make_case("BertForMaskedLM")
        model = make_model(case)
        model(**case.call).loss.backward()
        once = {key: g.copy() for key, g in gradients(model).items()}
        model(**case.call).loss.backward()
        assert_gradients(gradients(model), {key: 2 * g for key, g in once.items()})
        model.zero_grad()
        assert not gradients(model)

    def test_part_of_a_model_is_frozen(self) -> None:
        """The gradients of the rest are the same bits; below the frozen part they go through it."""
        case = make_case("BertForTokenClassification")
        whole, part, lower = make_model(case), make_model(case), make_model(case)
        whole(**case.call).loss.backward()
        for name, parameter in part.named_parameters():
            parameter.requires_grad = "encoder.layer.1" not in name and "query" not in name
        part(**case.call).loss.backward()
        lower.bert.embeddings.freeze()
        lower.bert.layers[0].freeze()
        lower(**case.call).loss.backward()
        expected = gradients(whole)
        assert {name for name in expected if "layer.1" in name or "query" in name} == set(expected) - set(
            gradients(part)
        )
        assert {name for name in expected if "embeddings" in name or "layer.0" in name} == set(expected) - set(
            gradients(lower)
        )
        for model in (part, lower):
            for name, gradient in gradients(model).items():
                assert_same_bits(gradient, expected[name])

    def test_the_padding_has_no_part_in_the_gradients(self) -> None:
        """Wider padding and other ids there: the same bits."""
        case = make_case("BertForTokenClassification")
        model = make_model(case)
        model(**case.call).loss.backward()
        expected = gradients(model)
        model.zero_grad()
        fill = {"input_ids": WORDS - 1, "attention_mask": 0, "token_type_ids": 1, "labels": -100}
        call = {key: np.pad(x, ((0, 0), (0, 3)), constant_values=fill[key]) for key, x in case.call.items()}
        call["input_ids"][call["attention_mask"] == 0] = 10**6
        model(**call).loss.backward()
        for name, gradient in gradients(model).items():
            assert_same_bits(gradient, expected[name])

    def test_logits_of_masked_words_are_computed_when_they_are_read(self) -> None:
        case = make_case("BertForMaskedLM")
        model = make_model(case)
        output = model(**case.call)
        calls = []
        compute, output.compute_logits = output.compute_logits, lambda: calls.append(1) or compute()
        assert not calls
        assert output.logits.shape == (BATCH, SEQ, WORDS)
        assert output.logits is output.logits
        assert calls == [1]
        without = {key: x for key, x in case.call.items() if key != "labels"}
        assert_same_bits(model(**without).logits, output.logits)

    @pytest.mark.parametrize("name", CASES)
    def test_a_loss_of_ones_own(self, name: str) -> None:
        """Computed from the logits it has the gradients of the head's."""
        case = make_case(name)
        model = make_model(case)
        output = model(**case.call)
        output.loss.backward()
        expected = gradients(model)
        model.zero_grad()
        own = loss_of_ones_own(name, case, model(**case.call))
        assert own.item() == pytest.approx(output.loss.item(), rel=1e-5)
        own.backward()
        assert_gradients(gradients(model), expected)

    @pytest.mark.parametrize("name", CASES)
    def test_what_is_given_follows_from_the_model(self, name: str) -> None:
        """Tensors of one that trains, within no_grad and with requires_grad=False too; arrays of a frozen one."""
        case = make_case(name)
        model, part, frozen = make_model(case), make_model(case), make_model(case).freeze()
        for parameter in part.parameters():
            parameter.requires_grad = False
        extras = {"output_hidden_states": True, "output_attentions": True}

        def results(model: Any) -> list[Any]:
            output = model(**case.call, **extras)
            found = [getattr(output, key) for key in LOGITS if hasattr(output, key)]
            return [*found, *output.hidden_states, *output.attentions]

        with fastattn.no_grad():
            plain = results(model)
        assert all(isinstance(x, Tensor) and x.requires_grad for x in results(model))
        for found in (plain, results(part)):
            assert all(isinstance(x, Tensor) and not x.requires_grad for x in found)
        assert all(isinstance(x, np.ndarray) for x in results(frozen))

    @pytest.mark.parametrize("name", ["BertForTokenClassification", "BertForPreTraining"])
    def test_hidden_states_and_attentions(self, name: str) -> None:
        """Their shapes; and the gradient that goes through them is a difference."""
        case = make_case(name)
        model, extras = make_model(case), {"output_hidden_states": True, "output_attentions": True}
        output = model(**case.call, **extras)
        assert [x.shape for x in output.hidden_states] == [(BATCH, SEQ, 12)] * 3
        assert [x.shape for x in output.attentions] == [(BATCH, 3, SEQ, SEQ)] * 2
        output.loss.backward()
        model.zero_grad()
        rng = np.random.default_rng(0)
        model.astype(np.float64)
        shapes = [(BATCH, SEQ, 12), (BATCH, 3, SEQ, SEQ)]
        factors = [rng.normal(size=shape) for shape in shapes]
        weight = model.bert.layers[0].self_attn.stacked.weight

        def total() -> Any:
            output = model(**case.call, **extras)
            return (output.hidden_states[1] * factors[0]).sum() + (output.attentions[1] * factors[1]).sum()

        with fastattn.use_reference():
            total().backward()
            direction = rng.normal(size=weight.shape)
            wanted, before, sides = float((weight.grad * direction).sum()), weight.data.copy(), []
            for sign in (1, -1):
                weight.data[...] = before + sign * 1e-6 * direction
                sides.append(total().item())
        assert (sides[0] - sides[1]) / 2e-6 == pytest.approx(wanted, rel=1e-5)


def loss_of_ones_own(name: str, case: Case, output: Any) -> Any:
    """What transformers' users write: the head's loss from its logits."""
    call = case.call
    if case.kind == "BertForQuestionAnswering":
        pairs = ((output.start_logits, "start_positions"), (output.end_logits, "end_positions"))
        losses = [F.cross_entropy(logits, np.where(call[key] < SEQ, call[key].clip(0), -100)) for logits, key in pairs]
        return (losses[0] + losses[1]) / 2
    if name == "BertForSequenceClassification labels":
        return F.binary_cross_entropy_with_logits(output.logits, np.asarray(call["labels"], np.float32))
    if case.kind == "BertForSequenceClassification" and "regression" in name:
        return F.mse_loss(output.logits, np.asarray(call["labels"], np.float32).reshape(output.logits.shape))
    labels = np.asarray(call["labels"]).reshape(-1)
    if case.kind != "BertForPreTraining":
        return F.cross_entropy(output.logits.reshape(len(labels), -1), labels)
    words = F.cross_entropy(output.prediction_logits.reshape(len(labels), -1), labels)
    return words + F.cross_entropy(output.seq_relationship_logits, call["next_sentence_label"])


class TestPretrained:
    def test_what_is_new_is_named_and_drawn_by_the_seed(self, tmp_path: Path) -> None:
        case = make_case("BertForTokenClassification")
        model = make_model(case)
        model.bert.config = model.config
        model.bert.save_pretrained(tmp_path)
        drawn = []
        for seed in (1, 1, 2):
            fastattn.manual_seed(seed)
            with pytest.warns(UserWarning, match="classifier.weight, classifier.bias are not in .*model.safetensors"):
                again = models.BertForTokenClassification.from_pretrained(tmp_path, num_labels=7)
            assert not again.training
            assert again.config.num_labels == 7
            assert again.config.id2label[6] == "LABEL_6"
            drawn.append(again.state_dict()["classifier.weight"].copy())
        assert drawn[0].shape == (7, 12)
        np.testing.assert_array_equal(drawn[0], drawn[1])
        assert (drawn[0] != drawn[2]).all()
        state, expected = again.state_dict(), model.state_dict()
        for name in expected:
            if name.startswith("bert."):
                np.testing.assert_array_equal(state[name], expected[name])

    @pytest.mark.parametrize("name", CASES)
    def test_saved_and_loaded_again(self, tmp_path: Path, name: str) -> None:
        case = make_case(name)
        model = make_model(case, id2label=None)
        model.save_pretrained(tmp_path)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again = getattr(models, case.kind).from_pretrained(tmp_path)
            frozen = getattr(models, case.kind).from_pretrained(tmp_path, trainable=False)
        assert again.config == model.config
        assert again.records()
        assert not frozen.records()
        for output in (again(**case.call), frozen(**case.call)):
            assert_same_bits(output.loss.data, model(**case.call).loss.data)

    def test_names_of_labels_are_kept(self, tmp_path: Path) -> None:
        case = make_case("BertForTokenClassification")
        names = dict(enumerate("ABCDE"))
        make_model(case, id2label=names).save_pretrained(tmp_path)
        load = models.BertForTokenClassification.from_pretrained
        assert load(tmp_path).config.id2label == names
        assert load(tmp_path).config.label2id == {"A": 0, "B": 1, "C": 2, "D": 3, "E": 4}
        changed = load(tmp_path, id2label=dict(enumerate("VWXYZ"))).config
        assert changed.label2id == {"V": 0, "W": 1, "X": 2, "Y": 3, "Z": 4}

    def test_a_head_of_another_size(self, tmp_path: Path) -> None:
        make_model(make_case("BertForTokenClassification")).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=r"tensor 'classifier.weight' must have shape \(3, 12\), got \(5, 12\)"):
            models.BertForTokenClassification.from_pretrained(tmp_path, num_labels=3)

    def test_an_encoder_that_is_not_whole(self) -> None:
        case = make_case("BertForMaskedLM")
        tensors = {name: array for name, array in make_model(case).state_dict().items() if "value.bias" not in name}
        with pytest.raises(ValueError, match=r"BertForMaskedLM: tensor '[^']*self\.value\.bias' is missing"):
            models.BertForMaskedLM(BertConfig(**case.config), tensors)

    def test_a_tied_matrix_of_other_values(self, tmp_path: Path) -> None:
        case = make_case("BertForMaskedLM")
        model, name = make_model(case), "cls.predictions.decoder.weight"
        tensors = dict(model.state_dict())
        tensors[name] = tensors["bert.embeddings.word_embeddings.weight"] + 0.0
        assert models.BertForMaskedLM(model.config, tensors).predictions.decoder.weight.shape == tensors[name].shape
        tensors[name][3, 1] += 1
        with pytest.raises(ValueError, match=rf"'{name}' must be 'bert\.embeddings\..*', to which the config ties it"):
            models.BertForMaskedLM(model.config, tensors)

    def test_a_field_that_there_is_not(self, tmp_path: Path) -> None:
        make_model(make_case("BertForMaskedLM")).save_pretrained(tmp_path)
        with pytest.raises(TypeError, match="'num_label' is not a field of BertConfig"):
            models.BertForMaskedLM.from_pretrained(tmp_path, num_label=3)

    def test_new_models_are_drawn_by_the_seed_and_train(self) -> None:
        config = BertConfig(**make_case("BertForPreTraining").config)
        states = []
        for seed in (3, 3, 4):
            fastattn.manual_seed(seed)
            model = models.BertForPreTraining(config)
            assert model.training
            assert model.records()
            states.append(model.state_dict())
        for name, array in states[0].items():
            np.testing.assert_array_equal(states[1][name], array)
            if array.ndim == 2:
                assert (states[2][name] != array).any()
        np.testing.assert_array_equal(states[0]["bert.embeddings.word_embeddings.weight"][0], 0)  # [PAD]
