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
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any
from xml.sax.saxutils import escape

IMAGES = Path(__file__).with_name("images")
STYLE = """
text { font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; font-size: 13px; fill: #1f2328 }
.small { font-size: 11px } .quiet { fill: #59636e } .title { font-weight: 600 } .ours { fill: #0969da }
.bar { fill: #c4ccd5 } .arrow { stroke: #0969da; stroke-width: 1.5 }
.gap { fill: none; stroke: #8c959f; stroke-dasharray: 2 2 } .rule { stroke: #d1d9e0 }
.line { fill: none; stroke: #0969da; stroke-width: 2 } .faint { fill: none; stroke: #0969da; opacity: 0.35 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .quiet { fill: #9198a1 } .ours { fill: #4493f8 } .line, .faint, .arrow { stroke: #4493f8 }
  .bar { fill: #4b545f } .gap { stroke: #656c76 } .rule { stroke: #3d444d }
}
"""
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


def svg(width: float, height: float, title: str, parts: list[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>", *parts, "</svg>\n"])


def text(x: float, y: float, words: str, style: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{style}" text-anchor="{anchor}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, style: str = "", colour: str = "") -> str:
    fill = f' style="fill: {colour}"' if colour else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:g}" rx="2" class="{style}"{fill}/>'


def draw_ragged(lengths: tuple[int, ...] = (7, 3, 12, 5, 9, 4)) -> str:
    """A batch of sentences as a padded rectangle, and as the rows that are really computed."""
    step, cell, longest, tokens = 16, 13, max(lengths), sum(lengths)
    colours = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#a463f2", "#9c6b4e")
    parts = [text(0, 14, "padded", "title"), text(58, 14, f"{len(lengths) * longest} rows computed", "quiet")]
    for row, (length, colour) in enumerate(zip(lengths, colours, strict=True)):
        for column in range(longest):
            look = {"colour": colour} if column < length else {"style": "gap"}
            parts.append(box(1 + column * step, 27 + row * step, cell, cell, **look))
    left = longest * step + 40
    parts.append(text(left, 14, "fastattn", "title"))
    parts.append(text(left + 62, 14, f"{tokens} rows computed: tokens, and where each sentence begins", "quiet"))
    offsets = [0, *accumulate(lengths)]
    for start, stop, colour in zip(offsets, offsets[1:], colours, strict=False):
        parts += [box(left + i * step, 46, cell, cell, colour=colour) for i in range(start, stop)]
    for offset in offsets:
        x = left + offset * step - 1.5
        parts.append(f'<line x1="{x:g}" y1="42" x2="{x:g}" y2="70" class="rule"/>')
        parts.append(text(x, 83, str(offset), "small", "middle"))
    parts.append(text(left, 108, "cu_seqlens = [" + ", ".join(map(str, offsets)) + "]", "small quiet"))
    return svg(left + tokens * step + 12, 130, "A padded batch and a ragged one", parts)


def draw_bits() -> str:
    """One sentence alone, in two batches and with two threads: the same chain of sums, so the same bits."""
    step, cell = 16, 13
    panels = (("alone", (5,), 0), ("in a batch", (7, 5, 3), 1), ("in another order", (3, 7, 5), 2))
    parts, left = [], 24.0
    for name, lengths, ours in panels:
        parts.append(text(left, 14, name, "title"))
        offsets = [0, *accumulate(lengths)]
        for i, (start, stop) in enumerate(pairwise(offsets)):
            style = "ours" if i == ours else "bar"
            parts += [box(left + token * step, 26, cell, cell, style) for token in range(start, stop)]
        middle = left + (offsets[ours] + lengths[ours] / 2) * step - 1.5
        parts.append(f'<line x1="{middle:g}" y1="44" x2="{middle:g}" y2="66" class="arrow"/>')
        parts.append(text(middle, 82, "3e1c 07b5 bd90", "small ours", "middle"))
        left += max(offsets[-1] * step, 130) + 40
    words = "one chain of multiply-adds for each number, in an order that neighbours and threads do not change"
    parts.append(text(24, 110, words, "small quiet"))
    return svg(left, 118, "A sentence has the same bits alone and in any batch", parts)


LANES = (  # a lane of a region with a barrier, and of pieces: begin, length and style of each box
    ("caller", ((0, 2, "ours"), (2, 2, "ours"), (4, 8, "gap")), ((0, 2, "ours"), (2, 2, "ours"), (4, 2, "ours"))),
    ("worker", ((0, 2, "ours"), (2, 2, "ours"), (4, 8, "gap")), ((0, 2, "ours"), (2, 2, "ours"), (4, 2, "ours"))),
    ("late worker", ((0, 8, "bar"), (8, 2, "ours"), (10, 2, "ours")), ((0, 8, "bar"),)),
)


def draw_threads() -> str:
    """A kernel of six pieces while another process holds a processor: a region with a barrier waits, pieces do not."""
    unit, lane, label_width, height = 24, 26, 84, 16
    parts = []
    for column, (title, end) in enumerate((("a region with a barrier", 12), ("pieces", 6))):
        left = label_width + column * (12 * unit + 60)
        parts.append(text(left, 14, title, "title"))
        for row, (name, *boxes) in enumerate(LANES):
            y = 28 + row * lane
            if not column:
                parts.append(text(0, y + 12, name, "small"))
            parts += [box(left + a * unit + 1, y, n * unit - 2, height, style) for a, n, style in boxes[column]]
        x = left + end * unit
        parts.append(f'<line x1="{x}" y1="22" x2="{x}" y2="{28 + 3 * lane}" class="arrow"/>')
        parts.append(text(x, 28 + 3 * lane + 14, "the call returns", "small quiet", "middle"))
    words = (("ours", "a piece"), ("gap", "waits at the barrier"), ("bar", "held up by another process"))
    for i, (style, meaning) in enumerate(words):
        x, y = label_width + i * 180, 28 + 3 * lane + 30
        parts += [box(x, y, 24, 12, style), text(x + 32, y + 10, meaning, "small quiet")]
    return svg(label_width + 24 * unit + 80, 28 + 3 * lane + 48, "Threads with a barrier, and with pieces", parts)


def draw_tape() -> str:
    """Calls write nodes, and `backward` walks over them in the other order."""
    calls = ("embedding_sum", "linear", "qkv_attention", "layer_norm", "cross_entropy")
    width, gap, parts = 116, 34, []
    for i, call in enumerate(calls):
        x = i * (width + gap) + 1
        parts.append(box(x, 30, width, 30, "gap"))
        parts.append(text(x + width / 2, 49, call, "small title", "middle"))
        if i:
            middle = x - gap / 2
            parts.append(text(middle, 42, "→", "quiet", "middle"))
            parts.append(text(middle, 60, "←", "ours", "middle"))
        if call in ("embedding_sum", "linear", "layer_norm"):
            parts.append(text(x + width / 2, 80, "weight.grad", "small ours", "middle"))
    parts.append(text(0, 14, "→ the forward pass notes each call with what its gradient needs", "small quiet"))
    parts.append(text(0, 104, "← backward() walks the notes once, frees each, adds to the parameters", "small ours"))
    return svg(len(calls) * (width + gap), 112, "The tape", parts)


KEPT = (  # a call, what its node keeps, whether it has parameters
    ("embedding_sum", "ids", True),
    ("linear", "x", True),
    ("qkv_attention", "q k v, out, lse", False),
    ("layer_norm", "x, mean, rstd", True),
    ("linear + gelu", "x, before gelu", True),
    ("linear", "x", True),
    ("cross_entropy", "logits, lse", False),
)
MOMENTS = (  # what is done, which calls still keep their arrays, which parameters have a gradient
    ("loss = model(...).loss", 7, 7),
    ("loss.backward(): half", 4, 4),
    ("loss.backward(): done", 0, 0),
    ("step(), zero_grad()", 0, 7),
)


def draw_training() -> str:
    """What a training step holds as it goes on: arrays for the backward pass, then gradients, then nothing."""
    column, label, cell, row, top = 104, 150, 96, 52, 44
    parts = []
    for i, (call, kept, _) in enumerate(KEPT):
        middle = label + i * column + cell / 2
        parts.append(text(middle, 14, call, "small title", "middle"))
        parts.append(text(middle, 30, kept, "small quiet", "middle"))
    for j, (moment, forward, without) in enumerate(MOMENTS):
        y = top + j * row
        parts.append(text(0, y + 22, moment, "small"))
        for i, (_, _, trains) in enumerate(KEPT):
            x = label + i * column
            parts.append(box(x, y, cell, 18, "bar" if i < forward else "gap"))
            if trains:
                parts.append(box(x, y + 22, cell, 12, "gap" if i < without else "ours"))
    y = top + len(MOMENTS) * row + 6
    words = (("bar", "kept for the backward pass"), ("ours", "gradient"), ("gap", "not there yet, or freed"))
    for i, (style, meaning) in enumerate(words):
        parts += [box(label + i * 220, y, 24, 12, style), text(label + i * 220 + 32, y + 10, meaning, "small quiet")]
    return svg(label + len(KEPT) * column, y + 20, "What is in memory during a training step", parts)


def draw_loss(records: list[dict[str, Any]]) -> str:
    """The loss of every step of a run and its mean over the last twentieth, and the metric of each evaluation."""
    losses = [record["loss"] for record in records if "loss" in record]
    width, height, left, top = 560, 180, 44, 12
    highest = math.ceil(max(losses))

    def points(values: list[float]) -> str:
        places = ((left + width * i / len(values), top + height * (1 - v / highest)) for i, v in enumerate(values, 1))
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)

    parts = []
    for value in range(highest + 1):
        y = top + height * (1 - value / highest)
        parts.append(f'<line x1="{left}" y1="{y:g}" x2="{left + width}" y2="{y:g}" class="rule"/>')
        parts.append(text(left - 8, y + 4, str(value), "small quiet", "end"))
    parts.append(f'<polyline points="{points(losses)}" class="faint"/>')
    parts.append(f'<polyline points="{points(smoothed(losses))}" class="line"/>')
    for record in records:
        if "metrics" in record:
            x = left + width * record["step"] / len(losses)
            name, value = next(iter(record["metrics"].items()))
            parts.append(f'<line x1="{x:g}" y1="{top}" x2="{x:g}" y2="{top + height}" class="rule"/>')
            parts.append(text(x - 6, top + 14, f"{name} {value:.3f}", "small", "end"))
            parts.append(text(x, top + height + 18, f"step {record['step']}", "small quiet", "end"))
    parts.append(text(0, top + height + 18, "loss", "small quiet"))
    return svg(left + width + 12, top + height + 26, "The loss of a run", parts)


def smoothed(losses: list[float]) -> list[float]:
    """The mean of each loss and those before it, as many as a twentieth of all."""
    window = max(1, len(losses) // 20)
    return [mean(losses[max(0, i - window) : i]) for i in range(1, len(losses) + 1)]


def draw_perplexity(records: list[dict[str, Any]]) -> str:
    """The perplexity of a language model in each step and on the test text, beside that of a unigram model."""
    losses = [record["loss"] for record in records if "loss" in record]
    measured = [(record["step"], record["metrics"]) for record in records if "metrics" in record]
    if len(measured) > 1 and measured[-1][0] - measured[-2][0] < len(losses) / 20:
        del measured[-2]  # the two labels would overlap
    width, height, left, top = 560, 200, 52, 12
    low, high = math.log(100), max(losses)

    def place(step: int, loss: float) -> tuple[float, float]:
        return left + width * step / len(losses), top + height * (high - loss) / (high - low)

    def line(values: list[float], style: str) -> str:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(i, v) for i, v in enumerate(values, 1)))
        return f'<polyline points="{points}" class="{style}"/>'

    parts = []
    for value in (100, 300, 1000, 3000):
        _, y = place(0, math.log(value))
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + width}" y2="{y:.1f}" class="rule"/>')
        parts.append(text(left - 8, y + 4, f"{value:,}", "small quiet", "end"))
    unigram = measured[-1][1]["unigram_perplexity"]
    _, y = place(0, math.log(unigram))
    parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + width}" y2="{y:.1f}" class="gap"/>')
    parts.append(text(left + width, y - 6, f"unigram model, test text: {unigram:.0f}", "small quiet", "end"))
    parts += [line(losses, "faint"), line(smoothed(losses), "line")]
    for step, metrics in measured:
        x, y = place(step, math.log(metrics["perplexity"]))
        parts.append(dot(x, y))
        parts.append(text(x - 4, y + 18, f"{metrics['perplexity']:.0f}", "title", "end"))
        parts.append(text(x, top + height + 18, f"step {step}", "small quiet", "end"))
    x, y = left + width / 2, top + 10
    parts.append(f'<line x1="{x:.1f}" y1="{y}" x2="{x + 22:.1f}" y2="{y}" class="line"/>')
    parts += [text(x + 30, y + 4, "perplexity of the steps", "small"), dot(x + 190, y)]
    parts.append(text(x + 200, y + 4, "of the test text", "small"))
    return svg(left + width + 12, top + height + 26, "The perplexity of a language model in training", parts)


def draw_pretraining(records: list[dict[str, Any]]) -> str:
    """The loss of hidden words of the test text, beside that of a unigram model, and the accuracy of next sentences,
    beside that of the answer "random"."""
    measured = [(record["step"], record["metrics"]) for record in records if "metrics" in record]
    unigram, steps = measured[-1][1]["unigram_loss"], measured[-1][0]
    losses = [metrics["masked_loss"] for _, metrics in measured]
    following = [metrics["next_sentence_accuracy"] for _, metrics in measured]
    width, left, top = 560, 52, 24
    parts = []

    def panel(y: float, height: float, values: list[float], low: float, high: float, ticks: list[float], title: str,
              form: str) -> None:  # fmt: skip
        def place(step: float, value: float) -> tuple[float, float]:
            return left + width * step / steps, y + height * (high - value) / (high - low)

        parts.append(text(left, y - 8, title, "small"))
        for tick in ticks:
            _, at = place(0, tick)
            parts.append(f'<line x1="{left}" y1="{at:.1f}" x2="{left + width}" y2="{at:.1f}" class="rule"/>')
            parts.append(text(left - 8, at + 4, format(tick, form), "small quiet", "end"))
        points = [place(step, value) for (step, _), value in zip(measured, values, strict=True)]
        parts.append('<polyline points="' + " ".join(f"{a:.1f},{b:.1f}" for a, b in points) + '" class="line"/>')
        parts.extend(dot(*point) for point in points)
        parts.append(text(points[-1][0] - 4, points[-1][1] - 10, format(values[-1], form), "title", "end"))

    low, high = math.floor(min(losses) * 2) / 2, math.ceil(max([*losses, unigram]) * 2) / 2
    ticks = [low + 0.5 * i for i in range(round((high - low) * 2) + 1)]
    panel(top, 150, losses, low, high, ticks, "Loss of hidden words, test text", ".2f")
    at = top + 150 * (high - unigram) / (high - low)
    parts.append(f'<line x1="{left}" y1="{at:.1f}" x2="{left + width}" y2="{at:.1f}" class="gap"/>')
    parts.append(text(left + width, at - 6, f"unigram model: {unigram:.2f}", "small quiet", "end"))
    low, high = min(0.5, *following), math.ceil(max(following) * 20 + 0.5) / 20
    panel(top + 196, 70, following, low, high, [0.5, high], "Next sentences that are right", ".0%")
    share = measured[-1][1]["random_share"]
    at = top + 196 + 70 * (high - share) / (high - low)
    parts.append(f'<line x1="{left}" y1="{at:.1f}" x2="{left + width}" y2="{at:.1f}" class="gap"/>')
    parts.append(text(left + width, at - 6, f'always "random": {share:.0%}', "small quiet", "end"))
    for step, _ in measured:
        parts.append(text(left + width * step / steps, top + 290, f"{step}", "small quiet", "end"))
    return svg(left + width + 12, top + 300, "BERT in pre-training", parts)


def dot(x: float, y: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" style="fill: #ff725c"/>'


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
