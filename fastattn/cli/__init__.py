"""The command line, `fastattn COMMAND`: one file per command, and this one for what they share.

A command is a module with `SUMMARY`, `add_arguments(parser)` and `run(arguments)`, which returns the exit
status. What a command needs (models, tokenizers) is imported in `run`, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from fastattn import __version__, checks

COMMANDS = ("embed", "finetune", "predict", "train-bilm", "train-translate", "info", "bench")

FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
BROKEN_PIPE = 141  # 128 + SIGPIPE


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="fastattn", description="BERT, ELMo and the Transformer on ordinary CPUs.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"fastattn {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = import_module(f"fastattn.cli.{name.replace('-', '_')}")
        command = commands.add_parser(
            name,
            help=module.SUMMARY,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 1 for an error, 2 for wrong usage, 130 for Ctrl-C.

    What a user can cause (a missing file, a broken model, text that is not UTF-8) ends in one message on
    stderr; with FASTATTN_TRACEBACK=1 in the environment it ends in a traceback.
    """
    arguments = build_parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        _drop_output()  # the reader (`| head`) has gone
        return BROKEN_PIPE
    except KeyboardInterrupt:
        _drop_output()
        print("\nfastattn: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (OSError, ValueError, ImportError, MemoryError) as error:
        if os.environ.get("FASTATTN_TRACEBACK"):
            raise
        print(f"fastattn {arguments.command}: error: {describe(error)}", file=sys.stderr)
        return FAILED


def _drop_output() -> None:
    """Throw away what is still buffered for standard output: flushing it at exit would fail, or wait."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def describe(error: BaseException) -> str:
    """An exception and its notes as one line: an OSError without its number, the class's name where nothing is said."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return "; ".join([text, *getattr(error, "__notes__", ())])


def checked(
    convert: Callable[[str], Any], check: Callable[..., Any], *limits: Any, **more: Any
) -> Callable[[str], Any]:
    """A type of an argument: `convert` reads it, and `check`, one of `fastattn.checks`, takes it or says why not."""

    def parse(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            value = text  # which no check of numbers takes
        try:
            return check("", value, *limits, **more)
        except (TypeError, ValueError) as error:
            raise argparse.ArgumentTypeError(str(error).lstrip()) from None

    return parse


positive = checked(int, checks.integer)
fraction = checked(float, checks.number, **checks.FRACTION)
below_one = checked(float, checks.number, **checks.PROBABILITY)
above_zero = checked(float, checks.number, **checks.POSITIVE)
seed = checked(int, checks.integer, 0, 2**64, "an integer from 0 to 2^64 - 1")


def use_threads(count: int | None) -> None:
    """Apply `--threads`."""
    if count is not None:
        from fastattn import runtime

        runtime.set_num_threads(count)
