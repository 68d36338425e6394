"""Exact match and F1 of answers, as SQuAD's own evaluator counts them."""

from __future__ import annotations

import math
import random

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


def test_transformers_counts_the_same() -> None:
    theirs = pytest.importorskip("transformers.data.metrics.squad_metrics", reason="compares with transformers")
    rng = random.Random(0)
    words = ["the", "a", "cat", "Cat.", "dog", "dog's", "%", "ü", ""]

    def text() -> str:
        return " ".join(rng.choices(words, k=rng.randint(0, 4)))

    examples, predictions, squad = [], {}, []
    for i in range(300):
        answers = [text() for _ in range(rng.randint(0, 3))]
        examples.append(example(*answers))
        predictions[str(i)] = text()
        kind = type("Example", (), {"qas_id": str(i), "answers": [{"text": answer} for answer in answers]})
        squad.append(kind())
    found = squad_scores(list(predictions.values()), examples)
    wanted = theirs.squad_evaluate(squad, predictions)
    assert found == {
        "exact_match": pytest.approx(wanted["exact"]),
        "f1": pytest.approx(wanted["f1"]),
        "has_answer_exact_match": pytest.approx(wanted["HasAns_exact"]),
        "has_answer_f1": pytest.approx(wanted["HasAns_f1"]),
        "no_answer": pytest.approx(wanted["NoAns_exact"]),
    }
