"""The opcodes of a pickle that torch.save writes for a dict of tensors, without Python's `pickle`.

A pickle is a program: it may import any module and call anything there. This reader knows a few names, which its
caller gives, and makes dicts, lists, tuples, strings and numbers itself. A file that names anything else is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from fastattn.checks import printable, shown

__all__ = ["Machine"]

MAX_PICKLE = 2**24
"""Bytes of all pickles of a file. Those of 50,000 tensors have some 8 MB."""
MAX_OPCODES = 2**22
"""Opcodes of all pickles of a file. Each makes one object at most; a tensor has some 40."""

_MARK = object()


class Machine:
    """Reads pickles from a file, one after another.

    `names` maps what a pickle may call, such as "collections.OrderedDict", to a function that is called instead with
    the arguments as a tuple, or to a value that is no function. `persistent` turns a persistent id into an object.
    Errors are ValueErrors without the file's name. Keys of dicts are strings: nothing that a file makes is hashed, and
    nothing of any depth is compared.
    """

    def __init__(self, file: BinaryIO, names: Mapping[str, Any], persistent: Callable[[Any], Any]) -> None:
        self._file = file
        self._names = names
        self._persistent = persistent
        self._left = MAX_PICKLE
        self._opcodes = MAX_OPCODES

    def load(self) -> Any:
        """The object of the next pickle."""
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        while (code := self._read(1)) != b".":
            self._opcodes -= 1
            if self._opcodes < 0:
                raise ValueError(f"a pickle of more than {MAX_OPCODES} steps")
            run = _OPCODES.get(code)
            if run is None:
                raise ValueError(f"opcode 0x{code.hex()} of its pickle is none that torch.save writes")
            run(self)
        return self._pop()

    def _read(self, size: int) -> bytes:
        self._left -= size
        if self._left < 0:
            raise ValueError(f"a pickle of more than {MAX_PICKLE} bytes")
        data = self._file.read(size)
        if len(data) < size:
            raise ValueError("cut short: its pickle does not end")
        return data

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._read(struct.calcsize(form)))[0]

    def _text(self, size: int) -> str:
        try:
            return self._read(size).decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"damaged: a text in its pickle is not UTF-8: {error}") from None

    def _line(self) -> str:
        line = self._file.readline(1000)
        self._left -= len(line)
        if not line.endswith(b"\n"):
            raise ValueError("damaged: a name in its pickle does not end")
        return line[:-1].decode("utf-8", "replace")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise ValueError("damaged: its pickle takes more than it made")
        return self._stack.pop()

    def _to_mark(self) -> list[Any]:
        """What was pushed since the last mark."""
        items = []
        while self._stack and self._stack[-1] is not _MARK:
            items.append(self._stack.pop())
        if not self._stack:
            raise ValueError("damaged: its pickle has no mark")
        self._stack.pop()
        return items[::-1]

    def _put(self, number: int) -> None:
        value = self._pop()
        self._memo[number] = value
        self._push(value)

    def _get(self, number: int) -> None:
        if number not in self._memo:
            raise ValueError("damaged: its pickle names an object that it did not make")
        self._push(self._memo[number])

    def _take(self, kind: type) -> Any:
        """The object on top, which stays there."""
        value = self._pop()
        if type(value) is not kind:
            raise ValueError(f"damaged: its pickle takes {shown(value)} for a {kind.__name__}")
        self._push(value)
        return value

    def _protocol(self) -> None:
        if (number := self._read(1)[0]) not in range(2, 6):
            raise ValueError(f"a pickle of protocol {number}; 2 to 5 are read")

    def _frame(self) -> None:
        """How many bytes follow, which a reader of a file need not know."""
        self._read(8)

    def _name(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if full not in self._names:
            raise ValueError(f"refused: the file calls {printable(full, 200)}")
        self._push(self._names[full])

    def _name_of_stack(self) -> None:
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str:
            raise ValueError("damaged: its pickle has a name that is no text")
        self._name(module, name)

    def _call(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not callable(function) or type(arguments) is not tuple:
            raise ValueError(f"damaged: its pickle calls {shown(function)}")
        self._push(function(arguments))

    def _set_state(self) -> None:
        """Attributes of an OrderedDict, such as the `_metadata` of a state_dict, which say nothing of tensors."""
        self._pop()
        self._take(dict)

    def _set_items(self, items: list[Any]) -> None:
        target = self._take(dict)
        if len(items) % 2:
            raise ValueError("damaged: its pickle has a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str:
                raise ValueError(f"has the key {shown(key)}; the tensors of a model have names")
            target[key] = value

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _append(self) -> None:
        value = self._pop()
        self._take(list).append(value)

    def _extend(self) -> None:
        items = self._to_mark()
        self._take(list).extend(items)

    def _tuple(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self._push(tuple(items[::-1]))


_OPCODES: dict[bytes, Callable[[Machine], None]] = {
    b"\x80": Machine._protocol,
    b"\x95": Machine._frame,
    b"(": lambda m: m._push(_MARK),
    b"}": lambda m: m._push({}),
    b"]": lambda m: m._push([]),
    b")": lambda m: m._push(()),
    b"N": lambda m: m._push(None),
    b"\x88": lambda m: m._push(True),
    b"\x89": lambda m: m._push(False),
    b"J": lambda m: m._push(m._number("<i")),
    b"K": lambda m: m._push(m._number("<B")),
    b"M": lambda m: m._push(m._number("<H")),
    b"G": lambda m: m._push(m._number(">d")),
    b"\x8a": lambda m: m._push(int.from_bytes(m._read(m._number("<B")), "little", signed=True)),
    b"X": lambda m: m._push(m._text(m._number("<I"))),
    b"\x8c": lambda m: m._push(m._text(m._number("<B"))),
    b"q": lambda m: m._put(m._number("<B")),
    b"r": lambda m: m._put(m._number("<I")),
    b"\x94": lambda m: m._put(len(m._memo)),
    b"h": lambda m: m._get(m._number("<B")),
    b"j": lambda m: m._get(m._number("<I")),
    b"\x85": lambda m: m._tuple(1),
    b"\x86": lambda m: m._tuple(2),
    b"\x87": lambda m: m._tuple(3),
    b"t": lambda m: m._push(tuple(m._to_mark())),
    b"a": Machine._append,
    b"e": Machine._extend,
    b"s": Machine._set_item,
    b"u": lambda m: m._set_items(m._to_mark()),
    b"c": lambda m: m._name(m._line(), m._line()),
    b"\x93": Machine._name_of_stack,
    b"Q": lambda m: m._push(m._persistent(m._pop())),
    b"R": Machine._call,
    b"b": Machine._set_state,
}
