"""Model folders of an enemy, or of a broken download: in each, one file is wrong, and is refused by its name.

>>> folder = dict(folders())["config.json: hidden_size is '16'"]
>>> folder.make(path)
>>> folder.load(path)
Traceback (most recent call last):
ValueError: .../config.json: hidden_size must be a positive integer, got '16'
"""

from __future__ import annotations

import gzip
import json
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helpers_checkpoints as by_hand
import numpy as np
from helpers_sentences import HIDDEN, dense, module, normalize, write_json, write_model
from safetensors.numpy import load_file, save_file

from fastattn.tasks import SentenceEncoder

Make = Callable[[Path], object]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 133508397\n"
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
ANY = "."
"""The name of a file that may be another one, such as that of the weights, which do not fit a config."""
DEEP = b"[" * 100_000 + b"]" * 100_000


@dataclass(frozen=True)
class Folder:
    """A folder.

    Attributes:
        make: writes it.
        load: reads it.
        named: what the message must name: a file in it.
    """

    make: Make
    load: Callable[[Path], object]
    named: str


def encode(folder: Path) -> object:
    """Load a sentence encoder and use it."""
    return SentenceEncoder(folder).encode(["the cat sat"])


def sentences(folder: Path) -> None:
    """A good folder, which the makers below spoil."""
    write_model(folder, layers=[dense("2_Dense", HIDDEN, 6), normalize("3_Normalize")])


def spoilt(name: str, spoil: Callable[[Path], object], write: Make = sentences) -> Make:
    """Writes a good folder, then does something to one of its files."""

    def make(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        write(folder)
        spoil(folder / name)

    return make


def replaced(name: str, data: bytes, write: Make = sentences) -> Make:
    return spoilt(name, lambda path: path.write_bytes(data), write)


def changed(name: str, write: Make = sentences, **fields: Any) -> Make:
    """With other fields in a file of JSON; one that is `...` is left out."""

    def spoil(path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        values = {**(json.loads(path.read_text()) if path.exists() else {}), **fields}
        path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))

    return spoilt(name, spoil, write)


def instead(make: Make) -> Make:
    """Something else in the place of a file."""

    def spoil(path: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return spoil


NO_FILES: dict[str, Make] = {
    "a Git LFS pointer": lambda path: path.write_bytes(POINTER),
    "a link to a device": instead(lambda path: path.symlink_to("/dev/zero")),
    "a named pipe": instead(os.mkfifo),
    "a folder": instead(Path.mkdir),
    "a link to nothing": instead(lambda path: path.symlink_to("nowhere")),
    "a link to itself": instead(lambda path: path.symlink_to(path.name)),
}
FIELDS: dict[str, tuple[Any, ...]] = {
    "hidden_size": (2**31 - 1, 2**70, -16, 0, 16.5, "16", None, [16], True, 15),
    "num_hidden_layers": (10**9, 10**30, -1, 0, "2", 1, 3),
    "vocab_size": (2**31 - 1, -1, float("nan")),
    "num_attention_heads": (2**31 - 1, 0, 5),
    "intermediate_size": (2**31 - 1, 2**31),
    "max_position_embeddings": (2**31 - 1, 0, {}),
    "type_vocab_size": (2**31 - 1, 0),
    "pad_token_id": (10**9, -1),
    "layer_norm_eps": (float("nan"), -1.0, float("inf"), "1e-12"),
    "hidden_act": ("../../x", {}, "os.system"),
    "hidden_dropout_prob": (2.0, [0.1]),
    "model_type": ("gpt2", {}, "../bert"),
    "is_decoder": (True,),
    "position_embedding_type": ("relative_key",),
    "tie_word_embeddings": ("yes",),
}
"""Wrong values for fields of config.json."""
LISTS: dict[str, bytes] = {
    "empty": b"",
    "cut short": b'{"model_type": "bert", "hidden_si',
    "a list": b"[]",
    "nested without an end": b'{"a": ' + b"[" * 10**6,
    "deeply nested": b'{"a": ' + DEEP + b"}",
    "a number of a million digits": b'{"hidden_size": ' + b"9" * 10**6 + b"}",
    "UTF-16 without an end": '{"model_type": "bert"'.encode("utf-16"),
    "no UTF-8": b'{"model_type": "\xff"}',
    "gzip": gzip.compress(b"{}"),
    "a web page": b"<!DOCTYPE html><html>not found</html>",
}
"""What no file of JSON may be."""


def tensors_with(spoil: Callable[[dict[str, Any]], object]) -> Make:
    """Good safetensors of other tensors."""

    def change(path: Path) -> None:
        tensors = load_file(path)
        spoil(tensors)
        save_file(tensors, path)

    return spoilt(WEIGHTS, change)


def header_with(spoil: Callable[[dict[str, Any]], object], more: bytes = b"") -> Make:
    """Safetensors with another header."""

    def change(path: Path) -> None:
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        values = json.loads(data[8 : 8 + size])
        text = spoil(values)
        text = text if isinstance(text, bytes) else json.dumps(values).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :] + more)

    return spoilt(WEIGHTS, change)


BIAS, WORDS = "encoder.layer.0.output.dense.bias", "embeddings.word_embeddings.weight"


def _entry(**fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda values: values[BIAS].update(fields)


def _moved(by: int, end: int = 0) -> Callable[[dict[str, Any]], object]:
    def spoil(values: dict[str, Any]) -> None:
        start, stop = values[BIAS]["data_offsets"]
        values[BIAS]["data_offsets"] = [start + by, stop + by + end]

    return spoil


def _inner(text: bytes) -> Callable[[dict[str, Any]], bytes]:
    """A field that no reader knows in the entry of a tensor."""

    def spoil(values: dict[str, Any]) -> bytes:
        values[BIAS]["unknown"] = "@"
        return json.dumps(values).encode().replace(b'"@"', text)

    return spoil


def _sparse(size: int) -> Make:
    def make(path: Path) -> None:
        with open(path, "ab") as file:
            file.truncate(size)

    return make


def safetensors() -> Iterator[tuple[str, Make]]:
    yield "the length of its header is 2^63", replaced(WEIGHTS, struct.pack("<Q", 2**63) + b"{}")
    yield "the length of its header is big-endian", replaced(WEIGHTS, struct.pack(">Q", 2) + b"{}")
    yield "its header is longer than the file", replaced(WEIGHTS, struct.pack("<Q", 100) + b"{}")
    yield "a header of 20 MB", spoilt(WEIGHTS, lambda path: path.write_bytes(struct.pack("<Q", 20 << 20) + _spaces(21)))
    yield "no header", replaced(WEIGHTS, bytes(8))
    yield "empty", replaced(WEIGHTS, b"")
    yield "a terabyte of nothing", spoilt(WEIGHTS, lambda path: (path.write_bytes(b""), _sparse(1 << 40)(path)))
    yield "a zip file", replaced(WEIGHTS, by_hand.torch_zip(b".", {}))
    yield "cut short", spoilt(WEIGHTS, lambda path: path.write_bytes(path.read_bytes()[:-100]))
    yield "bytes behind its tensors", spoilt(WEIGHTS, _append(b"12345678"))
    yield "tensors that overlap", header_with(_moved(-4))
    yield "a gap", header_with(_moved(4), bytes(4))
    yield "a tensor out of the file", header_with(_entry(data_offsets=[2**40, 2**40 + 64]))
    yield "a tensor that ends before it begins", header_with(_moved(0, -128))
    yield "a negative place", header_with(_entry(data_offsets=[-64, 0]))
    yield "a dtype of another size", header_with(_entry(dtype="F64"))
    yield "a dtype that is not read", header_with(_entry(dtype="I32"))
    yield "a dtype that nobody knows", header_with(_entry(dtype="F3"))
    yield "a shape whose product overflows", header_with(_entry(shape=[2**32, 2**32, 16]))
    yield "a shape of no rows and many columns", header_with(_entry(shape=[0, 2**62], data_offsets=[0, 0]))
    yield "a shape with a negative number", header_with(_entry(shape=[-16]))
    yield "a shape of fractions", header_with(_entry(shape=[16.0]))
    yield "another shape of the same size", header_with(_entry(shape=[4, 4]))
    yield "an entry without a shape", header_with(lambda values: values[BIAS].pop("shape"))
    yield "metadata that are no text", header_with(lambda values: values.update(__metadata__={"a": {}}))
    yield "an unknown field of 100,000 levels", header_with(_inner(DEEP))
    yield "an unknown number of 5,000 digits", header_with(_inner(b"9" * 5000))
    yield "a header that is no object", header_with(lambda values: b"[1, 2]")
    yield (
        "60,000 tensors",
        header_with(
            lambda values: values.update(
                {f"x.{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(60000)}
            )
        ),
    )
    yield "no tensors", tensors_with(dict.clear)
    yield "a tensor is missing", tensors_with(lambda tensors: tensors.pop(BIAS))
    yield "a layer more than the config says", tensors_with(_add("encoder.layer.7.output.dense.bias"))
    yield "a layer of a huge number", tensors_with(_add(f"encoder.layer.{'9' * 5000}.output.dense.bias"))
    yield "an unknown tensor", tensors_with(_add("encoder.layer.0.backdoor"))
    yield "integers for weights", tensors_with(lambda tensors: tensors.update({BIAS: np.zeros(HIDDEN, np.int64)}))
    yield "a NaN among the weights", tensors_with(lambda tensors: tensors[WORDS].__setitem__((3, 3), np.nan))
    yield "an infinity among the weights", tensors_with(lambda tensors: tensors[WORDS].__setitem__((0, 0), np.inf))
    yield "a matrix that is transposed", tensors_with(lambda tensors: tensors.update({WORDS: tensors[WORDS].T.copy()}))


def _spaces(megabytes: int) -> bytes:
    return b" " * (megabytes << 20)


def _append(data: bytes) -> Make:
    return lambda path: path.write_bytes(path.read_bytes() + data)


def _add(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda tensors: tensors.update({name: np.zeros(HIDDEN, np.float32)})


def _with_index(weight_map: Any, **files: bytes) -> Make:
    def make(folder: Path) -> None:
        sentences(folder)
        (folder / WEIGHTS).rename(folder / "model-1-of-1.safetensors")
        if callable(weight_map):
            write_json(folder / INDEX, {"weight_map": weight_map([*load_file(folder / "model-1-of-1.safetensors")])})
        else:
            write_json(folder / INDEX, {"weight_map": weight_map})
        for name, data in files.items():
            (folder / name).write_bytes(data)

    return make


def indexes() -> Iterator[tuple[str, Make]]:
    for what, path in (
        ("above", "../x.safetensors"),
        ("with a whole path", "/etc/passwd"),
        ("in a folder", "a/b.safetensors"),
        ("of 300 letters", "x" * 300),
        ("with a NUL", "a\0b"),
        ("that is a number", 7),
        ("that is a folder", "."),
    ):
        yield f"a shard {what}", _with_index(lambda names, path=path: dict.fromkeys(names, path))
    yield "a shard that is missing", _with_index(lambda names: dict.fromkeys(names, "model-2-of-2.safetensors"))
    yield (
        "a tensor that its shard lacks",
        _with_index(lambda names: dict.fromkeys([*names, "x"], "model-1-of-1.safetensors")),
    )
    yield "no map", _with_index([])
    yield "an empty map", _with_index({})
    yield "60,000 tensors", _with_index({f"x{i}": "model-1-of-1.safetensors" for i in range(60000)})


def _modules(*entries: Any) -> Make:
    return spoilt("modules.json", lambda path: write_json(path, list(entries)))


def modules() -> Iterator[tuple[str, Make]]:
    first, pooling = module("Transformer", ""), module("Pooling", "1_Pooling")
    for what, path in (
        ("above", "../1_Pooling"),
        ("with a whole path", "/etc"),
        ("with a NUL", "a\0b"),
        ("of 300 letters", "x" * 300),
        ("that is null", None),
        ("with a lone surrogate", "\ud800"),
    ):
        yield f"a folder {what}", _modules(first, {**pooling, "path": path})
    for kind in (
        "os.system",
        "custom_st.Transformer",
        "sentence_transformers.models.CLIPModel",
        "builtins.eval",
        {"a": 1},
    ):
        yield f"the type {kind}", _modules({**first, "type": kind}, pooling)
    yield "an object", replaced("modules.json", b"{}")
    yield "no modules", _modules()
    yield "two transformers", _modules(first, pooling, first)
    yield "modules that are numbers", _modules(1, 2)
    yield "pooling before the transformer", _modules(pooling, first)


def options() -> Iterator[tuple[str, str, Make]]:
    """The small files beside the model."""
    for name, fields in (
        ("1_Pooling/config.json", {"pooling_mode": "os.system"}),
        ("1_Pooling/config.json", {"pooling_mode": [["mean"]]}),
        ("1_Pooling/config.json", {"pooling_mode_backdoor": True}),
        ("2_Dense/config.json", {"in_features": 2**31 - 1}),
        ("2_Dense/config.json", {"out_features": -6}),
        ("2_Dense/config.json", {"out_features": 6.0}),
        ("2_Dense/config.json", {"activation_function": "os.system"}),
        ("2_Dense/config.json", {"activation_function": "torch.nn.modules.module.Module"}),
        ("2_Dense/config.json", {"bias": "yes"}),
        ("3_Normalize/config.json", {"module_input_name": "token_embeddings"}),
        ("sentence_bert_config.json", {"max_seq_length": -1}),
        ("sentence_bert_config.json", {"max_seq_length": 1e9}),
        ("sentence_bert_config.json", {"processing_kwargs": {"trust_remote_code": True}}),
        ("config_sentence_transformers.json", {"prompts": {"query": 7}}),
        ("config_sentence_transformers.json", {"default_prompt_name": "x"}),
        ("config_sentence_transformers.json", {"similarity_fn_name": "os.system"}),
        ("config_sentence_transformers.json", {"truncate_dim": 0}),
    ):
        [(key, value)] = fields.items()
        yield f"{name}: {key} is {value!r}", ANY if "features" in key else name, changed(name, **fields)
    name = "tokenizer_config.json"
    for key, value in (
        ("added_tokens_decoder", {"4000000000": {"content": "x"}}),
        ("added_tokens_decoder", [1]),
        ("extra_special_tokens", 5),
        ("extra_special_tokens", [""]),
        ("truncation_side", "up"),
        ("auto_map", {"AutoTokenizer": ["code.Tokenizer", None]}),
        ("do_lower_case", "yes"),
        ("unk_token", "[NONE]"),
        ("tokenizer_class", "GPT2Tokenizer"),
    ):
        yield f"{name}: {key} is {value!r}", name if key != "unk_token" else "vocab.txt", changed(name, **{key: value})


FILES = (
    CONFIG, WEIGHTS, INDEX, "modules.json", "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors",
    "sentence_bert_config.json", "config_sentence_transformers.json", "tokenizer_config.json", "tokenizer.json",
    "vocab.txt",
)  # fmt: skip
"""The files of a folder of sentence-transformers."""


def _place(name: str, make: Make) -> Make:
    def spoil(path: Path) -> None:
        if name == INDEX:
            path.with_name(WEIGHTS).unlink()
        path.parent.mkdir(exist_ok=True)
        make(path)

    return spoilt(name, spoil)


def folders() -> Iterator[tuple[str, Folder]]:
    """Folders of sentence-transformers."""

    def named(name: str, what: str, make: Make, file: str = "") -> tuple[str, Folder]:
        return f"{name}: {what}", Folder(make, encode, file or name)

    for name in FILES:
        for what, make in NO_FILES.items():
            yield named(name, what, _place(name, make), os.path.dirname(name) or ANY)
    for name in FILES:
        if name.endswith(".json"):
            for what, data in LISTS.items():
                if not (name == "modules.json" and what == "a list"):
                    yield named(name, what, _place(name, lambda path, data=data: path.write_bytes(data)))
    for field, values in FIELDS.items():
        for value in values:
            shown = str(value) if not isinstance(value, int) or abs(value) < 10**12 else f"{value:.0e}"
            yield named(CONFIG, f"{field} is {shown!r}", changed(CONFIG, **{field: value}), ANY)
    yield named(CONFIG, "code of its own", changed(CONFIG, model_type="x", auto_map={"AutoModel": "code.Model"}))
    yield named(CONFIG, "30 MB of spaces", spoilt(CONFIG, lambda path: path.write_bytes(_spaces(30))))
    for name, make in safetensors():
        yield named(WEIGHTS, name, make)
    for name, make in indexes():
        yield named("model", name, make)
    for name, make in modules():
        yield named("modules.json", name, make)
    for name, file, make in options():
        yield name, Folder(make, encode, file)
