"""Messages on the command line: flags and files, never Python's names; usage of the subcommand; warnings in a line."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_sentences import write_bert
from helpers_tasks import PREDICTED, TRIALS, taking
from helpers_train import classes, command, error_of, files_of, write

from fastattn import cli
from fastattn.cli import main
from fastattn.errors import OptionError, as_flags


@pytest.mark.parametrize(
    ("task", "more", "message"),
    [
        ("classify", ["--max-length", "33"], "--max-length is 33, but the model has 32 positions"),
        ("classify", ["--max-length", "3"], "--max-length must be more than the 3 special tokens, got 3"),
        ("embed", ["--matryoshka", "99"], "--matryoshka must be from 1 to 16, got 99"),
        ("pretrain", ["--vocab-size", "3"], "--vocab-size must be at least"),
        ("pretrain", ["--heads", "3"], "--hidden-size must be a multiple of --heads, got "),
        ("translate", ["--heads", "3"], "--d-model must be a multiple of --heads, got "),
        (
            "classify",
            ["--columns", "a", "b", "c.tsv"],
            "--columns takes one or two names, got 'a', 'b', 'c.tsv'; the file stands before it",
        ),
        ("tag", ["--scheme", "IOB2"], "--scheme IOB2 is for tags of entities"),
        ("answer", ["--max-length", "40"], "--max-length is 40, but the model has 32 positions"),
    ],
)
def test_options_are_flags(task: str, more: list[str], message: str, tmp_path: Path, capsys) -> None:
    files = files_of(task, tmp_path)
    if task == "classify":  # pairs have three special tokens
        rows = "".join(f"a\tb\t{label}\n" for label in "xy")
        files = {**files, "--train": write(tmp_path / "pairs.tsv", "sentence1\tsentence2\tlabel\n" + rows)}
        files.pop("--eval")
    assert error_of(command(task, files, *more), capsys).startswith(message)


def test_functions_are_not_named(tmp_path: Path, capsys) -> None:
    files = files_of("classify", tmp_path)
    write(Path(files["--eval"]), "text\tlabel\nquery\tother\n")
    error = error_of(command("classify", files), capsys)
    assert error.startswith(f"{files['--eval']}:2: the label 'other' is none of ")
    write(Path(files["--train"]), "text\tlabel\nquery\tother\n")
    assert error_of(command("classify", files), capsys) == "--train must have two classes or more, got ['other']"
    files = files_of("rerank", tmp_path)
    write(Path(files["--train"]), "text\tlabel\nquery\t1\n")
    told = f"--train must be pairs, got single texts in {files['--train']}:2"
    assert error_of(command("rerank", files), capsys) == told
    files = files_of("tag", tmp_path)
    write(Path(files["--train"]), "1\tcat\t_\tX" + "\t_" * 6 + "\n")
    told = "the column UPOS must have two labels or more in --train, got ['X']"
    assert error_of(command("tag", files), capsys) == told


def test_masked_words_alone_are_told_by_their_flag(tmp_path: Path, capsys) -> None:
    files = files_of("pretrain", tmp_path)
    one = write(tmp_path / "one.txt", "a b\nc d\n")
    told = f"{one}: next sentences need two documents or more, there is one; --no-next-sentence learns masked words"
    assert error_of(command("pretrain", {**files, "train": one}), capsys) == told


def test_a_file_may_have_the_name_of_a_function(tmp_path: Path, capsys, monkeypatch) -> None:
    files = files_of("classify", tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("encode").write_text("text\tlabel\n", encoding="utf-8")
    assert error_of(command("classify", {**files, "--train": "encode"}, "--format", "tsv"), capsys) == (
        "encode: there are no rows"
    )


def test_one_rule_writes_flags() -> None:
    error = OptionError("{max_length} is {}, more than {eval} allows", "{resume}")
    assert str(error) == "max_length is {resume}, more than evaluate_on allows"
    assert error.as_flags == "--max-length is {resume}, more than --eval allows"
    error = OptionError("with {no_next_sentence}")
    assert (str(error), error.as_flags) == ("with next_sentence=False", "with --no-next-sentence")
    flags = {"stride": "--stride"}
    assert as_flags("entities: stride must be 1", {"entities"}, flags) == "--stride must be 1"
    assert as_flags("f:1: entities: texts must be 1", {"entities"}, flags) == "f:1: texts must be 1"
    assert as_flags("f:1: the entities: stride", {"entities"}, flags) == "f:1: the entities: stride"


@pytest.mark.parametrize(
    ("words", "prog"),
    [
        (["train", "tag", "--model", "m", "--train", "t", "--output", "o", "--epoch", "3"], "fastattn train tag"),
        (["predict", "fill", "--model", "m", "--nbest", "3"], "fastattn predict fill"),
        (["embed", "--model", "m", "--normalise"], "fastattn embed"),
        (["predict", "embed", "--model", "m", "s.tsv", "--nbest", "3"], "fastattn predict embed"),
    ],
)
def test_an_unknown_option_shows_the_usage_of_its_command(words: list[str], prog: str, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"usage: {prog} [-h]")
    option = next(word for word in words if word in ("--epoch", "--nbest", "--normalise"))
    assert f"{prog}: error: unrecognized arguments: {option}\n" in error


def test_warnings_are_lines(tmp_path: Path, capsys, monkeypatch) -> None:
    files = files_of("classify", tmp_path)
    from fastattn.tasks import Classifier

    read = Classifier.read.__func__  # type: ignore[attr-defined]

    def noisy(cls, *paths, **options):
        warnings.warn("two\nlines", stacklevel=2)
        return read(cls, *paths, **options)

    monkeypatch.setattr(Classifier, "read", classmethod(noisy))
    assert main(command("classify", files, "--epochs", "1")) == 0
    error = capsys.readouterr().err
    assert re.search("(?m)^fastattn train classify: warning: two lines$", error)
    assert "UserWarning" not in error


@pytest.mark.parametrize(  # a reranker may have several scores, but they sort nothing
    ("head", "task"),
    [
        (head, task)
        for head, model in (("classifier", "three classes"), ("bert", "plain"))
        for task in sorted(PREDICTED - taking(model) | ({"rerank"} if head == "classifier" else set()))
    ],
)
def test_another_head_is_refused_with_its_folder(task: str, head: str, tmp_path: Path, capsys) -> None:
    from fastattn.tasks import Classifier

    folder = write_bert(tmp_path / "bert")
    if head == "classifier":
        path = write(tmp_path / "train.tsv", classes(["cat sat", "query", "a b c"]))
        Classifier.for_training(folder, Classifier.read(path)).save_pretrained(tmp_path / "classifier")
        folder = tmp_path / "classifier"
    name, text = TRIALS[task].source
    assert main(["predict", task, "--model", str(folder), write(tmp_path / name, text)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"fastattn predict {task}: error: {folder}")


def test_describe_without_a_command() -> None:
    assert cli.describe(ValueError("encode: texts must be str")) == "encode: texts must be str"
