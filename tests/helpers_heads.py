"""One small batch for each of BERT's heads and each kind of labels, the same on every machine.

>>> case = make_case("BertForSequenceClassification regression")
>>> model = getattr(models, case.kind)(BertConfig(**case.config), weights(shapes))
>>> model(**case.call).loss
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

BATCH, SEQ, WORDS, LABELS, CHOICES = 4, 13, 31, 5, 3
SIZES = {
    "vocab_size": WORDS,
    "hidden_size": 12,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "max_position_embeddings": 20,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "num_labels": LABELS,
}

CASES = [
    "BertForTokenClassification",
    "BertForSequenceClassification",
    "BertForSequenceClassification classes",
    "BertForSequenceClassification regression",
    "BertForSequenceClassification regressions",
    "BertForSequenceClassification labels",
    "BertForQuestionAnswering",
    "BertForMultipleChoice",
    "BertForNextSentencePrediction",
    "BertForMaskedLM",
    "BertForMaskedLM untied",
    "BertForPreTraining",
]


@dataclass
class Case:
    """The class of a model, what its config says, and the arguments of a call."""

    kind: str
    config: dict[str, Any]
    call: dict[str, Any]


def make_case(name: str) -> Case:
    """One of `CASES`. Column 0 is never padding, because transformers pools it even then."""
    kind, _, variant = name.partition(" ")
    rng = np.random.RandomState(1)  # whose numbers no version of NumPy changes
    shape = (BATCH, CHOICES, SEQ) if kind == "BertForMultipleChoice" else (BATCH, SEQ)
    mask = np.ones(shape, np.int64)
    if kind != "BertForQuestionAnswering":  # where transformers' softmax counts the padding
        mask[0, ..., 9:] = 0
        mask[1, ..., 3] = 0
        mask[2, ..., 1:10] = 0
    call: dict[str, Any] = {
        "input_ids": rng.randint(0, WORDS, shape),  # [PAD], 0, is among them
        "attention_mask": mask,
        "token_type_ids": rng.randint(0, 2, shape),
    }
    changes: dict[str, Any] = {}
    if kind in ("BertForMaskedLM", "BertForPreTraining"):
        call["labels"] = _of_tokens(rng, mask, WORDS, 0.3)
        changes["tie_word_embeddings"] = variant != "untied"
        if kind == "BertForPreTraining":
            call["next_sentence_label"] = np.array([0, 1, 1, 0])
    elif kind == "BertForNextSentencePrediction":
        call["labels"] = np.array([0, 1, -100, 0])
    elif kind == "BertForTokenClassification":
        call["labels"] = _of_tokens(rng, mask, LABELS, 0.8)
    elif kind == "BertForQuestionAnswering":
        changes["num_labels"] = 2
        call["start_positions"], call["end_positions"] = np.array([0, 5, 12, 3]), np.array([-1, 12, 13, 99])
    elif kind == "BertForMultipleChoice":
        call["labels"] = np.array([0, 2, 1, 2])
    elif variant in ("", "classes"):
        changes["problem_type"] = "single_label_classification" if variant else None
        call["labels"] = np.array([0, 4, -100, 2])
    elif variant == "regression":
        changes["num_labels"] = 1
        call["labels"] = rng.normal(size=BATCH).astype(np.float32)
    elif variant == "regressions":
        changes["problem_type"] = "regression"
        call["labels"] = rng.normal(size=(BATCH, LABELS)).astype(np.float32)
    else:
        call["labels"] = rng.randint(0, 2, (BATCH, LABELS)).astype(np.float32)
    return Case(kind, {**SIZES, **changes}, call)


def weights(shapes: Mapping[str, tuple[int, ...]], spread: float = 0.4) -> dict[str, Any]:
    """Arrays of these shapes, large enough for attention to choose, with norms and biases that are not 1 and 0."""
    rng = np.random.RandomState(2)
    arrays = {}
    for name in sorted(shapes):
        mean = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        arrays[name] = rng.normal(mean, spread, shapes[name]).astype(np.float32)
    return arrays


def largest(gradients: Mapping[str, Any]) -> float:
    """The largest element of a model's gradients."""
    return max(float(np.abs(gradient).max()) for gradient in gradients.values())


def assert_gradients(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """The same names, and |difference| <= 1e-4 * max(max|g|, 1e-3 * the largest of the model).

    A gradient that is 0 because its terms cancel (a key's bias moves all scores of a query alike) is rounding alone in
    float32: 1e-6 of the largest.
    """
    assert set(actual) == set(expected)
    top = largest(expected)
    for name, gradient in expected.items():
        own = float(np.abs(gradient).max())
        limit = 1e-6 * top if own < 1e-12 * top else 1e-4 * max(own, 1e-3 * top)
        np.testing.assert_allclose(actual[name], gradient, rtol=0, atol=limit, err_msg=name)


def _of_tokens(rng: Any, mask: Any, classes: int, share: float) -> Any:
    """Labels of a share of the tokens, -100 elsewhere."""
    labels = rng.randint(0, classes, mask.shape)
    return np.where((mask == 1) & (rng.random_sample(mask.shape) < share), labels, -100)


def make_model(case: Case, **changes: Any) -> Any:
    """The model of a case with the weights of the golden numbers, in evaluation mode."""
    from fastattn import models  # make_golden_heads.py runs without it

    model = getattr(models, case.kind)(models.BertConfig(**{**case.config, **changes}))
    model.load_state_dict(weights({name: p.shape for name, p in model.named_parameters()}))
    return model.eval()


def gradients(model: Any) -> dict[str, Any]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
