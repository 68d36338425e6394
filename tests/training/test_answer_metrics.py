"""Exact match and F1 of answers, as SQuAD's own evaluator counts them."""

from __future__ import annotations

import math
import random
import re
import statistics
import string

import pytest

from fastattn.text import Answer, SquadExample
from fastattn.training import answer_f1, exact_match, normalize_answer, squad_scores


def example(*answers: str, known: bool = True) -> SquadExample:
    return SquadExample(
        "q", "?", "context", tuple(Answer(text, 0) for text in answers), known and not answers, place="a.json: q"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Cat's  Hat.", "cats hat"),
        ("an a the", ""),
        ("theatre and ant", "theatre and ant"),
        ("\u00a0naïve\tÉtude\n", "naïve étude"),
        ("50 % -- (the) [x]_y", "50 xy"),
        ("a.m.", "am"),
        ("“quoted”", "“quoted”"),
    ],
)
def test_normalised_answers(text: str, expected: str) -> None:
    assert normalize_answer(text) == expected


def test_scores_of_one_answer() -> None:
    assert exact_match("the cat", ["a dog", "Cat!"]) == 1.0
    assert exact_match("cat dog", ["dog cat"]) == 0.0
    assert answer_f1("cat dog", ["dog cat"]) == 1.0
    assert answer_f1("big black cat", ["cat", "a black dog"]) == pytest.approx(0.5)
    assert answer_f1("cat cat", ["cat"]) == pytest.approx(2 / 3)
    assert answer_f1("", ["cat"]) == answer_f1("cat", []) == exact_match("cat", []) == 0.0
    assert answer_f1("", []) == exact_match("", []) == exact_match("the", []) == 1.0
    assert exact_match("", ["the", "cat"]) == 0.0  # an answer without words does not count


def test_both_versions() -> None:
    answered, none = example("a cat", "black cat"), example()
    assert squad_scores(["cat", "big cat"], [answered, answered]) == {"exact_match": 50.0, "f1": pytest.approx(250 / 3)}
    assert squad_scores(["cat", "", "cat"], [answered, none, none]) == {
        "exact_match": pytest.approx(200 / 3),
        "f1": pytest.approx(200 / 3),
        "has_answer_exact_match": 100.0,
        "has_answer_f1": 100.0,
        "no_answer": 50.0,
    }
    assert all(math.isnan(score) for score in squad_scores([], []).values())
    assert math.isnan(squad_scores([""], [none])["has_answer_f1"])


def test_what_cannot_be_counted() -> None:
    with pytest.raises(ValueError, match="squad_scores: 1 predictions, but 2 examples"):
        squad_scores(["cat"], [example("cat")] * 2)
    with pytest.raises(ValueError, match=r"^a\.json: q: the question has no answers; is_impossible says"):
        squad_scores(["cat"], [example(known=False)])
    with pytest.raises(TypeError, match="predictions must be a sequence of str, got the str 'cat'"):
        squad_scores("cat", [example("cat")] * 3)


def evaluate(predictions: list[str], answers: list[list[str]]) -> dict[str, list[tuple[float, float]]]:
    """Exact match and F1 of each question, with and without an answer: the rules of SQuAD 2.0, step by step."""

    def words(text: str) -> list[str]:
        letters = "".join(letter for letter in text.lower() if letter not in string.punctuation)
        for article in ("a", "an", "the"):
            letters = re.sub(rf"\b{article}\b", " ", letters)
        return letters.split()

    def f1(found: list[str], right: list[str]) -> float:
        if not found or not right:
            return float(found == right)
        rest = list(right)
        common = sum(1 for word in found if word in rest and not rest.remove(word))
        if not common:
            return 0.0
        precision, recall = common / len(found), common / len(right)
        return 2 * precision * recall / (precision + recall)

    scores: dict[str, list[tuple[float, float]]] = {"has_answer": [], "no_answer": []}
    for prediction, texts in zip(predictions, answers, strict=True):
        right = [words(text) for text in texts if words(text)] or [[]]
        found = words(prediction)
        best = max(float(found == each) for each in right), max(f1(found, each) for each in right)
        scores["has_answer" if texts else "no_answer"].append(best)
    return scores


def test_the_rules_of_squad_count_the_same() -> None:
    rng = random.Random(0)
    choices = ["the", "a", "cat", "Cat.", "dog", "dog's", "%", "ü", ""]

    def text() -> str:
        return " ".join(rng.choices(choices, k=rng.randint(0, 4)))

    answers = [[text() for _ in range(rng.randint(0, 3))] for _ in range(300)]
    predictions = [text() for _ in answers]
    wanted = evaluate(predictions, answers)
    every = wanted["has_answer"] + wanted["no_answer"]
    assert {score for score, _ in every} == {0.0, 1.0}
    assert squad_scores(predictions, [example(*texts) for texts in answers]) == {
        "exact_match": pytest.approx(100 * statistics.mean(exact for exact, _ in every)),
        "f1": pytest.approx(100 * statistics.mean(f1 for _, f1 in every)),
        "has_answer_exact_match": pytest.approx(100 * statistics.mean(exact for exact, _ in wanted["has_answer"])),
        "has_answer_f1": pytest.approx(100 * statistics.mean(f1 for _, f1 in wanted["has_answer"])),
        "no_answer": pytest.approx(100 * statistics.mean(exact for exact, _ in wanted["no_answer"])),
    }
