"""Transformer serves: the same bits in any company, with any number of threads, and nothing left behind."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from helpers_transformer import make_model

import fastattn
from fastattn import ragged
from fastattn.models import Transformer

PAIRS = [(1, 1), (2, 5), (40, 3), (7, 40), (21, 16), (16, 1), (33, 33), (3, 8)]


def bits(array: Any) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def score(model: Transformer, pairs: list[tuple[Any, Any]]) -> list[tuple[bytes, bytes]]:
    """What the encoder and the output layer give for each pair."""
    sources, targets = zip(*pairs, strict=True)
    cu_source, cu_target = (ragged.cu_seqlens([len(part) for part in parts]) for parts in (sources, targets))
    memory = model.encode_ragged(np.concatenate(sources), cu_source)
    scores = model.logits(model.decode_ragged(np.concatenate(targets), cu_target, memory, cu_source))
    parts = np.split(memory, cu_source[1:-1]), np.split(scores, cu_target[1:-1])
    return [(bits(a), bits(b)) for a, b in zip(*parts, strict=True)]


@pytest.mark.parametrize("name", ["post-norm", "pre-norm untied", "marian"])
def test_company_does_not_matter(name: str, isa: str, restore_runtime: None) -> None:
    model = make_model(name, max_position_embeddings=40).freeze()
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(0, 23, a), rng.integers(0, 23, b)) for a, b in PAIRS]
    fastattn.set_num_threads(1)
    alone = [score(model, [pair])[0] for pair in pairs]
    for threads in (1, 2):
        fastattn.set_num_threads(threads)
        assert [score(model, [pair])[0] for pair in pairs] == alone
        for _ in range(3):
            order = rng.permutation(len(pairs))
            assert score(model, [pairs[i] for i in order]) == [alone[i] for i in order]

    failures: list[object] = []

    def work(seed: int) -> None:
        mine = np.random.default_rng(seed)
        try:
            for _ in range(3):
                order = mine.permutation(len(pairs))[: seed + 1]
                if score(model, [pairs[i] for i in order]) != [alone[i] for i in order]:
                    failures.append((seed, order))
        except Exception as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


def test_gradients_do_not_depend_on_the_threads(isa: str, restore_runtime: None) -> None:
    rng = np.random.default_rng(1)
    ids, labels = rng.integers(0, 23, (6, 12)), rng.integers(0, 23, (6, 12))
    results = []
    for threads in (1, 2):
        fastattn.set_num_threads(threads)
        fastattn.manual_seed(2)
        model = make_model("pre-norm", dropout=0.2, attention_dropout=0.1).train()
        loss = model(ids, labels=labels, label_smoothing=0.1).loss
        assert loss is not None
        loss.backward()
        results.append((loss.item(), {name: bits(p.grad) for name, p in model.named_parameters() if p.requires_grad}))
    assert results[0] == results[1]


def test_nan_stays_in_its_own_pair() -> None:
    model = make_model("post-norm")
    table = model.encoder.embed_tokens.weight
    offsets = ragged.cu_seqlens([2, 3])
    source, target = np.array([4, 5, 6, 7, 8]), np.array([9, 9, 10, 10, 10])

    def scores() -> Any:
        memory = model.encode_ragged(source, offsets)
        return model.decode_ragged(target, offsets, memory, offsets).data

    wanted = scores()
    table.data[5] = np.nan
    got = scores()
    assert np.isnan(got[:2]).all()
    assert bits(got[2:]) == bits(wanted[2:])


def test_a_call_leaves_nothing_on_a_module() -> None:
    def tree(module: Any) -> list[tuple[str, int]]:
        here = [(name, id(value)) for name, value in vars(module).items()]
        return here + [entry for child in module.children() for entry in tree(child)]

    model = make_model("pre-norm")
    before = tree(model)
    assert len(before) > 50
    output = model(np.full((2, 4), 5), labels=np.full((2, 4), 6), output_attentions=True)
    assert output.logits.data.any()
    assert tree(model) == before
