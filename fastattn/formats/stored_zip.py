"""The entries of a zip file as PyTorch and Marian write it: each stored as it is, with its CRC-32.

Python's zipfile also inflates, and reads a directory of any size. Here every byte of the file belongs to one entry at
most, so nothing becomes larger than the file.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO

from fastattn.checks import shown
from fastattn.files import is_inside

__all__ = ["SIGNATURE", "Entry", "check_crc", "read_entries"]

SIGNATURE = b"PK\3\4"
MAX_DIRECTORY = 2**24
"""Bytes of the directory. That of 50,000 tensors has some 4 MB."""

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_FULL = 0xFFFFFFFF
_PIECE = 1 << 22


@dataclass(frozen=True)
class Entry:
    """The place of an entry's bytes in the file."""

    name: str
    header: int
    start: int
    size: int
    crc: int


def read_entries(file: FileIO) -> dict[str, Entry]:
    """The entries by name. Raises ValueError, without the file's name, for a directory that does not fit the file, and
    for entries that are compressed, overlap or have the name of another file."""
    count, size, begin = _directory(file)
    directory = os.pread(file.fileno(), size, begin)
    if len(directory) < size:
        raise ValueError("cut short: the directory of the zip file is missing")
    entries: dict[str, Entry] = {}
    place = 0
    for _ in range(count):
        entry, place = _entry(file, directory, place, begin)
        if entries.setdefault(entry.name, entry) is not entry:
            raise ValueError(f"entry {shown(entry.name)} is there twice")
    if place != size:
        raise ValueError(f"the zip file's directory of {count} entries has {size} bytes instead of {place}")
    end, before = 0, ""
    for entry in sorted(entries.values(), key=lambda entry: entry.header):
        if entry.header < end:
            raise ValueError(f"entries {shown(before)} and {shown(entry.name)} overlap")
        end, before = entry.start + entry.size, entry.name
    return entries


def _directory(file: FileIO) -> tuple[int, int, int]:
    """The number of entries, the size of the directory and its place."""
    length = os.fstat(file.fileno()).st_size
    place = length - _END.size
    end = os.pread(file.fileno(), _END.size, max(place, 0))
    if len(end) < _END.size or not end.startswith(b"PK\5\6"):
        raise ValueError("cut short, or damaged: the zip file does not end with its directory")
    _, *disks, count, size, begin, comment = _END.unpack(end)
    locator = os.pread(file.fileno(), _LOCATOR.size, max(place - _LOCATOR.size, 0))
    if len(locator) == _LOCATOR.size and locator.startswith(b"PK\6\7"):
        place = _LOCATOR.unpack(locator)[2]
        end = os.pread(file.fileno(), _END64.size, place) if place < length else b""
        if len(end) < _END64.size or not end.startswith(b"PK\6\6"):
            raise ValueError("damaged: the end of the zip file points elsewhere")
        *_, count, size, begin = _END64.unpack(end)
    if any(disks[:2]) or comment or begin + size > place:
        raise ValueError("damaged: the zip file's directory does not fit the file")
    if size > MAX_DIRECTORY or count > size // _CENTRAL.size:
        raise ValueError(f"a directory of {count} entries in {size} bytes; at most {MAX_DIRECTORY} bytes are read")
    return count, size, begin


def _entry(file: FileIO, directory: bytes, place: int, end: int) -> tuple[Entry, int]:
    """The entry at a place of the directory, which begins at `end` in the file, and the next place."""
    head = directory[place : place + _CENTRAL.size]
    if len(head) < _CENTRAL.size or not head.startswith(b"PK\1\2"):
        raise ValueError("damaged: the zip file's directory does not list its entries")
    fields = _CENTRAL.unpack(head)
    flags, method, crc = fields[3], fields[4], fields[7]
    packed, size, named, extra, comment, header = *fields[8:13], fields[16]
    place += _CENTRAL.size
    raw = directory[place : place + named]
    name = _name(raw)
    if header == _FULL or size == _FULL or packed == _FULL:
        more = directory[place + named : place + named + extra]
        size, packed, header = _wide(name, more, size, packed, header)
    if flags & 1 or method or packed != size:
        how = "encrypted" if flags & 1 else "compressed"
        raise ValueError(f"entry {shown(name)} is {how}; only entries that are stored as they are can be read")
    local = os.pread(file.fileno(), _LOCAL.size + named, header) if header < end else b""
    if len(local) < _LOCAL.size + named or not local.startswith(SIGNATURE) or local[_LOCAL.size :] != raw:
        raise ValueError(f"damaged: entry {shown(name)} is not where the zip file's directory says")
    *_, local_named, local_extra = _LOCAL.unpack(local[: _LOCAL.size])
    start = header + _LOCAL.size + local_named + local_extra
    if local_named != named or start + size > end:
        raise ValueError(f"entry {shown(name)} of {size} bytes at {start} does not fit the file")
    return Entry(name, header, start, size, crc), place + named + extra + comment


def _name(raw: bytes) -> str:
    name = raw.decode("utf-8", "replace")
    if not name or "�" in name or "\\" in name or not is_inside(name):
        raise ValueError(f"refused: an entry has the name {shown(name)}")
    return name


def _wide(name: str, extra: bytes, size: int, packed: int, header: int) -> tuple[int, int, int]:
    """The 64-bit values of those fields that are too large for 32 bits."""
    place = 0
    while place + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, place)
        if kind == 1 and place + 4 + length <= len(extra):
            values = [*struct.unpack_from(f"<{length // 8}Q", extra, place + 4)]
            fields = [size, packed, header]
            if len(values) >= fields.count(_FULL):
                size, packed, header = (values.pop(0) if field == _FULL else field for field in fields)
                return size, packed, header
        place += 4 + length
    raise ValueError(f"damaged: the size of entry {shown(name)} is missing")


def pieces(file: FileIO, entry: Entry) -> Iterator[bytes]:
    """The bytes of an entry, up to 4 MiB at a time."""
    for place in range(0, entry.size, _PIECE):
        yield os.pread(file.fileno(), min(_PIECE, entry.size - place), entry.start + place)


def check_crc(file: FileIO, entry: Entry) -> None:
    """Raise ValueError unless the bytes of an entry have its checksum."""
    crc = 0
    for piece in pieces(file, entry):
        crc = zlib.crc32(piece, crc)
    if crc != entry.crc:
        raise ValueError(f"damaged: entry {shown(entry.name)} has the checksum {crc:08x} instead of {entry.crc:08x}")
