"""The configuration of a sentence-transformers folder, read and checked before any weight is loaded."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from fastattn import checks
from fastattn.checks import choice, config_integer, integer, listed, shown
from fastattn.files import is_inside, replacing
from fastattn.formats.hugging_face import read_json, read_json_array, shard_names
from fastattn.hub import Files, find_model
from fastattn.models.registry import encoder_family
from fastattn.tasks.embed.similarity import SIMILARITIES
from fastattn.text import tokenizer_files

#: The pooling modes of sentence-transformers, in the order in which they are concatenated: the name, the key of an old
#: config, and the mode of fastattn.kernels.pooling.
POOLING_MODES = {
    "cls": ("pooling_mode_cls_token", "cls"),
    "max": ("pooling_mode_max_tokens", "max"),
    "mean": ("pooling_mode_mean_tokens", "mean"),
    "mean_sqrt_len_tokens": ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len"),
    "weightedmean": ("pooling_mode_weightedmean_tokens", "weighted_mean"),
    "lasttoken": ("pooling_mode_lasttoken", "last"),
}

#: The last part of a Dense layer's `activation_function`, and the activation of fastattn.kernels.linear.
ACTIVATIONS = {"Identity": None, "Tanh": "tanh", "ReLU": "relu", "GELU": "gelu", "SiLU": "silu"}

# As in sentence-transformers, every model has these two prompts. Empty ones add nothing.
DEFAULT_PROMPTS = {"query": "", "document": ""}

MODULES = "modules.json"
TRANSFORMER_OPTIONS = "sentence_bert_config.json"
ENCODER_OPTIONS = "config_sentence_transformers.json"


class SentenceFolder(NamedTuple):
    """The description of a sentence encoder.

    Attributes:
        modules: kind, folder and options of each: a Transformer, a Pooling, then Dense, LayerNorm and Normalize in any
            order.
        options: `prompts`, `default_prompt_name`, `similarity_fn_name` and `truncate_dim` of the encoder.
    """

    modules: list[tuple[str, Path, dict[str, Any]]]
    options: dict[str, Any]

    @property
    def transformer(self) -> Path:
        """The folder of the model and tokenizer."""
        return self.modules[0][1]


def read_sentence_folder(folder: Path) -> SentenceFolder:
    """Read a sentence-transformers folder, or that of a plain encoder, which gets mean pooling as it does there.

    Raises FileNotFoundError for a missing file, and ValueError, by name, for a damaged file and for a module, pooling
    mode, activation or option that fastattn does not have.
    """
    path = folder / MODULES
    if not os.path.lexists(path):  # what is there and no file is refused, not passed over
        return SentenceFolder([("Transformer", folder, {}), ("Pooling", folder, {})], {})
    modules = _read_modules(path)
    kinds = [kind for kind, _ in modules]
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise ValueError(f"{path}: the first two modules must be Transformer and Pooling, got {shown(kinds)}")
    for kind in kinds[2:]:
        if kind in ("Transformer", "Pooling"):
            raise ValueError(f"{path}: a second {kind} module is not supported")
    described = [(kind, module, _READERS[kind](module)) for kind, module in modules]
    return SentenceFolder(described, _read_encoder_options(folder))


def read_transformer_folder(folder: Path) -> tuple[Path, bool]:
    """Where the model and tokenizer of a sentence-transformers folder are, an encoder's or a cross-encoder's, and
    whether texts are lower-cased first. In a plain folder they are in `folder` itself.

    Raises ValueError, by name, for a damaged file and for a first module that is no Transformer.
    """
    transformer = folder
    if os.path.lexists(folder / MODULES):
        modules = _read_modules(folder / MODULES)
        if not modules or modules[0][0] != "Transformer":
            got = shown([kind for kind, _ in modules])
            raise ValueError(f"{folder / MODULES}: the first module must be Transformer, got {got}")
        transformer = modules[0][1]
    path = transformer / TRANSFORMER_OPTIONS
    return transformer, os.path.lexists(path) and _optional(path, read_json(path), "do_lower_case", bool, False)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all, and create its folder if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as (temporary,):
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_REQUIRED: dict[str, tuple[tuple[str, ...], ...]] = {
    "Transformer": (("config.json",), _WEIGHTS, tokenizer_files.VOCABULARIES),
    "Pooling": (("config.json",),),
    "Dense": (("config.json",), _WEIGHTS[:1]),
    "LayerNorm": (("config.json",), _WEIGHTS[:1]),
    "Normalize": (),
}


def _missing_files(folder: Path) -> list[str]:
    """Files that loading needs and that `folder`, perhaps a part of a download, does not have."""
    modules = _read_modules(folder / MODULES) if (folder / MODULES).is_file() else [("Transformer", folder)]
    missing = []
    for kind, path in modules:
        place = path.relative_to(folder)
        if kind == "Transformer" and (path / "config.json").is_file():
            encoder_family(path, of_tokens=True)  # another family lacks no tokenizer, it has another one
        required = tuple(tuple(str(place / name) for name in names) for names in _REQUIRED[kind])
        missing += Files((), required).missing(folder)
        weights, index = (path / name for name in _WEIGHTS)
        if kind == "Transformer" and index.is_file() and not weights.is_file():
            shards = set(shard_names(index).values())
            missing += sorted(str(place / shard) for shard in shards if not (path / shard).is_file())
    return missing


_TRANSFORMER_FILES = (
    "config.json",
    *_WEIGHTS,
    "model-*-of-*.safetensors",
    TRANSFORMER_OPTIONS,
    *tokenizer_files.NAMES,
)

#: The files of a sentence encoder: no ONNX, OpenVINO or TensorFlow files, no pickles.
FILES = Files(
    patterns=(MODULES, ENCODER_OPTIONS, *_TRANSFORMER_FILES, *(f"[0-9]_*/{name}" for name in _TRANSFORMER_FILES)),
    marks=(MODULES, "config.json"),
    more=_missing_files,
    organization="sentence-transformers",
)


def find_start(start: str | os.PathLike[str]) -> Path:
    """The folder of the model to train from. Raises TypeError for what is no name, and as `find_model`."""
    return find_model(checks.path("for_training: start", start), FILES)


def _read_modules(path: Path) -> list[tuple[str, Path]]:
    """Kind and folder of every module."""
    return [_module(path, entry) for entry in read_json_array(path)]


def _module(modules_path: Path, entry: Any) -> tuple[str, Path]:
    if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
        raise ValueError(f"{modules_path}: a module must be an object with a type, got {shown(entry)}")
    module_type, path = entry["type"], entry.get("path", "")
    kind = module_type.rpartition(".")[2]
    if not module_type.startswith("sentence_transformers.") or kind not in _READERS:
        raise ValueError(
            f"{modules_path}: the module {shown(module_type)} is not supported, only {', '.join(_READERS)}"
        )
    if not is_inside(path):
        raise ValueError(f"{modules_path}: the path of {kind} must lie inside the model's folder, got {shown(path)}")
    return kind, modules_path.parent / path


def _read_pooling(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    config = read_json(path)
    if "pooling_mode" in config:
        names = config["pooling_mode"]
        names = [names] if isinstance(names, str) else names
        if not isinstance(names, list):
            raise ValueError(f"{path}: pooling_mode must be a name or a list of names, got {shown(names)}")
        for name in names:
            choice(f"{path}: pooling_mode", name, POOLING_MODES)
    else:
        keys = {key: name for name, (key, _) in POOLING_MODES.items()}
        for key, value in config.items():
            if value and key.startswith("pooling_mode_"):
                choice(f"{path}: the pooling mode", key, keys)
        names = [name for key, name in keys.items() if config.get(key)]
    return {"pooling_mode": names or ["mean"], "include_prompt": _optional(path, config, "include_prompt", bool, True)}


def _read_dense(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    config = read_json(path)
    _read_normalize(folder)
    name = _optional(path, config, "activation_function", str, "torch.nn.modules.activation.Tanh")
    activation = name.rpartition(".")[2]
    if not name.startswith("torch.nn.") or activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"{path}: the activation_function {shown(name)} is not supported, only torch.nn's {known}")
    return {
        "in_features": config_integer(f"{path}: in_features", config.get("in_features")),
        "out_features": config_integer(f"{path}: out_features", config.get("out_features")),
        "bias": _optional(path, config, "bias", bool, True),
        "activation_function": activation,
        "use_residual": _optional(path, config, "use_residual", bool, False),
    }


def _read_layer_norm(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    return {"dimension": config_integer(f"{path}: dimension", read_json(path).get("dimension"))}


def _read_normalize(folder: Path) -> dict[str, Any]:
    """Refuse Dense and Normalize modules that work on token vectors."""
    path = folder / "config.json"
    config = read_json(path) if os.path.lexists(path) else {}
    for key in ("module_input_name", "module_output_name"):
        _check_only(path, config, key, "sentence_embedding")
    return {}


def _read_transformer(folder: Path) -> dict[str, Any]:
    path = folder / TRANSFORMER_OPTIONS
    if not os.path.lexists(path):
        return {}
    config = read_json(path)
    _check_only(path, config, "transformer_task", "feature-extraction")
    if config.get("processing_kwargs"):
        raise ValueError(f"{path}: processing_kwargs {shown(config['processing_kwargs'])} are not supported")
    limit = _size(path, config, "max_seq_length")
    return {"max_seq_length": limit, "do_lower_case": _optional(path, config, "do_lower_case", bool, False)}


_READERS = {
    "Transformer": _read_transformer,
    "Pooling": _read_pooling,
    "Dense": _read_dense,
    "LayerNorm": _read_layer_norm,
    "Normalize": _read_normalize,
}


def _read_encoder_options(folder: Path) -> dict[str, Any]:
    path = folder / ENCODER_OPTIONS
    config = read_json(path) if os.path.lexists(path) else {}
    _check_only(path, config, "model_type", "SentenceTransformer")
    prompts = _optional(path, config, "prompts", dict, {})
    for name, text in prompts.items():
        if not isinstance(text, str | None):
            raise ValueError(f"{path}: the prompt {shown(name)} must be a string, got {shown(text)}")
        checks.text(f"{path}: the prompt {shown(name)}", text or "")
    prompts = {**DEFAULT_PROMPTS, **{name: text or "" for name, text in prompts.items()}}
    default = _optional(path, config, "default_prompt_name", str, None)
    if default is not None and default not in prompts:
        raise ValueError(
            f"{path}: default_prompt_name {shown(default)} is none of the prompts {listed(sorted(prompts))}"
        )
    similarity = _optional(path, config, "similarity_fn_name", str, "cosine")
    return {
        "prompts": prompts,
        "default_prompt_name": default,
        "similarity_fn_name": choice(f"{path}: similarity_fn_name", similarity, SIMILARITIES),
        "truncate_dim": _size(path, config, "truncate_dim"),
    }


def _check_only(path: Path, config: dict[str, Any], key: str, known: str) -> None:
    """Raise ValueError for a field of a config file that is neither missing, null nor `known`."""
    if config.get(key) not in (None, known):
        raise ValueError(f"{path}: {key} must be {known!r}, got {shown(config[key])}")


def _size(path: Path, config: dict[str, Any], key: str) -> int | None:
    """A positive integer of a config file, or None if it is missing or null."""
    value = config.get(key)
    return None if value is None else integer(f"{path}: {key}", value, error=ValueError)


def _optional(path: Path, config: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    """A field of a config file, or `default` if it is missing or null. Raises ValueError for another type."""
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise ValueError(f"{path}: {key} must be {kind.__name__}, got {shown(value)}")
    return value
