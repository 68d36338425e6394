"""NumPy's .npz files, as Marian writes its models: a zip file with a .npy file for each array, none compressed.

    with read_tensors("model.npz") as tensors:
        weight = tensors["encoder_l1_self_Wq"]        # read now

`numpy.load` unpacks, unpickles and evaluates; this reader does none of it, and no array is larger than the file. Errors
name the file. Source: numpy/lib/format.py of NumPy.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn.checks import shown
from fastattn.files import open_regular
from fastattn.formats import stored_zip
from fastattn.formats.hugging_face import MAX_TENSORS
from fastattn.formats.stored import DTYPES, Stored, Tensors, from_bytes, read_at

__all__ = ["read_tensors"]

_MAGIC = b"\x93NUMPY\x01\0"
_LONGEST = 1024
"""Bytes of a header. NumPy writes 118."""
_HEADER = re.compile(
    rb"\{'descr': ?'([<>|=][a-zA-Z]\d{0,4})', ?'fortran_order': ?(True|False), ?"
    rb"'shape': ?\(((?:\d{1,18}, ?){0,15}(?:\d{1,18})?),?\),? ?\} *\n?"
)
_NAMES = {np.dtype(code).str: name for name, code in DTYPES.items() if name != "bfloat16"}
_NAMES |= {f"<{code[1:]}": name for code, name in _NAMES.items() if code[0] == "|"}  # as Marian writes them


def read_tensors(path: str | os.PathLike[str]) -> Tensors:
    """Open a file of arrays by name. All headers are checked, but no array is read; reading one checks its CRC-32.

    Raises FileNotFoundError, and ValueError for a file that is compressed, cut short, damaged or has arrays of other
    dtypes than numbers and bools. The message names the file and what is wrong.
    """
    with contextlib.ExitStack() as files:
        file = files.enter_context(open_regular(path))
        try:
            entries = stored_zip.read_entries(file)
            if len(entries) > MAX_TENSORS:
                raise ValueError(f"{len(entries)} arrays; at most {MAX_TENSORS} are read")
            stored = {entry.name.removesuffix(".npy"): _stored(file, entry) for entry in entries.values()}
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from None
        if len(stored) < len(entries):
            raise ValueError(f"{os.fspath(path)}: has an array twice, with .npy behind its name and without")
        return Tensors(Path(path), stored, files.pop_all())


def _stored(file: FileIO, entry: stored_zip.Entry) -> Stored:
    head = os.pread(file.fileno(), min(_LONGEST, entry.size), entry.start)
    length = int.from_bytes(head[8:10], "little")
    header = _HEADER.fullmatch(head[10 : 10 + length])
    if not head.startswith(_MAGIC) or header is None or len(head) < 10 + length:
        raise ValueError(f"entry {shown(entry.name)} is no array that NumPy wrote: {shown(head[:80])}")
    code, fortran, numbers = header[1].decode(), header[2] == b"True", header[3].decode()
    if code not in _NAMES:
        raise ValueError(f"entry {shown(entry.name)} has the dtype {shown(code)}; only {', '.join(_NAMES)} are read")
    dtype, shape = _NAMES[code], tuple(int(number) for number in numbers.split(",") if number.strip())
    size = math.prod(shape) * np.dtype(code).itemsize
    if 10 + length + size != entry.size:
        raise ValueError(
            f"damaged: entry {shown(entry.name)} has {entry.size - 10 - length} bytes instead of {size}, for shape "
            f"{shown(shape)} of {dtype}"
        )
    return Stored(dtype, shape, partial(_read, file, entry, 10 + length, dtype, shape, fortran))


def _read(
    file: FileIO, entry: stored_zip.Entry, skipped: int, dtype: str, shape: tuple[int, ...], fortran: bool
) -> NDArray[Any]:
    try:
        stored_zip.check_crc(file, entry)
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}") from None
    data = np.empty(entry.size - skipped, np.uint8)
    read_at(file.fileno(), str(file.name), entry.start + skipped, data, entry.name)
    numbers = from_bytes(data, dtype)
    return numbers.reshape(shape[::-1]).T if fortran else numbers.reshape(shape)
