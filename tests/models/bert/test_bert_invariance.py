"""BertModel serves: the same bits in any company, nothing left behind, memory flat."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastattn import ragged
from fastattn.models import BertConfig, BertModel

Make = Callable[..., BertModel]


def _tree(module: Any) -> list[tuple[str, int]]:
    here = [(name, id(value)) for name, value in vars(module).items()]
    return here + [entry for child in module.children() for entry in _tree(child)]


def test_a_call_leaves_nothing_on_a_module(make_bert: Make) -> None:
    model = make_bert()
    before = _tree(model)
    assert len(before) > 50
    model(np.arange(12).reshape(2, 6), output_hidden_states=True, output_attentions=True)
    assert _tree(model) == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm, which Linux has")
def test_memory_stays_flat_over_batches_of_mixed_lengths(make_bert: Make) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    model = make_bert(hidden_size=64, intermediate_size=256)
    rng = np.random.default_rng(0)

    def serve(batches: int) -> None:
        for _ in range(batches):
            offsets = ragged.cu_seqlens(rng.integers(0, 41, rng.integers(1, 9)))
            model.forward_ragged(rng.integers(0, 60, offsets[-1]), offsets)

    serve(100)
    before = resident()
    serve(400)
    assert resident() - before < 4 * 2**20


def bits(array: Any) -> bytes:
    return np.ascontiguousarray(array).tobytes()


class TestInvariance:
    """The bits of a sequence's result depend on the sequence, the weights and the instruction set alone."""

    @staticmethod
    def sentences(rng: np.random.Generator, vocabulary: int, longest: int) -> list[Any]:
        sizes = [1, 2, longest, 7, longest // 2 + 1, 16, 33 % longest, 3]
        return [rng.integers(0, vocabulary, size) for size in sizes]

    @staticmethod
    def encode(model: BertModel, sentences: list[Any]) -> list[tuple[bytes, bytes]]:
        offsets = ragged.cu_seqlens([len(s) for s in sentences])
        output = model.forward_ragged(np.concatenate(sentences), offsets)
        assert output.pooler_output is not None
        parts = np.split(output.last_hidden_state, offsets[1:-1])
        return [(bits(a), bits(b)) for a, b in zip(parts, output.pooler_output, strict=True)]

    def check(self, model: BertModel, restore: None, longest: int) -> None:
        import fastattn

        rng = np.random.default_rng(0)
        sentences = self.sentences(rng, model.config.vocab_size, longest)
        fastattn.set_num_threads(1)
        alone = [self.encode(model, [sentence])[0] for sentence in sentences]
        for threads in (1, 2):
            fastattn.set_num_threads(threads)
            assert [self.encode(model, [sentence])[0] for sentence in sentences] == alone
            for _ in range(4):
                order = rng.permutation(len(sentences))
                together = self.encode(model, [sentences[i] for i in order])
                assert together == [alone[i] for i in order]

        failures: list[object] = []

        def call(seed: int) -> None:
            mine = np.random.default_rng(seed)
            try:
                for _ in range(5):
                    order = mine.permutation(len(sentences))[: seed + 1]
                    if self.encode(model, [sentences[i] for i in order]) != [alone[i] for i in order]:
                        failures.append((seed, order))
            except Exception as error:
                failures.append(error)

        callers = [threading.Thread(target=call, args=(seed,)) for seed in range(8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert not failures

    def test_tiny(self, make_bert: Make, isa: str, restore_runtime: None) -> None:
        self.check(make_bert(), restore_runtime, 40)

    def test_odd_sizes(self, make_bert: Make, isa: str, restore_runtime: None) -> None:
        model = make_bert(hidden_size=45, num_attention_heads=5, intermediate_size=101)
        self.check(model, restore_runtime, 40)

    def test_minilm(self, minilm: Path, restore_runtime: None) -> None:
        self.check(BertModel.from_pretrained(minilm), restore_runtime, 130)

    def test_nan_stays_in_its_own_sequence(self, folder: Any, isa: str) -> None:
        folder.tensors["embeddings.word_embeddings.weight"][59] = np.nan  # no file may have it
        model = BertModel(BertConfig.from_dict(folder.config), folder.tensors)
        sentences = [np.array([1, 2, 3]), np.array([4, 59]), np.array([5, 6])]
        offsets = ragged.cu_seqlens([3, 2, 2])
        output = model.forward_ragged(np.concatenate(sentences), offsets).last_hidden_state
        assert np.isnan(output[3:5]).all()
        for sentence, rows in ((sentences[0], slice(0, 3)), (sentences[2], slice(5, 7))):
            expected = model(sentence[None]).last_hidden_state[0]
            np.testing.assert_array_equal(output[rows], expected)
