"""generate: the bits of decoding with a cache, what ends a sequence, and every refusal."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits
from helpers_marian import random_transformer

import fastattn
from fastattn import ragged
from fastattn.generation import generate
from fastattn.models import Transformer
from fastattn.models.transformer.decoding import TransformerDecoder
from fastattn.nn import cache

KINDS: dict[str, dict[str, Any]] = {
    "post-norm": {},
    "pre-norm": {"normalize_before": True},
    "interleaved": {"position_embedding_type": "sinusoidal", "first_position": 2},
    "learned": {"position_embedding_type": "learned"},
    "untied": {"tie_word_embeddings": False},
    "two tables": {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 70, "activation_function": "relu"},
}
VOCABULARY = [[i, i] for i in range(50)]  # as phrases: no token follows itself, which random models are fond of


def sources(sequences: int = 5, longest: int = 13, seed: int = 0) -> tuple[Any, Any]:
    """Ids and a mask with padding on the right, both `[sequences, longest]`; one row is full."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, sequences)
    lengths[0] = longest
    return rng.integers(1, 49, (sequences, longest)), np.arange(longest) < lengths[:, None]


def ending(seed: int = 0, more: float = 2.0, **changes: Any) -> Transformer:
    """A model whose sequences end at different lengths, most of them soon; the sooner, the `more`."""
    model = random_transformer(seed, trainable=True, **{"bad_words_ids": VOCABULARY, **changes})
    model.final_logits_bias.data[0, model.config.eos_token_id] += more
    return model.freeze()


@pytest.fixture
def model() -> Transformer:
    return ending()


def rows(ids: Any, pad: int = 49) -> list[list[int]]:
    """The sequences without their padding, which only follows an end."""
    result = []
    for row in ids.tolist():
        length = len(row)
        while length > 1 and row[length - 1] == pad:
            length -= 1
        result.append(row[:length])
    return result


class TestTheCache:
    @pytest.mark.parametrize("capacity", [1, 32])
    @pytest.mark.parametrize("kind", KINDS)
    def test_hidden_states_have_the_same_bits(
        self, isa: str, threads: int, monkeypatch: pytest.MonkeyPatch, kind: str, capacity: int
    ) -> None:
        monkeypatch.setattr(cache, "FIRST_CAPACITY", capacity)
        model = random_transformer(**KINDS[kind])
        ids, mask = sources()
        tokens, offsets, _ = ragged.pack(ids, mask)
        memory = model.encode_ragged(tokens, offsets)
        words = np.random.default_rng(1).integers(0, 50, (5, 12))
        decoder, left = TransformerDecoder(model, memory, offsets, 12), np.arange(5)
        lengths = np.full(5, 12)
        lengths[[1, 3]] = 7, 2  # these end before the others
        for length in range(1, 13):
            before, left = left, np.flatnonzero(lengths >= length)
            if len(left) < len(before):
                decoder.keep(np.searchsorted(before, left))
            actual = decoder.read(words[left, length - 1])
            for i, row in zip(left, actual, strict=True):
                alone = np.array([0, length], np.int32)
                mine = memory[offsets[i] : offsets[i + 1]]
                whole = model.decode_ragged(words[i, :length], alone, mine, np.array([0, len(mine)]))
                np.testing.assert_array_equal(row, whole[-1])

    @pytest.mark.parametrize("kind", KINDS)
    def test_results(self, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
        monkeypatch.setattr(cache, "FIRST_CAPACITY", 3)
        model = ending(**KINDS[kind])
        for options in ({}, {"bad_words_ids": []}):
            ids, mask = sources(9)
            expected = generate(model, ids, mask, max_length=25, use_cache=False, **options)
            np.testing.assert_array_equal(generate(model, ids, mask, max_length=25, **options), expected)

    def test_more_tokens_than_the_kernel_takes_at_once(self, isa: str) -> None:
        model = random_transformer(max_position_embeddings=600, forced_eos_token_id=None)
        ids, mask = sources(2, 590)
        tokens, offsets, _ = ragged.pack(ids, mask)
        memory = model.encode_ragged(tokens, offsets)
        decoder = TransformerDecoder(model, memory, offsets, 600)
        words = np.random.default_rng(1).integers(0, 50, (2, 530))
        for length in range(1, 531):
            actual = decoder.read(words[:, length - 1])
            if length % 64 in (0, 1, 9):
                own = np.array([0, length, 2 * length], np.int32)
                whole = model.decode_ragged(words[:, :length].reshape(-1), own, memory, offsets)
                np.testing.assert_array_equal(actual, whole[length - 1 :: length])

    @pytest.mark.parametrize("use_cache", [True, False])
    def test_rows_that_part_and_change_places(self, isa: str, use_cache: bool) -> None:
        """As a search with beams has them: each scores as the same sequence alone."""
        model = random_transformer()
        ids, mask = sources(3)
        decoder = model.begin(ids, mask, max_length=40, use_cache=use_cache)
        rng, rows = np.random.default_rng(2), np.arange(3)
        sequences: list[list[int]] = [[], [], []]
        for kept in ([0, 0, 1, 1, 2, 2], [1, 0, 2, 2, 5, 4], [0, 3, 4], [0, 2], [1, 1], [0, 1]):
            decoder.keep(np.array(kept))
            rows, sequences = rows[kept], [list(sequences[i]) for i in kept]
            tokens = rng.integers(0, 50, len(kept))
            for sequence, token in zip(sequences, tokens.tolist(), strict=True):
                sequence.append(token)
            scores = decoder.step(tokens)
            assert decoder.sources.tolist() == rows.tolist()
            for source, sequence, row in zip(rows, sequences, scores, strict=True):
                own = ids[source : source + 1, : mask[source].sum()]
                assert_same_bits(row, model(own, decoder_input_ids=[sequence]).logits[0, -1])
        with pytest.raises(ValueError, match="rows must be in the order of their sources"):
            model.begin(ids, mask, max_length=40).keep(np.array([1, 0]))

    def test_no_rows(self) -> None:
        decoder = random_transformer().begin(*sources(2), max_length=9)
        decoder.keep(np.array([], int))
        assert decoder.step(np.array([], int)).shape == (0, 50)


class TestOnItsOwn:
    def test_a_sequence_does_not_depend_on_the_others(self, threads: int, model: Transformer) -> None:
        ids, mask = sources(12)
        together = rows(generate(model, ids, mask, max_length=30))
        assert len({len(row) for row in together}) > 3  # they end here and there
        for i in range(12):
            alone = generate(model, ids[i : i + 1, : mask[i].sum()], max_length=30)
            assert rows(alone) == together[i : i + 1]
        order = np.random.default_rng(0).permutation(12)
        again = rows(generate(model, ids[order], mask[order], max_length=30))
        assert again == [together[i] for i in order]

    def test_many_threads(self, model: Transformer) -> None:
        ids, mask = sources(6)
        expected = generate(model, ids, mask)
        with ThreadPoolExecutor(4) as pool:
            for actual in pool.map(lambda _: generate(model, ids, mask), range(12)):
                np.testing.assert_array_equal(actual, expected)

    def test_padding_is_never_looked_at(self, model: Transformer) -> None:
        ids, mask = sources(6)
        expected = generate(model, ids, mask)
        ids[~mask] = -7
        np.testing.assert_array_equal(generate(model, ids.astype(np.int16), mask.astype(int)), expected)

    def test_a_model_that_trains(self) -> None:
        trainable, frozen = (random_transformer(3, trainable=t) for t in (True, False))
        ids, mask = sources(4)
        np.testing.assert_array_equal(generate(trainable, ids, mask), generate(frozen, ids, mask))
        assert trainable.records()
        assert all(parameter.grad is None for parameter in trainable.parameters())

    def test_a_model_that_trains_keeps_its_weights_and_gradients(self) -> None:
        """Packed matrices are all the memory that decoding adds to a large model."""
        model = random_transformer(d_model=96, encoder_ffn_dim=512, decoder_ffn_dim=512, trainable=True)
        ids, mask = sources(4)
        model(ids, mask, labels=ids).loss.backward()
        arrays = [(parameter.data, parameter.grad) for parameter in model.parameters()]
        kept = [(data.copy(), None if grad is None else grad.copy()) for data, grad in arrays]
        size = sum(data.nbytes for data, _ in arrays)
        tracemalloc.start()
        generate(model, ids[:1], mask[:1], max_length=3)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < size / 2  # what NumPy allocates, which packed matrices are not
        assert all(parameter.data.flags.writeable for parameter in model.parameters())
        for parameter, (data, grad), (old, gradient) in zip(model.parameters(), arrays, kept, strict=True):
            np.testing.assert_array_equal(data, old)
            assert np.shares_memory(parameter.data, data)
            assert (parameter.grad is None) == (grad is None)
            if gradient is not None:
                np.testing.assert_array_equal(parameter.grad, gradient)

    def test_the_reference(self) -> None:
        model = random_transformer(3, trainable=True)
        ids, mask = sources(4)
        with fastattn.use_reference():
            expected = generate(model, ids, mask)
        np.testing.assert_array_equal(generate(model, ids, mask), expected)


class TestEnds:
    def test_what_is_given(self, model: Transformer) -> None:
        ids, mask = sources(12)
        result = generate(model, ids, mask, max_length=20)
        assert result.dtype == np.int64
        assert (result[:, 0] == 49).all()
        for row in rows(result):
            assert row.index(0) == len(row) - 1
            assert len(row) <= 20

    def test_the_greedy_choice(self, model: Transformer) -> None:
        ids, mask = sources(3)
        result = generate(model, ids, mask, max_length=9, bad_words_ids=[])
        scores = model(ids, mask, result).logits
        for i, row in enumerate(rows(result)):
            for j in range(1, min(len(row), 8)):
                assert row[j] == scores[i, j - 1].argmax()

    def test_lengths(self) -> None:
        model = random_transformer(max_length=11)
        ids, _ = sources(3)
        assert generate(model, ids).shape == (3, 11)
        assert generate(model, ids, max_length=6).shape == (3, 6)
        assert generate(model, ids, max_new_tokens=6).shape == (3, 7)
        assert generate(model, ids, max_length=41).shape == (3, 41)
        assert generate(random_transformer(), ids).shape == (3, 40)
        np.testing.assert_array_equal(generate(model, ids, max_length=2), [[49, 0]] * 3)

    def test_the_last_token(self) -> None:
        model = random_transformer(forced_eos_token_id=None)
        ids, _ = sources(3)
        free, forced = (generate(model, ids, max_length=6, forced_eos_token_id=i) for i in (None, 7))
        assert (free[:, -1] != 0).all()
        np.testing.assert_array_equal(free[:, :-1], forced[:, :-1])
        assert (forced[:, -1] == 7).all()

    def test_another_first_token(self, model: Transformer) -> None:
        ids, _ = sources(3)
        assert (generate(model, ids, decoder_start_token_id=5)[:, 0] == 5).all()

    def test_bad_words(self) -> None:
        model = random_transformer(bad_words_ids=VOCABULARY)
        ids, mask = sources(6)
        result = generate(model, ids, mask)
        assert (result[:, 1:] != result[:, :-1]).all()
        assert (np.diff(generate(model, ids, mask, bad_words_ids=[])) == 0).any()
        word = int(result[0, 1])
        assert not (generate(model, ids, mask, bad_words_ids=[[word]])[:, 1:] == word).any()
        phrase = result[0, 2:5].tolist()
        others = generate(model, ids, mask, bad_words_ids=[*VOCABULARY, phrase])[0]
        assert others[:4].tolist() == result[0, :4].tolist()
        assert others[4] != phrase[2]
        start = result[0, :2].tolist()  # the first token also counts, and may be all there is
        assert generate(model, ids, mask, bad_words_ids=[*VOCABULARY, start])[0, 1] != start[1]

    def test_memory_is_that_of_the_tokens_there_are(self) -> None:
        """Not of those that there might be."""
        model = ending(max_position_embeddings=2_000_000, more=30.0)
        ids, mask = sources(8)
        tracemalloc.start()
        result = generate(model, ids, mask)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert result.shape == (8, 2)
        assert peak < 10 * 2**20

    def test_numbers_of_numpy(self, model: Transformer) -> None:
        ids, mask = sources(3)
        expected = generate(model, ids, mask, max_length=9, bad_words_ids=[[3, 4]])
        words = np.array([[3, 4]])
        np.testing.assert_array_equal(generate(model, ids, mask, max_length=np.int32(9), bad_words_ids=words), expected)

    def test_no_sequences(self, model: Transformer) -> None:
        for ids in (np.zeros((0, 3), int), np.zeros((0, 0), int)):
            assert generate(model, ids).shape == (0, 1)


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"max_length": 5, "max_new_tokens": 5}, "max_length and max_new_tokens must not both be given"),
            ({"max_length": 1}, r"max_length must be from 2 to max_position_embeddings \+ 1 = 41, got 1"),
            ({"max_length": 42}, "max_length must be .*, got 42"),
            ({"max_length": 7.0}, "max_length must be .*, got 7.0"),
            ({"max_new_tokens": 0}, "max_new_tokens must be from 1 to max_position_embeddings = 40, got 0"),
            ({"max_new_tokens": True}, "max_new_tokens must be .*, got True"),
            ({"max_new_tokens": 41}, "max_new_tokens must be .*, got 41"),
            ({"decoder_start_token_id": 50}, "decoder_start_token_id must be an id of the target .*, below 50, got 50"),
            ({"forced_eos_token_id": -1}, "forced_eos_token_id must be an id of the target .*, below 50, got -1"),
            ({"bad_words_ids": [[3], [4, 50]]}, "bad_words_ids must be lists of ids .*, below 50, got 50"),
            ({"bad_words_ids": [[3], []]}, r"bad_words_ids must be lists of ids, none of them empty, got \[\[3\], \["),
            ({"bad_words_ids": [3]}, r"bad_words_ids must be lists of ids, none of them empty, got \[3\]"),
        ],
    )
    def test_options(self, model: Transformer, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=f"generate: {message}"):
            generate(model, sources()[0], **options)

    def test_sources(self, model: Transformer) -> None:
        ids, mask = sources()
        with pytest.raises(ValueError, match=r"input_ids must be in \[0, 50\), got 50 at \(1, 0\)"):
            generate(model, np.where(np.arange(5)[:, None] == 1, 50, ids), mask)
        with pytest.raises(TypeError, match="input_ids must be an integer array, got float64"):
            generate(model, ids * 1.0)
        with pytest.raises(ValueError, match=r"attention_mask must have shape \(5, 13\), got \(5, 12\)"):
            generate(model, ids, mask[:, 1:])
        with pytest.raises(ValueError, match="input_ids must have a token in each sequence, got none in sequence 2"):
            generate(model, ids, mask & (np.arange(5) != 2)[:, None])
        with pytest.raises(ValueError, match="position 40 in sequence 0, but max_position_embeddings is 40"):
            generate(model, np.ones((1, 41), int))

    def test_training_mode(self) -> None:
        model = random_transformer(trainable=True).train()
        with pytest.raises(ValueError, match=r"generate: the model is in training mode; call eval\(\) first"):
            generate(model, sources()[0])
        with pytest.raises(ValueError, match=r"Transformer: the model is in training mode; call eval\(\) first"):
            model.begin(sources()[0], max_length=9)


def test_several_ends(model: Transformer) -> None:
    """The first of them ends a sequence."""
    ids, mask = sources(20)
    config = model.config
    one = rows(generate(model, ids, mask, max_length=30))
    common = np.bincount([token for row in one for token in row[1:-1]], minlength=50)
    other = int(common.argmax())
    model.config = config.replace(eos_token_id=(config.eos_token_id, other), bad_words_ids=[*VOCABULARY, [0], [other]])
    assert other not in {0, 49}
    cut = [row[: row.index(other, 1) + 1] if other in row[1:] else row for row in one]
    assert cut != one
    assert rows(generate(model, ids, mask, max_length=30)) == cut
