"""What a task prepares, alone and in any company, is computed to the bits of a call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_sentences import TEXTS
from helpers_serving import LETTERS, Served, assert_same, make_tasks

from fastattn.tasks.base import Predictor
from fastattn.tasks.work import compute

NAMES = [
    "encode", "encode, shorter", "probabilities", "classify", "regress", "scores", "tag", "entities", "network",
    "network entities", "answer", "answers", "fill", "fill targets", "translate", "beams", "words",
]  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Served]:
    return make_tasks(tmp_path_factory.mktemp("tasks"))


def test_all_tasks_are_tried(served: dict[str, Served]) -> None:
    assert [*served] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_bits_are_those_of_a_call(name: str, served: dict[str, Served]) -> None:
    one = served[name]
    wanted = list(one.direct(one.inputs))
    works = one.task.prepare(one.inputs, one.method, **one.options)
    assert len(works) == len(one.inputs)
    assert all(0 <= work.tokens <= work.full_tokens for work in works)
    assert_same(compute(works), wanted)
    assert_same(compute(works[::-1]), wanted[::-1])
    again = [one.task.prepare([each], one.method, **one.options)[0] for each in one.inputs]
    assert_same([work() for work in again], wanted)
    assert_same(compute([*again[1:], *works]), [*wanted[1:], *wanted])
    assert compute([]) == []


def test_works_that_differ_are_not_computed_together(served: dict[str, Served]) -> None:
    encoder, translator = served["encode"].task, served["translate"].task
    with pytest.raises(ValueError, match="need an equal `together`"):
        compute([*encoder.prepare(["a"]), *encoder.prepare(["a"], normalize_embeddings=True)])
    samples = [translator.prepare(["abc"], do_sample=True, seed=1)[0] for _ in range(2)]
    assert samples[0].together != samples[1].together
    assert samples[0]() == samples[1]() == translator("abc", do_sample=True, seed=1)


def test_lengths_are_told(served: dict[str, Served]) -> None:
    encoder = served["encode"].task
    [work] = encoder.prepare(["the cat " * 100])
    assert (work.tokens, work.full_tokens) == (encoder.max_seq_length, 202)


@pytest.mark.parametrize(
    ("name", "inputs", "options", "message"),
    [
        ("encode", ["a", 3], {}, r"sentences\[1\]"),
        ("encode", ["a"], {"method": "forward"}, "method must be"),
        ("encode", ["a"], {"truncate_dim": 0}, "truncate_dim"),
        ("classify", TEXTS, {"method": "scores"}, "method must be"),
        ("fill", ["no mask"], {}, "has no"),
        ("tag", [["a", ""]], {}, "empty word"),
        ("entities", TEXTS, {"method": "entities", "stride": 1000}, "stride"),
        ("network entities", TEXTS, {"method": "entities", "stride": 1}, "stride"),
        ("answer", [{"question": "a", "context": 1}], {}, "context"),
        ("words", ["a str"], {}, "sentences"),
        ("translate", LETTERS, {"num_beams": 0}, "num_beams"),
        ("translate", LETTERS, {"prefixes": "A"}, "prefixes is for translate"),
        ("translate", ["a" * 100], {}, "has 101 tokens"),
    ],
)
def test_errors_come_before_anything_is_computed(
    name: str, inputs: Any, options: dict[str, Any], message: str, served: dict[str, Served]
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        served[name].task.prepare(inputs, **options)


def test_any_predictor_can_be_prepared() -> None:
    class Lengths(Predictor):
        @classmethod
        def from_pretrained(cls, name_or_folder: Any, **hub: Any) -> Any:
            raise NotImplementedError

        @classmethod
        def check_folder(cls, folder: Path) -> None:
            raise NotImplementedError

        def __call__(self, inputs: Any, /, plus: int = 0) -> list[int]:
            return [len(each) + plus for each in inputs]

    works = Lengths().prepare(["a", "bc"], plus=1)
    assert [work() for work in works] == [2, 3]
