"""Labels of heads: what is refused by name, what does not count, and ragged batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits
from helpers_heads import (
    BATCH,
    LABELS,
    SEQ,
    gradients,
    make_case,
    make_model,
)

from fastattn import models

TOKENS = ("BertForTokenClassification", "BertForMaskedLM")


@pytest.mark.parametrize(
    ("name", "changes", "error", "message"),
    [
        *((name, {"labels": np.full((BATCH, SEQ), -100)}, ValueError, "labels must have something") for name in TOKENS),
        *((name, {"labels": np.zeros((BATCH, 3), int)}, ValueError, r"\(4, 13\), got \(4, 3\)") for name in TOKENS),
        *((name, {"labels": np.zeros((BATCH, SEQ))}, TypeError, "must be an integer array") for name in TOKENS),
        *((name, {"labels": ("at", 2, 0, 99)}, ValueError, r"or -100, got 99 at \(2, 0\)") for name in TOKENS),
        *((name, {"labels": ("at", 2, 0, -1)}, ValueError, r"or -100, got -1 at \(2, 0\)") for name in TOKENS),
        *((name, {"labels": ("at", 0, 12, 1)}, ValueError, r"is 0, got 1 at \(0, 12\)") for name in TOKENS),
        ("BertForSequenceClassification", {"labels": [0, 1, 5, 0]}, ValueError, r"\[0, 5\) or -100, got 5 at index 2"),
        ("BertForSequenceClassification", {"labels": [[0], [1], [2], [3]]}, ValueError, r"\(4,\), got \(4, 1\)"),
        ("BertForSequenceClassification classes", {"labels": [0.0, 1.0, 1.0, 1.0]}, TypeError, "integer array"),
        ("BertForSequenceClassification regression", {"labels": [1.0, 2.0]}, ValueError, r"\(4,\), got \(2,\)"),
        (
            "BertForSequenceClassification regression",
            {"labels": [1, 2, np.nan, 3]},
            ValueError,
            r"finite, got nan at \(2",
        ),
        ("BertForSequenceClassification labels", {"labels": [0.0] * 4}, ValueError, r"\(4, 5\), got \(4,\)"),
        ("BertForSequenceClassification labels", {"labels": ["a"] * 4}, TypeError, "labels must be numbers"),
        ("BertForMultipleChoice", {"labels": [0, 1, 2, 3]}, ValueError, r"\[0, 3\) or -100, got 3 at index 3"),
        ("BertForMultipleChoice", {"input_ids": np.ones((2, 3), int)}, ValueError, r"\(batch, choices, seq\)"),
        (
            "BertForMultipleChoice",
            {"attention_mask": np.ones((4, 2, 13))},
            ValueError,
            "attention_mask must have shape",
        ),
        ("BertForNextSentencePrediction", {"labels": [0, 1, 2, 0]}, ValueError, r"\[0, 2\) or -100, got 2"),
        (
            "BertForPreTraining",
            {"next_sentence_label": [-100] * 4},
            ValueError,
            "next_sentence_label must have something",
        ),
        ("BertForPreTraining", {"next_sentence_label": None}, ValueError, "must be given together"),
        ("BertForQuestionAnswering", {"end_positions": None}, ValueError, "must be given together"),
        (
            "BertForQuestionAnswering",
            {"start_positions": [13] * 4},
            ValueError,
            r"start_positions must have a position in \[0, 13\), the sequence: all 4 lie beyond it",
        ),
        ("BertForSequenceClassification", {"labels": [0.0, 1.0, 2.0, 1.0]}, ValueError, r"float64 mean several .*inte"),
        ("BertForSequenceClassification", {"labels": np.full((4, 5), 1.5)}, ValueError, r"in \[0, 1\], got 1.5 at \(0"),
        ("BertForSequenceClassification", {"labels": -np.eye(4, 5)}, ValueError, r"in \[0, 1\], got -1.0 at \(0, 0\)"),
        ("BertForQuestionAnswering", {"end_positions": [1]}, ValueError, r"end_positions must have shape \(4,\)"),
        ("BertForQuestionAnswering", {"end_positions": [1.0] * 4}, TypeError, "end_positions must be an integer array"),
        (
            "BertForQuestionAnswering",
            {"attention_mask": np.arange(SEQ) < np.array([[13], [5], [13], [13]])},
            ValueError,
            "start_positions must be at a token, got 5 at index 1, which is padding",
        ),
    ],
)
def test_bad_labels_are_named(name: str, changes: dict[str, Any], error: type[Exception], message: str) -> None:
    case = make_case(name)
    for key, value in changes.items():
        if isinstance(value, tuple):
            _, row, column, label = value
            case.call[key][row, column] = label
        else:
            case.call[key] = value
    with pytest.raises(error, match=rf"^{case.kind}: .*{message}"):
        make_model(case)(**case.call)


def test_question_answering_leaves_the_padding_out() -> None:
    """Loss and logits of a sentence are those that it has alone."""
    case = make_case("BertForQuestionAnswering")
    model = make_model(case)
    case.call["attention_mask"][1, 7:] = 0
    case.call["end_positions"][1] = 6
    output = model(**case.call)
    assert np.isneginf(output.start_logits.data[1, 7:]).all()
    assert np.isneginf(output.end_logits.data[1, 7:]).all()
    alone = model(case.call["input_ids"][1:2, :7], None, case.call["token_type_ids"][1:2, :7], [5], [6])
    assert_same_bits(output.start_logits[1:2, :7], alone.start_logits)
    case.call["start_positions"], case.call["end_positions"] = [99, 5, 99, 99], [99, 6, 99, 99]
    together = model(**case.call)
    assert_same_bits(together.loss.data, alone.loss.data)
    together.loss.backward()
    assert all(np.isfinite(gradient).all() for gradient in gradients(model).values())


def test_question_answering_of_ragged_batches() -> None:
    """Logits, loss and gradients have the bits of a padded batch; a position is that in its sequence."""
    case = make_case("BertForQuestionAnswering")
    model = make_model(case)
    mask = case.call["attention_mask"]
    mask[1, 7:] = 0
    mask[3, 4:] = 0
    starts, ends = [0, 5, 12, 3], [-1, 6, 13, 99]
    padded = model(**{**case.call, "start_positions": starts, "end_positions": ends}, output_hidden_states=True)
    padded.loss.backward()
    expected = gradients(model)
    model.zero_grad()
    kept = mask == 1
    ids, types = case.call["input_ids"][kept], case.call["token_type_ids"][kept]
    offsets = np.concatenate([[0], np.cumsum(kept.sum(1))])
    packed = model.forward_ragged(
        ids, offsets, types, start_positions=starts, end_positions=ends, output_hidden_states=True
    )
    assert_same_bits(packed.start_logits, padded.start_logits.data[kept])
    assert_same_bits(packed.end_logits, padded.end_logits.data[kept])
    assert_same_bits(packed.loss.data, padded.loss.data)
    assert_same_bits(packed.hidden_states[-1], padded.hidden_states[-1].data[kept])
    packed.loss.backward()
    for key, gradient in gradients(model).items():
        assert_same_bits(gradient, expected[key])
    cut = model.forward_ragged(ids, offsets, types, start_positions=[0, 7, 12, 3], end_positions=ends).loss
    beyond = model.forward_ragged(ids, offsets, types, start_positions=[0, 99, 12, 3], end_positions=ends).loss
    assert_same_bits(cut.data, beyond.data)
    with pytest.raises(ValueError, match=r"start_positions must have a position in \[0, 13\), the sequence: all 4 lie"):
        model.forward_ragged(ids, offsets, types, start_positions=[13, 7, 13, 4], end_positions=ends)
    with pytest.raises(ValueError, match=r"end_positions must have shape \(4,\), got \(1,\)"):
        model.forward_ragged(ids, offsets, types, start_positions=[0] * 4, end_positions=[0])


@pytest.mark.parametrize("kind", ["BertForMaskedLM", "BertForPreTraining"])
def test_words_of_some_places(kind: str) -> None:
    """The scores of places have the bits of those of all tokens."""
    case = make_case(kind)
    model = make_model(case)
    ids, offsets = case.call["input_ids"].reshape(-1), np.arange(BATCH + 1) * SEQ
    name = "logits" if kind == "BertForMaskedLM" else "prediction_logits"
    every = model.forward_ragged(ids, offsets)[name]
    places = [5, 0, 30]
    assert_same_bits(model.forward_ragged(ids, offsets, places=places)[name], every.data[places])
    assert_same_bits(every, model(case.call["input_ids"])[name].data.reshape(every.shape))
    for wrong in ([52], [-1], [[0]], [0.5]):
        with pytest.raises((TypeError, ValueError), match="places must"):
            model.forward_ragged(ids, offsets, places=wrong)


def test_labels_of_the_classes_alone_decide_the_problem() -> None:
    """Integers are classes, other numbers are several labels, as in transformers; the config stays as it was."""
    case = make_case("BertForSequenceClassification")
    model = make_model(case)
    classes = model(**case.call).loss.item()
    rng = np.random.default_rng(0)
    several = model(**{**case.call, "labels": rng.integers(0, 2, (BATCH, LABELS)).astype(float)}).loss.item()
    assert several != classes
    assert model(**case.call).loss.item() == classes
    assert model.config.problem_type is None


@pytest.mark.parametrize(
    "name", ["BertForTokenClassification", "BertForMaskedLM", "BertForSequenceClassification regressions"]
)
def test_ragged_has_the_bits_of_padded(name: str) -> None:
    case = make_case(name)
    model = make_model(case)
    padded = model(**case.call, output_hidden_states=True, output_attentions=True)
    padded.loss.backward()
    expected = gradients(model)
    model.zero_grad()
    kept = case.call["attention_mask"] == 1
    labels = case.call["labels"]
    of_tokens = labels.shape == kept.shape
    packed = model.forward_ragged(
        case.call["input_ids"][kept],
        np.concatenate([[0], np.cumsum(kept.sum(1))]),
        case.call["token_type_ids"][kept],
        np.nonzero(kept)[1],
        labels[kept] if of_tokens else labels,
        output_hidden_states=True,
        output_attentions=True,
    )
    assert_same_bits(packed.loss.data, padded.loss.data)
    assert_same_bits(packed.logits, padded.logits.data[kept] if of_tokens else padded.logits)
    for a, b in zip(packed.hidden_states, padded.hidden_states, strict=True):
        assert_same_bits(a, b.data[kept])
    assert packed.attentions[0].shape == (BATCH, 3, SEQ, SEQ)
    packed.loss.backward()
    for key, gradient in gradients(model).items():
        assert_same_bits(gradient, expected[key])
    if of_tokens:
        with pytest.raises(ValueError, match=r"labels must have shape \(38,\), got \(4, 13\)"):
            model.forward_ragged(
                case.call["input_ids"][kept], np.concatenate([[0], np.cumsum(kept.sum(1))]), labels=labels
            )


def test_a_multiple_choice_is_never_ragged() -> None:
    assert not hasattr(models.BertForMultipleChoice, "forward_ragged")
    model = make_model(make_case("BertForMultipleChoice"))
    assert model(np.zeros((0, 3, 5), np.int64)).logits.shape == (0, 3)
