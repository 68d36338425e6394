"""Checkpoints of other libraries, written by hand: the files of torch.save.

>>> write_torch(tmp_path / "pytorch_model.bin", {"pooler.weight": np.zeros((4, 4), np.float32)})
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

STORAGES = {"float32": "Float", "float64": "Double", "float16": "Half", "int64": "Long", "int32": "Int", "bool": "Bool",
            "int8": "Char", "uint8": "Byte", "int16": "Short", "uint16": "BFloat16"}  # fmt: skip
"""torch's storage for NumPy's dtype; the bits of bfloat16 are written as uint16."""

MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
VERSION = b"\x80\x02M\xe9\x03."


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def numbers(values: Any) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def name(module: str, member: str) -> bytes:
    return f"c{module}\n{member}\n".encode()


EMPTY = name("collections", "OrderedDict") + b")R"


def storage(kind: str, key: str, count: int, *more: bytes) -> bytes:
    return (
        b"("
        + text("storage")
        + name("torch", f"{kind}Storage")
        + text(key)
        + text("cpu")
        + number(count)
        + (b"".join(more) + b"tQ")
    )


def tensor(where: bytes, offset: int, shape: Any, strides: Any) -> bytes:
    call = name("torch._utils", "_rebuild_tensor_v2")
    return call + b"(" + where + number(offset) + numbers(shape) + numbers(strides) + b"\x89" + EMPTY + b"tR"


def dictionary(values: Mapping[str, bytes]) -> bytes:
    return EMPTY + b"(" + b"".join(text(key) + value for key, value in values.items()) + b"u"


def pickled(tensors: Mapping[str, np.ndarray], *more: bytes) -> bytes:
    """The pickle of a state_dict whose storages have the keys "0", "1", ..., with its `_metadata`."""
    values = {}
    for key, (title, array) in enumerate(tensors.items()):
        strides = [step // array.itemsize for step in array.strides]
        where = storage(STORAGES[str(array.dtype)], str(key), array.size, *more)
        values[title] = tensor(where, 0, array.shape, strides)
    metadata = b"}" + text("_metadata") + EMPTY + b"sb"
    return b"\x80\x02" + dictionary(values) + metadata + b"."


def torch_zip(pickle: bytes, storages: Mapping[str, bytes], **more: bytes) -> bytes:
    """The zip file of torch.save around a pickle and the bytes of storages by key."""
    entries = {"data.pkl": pickle, "byteorder": b"little", **{f"data/{key}": data for key, data in storages.items()}}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for entry, data in {**entries, "version": b"3\n", **more}.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{entry}"), data)
    return file.getvalue()


def as_zip64(data: bytes) -> bytes:
    """A zip file whose directory is described in 64 bits, as torch.save writes every one."""
    count, size, begin = struct.unpack("<H2I", data[-12:-2])
    record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, begin)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(data) - 22, 1)
    return data[:-22] + record + locator + b"PK\5\6" + bytes(4) + b"\xff" * 12 + bytes(2)


def storages_of(tensors: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    return {str(key): array.tobytes(order="A") for key, array in enumerate(tensors.values())}


def write_torch(path: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    """What torch.save writes for a state_dict."""
    path.write_bytes(as_zip64(torch_zip(pickled(tensors), storages_of(tensors))))
    return path


def torch_legacy(pickle: bytes, storages: Mapping[str, bytes], counts: Mapping[str, int]) -> bytes:
    """What torch.save wrote before 1.6."""
    facts = b"\x80\x02}" + text("little_endian") + b"\x88s."
    keys = b"\x80\x02](" + b"".join(map(text, storages)) + b"e."
    data = b"".join(struct.pack("<q", counts[key]) + data for key, data in storages.items())
    return MAGIC + VERSION + facts + pickle + keys + data


def write_torch_legacy(path: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    counts = {str(key): array.size for key, array in enumerate(tensors.values())}
    path.write_bytes(torch_legacy(pickled(tensors, b"N"), storages_of(tensors), counts))
    return path
