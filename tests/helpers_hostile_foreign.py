"""More folders of an enemy: translation models of Marian and CTranslate2 that are to be converted."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import helpers_foreign as foreign
import numpy as np
from helpers_foreign import ForeignModel
from helpers_hostile import DEEP, Folder

from fastattn.models import convert_checkpoint

SMALL = {"encoder_layers": 1, "decoder_layers": 1}
HUGE = "(999999999, 999999999)"


def _load(folder: Path) -> object:
    return convert_checkpoint(folder, folder / "new")


def _header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text


def _npz(**more: bytes) -> bytes:
    model = ForeignModel(**SMALL)
    entries = {name: foreign.npy(array) for name, array in foreign.marian_arrays(model).items()}
    text = np.frombuffer(foreign.marian_options(model).encode(), np.int8)
    return foreign.npz({"special:model.yml": foreign.npy(text), **entries, **more})


def _bomb() -> bytes:
    return foreign.npz({"Wemb": foreign.npy(np.zeros(64 << 20, np.int8))}, zipfile.ZIP_DEFLATED)


def _sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(1 << 40)


def marian() -> Iterator[tuple[str, Folder]]:
    """model.npz, decoder.yml, and a vocabulary."""
    bytes_of: dict[str, dict[str, Callable[[], bytes]]] = {
        "model.npz": {
            "no zip file": lambda: b"PK",
            "an array that unpacks to 64 MB": _bomb,
            "a terabyte in a header": lambda: _npz(Wemb=_header(HUGE) + bytes(8)),
            "a billion rows of nothing": lambda: _npz(Wemb=_header("(999999999, 0)")),
            "a pickle": lambda: _npz(Wemb=_header("(1,)").replace(b"<f4", b"|O4") + b"cos\nsystem\n"),
            "a header that is code": lambda: _npz(Wemb=_header("(__import__('os').abort(),)")),
            "options of 20,000 keys": lambda: _options("".join(f"a{i}: 1\n" for i in range(20_000))),
            "options with a billion layers": lambda: _options("type: transformer\nenc-depth: 999999999\n"),
            "options that refer to themselves": lambda: _options("a: &a [*a]\n"),
        },
        "decoder.yml": {
            "empty": lambda: b"",
            "a path": lambda: b"models:\n  - ../../etc/passwd\nvocabs: [vocab.yml]\n",
            "a folder": lambda: b"models:\n  - .\nvocabs: [vocab.yml]\n",
            "no UTF-8": lambda: b"\xff\xfe",
            "100,000 levels": lambda: b"models: " + DEEP,
        },
        "vocab.yml": {
            "JSON of 100,000 levels": lambda: b'{"a": ' + DEEP + b"}",
            "a number of 5,000 digits": lambda: b"</s>: 0\n<unk>: " + b"9" * 5000,
            "a million words": lambda: b"a: 1\n" * 1_000_000,
            "half a character": lambda: rb'"\ud800": 3',
        },
    }
    for name, files in bytes_of.items():
        for what, data in files.items():
            yield f"{name}: {what}", Folder(_made(foreign.write_marian, name, data), _load, name)
    yield "model.npz: a terabyte of nothing", Folder(_made(foreign.write_marian, "model.npz", None), _load, "model.npz")


def _options(text: str) -> bytes:
    return _npz(**{"special:model.yml": foreign.npy(np.frombuffer(text.encode(), np.int8))})


def ctranslate2() -> Iterator[tuple[str, Folder]]:
    """model.bin."""
    name = "a/weight"
    variable = foreign.text(name)
    begin = struct.pack("<I", 6) + foreign.text("TransformerSpec") + struct.pack("<I", 7)
    one = begin + struct.pack("<I", 1)
    some: dict[str, bytes] = {
        "no variables": begin + bytes(8),
        "four billion variables": begin + b"\xff" * 4,
        "four billion names": begin + bytes(4) + b"\xff" * 4,
        "a variable of a terabyte": one + variable + struct.pack("<B2IBI", 2, 2**20, 2**20, 1, 0),
        "a variable of four gigabytes": one + variable + struct.pack("<BIBI", 1, 2**32 - 1, 1, 2**32 - 1),
        "255 sizes of nothing": one + variable + b"\xff" + b"\xff" * 1016 + struct.pack("<IBI", 0, 0, 0) + bytes(4),
        "a name that ends nowhere": one + b"\xff\xff" + b"a" * 65535,
    }
    for what, data in some.items():
        make = _made(foreign.write_ctranslate2, "model.bin", lambda data=data: data)
        yield f"model.bin: {what}", Folder(make, _load, "model.bin")
    make = _made(foreign.write_ctranslate2, "model.bin", None)
    yield "model.bin: a terabyte of nothing", Folder(make, _load, "model.bin")
    rows = "encoder/position_encodings/encodings", "decoder/position_encodings/encodings"
    values = foreign.ctranslate2_variables(ForeignModel(**SMALL))

    def positions() -> bytes:
        return foreign.ctranslate2_binary({**values, **dict.fromkeys(rows, np.zeros((2**31 - 1, 0), np.float32))})

    make = _made(foreign.write_ctranslate2, "model.bin", positions)
    yield "model.bin: two billion positions of nothing", Folder(make, _load, "model.bin")


def _made(write: Callable[..., object], name: str, data: Callable[[], bytes] | None) -> Callable[[Path], Any]:
    """What writes a folder in which one file has other bytes; without some, a terabyte of none."""

    def make(folder: Path) -> None:
        write(folder, ForeignModel(**SMALL))
        if data is None:
            _sparse(folder / name)
        else:
            (folder / name).write_bytes(data())

    return make


def folders() -> Iterator[tuple[str, Folder]]:
    """All of them."""
    yield from marian()
    yield from ctranslate2()
