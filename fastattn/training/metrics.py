"""Metrics of labels, of numbers and of texts.

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
    return _f1(hits, total)


def multi_label_f1_scores(predictions: ArrayLike, labels: ArrayLike) -> tuple[float, NDArray[np.float64]]:
    """F1 where a row has any number of labels: that of all decisions together (micro), and those of each label.

    Args:
        predictions: bool `[rows, labels]`.
        labels: bool of the same shape.

    Returns the micro average and float64 `[labels]`. NaN stands for a label that occurs in neither array; sklearn's
    macro average counts it as 0.

    Raises ValueError for shapes that differ or have other than two axes.

    >>> micro, each = multi_label_f1_scores([[True, True], [True, False]], [[True, False], [True, False]])
    >>> micro, each.tolist()
    (0.8, [1.0, 0.0])
    """
    predicted, right = np.asarray(predictions, bool), np.asarray(labels, bool)
    if predicted.ndim != 2 or predicted.shape != right.shape:
        raise ValueError(
            f"multi_label_f1_scores: predictions and labels must have one shape (rows, labels), got {predicted.shape} "
            f"and {right.shape}"
        )
    hits, total = (predicted & right).sum(axis=0), predicted.sum(axis=0) + right.sum(axis=0)
    return float(_f1(hits.sum(), total.sum())), _f1(hits, total)


def matthews_correlation(predictions: ArrayLike, labels: ArrayLike, ignore_index: int = IGNORE_INDEX) -> float:
    """Matthews' correlation of two or more classes, -1 to 1; 0 if all predictions or all labels are one class.

    Args:
        predictions: integers, 0 and above.
        labels: integers of the same shape.
        ignore_index: labels that do not count.

    Raises ValueError for shapes that differ, and for negative predictions and labels that count.

    Source: Gorodkin 2004.

    >>> matthews_correlation([0, 1, 1, 1], [0, 0, 1, 1]).__round__(4)
    0.5774
    """
    predicted, right = _counted(predictions, labels, ignore_index)
    for name, values in (("predictions", predicted), ("labels", right)):
        if values.min(initial=0) < 0:
            raise ValueError(f"matthews_correlation: {name} must not be negative, got {values.min()}")
    size = int(max(predicted.max(initial=0), right.max(initial=0))) + 1
    found, wanted = (np.bincount(values, minlength=size).astype(np.float64) for values in (predicted, right))
    total = float(len(right))
    both = np.count_nonzero(predicted == right) * total - found @ wanted
    spread = (total**2 - found @ found) * (total**2 - wanted @ wanted)
    return float(both / math.sqrt(spread)) if spread > 0 else 0.0


def pearson_correlation(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Pearson's correlation of numbers; NaN if all predictions or all labels are equal, or one is no finite number.

    Args:
        predictions: numbers, one axis.
        labels: as many numbers.

    Raises ValueError for other shapes.

    >>> pearson_correlation([1.0, 2.0, 4.0], [1.0, 2.0, 3.0]).__round__(4)
    0.982
    """
    return _correlation(*_numbers("pearson_correlation", predictions, labels))


def spearman_correlation(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Spearman's correlation, Pearson's of the ranks. Equal numbers share the mean of their ranks. As
    `pearson_correlation`, `predictions` and `labels` are numbers.

    Raises ValueError for other shapes.

    >>> spearman_correlation([1.0, 2.0, 4.0, 4.0], [1.0, 2.0, 3.0, 9.0]).__round__(4)
    0.9487
    """
    pair = _numbers("spearman_correlation", predictions, labels)
    return _correlation(*(_ranks(values) if np.isfinite(values).all() else values for values in pair))


def check_scores(scores: ArrayLike, places: Sequence[str]) -> None:
    """Raise ValueError, with the first of the `places`, for scores that are all equal: nothing correlates with them.

    >>> check_scores([1.0, 1.0], ["a.csv:2", "a.csv:3"])
    Traceback (most recent call last):
    ValueError: a.csv:2: all scores are 1, so nothing correlates with them
    """
    found = np.asarray(scores, np.float64)
    if len(found) and found.min() == found.max():
        raise ValueError(f"{places[0]}: all scores are {found[0]:g}, so nothing correlates with them")


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


def _f1(hits: NDArray[np.int64], total: NDArray[np.int64]) -> NDArray[np.float64]:
    """F1 from right predictions, and from predictions and labels together; NaN for none."""
    scores = np.full(total.shape, np.nan)
    np.divide(2.0 * hits, total, out=scores, where=total > 0)
    return scores


def _numbers(owner: str, predictions: ArrayLike, labels: ArrayLike) -> list[NDArray[np.float64]]:
    pair = [np.asarray(values, np.float64) for values in (predictions, labels)]
    if pair[0].ndim != 1 or pair[0].shape != pair[1].shape:
        shapes = " and ".join(str(values.shape) for values in pair)
        raise ValueError(f"{owner}: predictions and labels must have one axis and one length, got shapes {shapes}")
    return pair


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    units = []
    for values in (a, b):
        if not len(values) or not np.isfinite(values).all() or values.min() == values.max():
            return float("nan")
        values = values - values.mean()
        values /= np.abs(values).max()  # its squares neither overflow nor vanish
        units.append(values / np.linalg.norm(values))
    return float(np.clip(units[0] @ units[1], -1.0, 1.0))


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
