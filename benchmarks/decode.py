"""Decoding with MarianMT's network, greedily and with beams: `python -m benchmarks decode`.

`MODEL-BATCHxLENGTH-greedy` and `MODEL-BATCHxLENGTH-beamN` have random weights, random sources as in models.py, and
`FORCED` tokens for each. `names-greedy` and `names-beamN` spell all Arabic names of a test file with a small network
that has learned it; a name ends where the network ends it.

Contenders are started and take turns as measure.py says. Before that, `judge` compares what they decode.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np

from . import marian, models, transformer
from .decoding import RUNTIMES, Answer, Sequences, Work
from .measure import Case, Contender, Result, Series, quartiles, say, start, take_turns
from .report import Report, Table, number, timing_report, write
from .worker import Worker

CASES = (
    "transformer-base-1x32-greedy",
    "transformer-base-1x32-beam4",
    "transformer-base-32x8to47-greedy",
    "transformer-base-32x8to47-beam4",
    "names-beam4",
)
NAMES, NAMES_MODEL, NAMES_FILE = "names", "transformer-small", "ar2en-{}.txt"
SETTINGS = {"ctranslate2": ("ctranslate2", "ctranslate2-int8")}  # rivals that compete more than once
FORCED = 64
LONGEST_NAME = 40
BATCH, BATCH_TOKENS = 128, 4096  # of names: sources for fastattn and PyTorch, padded tokens for CTranslate2
TOLERANCE = 1e-3  # of mean log-probabilities, and of the log-probabilities of two words that tie
MOST = 0.05  # of the sequences may differ in a beam search, where a tie may decide about every other word


def parse_case(name: str) -> tuple[str, int]:
    """The rest of a name and the beams: `"names-beam4"` is names with 4 beams."""
    found = re.fullmatch(r"(.+)-(?:greedy|beam([2-9]|[1-9]\d+))", name)
    if not found:
        raise SystemExit(f"unknown case {name!r}; a case ends with -greedy or with -beamN")
    return found[1], int(found[2] or 1)


def random_sources(lengths: list[int]) -> Sequences:
    """Random words, and the end of each text."""
    rng = np.random.default_rng(1)
    return [[*rng.integers(2, marian.WORDS - 1, length - 1).tolist(), 0] for length in lengths]


def prepare(name: str, options: argparse.Namespace) -> tuple[Path, Work, float | None]:
    """The folder of a case's model, its work, and the operations of this."""
    rest, beams = parse_case(name)
    if rest == NAMES:
        train, test = (options.pairs / NAMES_FILE.format(part) for part in ("train", "test"))
        if not (train.is_file() and test.is_file()):
            raise SystemExit(
                f"{options.pairs}: no {train.name} there; --pairs names the folder of the transliterations"
            )
        folder = marian.names_folder(NAMES_MODEL, train, options.cache)
        texts = importlib.import_module("fastattn.text").read_parallel(test).sources
        sources = marian.encode(texts, marian.vocabulary(folder))
        return folder, Work(sources, beams, LONGEST_NAME, False, BATCH, BATCH_TOKENS), None
    model, lengths = models.parse_case(rest)
    if model not in transformer.SIZES:
        raise SystemExit(f"unknown model {model!r}; known are {', '.join(transformer.SIZES)}")
    work = Work(random_sources(lengths), beams, FORCED, True, len(lengths), 0)
    return marian.random_folder(model, options.cache), work, flops(model, lengths, beams)


def flops(model: str, lengths: list[int], beams: int) -> float:
    """Multiplications and additions: beams share what is computed of their source."""
    source, target = np.array(lengths), np.full(len(lengths), FORCED)
    once = transformer.flops(model, marian.WORDS, source, 0 * target)
    return once + beams * (transformer.flops(model, marian.WORDS, source, target) - once)


def make_case(
    name: str,
    options: argparse.Namespace,
    folder: Path,
    work: Work,
    operations: float | None,
    ours: Sequence[str] = ("fastattn",),
) -> Case:
    """The case of this name, with everything on disk that its contenders load."""
    names = [each for rival in options.rivals for each in SETTINGS.get(rival, (rival,)) if each in RUNTIMES]
    if others := [rival for rival in options.rivals if rival not in RUNTIMES]:
        say(f"{name}: {', '.join(others)} left out: no decoder\n")
    converters = dict.fromkeys(RUNTIMES[each].runtime for each in names)
    models.convert([*converters], options.rivals_python, folder, options.cache, options.threads)
    arguments = {"folder": str(folder), "cache": str(options.cache), "threads": options.threads, "work": asdict(work)}
    entrants = [
        Contender(
            each,
            sys.executable if each in ours else options.rivals_python,
            "benchmarks.decoding:job",
            {"runtime": each, **arguments},
            RUNTIMES[each].packages,
        )
        for each in (*ours, *names)
    ]
    amount, unit = (len(work.sources) * FORCED, "tokens/s") if work.forced else (len(work.sources), "texts/s")
    return Case(name, entrants, amount, unit, TOLERANCE, operations)


def measure(case: Case, folder: Path, work: Work, threads: int, rounds: int) -> Result:
    """Compare what is decoded, then time."""
    result = Result(case.name, case.work, case.unit, case.flops, notes=case.notes)
    with ExitStack() as stack:
        workers = start(stack, case, threads, result)
        compare(workers, case, folder, work, threads, result)
        take_turns(workers, result, threads, rounds)
    return result


def compare(workers: dict[str, Worker], case: Case, folder: Path, work: Work, threads: int, result: Result) -> None:
    """Give everyone who decodes what we do a series in `result`; the others end."""
    say(f"{case.name}: comparing what is decoded")
    answers: dict[str, Answer] = {}
    for name, worker in workers.items():
        answers[name] = worker.call("ask", method="answer")
    ours = next(iter(answers.values()))
    with Worker("rating", sys.executable, threads) as worker:
        shared = {"folder": str(folder), "threads": threads, "sources": work.sources}
        for name, answer in answers.items():
            arguments = {**shared, "targets": answer["tokens"]}
            answer["rates"] = worker.call("run", function="benchmarks.decoding:rate", arguments=arguments)
            difference, note, reason = judge(answer, ours, work, RUNTIMES[name].exact)
            if reason:
                result.left_out[name] = reason
                say(f"{case.name}: {name} {reason}: not timed\n")
                workers.pop(name).close()
                continue
            result.series[name] = Series(difference)
            if note:
                result.notes[name] = note


def judge(answer: Answer, ours: Answer, work: Work, exact: bool) -> tuple[float, str, str]:
    """Whether someone decodes what we do.

    - Results have as many tokens as they are forced to have.
    - The scores that a float32 runtime says its results have are those that our network gives them.
    - Its greedy results are ours up to the first word that ties with ours. With beams, no more than `MOST` of the
      results differ, and their scores are close to those of ours. int8 decodes other results; they are counted.

    Returns the largest difference of scores, what to say of the results, and why they are wrong, or "".
    """
    tokens, rates = answer["tokens"], answer["rates"]
    lengths = {len(row) for row in tokens}
    if work.forced and lengths != {work.longest}:
        return 0.0, "", f"decodes {min(lengths)} to {max(lengths)} tokens, not {work.longest}"
    difference = float(max(abs(np.mean(own) - said) for own, said in zip(rates, answer["scores"], strict=True)))
    other = [i for i, (row, own) in enumerate(zip(tokens, ours["tokens"], strict=True)) if row != own]
    note = f"{len(other)} of {len(tokens)} results differ" if other else ""
    if not exact:
        return difference, note, ""
    if not difference <= TOLERANCE:
        return difference, note, f"scores differ by {difference:.2g}, more than {TOLERANCE:.0e}"
    if work.beams > 1:
        if len(other) > max(1, MOST * len(tokens)):
            return difference, note, note
        return difference, note, ""
    for i in other:
        first = next(j for j, (one, two) in enumerate(zip(tokens[i], ours["tokens"][i], strict=False)) if one != two)
        gap = ours["rates"][i][first] - rates[i][first]
        if abs(gap) > TOLERANCE:
            return difference, note, f"result {i} differs at word {first}, by {gap:.2g}, and is no tie"
    return difference, note, ""


def table(results: list[Result]) -> Table:
    """Milliseconds, a column for each runtime; of the rivals also the ratio to ours."""
    names = [*dict.fromkeys(name for result in results for name in result.series)]
    rows = []
    for result in results:
        ours = np.array(next(iter(result.series.values())).seconds)
        row = [result.case]
        for name in names:
            series = result.series.get(name)
            cell = f"{number(1e3 * quartiles(series.seconds)[1])}" if series else ""
            if series and name != names[0]:
                cell += f", {quartiles(np.array(series.seconds) / ours)[1]:.2f}x"
            row.append(cell)
        rows.append(row)
    return {"title": "Decoding: ms, and by what fastattn is faster", "header": ["case", *names], "rows": rows}


def main(options: argparse.Namespace) -> Report:
    results = []
    for name in options.cases or CASES:
        folder, work, operations = prepare(name, options)
        case = make_case(name, options, folder, work, operations)
        results.append(measure(case, folder, work, options.threads, options.samples))
        report = timing_report("decode", "Decoding, details", results, options.threads)
        report["tables"].insert(0, table(results))
        write(report, options.json)
    return report
