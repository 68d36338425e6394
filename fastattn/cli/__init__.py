"""The command line, `fastattn COMMAND`: one file per command, and this file for what they share.

A command is a module with `SUMMARY`, `add_arguments(parser)` and `run(arguments)`, which returns the exit status. It
imports models and tokenizers in `run`, so that `--help` answers at once.
"""

from __future__ import annotations

import _thread
import argparse
import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from importlib import import_module
from typing import Any, TypeVar

from fastattn import __version__, checks, tasks
from fastattn.errors import OptionError, as_flags
from fastattn.files import standard_stream
from fastattn.lines import InputLines
from fastattn.tasks.options import Options, Usage, options

AnyOptions = TypeVar("AnyOptions", bound=Options)

COMMANDS = ("embed", "train", "predict", "evaluate", "convert", "serve", "info", "bench")

FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
BROKEN_PIPE = 141  # 128 + SIGPIPE


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="fastattn", description="BERT, ELMo and the Transformer on ordinary CPUs.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"fastattn {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in COMMANDS:
        module = import_module(f"fastattn.cli.{name}")
        command = _add_parser(commands, name, module.SUMMARY, module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def _add_parser(commands: Any, name: str, summary: str, description: str | None = None) -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=description, formatter_class=formatter, allow_abbrev=False
    )
    parser.set_defaults(parser=parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 1 for an error, 2 for wrong usage, 130 for Ctrl-C.

    What a user can cause (a missing file, a broken model, text that is not UTF-8) ends in one message on standard
    error, or in a traceback if FASTATTN_TRACEBACK is set in the environment.
    """
    arguments, unknown = build_parser().parse_known_args(argv)
    if unknown:  # argparse would print the usage of `fastattn` alone
        named = [word for word in unknown if word.startswith("-")]  # what follows may be the value of another
        arguments.parser.error(f"unrecognized arguments: {checks.listed(named or unknown, ' ')}")
    try:
        with _warnings_as_lines(arguments), _ctrl_c_is_kept():
            status: int = arguments.run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except BrokenPipeError:
        _drop_output()  # the reader, such as `| head`, has gone
        return BROKEN_PIPE
    except KeyboardInterrupt:
        _drop_output()
        print("\nfastattn: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (OSError, ValueError, ImportError, MemoryError) as error:
        if os.environ.get("FASTATTN_TRACEBACK"):
            raise
        print(f"{arguments.parser.prog}: error: {describe(error, arguments)}", file=sys.stderr)
        return FAILED


@contextlib.contextmanager
def _warnings_as_lines(arguments: argparse.Namespace) -> Iterator[None]:
    """Write each warning inside the `with` block to standard error at once, as one line."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        text = " ".join(_as_typed(str(getattr(message, "counts", message)), arguments).split())
        print(f"{arguments.parser.prog}: warning: {checks.printable(text)}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.filterwarnings("default", category=UserWarning)
        warnings.showwarning = show
        yield


@contextlib.contextmanager
def _ctrl_c_is_kept() -> Iterator[None]:
    """Interrupt again if Python has dropped a KeyboardInterrupt, as it drops any exception in the callback of a weak
    reference, such as those of imports."""
    report = sys.unraisablehook

    def hook(dropped: Any) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            threading.Timer(0.01, _thread.interrupt_main).start()  # at once, it would be raised here and dropped again
        else:
            report(dropped)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = report


def _drop_output() -> None:
    """Drop what is buffered for standard output. Flushing it at exit would fail, or wait."""
    own = sys.__stdout__
    if own is None or sys.stdout is not own:  # a file of the program that has called main()
        return
    with contextlib.suppress(OSError, ValueError):  # it may be closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), own.fileno())


def describe(error: BaseException, arguments: argparse.Namespace | None = None) -> str:
    """An exception and its notes, as the terminal may have them: an OSError without its number, a class's name for an
    empty message, and the flags of the command in the place of Python's names."""
    text = error.as_flags if isinstance(error, OptionError) else str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        name = error.filename if error.filename != "" else "''"  # a flag's value that is empty
        text = f"{name}: {error.strerror}" if name is not None else error.strerror
    elif arguments is not None:
        text = _as_typed(text, arguments)
    return checks.printable("; ".join([text, *getattr(error, "__notes__", ())]))


def _as_typed(message: str, arguments: argparse.Namespace) -> str:
    """A message of Python with the flags of the command."""
    flags = {action.dest: action.option_strings[0] for action in arguments.parser._actions if action.option_strings}
    given = {str(item) for value in vars(arguments).values() for item in _as_list(value)}  # such as a file `train`
    return as_flags(message, _owners() - given, flags)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _owners() -> set[str]:
    """The public functions, classes and methods that messages may begin with."""
    found: set[str] = set()
    for place, module in list(sys.modules.items()):
        if place.startswith(("fastattn.tasks", "fastattn.text", "fastattn.training")):
            for name, value in vars(module).items():
                if getattr(value, "__module__", None) == place:
                    found.add(name)
                    members = vars(value) if isinstance(value, type) else {}
                    found.update(verb for verb, x in members.items() if callable(getattr(x, "__wrapped__", x)))
    return {name for name in found if not name.startswith("_")}


def checked(
    convert: Callable[[str], Any], check: Callable[..., Any], *limits: Any, **more: Any
) -> Callable[[str], Any]:
    """The type of an argument, which `convert` reads and `check`, of `fastattn.checks`, accepts or refuses."""

    def parse(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            value = text  # no check of numbers accepts it
        try:
            return check("", value, *limits, **more)
        except (TypeError, ValueError) as error:
            raise argparse.ArgumentTypeError(str(error).lstrip()) from None

    return parse


positive = checked(int, checks.integer)


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add `--threads`."""
    parser.add_argument("--threads", type=positive, help="default: what `fastattn info` shows")


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add `--weights`, of one model."""
    parser.add_argument(
        "--weights",
        choices=checks.WEIGHTS,
        help="what the matrices become: fewer bits take less memory and time (default: what the model has)",
    )


def use_threads(count: int | None) -> None:
    """Apply `--threads`."""
    if count is not None:
        from fastattn import runtime

        runtime.set_num_threads(count)


def add_tasks(
    parser: argparse.ArgumentParser, has: Callable[[type[Usage]], bool]
) -> Iterator[tuple[argparse.ArgumentParser, Any]]:
    """A parser and the usage, or recipe, of each task that `has` the command. The caller sets the description."""
    commands = parser.add_subparsers(dest="task", required=True)
    for name, (_, usage_name) in tasks.TASKS.items():
        usage: type[Usage] = getattr(tasks, usage_name)
        if has(usage):
            command = _add_parser(commands, name, usage.summary)
            command.set_defaults(recipe=usage)
            yield command, usage


def add_options(
    parser: argparse.ArgumentParser,
    kind: type[Options],
    shared: type[Options] = Options,
    only: Collection[str] | None = None,
) -> None:
    """Add a flag for each option, or for `only` some. Fields of `shared`, which all tasks have, come last."""
    common = [option.name for option in options(shared)]
    for option in sorted(options(kind), key=lambda option: option.name in common):
        if only is not None and option.name not in only:
            continue
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
    """Check the options that were given."""
    return kind(**{option.name: getattr(arguments, option.name) for option in options(kind)})


@contextlib.contextmanager
def open_input(arguments: argparse.Namespace) -> Iterator[tuple[InputLines, str]]:
    """The lines of a command's input, and its name in errors."""
    name = arguments.input
    if name != "-":
        with open(name, "rb") as file:
            yield InputLines(file, name), name
        return
    explain_terminal(arguments)
    yield InputLines(standard_stream("stdin"), "standard input"), "standard input"


def explain_terminal(arguments: argparse.Namespace) -> None:
    """Tell a user whose command waits for text how to end it."""
    if sys.stdin is not None and sys.stdin.isatty():
        print(f"{arguments.parser.prog}: reading text from the terminal, end with Ctrl-D", file=sys.stderr)
