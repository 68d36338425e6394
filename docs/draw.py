"""Draws the pictures of the documentation, as SVG without any library.

python docs/draw.py                  docs/images/ragged.svg, bits.svg, threads.svg, tape.svg and training.svg
python docs/draw.py models.json      and models.svg, from `python -m benchmarks models --json models.json`
python docs/draw.py log.jsonl        and loss.svg, from the log of a run; perplexity.svg if it is a language model's,
                                     pretrain.svg if it is a BERT's pre-training
python docs/draw.py ar2en            and attention.svg, from the folder that docs/translate.md trains (needs fastattn)
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from statistics import median
from typing import Any

from draw_ideas import draw_bits, draw_ragged, draw_tape, draw_threads, draw_training
from draw_runs import draw_loss, draw_perplexity, draw_pretraining
from draw_svg import box, svg, text

IMAGES = Path(__file__).with_name("images")
NAMES = {
    "torch": "PyTorch",
    "torch-compile": "torch.compile",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "openvino-static": "OpenVINO, static",
    "ctranslate2": "CTranslate2",
    "bert-base": "BERT-base",
    "minilm-l6": "MiniLM-L6",
}


def draw_models(report: dict[str, Any]) -> str:
    """Time of one forward pass as a multiple of ours, a panel per case, two panels a row."""
    cases = [(result, multiples(result["series"])) for result in report["results"]]
    longest = max(ratio for _, ratios in cases for ratio in ratios.values())
    panel, label, bars, line = 430, 112, 230, 17
    parts: list[str] = []
    top = 0.0
    for i in range(0, len(cases), 2):
        pair = cases[i : i + 2]
        for column, (result, ratios) in enumerate(pair):
            left = column * panel
            parts.append(text(left, top + 14, case_title(result["case"]), "title"))
            for j, (name, ratio) in enumerate(sorted(ratios.items(), key=lambda item: item[1])):
                y = top + 24 + j * line
                ours = name == "fastattn"
                width = bars * ratio / longest
                value = f"{1e3 * median(result['series'][name]['seconds']):.3g} ms" if ours else f"{ratio:.2f} x"
                parts.append(text(left + label - 8, y + 10, NAMES.get(name, name), "small", "end"))
                parts.append(box(left + label, y, width, 12, "ours" if ours else "bar"))
                parts.append(text(left + label + width + 6, y + 10, value, "small" + (" title" if ours else " quiet")))
        top += 24 + max(len(ratios) for _, ratios in pair) * line + 18
    machine = report["machine"]
    about = f"{machine['CPU']}, {machine['ISA']}, threads: {machine['threads']}, float32; shorter is faster"
    parts.append(text(0, top + 4, about, "small quiet"))
    return svg(2 * panel, top + 14, "Time of a forward pass against other runtimes", parts)


def multiples(series: dict[str, Any]) -> dict[str, float]:
    """Every runtime's time over ours: the median over the rounds of the ratio within a round."""
    ours = series["fastattn"]["seconds"]
    return {
        name: median(theirs / mine for theirs, mine in zip(each["seconds"], ours, strict=True))
        for name, each in series.items()
        if each["seconds"] and math.isfinite(each["seconds"][0])
    }


def case_title(case: str) -> str:
    """`"bert-base-8x128"` is "BERT-base, 8 x 128 tokens"."""
    model, _, shape = case.rpartition("-")
    batch, _, length = shape.partition("x")
    return f"{NAMES.get(model, model)}, {batch} x {length} tokens"


WORD = "شرودنغر"  # a name of the test text, and not of the training text


def draw_attention(folder: str) -> str:
    """What each letter of a model's answer to WORD attends to: the mean of all layers and heads. A column adds up to 1.
    The letters of WORD stand one below the other, so that neither script is mirrored."""
    from fastattn.tasks import Translator

    weights, source, target = Translator.from_pretrained(folder).attention(WORD)
    columns = weights.mean(axis=(0, 1)).tolist()  # [target, source]
    step, cell, left, top = 30, 28, 44, 74
    width, height = len(target) * step, len(source) * step
    parts = ["<style>.letter { font-size: 17px } .faded { opacity: 0.2 }</style>"]
    parts.append(text(left, 18, f"{WORD} → {''.join(target[:-1])}", "letter title"))
    parts.append(text(left, 38, "Columns: what is written; rows: what it attends to", "small quiet"))
    for i, (letter, column) in enumerate(zip(target, columns, strict=True)):
        parts.append(label(left + i * step + cell / 2, top - 10, letter))
        for j, weight in enumerate(column):
            parts.append(box(left + i * step, top + j * step, cell, cell, "bar faded"))
            if weight >= 0.01:
                parts.append(shade(left + i * step, top + j * step, cell, weight))
    for j, letter in enumerate(source):
        parts.append(label(left - 24, top + j * step + 20, letter))
    y = top + height + 12
    for i, weight in enumerate((0.1, 0.25, 0.5, 1.0)):
        parts += [box(left + i * 66, y, 12, 12, "bar faded"), shade(left + i * 66, y, 12, weight)]
        parts.append(text(left + i * 66 + 18, y + 10, f"{weight:.0%}", "small quiet"))
    return svg(left + width + 12, y + 20, "What a Transformer attends to", parts)


def shade(x: float, y: float, size: float, weight: float) -> str:
    return box(x, y, size, size, "ours").replace("/>", f' opacity="{weight:.2f}"/>')


def label(x: float, y: float, token: str) -> str:
    return text(x, y, "end", "small quiet", "middle") if token == "</s>" else text(x, y, token, "letter", "middle")


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    pictures = {
        "ragged.svg": draw_ragged(),
        "bits.svg": draw_bits(),
        "threads.svg": draw_threads(),
        "tape.svg": draw_tape(),
        "training.svg": draw_training(),
    }
    for name in sys.argv[1:]:
        if Path(name).is_dir():
            pictures["attention.svg"] = draw_attention(name)
            continue
        content = Path(name).read_text(encoding="utf-8")
        if name.endswith(".jsonl"):
            records = [json.loads(line) for line in content.splitlines()]
            metrics = next((record["metrics"] for record in records if "metrics" in record), {})
            picture, draw = ("perplexity.svg", draw_perplexity) if "perplexity" in metrics else ("loss.svg", draw_loss)
            if "masked_loss" in metrics:
                picture, draw = "pretrain.svg", draw_pretraining
            pictures[picture] = draw(records)
        else:
            pictures["models.svg"] = draw_models(json.loads(content))
    for name, content in pictures.items():
        (IMAGES / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
