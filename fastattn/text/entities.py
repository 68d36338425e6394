"""Entities as spans of words, and as tags of single words: IOB1, IOB2 and BIOES.

    tags      Alice  Smith  met  Bob          entities
    IOB2      B-PER  I-PER  O    B-PER        PER from word 0 to 2, PER from word 3 to 4
    IOB1      I-PER  I-PER  O    I-PER        B- only where an entity follows one of its own type
    BIOES     B-PER  E-PER  O    S-PER        E- ends an entity, S- is one of a single word

Source: Ramshaw and Marcus 1995 (IOB1), Tjong Kim Sang and Veenstra 1999 (IOB2). Tags that no scheme allows are read as
conlleval and seqeval read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastattn import checks
from fastattn.checks import shown

OUTSIDE = "O"
SCHEMES = ("IOB1", "IOB2", "BIOES")


class Entity(NamedTuple):
    """The words from `start` up to `end`, which is not one of them, and their type."""

    label: str
    start: int
    end: int


def tags_to_entities(tags: Sequence[str], name: str = "tags") -> list[Entity]:
    """The entities that tags of any of the three schemes mean, in order.

    B- and S- begin an entity. So do I- and E- behind O, E-, S- or another type. An entity ends before the next one,
    before O, and behind E- and S-. A tag of one letter is of the type "_". These are seqeval's rules.

    Raises ValueError, which calls the tags `name`, for a tag that is none of a scheme.

    >>> tags_to_entities(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"])
    [Entity(label='PER', start=0, end=2), Entity(label='LOC', start=3, end=4), Entity(label='LOC', start=4, end=5)]
    """
    found: list[Entity] = []
    start, before, kind = 0, OUTSIDE, ""

    def close(end: int) -> None:
        if before != OUTSIDE:
            found.append(Entity(kind, start, end))

    for i, tag in enumerate(checks.sequence(name, tags)):
        prefix, label = _parts(tag, f"{name}[{i}]")
        if prefix == OUTSIDE or prefix in "BS" or before in "OES" or label != kind:
            close(i)
            start = i
        before, kind = prefix, label
    close(len(tags))
    return found


def scheme_of(tags: Sequence[Sequence[str]]) -> str | None:
    """The scheme of the tags of sentences. It is None for tags that are none of entities, such as parts of speech.

    Tags that break the rules of their scheme are IOB2, or BIOES if there is an E- or an S-.

    >>> scheme_of([["I-PER", "O"]]), scheme_of([["B-PER", "O"]]), scheme_of([["NOUN"]])
    ('IOB1', 'IOB2', None)
    """
    some = {tag for sentence in tags for tag in sentence} - {OUTSIDE}
    if not some or not all(tag[:2] in ("B-", "I-", "E-", "S-") and tag[2:] for tag in some):
        return None
    if any(tag[0] in "ES" for tag in some):
        return "BIOES"
    return next((scheme for scheme in ("IOB2", "IOB1") if _follow(tags, scheme)), "IOB2")


def _follow(tags: Sequence[Sequence[str]], scheme: str) -> bool:
    return all(convert_tags(sentence, scheme) == [*sentence] for sentence in tags)


def _parts(tag: str, name: str) -> tuple[str, str]:
    if tag == OUTSIDE:
        return tag, ""
    if not isinstance(tag, str) or tag[:1] not in ("B", "I", "E", "S") or tag[1:2] not in ("", "-"):
        raise ValueError(f"{name} must be O, or begin with B-, I-, E- or S-, got {shown(tag)}")
    return tag[0], tag[2:] or "_"


def entities_to_tags(entities: Iterable[tuple[str, int, int]], length: int, scheme: str = "IOB2") -> list[str]:
    """The tags of `length` words.

    Args:
        entities: of the class `Entity`, or tuples of label, start and end, in any order.
        length: the number of words.
        scheme: "IOB1", "IOB2" or "BIOES".

    Raises ValueError for entities without words, outside of the words, or with a word of another one.

    >>> entities_to_tags([("PER", 0, 2), ("LOC", 2, 3)], 4, "BIOES")
    ['B-PER', 'E-PER', 'S-LOC', 'O']
    """
    checks.choice("entities_to_tags: scheme", scheme, SCHEMES)
    tags = [OUTSIDE] * length
    behind = ("", 0)  # the type of the last entity, and its end
    for label, start, end in sorted(entities, key=lambda entity: entity[1:]):
        if not behind[1] <= start < end <= length:
            wanted = f"words from {behind[1]} to {length} that no other one has"
            raise ValueError(f"entities_to_tags: an entity must have {wanted}, got {shown((label, start, end))}")
        tags[start:end] = [f"I-{label}"] * (end - start)
        if scheme != "IOB1" or behind == (label, start):
            tags[start] = f"B-{label}"
        if scheme == "BIOES":
            tags[end - 1] = f"{'S' if end - start == 1 else 'E'}-{label}"
        behind = (label, end)
    return tags


def convert_tags(tags: Sequence[str], scheme: str, name: str = "tags") -> list[str]:
    """Tags of any scheme, which errors call `name`, as those of `scheme`. Raises ValueError as the functions above.

    >>> convert_tags(["I-PER", "I-PER", "B-PER"], "BIOES")
    ['B-PER', 'E-PER', 'S-PER']
    """
    return entities_to_tags(tags_to_entities(tags, name), len(tags), scheme)


def crf_constraints(labels: Sequence[str], scheme: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """What `scheme` allows, as the `constraints` of a CRF over `labels`: three masks, True where allowed.

    Args:
        labels: the tags, in the order of their numbers.
        scheme: "IOB1", "IOB2" or "BIOES".

    Returns the transitions `[labels, labels]`, from the tag of a row to that of a column, the first tags and the last
    tags, both `[labels]`. Tags that follow them are those that `convert_tags` leaves as they are.

    Raises ValueError for another scheme, or a label that is none of its tags.

    >>> transitions, first, last = crf_constraints(["O", "B-PER", "I-PER"], "IOB2")
    >>> transitions.tolist()  # I-PER must not follow O
    [[True, True, False], [True, True, True], [True, True, True]]
    >>> first.tolist(), last.tolist()
    ([True, True, False], [True, True, True])
    """
    checks.choice("crf_constraints: scheme", scheme, SCHEMES)
    name, prefixes = "crf_constraints: labels", "OBIES" if scheme == "BIOES" else "OBI"
    parts = [_parts(label, f"{name}[{i}]") for i, label in enumerate(checks.sequence(name, labels))]
    for i, (prefix, _) in enumerate(parts):
        if prefix not in prefixes:
            raise ValueError(f"{name}[{i}] must be a tag of {scheme}, got {shown(labels[i])}")
    outside = (OUTSIDE, "")
    transitions = np.array([[_may_follow(a, b, scheme) for b in parts] for a in parts], bool)
    first = np.array([_may_follow(outside, tag, scheme) for tag in parts], bool)
    last = np.array([_may_follow(tag, outside, scheme) for tag in parts], bool)
    return transitions.reshape(len(parts), len(parts)), first, last


def _may_follow(before: tuple[str, str], tag: tuple[str, str], scheme: str) -> bool:
    """Whether `tag` may come right behind `before`, both as their prefix and their type."""
    same = before[1] == tag[1]
    if scheme == "IOB2":
        return tag[0] != "I" or same
    if scheme == "IOB1":
        return tag[0] != "B" or same
    return same and tag[0] in "IE" if before[0] in "BI" else tag[0] in "OBS"
