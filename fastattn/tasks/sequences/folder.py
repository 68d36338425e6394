"""What sentence-transformers' CrossEncoder adds to the folder of a model: the function on its logits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fastattn.checks import shown
from fastattn.formats import hugging_face
from fastattn.formats.hugging_face import read_json
from fastattn.tasks.embed.folder import ENCODER_OPTIONS, MODULES, read_transformer_folder

IDENTITY, SIGMOID = "Identity", "Sigmoid"
ACTIVATIONS = {
    IDENTITY: "torch.nn.modules.linear.Identity",
    SIGMOID: "torch.nn.modules.activation.Sigmoid",
    "Tanh": "torch.nn.modules.activation.Tanh",
    "ReLU": "torch.nn.modules.activation.ReLU",
}
"""The functions that a folder may name, and the names that are written."""

_NEW, _OLD = "sentence_transformers", "sbert_ce_default_activation_function"


def activation_field(activation: str) -> dict[str, Any]:
    """The field of config.json that names an activation, as sentence-transformers 4 and later read it, and the one
    that earlier versions read."""
    return {_NEW: {"activation_fn": ACTIVATIONS[activation]}, _OLD: ACTIVATIONS[activation]}


def read_activation(folder: Path) -> str | None:
    """The activation that a folder names, None if it names none.

    Version 6 writes it to config_sentence_transformers.json, 4 and 5 to `sentence_transformers` in config.json, and
    earlier ones to another field there.

    Raises ValueError, naming the file, for a function that fastattn does not have and for a default prompt.
    """
    transformer, _ = read_transformer_folder(folder)
    path = folder / ENCODER_OPTIONS
    if os.path.lexists(folder / MODULES) and os.path.lexists(path):
        options = read_json(path)
        if options.get("model_type") == "CrossEncoder":
            if options.get("default_prompt_name") is not None:
                prompt = shown(options["default_prompt_name"])
                raise ValueError(f"{path}: default_prompt_name is {prompt}, but prompts of pairs are not supported")
            if options.get("activation_fn") is not None:
                return _known(path, options["activation_fn"])
    path = transformer / hugging_face.CONFIG
    config = hugging_face.read_config(transformer)
    new = config.get(_NEW)
    named = new.get("activation_fn") if isinstance(new, dict) else None
    named = config.get(_OLD) if named is None else named
    return None if named is None else _known(path, named)


def _known(path: Path, named: Any) -> str:
    kind = named.rpartition(".")[2] if isinstance(named, str) and named.startswith("torch.nn.") else None
    if kind not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"{path}: the activation must be one of torch.nn's {known}, got {shown(named)}")
    return kind
