"""Beam search: against exhaustive search, its bits, its prefixes and its limits."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits
from helpers_marian import random_transformer
from test_greedy import ending, rows, sources

import fastattn
from fastattn import kernels
from fastattn.generation import GenerateOutput, generate
from fastattn.models import Transformer
from fastattn.nn.cache import Cache

BEAMS: list[dict[str, Any]] = [
    {"num_beams": 2},
    {"num_beams": 5, "early_stopping": True, "length_penalty": 0.5},
    {"num_beams": 4, "early_stopping": "never", "length_penalty": 1.5, "no_repeat_ngram_size": 2},
    {"num_beams": 3, "repetition_penalty": 1.3, "min_length": 6, "num_return_sequences": 3},
]


def found(model: Transformer, ids: Any, mask: Any = None, **options: Any) -> GenerateOutput:
    output: GenerateOutput = generate(model, ids, mask, output_scores=True, **{"max_length": 20, **options})
    return output


class TestExhaustive:
    """Of 3 words and 4 tokens, 81 beams hold every sequence."""

    WORDS = (3, 8, 20)

    @pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 1.0, 2.0])
    def test_the_best_of_all_sequences(self, length_penalty: float) -> None:
        model = random_transformer(vocab_size=90, decoder_vocab_size=90, pad_token_id=89, decoder_start_token_id=89)
        ids = np.array([[5, 6, 7, 1]])
        options = {"early_stopping": "never", "vocabulary": self.WORDS, "forced_eos_token_id": 0, "max_length": 6}
        output = found(model, ids, num_beams=81, num_return_sequences=8, length_penalty=length_penalty, **options)
        expected = []
        words = [*self.WORDS, 0]
        for count in range(5):
            for sequence in itertools.product(self.WORDS, repeat=count):
                whole = [89, *sequence, 0]
                logits = model(ids, decoder_input_ids=[whole[:-1]]).logits[0][:, words]
                places = [words.index(token) for token in whole[1:]]
                own = kernels.log_softmax(np.ascontiguousarray(logits))[np.arange(count + 1), places]
                own[4:] = 0.0  # the end that the limit forces
                expected.append((float(own.sum()) / (count + 1) ** length_penalty, whole))
        expected.sort(reverse=True)
        for (score, sequence), row, own in zip(
            expected, rows(output.sequences, 89), output.sequences_scores, strict=False
        ):
            assert row == sequence
            assert own == pytest.approx(score, abs=1e-5)


class TestBits:
    @pytest.mark.parametrize("options", BEAMS)
    def test_a_source_does_not_depend_on_the_others(self, threads: int, options: dict[str, Any]) -> None:
        model = ending()
        ids, mask = sources(9)
        count = options.get("num_return_sequences", 1)
        together = found(model, ids, mask, **options)
        assert len({len(row) for row in rows(together.sequences)}) > 2 or options["early_stopping"] == "never"
        for i in range(9):
            alone = found(model, ids[i : i + 1, : mask[i].sum()], **options)
            own = slice(i * count, (i + 1) * count)
            assert rows(alone.sequences) == rows(together.sequences[own])
            assert_same_bits(alone.sequences_scores, together.sequences_scores[own])
            longest = alone.sequences.shape[1]
            assert_same_bits(alone.token_log_probs, together.token_log_probs[own, :longest])

    @pytest.mark.parametrize("options", BEAMS)
    def test_the_cache_changes_nothing(self, isa: str, options: dict[str, Any]) -> None:
        model = ending()
        ids, mask = sources(5)
        cached, uncached = (found(model, ids, mask, use_cache=cache, **options) for cache in (True, False))
        np.testing.assert_array_equal(cached.sequences, uncached.sequences)
        assert_same_bits(cached.sequences_scores, uncached.sequences_scores)
        assert_same_bits(cached.token_log_probs, uncached.token_log_probs)

    def test_a_cache_that_grows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = ending(more=0.0)
        ids, mask = sources(6)
        expected = found(model, ids, mask, num_beams=4, max_length=30)
        monkeypatch.setattr(fastattn.nn.cache, "FIRST_CAPACITY", 2)
        actual = found(model, ids, mask, num_beams=4, max_length=30)
        np.testing.assert_array_equal(actual.sequences, expected.sequences)
        assert_same_bits(actual.token_log_probs, expected.token_log_probs)

    def test_few_tokens_are_copied(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Hypotheses that part late have most of their tokens in common."""
        copied, copy = [], Cache._copy

        def count(self: Cache, slots: Any) -> None:
            before = [rows.view(np.int32).copy() for rows, *_ in self.layers]  # their unused room may hold NaN
            copy(self, slots)
            now = [rows.view(np.int32) for rows, *_ in self.layers]
            copied.append(sum(int((a != b).any(1).sum()) for a, b in zip(before, now, strict=True)))

        monkeypatch.setattr(Cache, "_copy", count)
        model = random_transformer(bad_words_ids=[[0]], forced_eos_token_id=None)
        ids, mask = sources(8)
        found(model, ids, mask, num_beams=4, max_length=38)
        all_of_them = 8 * 4 * sum(range(2, 38)) * len(model.decoder.layers)
        assert 0 < sum(copied) < all_of_them / 10

    def test_the_reference(self) -> None:
        model = random_transformer(3, trainable=True)
        ids, mask = sources(3)
        with fastattn.use_reference():
            expected = found(model, ids, mask, num_beams=3)
        actual = found(model, ids, mask, num_beams=3)
        np.testing.assert_array_equal(actual.sequences, expected.sequences)
        np.testing.assert_allclose(actual.sequences_scores, expected.sequences_scores, rtol=1e-4)


class TestResults:
    def test_scores_are_those_of_the_model(self) -> None:
        model = ending(forced_eos_token_id=None)
        ids, mask = sources(4)
        output = found(model, ids, mask, num_beams=4, num_return_sequences=2, length_penalty=0.7)
        for j, row in enumerate(rows(output.sequences)):
            logits = model(ids[j // 2 : j // 2 + 1], mask[j // 2 : j // 2 + 1], decoder_input_ids=[row[:-1]]).logits[0]
            own = kernels.log_softmax(logits)[np.arange(len(row) - 1), row[1:]]
            np.testing.assert_allclose(output.token_log_probs[j, 1 : len(row)], own, rtol=1e-4, atol=1e-5)
            assert not output.token_log_probs[j, len(row) :].any()
            assert output.sequences_scores[j] == pytest.approx(own.sum() / (len(row) - 1) ** 0.7, rel=1e-4)
        assert (np.diff(output.sequences_scores.reshape(4, 2)) <= 0).all()

    def test_greedy_has_scores_too(self) -> None:
        model = ending(forced_eos_token_id=None)
        ids, mask = sources(4)
        output = found(model, ids, mask)
        np.testing.assert_array_equal(output.sequences, generate(model, ids, mask, max_length=20))
        for j, row in enumerate(rows(output.sequences)):
            logits = model(ids[j : j + 1], mask[j : j + 1], decoder_input_ids=[row[:-1]]).logits[0]
            own = kernels.log_softmax(logits)[np.arange(len(row) - 1), row[1:]]
            np.testing.assert_allclose(output.token_log_probs[j, 1 : len(row)], own, rtol=1e-4, atol=1e-5)
            assert output.sequences_scores[j] == pytest.approx(own.mean(), rel=1e-4)

    @pytest.mark.parametrize("beams", [1, 3])
    def test_prefixes(self, beams: int) -> None:
        model = ending()
        ids, mask = sources(4)
        prefixes = [[], [7], [9, 12, 0], [5, 6]]
        together = found(model, ids, mask, num_beams=beams, prefix_ids=prefixes)
        for i, prefix in enumerate(prefixes):
            assert together.sequences[i, 1 : 1 + len(prefix)].tolist() == prefix
            alone = found(model, ids[i : i + 1], mask[i : i + 1], num_beams=beams, prefix_ids=prefixes[i : i + 1])
            own = alone.sequences.shape[1]
            np.testing.assert_array_equal(together.sequences[i, :own], alone.sequences[0])
            assert_same_bits(together.token_log_probs[i, :own], alone.token_log_probs[0])
            assert not alone.token_log_probs[0, : 1 + len(prefix)].any()
            assert alone.token_log_probs[0, 1 + len(prefix)] < 0

    @pytest.mark.parametrize("beams", [1, 3])
    def test_a_limit_for_each_source(self, beams: int) -> None:
        model = random_transformer()
        ids, mask = sources(3)
        limits = [9, 1, 4]
        together = found(model, ids, mask, num_beams=beams, max_length=None, max_new_tokens=limits)
        for i, limit in enumerate(limits):
            alone = found(
                model, ids[i : i + 1], mask[i : i + 1], num_beams=beams, max_length=None, max_new_tokens=limit
            )
            own = rows(alone.sequences)[0]
            assert len(own) <= 1 + limit
            assert rows(together.sequences)[i] == own
            assert_same_bits(together.sequences_scores[i], alone.sequences_scores[0])

    @pytest.mark.parametrize("beams", [1, 3])
    def test_a_vocabulary(self, beams: int) -> None:
        model = ending(tie_word_embeddings=beams == 1)
        ids, mask = sources(4)
        words = [3, 9, 17, 30, 31]
        output = found(model, ids, mask, num_beams=beams, vocabulary=words, bad_words_ids=[])
        assert set(np.unique(output.sequences)) <= {0, 49, *words}
        banned = [[i] for i in range(1, 50) if i not in words]
        if beams == 1:
            np.testing.assert_array_equal(output.sequences, found(model, ids, mask, bad_words_ids=banned).sequences)

    def test_fewer_words_than_beams(self) -> None:
        model = random_transformer(forced_eos_token_id=None)
        output = found(model, [[4, 5]], num_beams=4, num_return_sequences=4, vocabulary=[7], max_length=3)
        real = np.isfinite(output.sequences_scores)
        assert real.sum() == 3  # 7 7, 7 0 and 0
        assert rows(output.sequences[~real]) == [[49]]

    def test_numpy_values(self) -> None:
        model = ending()
        ids, mask = sources(4)
        given = {"num_beams": np.int64(3), "early_stopping": np.True_, "length_penalty": np.float32(2.0)}
        usual = {"num_beams": 3, "early_stopping": True, "length_penalty": 2.0}
        late = found(model, ids, mask, **{**usual, "early_stopping": False})
        expected = found(model, ids, mask, **usual)
        assert (late.sequences_scores != expected.sequences_scores).any()
        assert_same_bits(found(model, ids, mask, **given).sequences_scores, expected.sequences_scores)

    def test_no_sources(self) -> None:
        output = found(
            ending(), np.empty((0, 5), np.int64), num_beams=2, max_length=None, max_new_tokens=[], prefix_ids=[]
        )
        assert output.sequences.shape == (0, 1)

    def test_a_least_length_beyond_the_limit_of_a_source(self) -> None:
        model = ending()
        ids, mask = sources(2)
        options = {"max_length": None, "min_length": 8}
        together = found(model, ids, mask, max_new_tokens=[12, 3], **options)
        alone = found(model, ids[1:], mask[1:], max_new_tokens=[3], **options)
        assert rows(together.sequences)[1] == rows(alone.sequences)[0]

    def test_options_of_the_folder(self, tmp_path: Any) -> None:
        model = ending()
        model.save_pretrained(tmp_path)
        path = tmp_path / "generation_config.json"
        path.write_text(path.read_text().replace("{", '{"num_beams": 4, "length_penalty": 0.3, ', 1))
        read = Transformer.from_pretrained(tmp_path)
        ids, mask = sources(4)
        np.testing.assert_array_equal(
            generate(read, ids, mask, max_length=20), found(model, ids, mask, num_beams=4, length_penalty=0.3).sequences
        )
        read.save_pretrained(tmp_path / "again")
        again = Transformer.from_pretrained(tmp_path / "again")
        assert again.settings.values["num_beams"] == 4


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"num_beams": 51}, "num_beams must be from 1 to 50, the words of the target vocabulary, got 51"),
            ({"num_beams": 0}, "num_beams must be from 1 to 50, .*, got 0"),
            ({"num_beams": 2, "do_sample": True}, "num_beams is 2 and .*do_sample is True"),
            ({"num_return_sequences": 2}, "num_return_sequences must be at most num_beams = 1, got 2"),
            ({"early_stopping": True}, "early_stopping needs num_beams, got True without"),
            ({"num_beams": 2, "early_stopping": "soon"}, "early_stopping must be True, False or 'never', got 'soon'"),
            (
                {"num_beams": 2, "early_stopping": np.array([True, False])},
                r"early_stopping must be True, False or 'never', got array\(",
            ),
            ({"repetition_penalty": 1e-46}, r"repetition_penalty must be a number in \[1e-06, 1000\], got 1e-46"),
            (
                {"do_sample": True, "temperature": 1e-39},
                r"temperature must be a number in \[1e-06, 1e\+06\], got 1e-39",
            ),
            ({"prefix_ids": [1, 2, 3, 4, 5]}, r"prefix_ids\[0\] must have one axis, got shape \(\)"),
            ({"vocabulary": []}, "vocabulary must be ids of the target vocabulary, below 50, got none"),
            ({"vocabulary": [[1], [2, 3]]}, "vocabulary must be an integer array, got rows of different lengths"),
            ({"num_beams": 2, "early_stopping": 1}, "early_stopping must be True, False or 'never', got 1"),
            ({"num_beams": 2, "temperature": 0.5}, "temperature needs do_sample, got 0.5 without"),
            ({"top_k": 5}, "top_k needs do_sample, got 5 without"),
            ({"seed": 5}, "seed needs do_sample, got 5 without"),
            ({"do_sample": True, "temperature": 0.0}, r"temperature must be a number in \[1e-06, 1e\+06\], got 0.0"),
            ({"do_sample": True, "top_p": 1.5}, r"top_p must be a number in \[0, 1\], got 1.5"),
            ({"do_sample": True, "top_k": -1}, "top_k must be an integer of at least 0, got -1"),
            ({"do_sample": True, "seed": -1}, r"seed must be from 0 to 2\*\*64 - 1, got -1"),
            ({"length_penalty": float("nan")}, r"length_penalty must be a number in \[-10, 10\], got nan"),
            ({"repetition_penalty": 0.0}, r"repetition_penalty must be a number in \[1e-06, 1000\], got 0.0"),
            ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size must be an integer of at least 0, got -1"),
            ({"min_length": 9, "max_length": 8}, "min_length must be at most max_length = 8, got 9"),
            (
                {"forced_bos_token_id": 50},
                "forced_bos_token_id must be an id of the target vocabulary, below 50, got 50",
            ),
            ({"prefix_ids": [[1]]}, "prefix_ids must have a sequence of ids for each of 5 sources, got 1"),
            ({"prefix_ids": [[], [], [50], [], []]}, r"prefix_ids\[2\] must be ids of the .*, below 50, got 50"),
            ({"prefix_ids": [[], [1] * 40, [], [], []]}, r"prefix_ids\[1\] has 40 tokens"),
            ({"max_new_tokens": [3, 4]}, r"max_new_tokens must have shape \(5,\), got \(2,\)"),
            ({"max_new_tokens": [3, 4, 0, 1, 1]}, "max_new_tokens must be from 1 to max_position_.* = 40, got 0"),
            ({"vocabulary": [3, 50]}, "vocabulary must be ids of the target vocabulary, below 50, got 50"),
            ({"vocabulary": np.arange(0)}, "vocabulary must be ids of the target vocabulary, below 50, got none"),
        ],
    )
    def test_options(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=f"generate: .*{message}"):
            generate(ending(), sources()[0], **options)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"prefix_ids": 5}, "prefix_ids must be a sequence of sequences of ids, got int"),
            ({"prefix_ids": [None, [1], [1], [1], [1]]}, r"prefix_ids\[0\] must be an integer array, got NoneType"),
            ({"vocabulary": {1, 2}}, "vocabulary must be an integer array, got set"),
            ({"use_cache": "no"}, "use_cache must be a bool, got 'no'"),
        ],
    )
    def test_types(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(TypeError, match=f"generate: {message}"):
            generate(ending(), sources()[0], **options)

    @pytest.mark.parametrize(
        ("folder", "options", "message"),
        [
            ({"diversity_penalty": 0.5}, {"num_beams": 2}, "diversity_penalty is 0.5; only 0.0 is supported"),
            ({"min_p": 0.1}, {"do_sample": True}, "min_p is 0.1; only None is supported"),
            ({"num_beams": 4, "do_sample": True}, {}, "num_beams is 4 and .*do_sample is True"),
            ({"num_beams": "4"}, {}, "num_beams must be from 1 to 50"),
            ({"do_sample": "yes"}, {}, "do_sample must be a bool, got 'yes'"),
        ],
    )
    def test_a_folder(self, tmp_path: Any, folder: dict[str, Any], options: dict[str, Any], message: str) -> None:
        ending().save_pretrained(tmp_path)
        path = tmp_path / "generation_config.json"
        values = fastattn.formats.hugging_face.read_json(path)
        path.write_text(json.dumps({**values, **folder}))
        model = Transformer.from_pretrained(tmp_path)
        with pytest.raises((ValueError, TypeError), match=f"generation_config.json: .*{message}"):
            generate(model, sources()[0], **options)
        assert generate(ending(), sources()[0]).shape[0] == 5
