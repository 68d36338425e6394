"""The model card: what it says, that the Hub can read it, and that nothing of somebody else is overwritten."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tiny_run import Run

import fastattn
from fastattn.training import model_card as cards
from fastattn.training.model_card import CARD, MARK, DataSet, describe, model_card, write_card


@dataclass
class Recipe:
    pipeline_tag: str | None = "text-classification"
    summary = "classify texts"
    epochs: int = 3
    vocabulary: str | None = None
    plot: bool = True


class Task:
    base_model = "some/model"

    def __init__(self, run: Run, **options: Any) -> None:
        self.model, self.recipe = run.model, Recipe(**options)

    def checksum(self, data: Any) -> int:
        return int(data.crc32)


DATA = [DataSet("train", ["a.tsv", "b|c: d.tsv"], 1200, "0000abcd"), DataSet("eval", ["#e'\".tsv"], 7, "01234567")]


def card_of(folder: Path, scores: dict[str, Any] | None = None, **options: Any) -> str:
    run = Run(folder / "run", evaluate=lambda: {"f1": 0.5, "rare": 1e-7})
    run.trainer.train()
    scores = {"eval": {"f1": 0.5, "rare": 1e-7, "undefined": None}} if scores is None else scores
    return model_card(Task(run, **options), folder, run.trainer, DATA, scores, "those of the last step")


def front_matter(text: str) -> Any:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    begin, head, _ = text.split("---\n", 2)
    assert begin == ""
    return yaml.safe_load(head)


def test_the_front_matter(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert front_matter(card_of(tmp_path)) == {
        "library_name": "fastattn",
        "pipeline_tag": "text-classification",
        "base_model": "some/model",
        "tags": ["fastattn", "bert"],
        "model-index": [
            {
                "name": "Task",
                "results": [
                    {
                        "task": {"type": "text-classification"},
                        "dataset": {"type": "#e'\".tsv", "name": "#e'\".tsv", "split": "validation"},
                        "metrics": [{"type": "f1", "value": 0.5}, {"type": "rare", "value": 1e-7}],
                    }
                ],
            }
        ],
    }


def test_without_scores_and_names(tmp_path: Path) -> None:
    found = front_matter(card_of(tmp_path, {}, pipeline_tag=None))
    assert found == {"library_name": "fastattn", "base_model": "some/model", "tags": ["fastattn"]}


def test_the_hub_reads_it(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="needs huggingface_hub")
    write_card(tmp_path, card_of(tmp_path))
    data = hub.ModelCard.load(tmp_path / CARD).data
    assert data.model_name == "Task"
    (first, second) = data.eval_results
    assert (first.task_type, first.dataset_split, first.metric_type, first.metric_value) == (
        "text-classification",
        "validation",
        "f1",
        0.5,
    )
    assert second.metric_value == 1e-7


def test_the_page(tmp_path: Path) -> None:
    text = card_of(tmp_path, epochs=5, vocabulary="/home/somebody/words.txt", plot=False)
    for line in (
        MARK,
        "Classify texts. The model has 5 parameters and starts from `some/model`. It was trained with fastattn "
        f"{fastattn.__version__} (steps: 23, epochs: 3). Its weights are those of the last step.",
        "| train | a.tsv, b\\|c: d.tsv | 1200 | 0000abcd |",
        "| eval | 0.5 | 1e-07 |  |",
        "| 2 | 16 | 0.5 | 1e-07 |",
        "| `epochs` | 5 | 3 |",
        "| `vocabulary` | words.txt |  |",
        "| `epochs` | 5 |",
    ):
        assert line in text.splitlines()
    assert "somebody" not in text
    assert str(tmp_path) not in text
    assert "plot" not in text  # says nothing of the model


@pytest.mark.parametrize(
    ("before", "told"),
    [
        (1, "1 epoch from step 1 on, 4 epochs from step 9 on"),
        (3, "3 epochs from step 1 on, 4 epochs from step 24 on"),
    ],
)
def test_a_run_of_two_lengths(before: int, told: str, tmp_path: Path) -> None:
    Run(tmp_path, epochs=before).trainer.train()
    run = Run(tmp_path, epochs=4)
    run.trainer.resume()
    run.trainer.train()
    assert f"The run was resumed with another length: {told}." in model_card(
        Task(run), tmp_path, run.trainer, [], {}, ""
    )


def test_data_are_named_without_their_folders() -> None:
    class Text:
        files, crc32 = ("/a/b/c.txt",), -1

        def __len__(self) -> int:
            return 3

    task: Any = Task(Run())
    assert describe(task, "train", Text(), ()) == ("train", ["c.txt"], 3, "ffffffff")
    assert describe(task, "train", Text(), [Path("/x/y.tsv"), "z.tsv"]).files == ["y.tsv", "z.tsv"]
    assert describe(task, "test", iter(()), ()) == ("test", [], None, None)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_text("My notes."),
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: path.symlink_to("nowhere"),
        Path.mkdir,
        os.mkfifo,
    ],
)
def test_a_page_of_somebody_else_stays(tmp_path: Path, make: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "fastattn")
    make(tmp_path / CARD)
    before = os.lstat(tmp_path / CARD)
    write_card(tmp_path, f"{MARK}\nnew")
    after = os.lstat(tmp_path / CARD)
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    assert caplog.messages == [f"{tmp_path / CARD} is not of a run, and stays as it is; no model card is written"]


def test_a_page_of_a_run_is_written_anew(tmp_path: Path) -> None:
    for text in (f"{MARK}\nold", f"{MARK}\nnew"):
        write_card(tmp_path, text)
        assert (tmp_path / CARD).read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == [CARD]


def test_a_full_disk_keeps_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_card(tmp_path, f"{MARK}\nold")

    def full(path: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cards.Path, "write_text", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_card(tmp_path, f"{MARK}\nnew")
    assert caught.value.filename == str(tmp_path / CARD)
    assert (tmp_path / CARD).read_text() == f"{MARK}\nold"
    assert [path.name for path in tmp_path.iterdir()] == [CARD]
