"""From `python -c` to the first embedding, and the memory at that moment: `python -m benchmarks coldstart`.

Each contender is a script of its own that a new process runs: the fewest lines that turn a text into its embedding.
The contenders of a round run one after the other, in a new order. A process measures itself just after its embedding;
wall time begins before it is started. Beside each contender runs what nobody can do without: a Python of its kind that
imports NumPy and tokenizers, and nothing else. What is above that is the contender's own.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .measure import quartiles, say
from .models import convert
from .report import Report, Table, machine, number, write
from .weights import model_folder
from .worker import environment

CASES = ("minilm-l6", "bert-base")
TEXT = "A cat sleeps on the warm stone."
TOLERANCE = 1e-4
DROP = Path("/proc/sys/vm/drop_caches")

BASELINE = "import numpy, tokenizers; embedding = []"

FASTATTN = """
from fastattn import SentenceEncoder
encoder = SentenceEncoder(given["folder"])
embedding = encoder.encode(given["text"])
"""

ONNXRUNTIME = """
import numpy as np
import onnxruntime
import tokenizers
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = given["threads"]
options.inter_op_num_threads = 1
if given["lean"]:
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.disable_prepacking", "1")
session = onnxruntime.InferenceSession(given["onnx"], options, providers=["CPUExecutionProvider"])
tokenizer = tokenizers.Tokenizer.from_file(given["folder"] + "/tokenizer.json")
tokenizer.no_padding()
tokens = tokenizer.encode(given["text"])
feed = {"input_ids": np.array([tokens.ids]), "attention_mask": np.array([tokens.attention_mask])}
embedding = session.run(None, feed)[0][0].mean(0)
"""

FASTEMBED = """
import fastembed
name = given["name"]
if name == "custom":
    from fastembed.common.model_description import ModelSource, PoolingType
    fastembed.TextEmbedding.add_custom_model(
        name, PoolingType.MEAN, False, ModelSource(hf=name), given["dim"], model_file="model.onnx"
    )
model = fastembed.TextEmbedding(name, threads=given["threads"], specific_model_path=given["layout"])
embedding = next(iter(model.embed([given["text"]])))
"""

SENTENCE_TRANSFORMERS = """
import sentence_transformers
import torch
torch.set_num_threads(given["threads"])
encoder = sentence_transformers.SentenceTransformer(given["folder"], device="cpu")
embedding = encoder.encode(given["text"])
"""

PROGRAM = """
import json, sys
given = json.loads(sys.argv[1])
{}
import time
seconds, processor = time.monotonic(), time.process_time()
fields = [line.split() for line in open("/proc/self/smaps_rollup")]
kilobytes = {{field[0]: int(field[1]) for field in fields if len(field) == 3}}
print(json.dumps({{
    "at": seconds,
    "processor": processor,
    "resident": 1024 * kilobytes["Rss:"],
    "private": 1024 * kilobytes["Anonymous:"],
    "embedding": [float(x) for x in embedding],
}}))
"""


@dataclass
class Entrant:
    """A contender: its script, what it is given, and what each round measured."""

    name: str
    python: str
    script: str
    given: dict[str, Any]
    rounds: list[dict[str, float]] = field(default_factory=list)
    embedding: list[float] = field(default_factory=list)

    def run(self, threads: int) -> dict[str, float]:
        variables = {**os.environ, **environment(threads), "OPENBLAS_NUM_THREADS": "1"}  # NumPy's wait for 0.1 s
        variables.pop("PYTHONDONTWRITEBYTECODE", None)  # as installed: compiled once, before the first round
        variables.pop("PYTHONPATH", None)
        if self.script is FASTATTN:
            variables["PYTHONPATH"] = str(Path(str(importlib.import_module("fastattn").__file__)).parents[1])
        command = [self.python, "-c", PROGRAM.format(self.script), json.dumps(self.given)]
        start = time.monotonic()
        answer = subprocess.run(command, env=variables, cwd="/", capture_output=True, text=True)
        if answer.returncode:
            raise RuntimeError(f"{self.name}: {answer.stderr.strip()[-300:]}")
        found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
        self.embedding = found.pop("embedding")
        return {"seconds": found.pop("at") - start, **found}


def tokenizer_folder(name: str, cache: Path) -> Path:
    """The model's folder if it has a tokenizer.json; else one that links to it and has a tokenizer beside."""
    folder = model_folder(name, cache)
    if (folder / "tokenizer.json").is_file():
        return folder
    linked = cache / f"{name}-coldstart"
    linked.mkdir(exist_ok=True)
    for file in ("config.json", "model.safetensors", "vocab.txt"):
        if not (linked / file).exists():
            (linked / file).symlink_to(folder / file)
    wordpiece: Any = importlib.import_module("tokenizers").BertWordPieceTokenizer(str(folder / "vocab.txt"))
    wordpiece.save(str(linked / "tokenizer.json"))
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512}
    (linked / "special_tokens_map.json").write_text(json.dumps(special))
    (linked / "tokenizer_config.json").write_text(json.dumps({**settings, **special}))
    return linked


def lean_onnx(model: Path, options: argparse.Namespace) -> Path:
    """The graph as ONNX Runtime optimises it when it loads, written once."""
    lean = model.with_name("optimized.onnx")
    if not lean.exists():
        script = (
            "import onnxruntime, sys; options = onnxruntime.SessionOptions(); "
            "options.optimized_model_filepath = sys.argv[2]; "
            "onnxruntime.InferenceSession(sys.argv[1], options, providers=['CPUExecutionProvider'])"
        )
        command = [options.rivals_python, "-c", script, str(model), str(lean)]
        subprocess.run(command, check=True, capture_output=True)
    return lean


def entrants(case: str, options: argparse.Namespace) -> list[Entrant]:
    """Ours first, then the rivals, then a baseline for each Python."""
    folder = tokenizer_folder(case, options.cache)
    given = {"folder": str(folder), "text": TEXT, "threads": options.threads}
    found = [Entrant("fastattn", sys.executable, FASTATTN, given)]
    convert(["onnxruntime"], options.rivals_python, model_folder(case, options.cache), options.cache, options.threads)
    onnx = converted_onnx(case, options)
    if onnx is not None:
        for name, lean in (("onnxruntime", False), ("onnxruntime-lean", True)):
            path = lean_onnx(onnx, options) if lean else onnx
            more = {"onnx": str(path), "lean": lean}
            found.append(Entrant(name, options.rivals_python, ONNXRUNTIME, {**given, **more}))
        if options.fastembed_python:
            layout = options.cache / f"{case}-fastembed"
            layout.mkdir(exist_ok=True)
            files = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
            for source in (*(folder / file for file in files), onnx):
                if not (layout / source.name).exists():
                    (layout / source.name).symlink_to(source)
            name = "sentence-transformers/all-MiniLM-L6-v2" if case == "minilm-l6" else "custom"
            dim = json.loads((folder / "config.json").read_text())["hidden_size"]
            more = {"layout": str(layout), "name": name, "dim": dim}
            found.append(Entrant("fastembed", options.fastembed_python, FASTEMBED, {**given, **more}))
    if options.st_python:
        found.append(Entrant("sentence-transformers", options.st_python, SENTENCE_TRANSFORMERS, given))
    pythons = dict.fromkeys(each.python for each in found)
    return found + [Entrant(f"baseline of {python}", python, BASELINE, given) for python in pythons]


def converted_onnx(case: str, options: argparse.Namespace) -> Path | None:
    """The model that `convert` wrote for ONNX Runtime, if the rivals' Python has it."""
    folder = str(model_folder(case, options.cache))
    script = (
        "import sys; from pathlib import Path; from benchmarks.rivals import converted_folder; "
        "print(converted_folder('onnxruntime', Path(sys.argv[1]), Path(sys.argv[2])))"
    )
    answer = subprocess.run(
        [options.rivals_python, "-c", script, folder, str(options.cache)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    path = Path(answer.stdout.strip()) / "model.onnx"
    return path if answer.returncode == 0 and path.is_file() else None


def check(found: list[Entrant]) -> None:
    """Raise for an embedding of a rival that differs from ours."""
    ours = unit(found[0].embedding)
    for each in found:
        if each.embedding and (worst := np.abs(unit(each.embedding) - ours).max()) > TOLERANCE:
            raise RuntimeError(f"{each.name}: its embedding differs by {worst:.2g}")


def unit(embedding: list[float]) -> Any:
    vector = np.array(embedding)
    return vector / np.linalg.norm(vector)


def measure(case: str, options: argparse.Namespace, drop: bool, raw: list[dict[str, Any]]) -> Table:
    found = entrants(case, options)
    for each in list(found):
        try:
            each.run(options.threads)  # compiles its modules and fills the page cache
        except RuntimeError as error:
            say(f"left out: {error}\n")
            found.remove(each)
    check(found)
    rounds = max(1, options.samples // 3) if drop else options.samples
    for index in range(rounds):
        say(f"coldstart {case}: round {index + 1}/{rounds}")
        for each in random.sample(found, len(found)):
            if drop:
                os.sync()
                DROP.write_text("3")
            each.rounds.append(each.run(options.threads))
    raw.append({"case": case, "dropped": drop, "rounds": {each.name: each.rounds for each in found}})
    cache = "dropped page cache" if drop else "warm page cache"
    title = f"From python -c to the first embedding of {case}, {cache}"
    header = ["", "wall, ms (quartiles)", "processor, ms", "own, ms", "ours is", "resident, MB", "anonymous, MB"]
    return {"title": title, "header": [*header, "own, MB", "ours is"], "rows": rows_of(found)}


def rows_of(found: list[Entrant]) -> list[list[str]]:
    """A row each. What is a contender's own is above the baseline of its Python, in the same round."""
    baselines = {each.python: each for each in found if each.script is BASELINE}

    def own(each: Entrant, key: str) -> Any:
        below = baselines[each.python]
        return np.array([now[key] - then[key] for now, then in zip(each.rounds, below.rounds, strict=True)])

    rows = []
    for each in found:
        wall = " ".join(spread([1e3 * now["seconds"] for now in each.rounds], number))
        middle = {key: quartiles([now[key] for now in each.rounds])[1] for key in ("processor", "resident", "private")}
        row = [each.name, wall, number(1e3 * middle["processor"]), "", ""]
        row += [number(middle["resident"] / 1e6), number(middle["private"] / 1e6), "", ""]
        if each.script is not BASELINE:
            for place, key, unit in ((3, "processor", 1e3), (7, "resident", 1e-6)):
                row[place] = number(unit * quartiles(own(each, key))[1])
                if each is not found[0]:
                    row[place + 1] = f"{quartiles(own(found[0], key) / own(each, key))[1]:.2f} of it"
        rows.append(row)
    return rows


def spread(values: list[float], show: Callable[[float], str]) -> tuple[str, str]:
    low, middle, high = map(show, quartiles(values))
    return middle, f"({low}, {high})"


def main(options: argparse.Namespace) -> Report:
    if not Path("/proc/self/smaps_rollup").exists():
        raise SystemExit("coldstart reads /proc/self/smaps_rollup, which only Linux has")
    if options.drop_caches and not os.access(DROP, os.W_OK):
        raise SystemExit(f"--drop-caches writes {DROP}, which takes root")
    raw: list[dict[str, Any]] = []
    report: Report = {"command": "coldstart", "machine": machine(options.threads), "tables": [], "results": raw}
    for case in options.cases or CASES:
        for drop in (False, True) if options.drop_caches else (False,):
            report["tables"].append(measure(case, options, drop, raw))
            write(report, options.json)
    return report
