"""CRC-32C, the checksum of TensorFlow's files, over arrays: Python's zlib has another polynomial.

A message is a polynomial over two numbers, its checksum a remainder. Two halves can be added (xor) once the first is
moved over the second (multiplied by a power of x), so a long message is folded onto its last words, a row at a time.

Source: RFC 3720, appendix B.4 (the polynomial).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["crc32c", "masked"]

_POLYNOMIAL = 0x82F63B78  # bits in reversed order
_ROW = 14
"""A row has 2^14 words of 4 bytes: it stays in the cache."""


def crc32c(data: Any, before: int = 0) -> int:
    """The checksum of bytes or of a contiguous array, which follow bytes with the checksum `before`.

    >>> hex(crc32c(b"123456789")), crc32c(b"6789", crc32c(b"12345")) == crc32c(b"123456789")
    ('0xe3069283', True)
    """
    flat = np.frombuffer(data, np.uint8)
    state = before ^ 0xFFFFFFFF
    count = len(flat) // 4
    if count >= 256:
        words = flat[: 4 * count].view("<u4")
        row = min(_ROW, count.bit_length() - 1)
        first = count % (1 << row)
        rest = _fold(words[first:].reshape(-1, 1 << row), words[:first], state)
        flat, state = np.concatenate([rest.view(np.uint8), flat[4 * count :]]), 0
    table = _byte_table()
    for byte in flat.tolist():
        state = table[(state ^ byte) & 255] ^ state >> 8
    return state ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """A checksum as TensorFlow stores it, because that of data with their own checksum would be a constant."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _fold(rows: NDArray[np.uint32], before: NDArray[np.uint32], state: int) -> NDArray[np.uint32]:
    """At most 16 words with the same remainder as `before` and `rows`, with `state` added to the first word."""
    count = rows.shape[1]
    total = np.zeros(count, np.uint32)
    total[count - len(before) :] = before
    total[(count - len(before)) % count] ^= np.uint32(state)
    start = 0
    if not len(before):  # then the first row is what the others are added to
        total ^= rows[0]
        start = 1
    for row in rows[start:]:
        total = _move(total, count.bit_length() - 1) ^ row
    while count > 16:
        count //= 2
        total = _move(total[:count], count.bit_length() - 1) ^ total[count:]
    return total


def _move(words: NDArray[np.uint32], power: int) -> NDArray[np.uint32]:
    """What words become that are moved by 2^power words."""
    first, second, third, fourth = _tables(power)
    moved: NDArray[np.uint32] = first[words & 255]
    moved ^= second[words >> 8 & 255]
    moved ^= third[words >> 16 & 255]
    moved ^= fourth[words >> 24]
    return moved


@functools.cache
def _byte_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


@functools.cache
def _bits(power: int) -> list[int]:
    """Where a move by 2^power words takes each bit of a word."""
    if power == 0:
        table, bits = _byte_table(), [1 << i for i in range(32)]
        for _ in range(4):
            bits = [table[bit & 255] ^ bit >> 8 for bit in bits]
        return bits
    half = _bits(power - 1)
    return [_xor(half, bit) for bit in half]


def _xor(bits: list[int], word: int) -> int:
    found = 0
    for i in range(32):
        found ^= bits[i] if word >> i & 1 else 0
    return found


@functools.cache
def _tables(power: int) -> list[NDArray[np.uint32]]:
    """Where a move by 2^power words takes each value of each byte of a word."""
    bits = _bits(power)
    return [np.array([_xor(bits, value << 8 * i) for value in range(256)], np.uint32) for i in range(4)]
