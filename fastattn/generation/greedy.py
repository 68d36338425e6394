"""Greedy decoding: always the most probable token."""

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
    """Greedy decoding: append the most probable token until `config.eos_token_id`, or one of several.

    Nothing is recorded. This does what transformers does with `num_beams=1, do_sample=False`. A sequence that has ended
    costs nothing. Its ids depend neither on the other sequences nor on the number of threads. A trainable model is
    copied and packed first, which pays off after a few steps. A model in training mode is refused, since dropout would
    act.

    Args:
        model: a `fastattn.models.Transformer`.
        input_ids: sources, integers `[batch, seq]`.
        attention_mask: `[batch, seq]`, bool or integers, with 1 at the tokens; None if all are tokens.
        max_length: the maximum length of a result, including the start. None uses `config.max_length`, or
            `config.max_position_embeddings` if that is None.
        max_new_tokens: the same without the start. Give at most one of the two.
        bad_words_ids: sequences of ids that must not occur in a result; None uses `config.bad_words_ids`.
        forced_eos_token_id: the last token of a result that reaches `max_length`. None uses
            `config.forced_eos_token_id`; if that is None too, any token may be the last.
        decoder_start_token_id: the start of a result; None uses `config.decoder_start_token_id`.
        use_cache: keep keys and values from step to step. Otherwise every step recomputes them, with the same bits.

    Returns int64 `[batch, longest]`: the start, the tokens and `eos_token_id`, then padding. The padding is the
    `pad_token_id` of generation_config.json, or of the config without this file, or the first `eos_token_id` if it is
    None.

    Raises TypeError or ValueError for impossible ids, masks and options and for a source without tokens. Raises
    ValueError, naming the file, for unsupported options of the folder (`no_repeat_ngram_size`).
    """
    rules = Rules(model, max_length, max_new_tokens, bad_words_ids, forced_eos_token_id, decoder_start_token_id)
    if model.training:
        raise ValueError("generate: the model is in training mode; call eval() first")
    if not model.frozen and mode.ops is kernels:
        model = _packed(model)  # else every step would pack every weight
    with no_grad():
        return greedy(model.begin(input_ids, attention_mask, max_length=rules.max_length, use_cache=use_cache), rules)


def greedy(decoder: Decoder, rules: Rules) -> Ids:
    """The sequences that `decoder` generates, `[batch, longest]`."""
    rows = np.arange(len(decoder.sources))  # those that have not ended
    ids: Ids = np.full((len(rows), 1), rules.start)
    while ids.shape[1] < rules.max_length and len(rows):
        if ids.shape[1] == rules.max_length - 1 and rules.last is not None:
            tokens: Ids = np.full(len(rows), rules.last)
        else:
            tokens = rules.choose(decoder.step(ids[rows, -1]), ids[rows])
        ids = np.concatenate([ids, np.full((len(ids), 1), rules.pad)], axis=1)
        ids[rows, -1] = tokens
        goes_on = tokens != rules.ends[0]
        for end in rules.ends[1:]:
            goes_on &= tokens != end
        left = np.flatnonzero(goes_on)
        if len(left) < len(rows):
            rows = rows[left]
            decoder.keep(left)
    return ids


def _packed(model: Any) -> Any:
    """A frozen copy. It shares unpacked arrays with `model` and has no gradients."""
    parameters = {id(parameter): copy.copy(parameter) for parameter in model._arrays()}
    return copy.deepcopy(model, parameters).freeze()
