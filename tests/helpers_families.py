"""The families of encoders of tokens: a row for each `model_type`, with random configurations for it.

A new family adds a row. The tests of all families run over the rows.

>>> model = new_model("roberta", "TokenClassification", seed=3)
>>> model(**make_call(model, np.random.default_rng(3))).loss
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator

import fastattn
from fastattn.models.config import ACTIVATIONS
from fastattn.models.registry import Family, family
from fastattn.models.rotary import GATED

LABELS, CHOICES = 3, 3


@dataclass(frozen=True)
class Row:
    """How the tests draw a model of a family.

    Attributes:
        theirs: how the names of transformers' classes begin.
        draw: fields of a small config.json, drawn at random.
        pair_label: the argument of its PreTraining with a class for each pair; "" for a family whose PreTraining has
            labels for each token.
        configurations: how many are compared with transformers.
    """

    theirs: str
    draw: Callable[[Generator], dict[str, Any]]
    pair_label: str = ""
    configurations: int = 60


def shared(rng: Generator) -> dict[str, Any]:
    """The fields that descend from BERT's config.json. Sizes are odd where they can be."""
    heads = int(rng.integers(1, 5))
    return {
        "vocab_size": int(rng.integers(20, 60)),
        "hidden_size": heads * int(rng.integers(2, 9)),
        "num_attention_heads": heads,
        "num_hidden_layers": int(rng.integers(1, 4)),
        "intermediate_size": int(rng.integers(3, 40)),
        "hidden_act": str(rng.choice([*ACTIVATIONS])),
        "max_position_embeddings": int(rng.integers(16, 30)),
        "type_vocab_size": int(rng.integers(1, 4)),
        "layer_norm_eps": float(rng.choice([1e-12, 1e-5])),
        "pad_token_id": int(rng.integers(0, 4)),
        "tie_word_embeddings": bool(rng.random() < 0.8),
    }


def _distilbert(rng: Generator) -> dict[str, Any]:
    fields = shared(rng)
    names = {
        "hidden_size": "dim",
        "num_attention_heads": "n_heads",
        "num_hidden_layers": "n_layers",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
    }
    dropped = ("type_vocab_size", "layer_norm_eps")
    return {names.get(name, name): value for name, value in fields.items() if name not in dropped}


def _electra(rng: Generator) -> dict[str, Any]:
    fields = shared(rng)
    same = rng.random() < 0.3
    return {**fields, "embedding_size": fields["hidden_size"] if same else int(rng.integers(2, 20))}


def _albert(rng: Generator) -> dict[str, Any]:
    fields = shared(rng)
    layers = fields["num_hidden_layers"] = int(rng.integers(1, 6))
    groups = {"num_hidden_groups": int(rng.integers(1, layers + 1)), "inner_group_num": int(rng.integers(1, 3))}
    return {**fields, **groups, "embedding_size": int(rng.integers(2, 20))}


def _mpnet(rng: Generator) -> dict[str, Any]:
    fields = {**shared(rng), "relative_attention_num_buckets": int(rng.integers(32, 40))}
    del fields["type_vocab_size"]
    return fields


def _rotary(rng: Generator) -> dict[str, Any]:
    fields, heads = shared(rng), int(rng.integers(1, 5))
    sizes = {"num_attention_heads": heads, "hidden_size": heads * 2 * int(rng.integers(1, 5))}
    theta = {"rope_type": "default", "rope_theta": float(rng.choice([10.0, 1000.0]))}
    return {**fields, **sizes, "hidden_act": str(rng.choice([*GATED])), "rope_parameters": theta}


def _gte(rng: Generator) -> dict[str, Any]:
    return {**_rotary(rng), "type_vocab_size": int(rng.integers(0, 3))}


def _modernbert(rng: Generator) -> dict[str, Any]:
    fields, switches = _rotary(rng), ("norm", "attention", "mlp", "decoder", "classifier")
    thetas = zip(("full_attention", "sliding_attention"), rng.choice([10.0, 1000.0], 2).tolist(), strict=True)
    dropped = ("hidden_act", "layer_norm_eps", "type_vocab_size")
    return {
        **{name: value for name, value in fields.items() if name not in dropped},
        **{f"{name}_bias": bool(rng.integers(2)) for name in switches},
        **dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 1),
        "rope_parameters": {name: {"rope_type": "default", "rope_theta": theta} for name, theta in thetas},
        "hidden_activation": fields["hidden_act"],
        "norm_eps": fields["layer_norm_eps"],
        "local_attention": int(rng.integers(1, 9)),
        "global_attn_every_n_layers": int(rng.integers(1, 4)),
        "classifier_pooling": str(rng.choice(["cls", "mean"])),
        "classifier_activation": str(rng.choice([*ACTIVATIONS])),
    }


ROWS = {
    "albert": Row("Albert", _albert, "sentence_order_label"),
    "bert": Row("Bert", shared, "next_sentence_label"),
    "camembert": Row("Camembert", shared, configurations=6),
    "distilbert": Row("DistilBert", _distilbert),
    "electra": Row("Electra", _electra),
    "gte": Row("Gte", _gte),
    "modernbert": Row("ModernBert", _modernbert),
    "mpnet": Row("MPNet", _mpnet),
    "nomic_bert": Row("NomicBert", _rotary),
    "roberta": Row("Roberta", shared),
    "xlm-roberta": Row("XLMRoberta", shared, configurations=6),
}
HEADS = [(name, kind) for name in ROWS for kind in family(name).heads]
"""Every head of every family."""


def draw_fields(name: str, seed: int, **changes: Any) -> dict[str, Any]:
    """The fields of a random config.json of a family."""
    return {"model_type": name, **ROWS[name].draw(np.random.default_rng(seed)), **changes}


def new_model(name: str, kind: str = "", seed: int = 0, *, dtype: Any = np.float32, **changes: Any) -> Any:
    """A model in evaluation mode with random weights: an encoder, or one with a head of a kind."""
    found: Family = family(name)
    fastattn.manual_seed(seed)
    model: Any = (found.head(kind) if kind else found.encoder)(  # type: ignore[misc]  # each of the rows has one
        found.config.from_dict(draw_fields(name, seed), **changes)
    )
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    model.load_state_dict(weights(shapes, seed))
    model.astype(dtype)
    return model.eval()


def weights(shapes: Mapping[str, tuple[int, ...]], seed: int = 0, spread: float = 0.3) -> dict[str, Any]:
    """Arrays of these shapes, large enough for attention to choose, with norms and biases that are not 1 and 0."""
    rng, arrays = np.random.default_rng(seed), {}
    for name in sorted(shapes):
        mean = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
        arrays[name] = rng.normal(mean, spread, shapes[name]).astype(np.float32)
    return arrays


def make_call(kind: str, config: Any, pair_label: str, rng: Generator, batch: int = 3, seq: int = 9) -> dict[str, Any]:
    """The arguments of a call, with labels. Column 0 is no padding, because transformers pools it even then."""
    shape = (batch, CHOICES, seq) if kind == "MultipleChoice" else (batch, seq)
    mask = np.ones(shape, np.int64)
    if kind != "QuestionAnswering":  # where transformers' softmax counts the padding
        mask[0, ..., seq - 3 :] = 0
        # windows and a bias count tokens, and a gap changes their distances
        if not {"local_attention", "relative_attention_num_buckets"} & set(config.__dataclass_fields__):
            mask[1, ..., 2] = 0
    call: dict[str, Any] = {"input_ids": rng.integers(0, config.vocab_size, shape), "attention_mask": mask}
    call["input_ids"][..., 0] = config.vocab_size - 1
    if config.type_vocab_size:
        call["token_type_ids"] = rng.integers(0, config.type_vocab_size, shape)
    labels = {
        "": {},
        "MaskedLM": {"labels": _of_tokens(rng, mask, config.vocab_size)},
        "MultipleChoice": {"labels": rng.integers(0, CHOICES, batch)},
        "NextSentencePrediction": {"labels": rng.integers(0, 2, batch)},
        "PreTraining": {"labels": _of_tokens(rng, mask, config.vocab_size), pair_label: rng.integers(0, 2, batch)},
        "QuestionAnswering": {name: rng.integers(0, seq, batch) for name in ("start_positions", "end_positions")},
        "SequenceClassification": _of_sequences(rng, config, batch),
        "TokenClassification": {"labels": _of_tokens(rng, mask, config.num_labels)},
    }[kind]
    if kind == "PreTraining" and not pair_label:
        labels = {"labels": rng.integers(0, 2, shape)}
    return {**call, **labels}


def _of_tokens(rng: Generator, mask: Any, classes: int) -> Any:
    labels = rng.integers(0, classes, mask.shape)
    kept = (mask == 1) & (rng.random(mask.shape) < 0.5)
    kept[..., 0] = True
    return np.where(kept, labels, -100)


def _of_sequences(rng: Generator, config: Any, batch: int) -> dict[str, Any]:
    count = config.num_labels
    if config.problem_type == "regression":
        return {"labels": rng.normal(size=(batch, count)).astype(np.float32)}
    if config.problem_type == "multi_label_classification":
        return {"labels": rng.integers(0, 2, (batch, count)).astype(np.float32)}
    return {"labels": rng.integers(0, count, batch)}
