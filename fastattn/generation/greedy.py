"""Greedy decoding: the most probable token, again and again."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastattn import kernels
from fastattn.autograd import mode, no_grad
from fastattn.generation.decoder import Decoder, DecoderModel, Ids
from fastattn.generation.rules import Rules

__all__ = ["generate", "greedy"]


def generate(
    model: DecoderModel,
    input_ids: ArrayLike,
    attention_mask: ArrayLike | None = None,
    *,
    max_length: int | None = None,
    max_new_tokens: int | None = None,
    bad_words_ids: Sequence[Sequence[int]] | None = None,
    forced_eos_token_id: int | None = None,
    decoder_start_token_id: int | None = None,
    use_cache: bool = True,
) -> Ids:
    """The most probable token, again and again, until `config.eos_token_id`: greedy decoding, nothing is recorded.

    It is what transformers does with `num_beams=1, do_sample=False`. Sequences that have ended cost nothing. The
    ids of a sequence do not depend on the others, nor on the number of threads. A model that trains is copied and
    packed first, which pays after some steps; in training mode, with its dropout, none decodes.

    Args:
        model: a `fastattn.models.Transformer`.
        input_ids: sources, integers `[batch, seq]`.
        attention_mask: `[batch, seq]`, bool or integers, with 1 at the tokens; None: everywhere.
        max_length: of a result, with what it begins with; None: `config.max_length`, or else
            `config.max_position_embeddings`.
        max_new_tokens: the same, without what it begins with; one of the two.
        bad_words_ids: sequences of ids that must not occur in a result; None: `config.bad_words_ids`.
        forced_eos_token_id: what a result ends with that reaches `max_length`; None: `config.forced_eos_token_id`,
            which may be None, too: any token.
        decoder_start_token_id: what a result begins with; None: `config.decoder_start_token_id`.
        use_cache: keep keys and values from step to step; without, everything is computed again, for the same bits.

    Returns int64 `[batch, longest]`: what each sequence begins with, its tokens and `eos_token_id`, then the
    `pad_token_id` of generation_config.json, or of the config where there is no such file; or `eos_token_id`, where
    that is None.

    Raises TypeError or ValueError for ids, a mask or an option that cannot be, and for a source without tokens;
    ValueError, naming the file, for what the folder asks for and is not done here (`no_repeat_ngram_size`).
    """
    rules = Rules(
        model,
        max_length=max_length,
        max_new_tokens=max_new_tokens,
        bad_words_ids=bad_words_ids,
        forced_eos_token_id=forced_eos_token_id,
        decoder_start_token_id=decoder_start_token_id,
    )
    if model.training:
        raise ValueError("generate: the model is in training mode; call eval() first")
    if not model.frozen and mode.ops is kernels:
        model = _packed(model)  # else every step would pack every weight
    with no_grad():
        return greedy(model.begin(input_ids, attention_mask, max_length=rules.max_length, use_cache=use_cache), rules)


def greedy(decoder: Decoder, rules: Rules) -> Ids:
    """The sequences of a decoder that has begun, `[batch, longest]`."""
    rows = np.arange(len(decoder.sources))  # those that have not ended
    ids: Ids = np.full((len(rows), 1), rules.start)
    while ids.shape[1] < rules.max_length and len(rows):
        if ids.shape[1] == rules.max_length - 1 and rules.last is not None:
            tokens: Ids = np.full(len(rows), rules.last)
        else:
            tokens = rules.choose(decoder.step(ids[rows, -1]), ids[rows])
        ids = np.concatenate([ids, np.full((len(ids), 1), rules.pad)], axis=1)
        ids[rows, -1] = tokens
        left = np.flatnonzero(tokens != rules.end)
        if len(left) < len(rows):
            rows = rows[left]
            decoder.keep(left)
    return ids


def _packed(model: Any) -> Any:
    """A frozen copy, which shares with `model` the arrays that are not packed, and copies no gradient."""
    parameters = {id(parameter): copy.copy(parameter) for parameter in model._arrays()}
    return copy.deepcopy(model, parameters).freeze()
