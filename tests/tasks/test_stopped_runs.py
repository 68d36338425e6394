"""A callback stops the run of a task: the model is saved as it is, and the run goes on with the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_runs import weights
from helpers_train import SENTENCES, conllu, files_of, pairs, tsv, write

from fastattn.tasks import Tagger, Translator
from fastattn.training import TrainerCallback, train


class Stopping(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, trainer: Any, record: Any) -> None:
        if trainer.step == self.step:
            trainer.stop()


def run(task: str, files: Path, folder: Path, *callbacks: TrainerCallback) -> Any:
    if task == "tag":
        data: Any = Tagger.read(write(files / "train.conllu", conllu(SENTENCES * 2)))
        made: Any = Tagger.for_training(files / "model", data, batch_size=4, epochs=2, plot=False)
    else:
        data = Translator.read(write(files / "train.tsv", tsv(pairs(0, 30))))
        options = {
            "d_model": 16,
            "layers": 1,
            "heads": 2,
            "ffn_dim": 32,
            "batch_tokens": 100,
            "vocabulary": "characters",
        }
        made = Translator.for_training("small", data, epochs=4, average=2, plot=False, **options)
    return train(made, data, folder, evaluate_on=data, resume=True, callbacks=callbacks)


@pytest.mark.parametrize("task", ["tag", "translate"])
@pytest.mark.parametrize("step", [1, 3, 5])  # also before the first epoch that an average could take
def test_a_stopped_run_goes_on(task: str, step: int, tmp_path: Path) -> None:
    files_of("tag", tmp_path)
    run(task, tmp_path, tmp_path / "whole")
    stopped = run(task, tmp_path, tmp_path / "parts", Stopping(step))
    assert stopped.step == step
    kind: Any = {"tag": Tagger, "translate": Translator}[task]
    kind.from_pretrained(tmp_path / "parts")
    assert f" (steps: {step}, epochs: " in (tmp_path / "parts" / "README.md").read_text(encoding="utf-8")
    assert run(task, tmp_path, tmp_path / "parts").finished
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    ours, theirs = ((tmp_path / name / "README.md").read_bytes() for name in ("parts", "whole"))
    assert ours == theirs
