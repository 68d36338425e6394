"""Checkpoints of TensorFlow, written by hand.

>>> write_bundle(tmp_path / "bert_model.ckpt", {"bert/pooler/dense/kernel": np.zeros((4, 4), np.float32)})
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastattn.formats.crc32c import crc32c, masked

DTYPES = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int16": 5, "int8": 6, "int64": 9, "bool": 10,
          "uint16": 14, "float16": 19}  # fmt: skip
"""TensorFlow's number for NumPy's dtype; the bits of bfloat16 are written as uint16."""
MAGIC = 0xDB4775248B80FB57


def varint(number: int) -> bytes:
    number &= 2**64 - 1
    data = []
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    return bytes([*data, number])


def field(number: int, value: int | bytes) -> bytes:
    """A field of a protocol buffer."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def fixed(number: int, value: int) -> bytes:
    return varint(number << 3 | 5) + struct.pack("<I", value)


def shape_of(shape: Sequence[int]) -> bytes:
    return b"".join(field(2, field(1, size)) for size in shape)


def entry(array: np.ndarray, shard: int, start: int, /, **changes: Any) -> bytes:
    """What an index says of a variable."""
    data = array.tobytes()
    said = {"dtype": DTYPES[str(array.dtype)], "shape": array.shape, "shard": shard, "start": start,
            "size": len(data), "crc": masked(crc32c(data)), **changes}  # fmt: skip
    return (
        field(1, said["dtype"])
        + field(2, shape_of(said["shape"]))
        + field(3, said["shard"])
        + field(4, said["start"])
        + field(5, said["size"])
        + fixed(6, said["crc"])
    )


def header(shards: int = 1, order: int = 0, needs: int = 0) -> bytes:
    return field(1, shards) + field(2, order) + field(3, field(1, 1) + field(2, needs))


def block(entries: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Entries that share the beginnings of their keys, 16 at most."""
    data, restarts, last = b"", [], b""
    for i, (key, value) in enumerate(entries):
        pairs = enumerate(zip(last, key, strict=False))
        shared = next((at for at, (a, b) in pairs if a != b), min(len(last), len(key))) if i % 16 else 0
        if not i % 16:
            restarts.append(len(data))
        data += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return data + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def closed(data: bytes, kind: int = 0) -> bytes:
    """A block with its compression and its checksum."""
    data += bytes([kind])
    return data + struct.pack("<I", masked(crc32c(data)))


def table(entries: Mapping[bytes, bytes], size: int = 5) -> bytes:
    """A sorted table of blocks with `size` entries."""
    rows, data, handles = sorted(entries.items()), b"", []
    for start in range(0, len(rows), size):
        rest = block(rows[start : start + size])
        handles.append((rows[start : start + size][-1][0], varint(len(data)) + varint(len(rest))))
        data += closed(rest)
    other, listing = block([]), block(handles)
    footer = varint(len(data)) + varint(len(other))
    data += closed(other)
    footer += varint(len(data)) + varint(len(listing))
    data += closed(listing)
    return data + footer.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def slices_of(name: str, parts: Sequence[tuple[Sequence[int], Sequence[int]]]) -> tuple[bytes, list[bytes]]:
    """What the entry of a split variable says of its parts, and their keys. A part has a beginning and a shape."""
    said, keys = b"", []
    for begin, size in parts:
        extents = [field(1, start) + field(2, length) for start, length in zip(begin, size, strict=True)]
        said += field(7, b"".join(field(1, extent) for extent in extents))
        key = b"\0" + name.encode() + b"\0\1" + bytes([1, len(size)])
        for number in (number for pair in zip(begin, size, strict=True) for number in pair):
            count = number.bit_length() // 7 + 1
            key += (number | ((1 << count) - 1) << 7 * count).to_bytes(count, "big")
        keys.append(key)
    return said, keys


def bundle(
    variables: Mapping[str, np.ndarray], shards: int = 1, split: Mapping[str, tuple[int, int]] | None = None
) -> tuple[dict[bytes, bytes], list[bytes]]:
    """The entries of an index, and the bytes of the shards. `split` maps names to an axis and a number of parts."""
    entries, data = {b"": header(shards)}, [b""] * shards

    def add(key: bytes, array: np.ndarray) -> None:
        shard = len(entries) % shards
        entries[key] = entry(array, shard, len(data[shard]))
        data[shard] += array.tobytes()

    for name, array in variables.items():
        if name not in (split or {}):
            add(name.encode(), array)
            continue
        axis, count = (split or {})[name]
        arrays = np.array_split(array, count, axis)
        places = np.cumsum([0, *(part.shape[axis] for part in arrays)])
        begins = [[int(place) * (i == axis) for i in range(array.ndim)] for place in places[:-1]]
        said, keys = slices_of(name, [(begin, part.shape) for begin, part in zip(begins, arrays, strict=True)])
        entries[name.encode()] = field(1, DTYPES[str(array.dtype)]) + field(2, shape_of(array.shape)) + said
        for key, part in zip(keys, arrays, strict=True):
            add(key, part)
    return entries, data


def write_bundle(prefix: Path, variables: Mapping[str, np.ndarray], **options: Any) -> Path:
    """What tf.train.Saver writes for some variables."""
    entries, data = bundle(variables, **options)
    write_files(prefix, table(entries), data)
    return prefix


def write_files(prefix: Path, index: bytes, shards: Sequence[bytes]) -> None:
    Path(f"{prefix}.index").write_bytes(index)
    for i, data in enumerate(shards):
        Path(f"{prefix}.data-{i:05d}-of-{len(shards):05d}").write_bytes(data)


# google-research/bert.

SIZES = {
    "vocab_size": 31,
    "hidden_size": 12,
    "num_hidden_layers": 11,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 20,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
}
"""bert_config.json of a small model whose layers have numbers of two digits."""
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
_HEADS = {
    "cls.predictions.bias": "cls/predictions/output_bias",
    "cls.seq_relationship.weight": "cls/seq_relationship/output_weights",
    "cls.seq_relationship.bias": "cls/seq_relationship/output_bias",
    "qa_outputs.weight": "cls/squad/output_weights",
    "qa_outputs.bias": "cls/squad/output_bias",
    "classifier.weight": "output_weights",
    "classifier.bias": "output_bias",
}


def google_variables(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The variables of google-research/bert for the tensors of a folder, by the rules behind their names."""
    variables = {}
    for name, tensor in tensors.items():
        if name.startswith("cls.predictions.decoder."):
            continue  # tied
        scope, _, kind = name.replace("layer.", "layer_").rpartition(".")
        if name in _HEADS:
            variables[_HEADS[name]] = tensor
        elif scope.endswith("_embeddings"):
            variables[scope.replace(".", "/")] = tensor
        else:
            ends = ("gamma", "beta") if scope.endswith("LayerNorm") else ("kernel", "bias")
            values = tensor.T if kind == "weight" and tensor.ndim == 2 else tensor
            variables[f"{scope.replace('.', '/')}/{ends[kind == 'bias']}"] = np.ascontiguousarray(values)
    return variables


def training_of(variables: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a run of training adds to the variables."""
    moments = {f"{name}/adam_{end}": np.zeros_like(array) for name, array in variables.items() for end in "mv"}
    return {**moments, "global_step": np.array(1_000_000)}


def write_google(
    folder: Path, variables: Mapping[str, np.ndarray], words: Sequence[str] = WORDS, **options: Any
) -> Path:
    """A folder as google-research/bert publishes it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_bundle(folder / "bert_model.ckpt", variables, **options)
    (folder / "bert_config.json").write_text(json.dumps(SIZES))
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    return folder
