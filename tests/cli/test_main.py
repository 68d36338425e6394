"""What all commands share: usage, exit statuses, and no traceback for what a user can cause."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
from helpers_runs import press_ctrl_c
from helpers_sentences import write_model

import fastattn
from fastattn import cli, tasks
from fastattn.cli import main
from fastattn.files import open_output

COMMAND = [sys.executable, "-m", "fastattn"]


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for name in cli.COMMANDS:
        assert name in text


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "usage: fastattn " + command in capsys.readouterr().out


@pytest.mark.usefixtures("restore_runtime")
@pytest.mark.parametrize(
    "command",
    [
        "embed --model missing",
        "predict tag --model missing",
        "predict bilm --model missing",
        "train tag --model missing --train missing --output new",
    ],
)
def test_threads_are_set_before_a_model_is_loaded(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    Path("text").touch()
    text = [] if command.startswith("train") else ["text"]
    assert main([*command.split(), *text, "--threads", "7"]) == 1
    assert fastattn.num_threads() == 7


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"fastattn {fastattn.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "{embed,train,predict,evaluate,convert,serve,info,bench} ..."),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["embed"], "one of the arguments --model --elmo is required"),
        (["embed", "--model", "m", "--truncate-dim", "0"], "must be a positive integer, got 0"),
        (["embed", "--model", "m", "--threads", "two"], "must be a positive integer, got 'two'"),
        (["embed", "--mod", "m"], "one of the arguments --model --elmo is required"),
    ],
)
def test_wrong_usage_is_status_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_an_error_is_one_message(capsys):
    assert main(["embed", "--model", "m", "/no/such/file"]) == 1
    assert capsys.readouterr().err == "fastattn embed: error: /no/such/file: No such file or directory\n"
    assert main(["embed", "--model", "m", ""]) == 1
    assert capsys.readouterr().err == "fastattn embed: error: '': No such file or directory\n"


def test_an_error_sends_the_terminal_no_commands(capsys):
    assert main(["embed", "--model", "m", "/no/\x1b[31m" + "file"]) == 1
    assert capsys.readouterr().err == "fastattn embed: error: /no/\\x1b[31mfile: No such file or directory\n"
    assert len(cli.describe(ValueError("\x9b" * 10**6))) < 50_000


def test_a_traceback_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("FASTATTN_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        main(["embed", "--model", "m", "/no/such/file"])


def test_what_is_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("fastattn.cli.info.collect", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["info"])


def test_errors_that_say_nothing_are_named():
    assert cli.describe(MemoryError()) == "MemoryError"
    assert cli.describe(OSError(28, "No space left on device")) == "No space left on device"


def test_help_needs_neither_kernels_nor_models():
    code = (
        "import sys; from fastattn.cli import build_parser; build_parser().format_help();"
        "heavy = {'tokenizers', 'safetensors', 'tqdm', 'fastattn._core', 'fastattn.models', 'fastattn.training'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    pytest.importorskip("tokenizers", reason="needs the tokenizers library")
    folder = write_model(tmp_path / "model")
    text = tmp_path / "text"
    text.write_text("the cat sat\n" * 5000)
    command = [*COMMAND, "embed", "--model", str(folder), str(text)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == cli.BROKEN_PIPE


def test_ctrl_c_is_one_line_and_leaves_no_file(tmp_path):
    pytest.importorskip("tokenizers", reason="needs the tokenizers library")
    folder = write_model(tmp_path / "model")
    text = tmp_path / "text"
    text.write_text("the cat sat on the cat\n" * 300_000)
    output = tmp_path / "out" / "embeddings.jsonl"
    output.parent.mkdir()
    command = ["embed", "--model", str(folder), str(text), "-o", str(output)]
    status, _, errors = press_ctrl_c(command, lambda: any(output.parent.iterdir()))  # when it has begun to write
    assert (status, errors.strip()) == (cli.INTERRUPTED, b"fastattn: interrupted")
    assert list(output.parent.iterdir()) == []


@pytest.mark.filterwarnings("error")
def test_ctrl_c_in_a_callback_is_not_lost(monkeypatch, capsys, default_interrupt):
    class Dropped:
        def __init__(self, error):
            self.error = error

        def __del__(self):
            raise self.error

    def run(arguments):
        Dropped(ZeroDivisionError("told"))
        Dropped(KeyboardInterrupt())
        for _ in range(3000):
            time.sleep(0.01)
        return 0

    monkeypatch.setattr("fastattn.cli.info.run", run)
    told = []
    monkeypatch.setattr(sys, "unraisablehook", hook := lambda dropped: told.append(str(dropped.exc_value)))
    assert main(["info"]) == cli.INTERRUPTED
    assert capsys.readouterr().err.strip() == "fastattn: interrupted"
    assert told == ["told"]
    assert sys.unraisablehook is hook


def examples() -> list[str]:
    """The commands in the descriptions that `--help` prints."""
    texts = [import_module(f"fastattn.cli.{name}").__doc__ or "" for name in cli.COMMANDS]
    recipes = [getattr(tasks, recipe) for _, recipe in tasks.TASKS.values()]
    texts += [sys.modules[recipe.__module__].__doc__ or "" for recipe in recipes]
    return [line.strip() for text in texts for line in text.split("\n") if re.match(r"  .*\bfastattn [a-z]", line)]


def test_there_are_examples() -> None:
    assert len(examples()) >= 15


@pytest.mark.parametrize("example", examples())
def test_the_examples_of_help_can_be_typed(example: str) -> None:
    words = shlex.split(re.split(r"[|] (?=fastattn)", example)[-1].split(" > ")[0])
    assert words[0] == "fastattn"
    arguments = cli.build_parser().parse_args(words[1:])
    prog = arguments.parser.prog
    assert prog == " ".join(["fastattn", *words[1 : 1 + len(prog.split()) - 1]])


PREDICTING = [name for name, (_, recipe) in tasks.TASKS.items() if getattr(tasks, recipe).predicting]


def test_a_task_may_have_no_predict(capsys):
    assert "pretrain" not in PREDICTING
    with pytest.raises(SystemExit) as stop:
        main(["predict", "pretrain", "--model", "m"])
    assert stop.value.code == 2
    assert "invalid choice: 'pretrain'" in capsys.readouterr().err
    with pytest.raises(NotImplementedError, match="Pretrainer does not predict"):
        tasks.Pretrainer.__new__(tasks.Pretrainer).read_input([], "input", None)


@pytest.mark.parametrize("task", PREDICTING)
def test_a_command_that_waits_names_itself(task, monkeypatch, capsys):
    terminal = io.TextIOWrapper(io.BytesIO(b""))
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdin", terminal)
    assert main(["predict", task, "--model", "/nowhere"]) == 1
    first, second = capsys.readouterr().err.splitlines()[:2]
    assert first == f"fastattn predict {task}: reading text from the terminal, end with Ctrl-D"
    assert second.startswith(f"fastattn predict {task}: error: ")


@pytest.mark.parametrize("command", [["embed", "--model", "m"], *(["predict", t, "--model", "m"] for t in PREDICTING)])
def test_what_cannot_be_read_is_named(command, tmp_path, monkeypatch, capsys):
    for path, said in ((tmp_path / "no", "No such file or directory"), (tmp_path, "Is a directory")):
        assert main([*command, str(path)]) == 1
        assert f": error: {path}: {said}\n" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", None)
    assert main(command) == 1
    assert ": error: standard input: it is closed\n" in capsys.readouterr().err


def test_a_closed_output_is_named(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout", None)
    with pytest.raises(OSError, match="it is closed: 'standard output'"), open_output("-"):
        raise AssertionError("must not be reached")
    assert main(["info"]) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_is_named():
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"), open_output("/dev/full") as file:
        file.write(b"a" * 100_000)
