"""What the commands that train share: options of a run, and the types of numbers."""

from __future__ import annotations

import argparse
import math
import sys

from fastattn.cli import positive

PLOT = "loss.svg"


def add_run_arguments(parser: argparse.ArgumentParser, *, patience: str) -> None:
    """Options of every run: how it is watched, saved and continued. `patience` says what that option does."""
    parser.add_argument("--patience", type=positive, metavar="EPOCHS", help=patience)
    parser.add_argument("--seed", type=seed, default=0, help="of order, dropout and new weights (default: %(default)s)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --output, if there is one; whatever shapes the result must be as it was, --epochs "
        "included",
    )
    parser.add_argument(
        "--save-every", type=positive, metavar="STEPS", help="save the run's state so often (default: once an epoch)"
    )
    parser.add_argument("--keep", type=positive, default=1, help="states kept beside the best (default: %(default)s)")
    parser.add_argument(
        "--plot", action=argparse.BooleanOptionalAction, default=True, help=f"draw {PLOT} (default: yes)"
    )
    parser.add_argument("--threads", type=positive, help="default: what `fastattn info` shows")
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="show a progress bar (default: when standard error is a terminal)",
    )


def number(text: str, low: float, high: float) -> float:
    """A number from `low` to `high`."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"must be a number from {low:g} to {high:g}, got {text!r}")
    return value


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    return number(text, 0.0, 1.0)


def above_zero(text: str) -> float:
    """A number above 0."""
    value = number(text, 0.0, sys.float_info.max)
    if value == 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text!r}")
    return value


def seed(text: str) -> int:
    """An integer from 0 to 2^64 - 1."""
    if not text.isascii() or not text.isdigit() or int(text) >= 2**64:
        raise argparse.ArgumentTypeError(f"must be an integer from 0 to 2^64 - 1, got {text!r}")
    return int(text)
