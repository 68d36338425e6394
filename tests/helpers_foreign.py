"""Models of Marian and CTranslate2, written by hand: their files around random tensors.

>>> foreign = ForeignModel("tied")
>>> write_marian(tmp_path, foreign)
>>> write_ctranslate2(tmp_path, foreign, "int8")
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from helpers_marian import MARIAN, marian_tensors

from fastattn.models import TransformerConfig
from fastattn.nn import SinusoidalPositions

SHARED = "model.shared.weight"
TABLES = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
TIES: dict[str, dict[str, Any]] = {
    "tied": {},
    "two tables": {"share_encoder_decoder_embeddings": False},
    "untied": {"tie_word_embeddings": False},
    "two tables, untied": {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False},
    "two sizes": {"share_encoder_decoder_embeddings": False, "vocab_size": 44},
    "pre-norm": {"normalize_before": True},
}
_OLD = {
    "self_attn_layer_norm": "self_Wo_ln", "encoder_attn_layer_norm": "context_Wo_ln", "final_layer_norm": "ffn_ffn_ln",
    "self_attn": "self", "encoder_attn": "context", "fc1": "ffn", "fc2": "ffn",
}  # fmt: skip


class ForeignModel:
    """A random network without a row for `<pad>`: its config and its tensors under transformers' names."""

    def __init__(self, ties: str = "tied", **changes: Any) -> None:
        sizes = {"vocab_size": 49, "decoder_vocab_size": 49, "decoder_attention_heads": 4, "decoder_ffn_dim": 40}
        self.config: dict[str, Any] = {**MARIAN, **sizes, **TIES[ties], **changes}
        self.tensors = marian_tensors(self.config)
        self.shared = self.config.get("share_encoder_decoder_embeddings", True)
        self.tied = self.config.get("tie_word_embeddings", True)
        self.rows = self.config["vocab_size"], self.config["decoder_vocab_size"]

    def words(self, side: int) -> list[str]:
        """The words of a side in the order of their numbers, some of which YAML has a meaning for."""
        odd = [
            "</s>",
            "<unk>",
            "~",
            "yes",
            "1_000",
            '"',
            "'",
            "\\",
            "a: b",
            "#",
            "\x85",
            "\u2581the",
            "\U0001f600",
            "=",
        ]
        return [*odd, *(f"{'wv'[side]}{i}" for i in range(self.rows[side] - len(odd)))]

    def expected(self) -> tuple[TransformerConfig, dict[str, np.ndarray]]:
        """The config and the tensors that a folder of MarianMT must have."""
        source, target = self.rows
        names = ("d_model", "activation_function", "encoder_layers", "decoder_layers", "encoder_attention_heads",
                 "decoder_attention_heads", "encoder_ffn_dim", "decoder_ffn_dim", "normalize_before",
                 "share_encoder_decoder_embeddings", "tie_word_embeddings", "max_position_embeddings")  # fmt: skip
        config = TransformerConfig(
            **{name: self.config[name] for name in names if name in self.config},
            vocab_size=source + 1, decoder_vocab_size=target + 1, pad_token_id=source if source == target else None,
            bos_token_id=None, eos_token_id=0, forced_eos_token_id=0, decoder_start_token_id=target, max_length=40,
            bad_words_ids=((target,),), position_embedding_type="marian",
        )  # fmt: skip
        tensors = dict(self.tensors)
        for name in (SHARED, *TABLES, "lm_head.weight"):
            if name in tensors:
                tensors[name] = np.pad(tensors[name], ((0, 1), (0, 0)))
        tensors["final_logits_bias"] = np.pad(tensors["final_logits_bias"], ((0, 0), (0, 1)))
        if self.shared and not self.tied:
            tensors |= dict.fromkeys(TABLES, tensors[SHARED])
        return config, tensors


# Marian.


def marian_options(model: ForeignModel, **changes: Any) -> str:
    """The text of special:model.yml, as yaml-cpp writes it."""
    config, pre = model.config, model.config.get("normalize_before", False)
    options: dict[str, Any] = {
        "bert-train-type-embeddings": "true",
        "dec-cell-base-depth": 2,
        "dec-depth": config["decoder_layers"],
        "dim-emb": config["d_model"],
        "dim-vocabs": list(model.rows),
        "enc-depth": config["encoder_layers"],
        "input-types": [],
        "layer-normalization": "false",
        "lemma-dim-emb": 0,
        "right-left": "false",
        "special-vocab": [],
        "tied-embeddings": str(model.tied and not model.shared).lower(),
        "tied-embeddings-all": str(model.shared and model.tied).lower(),
        "tied-embeddings-src": str(model.shared and not model.tied).lower(),
        "transformer-decoder-autoreg": "self-attention",
        "transformer-dim-ffn": config["encoder_ffn_dim"],
        "transformer-ffn-activation": config["activation_function"],
        "transformer-ffn-depth": 2,
        "transformer-guided-alignment-layer": "last",
        "transformer-heads": config["encoder_attention_heads"],
        "transformer-no-projection": "false",
        "transformer-postprocess": "da" if pre else "dan",
        "transformer-postprocess-emb": "d",
        "transformer-postprocess-top": "n" if pre else '""',
        "transformer-preprocess": "n" if pre else '""',
        "transformer-tied-layers": [],
        "transformer-train-position-embeddings": "false",
        "type": "transformer",
        "ulr": "false",
        "version": "v1.9.0 02f4af4 2020-01-12 18:51:10 -0800",
    }
    lines = []
    for name, value in {**options, **{name.replace("_", "-"): value for name, value in changes.items()}}.items():
        if isinstance(value, list):
            lines += [f"{name}:", *([f"  - {item}" for item in value] or ["  []"])]
        elif value is not None:
            lines.append(f"{name}: {value}")
    return "\n".join(lines) + "\n"


def marian_arrays(model: ForeignModel) -> dict[str, np.ndarray]:
    """The tensors under Marian's names: vectors with an axis of one, matrices as `[in, out]`."""
    pre = "_pre" if model.config.get("normalize_before") else ""
    found = {}
    for name, tensor in model.tensors.items():
        parts = name.split(".")
        kind = parts[-1]
        if name in (SHARED, *TABLES):
            found["Wemb" if name == SHARED else f"{parts[1]}_Wemb"] = tensor
        elif name == "lm_head.weight":
            found["decoder_ff_logit_out_W"] = tensor.T
        elif name == "final_logits_bias":
            found["decoder_ff_logit_out_b"] = tensor
        elif parts[2] == "layer_norm":
            found[f"{parts[1]}_top_ln_{'scale' if kind == 'weight' else 'bias'}"] = tensor[None]
        else:
            start = f"{parts[1]}_l{int(parts[3]) + 1}_{_OLD[parts[4]]}"
            if parts[4].endswith("norm"):
                found[f"{start}_{'scale' if kind == 'weight' else 'bias'}{pre}"] = tensor[None]
            else:
                end = parts[5][0] if len(parts) == 7 else parts[4][2]
                found[f"{start}_{'W' if kind == 'weight' else 'b'}{end}"] = (
                    tensor.T if kind == "weight" else tensor[None]
                )
    return found


def npy(array: np.ndarray, descr: str = "") -> bytes:
    """A .npy file as Marian writes it, which knows rows alone."""
    text = f"{{'descr': '{descr or array.dtype.str}', 'fortran_order': False, 'shape': {array.shape}, }}"
    text += " " * (15 - (10 + len(text)) % 16) + "\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text.encode() + array.tobytes()


def npz(entries: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file of .npy files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), data, method)
    return file.getvalue()


def marian_npz(arrays: Mapping[str, np.ndarray], options: str, **more: bytes) -> bytes:
    """A model.npz."""
    text = np.frombuffer(options.encode() + b"\0", np.int8)
    return npz({"special:model.yml": npy(text, "<i1"), **{name: npy(array) for name, array in arrays.items()}, **more})


def quoted(word: str) -> str:
    """A key as yaml-cpp writes it."""
    if word.isalnum() or word in ("~", "=", "1_000") or word.startswith(("</", "<u", "\u2581")):
        return word
    escaped = {'"': '\\"', "\\": "\\\\"}
    return (
        '"'
        + "".join(escaped.get(c, c if 31 < ord(c) < 128 or ord(c) > 160 else f"\\x{ord(c):02x}") for c in word)
        + '"'
    )


def write_marian(folder: Path, model: ForeignModel, **changes: Any) -> Path:
    """A folder of Marian; `changes` are of the options."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.npz").write_bytes(marian_npz(marian_arrays(model), marian_options(model, **changes)))
    separate = model.words(0) != model.words(1) and not model.shared
    names = ["vocab.src.yml", "vocab.trg.yml"] if separate else ["vocab.yml", "vocab.yml"]
    for side, name in enumerate(names):
        lines = [f"{quoted(word)}: {i}" for i, word in enumerate(model.words(side if separate else 0))]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "decoder.yml").write_text(
        "models:\n  - /home/author/model.npz\nvocabs:\n" + "".join(f"  - {name}\n" for name in names)
        + "beam-size: 6\nnormalize: 0.60000002384185791\nword-penalty: 0\nmini-batch: 1\nrelative-paths: true\n"
    )  # fmt: skip
    return folder


# CTranslate2.

DTYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")


def positions(rows: int, dim: int) -> Any:
    return SinusoidalPositions(dim, order="concatenated")(np.arange(rows))


def _linear(found: dict[str, Any], t: Any, new: str, old: str, name: str, *parts: str) -> None:
    for kind in ("weight", "bias"):
        found[f"{new}/{name}/{kind}"] = np.concatenate([t[f"{old}.{part}.{kind}"] for part in parts])


def _norm(found: dict[str, Any], t: Any, new: str, old: str) -> None:
    found[f"{new}/layer_norm/gamma"], found[f"{new}/layer_norm/beta"] = t[f"{old}.weight"], t[f"{old}.bias"]


def ctranslate2_variables(model: ForeignModel) -> dict[str, np.ndarray | str]:
    """The variables under CTranslate2's names; a str is the name of an equal one."""
    config, t = model.config, model.tensors
    table = positions(config["max_position_embeddings"], config["d_model"])
    first = "decoder/embeddings/weight"
    found: dict[str, Any] = {first: t[SHARED] if model.shared else t[TABLES[1]]}
    found["encoder/embeddings_0/weight"] = first if model.shared else t[TABLES[0]]
    found["decoder/projection/weight"] = first if model.tied else t["lm_head.weight"]
    found["decoder/projection/bias"] = t["final_logits_bias"][0]
    found |= {"decoder/position_encodings/encodings": table}
    found["encoder/position_encodings/encodings"] = "decoder/position_encodings/encodings"
    for side in ("encoder", "decoder"):
        found |= {
            f"{side}/num_heads": np.int16(config[f"{side}_attention_heads"]),
            f"{side}/pre_norm": np.int8(config.get("normalize_before", False)),
            f"{side}/activation": np.int8({"relu": 0, "swish": 2, "gelu": 3}[config["activation_function"]]),
            f"{side}/scale_embeddings": np.float32(config["d_model"] ** 0.5),
        }
        for i in range(config[f"{side}_layers"]):
            old, new = f"model.{side}.layers.{i}", f"{side}/layer_{i}"

            linear, norm = partial(_linear, found, t, new, old), partial(_norm, found, t)
            linear("self_attention/linear_0", *(f"self_attn.{x}_proj" for x in "qkv"))
            linear("self_attention/linear_1", "self_attn.out_proj")
            norm(f"{new}/self_attention", f"{old}.self_attn_layer_norm")
            if side == "decoder":
                linear("attention/linear_0", "encoder_attn.q_proj")
                linear("attention/linear_1", *(f"encoder_attn.{x}_proj" for x in "kv"))
                linear("attention/linear_2", "encoder_attn.out_proj")
                norm(f"{new}/attention", f"{old}.encoder_attn_layer_norm")
            linear("ffn/linear_0", "fc1")
            linear("ffn/linear_1", "fc2")
            norm(f"{new}/ffn", f"{old}.final_layer_norm")
        if config.get("normalize_before"):
            _norm(found, t, side, f"model.{side}.layer_norm")
    found |= {"encoder/embeddings_merge": np.int8(0), "encoder/multi_query_attention": np.int8(0)}
    found |= {"decoder/alignment_layer": np.int16(-1), "decoder/alignment_heads": np.int16(1)}
    found |= {f"decoder/{name}": np.int8(0) for name in ("alibi", "alibi_use_positive_positions", "scale_alibi")}
    return {**found, "decoder/start_from_zero_embedding": np.int8(1)}


def quantized(variables: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """Variables in another dtype: matrices of int8 with a scale a row, of int16 with one for all."""
    found: dict[str, Any] = {}
    for name, value in variables.items():
        if isinstance(value, str) or value.ndim == 0:
            found[name] = value
        elif dtype == "float16":
            found[name] = value.astype(np.float16)
        elif dtype == "bfloat16":
            found[name] = (np.ascontiguousarray(value, np.float32).view(np.uint32) >> 16).astype(np.uint16)
        elif dtype.startswith("int") and name.endswith("/weight"):
            most = np.abs(value).max(axis=1) if dtype == "int8" else np.abs(value).max()
            scale = ((127 if dtype == "int8" else 1024) / most).astype(np.float32)
            found[name] = np.rint(value * (scale[:, None] if dtype == "int8" else scale)).astype(dtype)
            found[f"{name}_scale"] = scale
        else:
            found[name] = value
    return found


def text(value: str) -> bytes:
    data = value.encode() + b"\0"
    return struct.pack("<H", len(data)) + data


def variable(name: str, value: np.ndarray, kind: int | None = None, size: int | None = None) -> bytes:
    """A variable; uint16 are the bits of bfloat16."""
    number = DTYPES.index("bfloat16" if value.dtype == np.uint16 else str(value.dtype)) if kind is None else kind
    head = text(name) + struct.pack("<B", value.ndim) + struct.pack(f"<{value.ndim}I", *value.shape)
    return head + struct.pack("<BI", number, value.nbytes if size is None else size) + value.tobytes()


def ctranslate2_binary(
    variables: Mapping[str, Any], version: int = 6, spec: str = "TransformerSpec", revision: int = 7
) -> bytes:
    """A model.bin."""
    values = {name: np.asarray(value) for name, value in sorted(variables.items()) if not isinstance(value, str)}
    aliases = [(name, value) for name, value in sorted(variables.items()) if isinstance(value, str)]
    data = [struct.pack("<I", version), text(spec), struct.pack("<II", revision, len(values))]
    data += [variable(name, value) for name, value in values.items()]
    data += [struct.pack("<I", len(aliases)), *(text(name) + text(value) for name, value in aliases)]
    return b"".join(data)


def write_ctranslate2(folder: Path, model: ForeignModel, dtype: str = "float32", **config: Any) -> Path:
    """A folder of CTranslate2; `config` are fields of its config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.bin").write_bytes(ctranslate2_binary(quantized(ctranslate2_variables(model), dtype)))
    values = {"add_source_bos": False, "add_source_eos": False, "bos_token": "<s>", "decoder_start_token": "</s>",
              "eos_token": "</s>", "layer_norm_epsilon": None, "unk_token": "<unk>"}  # fmt: skip
    (folder / "config.json").write_text(json.dumps({**values, **config}))
    names = ["shared"] if model.shared else ["source", "target"]
    for side, name in enumerate(names):
        (folder / f"{name}_vocabulary.json").write_text(json.dumps(model.words(side), indent=2))
    return folder
