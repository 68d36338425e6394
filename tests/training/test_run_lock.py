"""Two runs in one folder are noticed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_run
from helpers import no_hang
from tiny_run import Run

from fastattn.training import check_folder, run_lock
from fastattn.training.run_lock import LOCK, locked

HOLD = """
import os, sys
from pathlib import Path
from fastattn.training.run_lock import locked
with locked(Path(sys.argv[1])):
    child = os.fork() if sys.argv[2:] else None
    if child == 0:
        print(os.getpid(), flush=True)
    elif child is None:
        print(os.getpid(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{process.pid}\n"
        yield process
        process.kill()


def test_a_second_run_is_refused(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    message = f"{tmp_path}: process {holder.pid} is training here; wait until it ends, or choose another folder"
    with pytest.raises(ValueError, match=message):
        Run(tmp_path).trainer.train()
    for resume in (False, True):
        with pytest.raises(ValueError, match=message):
            check_folder(tmp_path, resume)
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    holder.kill()
    holder.wait()
    Run(tmp_path).trainer.train()  # the kernel has released it
    assert not (tmp_path / LOCK).exists()
    again = Run(tmp_path)
    with locked(tmp_path):
        assert again.trainer.resume()
        with pytest.raises(ValueError, match=f"{tmp_path}: process {os.getpid()} is training here"):
            again.trainer.train()
    again.trainer.train()


def test_two_trainers_of_one_process(tmp_path: Path) -> None:
    first, second = Run(tmp_path), Run(tmp_path)
    with first.trainer.locked():
        with pytest.raises(ValueError, match="is training here"), second.trainer.locked():
            raise AssertionError("must not be reached")
        first.trainer.train()  # its own lock


def test_a_run_that_another_one_has_overtaken(tmp_path: Path) -> None:
    Run(tmp_path, epochs=1).trainer.train()
    behind, ahead = (Run(tmp_path, epochs=1) for _ in range(2))
    assert behind.trainer.resume()
    (tmp_path / "states" / "step-00000012.safetensors").touch()
    with pytest.raises(ValueError, match=r"step-00000012\.safetensors: another run wrote this since `resume`"):
        behind.trainer.train()
    with pytest.warns(UserWarning, match="00000012"):
        assert ahead.trainer.resume()
    ahead.trainer.train()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_outlives_the_run_does_not_hold_the_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", HOLD, str(tmp_path), "fork"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        with pytest.raises(ValueError, match=f"process {process.pid} is training here"), locked(tmp_path):
            raise AssertionError("must not be reached")
        process.kill()
        process.wait()
        os.kill(child, 0)  # it lives
        with locked(tmp_path):
            assert process.stdin is not None
            process.stdin.close()  # it ends, and what it inherited with it
            assert process.stdout.read() == ""
            assert (tmp_path / LOCK).read_text() == f"{os.getpid()}\n"


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(run_lock.fcntl, "flock", no_locks)
    run = Run(tmp_path)
    with pytest.warns(UserWarning, match=f"{tmp_path}: no locks on this file system"):
        run.trainer.train()
    assert run.trainer.finished


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("old")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(victim)
    with pytest.raises(OSError, match=LOCK):
        Run(tmp_path / "run").trainer.train()
    assert victim.read_text() == "old"


def test_many_runs_that_begin_at_once(tmp_path: Path) -> None:
    """All but one are refused, or find that it has finished."""
    command = [sys.executable, tiny_run.__file__, str(tmp_path)]
    environment = {**os.environ, "FASTATTN_SLOW_SAVES": "0.002"}
    runs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) for _ in range(4)
    ]
    results = [(*run.communicate(timeout=120), run.returncode) for run in runs]
    whole = Run(None, carry=True, averages=True)
    whole.trainer.train()
    bits = whole.bits().hex().encode()
    for output, errors, status in results:
        refused = (b"is training here", b"another run wrote this since `resume`", b"resume it")
        assert bits in output if status == 0 else any(reason in errors for reason in refused)
    assert any(status == 0 for *_, status in results)
    assert not (tmp_path / LOCK).exists()


def test_a_pipe_in_the_place_of_the_lock_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / LOCK)
    with no_hang(), pytest.raises(ValueError, match=f"{tmp_path / LOCK}: not a regular file"):
        Run(tmp_path).trainer.train()


def test_a_full_disk_is_named_and_holds_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(run_lock.os, "write", full)
        with pytest.raises(OSError, match="No space left on device") as caught, locked(tmp_path):
            raise AssertionError("must not be reached")
    assert caught.value.filename == str(tmp_path / LOCK)
    with locked(tmp_path):
        assert (tmp_path / LOCK).exists()
