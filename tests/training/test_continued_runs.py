"""Runs that are stopped, killed, or continued with something else than they were begun with."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_run
from helpers_runs import log_of
from tiny_run import Run, TinyModel

from fastattn.random import manual_seed
from fastattn.training import SGD, DamagedStateWarning, run_log, run_state
from fastattn.training.run_state import OtherRunError, read_state, saved_states, write_state

KILLS = 6


def states(folder: Path) -> list[Path]:
    return [path for _, path in saved_states(folder / "states")]


class Stop(BaseException):
    """What ends a run in these tests, anywhere in a step, and like a kill lets it save nothing."""


def stopping(run: Run, step: int) -> Callable[[Any], Any]:
    """A loss that ends the run in the middle of a step."""

    def loss(batch: Any) -> Any:
        if run.trainer.step == step:
            raise Stop
        return run.model(**batch).loss

    return loss


@pytest.mark.parametrize("averages", [False, True])
@pytest.mark.parametrize("stop", [0, 1, 5, 8, 9, 22])
def test_the_same_bits_as_a_run_that_never_stopped(tmp_path: Path, stop: int, averages: bool) -> None:
    def make(name: str, **options: Any) -> Run:
        options |= {"save_every": 3, "evaluate_every": 4, "averages": averages}
        run = Run(tmp_path / name, evaluate=lambda: run.metrics(), **options)
        return run

    whole = make("whole")
    whole.trainer.train()
    first = make("parts", loss=lambda batch: stopping(first, stop)(batch))
    with pytest.raises(Stop):
        first.trainer.train()
    second = make("parts")
    assert second.trainer.resume() == bool(stop >= 3)
    assert stop - 3 < second.trainer.step <= stop
    if second.trainer.step:
        manual_seed(12345)  # what is drawn between resume and train does not matter
    second.trainer.train()
    assert second.bits() == whole.bits()
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")
    assert second.trainer.evaluations == whole.trainer.evaluations
    ours, theirs = (read_state(states(tmp_path / name)[0])[1] for name in ("parts", "whole"))
    ours.pop("log_size")
    theirs.pop("log_size")
    assert ours == theirs


def test_a_run_with_momentum_and_accumulation_is_continued(tmp_path: Path) -> None:
    def make(folder: Path | None, **options: Any) -> Run:
        return Run(
            folder,
            optimizer=lambda params, lr: SGD(params, lr=lr, momentum=0.9),
            accumulation=3,
            save_every=folder and 1,
            batch_tokens=4,
            **options,
        )

    whole = make(None)
    whole.trainer.train()
    first = make(tmp_path, loss=lambda batch: stopping(first, 7)(batch))
    with pytest.raises(Stop):
        first.trainer.train()
    second = make(tmp_path)
    assert second.trainer.resume()
    second.trainer.train()
    assert second.bits() == whole.bits()


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("failure", [Stop(), OSError("the data are gone")], ids=["killed", "failed"])
def test_what_a_step_leaves_to_the_next_one_is_continued(
    tmp_path: Path, accumulation: int, failure: BaseException
) -> None:
    options: dict[str, Any] = {"accumulation": accumulation, "batch_tokens": 6}
    whole, without = Run(None, carry=True, **options), Run(None, **options)
    options["save_every"] = 2
    whole.trainer.train()
    without.trainer.train()
    assert whole.bits() != without.bits()
    calls = 0

    def loss(batch: Any) -> Any:
        nonlocal calls
        calls += 1
        value = first.loss(batch)
        if calls == 8:  # what is carried has changed already
            raise failure
        return value

    first = Run(tmp_path, carry=True, loss=loss, **options)
    with pytest.raises(type(failure)):
        first.trainer.train()
    second = Run(tmp_path, carry=True, **options)
    assert second.trainer.resume()
    first.trainer.train()  # the same trainer may go on, too
    assert first.bits() == whole.bits()
    for path in states(tmp_path):
        path.unlink()
    second.trainer.train()
    assert second.bits() == whole.bits()


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    first = Run(tmp_path)
    first.trainer.train()
    log = (tmp_path / "log.jsonl").read_bytes()
    second = Run(tmp_path)
    assert second.trainer.resume()
    second.trainer.train()
    assert second.bits() == first.bits()
    assert (tmp_path / "log.jsonl").read_bytes() == log


def test_a_run_that_was_killed_before_it_removed_old_states(tmp_path: Path) -> None:
    Run(tmp_path, keep=1).trainer.train()
    (last,) = states(tmp_path)
    shutil.copy(last, last.with_name("step-00000015.safetensors"))
    last.with_name(f".{last.name}.0123456789abcdef.tmp").touch()
    run = Run(tmp_path, keep=1)
    assert run.trainer.resume()
    run.trainer.train()
    assert list(last.parent.iterdir()) == [last]


def test_a_new_run_does_not_overwrite_an_old_one(tmp_path: Path) -> None:
    Run(tmp_path, epochs=1).trainer.train()
    with pytest.raises(ValueError, match="states: holds states of a run; resume it, or choose another folder"):
        Run(tmp_path, epochs=1).trainer.train()


def test_there_may_be_nothing_to_continue(tmp_path: Path) -> None:
    assert not Run(tmp_path).trainer.resume()
    assert not Run(None).trainer.resume()


@pytest.mark.parametrize("damage", ["cut", "empty", "nonsense", "8 bytes"])
def test_a_damaged_state_is_passed_over(tmp_path: Path, damage: str) -> None:
    whole = Run(tmp_path, save_every=2)
    whole.trainer.train()
    newest, older = states(tmp_path)
    data = newest.read_bytes()
    damaged = {"cut": data[:-5], "empty": b"", "nonsense": b"x" * len(data), "8 bytes": data[:-8] + b"\1" * 8}
    newest.write_bytes(damaged[damage])
    run = Run(tmp_path, save_every=2)
    with pytest.warns(DamagedStateWarning, match=f"{newest.name}: damaged.*an earlier state is looked"):
        assert run.trainer.resume()
    assert run.trainer.step == read_state(older)[1]["step"]
    run.trainer.train()
    assert run.bits() == whole.bits()
    assert read_state(newest)[1]["step"] == 23


def dangling_link(path: Path) -> None:
    path.symlink_to("missing")


def forbidden(path: Path) -> None:
    path.touch(mode=0)


@pytest.mark.parametrize("make", [Path.mkdir, dangling_link, os.mkfifo, forbidden], ids=lambda make: make.__name__)
def test_what_is_no_file_is_passed_over_and_does_not_end_the_run(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    if make is forbidden and os.geteuid() == 0:
        pytest.skip("root may read everything")
    whole = Run(tmp_path, save_every=2)
    whole.trainer.train()
    newest, older = states(tmp_path)
    newest.unlink()
    make(newest)
    run = Run(tmp_path, save_every=2, keep=1)
    with pytest.warns(DamagedStateWarning, match=f"{newest.name}: .*; an earlier state is looked for"):
        assert run.trainer.resume()
    assert run.trainer.step == read_state(older)[1]["step"]
    run.trainer.train()
    assert run.bits() == whole.bits()
    assert states(tmp_path) == [newest]
    assert read_state(newest)[1]["step"] == 23
    kept = [path for path in (tmp_path / "states").iterdir() if path != newest]
    assert [path.is_dir() for path in kept] == [True] * (make is Path.mkdir)  # somebody's folder is not removed


def test_an_error_of_the_disk_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Run(tmp_path, save_every=2).trainer.train()
    newest, older = states(tmp_path)
    read = read_state

    def failing(path: Path) -> Any:
        if path == newest:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(path)

    monkeypatch.setattr("fastattn.training.run_state.read_state", failing)
    run = Run(tmp_path, save_every=2)
    with pytest.warns(DamagedStateWarning, match=f"{newest}: Input/output error; an earlier state is looked for"):
        assert run.trainer.resume()
    assert run.trainer.step == read(older)[1]["step"]


def test_a_damaged_later_state_does_not_push_out_good_ones(tmp_path: Path) -> None:
    Run(tmp_path, save_every=2, keep=1).trainer.train()
    states(tmp_path)[0].write_bytes(b"")
    shutil.copy(states(tmp_path)[0], tmp_path / "states" / "step-00009999.safetensors")
    run = Run(tmp_path, epochs=3, keep=1)
    with (
        pytest.raises(ValueError, match=r"no saved state can be used:\n.*9999.*\n.*00023"),
        pytest.warns(DamagedStateWarning),
    ):
        run.trainer.resume()
    (tmp_path / "states" / "step-00000023.safetensors").unlink()
    (tmp_path / "states" / "step-00009999.safetensors").unlink()
    Run(tmp_path, keep=1).trainer.train()
    (tmp_path / "states" / "step-00009999.safetensors").write_bytes(b"")
    again = Run(tmp_path, epochs=3, keep=1)
    with pytest.warns(DamagedStateWarning):
        assert again.trainer.resume()
    assert again.trainer.step == 23


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 4}, r"batches\.seed is 3 there, 4 here"),
        ({"batch_tokens": 17}, r"batches\.batch_tokens is 16 there, 17 here"),
        ({"max_norm": 2.0}, r"max_norm is 1\.0 there, 2\.0 here"),
        ({"accumulation": 2}, r"accumulation is 1 there, 2 here"),
        ({"optimizer": SGD}, r'optimizer is "AdamW" there, "SGD" here; param_groups is '),
        ({"model": TinyModel(5)}, r"parameters\.scale is \[4\] there, \[5\] here"),
        ({"configuration": {"data": "b"}}, r'data is "a" there, "b" here'),
    ],
)
def test_a_state_of_something_else_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    Run(tmp_path, configuration={"data": "a"}).trainer.train()
    before = states(tmp_path)[0].read_bytes()
    run = Run(tmp_path, **{"configuration": {"data": "a"}, **options})
    with pytest.raises(
        ValueError, match=r"step-00000023\.safetensors: of another model or configuration: .*" + message
    ):
        run.trainer.resume()
    assert run.trainer.step == 0
    assert states(tmp_path)[0].read_bytes() == before


def test_another_average_is_refused(tmp_path: Path) -> None:
    Run(tmp_path, averages=True).trainer.train()
    with pytest.raises(ValueError, match=r'average is \{"decay": 0\.9\} there, null here'):
        Run(tmp_path).trainer.resume()


def test_what_decides_when_a_run_ends_is_compared(tmp_path: Path) -> None:
    def run(**options: Any) -> Run:
        return Run(tmp_path, evaluate=lambda: {"a": 1.0, "b": 2.0}, **options)

    run(patience=5, metric="a").trainer.train()
    for options, message in (
        ({"patience": 4, "metric": "a"}, r"patience\.evaluations is 5 there, 4 here"),
        ({"patience": 5, "metric": "b"}, r'patience\.metric is "a" there, "b" here'),
        ({"patience": 5, "metric": "a", "higher_is_better": False}, r"patience\.higher_is_better is true there"),
        ({"patience": 5, "metric": "a", "evaluate_every": 3}, r"patience\.evaluate_every is null there, 3 here"),
        ({"metric": "a"}, r"patience is \{.*\} there, null here"),
    ):
        with pytest.raises(ValueError, match=r"of another model or configuration: " + message):
            run(**options).trainer.resume()


def test_a_metric_that_earlier_evaluations_do_not_have(tmp_path: Path) -> None:
    Run(tmp_path, epochs=3, evaluate=lambda: {"loss": 1.0, "a": 1.0}, metric="a").trainer.train()
    run = Run(tmp_path, evaluate=lambda: {"b": 1.0}, metric="b")
    with pytest.raises(ValueError, match=r"step-.*does not fit this run: its evaluations have no 'b', only loss, a"):
        run.trainer.resume()


def test_another_rate_is_refused(tmp_path: Path) -> None:
    Run(tmp_path).trainer.train()
    with pytest.raises(ValueError, match=r"does not fit this run: Schedule: base_lrs of the state are \[0\.05\], here"):
        Run(tmp_path, lr=0.1).trainer.resume()


def test_what_does_not_change_the_bits_may_be_changed(tmp_path: Path) -> None:
    whole = Run()
    whole.trainer.train()
    first = Run(tmp_path, save_every=2, loss=lambda batch: stopping(first, 9)(batch))
    with pytest.raises(Stop):
        first.trainer.train()
    second = Run(tmp_path, save_every=5, keep=1, evaluate=lambda: {"a": 1.0}, evaluate_every=7)
    assert second.trainer.resume()
    second.trainer.train()
    assert second.bits() == whole.bits()


def test_a_full_disk_stops_the_run_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = run_state._pieces

    def pieces(tensors: Any, values: Any) -> Any:
        yield from write(tensors, values)
        if values["step"] == 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run = Run(tmp_path, save_every=2)
    with monkeypatch.context() as patch:
        patch.setattr(run_state, "_pieces", pieces)
        with pytest.raises(OSError, match="No space left on device; the state of step 8 was not saved"):
            run.trainer.train()
    assert [path.name for path in (tmp_path / "states").iterdir() if path not in states(tmp_path)] == []
    assert [read_state(path)[1]["step"] for path in states(tmp_path)] == [6, 4]
    again = Run(tmp_path, save_every=2)
    assert again.trainer.resume()
    again.trainer.train()
    whole = Run()
    whole.trainer.train()
    assert again.bits() == whole.bits()
    assert len(log_of(tmp_path)) == whole.total


def test_a_log_that_cannot_grow(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as caught:
        Run(tmp_path).trainer.train()
    assert caught.value.filename == str(tmp_path / "log.jsonl")


@pytest.mark.parametrize("size", [-1, -20, 5, 0])
def test_a_log_that_was_cut_inside_a_line(tmp_path: Path, size: int) -> None:
    """The system crashed, or somebody's editor did: the rest of the run is logged and drawn all the same."""
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    options: dict[str, Any] = {"evaluate": lambda: {"a": 1.0}, "plot": "loss.svg"}
    first = Run(tmp_path, loss=lambda batch: stopping(first, 9)(batch), **options)
    with pytest.raises(Stop):
        first.trainer.train()
    log = tmp_path / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)[:-1]  # up to the last state
    assert len(lines) == 9
    cut = b"".join(lines)[:size]
    log.write_bytes(cut)
    second = Run(tmp_path, **options)
    assert second.trainer.resume()
    second.trainer.train()
    steps = [record["step"] for record in log_of(tmp_path) if "loss" in record]
    assert steps == [*range(1, min(cut.count(b"\n"), 8) + 1), *range(9, 24)]


def test_a_line_that_is_longer_than_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.jsonl"
    monkeypatch.setattr(run_log, "BLOCK", 3)
    for data, whole in ((b"first\nsecond\nthird", 13), (b"first", 0), (b"ab\n", 3), (b"ab\ncd", 3), (b"", 0)):
        path.write_bytes(data)
        with run_log.RunLog(path, 100) as log:
            log.write({})
        assert path.read_bytes() == data[:whole] + b"{}\n"


def test_a_picture_that_cannot_be_written_does_not_end_the_run(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    (tmp_path / "loss.svg").mkdir()
    run = Run(tmp_path, epochs=1, plot="loss.svg")
    with pytest.warns(UserWarning, match=r"loss\.svg: Is a directory; it is not drawn"):
        run.trainer.train()
    assert run.trainer.finished


# Signals


def test_ctrl_c_ends_the_step_and_saves_it(tmp_path: Path, default_interrupt: None) -> None:
    def loss(batch: Any) -> Any:
        if run.trainer.step == 4:
            signal.raise_signal(signal.SIGINT)
        return run.model(**batch).loss

    run = Run(tmp_path, loss=loss)
    with pytest.raises(KeyboardInterrupt):
        run.trainer.train()
    assert run.trainer.step == 5
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    again = Run(tmp_path)
    assert again.trainer.resume()
    assert again.trainer.step == 5
    again.trainer.train()
    whole = Run()
    whole.trainer.train()
    assert again.bits() == whole.bits()


@pytest.mark.parametrize("at", [8, 23])  # the last evaluation among them
def test_ctrl_c_in_an_evaluation_ends_it_and_then_the_run(tmp_path: Path, default_interrupt: None, at: int) -> None:
    def evaluate() -> dict[str, float]:
        if run.trainer.step == at:
            signal.raise_signal(signal.SIGINT)
        return run.metrics()

    run = Run(tmp_path / "parts", evaluate=evaluate)
    with pytest.raises(KeyboardInterrupt):
        run.trainer.train()
    assert run.trainer.step == run.trainer.evaluations[-1]["step"] == at
    again = Run(tmp_path / "parts", evaluate=lambda: again.metrics())
    assert again.trainer.resume()
    again.trainer.train()
    whole = Run(tmp_path / "whole", evaluate=lambda: whole.metrics())
    whole.trainer.train()
    assert again.bits() == whole.bits()
    assert len(log_of(tmp_path / "parts")) == len(log_of(tmp_path / "whole"))


def test_ctrl_c_in_an_evaluation_that_was_left_to_do(tmp_path: Path, default_interrupt: None) -> None:
    def fail() -> dict[str, float]:
        raise Stop

    def evaluate() -> dict[str, float]:
        signal.raise_signal(signal.SIGINT)
        return {"a": 1.0}

    for function, error in ((fail, Stop), (evaluate, KeyboardInterrupt)):
        run = Run(tmp_path, evaluate=function)
        run.trainer.resume()
        with pytest.raises(error):
            run.trainer.train()
        assert run.trainer.step == 8


def test_the_second_ctrl_c_does_not_wait(tmp_path: Path, default_interrupt: None) -> None:
    def loss(batch: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("not reached")

    run = Run(tmp_path, loss=loss)
    with pytest.raises(KeyboardInterrupt):
        run.trainer.train()
    assert run.trainer.step == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_thread_may_train() -> None:
    run = Run(epochs=1)
    thread = threading.Thread(target=run.trainer.train)
    thread.start()
    thread.join()
    assert run.trainer.finished


def run_process(folder: Path, kill_after: float | None = None) -> str | None:
    """Let a process train in `folder`. Gives the bits of its end, or None when it was killed before."""
    command = [sys.executable, tiny_run.__file__, str(folder)]
    environment = {**os.environ, "FASTATTN_SLOW_SAVES": "0.002"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        if kill_after is not None:
            time.sleep(kill_after)
            process.kill()
        output = process.stdout.read()  # `communicate` would lose what came together with the first line
        errors = process.stderr.read()
        process.wait(timeout=120)
    if kill_after is not None and process.returncode == -signal.SIGKILL:
        return None
    assert process.returncode == 0, errors.decode()
    return output.decode().strip()


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """A run that is killed again and again, mostly while it saves, ends with the bits of one that was not."""
    start = time.monotonic()
    expected = run_process(tmp_path / "whole")
    length = time.monotonic() - start
    rng = random.Random(7)
    kills = runs = 0
    interrupted_saves = 0
    while kills < KILLS:
        folder = tmp_path / f"run{runs}"
        runs += 1
        end = None
        while end is None:
            limit = rng.uniform(0, length / 4) if kills < KILLS else None
            end = run_process(folder, limit)
            if end is None:
                kills += 1
                interrupted_saves += bool(list(folder.glob("states/.step-*")))
                for path in states(folder):
                    read_state(path)  # whole
        assert end == expected
        assert log_of(folder) == log_of(tmp_path / "whole")
        assert not list(folder.glob("states/.step-*"))
    print(f"{kills} kills in {runs} runs, {interrupted_saves} of them while a state was written")


def test_threads_do_not_change_the_bits(threads: int) -> None:
    run = Run(epochs=2)
    run.trainer.train()
    assert np.isfinite(run.model.scale.data).all()
    assert run.bits() == _bits_of_one_thread()


def _bits_of_one_thread() -> bytes:
    import fastattn

    before = fastattn.num_threads()
    fastattn.set_num_threads(1)
    run = Run(epochs=2)
    run.trainer.train()
    fastattn.set_num_threads(before)
    return run.bits()


@pytest.mark.parametrize(
    "change",
    [
        *({"step": "x"}, {"epoch": None}, {"batch": -1}, {"log_size": 0.5}, {"planned": []}, {"epoch_ends": 3}),
        *({"random": ...}, {"random": {"seed": 1}}, {"random": {"seed": -1, "counter": 0}}, {"random": [["a"]]}),
        *({"optimizer": []}, {"optimizer": {"state": [], "param_groups": []}}, {"schedule": None}),
        *({"evaluations": 5}, {"evaluations": [{}]}, {"evaluations": [{"step": 1, "metrics": {}}]}),
        *(
            {"evaluations": [{"step": None, "metrics": {"a": 1}}]},
            {"evaluations": [{"step": 1, "metrics": {"a": "b"}}]},
        ),
    ],
    ids=str,
)
def test_a_state_with_other_values_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    Run(tmp_path).trainer.train()
    path = saved_states(tmp_path / "states")[0][1]
    tensors, values = read_state(path)
    values |= change
    write_state(path.parent, int(path.stem[5:]), tensors, {k: v for k, v in values.items() if v is not ...})
    with pytest.raises(OtherRunError, match=f"{path}: does not fit this run"):
        Run(tmp_path).trainer.resume()


@pytest.mark.parametrize(
    "change", [{"options": 5}, {"options": []}, {"configuration": []}, {"configuration": None}], ids=str
)
def test_options_that_are_none(tmp_path: Path, change: dict[str, Any]) -> None:
    Run(tmp_path).trainer.train()
    path = saved_states(tmp_path / "states")[0][1]
    tensors, values = read_state(path)
    write_state(path.parent, int(path.stem[5:]), tensors, {**values, **change})
    if "options" in change:
        assert Run(tmp_path).trainer.resume()
    else:
        with pytest.raises(OtherRunError, match=f"{path}: of another model or configuration") as caught:
            Run(tmp_path).trainer.resume()
        assert len(str(caught.value)) < 2000
