"""Texts with masks in, the words for them out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastattn import checks, runtime
from fastattn import functional as F
from fastattn.autograd import no_grad
from fastattn.checks import shown
from fastattn.files import json_line, utf8_lines
from fastattn.hub import find_model
from fastattn.models.registry import load_head
from fastattn.tasks.base import Predictor
from fastattn.tasks.embed.folder import FILES
from fastattn.tasks.fill.recipe import FillOptions
from fastattn.tasks.heads import head_of
from fastattn.tasks.limits import token_limit
from fastattn.tasks.work import Together, Work, joined, works_of
from fastattn.text import TokenizedTexts, Tokenizer, gather, token_budget_batches, tokens_per_batch

HEADS = ("MaskedLM", "PreTraining")
_COST = 16  # tokens that a mask counts for in a batch: its scores are a row of the whole vocabulary


class Input(NamedTuple):
    """Texts, and the name of their file in errors."""

    texts: list[str]
    name: str


class Filler(Predictor):
    """A model that predicts the words hidden by [MASK], and its tokenizer.

    The words of a text do not depend on the other texts, their order or the number of threads. Many threads may call at
    once. `fastattn train pretrain` makes such a model.

    Attributes:
        model: a model for masked words, such as `BertForMaskedLM`.
        tokenizer: its tokenizer.
        mask_token: the mask in a text.

    >>> filler = Filler.from_pretrained("bert-base-uncased")                    # doctest: +SKIP
    >>> [word["token_str"] for word in filler("The cat [MASK] on the mat.")]    # doctest: +SKIP
    ['sat', 'sits', 'lay', 'was', 'slept']
    """

    heads = HEADS

    def __init__(self, model: Any, tokenizer: Tokenizer, folder: Path | None = None) -> None:
        """Combine a model and its tokenizer, which were read from `folder`. Raises ValueError for a tokenizer without a
        mask."""
        self.model, self.tokenizer, self._folder = model, tokenizer, folder
        if tokenizer.mask_token_id is None:
            raise ValueError(f"{folder or 'Filler'}: the tokenizer has no mask")
        self.mask_token: str = tokenizer.tokens([tokenizer.mask_token_id])[0]

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | os.PathLike[str], *, weights: str | None = None, **hub: Any
    ) -> Filler:
        """Load what BertForMaskedLM or BertForPreTraining wrote, here or in transformers, frozen. See `Predictor`."""
        folder = find_model(name_or_folder, FILES, **hub)
        cls.check_folder(folder)
        model = load_head(folder, HEADS[0], trainable=False, weights=weights, new_head="refuse")
        tokenizer = Tokenizer.from_pretrained(folder)
        tokenizer.warn_of_tokens_beyond(model.config.vocab_size)
        return cls(model, tokenizer, folder)

    @classmethod
    def check_folder(cls, folder: Path) -> None:
        head_of(folder, *HEADS, refusal="has no head for masked words")

    def __repr__(self) -> str:
        return f"Filler({type(self.model).__name__ if self._folder is None else str(self._folder)!r})"

    def __call__(
        self, inputs: str | Sequence[str], /, *, top_k: int = 5, targets: str | Sequence[str] | None = None
    ) -> list[Any]:
        """The words for each mask, the best one first, as transformers' fill-mask pipeline gives them.

        Args:
            inputs: a text with one mask or more, or a sequence of them.
            top_k: the most words of each mask.
            targets: the only words that may stand there. One that is no token counts by its first token, with a
                warning.

        Returns for a text a list of dicts, or a list of lists of them if it has several masks; for a sequence, a list
        of these. A dict has the word (`token_str`), its id (`token`), its probability (`score`) and the text with the
        word in it (`sequence`).

        Raises TypeError for what is no text, and ValueError for a text without a mask, one that is longer than the
        model's positions, and a target without a token; each is named by its index.
        """
        single = isinstance(inputs, str)
        texts = checks.texts("Filler: inputs", [inputs] if single else inputs)
        options = FillOptions(top_k=top_k, targets=targets)  # type: ignore[arg-type]  # which makes a tuple of it
        found = self._fill(texts, options, [f"Filler: inputs[{i}]" for i in range(len(texts))])
        return found[0] if single else found

    def _fill(self, texts: list[str], options: FillOptions, names: Sequence[str]) -> list[list[Any]]:
        tokens = self._encode(texts, names)
        return self._passes(tokens, options.top_k, self._targets(options.targets))

    def prepare(
        self,
        inputs: Sequence[str],
        method: str | None = None,
        *,
        top_k: int = 5,
        targets: str | Sequence[str] | None = None,
    ) -> list[Work]:
        """Each of `inputs`, which are texts, tokenised; see `Predictor.prepare`. There is no other `method`."""
        checks.choice("prepare: method", method or "__call__", ("__call__",))
        texts = checks.texts("Filler: inputs", inputs)
        options = FillOptions(top_k=top_k, targets=targets)  # type: ignore[arg-type]  # which makes a tuple of it
        chosen = self._targets(options.targets)
        together = Together(self._compute, (options.top_k, None if chosen is None else tuple(chosen.tolist())))
        return works_of(together, self._encode(texts, [f"Filler: inputs[{i}]" for i in range(len(texts))]))

    def _compute(
        self, data: list[tuple[NDArray[np.int64]]], top_k: int, targets: tuple[int, ...] | None
    ) -> list[list[Any]]:
        return self._passes(joined(data)[0], top_k, None if targets is None else np.array(targets, np.int64))

    def _encode(self, texts: list[str], names: Sequence[str]) -> TokenizedTexts:
        """The tokens of texts, each of which has a mask and is no longer than the model reads."""
        config = self.model.config
        tokens = self.tokenizer.encode(texts, name="Filler: inputs", rows=config.vocab_size)
        longest = token_limit(self.tokenizer, config)
        counts = self._masks(tokens)
        for name, length, count in zip(names, tokens.lengths.tolist(), counts.tolist(), strict=True):
            if not count:
                raise ValueError(f"{name} has no {self.mask_token}")
            if length > longest:
                raise ValueError(f"{name} has {length} tokens, but the model reads {longest}")
        return tokens

    def _masks(self, tokens: TokenizedTexts) -> NDArray[np.int64]:
        """How many masks each text has."""
        masked = tokens.ids == self.tokenizer.mask_token_id
        return np.bincount(np.repeat(np.arange(len(tokens)), tokens.lengths)[masked], minlength=len(tokens))

    def _passes(self, tokens: TokenizedTexts, top_k: int, targets: NDArray[np.int64] | None) -> list[list[Any]]:
        found, counts = list[list[Any]]([] for _ in range(len(tokens))), self._masks(tokens)
        with no_grad():
            budget = tokens_per_batch(runtime.num_threads())
            for batch in token_budget_batches(tokens.lengths + _COST * counts, budget):
                ids, cu_seqlens = gather(tokens.ids, tokens.cu_seqlens, batch)
                places = np.flatnonzero(ids == self.tokenizer.mask_token_id)
                logits = word_scores(self.model.forward_ragged(ids, cu_seqlens, places=places))
                scores = np.asarray(F.softmax(logits, dim=1))
                owners = np.searchsorted(cu_seqlens, places, side="right") - 1
                for place, owner, row in zip(places, owners, scores, strict=True):
                    text = ids[cu_seqlens[owner] : cu_seqlens[owner + 1]]
                    words = self._words(text, place - cu_seqlens[owner], row, top_k, targets)
                    found[batch[owner]].append(words)
        return [masks[0] if len(masks) == 1 else masks for masks in found]

    def _words(
        self,
        text: NDArray[np.int64],
        place: int,
        scores: NDArray[np.float32],
        count: int,
        targets: NDArray[np.int64] | None,
    ) -> list[dict[str, Any]]:
        """The best words for the mask at one place of a text."""
        ids = _best(scores, count) if targets is None else targets[_best(scores[targets], count)]
        single = np.count_nonzero(text == self.tokenizer.mask_token_id) == 1
        sequences = np.repeat(text[None], len(ids), axis=0)
        sequences[:, place] = ids
        filled = self.tokenizer.decode(sequences, skip_special_tokens=single)
        words = self.tokenizer.decode(ids[:, None], skip_special_tokens=False)
        return [
            {"score": float(scores[i]), "token": int(i), "token_str": word, "sequence": sequence}
            for i, word, sequence in zip(ids, words, filled, strict=True)
        ]

    def _targets(self, targets: Sequence[str] | None) -> NDArray[np.int64] | None:
        """The ids of targets, each once. Raises ValueError for one without a token that the model knows."""
        if targets is None:
            return None
        found = []
        for target in targets:
            number = self.tokenizer.token_to_id(target)
            if number is None:
                leading, trailing = self.tokenizer.around
                ids = self.tokenizer.encode([target], name="Filler: targets").ids
                ids = ids[len(leading) : len(ids) - len(trailing)]
                if not len(ids) or ids[0] == self.tokenizer.unk_token_id:
                    raise ValueError(f"Filler: the target {shown(target)} is no token of the vocabulary")
                number = int(ids[0])
                if len(ids) > 1:
                    first = self.tokenizer.tokens([number])[0]
                    warnings.warn(
                        f"Filler: the target {shown(target)} is {len(ids)} tokens; the first one, {first}, counts",
                        stacklevel=4,
                    )
            if number >= self.model.config.vocab_size:
                raise ValueError(f"Filler: the target {shown(target)} has no embedding in the model")
            found.append(number)
        if not found:
            raise ValueError(f"Filler: targets must have a word or more, got {shown(targets)}")
        return np.array(list(dict.fromkeys(found)), np.int64)

    def read_input(self, lines: Iterable[bytes], name: str, options: Any) -> Input:
        return Input(list(utf8_lines(lines, name)), name)

    def predict(self, data: Input, options: FillOptions) -> tuple[Iterable[str], Iterable[str]]:
        names = [f"{data.name}:{number}" for number in range(1, len(data.texts) + 1)]
        return (json_line(words) for words in self._fill(data.texts, options, names)), []


def word_scores(output: Any) -> NDArray[np.float32]:
    """The scores of words in the output of a model with a head for masked words."""
    return np.asarray(output.prediction_logits if hasattr(output, "prediction_logits") else output.logits)


def _best(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The places of the highest scores, the best one first."""
    count = min(count, len(scores))
    some = np.sort(np.argpartition(-scores, count - 1)[:count])
    best: NDArray[np.int64] = some[np.argsort(-scores[some], kind="stable")]
    return best
