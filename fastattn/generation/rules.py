"""The options of `generate`, checked, and the tokens that they allow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastattn.checks import config_integer, shown
from fastattn.generation.decoder import DecoderModel, Ids
from fastattn.models.generation_config import UNSUPPORTED, bad_words, token
from fastattn.nn.parameter import Array


class Rules:
    """The limits of decoding; see `generate` for the arguments and errors.

    `max_length` counts the token `start`. Any of `ends` ends a sequence, `pad` follows it, and `last` ends one that
    reaches `max_length`. `bad` tokens and `phrases` must not occur.
    """

    def __init__(
        self,
        model: DecoderModel,
        max_length: int | None,
        max_new_tokens: int | None,
        bad_words_ids: Sequence[Sequence[int]] | None,
        forced_eos_token_id: int | None,
        decoder_start_token_id: int | None,
    ) -> None:
        config, settings = model.config, model.settings
        for name, usual in UNSUPPORTED.items():
            value = settings.values.get(name)
            if value not in (None, [], usual):
                raise ValueError(f"generate: {settings.source}: {name} is {shown(value)}; only {usual!r} is supported")
        size, limit = config.decoder_vocab_size, config.max_position_embeddings + 1  # the last token is never read
        if max_length is not None and max_new_tokens is not None:
            raise ValueError("generate: max_length and max_new_tokens must not both be given")
        if max_new_tokens is not None:
            text = f"from 1 to max_position_embeddings = {limit - 1}"
            max_length = 1 + config_integer("generate: max_new_tokens", max_new_tokens, high=limit, wanted=text)
        elif max_length is not None:
            text = f"from 2 to max_position_embeddings + 1 = {limit}"
            max_length = config_integer("generate: max_length", max_length, 2, high=limit + 1, wanted=text)
        self.max_length = max_length or min(config.max_length or limit - 1, limit)
        end = config.eos_token_id
        self.ends = end if isinstance(end, tuple) else (end,)
        self.last, self.start = config.forced_eos_token_id, config.decoder_start_token_id
        if forced_eos_token_id is not None:
            self.last = token("generate: forced_eos_token_id", forced_eos_token_id, size)
        if decoder_start_token_id is not None:
            self.start = token("generate: decoder_start_token_id", decoder_start_token_id, size)
        pad = settings.values.get("pad_token_id", config.pad_token_id)
        self.pad = self.ends[0] if pad is None else token(f"generate: {settings.source}: pad_token_id", pad, size)
        words = config.bad_words_ids or ()
        if bad_words_ids is not None:
            words = bad_words("generate: bad_words_ids", bad_words_ids, size)
        words = tuple(word for word in words if word not in [(end,) for end in self.ends])  # as in transformers
        self.bad = np.array([word[0] for word in words if len(word) == 1], np.int64)
        self.phrases = [np.array(word) for word in words if len(word) > 1]

    def choose(self, scores: Array, before: Ids) -> Ids:
        """The next tokens, from `scores` `[sequences, vocab]`, overwritten, and `before` `[sequences, length]`."""
        scores[:, self.bad] = -np.inf
        for phrase in self.phrases:
            head = phrase[:-1]
            if len(head) <= before.shape[1]:
                scores[(before[:, -len(head) :] == head).all(1), phrase[-1]] = -np.inf
        best: Ids = scores.argmax(1)
        return best
