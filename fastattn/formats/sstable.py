"""A sorted table of keys and values: LevelDB's format, as TensorFlow writes the index of a checkpoint.

Blocks of entries, a block that lists them, and a footer; a checksum behind each block. Source: the description of
LevelDB's table format (doc/table_format.md).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from fastattn.checks import shown
from fastattn.formats.crc32c import crc32c, masked
from fastattn.formats.protobuf import varint

__all__ = ["read_table"]

MAX_ENTRIES = 200_000
MAX_KEY = 2048
"""Bytes. A key says how much of the key before it begins with, so that few bytes of a file could make long keys."""

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_TRAILER = 5  # a byte for the compression, and the checksum


def read_table(data: bytes) -> dict[bytes, bytes]:
    """The values of a table by key, in order. Raises ValueError for anything that does not fit."""
    if len(data) < _FOOTER or struct.unpack("<Q", data[-8:])[0] != _MAGIC:
        raise ValueError("cut short, or no index of a TensorFlow checkpoint: its last bytes are others")
    footer, place = data[-_FOOTER:-8], 0
    handles = []
    for _ in range(4):  # place and size of a block that is not used, and of the list of blocks
        number, place = varint(footer, place)
        handles.append(number)
    table: dict[bytes, bytes] = {}
    last, end = None, 0
    for _, handle in _entries(_block(data, handles[2], handles[3])):
        start, place = varint(handle, 0)
        size, _ = varint(handle, place)
        if start < end:
            raise ValueError(f"damaged: the block at {start} begins before {end}, where the one before it ends")
        end = start + size + _TRAILER
        for key, value in _entries(_block(data, start, size)):
            if last is not None and key <= last:
                raise ValueError(f"damaged: key {shown(key)} is not behind {shown(last)}")
            table[key] = value
            last = key
            if len(table) > MAX_ENTRIES:
                raise ValueError(f"more than {MAX_ENTRIES} entries")
    return table


def _block(data: bytes, start: int, size: int) -> bytes:
    end = start + size
    if end + _TRAILER > len(data) - _FOOTER:
        raise ValueError(f"damaged, or cut short: a block of {size} bytes at {start} does not fit the file")
    block, kind, stored = data[start : end + 1], data[end], int.from_bytes(data[end + 1 : end + _TRAILER], "little")
    if masked(crc32c(block)) != stored:
        raise ValueError(f"damaged: the block at {start} has another checksum than it was written with")
    if kind:
        raise ValueError(f"the block at {start} is compressed; TensorFlow does not compress an index")
    return block[:-1]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The entries of a block. Each begins with so many bytes of the key before it; the list of those that do not is for
    searching."""
    count = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (count + 1)
    if end < 0:
        raise ValueError("damaged: a block has fewer bytes than it says")
    key, place = b"", 0
    while place < end:
        shared, place = varint(block, place)
        own, place = varint(block, place)
        size, place = varint(block, place)
        if shared > len(key) or place + own + size > end or shared + own > MAX_KEY:
            raise ValueError(f"damaged: the entry behind key {shown(key)} does not fit its block")
        key = key[:shared] + block[place : place + own]
        yield key, block[place + own : place + own + size]
        place += own + size
