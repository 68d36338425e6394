"""BERT's pre-training data against a straight transcription of the rules, and its statistics."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from fastattn.functional.losses import IGNORE_INDEX
from fastattn.text import (
    Documents,
    Masking,
    PretrainingBatches,
    TokenizedDocuments,
    Tokenizer,
    continuing_ids,
    train_wordpiece,
)
from fastattn.text import pretraining as module
from fastattn.text.pretraining import plan_instances

LETTERS = "abcdefgh"


def texts(seed: int, documents: int, sentences: int = 12) -> list[list[str]]:
    """Documents whose words are drawn, and split into one to four wordpieces."""
    rng = random.Random(seed)

    def word() -> str:
        return "".join(rng.choices(LETTERS, k=rng.randint(1, 4)))

    def sentence() -> str:
        return " ".join(word() for _ in range(rng.randint(1, 9)))

    return [[sentence() for _ in range(rng.randint(1, sentences))] for _ in range(documents)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    pairs = [f"{a} {a}{b}{b}{a}" for a in LETTERS for b in LETTERS]
    return train_wordpiece(pairs * 2, vocab_size=60)


@pytest.fixture(scope="module")
def documents(tokenizer: Tokenizer) -> TokenizedDocuments:
    return TokenizedDocuments.read(Documents.of(texts(0, 40)), tokenizer)


def nested(documents: TokenizedDocuments) -> list[list[list[int]]]:
    """Documents as lists of sentences, which are lists of wordpieces."""
    ids, offsets, bounds = documents.ids.tolist(), documents.offsets.tolist(), documents.bounds.tolist()
    sentences = [ids[offsets[i] : offsets[i + 1]] for i in range(len(offsets) - 1)]
    return [sentences[bounds[i] : bounds[i + 1]] for i in range(len(bounds) - 1)]


def batches(documents: TokenizedDocuments, tokenizer: Tokenizer, pairs: bool = True, **options: Any) -> Any:
    masking = Masking(tokenizer.mask_token_id, tokenizer.vocab_size)
    return PretrainingBatches(
        documents, tokenizer, masking, **{"next_sentence": pairs, "batch_size": 8, "max_seq_length": 32, **options}
    )


# The rules, word by word, with lists and loops


def instances_of(every: list[list[list[int]]], number: int, room: int, short: float, draw: random.Random) -> list[Any]:
    """The instances of a document: the first segment, the second one, and whether it is random."""
    document = every[number]
    target = draw.randint(2, room) if draw.random() < short else room
    found, chunk, i = [], [], 0
    while i < len(document):
        chunk.append(document[i])
        if i == len(document) - 1 or sum(map(len, chunk)) >= target:
            split = 1 if len(chunk) == 1 else draw.randint(1, len(chunk) - 1)
            first = [piece for sentence in chunk[:split] for piece in sentence]
            second: list[int] = []
            is_random = len(chunk) == 1 or draw.random() < 0.5
            if is_random:
                others = [other for other in range(len(every)) if other != number]
                other = every[others[draw.randrange(len(others))]]
                for sentence in other[draw.randrange(len(other)) :]:
                    second += sentence
                    if len(second) >= target - len(first):
                        break
                i -= len(chunk) - split
            else:
                second = [piece for sentence in chunk[split:] for piece in sentence]
            found.append((*truncated(first, second, room, draw), int(is_random)))
            chunk = []
        i += 1
    return found


def truncated(first: list[int], second: list[int], room: int, draw: random.Random) -> tuple[list[int], list[int]]:
    """A piece at a time, of the longer segment, at its front or its end by the toss of a coin."""
    lengths, dropped = [len(first), len(second)], [0, 0]
    while sum(lengths) > room:
        longer = 0 if lengths[0] > lengths[1] else 1
        lengths[longer] -= 1
        dropped[longer] += 1
    kept = []
    for segment, count in zip((first, second), dropped, strict=True):
        coins = draw.getrandbits(count) if count else 0
        segment = list(segment)
        for i in range(count):
            segment.pop(0 if coins >> i & 1 else -1)
        kept.append(segment)
    return kept[0], kept[1]


def masked(words: list[list[int]], ids: list[int], wanted: int, keys: list[float]) -> list[int]:
    """The places to predict: words in the order of their keys, except those that are too long."""
    chosen: list[int] = []
    for _, word in sorted(zip(keys, words, strict=True)):
        if len(chosen) >= wanted:
            break
        if len(chosen) + len(word) <= wanted:
            chosen += word
    return sorted(chosen)


@pytest.mark.parametrize("room", [2, 3, 13, 29, 61])
@pytest.mark.parametrize("short", [0.0, 0.3, 1.0])
def test_segments_are_those_of_the_rules(documents, room, short):
    every, ids = nested(documents), documents.ids.tolist()
    wanted, order = random.Random(7), list(range(len(documents)))
    expected = [instance for number in order for instance in instances_of(every, number, room, short, wanted)]
    plan = plan_instances(documents, order, room, short, True, random.Random(7))
    found = [
        (ids[start : start + size], ids[follows : follows + rest], is_random)
        for start, follows, size, rest, is_random in plan.tolist()
    ]
    assert found == expected
    assert {is_random for *_, is_random in found} == {0, 1}
    assert all(first and second and len(first) + len(second) <= room for first, second, _ in found)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("share", "most"), [(0.15, 20), (0.5, 3), (0.9, 40)])
def test_masks_are_those_of_the_rules(documents, tokenizer, whole, share, most):
    continuing = continuing_ids(tokenizer)
    masking = Masking(tokenizer.mask_token_id, tokenizer.vocab_size, share, most, continuing if whole else None)
    template = tokenizer.template(pair=True)
    plan = plan_instances(documents, range(30), 29, 0.1, True, random.Random(1))
    ids, cu_seqlens, _, special = template.fill(documents.ids, plan[:, :2], plan[:, 2:4])
    found, labels = masking(ids, cu_seqlens, special, np.random.default_rng(5))

    words: list[list[list[int]]] = []
    for start, end in zip(cu_seqlens[:-1].tolist(), cu_seqlens[1:].tolist(), strict=True):
        words.append([])
        for place in range(start, end):
            if special[place]:
                continue
            if whole and words[-1] and continuing[ids[place]] and not special[place - 1]:
                words[-1][-1].append(place)
            else:
                words[-1].append([place])
    rng = np.random.default_rng(5)
    keys = iter(rng.random(sum(map(len, words))).tolist())
    chosen: list[int] = []
    for sequence, length in zip(words, np.diff(cu_seqlens).tolist(), strict=True):
        wanted = min(most, max(1, round(length * share)))
        chosen += masked(sequence, ids.tolist(), wanted, [next(keys) for _ in sequence])
    draws, pieces = rng.random(len(chosen)), rng.integers(0, tokenizer.vocab_size, len(chosen))
    expected, gold = ids.copy(), np.full(len(ids), IGNORE_INDEX)
    for place, draw, piece in zip(chosen, draws, pieces, strict=True):
        gold[place] = ids[place]
        expected[place] = masking.mask_id if draw < 0.8 else piece if draw < 0.9 else ids[place]
    assert found.tolist() == expected.tolist()
    assert labels.tolist() == gold.tolist()


def test_the_special_tokens_are_the_templates_own(documents, tokenizer):
    library = pytest.importorskip("tokenizers")
    backend = library.Tokenizer.from_str(tokenizer._backend.to_str())
    backend.post_processor = library.processors.TemplateProcessing(
        single="[PAD] $A:2",
        pair="$A:1 [SEP]:1 [SEP]:3 $B:2 [CLS]:2",
        special_tokens=[("[PAD]", 0), ("[SEP]", 3), ("[CLS]", 2)],
    )
    other = Tokenizer(backend)
    for pairs in (False, True):
        load = batches(documents, other, pairs).load((0, 0, 0, 0))
        (start, end), labels = load["cu_seqlens"][:2], load["labels"]
        ids = np.where(labels == IGNORE_INDEX, load["input_ids"], labels)[start:end].tolist()
        types = load["token_type_ids"][start:end].tolist()
        if not pairs:
            assert (ids[0], set(types), "next_sentence_label" in load) == (0, {0, 2}, False)
            assert types[0] == 0
            continue
        place = ids.index(3)
        assert ids[place : place + 2] == [3, 3]
        assert ids[-1] == 2
        assert types == [1] * (place + 1) + [3] + [2] * (end - place - 2)
    one = np.array([[0]])
    ids, cu_seqlens, _, special = other.template(pair=False).fill(np.array([7], np.int32), one, one + 1)
    assert (ids.tolist(), cu_seqlens.tolist(), special.tolist()) == ([0, 7], [0, 2], [True, False])
    empty = other.template(pair=True).fill(np.array([7], np.int32), np.zeros((0, 2), int), np.zeros((0, 2), int))
    assert [array.tolist() for array in empty] == [[], [0], [], []]


def test_masked_words_alone_have_one_segment(documents, tokenizer):
    every = nested(documents)
    plan = plan_instances(documents, range(len(documents)), 30, 0.0, False, random.Random(0))
    for start, _, size, rest, is_random in plan.tolist():
        assert (rest, is_random, 1 <= size <= 30) == (0, 0, True)
        assert start + size <= documents.offsets[-1]
    whole = [sum(map(len, document)) for document in every]
    short = [sum(whole[:i]) for i, size in enumerate(whole) if size < 30]
    assert set(short) <= set(plan[:, 0].tolist())  # a document with fewer wordpieces is one instance


# Statistics


@pytest.fixture(scope="module")
def many(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """100,000 instances and more: epochs of a text of 400 documents."""
    text = TokenizedDocuments.read(Documents.of(texts(1, 400, sentences=30)), tokenizer)
    made = batches(text, tokenizer, batch_size=256, max_seq_length=64)
    found: list[dict[str, Any]] = []
    total = epoch = 0
    while total < 100_000:
        found += [made.load(batch) for batch in made.epoch(epoch)]
        total, epoch = sum(len(batch["next_sentence_label"]) for batch in found), epoch + 1
    return found


def within(observed: float, share: float, draws: float) -> bool:
    """Whether a share that was observed in so many draws is within five standard deviations."""
    return bool(abs(observed - share) < 5 * np.sqrt(share * (1 - share) / draws))


def test_statistics_of_masks(many, tokenizer):
    pieces: Counter[str] = Counter()
    places = np.zeros(64)
    seen = np.zeros(64)
    replaced = np.zeros(tokenizer.vocab_size)
    for batch in many:
        ids, labels, cu_seqlens = batch["input_ids"], batch["labels"], batch["cu_seqlens"]
        lengths = np.diff(cu_seqlens)
        chosen = labels != IGNORE_INDEX
        counts = np.add.reduceat(chosen, cu_seqlens[:-1])
        np.testing.assert_array_equal(counts, np.clip(np.rint(lengths * 0.15), 1, 20))
        hidden, kept = chosen & (ids == 4), chosen & (ids == labels)
        other = chosen & ~hidden & ~kept
        pieces.update(all=int(chosen.sum()), hidden=int(hidden.sum()), kept=int(kept.sum()), other=int(other.sum()))
        replaced += np.bincount(ids[other], minlength=len(replaced))
        position = np.arange(len(ids)) - np.repeat(cu_seqlens[:-1], lengths)
        full = np.repeat(lengths == 64, lengths)
        places += np.bincount(position[chosen & full], minlength=64)
        seen += np.bincount(position[full], minlength=64)
        assert not chosen[cu_seqlens[:-1]].any()
        assert not chosen[cu_seqlens[1:] - 1].any()
    size, total = tokenizer.vocab_size, pieces["all"]
    assert within(pieces["hidden"] / total, 0.8 + 0.1 / size, total)
    assert within(pieces["kept"] / total, 0.1 + 0.1 / size, total)
    assert within(pieces["other"] / total, 0.1 * (1 - 2 / size), total)
    common = np.delete(replaced, 4)
    assert common.min() > 0.8 * common.mean()  # every piece is as likely, special ones too
    assert replaced[4] == 0
    inner = (places / np.maximum(seen, 1))[1:-1]
    assert inner.max() / inner.min() < 1.25  # every place is as likely; the middle [SEP] moves


def test_half_of_the_second_segments_are_true(many, tokenizer):
    """Of 100,000 instances of two sentences and more. One that is alone has a random second segment."""
    labels = np.concatenate([batch["next_sentence_label"] for batch in many])
    assert 0.5 < labels.mean() < 0.65
    text = TokenizedDocuments.read(Documents.of([["a b", "c d", "e f"] * 50] * 30), tokenizer)
    draw, last, found = random.Random(0), text.offsets[text.bounds[1:]], np.zeros(0)
    while len(found) < 100_000:
        plan = plan_instances(text, range(len(text)), 20, 0.0, True, draw)
        found = np.append(found, plan[~np.isin(plan[:, 0] + plan[:, 2], last), 4])
    assert within(found.mean(), 0.5, len(found))


def test_random_segments_come_from_other_documents(documents):
    owners = np.searchsorted(documents.offsets[documents.bounds], np.arange(len(documents.ids)), side="right") - 1
    found: Counter[tuple[int, int]] = Counter()
    draw = random.Random(0)
    for _ in range(20):
        plan = plan_instances(documents, range(len(documents)), 29, 0.1, True, draw)
        for start, follows, size, rest, is_random in plan.tolist():
            first, second = set(owners[start : start + size]), set(owners[follows : follows + rest])
            assert len(first) == len(second) == 1
            assert (first == second) == (not is_random)
            found.update([(min(first), min(second))])
    assert {second for first, second in found if first != second} == set(range(len(documents)))


# Epochs


def drawn(made: Any, epoch: int) -> list[str]:
    return [str({name: array.tolist() for name, array in made.load(batch).items()}) for batch in made.epoch(epoch)]


def test_draws_depend_on_seed_and_place_alone(documents, tokenizer):
    first, second = batches(documents, tokenizer, seed=3), batches(documents, tokenizer, seed=3)
    wanted = [drawn(first, epoch) for epoch in range(3)]
    assert [drawn(second, epoch) for epoch in (2, 0, 1)] == [wanted[i] for i in (2, 0, 1)]
    assert wanted[0] != wanted[1]
    assert not set(wanted[0]) & set(wanted[1])
    assert drawn(batches(documents, tokenizer, seed=4), 0) != wanted[0]
    assert second.settings == first.settings


def test_static_masks_change_only_the_order(documents, tokenizer):
    made = batches(documents, tokenizer, static_masks=True, dupe_factor=2)
    first, second = drawn(made, 0), drawn(made, 5)
    assert first != second
    assert sorted(first) == sorted(second)
    assert len(set(first)) == len(first)  # each pass has its own draws
    assert made.settings != batches(documents, tokenizer, dupe_factor=2).settings


@pytest.mark.parametrize("pairs", [False, True])
def test_epochs_have_as_many_batches(documents, tokenizer, pairs, monkeypatch):
    for shard in (module.SHARD, 150):
        monkeypatch.setattr(module, "SHARD", shard)
        made = batches(documents, tokenizer, pairs, dupe_factor=2)
        assert {len(made.epoch(number)) for number in range(6)} == {made.count}
        assert len(made._shards(0, 0)) == (1 if shard > 150 else len(made._shards(0, 0)))
        tokens = [made.tokens(batch) for batch in made.epoch(1)]
        assert tokens == [len(made.load(batch)["input_ids"]) for batch in made.epoch(1)]


def test_shards_bound_what_is_in_memory(tokenizer, monkeypatch):
    monkeypatch.setattr(module, "SHARD", 500)
    text = TokenizedDocuments.read(Documents.of(texts(2, 100)), tokenizer)
    made, sizes = batches(text, tokenizer), []

    def plan(documents: Any, chosen: list[int], *more: Any) -> Any:
        sizes.append(sum(np.diff(documents.offsets[documents.bounds])[chosen]))
        return plan_instances(documents, chosen, *more)

    monkeypatch.setattr(module, "plan_instances", plan)
    shards = made._shards(0, 0)
    assert sorted(np.concatenate(shards).tolist()) == list(range(100))
    assert len(shards) > 5
    made.epoch(0)
    longest = int(np.diff(text.offsets[text.bounds]).max())
    assert max(sizes) <= 500 + longest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_seq_length": 4}, "max_seq_length must be at least 5, got 4"),
        ({"batch_size": 0}, "batch_size must be a positive integer, got 0"),
        ({"short_seq_prob": 1.5}, r"short_seq_prob must be a number in \[0, 1\], got 1.5"),
        ({"dupe_factor": 0}, "dupe_factor must be a positive integer, got 0"),
        ({"seed": -1}, "seed must be .* got -1"),
    ],
)
def test_numbers_that_do_not_fit(documents, tokenizer, options, message):
    with pytest.raises(ValueError, match=f"^PretrainingBatches: {message}"):
        batches(documents, tokenizer, **options)


def test_texts_that_do_not_fit(tokenizer):
    one = TokenizedDocuments.read(Documents.of([["a b", "c"]]), tokenizer, "one.txt")
    with pytest.raises(ValueError, match=r"^one\.txt: next sentences need two documents or more, there is one; next"):
        batches(one, tokenizer)
    assert batches(one, tokenizer, pairs=False).count == 1
    with pytest.raises(ValueError, match=r"^none: there are no words$"):
        TokenizedDocuments.read(["\u200d", ""], tokenizer, "none")


def test_a_tokenizer_that_lacks_what_is_needed(tokenizer):
    library = pytest.importorskip("tokenizers")
    plain = Tokenizer(library.Tokenizer(library.models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")))
    with pytest.raises(ValueError, match="do_whole_word_mask needs a WordPiece tokenizer"):
        continuing_ids(plain)
