"""The options of `generate`, checked: those given, or those of the model's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import Any

import numpy as np

from fastattn.checks import boolean, config_integer, config_number, integers, sequence, shown
from fastattn.generation.decoder import DecoderModel, Ids
from fastattn.models.generation_config import (
    OPTIONS,
    UNSUPPORTED,
    UNSUPPORTED_BEAMS,
    UNSUPPORTED_SAMPLES,
    bad_words,
    token,
)

OWNER = "generate"
LEAST = 1e-6
"""The least temperature and penalty for repetition. Scores over far smaller ones are infinite."""
_FOR_BEAMS = ("early_stopping",)
_FOR_SAMPLES = ("temperature", "top_k", "top_p", "seed")


class Options:
    """The options of a search; see `generate` for the arguments and errors.

    `max_length` and `min_length` count the token `start`; `max_lengths` has a limit for each source, or is None. Any of
    `ends` ends a sequence, `pad` follows it. `first` is the token after the start, `last` ends a sequence that reaches
    its limit; each may be None. `bad` tokens and `phrases` must not occur, and if `vocabulary` is not None, no word but
    those in it. Each other attribute is named as its argument.
    """

    def __init__(self, model: DecoderModel, given: Mapping[str, Any]) -> None:
        self._settings, self._given = model.settings, given
        config = model.config
        size, limit = config.decoder_vocab_size, config.max_position_embeddings + 1  # the last token is never read
        self.vocab_size: int = size
        self._strategy()
        self._limits(config.max_length, limit)
        self.length_penalty: float = self._number("length_penalty", -10.0, 10.0)
        self.repetition_penalty: float = self._number("repetition_penalty", LEAST, 1000.0)
        self.no_repeat_ngram_size: int = self._integer("no_repeat_ngram_size", 0)
        end = config.eos_token_id
        self.ends: Ids = np.array(end if isinstance(end, tuple) else (end,))
        self.start: int = self._token("decoder_start_token_id", config.decoder_start_token_id)
        self.first: int | None = self._token("forced_bos_token_id", None)
        self.last: int | None = self._token("forced_eos_token_id", config.forced_eos_token_id)
        pad = self._settings.values.get("pad_token_id", config.pad_token_id)
        self.pad: int = int(self.ends[0])
        if pad is not None:
            self.pad = token(f"{OWNER}: {self._settings.source}: pad_token_id", pad, size)
        words = given.get("bad_words_ids")
        words = (config.bad_words_ids or ()) if words is None else bad_words(f"{OWNER}: bad_words_ids", words, size)
        words = tuple(word for word in words if word not in [(end,) for end in self.ends])  # as in transformers
        self.bad: Ids = np.array([word[0] for word in words if len(word) == 1], np.int64)
        self.phrases = [np.array(word) for word in words if len(word) > 1]
        self.vocabulary = self._vocabulary(given.get("vocabulary"))
        self.output_scores, self.use_cache = (
            boolean(f"{OWNER}: {name}", given.get(name, usual), error=TypeError)
            for name, usual in (("output_scores", False), ("use_cache", True))
        )

    def _strategy(self) -> None:
        """Greedy, beams or samples, and what belongs to one of these alone."""
        given = self._given
        self.do_sample: bool = boolean(self._name("do_sample"), self._value("do_sample"), error=TypeError)
        beams = config_integer(self._name("num_beams"), self._value("num_beams"), high=self.vocab_size + 1,
                               wanted=f"from 1 to {self.vocab_size}, the words of the target vocabulary")  # fmt: skip
        if self.do_sample and beams > 1:
            raise ValueError(
                f"{self._name('num_beams')} is {beams} and {self._name('do_sample')} is True; a search has beams, or "
                "it samples"
            )
        self.num_beams: int = beams
        count = self.num_return_sequences = self._integer("num_return_sequences", 1)
        if not self.do_sample and count > beams:
            raise ValueError(f"{self._name('num_return_sequences')} must be at most num_beams = {beams}, got {count}")
        for names, wanted, used in (
            (_FOR_BEAMS, "num_beams", beams > 1),
            (_FOR_SAMPLES, "do_sample", self.do_sample),
        ):
            for name in names:
                if given.get(name) is not None and not used:
                    raise ValueError(f"{OWNER}: {name} needs {wanted}, got {shown(given[name])} without")
        stopping = self._value("early_stopping")
        if isinstance(stopping, np.bool_):
            stopping = bool(stopping)
        if not isinstance(stopping, bool | str) or stopping not in (True, False, "never"):
            raise ValueError(f"{self._name('early_stopping')} must be True, False or 'never', got {shown(stopping)}")
        self.early_stopping: bool | str = stopping
        self.temperature = self._number("temperature", LEAST, 1e6)
        self.top_k = self._integer("top_k", 0)
        self.top_p = self._number("top_p", 0.0, 1.0)
        self.seed: int | None = given.get("seed")
        if self.seed is not None:
            self.seed = config_integer(f"{OWNER}: seed", self.seed, 0, high=2**64, wanted="from 0 to 2**64 - 1")
        for table, used in (
            (UNSUPPORTED, True),
            (UNSUPPORTED_BEAMS, beams > 1),
            (UNSUPPORTED_SAMPLES, self.do_sample),
        ):
            for name, usual in table.items():
                value = self._settings.values.get(name)
                if used and value not in (None, [], usual):
                    source = self._settings.source
                    raise ValueError(f"{OWNER}: {source}: {name} is {shown(value)}; only {usual!r} is supported")

    def _limits(self, usual: int | None, limit: int) -> None:
        longest, more = self._given.get("max_length"), self._given.get("max_new_tokens")
        if longest is not None and more is not None:
            raise ValueError(f"{OWNER}: max_length and max_new_tokens must not both be given")
        self.max_lengths: Ids | None = None
        if isinstance(more, (Sequence, np.ndarray)):
            name = f"{OWNER}: max_new_tokens"
            wanted = _ids(name, more)
            if len(wrong := wanted[(wanted < 1) | (wanted >= limit)]):
                raise ValueError(f"{name} must be from 1 to max_position_embeddings = {limit - 1}, got {wrong[0]}")
            self.max_lengths = 1 + wanted
            longest = 1 + int(wanted.max(initial=1))
        elif more is not None:
            text = f"from 1 to max_position_embeddings = {limit - 1}"
            longest = 1 + config_integer(f"{OWNER}: max_new_tokens", more, high=limit, wanted=text)
        elif longest is not None:
            text = f"from 2 to max_position_embeddings + 1 = {limit}"
            longest = config_integer(f"{OWNER}: max_length", longest, 2, high=limit + 1, wanted=text)
        self.max_length: int = longest or min(usual or limit - 1, limit)
        self.min_length: int = self._integer("min_length", 0)
        one = self.max_lengths is None  # else a source with a limit below `min_length` ends there
        if one and self._given.get("min_length") is not None and self.min_length > self.max_length:
            raise ValueError(
                f"{OWNER}: min_length must be at most max_length = {self.max_length}, got {self.min_length}"
            )

    def limits(self, sources: int) -> Ids:
        """The maximum length of a result of each source."""
        if self.max_lengths is None:
            return np.full(sources, self.max_length)
        if self.max_lengths.shape != (sources,):
            raise ValueError(f"{OWNER}: max_new_tokens must have shape ({sources},), got {self.max_lengths.shape}")
        return self.max_lengths

    def prefixes(self, given: Any, limits: Ids) -> Ids:
        """The tokens that results begin with, `[sources, longest]`, -1 after the end of each."""
        name, sources = f"{OWNER}: prefix_ids", len(limits)
        if given is None:
            return np.empty((sources, 0), np.int64)
        rows = [_ids(f"{name}[{i}]", row) for i, row in enumerate(sequence(name, given, "sequences of ids"))]
        if len(rows) != sources:
            raise ValueError(f"{name} must have a sequence of ids for each of {sources} sources, got {len(rows)}")
        for i, row in enumerate(rows):
            if row.ndim != 1:
                raise ValueError(f"{name}[{i}] must have one axis, got shape {row.shape}")
        found: Ids = np.full((sources, max(map(len, rows), default=0)), -1)
        for i, (row, limit) in enumerate(zip(rows, limits.tolist(), strict=True)):
            if len(row) > limit - 2:
                raise ValueError(
                    f"{name}[{i}] has {len(row)} tokens; with the start and another token that is more than {limit}"
                )
            if len(wrong := row[(row < 0) | (row >= self.vocab_size)]):
                raise ValueError(
                    f"{name}[{i}] must be ids of the target vocabulary, below {self.vocab_size}, got {wrong[0]}"
                )
            found[i, : len(row)] = row
        return found

    def _vocabulary(self, words: Any) -> Ids | None:
        if words is None:
            return None
        name, size = f"{OWNER}: vocabulary", self.vocab_size
        ids: Ids = np.unique(_ids(name, words))
        if not len(ids) or ids[0] < 0 or ids[-1] >= size:
            wrong = shown(int(ids[0] if ids[0] < 0 else ids[-1])) if len(ids) else "none"
            raise ValueError(f"{name} must be ids of the target vocabulary, below {size}, got {wrong}")
        needed = [*self.ends, *(each for each in (self.first, self.last) if each is not None)]
        return np.union1d(ids, np.array(needed, np.int64))

    def _value(self, name: str) -> Any:
        for value in (self._given.get(name), self._settings.values.get(name)):
            if value is not None:
                return value
        return OPTIONS[name]

    def _name(self, name: str) -> str:
        """The name in an error, with the file if the value is of the folder."""
        return f"{OWNER}: {name}" if self._given.get(name) is not None else f"{OWNER}: {self._settings.source}: {name}"

    def _integer(self, name: str, low: int) -> int:
        return config_integer(self._name(name), self._value(name), low, high=None)

    def _number(self, name: str, low: float, high: float) -> float:
        return config_number(self._name(name), self._value(name), low, high, up_to=True)

    def _token(self, name: str, usual: int | None) -> Any:
        value = self._given.get(name)
        if value is None:
            value = self._settings.values.get(name, usual)
        return None if value is None else token(self._name(name), value, self.vocab_size)


def _ids(name: str, values: Any) -> Ids:
    """`values` as integers. An empty list is of integers too."""
    nothing = isinstance(values, Sized) and not isinstance(values, np.ndarray | str) and not len(values)
    return integers(name, np.arange(0) if nothing else values)
