"""Metrics of labels and of texts.

Labels are integers of any array shape. Labels equal to `ignore_index` do not count. Each text has one reference. `bleu`
and `chrf` are sacrebleu's (extra `[translate]`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn.checks import listed, sequence, shown
from fastattn.functional.losses import IGNORE_INDEX
from fastattn.text.entities import tags_to_entities


def accuracy(predictions: ArrayLike, labels: ArrayLike, ignore_index: int = IGNORE_INDEX) -> float:
    """The fraction of predictions that are right; NaN if no label counts.

    Args:
        predictions: integers.
        labels: integers of the same shape.
        ignore_index: labels that do not count.

    Raises ValueError for shapes that differ.

    >>> accuracy([1, 2, 3, 0], [1, 2, 2, -100]).__round__(4)
    0.6667
    """
    predicted, right = _counted(predictions, labels, ignore_index)
    return float(np.count_nonzero(predicted == right) / len(right)) if len(right) else float("nan")


def f1_scores(
    predictions: ArrayLike, labels: ArrayLike, num_labels: int, ignore_index: int = IGNORE_INDEX
) -> NDArray[np.float64]:
    """The F1 score of each label, 2 * precision * recall / (precision + recall): float64 `[num_labels]`.

    The score of a label that occurs in neither array is NaN. `np.nanmean` of the scores is the macro average.

    Args:
        predictions: integers.
        labels: integers of the same shape.
        num_labels: the number of labels, which count from 0.
        ignore_index: labels that do not count.

    Raises ValueError for shapes that differ, and for labels or predictions out of range.

    >>> f1_scores([0, 1, 1, 1], [0, 0, 1, 1], num_labels=3).round(3).tolist()
    [0.667, 0.8, nan]
    """
    predicted, right = _counted(predictions, labels, ignore_index)
    for name, values in (("predictions", predicted), ("labels", right)):
        if values.size and not 0 <= values.min() <= values.max() < num_labels:
            outside = values[(values < 0) | (values >= num_labels)][0]
            raise ValueError(f"f1_scores: {name} must be from 0 to {num_labels - 1}, got {outside}")
    hits = np.bincount(right[predicted == right], minlength=num_labels)
    total = np.bincount(predicted, minlength=num_labels) + np.bincount(right, minlength=num_labels)
    scores = np.full(num_labels, np.nan)
    np.divide(2.0 * hits, total, out=scores, where=total > 0)
    return scores


class EntityScore(NamedTuple):
    """How well entities are found: `precision`, `recall` and `f1`. `support` is the number of right entities."""

    precision: float
    recall: float
    f1: float
    support: int


def entity_scores(
    predictions: Sequence[Sequence[str]], labels: Sequence[Sequence[str]]
) -> tuple[EntityScore, dict[str, EntityScore]]:
    """The scores of all entities together, and those of each type, as seqeval counts them by default.

    An entity is right if its type, its first word and its last word are. Tags are read as
    `fastattn.text.tags_to_entities` does. What is divided by nothing is 0.

    Args:
        predictions: the tags of each sentence: IOB1, IOB2 or BIOES.
        labels: the right tags.

    Raises ValueError for sentences or tags that are more on one side, and for a tag that is none of these schemes.

    >>> score, types = entity_scores([["B-PER", "O", "B-LOC"]], [["B-PER", "I-PER", "B-LOC"]])
    >>> score.f1, types["LOC"].f1, types["PER"].f1
    (0.5, 1.0, 0.0)
    """
    if len(predictions) != len(labels):
        raise ValueError(f"entity_scores: {len(predictions)} predictions, but {len(labels)} labels")
    counts: tuple[Counter[str], ...] = Counter(), Counter(), Counter()  # right ones, all that are found, all
    for i, (ours, gold) in enumerate(zip(predictions, labels, strict=True)):
        if len(ours) != len(gold):
            raise ValueError(f"entity_scores: predictions[{i}] has {len(ours)} tags, but labels[{i}] has {len(gold)}")
        found = tags_to_entities(ours, f"entity_scores: predictions[{i}]")
        wanted = tags_to_entities(gold, f"entity_scores: labels[{i}]")
        for count, entities in zip(counts, ({*found} & {*wanted}, found, wanted), strict=True):
            count.update(entity.label for entity in entities)
    types = {label: _score(*(count[label] for count in counts)) for label in sorted(counts[1] | counts[2])}
    return _score(*(sum(count.values()) for count in counts)), types


def _score(hits: int, found: int, wanted: int) -> EntityScore:
    precision, recall, f1 = (
        part / whole if whole else 0.0 for part, whole in ((hits, found), (hits, wanted), (2 * hits, found + wanted))
    )
    return EntityScore(precision, recall, f1, wanted)


def edit_distance(first: Sequence[Any], second: Sequence[Any]) -> int:
    """The insertions, deletions and substitutions that turn `first` into `second`, strings or sequences.

    Source: Levenshtein 1966; the table of Wagner and Fischer 1974, row by row.

    >>> edit_distance("kitten", "sitting")
    3
    """
    numbers: dict[Any, int] = {}
    a, b = (np.array([numbers.setdefault(x, len(numbers)) for x in some], np.int64) for some in (first, second))
    places = np.arange(len(b) + 1)
    row = places
    for i, item in enumerate(a, start=1):
        changed = np.minimum(row[1:] + 1, row[:-1] + (b != item))
        # An insertion costs 1 a place, so the rest is a running minimum.
        row = np.minimum.accumulate(np.concatenate([[i], changed]) - places) + places
    return int(row[-1])


def character_error_rate(predictions: Sequence[str], references: Sequence[str]) -> float:
    """The sum of all edit distances, divided by the number of characters (code points) of all references.

    It is above 1 if predictions are much too long, and NaN if all references are empty.

    Args:
        predictions: texts.
        references: one for each.

    Raises as `bleu` does.

    >>> character_error_rate(["kitten", "cat"], ["sitting", "cat"])
    0.3
    """
    _check_texts("character_error_rate", predictions, references)
    errors = sum(edit_distance(*pair) for pair in zip(predictions, references, strict=True))
    total = sum(map(len, references))
    return errors / total if total else float("nan")


def bleu(predictions: Sequence[str], references: Sequence[str]) -> float:
    """sacrebleu's BLEU of all texts together, with its standard tokenizer 13a: 0 to 100.

    Args:
        predictions: texts.
        references: one for each.

    Raises TypeError for one str instead of many, ValueError if there are more references than texts, or fewer, and
    ImportError without sacrebleu.

    Source: Papineni et al. 2002; Post 2018.

    >>> round(bleu(["the cat sat on a mat"], ["the cat sat on the mat"]), 1)    # doctest: +SKIP
    53.7
    """
    _check_texts("bleu", predictions, references)
    return float(import_sacrebleu().corpus_bleu(list(predictions), [list(references)]).score)


def chrf(predictions: Sequence[str], references: Sequence[str]) -> float:
    """sacrebleu's chrF2 of all texts together: 0 to 100. Arguments `predictions`, `references` and errors as `bleu`.

    Source: Popović 2015.

    >>> round(chrf(["the cat sat on a mat"], ["the cat sat on the mat"]), 1)    # doctest: +SKIP
    66.0
    """
    _check_texts("chrf", predictions, references)
    return float(import_sacrebleu().corpus_chrf(list(predictions), [list(references)]).score)


def checked_metrics(metrics: Any, wanted: str | None = None) -> dict[str, float | None]:
    """The results of an evaluation as floats by name, None for NaN and infinity.

    Raises ValueError unless they are one or more numbers by name, `wanted` among them.

    >>> checked_metrics({"loss": np.float32(0.5), "f1": float("nan")})
    {'loss': 0.5, 'f1': None}
    """
    try:
        values = {str(name): float(value) for name, value in metrics.items()}
    except (AttributeError, TypeError, ValueError):
        values = {}
    if not values:
        raise ValueError(f"Trainer: evaluate must give numbers by name, got {shown(metrics)}")
    if wanted is not None and wanted not in values:
        raise ValueError(f"Trainer: evaluate gave no metric {shown(wanted)}, only {listed(values)}")
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _counted(
    predictions: ArrayLike, labels: ArrayLike, ignore_index: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    predicted, right = np.asarray(predictions, np.int64), np.asarray(labels, np.int64)
    if predicted.shape != right.shape:
        raise ValueError(f"predictions and labels must have one shape, got {predicted.shape} and {right.shape}")
    counted = right != ignore_index
    return predicted[counted], right[counted]


def _check_texts(name: str, predictions: Sequence[str], references: Sequence[str]) -> None:
    for argument, texts in (("predictions", predictions), ("references", references)):
        sequence(f"{name}: {argument}", texts)
    if len(predictions) != len(references):
        raise ValueError(f"{name}: {len(predictions)} predictions, but {len(references)} references")


def import_sacrebleu() -> Any:
    """sacrebleu. Raises ImportError, which says what to install."""
    try:
        import sacrebleu  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise ImportError('BLEU and chrF need sacrebleu: pip install "fastattn[translate]"') from error
    return sacrebleu
