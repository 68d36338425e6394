"""What a config.json says of weights in fewer bits: its field `quantization_config`, under the names of transformers.

A matrix of int8 has the scales of its rows beside it, `NAME_scales`, and may have those of its input,
`NAME_input_scales`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastattn.checks import shown

FIELD = "quantization_config"
METHOD, VERSION = "fastattn", 1
SCALES = ("scales", "input_scales")
"""What follows the name of a matrix, and _, in the names of its scales."""
DTYPES = {"bfloat16": "BF16", "int8": "I8"}
"""The dtype of the matrices in a file, by what the field says."""


def written(weights: str) -> dict[str, Any]:
    """The field, or nothing for float32.

    >>> written("int8")
    {'quantization_config': {'quant_method': 'fastattn', 'weights': 'int8', 'version': 1}}
    """
    return {FIELD: {"quant_method": METHOD, "weights": weights, "version": VERSION}} if weights in DTYPES else {}


def read(values: Mapping[str, Any], source: str) -> str:
    """What the matrices of a folder are, by its config.json: "float32", "bfloat16" or "int8".

    Raises ValueError, naming the `source`, for weights of another library and of a newer version.
    """
    found = values.get(FIELD)
    if found is None:
        return "float32"
    name = f"{source}: {FIELD}"
    if not isinstance(found, Mapping):
        raise ValueError(f"{name} must be an object, got {shown(found)}")
    if found.get("quant_method") != METHOD:
        raise ValueError(f"{name}: quant_method is {shown(found.get('quant_method'))}; only {METHOD!r} is read")
    if found.get("version") != VERSION or isinstance(found["version"], bool):
        raise ValueError(f"{name}: version is {shown(found.get('version'))}; this fastattn reads version {VERSION}")
    weights = found.get("weights")
    if not isinstance(weights, str) or weights not in DTYPES:
        raise ValueError(f"{name}: weights must be one of {', '.join(DTYPES)}, got {shown(weights)}")
    return weights


def chosen(stored: str, weights: str | None, trainable: bool | None, source: str) -> str:
    """What the matrices become: `weights`, or by default what is `stored`, which may be trained as float32 if it is
    bfloat16.

    Raises ValueError, naming the `source`, for int8 that should become something else, and for weights of fewer bits
    that should be trained.
    """
    if weights is None:
        weights = "float32" if stored == "bfloat16" and trainable else stored
    if stored == "int8" and trainable:
        raise ValueError(f"{source}: the weights are int8, which cannot be trained; load the model in float32")
    if stored == "int8" and weights != stored:
        raise ValueError(f"{source}: the weights are int8, and cannot become {weights}")
    check_frozen(source, weights, trainable)
    return weights


def check_frozen(name: str, weights: str, trainable: bool | None) -> None:
    """Raise ValueError for weights of fewer bits that should be trained."""
    if trainable and weights in DTYPES:
        raise ValueError(f"{name}: weights {weights!r} cannot be trained; trainable must not be True with them")
