"""The tool that compares instruction sets: what it records is the whole of a call, and a difference is found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import kernel_bits
import numpy as np
import pytest
from helpers import LAYOUTS, place
from kernel_bits import digest, recorded, write

from fastattn.kernels import PackedMatrix


def test_the_digest_sees_every_part() -> None:
    x = np.arange(6, dtype=np.float32)
    values = [
        x, x + 1, x.reshape(2, 3), x.astype(np.float64), x[:5], [x], (x, x), PackedMatrix(x.reshape(2, 3)),
        PackedMatrix(x.reshape(2, 3), groups=2), None, 0, 0.0, False, "0", x * 0, -x * 0,
    ]  # fmt: skip
    assert len({digest(value) for value in values}) == len(values)
    assert digest(np.stack([x, x], 1)[:, 0]) == digest(x)
    assert digest(np.float32([np.nan])) == digest(np.float32([-np.nan]))
    assert digest(np.float32([np.nan])) != digest(np.float32([np.inf]))


def test_what_cannot_be_read_is_not_recorded() -> None:
    stretched = np.lib.stride_tricks.as_strided(place(np.ones((2, 4), np.float32), "end"), (9000, 4), (16, 4))
    calls: set[str] = set()
    assert recorded("first", lambda x: x[0, 0], calls)(stretched) == 1
    assert calls == set()
    for layout in LAYOUTS:
        recorded("first", lambda x: x[0, 0], calls)(place(np.ones((2, 4), np.float32), layout))
    assert len(calls) == 1


def test_what_is_written_into_an_argument_is_recorded() -> None:
    calls: set[str] = set()
    for step in (1, 2):
        recorded("add", lambda x, step=step: x.__iadd__(step) is None, calls)(np.zeros(3, np.float32))
    assert len(calls) == 2
    assert len({call.split()[2] for call in calls}) == 1


def test_a_worker_that_is_killed_at_its_exit_has_written_its_calls(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("import os\ndef pytest_unconfigure(): os._exit(0)")
    (tmp_path / "test_one.py").write_text(
        "import numpy, fastattn.kernels\ndef test(): fastattn.kernels.softmax(numpy.ones((1, 4), numpy.float32))"
    )
    command = [sys.executable, "-m", "pytest", "-p", "kernel_bits", "--kernel-bits", "bits", "test_one.py"]
    path = os.pathsep.join([str(Path(kernel_bits.__file__).parent), *sys.path])
    run = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=300
    )
    written = tmp_path / "bits" / "main.txt"
    assert written.exists(), run.stdout + run.stderr
    assert written.read_text().split()[1] == "softmax"


@pytest.mark.parametrize(
    ("there", "may_differ", "status", "failed"),
    [
        (["softmax a 1", "linear b 2"], [], 0, []),
        (["softmax a 2", "linear b 2"], [], 1, ["softmax"]),
        (["softmax a 2", "linear b 2"], ["softmax"], 0, []),
        (["softmax a 2", "linear b 3"], ["softmax"], 1, ["linear"]),
        (["softmax a 1", "softmax a 2", "linear b 2"], [], 1, ["softmax"]),
        (["softmax a 1", "softmax c 1"], [], 0, []),
        (["softmax c 1"], [], 1, []),
        ([], [], 1, []),
    ],
)
def test_differences_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: list[str], may_differ: list[str], status: int,
    failed: list[str], capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write(tmp_path / "here" / "gw0.txt", {"avx2 softmax a 1", "generic softmax a 3"})
    write(tmp_path / "here" / "gw1.txt", {"avx2 linear b 2", "generic linear c 4"})
    write(tmp_path / "there" / "gw0.txt", {f"neon {call}" for call in there})
    sides = [f"{tmp_path}/here:avx2", f"{tmp_path}/there:neon"]
    monkeypatch.setattr(sys, "argv", ["kernel_bits.py", *sides, "--but", *may_differ])
    assert kernel_bits.main() == status
    assert capsys.readouterr().out.splitlines()[-1].split(" failed")[1].split() == failed
