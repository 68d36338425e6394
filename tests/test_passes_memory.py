"""Peak memory of passes: no higher than that of the same calls one by one."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from helpers_transformer import small_transformer

from fastattn import _core
from fastattn.models import BertConfig, BertForMaskedLM, BertModel
from fastattn.tasks.embed.modules import Pooling

KEPT = 512 << 10
"""So much may a pass keep beside new results."""
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


def peak(call: Callable[[], Any]) -> int:
    """The bytes that a call allocates at most, after one that fills caches: the least of three, as other threads may
    allocate too."""
    call()
    found = []
    for _ in range(3):
        gc.collect()
        tracemalloc.start()
        call()
        found.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return min(found)


def peaks(monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any]) -> list[int]:
    """In passes, and without."""
    found = []
    for context in (_core.Pass, nullcontext):
        monkeypatch.setattr(_core, "Pass", context)
        found.append(peak(call))
    return found


def test_a_pass_takes_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    config = BertConfig(
        vocab_size=50, hidden_size=64, num_hidden_layers=4, num_attention_heads=2, intermediate_size=128
    )
    model, ids = BertModel(config).freeze(), np.arange(40).repeat(20).reshape(8, 100)
    in_pass, alone = peaks(monkeypatch, lambda: model(ids))
    assert alone > 800 * 64 * 4  # the states of one layer
    assert in_pass <= alone + 20_000  # the ids


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("part", ["encode", "decode", "steps"])
def test_a_pass_of_the_transformer_takes_no_more_memory(
    monkeypatch: pytest.MonkeyPatch, part: str, norm_first: bool
) -> None:
    sizes = {"d_model": 64, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "normalize_before": norm_first}
    model, offsets = small_transformer(**sizes), np.arange(0, 801, 100)
    ids = np.arange(40).repeat(20)
    memory = model.encode_ragged(ids, offsets)

    def call() -> None:
        if part == "encode":
            model.encode_ragged(ids, offsets)
        elif part == "decode":
            model.decode_ragged(ids, offsets, memory, offsets)
        else:
            decoder = model.begin(ids.reshape(8, 100), max_length=20)
            for _ in range(20):
                decoder.step(np.full(8, 3))

    in_pass, alone = peaks(monkeypatch, call)
    assert alone > 800 * 64 * 4
    assert in_pass <= alone + 30_000  # the ids and positions


def test_decoding_whole_targets_needs_seven_buffers() -> None:
    """Of a state for each token: the input, the values between sub-layers, and four that attention shares."""
    sizes = {"d_model": 64, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "normalize_before": True}
    model, ids, ends = small_transformer(**sizes), np.arange(3200) % 50, np.arange(0, 3201, 100)
    source = np.arange(96) % 50
    sources = np.arange(0, 97, 3)
    memory = model.encode_ragged(source, sources)
    assert peak(lambda: model.decode_ragged(ids, ends, memory, sources)) <= 7 * 3200 * 64 * 4 + 150_000  # and ids


def pooled(modes: Any, prompt: int, texts: int = 800) -> Callable[[], Any]:
    """What a sentence encoder computes for short texts."""
    config = BertConfig(
        vocab_size=50, hidden_size=256, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256
    )
    model = BertModel(config, add_pooling_layer=False).freeze().eval()
    pooling = Pooling(256, modes, include_prompt=False).freeze()
    ids, ends = np.arange(4 * texts) % 50, np.arange(0, 4 * texts + 1, 4, dtype=np.int32)

    def call() -> Any:
        with _core.Pass():
            hidden = model.forward_ragged(ids, ends).last_hidden_state
            features = {"token_embeddings": hidden, "cu_seqlens": ends, "prompt_length": prompt}
            return pooling(features)["sentence_embedding"]

    return call


def scores() -> Callable[[], Any]:
    """The scores of 2000 words for 400 tokens."""
    config = BertConfig(
        vocab_size=2000, hidden_size=256, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256
    )
    model, ids = BertForMaskedLM(config).freeze().eval(), np.arange(400).reshape(4, 100)
    return lambda: model(ids)


@pytest.mark.parametrize("case", ["all modes", "a prompt", "scores"])
def test_large_results_lie_where_the_buffers_were(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    call = {"all modes": lambda: pooled(MODES, 0), "a prompt": lambda: pooled("mean", 2), "scores": scores}[case]()
    in_pass, alone = peaks(monkeypatch, call)
    assert alone > 3 * KEPT
    assert in_pass <= alone + KEPT + 30_000


def test_small_results_are_computed_with_the_rest() -> None:
    call = pooled(MODES, 2, texts=40)
    releases = []
    for _ in range(9):  # one that takes 100 ms gives up the lock in between
        before = _core.counters()["locks_given_up"]
        call()
        releases.append(_core.counters()["locks_given_up"] - before)
    assert min(releases) == 1
