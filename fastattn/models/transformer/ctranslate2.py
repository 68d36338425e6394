"""CTranslate2's models of Marian's network: `model.bin` with config.json and vocabularies beside it.

    with open_ctranslate2(folder) as model:
        write_foreign(new, model)

Matrices of int8 and int16 are multiplied with their scales again, which gives the rounded numbers. Values that would
make another network are refused. Source: python/ctranslate2/specs/transformer_spec.py of CTranslate2.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn.checks import config_number, shown
from fastattn.files import read_regular
from fastattn.formats import ctranslate2_model, hugging_face
from fastattn.formats.ctranslate2_model import CTranslate2Model
from fastattn.formats.hugging_face import MAX_JSON, check_finite, read_json, read_json_array
from fastattn.formats.stored import Tensors
from fastattn.models.transformer.foreign import (
    BIAS,
    OUTPUT,
    Foreign,
    Read,
    Vocabulary,
    check_names,
    check_vocabulary,
    find_pieces,
    words_of_lines,
)
from fastattn.models.transformer.pretrained import POSITIONS, SHARED, TABLES

SPEC, REVISIONS = "TransformerSpec", range(5, 8)
_ACTIVATIONS = {0: "relu", 1: "gelu_new", 2: "swish", 3: "gelu", 5: "tanh"}
# The values of variables that keep the network the same; a missing one is 0
_FIXED = {
    "encoder/multi_query_attention": 0,
    "encoder/embeddings_merge": 0,
    "decoder/alibi": 0,
    "decoder/start_from_zero_embedding": 1,
}
_UNUSED = {
    f"decoder/{name}" for name in ("alignment_layer", "alignment_heads", "alibi_use_positive_positions", "scale_alibi")
}
_EMBEDDINGS = {"encoder": "encoder/embeddings_0/weight", "decoder": "decoder/embeddings/weight"}
_PROJECTION = "decoder/projection"
_TIED = {_EMBEDDINGS["decoder"], f"{_PROJECTION}/weight"}
_SCALARS = ("num_heads", "pre_norm", "activation", "scale_embeddings")
_SCALE = "_scale"


def find_ctranslate2(source: Path) -> bool:
    """Whether a path is a model.bin, or a folder with one."""
    name = ctranslate2_model.WEIGHTS
    return (source.name == name and source.is_file()) or (source / name).is_file()


@contextlib.contextmanager
def open_ctranslate2(source: Path) -> Iterator[Foreign]:
    """Open a model. Raises FileNotFoundError and ValueError, naming the file and the variable."""
    path = source if source.is_file() else source / ctranslate2_model.WEIGHTS
    with ctranslate2_model.read_model(path) as model:
        yield _model(path, model)


def _model(path: Path, model: CTranslate2Model) -> Foreign:
    tensors = model.tensors
    if model.spec != SPEC or model.revision not in REVISIONS:
        known = f"{SPEC}, revisions {REVISIONS[0]} to {REVISIONS[-1]}"
        raise ValueError(f"{path}: is {shown(model.spec)}, revision {model.revision}; only {known}, is read")
    for name, value in _FIXED.items():
        if (got := _scalar(tensors, name, 0)) != value:
            raise ValueError(f"{path}: {name} is {got:g}; only {value} is read")
    fields: dict[str, Any] = {}
    for side in _EMBEDDINGS:
        for name, value in _side_fields(tensors, side).items():
            if fields.setdefault(name, value) != value:
                both = f"{shown(fields[name])} in the encoder and {shown(value)} in the decoder"
                raise ValueError(f"{path}: {name} must be the same on both sides, got {both}")
    pieces = _pieces(tensors, fields)
    scalars = [f"{side}/{name}" for side in _EMBEDDINGS for name in _SCALARS]
    used = {name for name, _, _ in pieces.values()}
    more = {*_FIXED, *_UNUSED, *(name + _SCALE for name in used | _TIED), *_TIED}
    check_names(path, tensors, [*scalars, *used, *(name for name in more if name in tensors)])
    reads: dict[str, Read] = {new: partial(_read, tensors, *piece) for new, piece in pieces.items()}
    config, config_path = {}, path.with_name(hugging_face.CONFIG)
    if config_path.is_file():
        config = read_json(config_path)
    if config.get("add_source_bos"):
        raise ValueError(f"{config_path}: add_source_bos is {shown(config['add_source_bos'])}; only False is read")
    if (eps := config.get("layer_norm_epsilon")) is not None:
        fields["layer_norm_eps"] = config_number(f"{config_path}: layer_norm_epsilon", eps, high=1.0, above=True)
    special = {key: config.get(key, default) for key, default in (("unk_token", "<unk>"), ("eos_token", "</s>"))}
    for key, word in special.items():
        if not isinstance(word, str):
            raise ValueError(f"{config_path}: {key} must be a str, got {shown(word)}")
    vocabularies = _vocabularies(path, [tensors.shape(name)[0] for name in _EMBEDDINGS.values()], special)
    return Foreign(path, fields, reads, vocabularies, find_pieces(path.parent), special)


def _scalar(tensors: Tensors, name: str, default: float | None = None) -> float:
    """A variable of one number. Without a default it must be there."""
    if name not in tensors:
        if default is None:
            raise ValueError(f"{tensors.source}: variable {shown(name)} is missing")
        return default
    if math.prod(tensors.shape(name)) != 1:
        raise ValueError(f"{tensors.source}: variable {shown(name)} must be a number, got {shown(tensors.shape(name))}")
    number = float(tensors[name].reshape(()))
    if not math.isfinite(number):
        raise ValueError(f"{tensors.source}: variable {shown(name)} is {number}")
    return number


def _side_fields(tensors: Tensors, side: str) -> dict[str, Any]:
    path = tensors.source
    numbers = {int(found[1]) for name in tensors if (found := re.match(rf"{side}/layer_(\d{{1,9}})/", name))}
    activation = _scalar(tensors, f"{side}/activation")
    if activation not in _ACTIVATIONS:
        known = ", ".join(f"{i} ({name})" for i, name in _ACTIVATIONS.items())
        raise ValueError(f"{path}: {side}/activation is {activation:g}; only {known} are read")
    shapes = {}
    first = f"{side}/layer_0/ffn/linear_0/weight"
    for name in (_EMBEDDINGS[side], first, f"{side}/position_encodings/encodings"):
        shapes[name] = tensors.shape(name) if name in tensors else ()
        if len(shapes[name]) != 2:
            got = f"must be a matrix, got shape {shown(shapes[name])}" if name in tensors else "is missing"
            raise ValueError(f"{path}: variable {shown(name)} {got}")
    embeddings, hidden, positions = shapes.values()
    if positions[1] != embeddings[1]:
        raise ValueError(
            f"{path}: {side}/position_encodings/encodings must be as wide as the embeddings, {shown(embeddings)}, got "
            f"shape {shown(positions)}"
        )
    scale, dim = _scalar(tensors, f"{side}/scale_embeddings"), embeddings[1]
    root = math.sqrt(dim)
    if scale != 1 and not math.isclose(scale, root, rel_tol=1e-6):
        raise ValueError(f"{path}: {side}/scale_embeddings is {scale:g}; only 1 and {root:g} are read")
    switch = tensors.dtype(f"{side}/scale_embeddings") == "int8"  # then 1 means the root
    return {
        f"{side}_layers": len(numbers),
        f"{side}_attention_heads": int(_scalar(tensors, f"{side}/num_heads")),
        f"{side}_ffn_dim": hidden[0],
        "d_model": dim,
        "activation_function": _ACTIVATIONS[int(activation)],
        "normalize_before": bool(_scalar(tensors, f"{side}/pre_norm")),
        "scale_embedding": switch or scale != 1,
        "max_position_embeddings": positions[0],
    }


# Variables.

Piece = tuple[str, int, int]
"""A variable, which of its equal parts is meant, and how many there are."""


def _pieces(tensors: Tensors, fields: dict[str, Any]) -> dict[str, Piece]:
    """Where the tensors are, by their names in a folder of MarianMT."""
    found: dict[str, Piece] = {}
    source, target = (tensors.stored(name) for name in _EMBEDDINGS.values())
    tables = (SHARED,) if source is target else TABLES
    found |= {new: (old, 0, 1) for new, old in zip(tables, _EMBEDDINGS.values(), strict=False)}
    projection = f"{_PROJECTION}/weight"
    if projection not in tensors or tensors.stored(projection) is not target:
        found[OUTPUT] = projection, 0, 1
    if f"{_PROJECTION}/bias" in tensors:
        found[BIAS] = f"{_PROJECTION}/bias", 0, 1
    for side, positions in zip(_EMBEDDINGS, POSITIONS, strict=True):
        found[positions] = f"{side}/position_encodings/encodings", 0, 1
        for i in range(fields[f"{side}_layers"]):
            new, old = f"model.{side}.layers.{i}", f"{side}/layer_{i}"
            found |= _linear(f"{old}/self_attention/linear_0", *(f"{new}.self_attn.{x}_proj" for x in "qkv"))
            found |= _linear(f"{old}/self_attention/linear_1", f"{new}.self_attn.out_proj")
            found |= _norm(f"{old}/self_attention", f"{new}.self_attn_layer_norm")
            if side == "decoder":
                found |= _linear(f"{old}/attention/linear_0", f"{new}.encoder_attn.q_proj")
                found |= _linear(f"{old}/attention/linear_1", *(f"{new}.encoder_attn.{x}_proj" for x in "kv"))
                found |= _linear(f"{old}/attention/linear_2", f"{new}.encoder_attn.out_proj")
                found |= _norm(f"{old}/attention", f"{new}.encoder_attn_layer_norm")
            for number in (0, 1):
                found |= _linear(f"{old}/ffn/linear_{number}", f"{new}.fc{number + 1}")
            found |= _norm(f"{old}/ffn", f"{new}.final_layer_norm")
        if fields["normalize_before"]:
            found |= _norm(side, f"model.{side}.layer_norm")
    return found


def _linear(old: str, *new: str) -> dict[str, Piece]:
    parts = [(name, i) for i, name in enumerate(new)]
    return {f"{name}.{kind}": (f"{old}/{kind}", i, len(new)) for name, i in parts for kind in ("weight", "bias")}


def _norm(old: str, new: str) -> dict[str, Piece]:
    return {f"{new}.weight": (f"{old}/layer_norm/gamma", 0, 1), f"{new}.bias": (f"{old}/layer_norm/beta", 0, 1)}


def _read(tensors: Tensors, name: str, part: int, parts: int) -> NDArray[np.float32]:
    """A part of a variable in float32."""
    axes = 2 if name.endswith(("/weight", "/encodings")) else 1
    shape, dtype = tensors.shape(name), tensors.dtype(name)
    what = f"{tensors.source}: variable {shown(name)}"
    if len(shape) != axes or shape[0] % parts:
        raise ValueError(f"{what} must have {axes} axes and rows for {parts}, got shape {shown(shape)}")
    scale: Any = None
    if dtype in ("int8", "int16") and name.endswith("/weight"):
        if name + _SCALE not in tensors or tensors.shape(name + _SCALE) not in ((), (shape[0],)):
            raise ValueError(f"{what} is {dtype} and needs a scale, {shown(name + _SCALE)}, for each row or for all")
        scale = tensors[name + _SCALE].astype(np.float32)
    elif "float" not in dtype:
        raise ValueError(f"{what} is {dtype}, which is not read")
    with np.errstate(all="ignore"):  # what overflows is not finite
        array = tensors[name].astype(np.float32, copy=False)
        if scale is not None:
            array = array / (scale[:, None] if scale.ndim else scale)
    check_finite(tensors.source, name, array)
    size = shape[0] // parts
    return array[part * size : (part + 1) * size]


# Vocabularies.


def _vocabularies(path: Path, rows: list[int], special: dict[str, str]) -> list[Vocabulary]:
    """The vocabulary of both sides, or of each."""
    found = []
    for names, count in ((("shared", "source"), rows[0]), (("shared", "target"), rows[1])):
        files = [path.with_name(f"{name}_vocabulary.{end}") for name in names for end in ("json", "txt")]
        file = next((file for file in files if file.is_file()), None)
        if file is None:
            raise FileNotFoundError(f"{files[0]}: no such file, and no {files[2].name}; a model needs its vocabulary")
        text = file.suffix == ".txt"
        words = words_of_lines(file, read_regular(file, MAX_JSON), count) if text else read_json_array(file)
        if len(words) != count:
            raise ValueError(f"{file}: {len(words)} words, but the embeddings of {path.name} have {count} rows")
        vocabulary: Vocabulary = {}
        for i, word in enumerate(words):
            if not isinstance(word, str):
                raise ValueError(f"{file}: word {i} must be a str, got {shown(word)}")
            vocabulary.setdefault(word, i)
        check_vocabulary(file, vocabulary, special)
        found.append(vocabulary)
    return found[:1] if found[0] == found[1] else found
