"""How right labels of words are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastattn.checks import listed, shown
from fastattn.tasks.tag.files import Sentence, place_of
from fastattn.text import convert_tags, scheme_of
from fastattn.text.conllu import NO_TAG
from fastattn.text.entities import OUTSIDE
from fastattn.training import EntityScore, entity_scores

Tags = Sequence[Sequence[str]]


def tags_of(owner: str, data: Sequence[Sentence], scheme: str | None) -> Iterator[Sequence[str]]:
    """The tags of sentences in a scheme. Those of a sentence in which a word has none stay as they are.

    Raises ValueError, which names `owner` and the sentence, for a tag that is none of entities.
    """
    for i, sentence in enumerate(data):
        if scheme is None or NO_TAG in sentence.tags:
            yield sentence.tags
        else:
            yield convert_tags(sentence.tags, scheme, f"{owner}: {sentence.place or f'data[{i}]'}: tags")


def check_tags(owner: str, data: Sequence[Sentence], labels: Sequence[str], scheme: str | None) -> None:
    """Raise ValueError, with the place and `owner`, for a tag that is none of `labels`, whose scheme this is.

    Tags of entities are compared by their types: I-PER is known if B-PER is a label.
    """
    known = {NO_TAG, *(_kind(label, scheme) for label in labels), *([OUTSIDE] if scheme else [])}
    for i, sentence in enumerate(data):
        for j, tag in enumerate(sentence.tags):
            if _kind(tag, scheme) not in known:
                place = place_of(sentence, j) or f"data[{i}]"
                raise ValueError(f"{place}: {owner}: the tag {shown(tag)} is none of {listed(labels)}")


def _kind(tag: str, scheme: str | None) -> str:
    """What a tag names: a type of entities, or itself."""
    named = scheme is not None and tag[:1] in ("B", "I", "E", "S") and tag[1:2] in ("", "-")
    return f"-{tag[2:] or NO_TAG}" if named else tag


def count_right(predicted: Tags, gold: Tags) -> tuple[int, int]:
    """How many labels are those of `gold`, and how many labels of `gold` count. "_" does not count.

    >>> count_right([["NOUN", "VERB", "X"]], [["NOUN", "ADJ", "_"]])
    (1, 2)
    """
    words = [pair for tags in zip(predicted, gold, strict=True) for pair in zip(*tags, strict=True)]
    counted = [(label, tag) for label, tag in words if tag != NO_TAG]
    return sum(label == tag for label, tag in counted), len(counted)


def scores_of(predicted: Tags, gold: Tags) -> tuple[EntityScore, dict[str, EntityScore]]:
    """`entity_scores` of the sentences in which every word has a tag."""
    whole = [i for i, tags in enumerate(gold) if NO_TAG not in tags]
    return entity_scores([predicted[i] for i in whole], [gold[i] for i in whole])


def report(predicted: Tags, gold: Tags, scheme: str | None) -> list[str]:
    """Lines about labels, whose scheme this is, if the right ones are known."""
    entities = scheme is not None and scheme_of([tags for tags in gold if NO_TAG not in tags]) is not None
    if scheme is not None and entities:
        gold = [tags if NO_TAG in tags else convert_tags(tags, scheme) for tags in gold]
    right, total = count_right(predicted, gold)
    told = [f"accuracy: {right / total:.4f} ({right} of {total} words)"] if total else []
    if entities:
        score, types = scores_of(predicted, gold)
        for name, each in (("entities", score), *types.items()):
            numbers = f"f1 {each.f1:.4f}, precision {each.precision:.4f}, recall {each.recall:.4f}"
            told.append(f"{name}: {numbers} ({each.support} in the file)")
    return told
