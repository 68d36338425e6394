"""What the commands that train share: options of a run and the check of its folder."""

from __future__ import annotations

import argparse
import errno
import os
from pathlib import Path

from fastattn.cli import positive, seed

PLOT = "loss.svg"


def add_run_arguments(parser: argparse.ArgumentParser, *, patience: str) -> None:
    """Options of every run: how it is watched, saved and continued. `patience` says what that option does."""
    parser.add_argument("--patience", type=positive, metavar="COUNT", help=patience)
    parser.add_argument("--seed", type=seed, default=0, help="of order, dropout and new weights (default: %(default)s)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --output, if there is one; whatever shapes the model must be as it was, --epochs "
        "included, and with --patience --eval, too",
    )
    parser.add_argument(
        "--save-every", type=positive, metavar="STEPS", help="save the run's state so often (default: once an epoch)"
    )
    parser.add_argument(
        "--keep",
        type=positive,
        default=1,
        help="latest states kept, beside those that the model is made of (default: %(default)s)",
    )
    parser.add_argument(
        "--plot", action=argparse.BooleanOptionalAction, default=True, help=f"draw {PLOT} (default: yes)"
    )
    parser.add_argument("--threads", type=positive, help="default: what `fastattn info` shows")
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="show a progress bar (default: when standard error is a terminal)",
    )


def check_output(folder: str, resume: bool) -> None:
    """Nothing that somebody may want to keep is overwritten: to be called before any work is done.

    Raises ValueError for a folder with a run that is not resumed, or with a model that no run in it made, and OSError
    for a file.
    """
    from fastattn.training.run_state import STATES, saved_states

    if Path(folder).exists() and not Path(folder).is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder)
    if saved_states(Path(folder, STATES)):
        if not resume:
            raise ValueError(f"{Path(folder, STATES)}: holds states of a run; resume it, or choose another folder")
        return
    for name in ("config.json", "model.safetensors"):
        if Path(folder, name).exists():
            raise ValueError(f"{folder}: holds a model ({name}), but no states of a run; choose another folder")
