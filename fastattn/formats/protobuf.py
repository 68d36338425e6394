"""Protocol buffers, read field by field without their descriptions. Errors say what is damaged, not in which file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["content", "integer", "message", "varint"]


def message(data: bytes) -> dict[int, list[Any]]:
    """The fields of a protocol buffer by their numbers: ints, or bytes.

    >>> message(b"\\x08\\x05\\x12\\x02ab")
    {1: [5], 2: [b'ab']}
    """
    fields: dict[int, list[Any]] = {}
    place = 0
    while place < len(data):
        tag, place = varint(data, place)
        value: int | bytes
        if tag & 7 == 0:
            value, place = varint(data, place)
        else:
            size = {1: 8, 5: 4}.get(tag & 7)
            if tag & 7 == 2:
                size, place = varint(data, place)
            if size is None or place + size > len(data):
                raise ValueError("damaged: an entry is no protocol buffer")
            value = data[place : place + size]
            place += size
            if tag & 7 != 2:
                value = int.from_bytes(value, "little")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def integer(fields: Mapping[int, list[Any]], number: int, default: int = 0) -> int:
    """The last value of a field that is an int; what is negative is large."""
    value = fields.get(number, [default])[-1]
    if not isinstance(value, int):
        raise ValueError("damaged: an entry has text for a number")
    return value


def content(fields: Mapping[int, list[Any]], number: int) -> bytes:
    """The last value of a field that is text or a message, by default empty."""
    value = fields.get(number, [b""])[-1]
    if not isinstance(value, bytes):
        raise ValueError("damaged: an entry has a number for text")
    return value


def varint(data: bytes, place: int) -> tuple[int, int]:
    """The number at a place, 7 bits a byte from the lowest, and the next place. Raises ValueError if it does not
    end."""
    number = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number & 0xFFFFFFFFFFFFFFFF, place
    raise ValueError("damaged: a number does not end")
