"""Text in, its translation out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import checks, ragged
from fastattn.autograd import no_grad
from fastattn.models import Transformer
from fastattn.text import (
    ParallelText,
    TokenizedTexts,
    TranslationTokenizer,
    gather,
    read_translation_tokenizer,
    token_budget_batches,
)
from fastattn.training import PairBatches, pair_arguments
from fastattn.training.run_state import STATES, saved_states

BATCH_TOKENS = 4096
"""Source tokens that are translated at once: every step of decoding reads all weights, for however many texts."""

MORE_TOKENS = 50
"""So many tokens more than its text a translation may have (Vaswani et al. 2017, section 6.1)."""


class Translator:
    """A Transformer and its tokenizer, to translate with or to be trained.

    Decoding is greedy. A translation is the same whatever else is translated with it, in whatever order and by however
    many threads; many threads may call `translate` at once. What the vocabulary does not know is `<unk>`, in a text and
    in its translation, where it is left out. A blank text is not given to the model: its translation is empty.

    Args:
        model: a Transformer.
        tokenizer: the vocabularies of both sides.

    Attributes:
        model, tokenizer: the same.
        max_length: the longest text in tokens, `</s>` included.

    Raises ValueError for a tokenizer with more tokens than the model has.

    >>> translator = Translator.from_pretrained("path/to/ar2en")            # doctest: +SKIP
    >>> translator.translate(["نورمان", "سليم"])                             # doctest: +SKIP
    ['norman', 'salim']
    """

    def __init__(self, model: Transformer, tokenizer: TranslationTokenizer) -> None:
        config = model.config
        for side, has, knows in (
            ("source", tokenizer.vocab_size, config.vocab_size),
            ("target", tokenizer.target_vocab_size, config.decoder_vocab_size),
        ):
            if has > knows:
                raise ValueError(f"Translator: the tokenizer has {has} {side} tokens, but the model only {knows}")
        self.model, self.tokenizer = model, tokenizer
        self.max_length: int = config.max_position_embeddings

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], *, trainable: bool = False) -> Translator:
        """Load what `save_pretrained` or transformers' MarianMTModel and MarianTokenizer wrote.

        Args:
            folder: the model's.
            trainable: to be trained further; frozen otherwise.

        Raises:
            FileNotFoundError: the folder, or a file that is needed, is not there.
            ValueError: a damaged file, or another kind of model, by name.
            ImportError: the library that reads the vocabulary is missing.
        """
        if saved_states(Path(folder, STATES)) and not Path(folder, "config.json").exists():
            raise FileNotFoundError(f"{folder}: no model yet; the run was not finished, continue it with --resume")
        tokenizer = read_translation_tokenizer(folder)
        model = Transformer.from_pretrained(folder, trainable=trainable)
        try:
            return cls(model, tokenizer)
        except ValueError as error:
            raise ValueError(str(error).replace("Translator", str(folder), 1)) from None

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write model and vocabularies, each file whole or not at all."""
        self.tokenizer.save_pretrained(folder)  # a folder with a model has its vocabularies
        self.model.save_pretrained(folder)

    def encode(
        self, texts: Sequence[str], *, target: bool = False, place: Callable[[int], str] = "texts[{}]".format
    ) -> TokenizedTexts:
        """The tokens of texts, all of which the model can read to their ends.

        Args:
            texts: the texts.
            target: they are of the target side.
            place: what an error calls the text of an index, such as its file and line.

        Raises TypeError for what is not a sequence of str, and ValueError for a text that is too long or not valid
        Unicode.
        """
        encoded = (self.tokenizer.encode_target if target else self.tokenizer.encode)(texts)
        long = encoded.lengths > self.max_length
        if long.any():
            i = int(long.argmax())
            raise ValueError(
                f"{place(i)} has {encoded.lengths[i]} tokens, but the model reads at most {self.max_length} "
                "(max_position_embeddings)"
            )
        return encoded

    def translate(self, texts: Sequence[str], *, batch_tokens: int = BATCH_TOKENS) -> list[str]:
        """Translate texts; the model must be in evaluation mode, as a loaded one is.

        Args:
            texts: the texts.
            batch_tokens: at most so many tokens of texts at once; the results do not depend on it.

        Raises:
            TypeError: `texts` is one str, or an entry is not a str; the message names its index.
            ValueError: a text is longer than the model can read or not valid Unicode, by its index, or batch_tokens is
                below 1.
        """
        batch_tokens = checks.integer("translate: batch_tokens", batch_tokens)
        encoded = self.encode(texts)
        lengths = encoded.lengths
        limits = np.minimum(lengths + MORE_TOKENS, self.max_length - 1)
        translations = [""] * len(texts)
        some = np.array([i for i, text in enumerate(texts) if text.strip()], np.int64)
        for batch in token_budget_batches(lengths[some], batch_tokens):
            indices = some[batch]
            ids, cu_seqlens = gather(encoded.ids, encoded.cu_seqlens, indices)
            mask = np.arange(lengths[indices].max()) < lengths[indices][:, None]
            # One more than is wanted, so that what a model says when it is cut off is not part of a translation.
            most = int(limits[indices].max()) + 1
            found = self.model.generate(ragged.unpack(ids, cu_seqlens), mask, max_new_tokens=most)
            words = self.tokenizer.decode(row[1 : 1 + limits[i]] for i, row in zip(indices, found, strict=True))
            for i, text in zip(indices, words, strict=True):
                translations[i] = text
        return translations

    def attention(self, text: str, translation: str | None = None) -> tuple[NDArray[Any], list[str], list[str]]:
        """What each token of a translation attends to in its text, for `fastattn.training.plot_attention`.

        Args:
            text: the text.
            translation: of it; None: the model's own.

        Returns:
            Weights float32 `[layers, heads, target, source]`, the tokens of the text and those of the translation,
            each with `</s>` at its end. A target token's row is that of the step that said it.

        Raises as `translate` does.
        """
        source = self.encode([checks.text("attention: text", text)])
        wanted = self.translate([text])[0] if translation is None else translation
        target = self.tokenizer.encode_target([wanted], self.max_length)
        start = self.model.config.decoder_start_token_id
        with no_grad():
            output = self.model(
                source.ids[None], decoder_input_ids=np.array([[start, *target.ids[:-1]]]), output_attentions=True
            )
        weights = np.stack([layer[0] for layer in output.cross_attentions or ()])
        return weights, self.tokenizer.tokens(source.ids), self.tokenizer.target_tokens(target.ids)

    def batches(
        self, text: ParallelText, *, step_tokens: int = 25_000, max_tokens: int = 4096, seed: int = 0
    ) -> tuple[PairBatches, int]:
        """Batches for a `Trainer`, and how many pairs were left out, for a side has more tokens than the model reads.

        What they load are the arguments of `model.loss_ragged` and a `share`.

        Args:
            text: pairs of texts.
            step_tokens: about so many tokens of both sides are a step.
            max_tokens: at most so many are computed at once.
            seed: of the order.

        Raises ValueError when nothing is left.
        """
        source, target = self.tokenizer.encode(text.sources), self.tokenizer.encode_target(text.targets)
        kept = np.flatnonzero(np.maximum(source.lengths, target.lengths) <= self.max_length)
        if not len(kept):
            raise ValueError(f"batches: no pair of texts has at most {self.max_length} tokens on each side")
        batches = PairBatches(
            _ragged(source, kept),
            _ragged(target, kept),
            self.model.config.decoder_start_token_id,
            step_tokens=step_tokens,
            max_tokens=max_tokens,
            seed=seed,
        )
        return batches, len(text) - len(kept)

    def loss(self, text: ParallelText, *, batch_tokens: int = BATCH_TOKENS) -> float:
        """The mean of -log p over all target tokens, without label smoothing; nothing is recorded.

        Args:
            text: pairs of texts; a side that the model cannot read to its end is cut.
            batch_tokens: at most so many tokens of both sides at once.
        """
        source = self.tokenizer.encode(text.sources, self.max_length)
        target = self.tokenizer.encode_target(text.targets, self.max_length)
        sides = (source.ids, source.cu_seqlens), (target.ids, target.cu_seqlens)
        start = self.model.config.decoder_start_token_id
        total = 0.0
        with no_grad():
            for indices in token_budget_batches(source.lengths + target.lengths, batch_tokens):
                total += self.model.loss_ragged(**pair_arguments(*sides, start, indices), reduction="sum").item()
        return total / len(target.ids)


def _ragged(texts: TokenizedTexts, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The ids and `cu_seqlens` of some texts."""
    ids, cu_seqlens = gather(texts.ids, texts.cu_seqlens, indices)
    return ids, cu_seqlens.astype(np.int64)
