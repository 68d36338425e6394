"""Compares instruction sets, processors and compilers bit by bit. As a plugin of pytest, it writes down every call:

    PYTHONPATH=tests python -m pytest -p kernel_bits --kernel-bits here tests/kernels

A line is an instruction set, a kernel, a hash of its arguments and one of its results. On its own, it compares: calls
whose arguments have the same bits on both sides must have the same results.

    python tests/kernel_bits.py here:avx2 there:neon --but softmax layer_norm
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

TOO_LARGE = 1 << 24  # bytes: hashing would take longer than the test
CALLS: set[str] = set()  # of this process


def parts(value: Any) -> Iterator[bytes]:
    """What makes up an argument or a result; a NaN is a NaN, whatever its sign."""
    import numpy as np

    from fastattn.kernels import PackedMatrix

    if isinstance(value, list | tuple):
        yield f"{len(value)} of".encode()
        for item in value:
            yield from parts(item)
    elif isinstance(value, PackedMatrix):
        yield f"packed {value.groups}".encode()
        yield from parts(value.unpack())
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype} {value.shape}".encode()
        if value.nbytes > TOO_LARGE or not within_its_memory(value):
            raise OverflowError
        plain = np.ascontiguousarray(value)
        yield (np.where(np.isnan(plain), np.float32(np.nan), plain) if plain.dtype == np.float32 else plain).tobytes()
    elif value is None or isinstance(value, bool | int | float | str | np.generic):
        yield repr(value).encode()
    else:
        yield type(value).__name__.encode()


def within_its_memory(array: Any) -> bool:
    """Not one that a test has stretched over memory that cannot be read."""
    import numpy as np

    def end(of: Any) -> int:
        return of.ctypes.data + sum((n - 1) * abs(stride) for n, stride in zip(of.shape, of.strides, strict=True))

    owner, base = array, array
    while (base := getattr(base, "base", None)) is not None:
        owner = base if isinstance(base, np.ndarray) else owner
    return array.size == 0 or end(array) <= end(owner)


def digest(value: Any) -> str:
    sha = hashlib.sha256()
    for part in parts(value):
        sha.update(part)
    return sha.hexdigest()[:20]


def recorded(name: str, function: Callable[..., Any], calls: set[str]) -> Callable[..., Any]:
    """The kernel, which writes its calls down. What it writes into an argument is a result, too."""
    from fastattn import isa

    def call(*arguments: Any) -> Any:
        key = None
        with contextlib.suppress(OverflowError):
            key = digest(arguments)
        result = function(*arguments)
        if key is not None:
            with contextlib.suppress(OverflowError):
                calls.add(f"{isa()} {name} {key} {digest((result, arguments))}")
        return result

    return call


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kernel-bits", help="the folder for the calls")


def pytest_configure(config: pytest.Config) -> None:
    from fastattn import _core, kernels

    for kernel in set(kernels.__all__) & set(dir(_core)) - {"PackedMatrix"}:
        setattr(_core, kernel, recorded(kernel, getattr(_core, kernel), CALLS))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Not later: pytest-xdist waits for the end of a worker's session, and then kills it if its exit takes long."""
    name = f"{getattr(session.config, 'workerinput', {}).get('workerid', 'main')}.txt"
    write(Path(session.config.getoption("--kernel-bits")) / name, CALLS)


def write(path: Path, calls: set[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{call}\n" for call in sorted(calls)), encoding="utf-8")


def read(side: str) -> dict[str, dict[str, set[str]]]:
    """The results of each kernel and arguments. What the hash does not see, such as a reserve, makes more than one."""
    folder, isa = side.split(":")
    kernels: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path in Path(folder).glob("*.txt"):
        for line in path.read_text(encoding="utf-8").splitlines():
            set_, kernel, arguments, results = line.split()
            if set_ == isa:
                kernels[kernel][arguments].add(results)
    return kernels


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("here", help="folder:isa")
    parser.add_argument("there", help="folder:isa")
    parser.add_argument("--but", nargs="*", default=[], metavar="KERNEL", help="whose bits may differ")
    args = parser.parse_args()
    here, there = read(args.here), read(args.there)
    compared, failed = 0, []
    for kernel in sorted({*here, *there}):
        both = here[kernel].keys() & there[kernel].keys()
        equal = sum(here[kernel][key] == there[kernel][key] for key in both)
        apart = len(here[kernel].keys() ^ there[kernel].keys())
        if kernel not in args.but:
            compared += len(both)
            failed += [kernel] * (equal < len(both))
        print(f"{kernel:40} {equal:6} of {len(both):6} calls equal, {apart:6} on one side only")
    print(f"{args.here} and {args.there}: {compared} calls must be equal, {len(failed)} kernels failed", *failed)
    return bool(failed or not compared)


if __name__ == "__main__":
    sys.exit(main())
