"""`generate`: from the ids of sources to those of results."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from fastattn import kernels
from fastattn.autograd import mode, no_grad
from fastattn.generation.beam import beam_search
from fastattn.generation.decoder import DecoderModel
from fastattn.generation.greedy import greedy
from fastattn.generation.hypotheses import padded
from fastattn.generation.options import OWNER, Options
from fastattn.generation.rules import Rules
from fastattn.generation.sample import sample
from fastattn.random import next_seed


def generate(
    model: DecoderModel,
    input_ids: ArrayLike,
    attention_mask: ArrayLike | None = None,
    *,
    num_beams: int | None = None,
    num_return_sequences: int | None = None,
    max_length: int | None = None,
    max_new_tokens: int | ArrayLike | None = None,
    min_length: int | None = None,
    length_penalty: float | None = None,
    early_stopping: bool | Literal["never"] | None = None,
    repetition_penalty: float | None = None,
    no_repeat_ngram_size: int | None = None,
    bad_words_ids: Sequence[Sequence[int]] | None = None,
    forced_bos_token_id: int | None = None,
    forced_eos_token_id: int | None = None,
    decoder_start_token_id: int | None = None,
    do_sample: bool | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    prefix_ids: Sequence[ArrayLike] | None = None,
    vocabulary: ArrayLike | None = None,
    output_scores: bool = False,
    use_cache: bool = True,
) -> Any:
    """Generate sequences with a model that decodes: greedily, by beam search, or by sampling.

    This does what transformers does with the same options. An option that is None has its value in the model's
    generation_config.json, or else transformers' default; only `max_length` has another one. Nothing is recorded. A
    sequence that has ended costs nothing. The result of a source depends neither on the other sources nor on the number
    of threads, not even its last bit. A trainable model is copied and packed first, which pays off after a few steps. A
    model in training mode is refused, since dropout would act.

    Args:
        model: a `fastattn.models.Transformer`.
        input_ids: sources, integers `[batch, seq]`.
        attention_mask: `[batch, seq]`, bool or integers, with 1 at the tokens; None if all are tokens.
        num_beams: the hypotheses that a search keeps for each source; 1 is greedy decoding.
        num_return_sequences: results for each source, the best first: at most `num_beams`, or any number of samples.
        max_length: the maximum length of a result, including the start. None uses `config.max_length`, or
            `config.max_position_embeddings` if that is None.
        max_new_tokens: the same without the start, for all sources or for each. Give at most one of the two.
        min_length: no result ends before it has so many tokens, including the start, or reaches its maximum length.
        length_penalty: the score of a hypothesis is the sum of its log-probabilities over its length to this power, in
            [-10, 10]: above 0 prefers long ones.
        early_stopping: when a search is done. True: with `num_beams` finished hypotheses. False: when the best
            unfinished one has no better score than the worst of these. "never": when it can no longer have one.
        repetition_penalty: divides the scores of words that a sequence has already, if above 0, else multiplies them
            (Keskar et al. 2019, arXiv 1909.05858, section 4.1). A search with beams applies it to log-probabilities.
        no_repeat_ngram_size: no sequence of so many tokens occurs twice in a result; 0 for no limit.
        bad_words_ids: sequences of ids that must not occur in a result; None uses `config.bad_words_ids`.
        forced_bos_token_id: the token after the start.
        forced_eos_token_id: the last token of a result that reaches `max_length`. None uses
            `config.forced_eos_token_id`; if that is None too, any token may be the last.
        decoder_start_token_id: the start of a result; None uses `config.decoder_start_token_id`.
        do_sample: draw each token from the model's distribution; not together with beams.
        temperature: divides the scores before a token is drawn.
        top_k: draw from the k most probable words; 0 for all.
        top_p: draw from the most probable words whose probabilities sum up to this (Holtzman et al. 2020, arXiv
            1904.09751, section 3.1).
        seed: of the samples, in [0, 2^64). Equal sources have equal samples, in any batch. None draws a seed from
            `fastattn.manual_seed`'s state.
        prefix_ids: for each source the ids that its results begin with, after the start: they count as part of the
            prompt, as `decoder_input_ids` do in transformers. The lengths may differ.
        vocabulary: ids, the only words that results are made of. The output layer is computed for these alone, and
            probabilities are among them. Words that end a result, or are forced, are added.
        output_scores: return a `GenerateOutput`, which has scores.
        use_cache: keep keys and values from step to step. Otherwise every step recomputes them, with the same bits.

    Returns int64 `[batch * num_return_sequences, longest]`: the start, the tokens and `eos_token_id`, then padding. The
    padding is the `pad_token_id` of generation_config.json, or of the config without this file, or the first
    `eos_token_id` if it is None. If a search finds fewer hypotheses than it is to return, because of forbidden words,
    the others are the start alone, with a score of -inf.

    Raises TypeError or ValueError for impossible ids, masks and options, for options that contradict each other, and
    for a source without tokens. Raises ValueError, naming the file, for unsupported options of the folder.

    >>> from fastattn.models import Transformer, TransformerConfig
    >>> model = Transformer(TransformerConfig(vocab_size=20, d_model=8, encoder_layers=1, decoder_layers=1,
    ...     encoder_ffn_dim=16, decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2)).eval()
    >>> found = generate(model, [[5, 6, 2]], num_beams=4, num_return_sequences=2, max_length=6, output_scores=True)
    >>> found.sequences.shape, bool(found.sequences_scores[0] >= found.sequences_scores[1])
    ((2, 6), True)

    Source: transformers' `GenerationMixin.generate`; Graves 2012 (arXiv 1211.3711), section 2.5, for beam search.
    """
    given = {name: value for name, value in locals().items() if name not in ("model", "input_ids", "attention_mask")}
    options = Options(model, given)
    if model.training:
        raise ValueError(f"{OWNER}: the model is in training mode; call eval() first")
    if not model.frozen and mode.ops is kernels:
        model = _packed(model)  # else every step would pack every weight
    with no_grad():
        decoder = model.begin(
            input_ids,
            attention_mask,
            max_length=options.max_length,
            use_cache=options.use_cache,
            vocabulary=options.vocabulary,
        )
        rules = Rules(options, len(decoder.sources), prefix_ids)
        if options.num_beams > 1:
            found = beam_search(decoder, rules)
        elif options.do_sample:
            ids = np.asarray(input_ids)
            mask = np.ones(ids.shape, bool) if attention_mask is None else np.asarray(attention_mask).astype(bool)
            sources = [row[tokens] for row, tokens in zip(ids, mask, strict=True)]
            found = sample(decoder, rules, next_seed() if options.seed is None else options.seed, sources)
        else:
            found = greedy(decoder, rules)
    output = padded(found, options.pad)
    return output if options.output_scores else output.sequences


def _packed(model: Any) -> Any:
    """A frozen copy. It shares unpacked arrays with `model` and has no gradients."""
    parameters = {id(parameter): copy.copy(parameter) for parameter in model._arrays()}
    return copy.deepcopy(model, parameters).freeze()
