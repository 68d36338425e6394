"""Marian's own models: `model.npz` with its options inside, `decoder.yml` and vocabularies beside it.

    with open_marian(folder) as model:
        write_foreign(new, model)

Options that change the network are read, or refused with their value. Source: src/models/transformer.h,
src/layers/output.cpp and src/data/default_vocab.cpp of marian-nmt/marian-dev.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn.checks import shown
from fastattn.files import parsed_json, read_regular
from fastattn.formats import npz, yaml_lines
from fastattn.formats.hugging_face import MAX_JSON, check_finite
from fastattn.formats.sentencepiece_model import read_sentencepiece_model
from fastattn.formats.stored import Tensors
from fastattn.models.transformer.foreign import (
    BIAS,
    OUTPUT,
    Foreign,
    Read,
    Vocabulary,
    check_names,
    check_vocabulary,
    decoded,
    find_pieces,
    words_of_lines,
)
from fastattn.models.transformer.pretrained import SHARED, TABLES

DECODER = "decoder.yml"
END = ".npz"
OPTIONS = "special:model.yml"
_SPECIAL = {"unk_token": "<unk>", "eos_token": "</s>"}
_MAX_POSITIONS = 1024
"""Marian computes any number of positions; this is transformers' default."""

# The values of options that keep the network the same; the first one is meant where the option is missing.
_FIXED: dict[str, tuple[Any, ...]] = {
    "transformer-decoder-autoreg": ("self-attention",),
    "transformer-postprocess-emb": ("", "d"),
    "transformer-no-projection": ("false",),
    "transformer-train-position-embeddings": ("false",),
    "transformer-ffn-depth": ("2",),
    "transformer-decoder-ffn-depth": ("0", "2"),
    "transformer-tied-layers": ("", []),
    "input-types": ("", [], ["sequence"], ["sequence", "sequence"]),
    "special-vocab": ("", []),
    "right-left": ("false",),
    "ulr": ("false",),
    "transformer-pool": ("false",),
    "lemma-dim-emb": ("0",),
    "lemma-dependency": ("",),
    "factors-dim-emb": ("0",),
    "factors-combine": ("sum",),
}
_NORMS = {("", "an", ""): False, ("n", "a", "n"): True}
"""Whether the norms come first, by the steps before and behind each sub-layer, and at the top. `d` is dropout."""
_ACTIVATIONS = ("swish", "relu", "gelu")
_TIES = ("tied-embeddings-all", "tied-embeddings-src", "tied-embeddings")

Options = dict[str, yaml_lines.Value]


def find_marian(source: Path) -> bool:
    """Whether a path is a model of Marian: a .npz file, or a folder with a decoder.yml."""
    return (source.suffix == END and source.is_file()) or (source / DECODER).is_file()


@contextlib.contextmanager
def open_marian(source: Path) -> Iterator[Foreign]:
    """Open a model. Raises FileNotFoundError and ValueError, naming the file and the option or the tensor."""
    if source.suffix == END and source.is_file():
        beside = source.with_name(f"{source.name}.{DECODER}")
        path, decoder = source, beside if beside.is_file() else source.with_name(DECODER)
        settings = _read_options(decoder)
    else:
        decoder = source / DECODER
        settings = _read_options(decoder)
        path = _files(decoder, settings, "models", (1,))[0]
    with npz.read_tensors(path) as tensors:
        yield _model(path, tensors, decoder, settings)


def _model(path: Path, tensors: Tensors, decoder: Path, settings: Options) -> Foreign:
    options = _model_options(path, tensors)
    where = f"{path}: {OPTIONS}"
    for option, values in _FIXED.items():
        if options.get(option, values[0]) not in values:
            known = " or ".join(map(shown, values))
            raise ValueError(f"{where}: {option} is {shown(options[option])}; only {known} is read")
    if options.get("type") != "transformer":
        raise ValueError(f"{where}: type is {shown(options.get('type'))}; only 'transformer' is read")
    steps = ("transformer-preprocess", "transformer-postprocess", "transformer-postprocess-top")
    norms = tuple(str(options.get(step, "")).replace("d", "") for step in steps)
    if norms not in _NORMS:
        told = ", ".join(f"{step} is {shown(options.get(step, ''))}" for step in steps)
        raise ValueError(f"{where}: {told}; only '', 'dan', '' and 'n', 'da', 'n' are read")
    activation = options.get("transformer-ffn-activation")
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise ValueError(f"{where}: transformer-ffn-activation is {shown(activation)}; only {known} are read")
    depths = {side: _count(where, options, f"{side[:3]}-depth", len(tensors)) for side in ("encoder", "decoder")}
    heads = _count(where, options, "transformer-heads", 2**16)
    ties = [_switch(where, options, tie) for tie in _TIES]
    names = _names(tensors, depths, _NORMS[norms], *ties)
    check_names(path, tensors, [OPTIONS, *names.values()])
    reads: dict[str, Read] = {new: partial(_read, tensors, old) for new, old in names.items()}
    tables = [_shape(tensors, names[name]) for name in ((SHARED, SHARED) if SHARED in names else TABLES)]
    fields = {
        "d_model": tables[0][1],
        "activation_function": activation,
        "normalize_before": _NORMS[norms],
        "max_position_embeddings": _MAX_POSITIONS,
    }
    for side, depth in depths.items():
        fields |= {f"{side}_layers": depth, f"{side}_attention_heads": heads}
        fields[f"{side}_ffn_dim"] = _shape(tensors, f"{side}_l1_ffn_W1")[1]
    vocabularies, pieces = _vocabularies(decoder, settings, [rows for rows, _ in tables])
    generation = {
        "num_beams": _count(str(decoder), {"beam-size": "12", **settings}, "beam-size", 2**16),
        "length_penalty": _number(decoder, settings, "normalize", 0.0),
    }
    skipped = [f"word-penalty of {decoder.name}"] if _number(decoder, settings, "word-penalty", 0.0) else []
    pieces = pieces or find_pieces(path.parent)
    return Foreign(path, fields, reads, vocabularies, pieces, _SPECIAL, generation, skipped)


# Options.


def _read_options(path: Path) -> Options:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; a model of Marian needs it, for it names the vocabularies")
    return _options(read_regular(path, MAX_JSON), str(path))


def _model_options(path: Path, tensors: Tensors) -> Options:
    if OPTIONS not in tensors:
        raise ValueError(f"{path}: has no {OPTIONS}, the options of a model of Marian")
    if np.prod(tensors.shape(OPTIONS), dtype=object) > MAX_JSON:
        raise ValueError(f"{path}: {OPTIONS} has more than {MAX_JSON} numbers")
    return _options(tensors[OPTIONS].tobytes().rstrip(b"\0"), f"{path}: {OPTIONS}")


def _options(data: bytes, source: str) -> Options:
    """Options by name, without those that have no value (`~`)."""
    found: Options = {}
    for key, value in yaml_lines.pairs(decoded(source, data), source):
        if key in found:
            raise ValueError(f"{source}: {shown(key)} is there twice")
        found[key] = value
    return {key: value for key, value in found.items() if value != "~"}


def _count(where: str, options: Options, name: str, most: int) -> int:
    value = options.get(name)
    if not isinstance(value, str) or not re.fullmatch("[0-9]{1,9}", value) or not 0 < int(value) <= most:
        raise ValueError(f"{where}: {name} must be an integer from 1 to {most}, got {shown(value)}")
    return int(value)


def _switch(where: str, options: Options, name: str) -> bool:
    value = options.get(name, "false")
    if value not in ("true", "false"):
        raise ValueError(f"{where}: {name} must be true or false, got {shown(value)}")
    return value == "true"


def _number(path: Path, options: Options, name: str, default: float) -> float:
    value = options.get(name, str(default))
    if value in ("true", "false"):  # as early versions write it
        return float(value == "true")
    if not isinstance(value, str) or not re.fullmatch(r"-?[0-9]{1,9}(\.[0-9]{0,20})?(e-[0-9]{1,2})?", value):
        raise ValueError(f"{path}: {name} must be a number, got {shown(value)}")
    return float(value)


# Tensors.


def _names(
    tensors: Tensors, depths: Mapping[str, int], pre: bool, shared: bool, sources: bool, tied: bool
) -> dict[str, str]:
    """Marian's names of the tensors, by those in a folder of MarianMT."""
    names = {SHARED: "Wemb"} if shared or sources else dict(zip(TABLES, ("encoder_Wemb", "decoder_Wemb"), strict=True))
    if not (shared or tied):
        output = "decoder_ff_logit_out_W"
        names[OUTPUT] = output if output in tensors else f"{output}t"
    if (bias := "decoder_ff_logit_out_b") in tensors:
        names[BIAS] = bias
    for side, depth in depths.items():
        for i in range(depth):
            new, old = f"model.{side}.layers.{i}", f"{side}_l{i + 1}"
            for ours, theirs in (("self_attn", "self"), ("encoder_attn", "context"))[: 1 + (side == "decoder")]:
                for letter, part in (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("o", "out_proj")):
                    names |= _linear(f"{new}.{ours}.{part}", f"{old}_{theirs}", letter)
                names |= _norm(f"{new}.{ours}_layer_norm", f"{old}_{theirs}_Wo", pre)
            for number in "12":
                names |= _linear(f"{new}.fc{number}", f"{old}_ffn", number)
            names |= _norm(f"{new}.final_layer_norm", f"{old}_ffn_ffn", pre)
        if pre:
            names |= _norm(f"model.{side}.layer_norm", f"{side}_top", False)
    return names


def _linear(new: str, old: str, end: str) -> dict[str, str]:
    return {f"{new}.weight": f"{old}_W{end}", f"{new}.bias": f"{old}_b{end}"}


def _norm(new: str, old: str, pre: bool) -> dict[str, str]:
    end = "_pre" if pre else ""
    return {f"{new}.weight": f"{old}_ln_scale{end}", f"{new}.bias": f"{old}_ln_bias{end}"}


def _shape(tensors: Tensors, name: str) -> tuple[int, ...]:
    """The shape of a tensor; that of a vector without the axis of one that Marian gives it."""
    shape = tensors.shape(name)
    vector = "_ln_" in name or re.search(r"_b.?$", name) is not None
    if vector and len(shape) == 2 and shape[0] == 1:
        return shape[1:]
    if len(shape) != 2 - vector:
        kind = "vector" if vector else "matrix"
        raise ValueError(f"{tensors.source}: tensor {shown(name)} must be a {kind}, got shape {shown(shape)}")
    return shape


def _read(tensors: Tensors, name: str) -> NDArray[np.float32]:
    """A tensor as torch has it: a vector without the axis of one, a matrix of a layer transposed."""
    vector, dtype = len(_shape(tensors, name)) == 1, tensors.dtype(name)
    if "float" not in dtype:
        raise ValueError(f"{tensors.source}: tensor {shown(name)} is {dtype}; only floating point is read")
    with np.errstate(over="ignore"):  # what overflows is not finite
        array = tensors[name].astype(np.float32, copy=False)
    check_finite(tensors.source, name, array)
    if vector:
        return array.reshape(-1)
    return array if name.endswith(("Wemb", "_Wt")) else array.T


# Vocabularies.


def _files(decoder: Path, settings: Options, key: str, counts: tuple[int, ...]) -> list[Path]:
    """The files beside decoder.yml that it names. Of a path from another machine the name counts."""
    names = settings.get(key)
    names = [names] if isinstance(names, str) else names
    if not names or len(names) not in counts:
        wanted = " or ".join(map(str, counts))
        raise ValueError(f"{decoder}: {key} must name {wanted} of the files beside it, got {shown(names)}")
    paths = []
    for name in names:
        last = PurePosixPath(name).name
        if not last or "\0" in last or not (path := decoder.with_name(last)).is_file():
            raise FileNotFoundError(f"{decoder}: names {shown(name)} in {key}, which is not beside it")
        paths.append(path)
    return paths


def _vocabularies(decoder: Path, settings: Options, rows: list[int]) -> tuple[list[Vocabulary], list[Path]]:
    """The vocabularies of both sides, or of each if they differ, and the SentencePiece models that they are."""
    paths = _files(decoder, settings, "vocabs", (1, 2))
    sides = [paths[0], paths[-1]]
    found = [_vocabulary(path, count) for path, count in zip(sides, rows, strict=True)]
    for path, vocabulary in zip(sides, found, strict=True):
        check_vocabulary(path, vocabulary, _SPECIAL)
    pieces = sides if all(path.suffix == ".spm" for path in sides) else []
    return (found[:1] if found[0] == found[1] and rows[0] == rows[1] else found), pieces


def _vocabulary(path: Path, rows: int) -> Vocabulary:
    """The words of a vocabulary that a table of so many `rows` has, with their numbers."""
    most = min(2 * rows + 1000, 2**20)
    if path.suffix == ".fsv":
        raise ValueError(f"{path}: a vocabulary of factors; models with factors are not read")
    if path.suffix == ".spm":
        words: list[tuple[str, Any]] = [
            (piece, i) for i, (piece, _) in enumerate(read_sentencepiece_model(path).pieces)
        ]
    else:
        data = read_regular(path, MAX_JSON)
        if data.lstrip()[:1] == b"{":
            values = parsed_json(data, str(path))
            words = list(values.items())
        elif path.suffix in (".yml", ".yaml", ".json"):
            words = [*yaml_lines.pairs(decoded(path, data), str(path), most)]
        else:
            words = [(word, i) for i, word in enumerate(words_of_lines(path, data, most))]
    found: Vocabulary = {}
    owners: dict[int, str] = {}
    for word, value in words:
        if not re.fullmatch("[0-9]{1,10}", str(value)[:11]) or isinstance(value, list):
            raise ValueError(f"{path}: the number of {shown(word)} must be an integer, got {shown(value)}")
        number = int(value)
        if number < rows and word not in found:  # Marian keeps the first of two and leaves out what has no row
            if (other := owners.setdefault(number, word)) != word:
                raise ValueError(f"{path}: {shown(other)} and {shown(word)} have the same number {number}")
            found[word] = number
    return found
