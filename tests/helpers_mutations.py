"""Mutations of files that know their form: a wrong field in right JSON, a wrong number behind a right checksum.

>>> as_json(b'{"hidden_size": 32}', random.Random(3))
b'{"hidden_size": -1}'

The same seed gives the same bytes, so a failure can be repeated.
"""

from __future__ import annotations

import copy
import io
import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

from helpers_bundles import field, fixed, table, varint
from helpers_checkpoints import torch_zip
from helpers_foreign import npz

from fastattn.formats import protobuf, sstable

Mutation = Callable[[bytes, random.Random], bytes]
INTEGERS = (0, 1, 2, 7, 8, 127, 128, 255, 256, 1 << 15, (1 << 16) - 1, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1,
            1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip
DEEP = 3000
"""Levels of nesting, more than Python's parser takes."""
_DEEP, _LONG = "@deep@", "@long@"
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 300, 65537, 2**24, 2**31 - 1, 2**31, 2**53, 2**63, 2**64, 2**70, -(2**63),
    0.0, 0.5, 1.0, -0.0, 1e-300, 1e39, 1e308, float("nan"), float("inf"), "", "a", "0", "32", "../x", "/dev/zero",
    "x" * 999, "\ud800", "\0", "\u2028", "gelu", "bert", "é", "<unk>", [], {}, [[]], [None], [0], [1, 2], [-1, 2**40],
    ["a"], [{}], {"a": 1}, {"": {}}, {"0": "a"}, {"content": "a"}, _DEEP, _LONG, _LONG + "1",
)  # fmt: skip
"""What a field may have in place of its value."""
KEYS = ("auto_map", "num_labels", "id2label", "tokenizer_class", "added_tokens_decoder", "rope_scaling", "__metadata__")
WORDS = (
    b"\t", b"\n", b"\r", b"\r\n", b'"', b",", b" ", b"\0", b"#", b"_", b"-", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf",
    b"\xff\xfe", b"\x1f\x8b", "\u2028".encode(), "é".encode(), b"1", b"1-2", b"1.1", b"0", b"9" * 5000, b"{}",
    b"[]", b"{", b"[" * DEEP, b"null", b"-DOCSTART-", b"PAR1",
)  # fmt: skip


def as_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flipped bits, other numbers, and parts that are cut out, repeated, exchanged or cut off."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        place = rng.randrange(len(found) + 1)
        size = rng.choice((1, 2, 4, 8, 32, 200))
        kind = rng.randrange(8)
        if kind == 0 and place < len(found):
            found[place] ^= 1 << rng.randrange(8)
        elif kind == 1 and place < len(found):
            found[place] = rng.randrange(256)
        elif kind == 2:
            width = rng.choice((1, 2, 4, 8))
            number = rng.choice(INTEGERS) & ((1 << 8 * width) - 1)
            found[place : place + width] = number.to_bytes(width, rng.choice(("little", "little", "big")))
        elif kind == 3:
            del found[place : place + size]
        elif kind == 4:
            found[place:place] = found[place : place + size]
        elif kind == 5:
            found[place:place] = rng.choice(WORDS)
        elif kind == 6:
            other = rng.randrange(len(found) + 1)
            found[place : place + size] = found[other : other + size]
        elif rng.random() < 0.3:
            del found[place:]
    return bytes(found)


def as_lines(data: bytes, rng: random.Random) -> bytes:
    """Lines and columns that are left out, repeated, exchanged or replaced."""
    lines = data.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
        kind = rng.randrange(7)
        if kind == 0 and len(lines) > 1:
            del lines[i]
        elif kind == 1:
            lines.insert(j, lines[i])
        elif kind == 2:
            lines[i], lines[j] = lines[j], lines[i]
        elif kind == 3:
            columns = lines[i].split(separator := rng.choice((b"\t", b",", b" ")))
            at = rng.randrange(len(columns))
            columns[at : at + 1] = rng.choice(
                ([], [rng.choice(WORDS)], [columns[at]] * 2, [columns[at] + rng.choice(WORDS)])
            )
            lines[i] = separator.join(columns)
        elif kind == 4:
            lines[i] = as_bytes(lines[i], rng)
        elif kind == 5:
            lines.insert(j, rng.choice(WORDS) * rng.choice((1, 1, 3)))
        else:
            lines[i] = lines[i][: rng.randrange(len(lines[i]) + 1)]
    return b"\n".join(lines)


def _value(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(VALUES))


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Where a value of JSON can be changed: each object or list in it, with a key or an index."""
    for key, item in [*(value.items() if isinstance(value, dict) else enumerate(value))]:
        found.append((value, key))
        if isinstance(item, dict | list):
            _places(item, found)
    return found


def changed_json(value: Any, rng: random.Random) -> Any:
    """A value of JSON with some fields that are missing, new, or of another kind, number or size."""
    value = [json.loads(json.dumps(value))]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = _places(value, [])
        owner, key = rng.choice(places)
        old, kind = owner[key], rng.randrange(10)
        if kind == 0 and owner is not value:
            del owner[key]
        elif kind == 1 and isinstance(old, dict):
            old[rng.choice((*KEYS, str(_value(rng))))] = _value(rng)
        elif kind == 2 and isinstance(old, list):
            old.insert(rng.randrange(len(old) + 1), _value(rng))
        elif kind == 3:
            other, name = rng.choice(places)
            owner[key] = json.loads(json.dumps(other[name]))
        elif kind == 4 and isinstance(owner, dict):
            owner[rng.choice((f"{key} ", f"{key}\ud800", "", str(key).upper()))] = owner.pop(key)
        elif kind in (5, 6) and isinstance(old, int | float):
            halves = (old * 0.5, float(old)) if abs(old) < 2**60 else ()
            owner[key] = rng.choice((-old, old + 1, old - 1, old * 2, str(old), old * 1000, *halves))
        elif kind == 7:
            owner[key] = rng.choice(([old], {"a": old}, str(old)))
        else:
            owner[key] = _value(rng)
    return value[0]


def json_text(value: Any, rng: random.Random) -> bytes:
    """A value as JSON, sometimes with a field that is said twice, nesting or numbers beyond what a parser takes."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.9).encode("utf-8", "surrogatepass")
    brackets = rng.choice((b"[%s]", b'{"a":%s}'))
    head, tail = brackets.split(b"%s")
    text = text.replace(f'"{_DEEP}"'.encode(), head * DEEP + b"1" + tail * DEEP)
    text = text.replace(f'"{_LONG}"'.encode(), b"9" * 5000)
    if rng.random() < 0.05 and text.startswith(b"{") and isinstance(value, dict) and value:
        key = json.dumps(rng.choice([*value])).encode()
        text = b"{" + key + b": " + json.dumps(rng.choice(VALUES[:12])).encode() + b"," + text[1:]
    return text


def as_json(data: bytes, rng: random.Random) -> bytes:
    """A file of JSON."""
    if rng.random() < 0.1:
        return as_bytes(data, rng)
    try:
        return json_text(changed_json(json.loads(data), rng), rng)
    except (ValueError, RecursionError):  # no JSON, or too deep for Python
        return as_bytes(data, rng)


def as_json_lines(data: bytes, rng: random.Random) -> bytes:
    """A file of JSON lines."""
    if rng.random() < 0.4:
        return as_lines(data, rng)
    lines = data.split(b"\n")
    i = rng.randrange(len(lines))
    lines[i] = as_json(lines[i], rng)
    return b"\n".join(lines)


def as_safetensors(data: bytes, rng: random.Random) -> bytes:
    """A header with other fields, whose length is mostly right; or other bytes of tensors."""
    size = int.from_bytes(data[:8], "little")
    header, body = data[8 : 8 + size], data[8 + size :]
    kind = rng.randrange(10)
    if kind == 0 or size > len(data):
        return as_bytes(data, rng)
    if kind == 1:
        return data[: 8 + size] + as_bytes(body, rng)
    if kind == 2:
        body += bytes(rng.choice((1, 8, 100)))
    header = as_json(header, rng) if rng.random() < 0.9 else as_bytes(header, rng)
    return len(header).to_bytes(8, "little") + header + body


def as_state(data: bytes, rng: random.Random) -> bytes:
    """A saved state whose checksum is right for what it says of its run."""
    size = int.from_bytes(data[:8], "little")
    if rng.random() < 0.4 or size > len(data):
        return as_safetensors(data, rng)
    try:
        header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
        inner = json.loads(header["__metadata__"]["fastattn_run"])
        names = sorted((name for name in header if name != "__metadata__"), key=str)
        text = json_text(changed_json(inner, rng), rng).decode("utf-8", "surrogatepass")
        crc = zlib.crc32(text.encode("utf-8", "surrogatepass"))
        for name in names:
            start, end = header[name]["data_offsets"]
            crc = zlib.crc32(body[start:end], zlib.crc32(name.encode(), crc))
    except (ValueError, LookupError, TypeError, RecursionError, AttributeError):
        return as_safetensors(data, rng)
    header["__metadata__"] = {"fastattn_run": text, "crc32": f"{crc:08x}"}
    new = json.dumps(header).encode()
    return len(new).to_bytes(8, "little") + new + body


def as_protobuf(data: bytes, rng: random.Random, depth: int = 2) -> bytes:
    """A protocol buffer with other fields and numbers, whose lengths are right."""
    if rng.random() < 0.2:
        return as_bytes(data, rng)
    try:
        fields = [(number, value) for number, values in protobuf.message(data).items() for value in values]
    except ValueError:
        return as_bytes(data, rng)
    if not fields:
        return field(rng.randrange(1, 9), rng.choice(INTEGERS))
    i, kind = rng.randrange(len(fields)), rng.randrange(8)
    number, value = fields[i]
    if kind == 0:
        del fields[i]
    elif kind == 1:
        fields.insert(i, rng.choice(fields))
    elif kind == 2:
        fields[i] = rng.choice((1, 2, 3, 4, 5, 7, number)), value
    elif kind == 3:
        fields[i] = number, rng.choice((rng.choice(INTEGERS), b"", b"\xff", b"a" * 300))
    elif isinstance(value, int):
        fields[i] = number, rng.choice(INTEGERS)
    else:
        fields[i] = number, as_protobuf(value, rng, depth - 1) if depth else as_bytes(value, rng)
    return b"".join(_field(number, value) for number, value in fields)


def _field(number: int, value: Any) -> bytes:
    """A field. A float, which was read as its bits, stays one of four bytes."""
    if isinstance(value, int) and 0x30000000 <= value < 2**32:
        return fixed(number, value)
    return field(number, value)


def as_index(data: bytes, rng: random.Random) -> bytes:
    """The index of a TensorFlow checkpoint, with right checksums around other entries."""
    if rng.random() < 0.3:
        return as_bytes(data, rng)
    try:
        entries = sstable.read_table(data)
    except ValueError:
        return as_bytes(data, rng)
    key = rng.choice([*entries])
    value = entries.pop(key)
    if rng.random() < 0.3:
        key = as_bytes(key, rng)
    if rng.random() < 0.9:
        entries[key] = as_protobuf(value, rng)
    return table(entries)


def as_torch(data: bytes, rng: random.Random) -> bytes:
    """A file of torch.save with another pickle or another storage behind right checksums."""
    if rng.random() < 0.3:
        return as_bytes(data, rng)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
        pickle = entries.pop("data.pkl")
    except (ValueError, LookupError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return as_bytes(data, rng)
    storages = {name.removeprefix("data/"): entry for name, entry in entries.items() if name.startswith("data/")}
    if storages and rng.random() < 0.2:
        key = rng.choice([*storages])
        storages[key] = as_bytes(storages[key], rng)
    else:
        pickle = _pickle(pickle, rng)
    return torch_zip(pickle, storages)


def as_npz(data: bytes, rng: random.Random) -> bytes:
    """A file of arrays of which one has another header, other numbers or another name, behind right checksums."""
    if rng.random() < 0.2:
        return as_bytes(data, rng)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}
        names = [*entries]
        name = "special:model.yml" if rng.random() < 0.4 else rng.choice(names)
        entry, kind = entries[name], rng.randrange(8)
        end = entry.index(b"\n") + 1
    except (ValueError, LookupError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return as_bytes(data, rng)
    if kind == 0:
        del entries[name]
    elif kind == 1:
        entries[rng.choice((*names, "Wpos", "none_QuantMultA", f"{name}2"))] = entries.pop(name)
    elif kind == 2:
        entries[name] = as_bytes(entry[:end], rng) + entry[end:]
    elif kind == 3:
        number = str(rng.choice(INTEGERS)).encode()
        entries[name] = re.sub(rb"\d+(?=[,)])", number, entry[:end], count=1) + entry[end:]
    else:
        body = as_lines(entry[end:], rng) if name.startswith("special") else as_bytes(entry[end:], rng)
        head = re.sub(rb"\(\d+,?\)", b"(%d,)" % len(body), entry[:end]) if name.startswith("special") else entry[:end]
        entries[name] = head + body
    return npz(entries)


def as_ctranslate2(data: bytes, rng: random.Random) -> bytes:
    """A file of variables with other sizes, dtypes and numbers behind their names."""
    names = [found.end() for found in re.finditer(rb"[a-z_0-9/]{6,}\0", data) if found.end() + 14 <= len(data)]
    if rng.random() < 0.3 or not names:
        return as_bytes(data, rng)
    place = rng.choice(names)
    kind, found = rng.randrange(4), bytearray(data)
    if kind == 0:
        found[place - rng.randrange(1, 6)] ^= 1 << rng.randrange(8)
    elif kind == 1:
        found[place : place + 14] = as_bytes(bytes(found[place : place + 14]), rng)
    elif kind == 2:
        found[place + rng.randrange(14)] = rng.choice((0, 1, 2, 4, 5, 8, 255))
    else:
        at = place + rng.choice((0, 1, 5, 9, 10))
        found[at : at + 4] = struct.pack("<I", rng.choice(INTEGERS) & 0xFFFFFFFF)
    return bytes(found)


_OPCODES = (
    *(bytes([code]) for code in b"(}])NRbQsutae\x94\x85\x86\x880."), b"q\0", b"h\0", b"\x8a\xff" + b"\x7f" * 255,
    b"cposix\nsystem\n", b"c__builtin__\neval\n",
)  # fmt: skip


def _pickle(data: bytes, rng: random.Random) -> bytes:
    """A pickle with other opcodes."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(found) + 1)
        number = struct.pack("<I", rng.choice(INTEGERS) & 0xFFFFFFFF)
        new = rng.choice((*_OPCODES, b"J%s" % number, b"X%s" % number, varint(rng.choice(INTEGERS))))
        found[place : place + rng.choice((0, 0, 1, 5))] = new
    return as_bytes(bytes(found), rng) if rng.random() < 0.2 else bytes(found)
