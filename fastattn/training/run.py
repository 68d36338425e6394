"""A whole run of a task: it trains by the task's recipe, and saves the model."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastattn.checks import counted
from fastattn.errors import OptionError
from fastattn.training.averaging import WeightAverage, average_states
from fastattn.training.callbacks import TrainerCallback
from fastattn.training.metrics import checked_metrics
from fastattn.training.model_card import describe, model_card, write_card
from fastattn.training.plot import import_matplotlib
from fastattn.training.run_lock import locked
from fastattn.training.run_state import STATES, OtherRunError, saved_states
from fastattn.training.trainer import Trainer

PLOT = "loss.svg"

logger = logging.getLogger(__name__)


def train(
    task: Any,
    data: Any,
    folder: str | os.PathLike[str],
    *,
    evaluate_on: Any = None,
    test_on: Any = None,
    resume: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    files: Mapping[str, Sequence[str | os.PathLike[str]]] | None = None,
) -> Trainer:
    """Train a task by its recipe, and save its model.

    Args:
        task: a result of `for_training`, see `fastattn.tasks.base.Task`.
        data: the data to learn, as given to `for_training`: what `task.read` returns, or takes.
        folder: where to write the model, `README.md` (its card), `log.jsonl`, `loss.svg` (with matplotlib) and the
            states of the run, `states/`. A README.md of somebody else stays.
        evaluate_on: data to measure the model on, once an epoch or as the recipe says.
        test_on: data to measure the final model on.
        resume: continue the run in `folder`, if there is one. Every option that affects the model must be the same,
            except `epochs`, see `Trainer.resume`.
        callbacks: see `TrainerCallback`. If one stops the run, the model is saved as it is then.
        files: for the model card, the files of the data: `train`, `eval` and `test`. Only their names are written.

    Returns the trainer. Its `evaluations` are the metrics in the run, and its `scores` those of the saved model, under
    "eval" and "test". `task.model` has the weights that were saved: the best ones with patience, an average if the
    recipe asks for one, the last ones otherwise.

    Raises as `check_folder`, `Trainer.resume` and `Trainer.train` do, and OptionError (a ValueError) for an option that
    needs data to evaluate on or differs from that of the run in the folder.
    """
    recipe = task.recipe
    recipe.check_data(evaluate_on is not None, True)
    check_folder(folder, resume)
    data = task.as_data("train", data, recipe)
    if evaluate_on is not None:
        task.check(evaluate_on := task.as_data("evaluate", evaluate_on, recipe))
    if test_on is not None:
        task.check(test_on := task.as_data("evaluate", test_on, recipe))
    batches, optimizer = task.batches(data), recipe.make_optimizer(task.model)
    average = recipe.make_average(task.model)
    measured = recipe.patience or (average is not None and average.needs_evaluations)
    decides = evaluate_on if measured else None  # the data that decide when the run ends, or is averaged
    trainer = Trainer(
        task.model,
        optimizer,
        recipe.make_schedule(optimizer, task.model, batches),
        batches,
        epochs=recipe.epochs,
        folder=folder,
        loss=task.loss,
        carried=task.carried,
        average=average,
        layers=recipe.unfrozen_layers(task.model),
        accumulation=batches.accumulation,
        max_norm=recipe.clipped_to,
        evaluate=None if evaluate_on is None else lambda: task.evaluate(evaluate_on),
        evaluate_every=recipe.evaluate_every,
        metric=recipe.metric,
        higher_is_better=recipe.higher_is_better,
        patience=recipe.patience,
        save_every=recipe.save_every,
        keep=recipe.keep,
        keep_epochs=recipe.averaged,
        callbacks=callbacks,
        progress=recipe.progress,
        plot=PLOT if _draws(recipe.plot) else None,
        configuration={
            **task.configuration(data),
            **recipe.settings,
            "eval_crc32": None if decides is None else task.checksum(decides),
        },
        options=asdict(recipe),
    )
    with trainer.locked():
        try:
            resumed = resume and trainer.resume()
        except OtherRunError as error:
            recipe.check_options(error.options)  # the options say more than the state
            raise
        if resumed:
            logger.info("continuing after step %d", trainer.step)
            if len(trainer.planned) > 1 and trainer.planned[-1][0] == trainer.step:
                before, now = trainer.planned[-2][1], counted(trainer.epochs, "epoch")
                told = "%s now, in place of %d: the learning rate is that of %s from step %d on"
                logger.info(told, now, before, now, trainer.step + 1)
            if evaluate_on is None and trainer.evaluations:
                told = "nothing is measured from here on: no data to evaluate on; the last evaluation was after step %d"
                logger.info(told, trainer.evaluations[-1]["step"])
        trainer.train()
        weights = _load_weights(task, trainer, average, folder)
        task.save_pretrained(folder)
        if evaluate_on is not None and (metrics := _metrics_of_weights(task, trainer, evaluate_on)):
            trainer.scores["eval"] = metrics
        if test_on is not None:
            trainer.scores["test"] = checked_metrics(task.evaluate(test_on))
        found = [(name, x) for name, x in (("train", data), ("eval", evaluate_on), ("test", test_on)) if x is not None]
        described = [describe(task, name, each, (files or {}).get(name, ())) for name, each in found]
        write_card(folder, model_card(task, folder, trainer, described, trainer.scores, weights))
    return trainer


def _draws(plot: bool | None) -> bool:
    """Whether a run draws its log: None says yes if matplotlib is installed."""
    if plot is not None:
        return plot
    try:
        import_matplotlib()
    except ImportError as error:
        logger.info("%s is not drawn: %s", PLOT, error)
        return False
    return True


def _load_weights(task: Any, trainer: Trainer, average: WeightAverage | None, folder: str | os.PathLike[str]) -> str:
    """Load the weights to save, and say what they are."""
    recipe = task.recipe
    if recipe.patience and (step := trainer.load_best()) is not None:
        return f"those of the best evaluation, after step {step:,}"
    if average is not None and (averages := average.state_dict()):
        task.model.load_state_dict(averages)
        return str(average)
    if recipe.averaged > 1 and trainer.epoch:  # a callback may have stopped the run before
        task.model.load_state_dict(average_states(folder, recipe.averaged, trainer.step))
        return f"the mean of those at the ends of the last {counted(min(recipe.averaged, trainer.epoch), 'epoch')}"
    return "those of the last step"


def _metrics_of_weights(task: Any, trainer: Trainer, data: Any) -> Mapping[str, float | None] | None:
    """The metrics of the saved weights: an evaluation in the run, or one of the mean; None if none belongs to them."""
    if task.recipe.averaged > 1 and trainer.epoch:
        return checked_metrics(task.evaluate(data))
    entries = [trainer.best] if task.recipe.patience and trainer.best else trainer.evaluations[-1:]
    found: list[Mapping[str, float | None]] = [
        entry["metrics"] for entry in entries if task.recipe.patience or entry["step"] == trainer.step
    ]
    return found[0] if found else None


def check_folder(folder: str | os.PathLike[str], resume: bool = False) -> None:
    """Check, before any work is done, that a run will overwrite nothing that somebody may want to keep.

    Args:
        folder: where the run will write.
        resume: whether a run in the folder will go on.

    Raises ValueError for a folder with a run that is not resumed or goes on in another process, or with a model but no
    run, and OSError for a file and a folder that cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if states := saved_states(folder / STATES):
        if not resume:
            told = "{}: holds a run, saved after step {}; {resume} continues it, or choose another {output}"
            raise OptionError(told, folder, states[0][0])
    else:
        for name in ("config.json", "model.safetensors"):
            if (folder / name).exists():
                raise ValueError(f"{folder}: holds a model ({name}), but no states of a run; choose another folder")
    if folder.exists():
        with locked(folder):  # `train` takes the lock; this says at once that somebody else has it
            pass
