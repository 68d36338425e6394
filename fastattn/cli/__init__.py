"""The command line, `fastattn COMMAND`: one file per command, and this one for what they share.

A command is a module with `SUMMARY`, `add_arguments(parser)` and `run(arguments)`, which returns the exit
status. What a command needs (models, tokenizers) is imported in `run`, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any, TypeVar

from fastattn import __version__, checks, tasks
from fastattn.tasks.base import OptionError, Options, Recipe, options

AnyOptions = TypeVar("AnyOptions", bound=Options)

COMMANDS = ("embed", "train", "predict", "info", "bench")

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
        module = import_module(f"fastattn.cli.{name}")
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
    text = error.as_flags if isinstance(error, OptionError) else str(error) or type(error).__name__
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


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add `--threads`."""
    parser.add_argument("--threads", type=positive, help="default: what `fastattn info` shows")


def use_threads(count: int | None) -> None:
    """Apply `--threads`."""
    if count is not None:
        from fastattn import runtime

        runtime.set_num_threads(count)


def add_tasks(parser: argparse.ArgumentParser) -> Iterator[tuple[argparse.ArgumentParser, type[Recipe]]]:
    """A parser for each task, whose description is to be set, and its recipe."""
    commands = parser.add_subparsers(dest="task", metavar="TASK", required=True)
    for name, (_, recipe_name) in tasks.TASKS.items():
        recipe: type[Recipe] = getattr(tasks, recipe_name)
        formatter = argparse.RawDescriptionHelpFormatter
        command = commands.add_parser(name, help=recipe.summary, formatter_class=formatter, allow_abbrev=False)
        command.set_defaults(recipe=recipe)
        yield command, recipe


def add_options(parser: argparse.ArgumentParser, kind: type[Options], shared: type[Options] = Options) -> None:
    """A flag for each option; those that a task shares with all others, the fields of `shared`, come last."""
    common = [option.name for option in options(shared)]
    for option in sorted(options(kind), key=lambda option: option.name in common):
        help = option.help
        if option.default is not None and option.kind is not bool and "(default" not in help:
            help += " (default: %(default)s)"
        more: dict[str, Any] = {"choices": option.choices}
        if not option.choices:
            more = {"type": checked(option.kind, option.check)}
        if option.kind is bool:
            more = {"action": "store_true" if option.default is False else argparse.BooleanOptionalAction}
        if option.many:
            more["nargs"] = "+"
        parser.add_argument("--" + option.name.replace("_", "-"), default=option.default, help=help, **more)


def options_of(arguments: argparse.Namespace, kind: type[AnyOptions]) -> AnyOptions:
    """The options that were given, checked."""
    return kind(**{option.name: getattr(arguments, option.name) for option in options(kind)})


@contextlib.contextmanager
def open_input(path: str, command: str) -> Iterator[tuple[Iterable[bytes], str]]:
    """The lines of a file, and what errors call it; `-` is standard input."""
    if path != "-":
        with open(path, "rb") as file:
            yield file, path
        return
    if sys.stdin.isatty():
        print(f"fastattn {command}: reading text from the terminal, end with Ctrl-D", file=sys.stderr)
    yield sys.stdin.buffer, "standard input"
