"""Entities and their tags in three schemes, and scores, by hand and against seqeval."""

from __future__ import annotations

import itertools
import random
import warnings

import pytest

from fastattn.text import Entity, convert_tags, crf_constraints, entities_to_tags, scheme_of, tags_to_entities
from fastattn.text.entities import SCHEMES
from fastattn.training import EntityScore, entity_scores

ENTITIES = [("PER", 0, 2), ("PER", 2, 3), ("LOC", 3, 6), ("ORG", 7, 8), ("ORG", 8, 9), ("LOC", 10, 12)]
TAGS = {
    "IOB1": "I-PER I-PER B-PER I-LOC I-LOC I-LOC O I-ORG B-ORG O I-LOC I-LOC",
    "IOB2": "B-PER I-PER B-PER B-LOC I-LOC I-LOC O B-ORG B-ORG O B-LOC I-LOC",
    "BIOES": "B-PER E-PER S-PER B-LOC I-LOC E-LOC O S-ORG S-ORG O B-LOC E-LOC",
}
SOME = ("O", "B-A", "I-A", "E-A", "S-A", "I-B", "E-B", "B")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_three_schemes(scheme: str) -> None:
    tags = TAGS[scheme].split()
    assert entities_to_tags(ENTITIES, 12, scheme) == entities_to_tags(ENTITIES[::-1], 12, scheme) == tags
    assert tags_to_entities(tags) == [Entity(*entity) for entity in ENTITIES]
    for other in SCHEMES:
        assert convert_tags(tags, other) == TAGS[other].split()


def test_any_entities_come_back_from_any_scheme() -> None:
    borders = [(a, b) for a in range(4) for b in range(a + 1, 5)]
    for count in range(4):
        for some in itertools.combinations(borders, count):
            if all(one[1] <= two[0] for one, two in itertools.pairwise(some)):
                for labels in itertools.product("AB", repeat=count):
                    entities = [Entity(label, *span) for label, span in zip(labels, some, strict=True)]
                    for scheme in SCHEMES:
                        assert tags_to_entities(entities_to_tags(entities, 4 if not some else 5, scheme)) == entities


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        ("I-A I-A", [("A", 0, 2)]),
        ("O I-A I-B", [("A", 1, 2), ("B", 2, 3)]),
        ("B-A I-B", [("A", 0, 1), ("B", 1, 2)]),
        ("B-A E-A I-A", [("A", 0, 2), ("A", 2, 3)]),
        ("S-A I-A", [("A", 0, 1), ("A", 1, 2)]),
        ("E-A E-A", [("A", 0, 1), ("A", 1, 2)]),
        ("B-A S-A", [("A", 0, 1), ("A", 1, 2)]),
        ("B I O S", [("_", 0, 2), ("_", 3, 4)]),
        ("B-per-son I-per-son", [("per-son", 0, 2)]),
        ("", []),
        ("O O", []),
    ],
)
def test_tags_that_break_the_rules(tags: str, entities: list[tuple[str, int, int]]) -> None:
    assert tags_to_entities(tags.split()) == [Entity(*entity) for entity in entities]


@pytest.mark.parametrize("tag", ["PER", "X-PER", "-", "", "BPER", "o", "_"])
def test_what_is_no_tag(tag: str) -> None:
    with pytest.raises(ValueError, match=r"^gold\[1\] must be O, or begin with B-, I-, E- or S-, got '"):
        tags_to_entities(["O", tag], "gold")


@pytest.mark.parametrize("entities", [[("A", 0, 2), ("B", 1, 3)], [("A", 2, 2)], [("A", 3, 5)], [("A", -1, 1)]])
def test_entities_that_are_no_spans(entities: list[tuple[str, int, int]]) -> None:
    with pytest.raises(ValueError, match=r"^entities_to_tags: an entity must have words from \d to 4 .*got \('[AB]', "):
        entities_to_tags(entities, 4)


ALLOWED = {
    "IOB1": ("O", "I-A", "B-A", "I-B", "B-B", "I"),
    "IOB2": ("I-A", "O", "B-A", "I-B", "B-B", "B"),
    "BIOES": ("S-A", "O", "B-A", "I-A", "E-A", "B-B", "E-B"),
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_crf_allows_what_the_scheme_does(scheme: str) -> None:
    """All tags of up to four words: those that the scheme would write itself."""
    labels = ALLOWED[scheme]
    transitions, first, last = crf_constraints(labels, scheme)
    assert (transitions.shape, first.shape, last.shape) == ((len(labels),) * 2, (len(labels),), (len(labels),))
    assert transitions.dtype == first.dtype == last.dtype == bool
    for length in range(1, 5):
        for path in itertools.product(range(len(labels)), repeat=length):
            tags = [labels[i] for i in path]
            written = [tag.removesuffix("-_") for tag in convert_tags(tags, scheme)]
            steps = all(transitions[pair] for pair in itertools.pairwise(path))
            assert (first[path[0]] and steps and last[path[-1]]) == (written == tags), tags


def test_constraints_that_are_refused() -> None:
    for labels, scheme, error, message in (
        (["O"], "IOB", ValueError, "crf_constraints: scheme must be one of IOB1, IOB2, BIOES, got 'IOB'"),
        (["O", "NOUN"], "IOB2", ValueError, r"crf_constraints: labels\[1\] must be O, or begin with .*, got 'NOUN'"),
        (["O", "S-A"], "IOB2", ValueError, r"crf_constraints: labels\[1\] must be a tag of IOB2, got 'S-A'"),
        (["E-A"], "IOB1", ValueError, r"crf_constraints: labels\[0\] must be a tag of IOB1, got 'E-A'"),
        (["O", 5], "BIOES", ValueError, r"crf_constraints: labels\[1\] must be O, .*, got 5"),
        ("O", "BIOES", TypeError, "crf_constraints: labels must be a sequence of str, got the str 'O'"),
    ):
        with pytest.raises(error, match=f"^{message}"):
            crf_constraints(labels, scheme)  # type: ignore[arg-type]
    assert [mask.shape for mask in crf_constraints([], "IOB2")] == [(0, 0), (0,), (0,)]


def test_other_schemes() -> None:
    with pytest.raises(ValueError, match=r"^entities_to_tags: scheme must be one of IOB1, IOB2, BIOES, got 'IOB'$"):
        convert_tags(["O"], "IOB")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_scheme_of_tags(scheme: str) -> None:
    assert scheme_of([TAGS[scheme].split(), ["O"]]) == scheme


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        ([["NOUN", "VERB"]], None),
        ([["O", "O"], []], None),
        ([["B-A", "X"]], None),
        ([["B", "I"]], None),
        ([["B-A", "O", "I-A"]], "IOB2"),  # of no scheme
        ([["B-A"], ["I-A"]], "IOB2"),
        ([["I-A"], ["S-A"]], "BIOES"),
        ([["B-A", "B-B", "I-A", "I-B", "O"]], "IOB2"),  # the labels of a model
    ],
)
def test_the_scheme_of_other_tags(tags: list[list[str]], scheme: str | None) -> None:
    assert scheme_of(tags) == scheme


def test_scores_by_hand() -> None:
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "O"], []]
    ours = [["B-PER", "I-PER", "O", "B-ORG"], ["B-LOC", "I-LOC"], []]
    score, types = entity_scores(ours, gold)
    assert score == EntityScore(1 / 3, 1 / 3, 1 / 3, 3)
    assert types == {
        "LOC": EntityScore(0, 0, 0, 2),
        "ORG": EntityScore(0, 0, 0, 0),
        "PER": EntityScore(1, 1, 1, 1),
    }
    assert entity_scores(gold, gold)[0] == EntityScore(1, 1, 1, 3)
    assert entity_scores([["O"]], [["O"]]) == (EntityScore(0, 0, 0, 0), {})
    with pytest.raises(ValueError, match=r"^entity_scores: 1 predictions, but 2 labels$"):
        entity_scores([["O"]], [["O"], ["O"]])
    with pytest.raises(ValueError, match=r"^entity_scores: predictions\[0\] has 1 tags, but labels\[0\] has 2$"):
        entity_scores([["O"]], [["O", "O"]])
    with pytest.raises(ValueError, match=r"^entity_scores: labels\[0\]\[0\] must be O, or begin with"):
        entity_scores([["O"]], [["NOUN"]])


def test_entities_and_scores_are_those_of_seqeval() -> None:
    metrics = pytest.importorskip("seqeval.metrics", reason="compares with seqeval")
    from seqeval.metrics.sequence_labeling import get_entities

    for length in range(5):
        for tags in itertools.product(SOME, repeat=length):
            ours = [(entity.label, entity.start, entity.end - 1) for entity in tags_to_entities(tags)]
            assert ours == get_entities([*tags]), tags
    rng = random.Random(0)
    gold, ours = ([rng.choices(SOME, k=6) for _ in range(300)] for _ in range(2))
    ours[:200] = gold[:200]
    score, types = entity_scores(ours, gold)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = metrics.classification_report(gold, ours, output_dict=True)
    assert {*report} == {*types, "micro avg", "macro avg", "weighted avg"}
    for name, found in (*types.items(), ("micro avg", score)):
        wanted = report[name]
        assert found == pytest.approx((wanted["precision"], wanted["recall"], wanted["f1-score"], wanted["support"]))
    assert score.f1 == pytest.approx(metrics.f1_score(gold, ours))
