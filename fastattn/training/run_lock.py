"""A lock on the folder of a run, so that two runs cannot write there at once.

The lock is the kernel's (`flock`), on a file in the folder. The kernel releases it when the process dies, however it
dies. The file holds the number of the process, for the message. It is removed at the end; one that a killed process
left is locked again by the next run.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

LOCK = ".fastattn.lock"

_held: set[int] = set()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else holds the lock of `folder`, which is created, inside the `with` block.

    Warns, and goes on, where the file system has no locks. Raises ValueError, with the folder and the number of the
    process, if somebody else holds it, and OSError if the file cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, owner = folder / LOCK, os.getpid()
    descriptor = _take(path)
    _held.add(descriptor)
    try:
        yield
    finally:
        if os.getpid() == owner:  # a forked child holds nothing
            _held.discard(descriptor)
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(descriptor)


def _take(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ValueError(f"{path}: not a regular file, but the lock of a run belongs here")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            process = os.read(descriptor, 20).decode("ascii", "replace").strip()
            os.close(descriptor)
            who = f"process {process}" if process.isdigit() else "another process"
            message = f"{path.parent}: {who} is training here; wait until it ends, or choose another folder"
            raise ValueError(message) from None
        except OSError as error:
            message = f"{path.parent}: no locks on this file system ({error.strerror}); do not start a second run here"
            warnings.warn(message, stacklevel=5)
            return descriptor
        with contextlib.suppress(FileNotFoundError):  # who had the lock has just removed the file
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                try:
                    os.truncate(descriptor, 0)
                    os.write(descriptor, b"%d\n" % os.getpid())
                except OSError as error:  # a full disk
                    os.close(descriptor)
                    error.filename = str(path)
                    raise
                return descriptor
        os.close(descriptor)


def _close_in_child() -> None:
    """A forked child may outlive the run, and an open file would keep the lock."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)
