"""Pictures of the logs of runs: a loss, a language model's perplexity, a BERT's pre-training."""

from __future__ import annotations

import math
from statistics import mean
from typing import Any

from draw_svg import dot, svg, text


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
