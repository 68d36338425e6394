"""The network of a tagger: what its parts read, its loss and its labels, and that sentences do not meet."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastattn
from fastattn.autograd import no_grad
from fastattn.models import SequenceTagger, SequenceTaggerConfig
from fastattn.text import character_ids

LABELS = {0: "O", 1: "B-A", 2: "I-A"}
WORDS = ["the", "cat", "naïve", "x" * 40]
OFFSETS, INDEX = np.array([0, 3, 3, 7]), np.array([0, 1, 2, 3, 0, 1, 1])
IDS = np.array([3, 4, 2, 5, 3, 4, 4])
TAGS = np.array([0, 1, 2, 0, 0, 1, 2])


def make(seed: int = 0, **fields: Any) -> SequenceTagger:
    fastattn.manual_seed(seed)
    sizes: dict[str, Any] = {"word_dim": 5, "char_dim": 3, "char_hidden_size": 4, "hidden_size": 6}
    config = SequenceTaggerConfig(vocab_size=8, id2label=LABELS, **{"max_characters": 16, **sizes, **fields})
    return SequenceTagger(config)


def features_of(model: SequenceTagger, words: int = len(IDS)) -> Any:
    config = model.config
    if config.features is None:
        return None
    shape = (config.feature_layers, words, config.feature_dim)
    return np.random.default_rng(1).standard_normal(shape, np.float32)


def arguments(model: SequenceTagger) -> dict[str, Any]:
    length = model.config.max_characters
    found = {"char_ids": character_ids(WORDS, length), "char_index": INDEX, "features": features_of(model)}
    return {"word_ids": IDS, "cu_seqlens": OFFSETS, **found}


KINDS: list[dict[str, Any]] = [
    {"characters": characters, **features, **top}
    for characters, features, top in itertools.product(
        ("cnn", "lstm", "none"),
        ({}, {"features": "bilm", "feature_dim": 7}, {"features": "elmo", "feature_layers": 3, "feature_dim": 7}),
        ({}, {"crf": True}, {"crf": True, "scheme": "IOB2"}),
    )
]


@pytest.mark.parametrize("fields", KINDS, ids=lambda fields: "-".join(str(value) for value in fields.values()))
def test_every_parameter_learns_and_sentences_do_not_meet(fields: dict[str, Any], tmp_path: Path) -> None:
    model = make(**fields)
    given = arguments(model)
    loss = model(**given, labels=TAGS).loss
    loss.backward()
    assert all(np.abs(parameter.grad).max() > 0 for parameter in model.parameters())
    model.save_pretrained(tmp_path)
    frozen = SequenceTagger.from_pretrained(tmp_path, trainable=False)
    together = frozen(**given).logits
    assert isinstance(together, np.ndarray)
    assert together.shape == (7, 3)
    for start, end in itertools.pairwise(OFFSETS):
        own = slice(start, end)
        features = None if given["features"] is None else given["features"][:, own]
        alone = frozen(IDS[own], [0, end - start], given["char_ids"], INDEX[own], features).logits
        assert alone.tobytes() == together[own].tobytes()
        found = frozen.decode(together, OFFSETS)[own]
        assert found.tolist() == frozen.decode(alone, [0, end - start]).tolist()
    probabilities = frozen.probabilities(together, OFFSETS)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_the_parts_read_what_they_should() -> None:
    given = arguments(make())
    mixed = make(features="elmo", feature_layers=3, feature_dim=7)
    assert [mix.mixture_size for mix in mixed.mixes] == [3, 3]
    assert (mixed.first.input_size, mixed.second.input_size) == (5 + 125 + 7, 12)
    assert mixed.classifier.weight.shape == (3, 12 + 7)
    joined = make(features="bert", feature_dim=7)
    assert (joined.first.input_size, joined.second.input_size) == (5 + 125, 12 + 7)
    assert joined.classifier.weight.shape == (3, 12)
    model = make(characters="lstm").eval()
    with no_grad():
        before = np.asarray(model(**given).logits)
        other = {**given, "char_ids": character_ids(["The", *WORDS[1:]], 16)}
        assert (before != np.asarray(model(**other).logits)).any()
        padded = model.characters(character_ids(["cat"], 16))
        assert np.asarray(padded).tobytes() == np.asarray(model.characters(character_ids(["cat"], 32))).tobytes()


@pytest.mark.parametrize("features", [None, "elmo"])
def test_layers(features: str | None) -> None:
    model = make(features=features, crf=True, **({} if features is None else {"feature_layers": 3, "feature_dim": 7}))
    groups = model.layer_groups()
    assert len(groups) == 4
    found = [id(parameter) for group in groups for parameter in group]
    assert sorted(found) == sorted(id(parameter) for parameter in model.parameters())
    assert {id(p) for p in model.second.parameters()} == {id(p) for p in groups[2]}


def test_dropped_words_are_unknown_and_masks_stay_for_a_sentence() -> None:
    model = make(characters="none", word_dropout=1 - 1e-6, dropout=0.0)
    found = np.asarray(model(IDS, OFFSETS).logits.data)
    unknown = np.asarray(model.eval()(np.full_like(IDS, 2), OFFSETS).logits.data)
    assert found.tobytes() == unknown.tobytes()
    model = make(characters="none", word_dropout=0.0, dropout=0.5)
    first = np.asarray(model(IDS, OFFSETS).logits.data)
    assert (first != np.asarray(model(IDS, OFFSETS).logits.data)).any()


def test_a_crf_counts_sequences() -> None:
    """The loss against all sequences, and the probabilities of labels."""
    model = make(characters="none", crf=True, scheme="IOB2").eval()
    output = model(IDS, OFFSETS, labels=TAGS)
    crf: Any = model.crf
    steps, first, last = (
        np.asarray(x.data, np.float64) for x in (crf.transitions, crf.start_transitions, crf.end_transitions)
    )
    logits, total = np.asarray(output.logits.data, np.float64), 0.0
    for start, end in itertools.pairwise(OFFSETS):
        if start == end:
            continue
        scores = {}
        for tags in itertools.product(range(3), repeat=end - start):
            if tags[0] == 2 or (0, 2) in itertools.pairwise(tags):
                continue  # I-A behind O or at the start
            score = first[tags[0]] + last[tags[-1]] + logits[np.arange(start, end), tags].sum()
            scores[tags] = score + sum(steps[pair] for pair in itertools.pairwise(tags))
        total += np.log(np.exp(list(scores.values())).sum()) - scores[tuple(TAGS[start:end])]
        weights = np.exp(list(scores.values()))
        marginal = np.zeros((end - start, 3))
        for tags, weight in zip(scores, weights / weights.sum(), strict=True):
            marginal[np.arange(end - start), tags] += weight
        found = model.probabilities(output.logits, OFFSETS)[start:end]
        np.testing.assert_allclose(found, marginal, atol=1e-5)
        best = max(scores, key=lambda tags: scores[tags])
        assert model.decode(output.logits, OFFSETS)[start:end].tolist() == [*best]
    np.testing.assert_allclose(output.loss.item(), total / len(IDS), rtol=1e-5)


def test_bad_arguments_are_named() -> None:
    model = make(crf=True, scheme="IOB2")
    given = arguments(model)
    with pytest.raises(ValueError, match="crf: tags must follow the constraints, got 2 after 0, at index 1"):
        model(**given, labels=[0, 2, 2, 0, 0, 1, 2])
    with pytest.raises(ValueError, match="SequenceTagger: features must be None, got some"):
        model(**{**given, "features": np.zeros((1, 7, 2), np.float32)})
    with pytest.raises(ValueError, match="SequenceTagger: char_ids must be given"):
        model(IDS, OFFSETS)
    with pytest.raises(ValueError, match=r"char_ids must have shape \(forms, 16\), got \(4, 12\)"):
        model(**{**given, "char_ids": character_ids(WORDS, 12)})
    with pytest.raises(ValueError, match="word_ids"):
        model(**{**given, "word_ids": IDS[:-1]})
    model = make(features="bilm", feature_dim=7)
    given = arguments(model)
    with pytest.raises(ValueError, match="features must be those of bilm, got None"):
        model(**{**given, "features": None})
    with pytest.raises(ValueError, match=r"features must have shape \(1, 7, 7\), got \(1, 7, 6\)"):
        model(**{**given, "features": np.zeros((1, 7, 6), np.float32)})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vocab_size": 2}, "vocab_size must be"),
        ({"characters": "rnn"}, "characters must be"),
        ({"features": "gpt"}, "features must be"),
        ({"features": "bilm"}, "feature_dim must be"),
        ({"feature_dim": 3}, "feature_dim must be 0 without features"),
        ({"features": "bilm", "feature_dim": 3, "feature_layers": 2}, "feature_layers must be 1 without elmo"),
        ({"features": "elmo", "feature_dim": 3, "feature_layers": 5000}, "feature_layers must be from 1 to 1024"),
        ({"scheme": "IOB2"}, "scheme must be None without crf"),
        ({"crf": True, "scheme": "IOB2", "id2label": {0: "B-A", 1: "I-A"}}, "id2label must have O for the scheme IOB2"),
        ({"crf": True, "scheme": "IOB2", "id2label": {0: "O", 1: "S-A"}}, r"^id2label\[1\] must be a tag of IOB2"),
        ({"char_filters": ((40, 2),)}, "char_filters must not be wider than max_characters = 32, got 40"),
        ({"char_filters": ((1, 1),) * 2000}, "char_filters must be at most 1024 pairs"),
        ({"max_characters": 5000}, "max_characters must be from 3 to 1024"),
        ({"dropout": 1.0}, "dropout must be"),
    ],
)
def test_impossible_fields_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SequenceTaggerConfig(**{"id2label": LABELS, **fields})
