"""What the kernels run on: the instruction set, the number of threads, and the reasons for both.

The instruction set is the best one that both this build and this processor support, unless `FASTATTN_ISA` names
another. The number of threads is the smallest of the physical cores, the processor affinity and the control group
quota, unless `FASTATTN_NUM_THREADS` or, failing that, `OMP_NUM_THREADS` sets it. Both belong to the process: all
threads that call kernels share them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from fastattn import _core
from fastattn.checks import integer

__all__ = [
    "available_isas",
    "build_info",
    "counters",
    "dot_product",
    "empty_cache",
    "isa",
    "isa_reason",
    "num_threads",
    "set_num_threads",
    "threads_reason",
    "use_isa",
]


def isa() -> str:
    """The instruction set in use: "generic", "avx2", "avx512" or "neon"."""
    return _core.isa()


def isa_reason() -> str:
    """Why `isa()` is in use."""
    return _core.isa_reason()


def available_isas() -> list[str]:
    """The instruction sets that this build and this processor both support, worst first."""
    return _core.available_isas()


def use_isa(name: str) -> AbstractContextManager[None]:
    """Use the kernels of one instruction set from now on, or within a `with` block.

    The choice applies to the process, not to the thread. Raises TypeError if `name` is not a str, ValueError if it is
    not in `available_isas()`.

    >>> import fastattn
    >>> before = fastattn.isa()
    >>> with fastattn.use_isa("generic"):
    ...     fastattn.isa()
    'generic'
    >>> fastattn.isa() == before
    True
    """
    before = _core.isa()
    _core.use_isa(name)
    return _restore(before)


@contextmanager
def _restore(isa: str) -> Iterator[None]:
    try:
        yield
    finally:
        _core.use_isa(isa)


def dot_product() -> str | None:
    """The processor's instruction for products of bytes that int8 weights use: "AVX512-VNNI", "dotprod" or None.

    It makes them faster. The integers are the same without it.
    """
    return _core.dot_product() if _core.isa() in ("avx512", "neon") else None


def num_threads() -> int:
    """The number of threads that all kernel calls of the process together may use."""
    return _core.num_threads()


def threads_reason() -> str:
    """What decided `num_threads()`."""
    return _core.num_threads_reason()


def set_num_threads(n: int) -> None:
    """Let all kernel calls of the process together use n threads. Results do not depend on it.

    Raises TypeError if n is not an integer, ValueError if it is less than 1 or more than 65536.
    """
    _core.set_num_threads(integer("set_num_threads: n", n, 1, 2**16 + 1, "an integer from 1 to 65536"))


def build_info() -> dict[str, Any]:
    """How this copy was built: `version`, `compiler`, `isas` (compiled in) and `openmp` (without it, OMP_PLACES and
    OMP_PROC_BIND have no effect)."""
    from fastattn import __version__

    info = _core.build_info()
    return {"version": __version__, **info, "compiler": info["compiler"].strip()}  # Clang's own ends with a space


def counters() -> dict[str, int]:
    """What all kernel calls of the process have counted so far. `fastattn.profile()` has more.

    - `locks_given_up`: how often kernels gave up the interpreter's lock, once for a call or a pass.
    - `workers_woken`: how often a caller woke sleeping workers.
    - `waits`: how often a caller waited for pieces of work that workers had begun.

    >>> import numpy as np
    >>> from fastattn import kernels
    >>> before = counters()
    >>> _ = kernels.gelu(np.ones(3, np.float32))
    >>> counters()["locks_given_up"] - before["locks_given_up"]
    1
    """
    return _core.counters()


def empty_cache() -> None:
    """Return to the system the memory that training and kernels keep for their next step.

    The first `backward()` of a process turns the cache on. From then on, the memory of a kernel's large results is
    reused after they are freed, since the system has to clear fresh memory. Cached and used memory together hardly
    exceed the peak of used memory. Inference alone caches no results.

    A thread that has called kernels also keeps a few megabytes of scratch memory. The memory of this thread and of idle
    workers is returned at once, another caller's when it next needs some.

    On Linux with glibc, what malloc keeps of freed memory is returned, too: some megabytes if there were many threads.

    >>> import fastattn
    >>> fastattn.empty_cache()
    """
    _core.empty_memory()
