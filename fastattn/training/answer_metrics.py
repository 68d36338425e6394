"""How well questions are answered: exact match and F1, by the rules of SQuAD.

Source: Rajpurkar et al. 2016, section 6.1, and 2018, section 5; the official evaluate-v2.0.py.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence

from fastattn.checks import texts
from fastattn.text.squad import SquadExample

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalize_answer(text: str) -> str:
    """The `text` of an answer without what does not count: case, ASCII punctuation, a, an and the, and more spaces.

    >>> normalize_answer("The cat's  hat.")
    'cats hat'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Iterable[str]) -> float:
    """1 if the prediction is one of the right `answers`, normalised; otherwise 0. No answer is right as "".

    >>> exact_match("the cat", ["A cat!", "a dog"])
    1.0
    """
    found = normalize_answer(prediction)
    return float(any(found == right for right in _right(answers)))


def answer_f1(prediction: str, answers: Iterable[str]) -> float:
    """The F1 score of a prediction's words, normalised, for the one of the right `answers` that fits best.

    >>> answer_f1("a black cat", ["the cat", "a dog"]).__round__(4)
    0.6667
    """
    found = normalize_answer(prediction).split()
    return max(_f1(found, right.split()) for right in _right(answers))


def squad_scores(predictions: Sequence[str], examples: Sequence[SquadExample]) -> dict[str, float]:
    """The scores of all questions, from 0 to 100: `exact_match` and `f1`.

    If some of the questions have no answer, there are also the scores of the others, `has_answer_exact_match` and
    `has_answer_f1`, and `no_answer`, the share of those without an answer that get "". A mean of nothing is NaN.

    Args:
        predictions: an answer for each question; "" says that there is none.
        examples: the questions, with their right answers.

    Raises TypeError for predictions that are no texts, ValueError if there are more predictions than questions, or
    fewer, and, with its place, for a question whose answer is not known.

    >>> from fastattn.text import read_squad
    >>> answers = {"text": ["a cat"], "answer_start": [7]}
    >>> examples = read_squad([{"question": "What sat?", "context": "There, a cat sat.", "answers": answers}])
    >>> squad_scores(["cat sat"], examples)["exact_match"], round(squad_scores(["cat sat"], examples)["f1"], 2)
    (0.0, 66.67)
    """
    found = texts("squad_scores: predictions", predictions)
    if len(found) != len(examples):
        raise ValueError(f"squad_scores: {len(found)} predictions, but {len(examples)} examples")
    check_known(examples)
    exact: dict[bool, list[float]] = {True: [], False: []}  # by whether there is an answer
    f1: dict[bool, list[float]] = {True: [], False: []}
    for prediction, example in zip(found, examples, strict=True):
        right = [answer.text for answer in example.answers]
        exact[bool(right)].append(exact_match(prediction, right))
        f1[bool(right)].append(answer_f1(prediction, right))
    scores = {"exact_match": _mean(exact[True] + exact[False]), "f1": _mean(f1[True] + f1[False])}
    if exact[False]:
        scores["has_answer_exact_match"], scores["has_answer_f1"] = _mean(exact[True]), _mean(f1[True])
        scores["no_answer"] = _mean(exact[False])
    return scores


def check_known(examples: Iterable[SquadExample]) -> None:
    """Raise ValueError, with its place, for a question whose answer is not known."""
    for example in examples:
        if not (example.answers or example.is_impossible):
            raise ValueError(f"{example.place}: the question has no answers; is_impossible says if it can have none")


def _right(answers: Iterable[str]) -> list[str]:
    return [right for right in map(normalize_answer, answers) if right] or [""]


def _f1(found: list[str], right: list[str]) -> float:
    if not (found and right):
        return float(found == right)
    hits = (Counter(found) & Counter(right)).total()
    return 2 * hits / (len(found) + len(right))


def _mean(values: list[float]) -> float:
    return 100 * math.fsum(values) / len(values) if values else math.nan
