"""Memory that stays: `python tests/steady.py` prints, for each part, resident memory after a warm-up and later.

Each part runs in a process of its own: 50,000 mixed calls of kernels and of models of all families, right and wrong
ones, from several threads; 200 models loaded and dropped; 1,000 generated batches; 2,000 training steps. After each
tenth it calls `fastattn.empty_cache()` and measures resident memory, and the objects and the blocks of memory of
Python. What malloc held of freed memory has a column of its own. glibc has one arena of memory here: with one for each
thread, what they keep of freed memory comes and goes by some MB, and would hide what is lost. `--share` does a part of
each. More than 2 MB above the level after the warm-up is an error.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from helpers_families import ROWS, make_call, new_model
from helpers_transformer import WORDS, make_model

import fastattn
from fastattn import functional as F
from fastattn import kernels
from fastattn.cli.selftest_kernels import CASES, Draw
from fastattn.generation import generate
from fastattn.models import BertConfig, BertForSequenceClassification, BertModel
from fastattn.models.registry import load_encoder
from fastattn.training import AdamW

ALLOWED = 2.0  # MB above the level after the warm-up
LONGEST = 64
Rng = np.random.Generator
Act = Callable[[int], object]


def bert(seed: int, **sizes: int) -> BertForSequenceClassification:
    fastattn.manual_seed(seed)
    given: dict[str, Any] = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4} | sizes
    config = BertConfig(vocab_size=500, max_position_embeddings=LONGEST, intermediate_size=192, num_labels=3, **given)
    return BertForSequenceClassification(config)


def ragged(rng: Rng, most: int = 8) -> tuple[Any, Any]:
    """Ids of random sequences, and where each begins."""
    lengths = rng.integers(1, LONGEST + 1, rng.integers(1, most + 1))
    return rng.integers(0, 500, int(lengths.sum())), np.append(0, np.cumsum(lengths)).astype(np.int32)


def wrong_call(rng: Rng, model: Any) -> None:
    """A call that ends in an error."""
    x, ids = np.ones((3, 8), np.float32), np.array([0, 1, 999])
    calls: list[Callable[[], object]] = [
        lambda: kernels.linear(x, x[:, :5]),
        lambda: kernels.softmax(x.astype(np.float64)),  # type: ignore[arg-type]
        lambda: kernels.embedding(ids, x),
        lambda: kernels.pooling(x, np.array([0, 5], np.int32)),
        lambda: F.layer_norm(x, (7,)),
        lambda: model.forward_ragged(ids, np.array([0, 3], np.int32)),
        lambda: model.forward_ragged(ids[:2], np.array([0, 9], np.int32)),
        lambda: fastattn.SentenceEncoder("no/such/model", local_files_only=True),
        lambda: fastattn.use_isa("no-such-set"),
    ]
    try:
        calls[rng.integers(len(calls))]()
    except (ValueError, TypeError, FileNotFoundError):
        return
    raise AssertionError("a wrong call was taken")


def mixed_calls(folder: Path) -> Act:
    """Kernels, models of all families, trained and frozen, and errors, in this thread and in two others at once."""
    families = [new_model(name, "TokenClassification", seed=1).eval() for name in ROWS]
    given = [
        [make_call("TokenClassification", model.config, "", np.random.default_rng(seed)) for seed in range(5)]
        for model in families
    ]
    trained, frozen = bert(0).eval(), bert(0).eval().freeze()
    cases = list(CASES.values())

    def call(number: int) -> object:
        rng = np.random.default_rng(number)
        kind = rng.integers(10)
        if kind < 4:
            return cases[rng.integers(len(cases))](kernels, Draw(np.float32))
        if kind < 6:
            family = rng.integers(len(families))
            return families[family](**given[family][rng.integers(5)])
        if kind < 7:
            return wrong_call(rng, frozen)
        if kind < 8:
            fastattn.set_num_threads(int(rng.integers(1, 4)))
        return (trained if kind == 9 else frozen).forward_ragged(*ragged(rng))

    def act(number: int) -> None:
        if number % 100:
            call(number)
            return
        with ThreadPoolExecutor(2) as pool:  # new threads, which end
            list(pool.map(call, range(number, number + 2)))

    return act


def models(folder: Path) -> Act:
    """Models of all families, and one with a large table and large matrices, loaded and dropped."""
    folders = []
    for name in ROWS:
        new_model(name, "TokenClassification", seed=1).save_pretrained(folder / name)
        folders.append(folder / name)
    large = BertConfig(vocab_size=8000, hidden_size=256, num_hidden_layers=4, num_attention_heads=4)
    BertModel(large).save_pretrained(folder / "large")

    def act(number: int) -> None:
        place = folder / "large" if number % 2 else folders[number // 2 % len(folders)]
        model = load_encoder(place, trainable=number % 5 == 0)
        model.forward_ragged(np.arange(7) + number % 10, np.array([0, 3, 7], np.int32))

    return act


def generated(folder: Path) -> Act:
    """Batches of random sources, decoded with 1 to 4 beams."""
    model = make_model("post-norm").eval().freeze()

    def act(number: int) -> None:
        rng = np.random.default_rng(number)
        mask = np.arange(9) < rng.integers(1, 10, rng.integers(1, 9))[:, None]
        generate(model, rng.integers(3, WORDS, mask.shape), mask, max_length=12, num_beams=1 + int(rng.integers(4)))

    return act


def steps(folder: Path) -> Act:
    """Training steps on random batches, with dropout."""
    model = bert(0)
    optimizer = AdamW(model.parameters(), lr=1e-4)

    def act(number: int) -> None:
        rng = np.random.default_rng(number)
        ids, cu_seqlens = ragged(rng)
        model.forward_ragged(ids, cu_seqlens, labels=rng.integers(0, 3, len(cu_seqlens) - 1)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return act


ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}

PARTS: dict[str, tuple[Callable[[Path], Act], int]] = {
    "mixed calls": (mixed_calls, 50_000),
    "models loaded": (models, 200),
    "generated batches": (generated, 1_000),
    "training steps": (steps, 2_000),
}


def resident() -> float:
    """Resident memory of this process, in MB."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


def measure(name: str, share: float) -> list[dict[str, float]]:
    """What is in use after a warm-up, and after each tenth of a part, in this process."""
    make, whole = PARTS[name]
    count = max(10, int(whole * share))
    with tempfile.TemporaryDirectory() as folder:
        act = make(Path(folder))
        found = []
        for tenth in range(11):
            first = (tenth - 1) * count // 10 if tenth else -max(count // 10, 40)  # the warm-up sees other batches
            for number in range(first, tenth * count // 10):
                act(number + 10**6)
            gc.collect()
            held = resident()
            fastattn.empty_cache()
            use = {
                "objects": len(gc.get_objects()),
                "blocks": sys.getallocatedblocks(),
                "threads": threading.active_count(),
            }
            now = resident()
            found.append({"after": tenth * count // 10, "resident": now, "held": held - now, **use})
    return found


def run(name: str, share: float) -> list[dict[str, float]]:
    """`measure` in a new process."""
    command = [sys.executable, __file__, "--part", name, "--share", str(share)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | ONE_ARENA)
    found: list[dict[str, float]] = json.loads(answer.stdout)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of each part (default: all)")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(measure(arguments.part, arguments.share)))
        return 0
    grown = []
    header = f"{'':18} {'count':>6}  {'MB after the warm-up, and after each tenth':77}"
    print(f"{header}  {'MB more':>7}  {'malloc held':>11}  objects  blocks")
    for name in PARTS:
        found = run(name, arguments.share)
        level, *later = (each["resident"] for each in found)
        grown.append(max(later) - level)
        more = [int(found[-1][key] - found[0][key]) for key in ("objects", "blocks")]
        numbers = " ".join(f"{each:6.1f}" for each in (level, *later))
        held = f"{min(each['held'] for each in found):.1f} to {max(each['held'] for each in found):.1f}"
        row = f"{name:18} {int(found[-1]['after']):6}  {numbers:77}  {grown[-1]:7.1f}  {held:>11}"
        print(f"{row}  {more[0]:+7}  {more[1]:+6}", flush=True)
    if failed := [name for name, more in zip(PARTS, grown, strict=True) if more > ALLOWED]:
        print(f"more than {ALLOWED} MB above the level after the warm-up: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
