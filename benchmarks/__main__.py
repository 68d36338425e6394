"""`python -m benchmarks COMMAND`: the command line of the benchmarks."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

from .rivals import RUNTIMES
from .weights import default_cache

DATA = Path(os.environ.get("FASTATTN_DATA") or "../shared/data")
SENTENCES = {
    "encode": DATA / "stsb/stsb-en-test.csv",
    "precision": DATA / "stsb/stsb-en-test.csv",
    "serve": DATA / "stsb/stsb-en-test.csv",
    "train": DATA / "ud_ewt/en_ewt-ud-dev.conllu",
    "recurrent": DATA / "ud_ewt/en_ewt-ud-dev.conllu",
}


RIVALS = [name for name in RUNTIMES if not name.startswith("fastattn")]


def rival_names(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in RIVALS:
            known = ", ".join(sorted(RIVALS))
            raise argparse.ArgumentTypeError(f"unknown rival {name!r}; known are {known}")
    return names


def names_of(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def seeds(text: str) -> list[int]:
    return [int(number) for number in names_of(text)]


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    about = {
        "models": ("encoders of every family against other runtimes", 15),
        "kernels": ("single kernels against NumPy and PyTorch", 15),
        "neighbours": ("models and training steps beside busy processes or a Python thread", 10),
        "service": ("requests a second of gunicorn beside busy processes", 5),
        "serve": ("HTTP servers: requests a second, times, memory", 3),
        "encode": ("sentences to embeddings, tokenising included", 5),
        "precision": ("weights of fewer bits against the int8 of other runtimes, quality beside speed", 5),
        "train": ("training steps against PyTorch", 9),
        "decode": ("translations word by word, greedily and with beams", 5),
        "recurrent": ("LSTM and GRU layers, a CRF, ELMo, training steps of a tagger and an AWD-LSTM", 9),
        "translation": ("whole runs of a Transformer against PyTorch, half an hour each", 3),
        "perplexity": ("whole runs of an AWD-LSTM against PyTorch, a quarter of an hour each", 3),
        "tasks": ("whole runs of BERT's tasks against PyTorch, three quarters of an hour", 3),
        "ulmfit": ("what each ingredient of ULMFiT adds, three quarters of an hour", 3),
        "features": ("what a frozen model adds to a tagger of LSTMs, an hour", 3),
        "memory": ("resident memory, import time, time by tokens", 7),
        "coldstart": ("from a new process to the first embedding: time and memory", 15),
    }
    rivals = "of " + ", ".join(RIVALS)
    for name, (description, samples) in about.items():
        command = commands.add_parser(name, help=description, description=description)
        command.add_argument("--rivals", type=rival_names, default=[], metavar="NAME,...", help=rivals)
        command.add_argument(
            "--rivals-python", default=sys.executable, metavar="PATH", help="the Python that has the rivals"
        )
        command.add_argument("--threads", type=positive, help="default: what fastattn.num_threads() says")
        command.add_argument("--samples", type=positive, default=samples, help="rounds (default: %(default)s)")
        command.add_argument("--json", type=Path, metavar="FILE", help="write samples, machine and tables")
        command.add_argument("--markdown", action="store_true", help="tables as benchmarks/README.md has them")
        command.add_argument("--cache", type=Path, default=default_cache(), help="default: %(default)s")
        if name not in ("encode", "translation", "service", "serve"):
            command.add_argument("--cases", type=names_of, default=[], metavar="NAME,...", help="default: all")
        if name in ("neighbours", "service"):
            command.add_argument(
                "--conditions", type=names_of, default=[], metavar="NAME,...", help="quiet, processesN, thread"
            )
        if name in SENTENCES:
            command.add_argument("--sentences", type=Path, default=SENTENCES[name], help="default: %(default)s")
        if name in ("train", "translation", "decode"):
            command.add_argument("--pairs", type=Path, default=DATA / "transliteration", help="default: %(default)s")
        if name in ("tasks", "features"):
            command.add_argument("--data", type=Path, default=DATA, help="default: %(default)s")
        if name == "features":
            command.add_argument("--bilm", metavar="FOLDER", help="default: trained, and kept in --cache")
        if name == "tasks":
            command.add_argument("--epochs", type=positive, help="of each run (default: those of the case)")
            command.add_argument(
                "--runtimes", type=names_of, metavar="NAME,...", help="of fastattn, torch, torch-grouped"
            )
        if name in ("tasks", "perplexity", "features"):
            command.add_argument("--seeds", type=seeds, metavar="N,...", help="default: 0 to --samples - 1")
        if name == "ulmfit":
            command.add_argument("--data", type=Path, default=DATA, help="default: %(default)s")
            command.add_argument("--seeds", type=seeds, metavar="N,...", help="default: 0 to --samples - 1")
            command.add_argument("--held-out", action="store_true", help="measure a quarter of what is learnt")
        if name == "coldstart":
            for package, short in (("fastembed", "fastembed"), ("sentence-transformers", "st")):
                command.add_argument(f"--{short}-python", metavar="PATH", help=f"the Python that has {package}")
            command.add_argument("--drop-caches", action="store_true", help="also from the disk; takes root")
        if name == "perplexity":
            command.add_argument("--data", type=Path, default=DATA / "wikitext2", help="default: %(default)s")
        if name in ("translation", "perplexity"):
            epochs = 40 if name == "translation" else 15
            command.add_argument("--epochs", type=positive, default=epochs, help="default: %(default)s")
    command = commands.add_parser("show", help="print the tables of a JSON file again")
    command.add_argument("file", type=Path)
    command.add_argument("--markdown", action="store_true")
    return top


def main() -> None:
    report = importlib.import_module("benchmarks.report")
    options = parser().parse_args()
    if options.command == "show":
        report.show(json.loads(options.file.read_text()), options.markdown)
        return
    if options.threads is None:
        options.threads = importlib.import_module("fastattn").num_threads()
    options.cache = options.cache.resolve()
    options.cache.mkdir(parents=True, exist_ok=True)
    report.show(importlib.import_module(f"benchmarks.{options.command}").main(options), options.markdown)


if __name__ == "__main__":
    main()
