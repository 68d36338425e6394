"""A language model's vocabulary, its sentences as numbers, and the streams that it is trained on."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastattn.text import (
    Sentences,
    StreamBatches,
    Vocabulary,
    character_ids,
    read_sentences,
    sentence_batches,
    unigram_perplexity,
)

SENTENCES = [["the", "cat", "sat"], ["a"], ["the", "dog"], ["so", "it", "is", "the", "cat"]]
TEXT = Sentences.from_words(SENTENCES)
VOCABULARY = Vocabulary.build(TEXT)


def streams(**options: Any) -> StreamBatches:
    values: dict[str, Any] = {"batch_size": 2, "unroll_steps": 3, **options}
    return StreamBatches(TEXT, VOCABULARY, character_ids, **values)


def spelled(batch: dict[str, Any]) -> tuple[list[list[str]], list[list[str]]]:
    """Inputs, as their characters spell them, and targets of both directions."""
    special = {256: "<S>", 257: "</S>"}
    words = [
        special.get(row[1]) or bytes(row[1 : row.tolist().index(259)].tolist()).decode() for row in batch["char_ids"]
    ]
    inputs = [[words[place] for place in row] for row in batch["inputs"]]
    return inputs, [[VOCABULARY.words[number] for number in row] for row in batch["targets"]]


# Reading


def test_a_file_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes("\ufeffthe cat\n\n  naïve\u3000日本語 \r\nx\u2028y z".encode())
    text = read_sentences([path, path])
    sentence = [["the", "cat"], ["naïve", "日本語"], ["x", "y", "z"]]
    words = [text.forms[place] for place in text.words]
    assert words == [word for words in sentence * 2 for word in words]
    assert text.cu_words.tolist() == [0, 2, 4, 7, 9, 11, 14]
    assert (len(text), text.tokens) == (6, 20)


def test_what_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"fine\nnot \xff fine\n")
    with pytest.raises(ValueError, match=r"text\.txt:2: not UTF-8: byte 0xff at 5"):
        read_sentences([path])
    with pytest.raises(ValueError, match=r"text\.txt:2: not UTF-8"):
        Vocabulary.from_file(path)


def test_a_text_without_words(tmp_path: Path) -> None:
    path = tmp_path / "empty.txt"
    path.write_text("\n  \n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"empty\.txt: there are no words"):
        read_sentences([path])
    with pytest.raises(ValueError, match="Sentences: there are no words"):
        Sentences.from_words([[], []])
    with pytest.raises(ValueError, match="read_sentences: there are no words"):
        read_sentences([])
    with pytest.raises(FileNotFoundError, match="missing"):
        read_sentences([tmp_path / "missing"])


def test_what_is_no_text(tmp_path: Path) -> None:
    for one in (tmp_path / "text.txt", "text.txt"):
        with pytest.raises(TypeError, match=r"read_sentences: paths must be a sequence of files, got .*text\.txt"):
            read_sentences(one)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"sentences\[1\] must be a sequence of words, got the str 'the cat'"):
        Sentences.from_words([["a"], "the cat"])
    with pytest.raises(TypeError, match="a word must be str, got int: 5"):
        Sentences.from_words([["a", 5]])  # type: ignore[list-item]


def test_the_checksum_tells_texts_apart() -> None:
    same = Sentences.from_words(SENTENCES)
    others = [SENTENCES[:3], SENTENCES[::-1], [[*SENTENCES[0], *SENTENCES[1]], *SENTENCES[2:]], [["\udc80"]]]
    assert same.crc32 == TEXT.crc32
    assert len({TEXT.crc32, *(Sentences.from_words(other).crc32 for other in others)}) == 5


# The vocabulary


def test_the_most_frequent_words_come_first() -> None:
    assert VOCABULARY.words == ("<S>", "</S>", "<UNK>", "the", "cat", "sat", "a", "dog", "so", "it", "is")
    assert Vocabulary.build(TEXT, min_count=2).words == ("<S>", "</S>", "<UNK>", "the", "cat")
    assert Vocabulary.build(TEXT, size=4).words == ("<S>", "</S>", "<UNK>", "the")
    assert Vocabulary.build(Sentences.from_words([["<S>", "<UNK>", "b"]])).words == ("<S>", "</S>", "<UNK>", "b")


def test_a_file_keeps_its_order(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("b\n<UNK>\n\ufeffé日\n</S>\n<S>", encoding="utf-8")
    vocabulary = Vocabulary.from_file(path)
    assert vocabulary.words == ("b", "<UNK>", "\ufeffé日", "</S>", "<S>")
    assert vocabulary.ids(["<S>", "c", "b", "</S>"]).tolist() == [4, 1, 0, 3]
    vocabulary.write(path)
    assert Vocabulary.from_file(path).words == vocabulary.words
    assert len(vocabulary) == 5


def test_blank_lines_at_the_end_of_a_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    for end in ("\n", "\r\n", "\r"):
        path.write_bytes(f"<S>{end}</S>{end}<UNK>{end}the{end}{end} {end}".encode())
        assert Vocabulary.from_file(path).words == ("<S>", "</S>", "<UNK>", "the")


def test_a_vocabulary_that_cannot_be() -> None:
    for size in (2, 0, -1):
        with pytest.raises(ValueError, match=f"Vocabulary: size must be at least 3, for .*, got {size}"):
            Vocabulary.build(TEXT, size)
    with pytest.raises(ValueError, match="Vocabulary:4: must be one word, got 5"):
        Vocabulary(["<S>", "</S>", "<UNK>", 5])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a\n<S>\n<UNK>\n", "vocab.txt: </S> must be among the words"),
        ("", "vocab.txt: <S>, </S>, <UNK> must be among the words"),
        ("<S>\n</S>\n<UNK>\na\nb\na\n", "vocab.txt:6: 'a' is a duplicate of line 4"),
        ("<S>\n\n</S>\n<UNK>\n", "vocab.txt:2: must be one word, got ''"),
        ("<S>\nNew York\n", "vocab.txt:2: must be one word, got 'New York'"),
    ],
)
def test_a_file_that_is_no_vocabulary(tmp_path: Path, lines: str, message: str) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text(lines, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(message)):
        Vocabulary.from_file(path)


# Sequences


def test_both_directions_predict_every_word_and_one_end() -> None:
    (batch,) = sentence_batches(TEXT, VOCABULARY, character_ids)
    inputs, targets = spelled(batch)
    in_order = sorted(SENTENCES, key=len, reverse=True)
    for direction, (first, last) in enumerate((("<S>", "</S>"), ("</S>", "<S>"))):
        read = [sentence[:: -1 if direction else 1] for sentence in in_order]
        assert inputs[direction] == [word for words in read for word in [first, *words]]
        assert targets[direction] == [word for words in read for word in [*words, last]]
    assert batch["cu_seqlens"].tolist() == [0, 6, 10, 13, 15]
    assert batch["cu_seqlens"].dtype == np.int32
    assert batch["char_ids"].dtype == batch["inputs"].dtype == batch["targets"].dtype == np.int64


@pytest.mark.parametrize(("budget", "sizes"), [(1, [6, 4, 3, 2]), (5, [6, 4, 5]), (9, [6, 9]), (15, [15])])
def test_batches_of_sentences_keep_their_budget(budget: int, sizes: list[int]) -> None:
    batches = list(sentence_batches(TEXT, VOCABULARY, character_ids, budget))
    assert [batch["targets"].shape[1] for batch in batches] == sizes
    words = [word for batch in batches for word in spelled(batch)[1][1]]
    assert sorted(words) == sorted([word for sentence in SENTENCES for word in [*sentence, "<S>"]])


def test_a_word_outside_of_the_vocabulary_is_read_and_not_predicted() -> None:
    small = Vocabulary.build(TEXT, min_count=2)
    (batch,) = sentence_batches(Sentences.from_words([["the", "zebra"]]), small, character_ids)
    assert spelled(batch)[0] == [["<S>", "the", "zebra"], ["</S>", "zebra", "the"]]
    assert batch["targets"].tolist() == [[3, 2, 1], [2, 3, 0]]


# Streams


def joined(made: StreamBatches, epoch: int, direction: int) -> tuple[list[str], list[str]]:
    """Inputs and targets of an epoch's streams, one stream after the other."""
    steps = [spelled(made.load(batch)) for batch in made.epoch(epoch)]
    texts = []
    for part in (0, 1):
        rows = [np.array(step[part][direction], dtype=object).reshape(made.batch_size, -1) for step in steps]
        texts.append(np.concatenate(rows, axis=1).ravel().tolist())
    return texts[0], texts[1]


@pytest.mark.parametrize("batch_size", [1, 2, 4, 15])
@pytest.mark.parametrize("unroll_steps", [1, 3, 100])
def test_streams_are_the_sentences_joined(batch_size: int, unroll_steps: int) -> None:
    made = streams(batch_size=batch_size, unroll_steps=unroll_steps, shuffle=False)
    length = 15 // batch_size
    steps = made.epoch(0)
    assert made.count == len(steps) == len(made.epoch(5))
    sizes = [made.tokens(step) // batch_size for step in steps]
    assert sum(sizes) == length
    assert max(sizes) <= unroll_steps
    assert max(sizes) - min(sizes) <= 1
    inputs, targets = joined(made, 0, 0)
    everything = [word for words in SENTENCES for word in ["<S>", *words]]
    assert inputs == everything[: batch_size * length]
    assert targets == [word for words in SENTENCES for word in [*words, "</S>"]][: batch_size * length]
    inputs, targets = joined(made, 0, 1)
    backward = [words[::-1] for words in SENTENCES[::-1]]
    assert inputs == [word for words in backward for word in ["</S>", *words]][: batch_size * length]
    assert targets == [word for words in backward for word in [*words, "<S>"]][: batch_size * length]


def test_an_epoch_has_an_order_of_its_own_in_each_direction() -> None:
    made = streams(batch_size=1, seed=3)
    orders = {
        " ".join(joined(made, epoch, direction)[0][:: -1 if direction else 1])
        for epoch in (0, 1, 2)
        for direction in (0, 1)
    }
    assert len(orders) > 4
    for epoch in (0, 1):
        for direction, last in ((0, "</S>"), (1, "<S>")):
            words = joined(made, epoch, direction)[1]
            assert sorted(words) == sorted([word for sentence in SENTENCES for word in [*sentence, last]])


def test_the_epoch_and_the_step_decide() -> None:
    made, again = streams(seed=3), streams(seed=3)
    later = spelled(made.load((5, 1)))
    made.load((0, 0))
    assert spelled(made.load((5, 1))) == later == spelled(again.load((5, 1)))
    assert [spelled(streams(seed=4).load((5, step))) for step in (0, 1)] != [
        spelled(again.load((5, step))) for step in (0, 1)
    ]


@pytest.mark.parametrize("direction", [0, 1])
def test_streams_of_ids_in_one_direction(direction: int) -> None:
    options: dict[str, Any] = {"batch_size": 2, "unroll_steps": 3, "shuffle": False}
    both = StreamBatches(TEXT, VOCABULARY, None, **options)
    one = StreamBatches(TEXT, VOCABULARY, None, **options, directions=[direction])
    spoken = streams(shuffle=False)
    for batch in both.epoch(0):
        whole, part = both.load(batch), one.load(batch)
        words = [[VOCABULARY.words[number] for number in row] for row in whole["input_ids"]]
        assert words == spelled(spoken.load(batch))[0]
        for name in ("input_ids", "targets"):
            assert part[name].tolist() == whole[name][direction : direction + 1].tolist()
    (ids,) = sentence_batches(TEXT, VOCABULARY, None, directions=[direction])
    (letters,) = sentence_batches(TEXT, VOCABULARY, character_ids)
    assert ids["input_ids"].shape == (1, 15)
    assert ids["targets"][0].tolist() == letters["targets"][direction].tolist()


def test_steps_of_varied_lengths() -> None:
    """They cover each epoch, differ from epoch to epoch, and their shares of the usual length follow the run."""
    text = Sentences.from_words([["a", "b"]] * 4000)
    options: dict[str, Any] = {"batch_size": 4, "unroll_steps": 30, "varied": True, "shuffle": False, "directions": [0]}
    made = StreamBatches(text, Vocabulary.build(text), None, **options)
    epochs = [[made.length(batch) for batch in made.epoch(number)] for number in range(4)]
    assert [sum(lengths) for lengths in epochs] == [3000] * 4
    assert {len(lengths) for lengths in epochs} == {made.count} == {103}
    assert len({tuple(lengths) for lengths in epochs}) == 4
    lengths = np.array(epochs).ravel()
    usual, short = lengths[lengths > 22], lengths[lengths <= 22]
    assert np.mean(usual) == pytest.approx(30, abs=0.5)
    assert np.std(usual) == pytest.approx(30 / 14, abs=0.3)
    assert np.mean(short) == pytest.approx(15, abs=1.5)
    assert 0.02 < len(short) / len(lengths) < 0.1
    again = StreamBatches(text, Vocabulary.build(text), None, **options)
    shares = [length / 30 for epoch in epochs for length in epoch]
    for step in (len(shares) - 1, 0, 7, len(epochs[0]), len(epochs[0]) - 1):
        assert again.share(step) == shares[step]
    inputs = np.concatenate([again.load(batch)["input_ids"].reshape(4, -1) for batch in again.epoch(2)], axis=1)
    whole = StreamBatches(text, Vocabulary.build(text), None, **{**options, "varied": False, "unroll_steps": 3000})
    assert inputs.tolist() == whole.load((0, 0))["input_ids"].reshape(4, -1).tolist()
    for steps in (1, 2, 2999, 3000, 9999):
        made = StreamBatches(text, Vocabulary.build(text), None, **{**options, "unroll_steps": steps})
        lengths = np.array([made.length(batch) for batch in made.epoch(0)])
        assert (lengths.sum(), lengths.min() > 0) == (3000, True)


def test_settings_tell_batches_apart() -> None:
    others = [{"batch_size": 3}, {"unroll_steps": 4}, {"seed": 1}, {"shuffle": False}]
    others += [{"varied": True}, {"directions": [1]}]
    settings = [json.dumps(streams(**options).settings) for options in [{}, *others]]
    assert json.dumps(streams().settings) == settings[0]
    small = StreamBatches(TEXT, Vocabulary.build(TEXT, min_count=2), character_ids, batch_size=2, unroll_steps=3)
    assert len({*settings, json.dumps(small.settings)}) == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 16}, "16 streams need as many tokens, the text has 15"),
        ({"batch_size": 0}, "batch_size must be a positive integer, got 0"),
        ({"unroll_steps": 0}, "unroll_steps must be a positive integer, got 0"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
    ],
)
def test_streams_that_cannot_be(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"StreamBatches: {message}")):
        streams(**options)


# The baseline


def test_the_unigram_model_by_hand() -> None:
    small = Vocabulary.build(TEXT, min_count=2)  # <S> </S> <UNK> the cat
    counts = {"</S>": 4, "<UNK>": 6, "the": 3, "cat": 2}
    text = Sentences.from_words([["the", "zebra"], ["cat"]])
    logs = [math.log((counts[word] + 1) / (15 + 5)) for word in ("the", "<UNK>", "</S>", "cat", "</S>")]
    assert unigram_perplexity(TEXT, text, small) == pytest.approx(math.exp(-sum(logs) / 5))


def test_a_message_shows_a_part_of_a_word(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text(f"<S>\n{'a' * 10**6} b\n", encoding="utf-8")
    with pytest.raises(ValueError, match="must be one word, got 'aaa") as error:
        Vocabulary.from_file(path)
    assert len(str(error.value)) < 400 + len(str(path))
