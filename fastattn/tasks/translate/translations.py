"""What a `Translator` finds: hypotheses with scores, tokens and alignments, for texts of any length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import checks, ragged
from fastattn.autograd import no_grad, values
from fastattn.generation import generate
from fastattn.generation.options import Options as GenerateOptions
from fastattn.models import Transformer
from fastattn.text import (
    TokenizedTexts,
    TranslationTokenizer,
    gather,
    join_sentences,
    split_sentences,
    token_budget_batches,
)
from fastattn.text.subwords import END

BATCH_TOKENS = 4096
"""Source tokens translated at once. Every step of decoding reads all weights, however many texts there are."""

MORE_TOKENS = 50
"""How many tokens longer than its text a translation may be (Vaswani et al. 2017, section 6.1)."""

OVERLONG = {"error": "refused", "truncate": "cut", "skip": "skipped", "split": "cut into sentences"}
"""What can be done with texts that are too long for the model, and how that is called."""

DECODING = (
    "num_beams",
    "length_penalty",
    "early_stopping",
    "min_length",
    "no_repeat_ngram_size",
    "repetition_penalty",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "seed",
)
"""The options of `generate` that a translator hands on."""

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Translation:
    """A translation, and how probable it is.

    - `text`: the translation
    - `score`: the sum of `token_log_probs`, divided by the `length_penalty`-th power of the number of tokens after the
      prefix
    - `tokens`: its tokens, with `</s>` at the end unless it was cut
    - `token_log_probs`: the log-probability of each, 0 for those of a prefix and for an end that the model is forced to
    - `alignment`: for each token, the number of the source token that it attends to most, the mean of all layers and
      heads; only if it was asked for

    If a search finds fewer translations than it is to give, the others are "", without tokens and with a score of -inf.
    """

    text: str
    score: float
    tokens: list[str]
    token_log_probs: list[float]
    alignment: list[int] | None = None


NOTHING = Translation("", 0.0, [], [])
"""The translation of a blank text."""


@dataclass(frozen=True)
class Search:
    """How translations are looked for; see `Translator.translate`. `hypotheses` are those of a text at the same time,
    and `prefixes` has the ids of each text's prefix."""

    n_best: int = 1
    hypotheses: int = 1
    prefixes: Sequence[Ids] | None = None
    replace_unknowns: bool = False
    return_alignments: bool = False
    vocabulary: Ids | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def take(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        """The arguments of `generate` for some of the texts."""
        prefixes = None if self.prefixes is None else [self.prefixes[int(i)] for i in indices]
        return {**self.options, "num_return_sequences": self.n_best, "prefix_ids": prefixes}


class Searcher:
    """The part of `Translator` that looks for translations."""

    model: Transformer
    tokenizer: TranslationTokenizer
    max_length: int
    _bad_words: list[tuple[int, ...]]

    def _search(
        self,
        *,
        texts: str | Sequence[str],
        n_best: int = 1,
        prefixes: Any = None,
        replace_unknowns: bool = False,
        return_alignments: bool = False,
        vocabulary: Any = None,
        options: Mapping[str, Any],
    ) -> Search:
        """The arguments of `translate`, checked."""
        if unknown := sorted(set(options) - set(DECODING)):
            raise TypeError(f"translate: unexpected argument {unknown[0]!r}")
        n_best = checks.integer("translate: n_best", n_best)
        checked = GenerateOptions(self.model, {**options, "max_new_tokens": self.max_length, "num_return_sequences": 1})
        if n_best > checked.num_beams and not checked.do_sample:
            raise ValueError(f"translate: n_best must be at most num_beams = {checked.num_beams}, got {n_best}")
        target = self.tokenizer.target
        found: list[NDArray[np.int64]] | None = None
        if prefixes is not None:
            count = 1 if isinstance(texts, str) else len(texts)
            given = [prefixes] * count if isinstance(prefixes, str) else prefixes
            given = checks.texts("translate: prefixes", given)
            if len(given) != count:
                raise ValueError(f"translate: prefixes must have a str for each of {count} texts, got {len(given)}")
            found = [
                ids[:-1] if text.strip() else ids[:0] for text, ids in zip(given, target.encode(given), strict=True)
            ]
            self._check_known("prefixes", given, found)
            longest = self.max_length - 2
            if (long := next((i for i, ids in enumerate(found) if len(ids) > longest), None)) is not None:
                raise ValueError(f"translate: prefixes[{long}] has {len(found[long])} tokens, more than {longest}")
        words: NDArray[np.int64] | None = None
        if vocabulary is not None:
            given = checks.texts("translate: vocabulary", vocabulary)
            tokens = [ids[:-1] for ids in target.encode(given)]
            self._check_known("vocabulary", given, tokens)
            if not (words := np.unique(np.concatenate([np.empty(0, np.int64), *tokens]))).size:
                raise ValueError("translate: vocabulary must have words, got none")
        boolean = partial(checks.boolean, error=TypeError)
        return Search(
            n_best,
            max(n_best, checked.num_beams),
            found,
            boolean("translate: replace_unknowns", replace_unknowns),
            boolean("translate: return_alignments", return_alignments),
            words,
            options,
        )

    def _check_known(self, name: str, texts: Sequence[str], ids: Sequence[NDArray[np.int64]]) -> None:
        for i, (text, own) in enumerate(zip(texts, ids, strict=True)):
            if (own == self.tokenizer.target.unk_token_id).any():
                raise ValueError(
                    f"translate: {name}[{i}] must be made of the target vocabulary, got {checks.shown(text)}"
                )

    def _find(
        self,
        texts: Sequence[str],
        encoded: TokenizedTexts,
        search: Search,
        overlong: str = "error",
        batch_tokens: int = BATCH_TOKENS,
    ) -> list[list[Translation]]:
        """The `n_best` translations of each text, from its tokens, in batches of texts of about the same length."""
        lengths = encoded.lengths
        wanted = (lengths > 1) & np.fromiter((bool(text.strip()) for text in texts), bool, len(texts))
        if overlong in ("skip", "split"):
            wanted &= ~encoded.truncated
        found = [[NOTHING] * search.n_best for _ in texts]
        some = np.flatnonzero(wanted)
        most = max(1, batch_tokens // search.hypotheses)  # memory is theirs
        for batch in token_budget_batches(lengths[some], most):
            indices = some[batch]
            for i, translations in zip(indices, self._batch(texts, encoded, indices, search), strict=True):
                found[i] = translations
        if overlong == "split":
            for i in np.flatnonzero(encoded.truncated & (lengths > 1)):
                found[int(i)] = [self._whole(int(i), texts[int(i)], search, batch_tokens)]
        return found

    def _batch(
        self, texts: Sequence[str], encoded: TokenizedTexts, indices: Ids, search: Search
    ) -> Iterator[list[Translation]]:
        """The translations of some texts, computed together."""
        config, lengths = self.model.config, encoded.lengths[indices]
        given = search.take(indices)
        prefixes = given["prefix_ids"] or [()] * len(indices)
        starts = np.array([len(prefix) for prefix in prefixes])
        limits = np.minimum(starts + lengths + MORE_TOKENS, self.max_length - 1)
        source = ragged.unpack(*gather(encoded.ids, encoded.cu_seqlens, indices))
        mask = np.arange(lengths.max()) < lengths[:, None]
        most = limits + (config.forced_eos_token_id is not None)  # with the end that a model is forced to
        output = generate(
            self.model, source, mask, max_new_tokens=most, bad_words_ids=self._bad_words, output_scores=True,
            vocabulary=search.vocabulary, **given,
        )  # fmt: skip
        count = search.n_best
        starts, limits, most = (np.repeat(each, count) for each in (starts, limits, most))
        ends = np.isin(output.sequences, config.eos_token_id)
        ends &= np.arange(ends.shape[1]) > starts[:, None]
        ended = ends.any(1)
        stops = np.where(ended, ends.argmax(1), most)
        stops[output.sequences_scores == -np.inf] = 0  # nothing was found
        ids = [row[1 : 1 + stop] for row, stop in zip(output.sequences, stops.tolist(), strict=True)]
        log_probs = [row[1 : 1 + stop] for row, stop in zip(output.token_log_probs, stops.tolist(), strict=True)]
        aligned: list[Ids] | None = None
        unknown = self.tokenizer.target.unk_token_id
        if search.return_alignments or (search.replace_unknowns and any((row == unknown).any() for row in ids)):
            aligned = self._align(np.repeat(source, count, 0), np.repeat(mask, count, 0), ids)
        words = None
        if search.replace_unknowns and aligned is not None:
            words = [self._words(texts[int(indices[j // count])], ids[j], aligned[j]) for j in range(len(ids))]
        lengths = np.maximum(np.minimum(stops - ended, limits), 0).tolist()
        decoded = self.tokenizer.target.decode((row[:n] for row, n in zip(ids, lengths, strict=True)), words)
        for first in range(0, len(ids), count):
            yield [
                Translation(
                    decoded[j],
                    float(output.sequences_scores[j]),
                    [*self.tokenizer.target.tokens(ids[j][: lengths[j]]), *[END] * (len(ids[j]) - lengths[j])],
                    log_probs[j].tolist(),
                    aligned[j].tolist() if search.return_alignments and aligned is not None else None,
                )
                for j in range(first, first + count)
            ]

    def _whole(self, number: int, text: str, search: Search, batch_tokens: int) -> Translation:
        """A long text, sentence by sentence. Sentences that are too long are cut between words, and words anywhere.

        The first sentence has the prefix.
        """
        parts = [part for sentence in split_sentences(text) for part in self._fitting(sentence)]
        encoded = self.tokenizer.source.encode(parts, self.max_length)
        prefixes = None
        if search.prefixes is not None:
            prefixes = [np.empty(0, np.int64)] * len(parts)
            prefixes[int((encoded.lengths > 1).argmax())] = search.prefixes[number]
        found = self._find(parts, encoded, replace(search, prefixes=prefixes), "truncate", batch_tokens)
        return Translation(join_sentences(each.text for [each] in found if each.text), 0.0, [], [])

    def _fitting(self, sentence: str) -> list[str]:
        """Parts of a sentence that the model can read, as few as halving takes."""
        if len(sentence) < 2 or not self.tokenizer.source.encode([sentence], self.max_length).truncated[0]:
            return [sentence]
        middle = len(sentence) // 2
        space = sentence.rfind(" ", 1, middle + 1)
        middle = space if space > 0 else middle
        return [part for half in (sentence[:middle], sentence[middle:]) for part in self._fitting(half.strip()) if part]

    def _align(self, source: Ids, mask: NDArray[np.bool_], ids: Sequence[Ids]) -> list[Ids]:
        """For each token of translations the source token that it attends to most."""
        longest = max(1, *map(len, ids))
        target = np.full((len(ids), longest), self.model.config.decoder_start_token_id)
        for row, own in zip(target, ids, strict=True):
            row[1 : len(own)] = own[:-1]
        read = np.arange(longest) < np.array([max(len(own), 1) for own in ids])[:, None]
        with no_grad():
            output = self.model(
                source, mask, decoder_input_ids=target, decoder_attention_mask=read, output_attentions=True
            )
        weights: Any = sum(layer.mean(1) for layer in values(*(output.cross_attentions or ())))
        return [found[: len(own)] for found, own in zip(weights.argmax(2), ids, strict=True)]

    def _words(self, text: str, ids: Ids, aligned: Ids) -> list[str]:
        """The source word for each unknown token of a translation; the word only once where some of them follow."""
        words = [*self.tokenizer.source.words(text), ""]
        found = []
        before = -2, ""
        for place in np.flatnonzero(ids == self.tokenizer.target.unk_token_id).tolist():
            word = words[min(int(aligned[place]), len(words) - 1)]
            found.append("" if before == (place - 1, word) else word)
            before = place, word
        return found
