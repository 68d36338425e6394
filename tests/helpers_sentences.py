"""Small sentence-transformers folders, written by hand: the same files wherever and whenever they are made.

`CASES` names them, `write_case` writes one. What sentence-transformers itself computes on them stands in
`sentence_golden.npz`, which `make_sentence_golden.py` writes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

HIDDEN, LAYERS, HEADS, INTERMEDIATE, POSITIONS = 16, 2, 2, 24, 32

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS),
    "the", "cat", "sat", "query", ":", ".", "The",
]  # fmt: skip

TEXTS = [
    "the cat sat.",
    "",
    "a",
    "The CAT",
    "query the cat",
    "abcdefghij klmnopqrst uvwxyz",
    "the cat sat the cat sat the cat sat the cat sat",
    "zz",
]

POOLING_KEYS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def pattern(*shape: int, salt: int, scale: float = 1.0) -> np.ndarray:
    """Numbers that look random and need no generator, float32."""
    count = int(np.prod(shape))
    values = np.sin(np.arange(1, count + 1) * (1.7 + 0.31 * salt) + salt) * scale
    return values.reshape(shape).astype(np.float32)


def write_bert(folder: Path, *, lowercase: bool = True, **config: Any) -> Path:
    """A tiny BERT with its tokenizer (vocab.txt)."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": POSITIONS,
        "vocab_size": len(VOCABULARY),
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
        **config,
    }
    write_json(folder / "config.json", config)
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "BertTokenizer", "do_lower_case": lowercase, "model_max_length": POSITIONS},
    )
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    h, i = HIDDEN, INTERMEDIATE
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(VOCABULARY), h),
        "embeddings.position_embeddings.weight": (POSITIONS, h),
        "embeddings.token_type_embeddings.weight": (2, h),
        "embeddings.LayerNorm.weight": (h,),
        "embeddings.LayerNorm.bias": (h,),
    }
    for layer in range(LAYERS):
        prefix = f"encoder.layer.{layer}."
        for name in ("query", "key", "value"):
            shapes[f"{prefix}attention.self.{name}.weight"] = (h, h)
            shapes[f"{prefix}attention.self.{name}.bias"] = (h,)
        for name, out, inputs in (("attention.output", h, h), ("intermediate", i, h), ("output", h, i)):
            shapes[f"{prefix}{name}.dense.weight"] = (out, inputs)
            shapes[f"{prefix}{name}.dense.bias"] = (out,)
        for name in ("attention.output", "output"):
            shapes[f"{prefix}{name}.LayerNorm.weight"] = (h,)
            shapes[f"{prefix}{name}.LayerNorm.bias"] = (h,)
    tensors = {}
    for salt, (name, shape) in enumerate(shapes.items()):
        tensors[name] = pattern(*shape, salt=salt, scale=0.4 if len(shape) == 2 else 0.2)
        if name.endswith("LayerNorm.weight"):
            tensors[name] += 1
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def module(kind: str, path: str, package: str = "sentence_transformers.models") -> dict[str, Any]:
    """An entry of modules.json."""
    number = path.split("_")[0] or "0"
    return {"idx": number, "name": number, "path": path, "type": f"{package}.{kind}"}


def write_pooling(folder: Path, *modes: str, **options: Any) -> dict[str, Any]:
    """A Pooling module with the keys that sentence-transformers wrote up to version 5."""
    flags = {key: mode in modes for mode, key in POOLING_KEYS.items()}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": HIDDEN, **flags, **options})
    return module("Pooling", "1_Pooling")


def write_dense(folder: Path, path: str, inputs: int, outputs: int, **options: Any) -> dict[str, Any]:
    """A Dense module; `options` go to its config."""
    config = {
        "in_features": inputs,
        "out_features": outputs,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
        **options,
    }
    write_json(folder / path / "config.json", config)
    tensors = {"linear.weight": pattern(outputs, inputs, salt=50, scale=0.5)}
    if config["bias"]:
        tensors["linear.bias"] = pattern(outputs, salt=51, scale=0.5)
    if config.get("use_residual") and inputs != outputs:
        tensors["residual.weight"] = pattern(outputs, inputs, salt=52, scale=0.5)
    save_file(tensors, folder / path / "model.safetensors", {"format": "pt"})
    return module("Dense", path)


def write_model(
    folder: Path, *modes: str, layers: list[Callable[[Path], dict[str, Any]]] | None = None, **files: Any
) -> Path:
    """A whole folder: BERT, pooling with `modes` (default mean), `layers`, config files given by name."""
    write_bert(folder, lowercase=files.pop("lowercase", True))
    pooling = write_pooling(folder, *(modes or ("mean",)), **files.pop("pooling", {}))
    entries = [module("Transformer", ""), pooling, *(layer(folder) for layer in layers or [])]
    write_json(folder / "modules.json", entries)
    write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": POSITIONS, "do_lower_case": False, **files.pop("sentence_bert_config", {})},
    )
    for name, value in files.items():
        write_json(folder / f"{name}.json", value)
    return folder


def dense(path: str, inputs: int, outputs: int, **options: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: write_dense(folder, path, inputs, outputs, **options)


def write_layer_norm(folder: Path, path: str, size: int) -> dict[str, Any]:
    """A LayerNorm module."""
    write_json(folder / path / "config.json", {"dimension": size})
    tensors = {"norm.weight": 1 + pattern(size, salt=53, scale=0.5), "norm.bias": pattern(size, salt=54, scale=0.5)}
    save_file(tensors, folder / path / "model.safetensors", {"format": "pt"})
    return module("LayerNorm", path)


def layer_norm(path: str, size: int) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: write_layer_norm(folder, path, size)


def normalize(path: str) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: module("Normalize", path)


@dataclass(frozen=True)
class Case:
    """A folder, and the options of the call to `encode`."""

    write: Callable[[Path], Path]
    options: dict[str, Any] = field(default_factory=dict)


def _activation(name: str) -> Callable[[Path], Path]:
    function = f"torch.nn.modules.{'linear' if name == 'Identity' else 'activation'}.{name}"
    return lambda folder: write_model(folder, layers=[dense("2_Dense", HIDDEN, 6, activation_function=function)])


def _pooling(*modes: str, **options: Any) -> Callable[[Path], Path]:
    return lambda folder: write_model(folder, *modes, pooling=options, config_sentence_transformers=_PROMPTS)


_PROMPTS = {"prompts": {"query": "query: ", "passage": "the "}, "default_prompt_name": None}


def _new_style(folder: Path) -> Path:
    """The names and the layout of sentence-transformers 6, with the Transformer in a folder of its own."""
    write_bert(folder / "0_Transformer")
    write_json(
        folder / "1_Pooling" / "config.json",
        {"embedding_dimension": HIDDEN, "pooling_mode": ["weightedmean", "cls"], "include_prompt": True},
    )
    new = "sentence_transformers.base.modules"
    write_json(
        folder / "modules.json",
        [
            module("transformer.Transformer", "0_Transformer", new),
            module("pooling.Pooling", "1_Pooling", "sentence_transformers.sentence_transformer.modules"),
            module("normalize.Normalize", "2_Normalize", new),
        ],
    )
    write_json(folder / "2_Normalize" / "config.json", {"module_input_name": "sentence_embedding"})
    return folder


CASES: dict[str, Case] = {
    "plain_bert": Case(write_bert),
    "new_style": Case(_new_style),
    **{f"pooling_{mode}": Case(_pooling(mode)) for mode in POOLING_KEYS},
    "pooling_all": Case(_pooling(*POOLING_KEYS)),
    **{
        f"without_prompt_{mode}": Case(_pooling(mode, include_prompt=False), {"prompt_name": "query"})
        for mode in POOLING_KEYS
    },
    **{f"dense_{name}": Case(_activation(name)) for name in ("Identity", "Tanh", "ReLU", "GELU", "SiLU")},
    "dense_without_bias": Case(lambda folder: write_model(folder, layers=[dense("2_Dense", HIDDEN, 6, bias=False)])),
    "dense_residual": Case(
        lambda folder: write_model(
            folder,
            layers=[
                dense("2_Dense", HIDDEN, HIDDEN, use_residual=True),
                dense("3_Dense", HIDDEN, 6, use_residual=True),
                normalize("4_Normalize"),
            ],
        )
    ),
    "layer_norm": Case(
        lambda folder: write_model(folder, layers=[layer_norm("2_LayerNorm", HIDDEN), dense("3_Dense", HIDDEN, 6)])
    ),
    "normalize": Case(lambda folder: write_model(folder, layers=[normalize("2_Normalize")])),
    "default_prompt": Case(
        lambda folder: write_model(folder, config_sentence_transformers={**_PROMPTS, "default_prompt_name": "passage"})
    ),
    "prompt": Case(_pooling("mean"), {"prompt": "a cat "}),
    "truncated": Case(lambda folder: write_model(folder, sentence_bert_config={"max_seq_length": 8})),
    "cased": Case(lambda folder: write_model(folder, lowercase=False)),
    "lowercased": Case(
        lambda folder: write_model(folder, lowercase=False, sentence_bert_config={"do_lower_case": True})
    ),
    "truncate_dim": Case(_pooling("mean"), {"truncate_dim": 5, "normalize_embeddings": True}),
    "model_truncate_dim": Case(lambda folder: write_model(folder, config_sentence_transformers={"truncate_dim": 7})),
}


def write_case(name: str, folder: Path) -> Path:
    """Write the folder of a case and return it."""
    return CASES[name].write(folder)
