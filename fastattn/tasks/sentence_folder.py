"""What a sentence-transformers folder says, read and checked before any weight is loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from fastattn.checks import config_integer
from fastattn.formats.hugging_face import read_json
from fastattn.hub import Files

#: Pooling modes of sentence-transformers in the order in which several at once are concatenated: the key of
#: an old config, the name in a new one, and the mode of fastattn.kernels.pooling.
POOLING_MODES = (
    ("pooling_mode_cls_token", "cls", "cls"),
    ("pooling_mode_max_tokens", "max", "max"),
    ("pooling_mode_mean_tokens", "mean", "mean"),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", "mean_sqrt_len"),
    ("pooling_mode_weightedmean_tokens", "weightedmean", "weighted_mean"),
    ("pooling_mode_lasttoken", "lasttoken", "last"),
)

#: The last part of a Dense layer's `activation_function`, and the activation of fastattn.kernels.linear.
ACTIVATIONS = {"Identity": None, "Tanh": "tanh", "ReLU": "relu", "GELU": "gelu", "SiLU": "silu"}

# As in sentence-transformers, every model has these two; without a text they add nothing.
_DEFAULT_PROMPTS = {"query": "", "document": ""}

SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")


@dataclass(frozen=True)
class Pooling:
    """Pooling: the modes of fastattn.kernels.pooling, concatenated in this order."""

    modes: tuple[str, ...] = ("mean",)
    include_prompt: bool = True


@dataclass(frozen=True)
class Dense:
    """A Dense layer; its weights are in `folder`."""

    folder: Path
    in_features: int
    out_features: int
    bias: bool
    activation: str | None
    residual: bool


@dataclass(frozen=True)
class Normalize:
    """L2 normalisation."""


@dataclass(frozen=True)
class SentenceFolder:
    """The description of a sentence encoder. A plain BERT folder is one with mean pooling.

    Attributes:
        folder: the model's folder.
        transformer: the folder of its BERT model and tokenizer.
        pooling: how token vectors become a sentence vector.
        layers: what follows, in order.
        max_seq_length: limit in tokens, or None where the folder names none.
        lowercase: texts are lower-cased before the tokenizer sees them.
        prompts: texts to be put in front of every sentence, by name.
        default_prompt_name: the prompt that is used when none is asked for.
        similarity: one of `SIMILARITIES`.
        truncate_dim: leading dimensions to keep, or None.
    """

    folder: Path
    transformer: Path
    pooling: Pooling = Pooling()
    layers: tuple[Dense | Normalize, ...] = ()
    max_seq_length: int | None = None
    lowercase: bool = False
    prompts: dict[str, str] = field(default_factory=lambda: dict(_DEFAULT_PROMPTS))
    default_prompt_name: str | None = None
    similarity: str = "cosine"
    truncate_dim: int | None = None


def read_sentence_folder(folder: Path) -> SentenceFolder:
    """Read a sentence-transformers folder, or a plain BERT folder.

    Raises:
        FileNotFoundError: a file that modules.json promises is missing.
        ValueError: a module, pooling mode, activation or option that fastattn does not have, by name; or a
            damaged file.
    """
    modules_path = folder / "modules.json"
    if not modules_path.is_file():
        # sentence-transformers puts mean pooling on a model that has no modules.json.
        return SentenceFolder(folder, transformer=folder)
    modules = _read_modules(modules_path)
    kinds = [kind for kind, _ in modules]
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise ValueError(f"{modules_path}: the first two modules must be Transformer and Pooling, got {kinds}")
    layers: list[Dense | Normalize] = []
    for kind, path in modules[2:]:
        if kind == "Dense":
            layers.append(_read_dense(path))
        elif kind == "Normalize":
            _check_module_input(path / "config.json")
            layers.append(Normalize())
        else:
            raise ValueError(f"{modules_path}: a second {kind} module is not supported")
    transformer = modules[0][1]
    return SentenceFolder(
        folder,
        transformer,
        _read_pooling(modules[1][1] / "config.json"),
        tuple(layers),
        **_read_transformer_options(transformer),
        **_read_encoder_options(folder),
    )


def _missing_files(folder: Path) -> list[str]:
    """Files that loading needs but that `folder` (a download, perhaps of a part) does not hold."""
    modules = [("Transformer", folder)]
    if (folder / "modules.json").is_file():
        modules = _read_modules(folder / "modules.json")
    missing = []
    for kind, path in modules:
        needed: list[tuple[str, ...]] = []
        if kind != "Normalize":
            needed.append(("config.json",))
        if kind == "Dense":
            needed.append(("model.safetensors",))
        if kind == "Transformer":
            needed += [("model.safetensors", "model.safetensors.index.json"), ("tokenizer.json", "vocab.txt")]
        for alternatives in needed:
            if not any((path / name).is_file() for name in alternatives):
                missing.append(" or ".join(str((path / name).relative_to(folder)) for name in alternatives))
        index = path / "model.safetensors.index.json"
        if kind == "Transformer" and index.is_file() and not (path / "model.safetensors").is_file():
            shards = set(read_json(index).get("weight_map", {}).values())
            missing += sorted(str(shard) for shard in shards if not (path / str(shard)).is_file())
    return missing


_TRANSFORMER_FILES = (
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
    "sentence_bert_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)

#: What a sentence encoder reads: no ONNX, OpenVINO or TensorFlow files, no pickles.
FILES = Files(
    patterns=(
        "modules.json",
        "config_sentence_transformers.json",
        *_TRANSFORMER_FILES,
        *(f"[0-9]_*/{name}" for name in _TRANSFORMER_FILES),
    ),
    marks=("modules.json", "config.json"),
    more=_missing_files,
    organization="sentence-transformers",
)


def _read_modules(path: Path) -> list[tuple[str, Path]]:
    """Kind and folder of every module."""
    try:
        entries = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(entries, list):
        raise ValueError(f"{path}: must hold a JSON array, got {type(entries).__name__}")
    return [_module(path, entry) for entry in entries]


def _module(modules_path: Path, entry: Any) -> tuple[str, Path]:
    if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
        raise ValueError(f"{modules_path}: a module must be an object with a type, got {entry!r}")
    module_type, path = entry["type"], entry.get("path", "")
    kind = module_type.rpartition(".")[2]
    if not module_type.startswith("sentence_transformers.") or kind not in _KINDS:
        raise ValueError(f"{modules_path}: the module {module_type!r} is not supported, only {', '.join(_KINDS)}")
    if not isinstance(path, str) or path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise ValueError(f"{modules_path}: the path of {kind} must lie inside the model's folder, got {path!r}")
    return kind, modules_path.parent / path


_KINDS = ("Transformer", "Pooling", "Dense", "Normalize")


def _read_pooling(path: Path) -> Pooling:
    config = read_json(path)
    include_prompt = _optional(path, config, "include_prompt", bool, True)
    if "pooling_mode" in config:
        names = config["pooling_mode"]
        names = [names] if isinstance(names, str) else names
        known = {name: mode for _, name, mode in POOLING_MODES}
        if not isinstance(names, list):
            raise ValueError(f"{path}: pooling_mode must be a name or a list of names, got {names!r}")
        for name in names:
            if not isinstance(name, str) or name not in known:
                raise ValueError(f"{path}: the pooling mode {name!r} is not supported, only {', '.join(known)}")
        modes = tuple(known[name] for name in names)
    else:
        legacy = {key: mode for key, _, mode in POOLING_MODES}
        for key, value in config.items():
            if key.startswith("pooling_mode_") and key not in legacy and value:
                raise ValueError(f"{path}: the pooling mode {key!r} is not supported, only {', '.join(legacy)}")
        modes = tuple(mode for key, mode in legacy.items() if config.get(key))
    return Pooling(modes or ("mean",), include_prompt)


def _read_dense(folder: Path) -> Dense:
    path = folder / "config.json"
    config = read_json(path)
    _check_module_input(path)
    name = _optional(path, config, "activation_function", str, "torch.nn.modules.activation.Tanh")
    activation = name.rpartition(".")[2]
    if not name.startswith("torch.nn.") or activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"{path}: the activation_function {name!r} is not supported, only torch.nn's {known}")
    return Dense(
        folder,
        config_integer(f"{path}: in_features", config.get("in_features")),
        config_integer(f"{path}: out_features", config.get("out_features")),
        bias=_optional(path, config, "bias", bool, True),
        activation=ACTIVATIONS[activation],
        residual=_optional(path, config, "use_residual", bool, False),
    )


def _check_module_input(path: Path) -> None:
    """Dense and Normalize can also work on token vectors, which a sentence vector does not need."""
    config = read_json(path) if path.is_file() else {}
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, "sentence_embedding"):
            raise ValueError(f"{path}: {key} {config[key]!r} is not supported, only 'sentence_embedding'")


def _read_transformer_options(transformer: Path) -> dict[str, Any]:
    path = transformer / "sentence_bert_config.json"
    if not path.is_file():
        return {}
    config = read_json(path)
    task = config.get("transformer_task")
    if task not in (None, "feature-extraction"):
        raise ValueError(f"{path}: the transformer_task {task!r} is not supported, only 'feature-extraction'")
    if config.get("processing_kwargs"):
        raise ValueError(f"{path}: processing_kwargs {config['processing_kwargs']!r} are not supported")
    limit = _size(path, config, "max_seq_length")
    return {"max_seq_length": limit, "lowercase": _optional(path, config, "do_lower_case", bool, False)}


def _read_encoder_options(folder: Path) -> dict[str, Any]:
    path = folder / "config_sentence_transformers.json"
    config = read_json(path) if path.is_file() else {}
    model_type = config.get("model_type", "SentenceTransformer")
    if model_type != "SentenceTransformer":
        raise ValueError(f"{path}: the model_type {model_type!r} is not supported, only 'SentenceTransformer'")
    prompts = _optional(path, config, "prompts", dict, {})
    for name, text in prompts.items():
        if not isinstance(text, str | None):
            raise ValueError(f"{path}: the prompt {name!r} must be a string, got {text!r}")
    prompts = {**_DEFAULT_PROMPTS, **{name: text or "" for name, text in prompts.items()}}
    default = _optional(path, config, "default_prompt_name", str, None)
    if default is not None and default not in prompts:
        raise ValueError(f"{path}: default_prompt_name {default!r} is none of the prompts {sorted(prompts)}")
    similarity = _optional(path, config, "similarity_fn_name", str, "cosine")
    if similarity not in SIMILARITIES:
        raise ValueError(
            f"{path}: the similarity_fn_name {similarity!r} is not supported, only {', '.join(SIMILARITIES)}"
        )
    return {
        "prompts": prompts,
        "default_prompt_name": default,
        "similarity": similarity,
        "truncate_dim": _size(path, config, "truncate_dim"),
    }


def _size(path: Path, config: dict[str, Any], key: str) -> int | None:
    """A positive integer of a config file, or None where it is missing or null."""
    value = config.get(key)
    return None if value is None else config_integer(f"{path}: {key}", value)


def _optional(path: Path, config: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    """A field of a config file; missing or null gives the default, another type is refused."""
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise ValueError(f"{path}: {key} must be {kind.__name__}, got {value!r}")
    return value
