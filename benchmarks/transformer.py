"""The Transformers that are benchmarked: their folders, and batches of pairs to train on."""

from __future__ import annotations

import importlib
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Batch = dict[str, Array]

SIZES: dict[str, dict[str, int]] = {
    "transformer-base": {"d_model": 512, "layers": 6, "heads": 8, "ffn_dim": 2048},
    "transformer-small": {"d_model": 128, "layers": 3, "heads": 4, "ffn_dim": 512},
}
VOCABULARY = 8000
SPECIAL = 3  # ids below have a meaning of their own
STEP_TOKENS = 2048
IGNORE = -100


def network(name: str, vocabularies: Sequence[int] = (VOCABULARY,), **options: Any) -> Any:
    """A model of `SIZES` with random weights, MarianMT's network unless `options` say otherwise.

    `vocabularies` are one for both sides or one each.
    """
    models = importlib.import_module("fastattn.models")
    size = SIZES[name]
    sides = {f"{side}_{part}": size[part] for side in ("encoder", "decoder") for part in ("layers", "ffn_dim")}
    sides |= {f"{side}_attention_heads": size["heads"] for side in ("encoder", "decoder")}
    config = models.TransformerConfig(
        vocab_size=vocabularies[0],
        decoder_vocab_size=vocabularies[-1],
        share_encoder_decoder_embeddings=len(vocabularies) == 1,
        d_model=size["d_model"],
        **sides,
        **{"position_embedding_type": "marian", **options},
    )
    importlib.import_module("fastattn").manual_seed(0)
    return models.Transformer(config)


def model_folder(name: str, cache: Path, vocabularies: Sequence[int] = (VOCABULARY,), **options: Any) -> Path:
    """The folder of a `network`; made on first use."""
    parts = [name, *map(str, vocabularies), *(f"{key}-{value}" for key, value in sorted(options.items()))]
    return once(cache / "-".join(parts), lambda folder: network(name, vocabularies, **options).save_pretrained(folder))


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, which `make` fills on first use, whole or not at all."""
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.{secrets.token_hex(8)}.partial")
        make(partial)
        try:
            partial.rename(folder)
        except OSError:  # another process was quicker
            shutil.rmtree(partial)
    return folder


def flops(name: str, vocabulary: int, source: Array, target: Array) -> float:
    """Multiplications and additions of one forward pass over pairs of these lengths, without padding."""
    size = SIZES[name]
    dim, inner = size["d_model"], size["ffn_dim"]
    source, target = source.astype(np.float64), target.astype(np.float64)
    encoder = source * (4 * dim * dim + 2 * dim * inner) + 2 * dim * source**2
    decoder = target * (6 * dim * dim + 2 * dim * inner) + source * 2 * dim * dim
    decoder += 2 * dim * (target**2 / 2 + source * target)  # a causal token sees half of its sequence
    return float(2 * (size["layers"] * (encoder + decoder) + target * dim * vocabulary).sum())


def equal_pairs(batch: int, length: int) -> list[Batch]:
    """One batch of pairs of this length on both sides."""
    rng = np.random.default_rng(1)
    source, target = rng.integers(SPECIAL, VOCABULARY, (2, batch, length))
    return [{"input_ids": source, "attention_mask": np.ones_like(source), "labels": target}]


def names(path: Path, limit: int | None) -> tuple[list[Batch], tuple[int, int]]:
    """The first batches that `fastattn train translate` would make of a file of pairs, padded; both vocabularies."""
    text, training = importlib.import_module("fastattn.text"), importlib.import_module("fastattn.training")
    pairs = text.read_parallel(path)
    sides = [text.Characters.build(side) for side in (pairs.sources, pairs.targets)]
    tokenizer = text.SubwordTokenizer(*sides)
    encoded = tokenizer.source.encode(pairs.sources), tokenizer.target.encode(pairs.targets)
    source, target = ((side.ids, side.cu_seqlens.astype(np.int64)) for side in encoded)
    limits = {"step_tokens": STEP_TOKENS, "max_tokens": STEP_TOKENS}
    batches = training.PairBatches(source, target, tokenizer.target.pad_token_id, **limits)
    sizes = sides[0].vocab_size, sides[1].vocab_size
    return [padded(source, target, indices) for indices, _ in batches.epoch(0)[:limit]], sizes


def padded(source: tuple[Array, Array], target: tuple[Array, Array], indices: Array) -> Batch:
    """Pairs as rows of equal length, filled up on the right."""
    arrays = []
    for (ids, cu_seqlens), fill in ((source, 0), (target, IGNORE)):
        lengths = np.diff(cu_seqlens)[indices]
        mask = np.arange(lengths.max()) < lengths[:, None]
        rows = np.full(mask.shape, fill, np.int64)
        rows[mask] = np.concatenate([ids[cu_seqlens[i] : cu_seqlens[i + 1]] for i in indices])
        arrays += [rows, mask.astype(np.int64)]
    return {"input_ids": arrays[0], "attention_mask": arrays[1], "labels": arrays[2]}
