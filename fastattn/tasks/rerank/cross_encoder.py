"""A reranker under the names of sentence-transformers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import checks
from fastattn import functional as F
from fastattn.autograd import Tensor
from fastattn.progress import progress_bar
from fastattn.tasks.embed.arguments import check_accepted, shows_progress
from fastattn.tasks.limits import token_limit
from fastattn.tasks.rerank.task import Reranker
from fastattn.tasks.sequences.task import split_pairs


class _NoCard:
    """What evaluators of sentence-transformers write their metrics to, besides returning them."""

    def set_evaluation_metrics(self, *_: Any) -> None:
        pass


class CrossEncoder:
    """Scores of pairs of texts, with the meanings of `sentence_transformers.CrossEncoder`.

    It reads the folders of that class and those that `fastattn train rerank` and `fastattn train regress` write. The
    bits of a score do not depend on the other pairs, their order or the number of threads. Many threads may call at
    once.

    Args:
        name_or_folder: a folder, or the name of an installed model package or a Hugging Face model; see
            `fastattn.hub.find_model`.
        max_length: cut longer pairs to this many tokens; None takes the model's limit.
        activation_fn: what turns logits, float32 `[pairs, num_labels]`, into scores; None takes the folder's, or a
            sigmoid for one score and nothing for several.
        weights: what the matrices of the model become, "float32", "bfloat16" or "int8"; None takes what the folder has.
        device: None or "cpu".
        revision, token, local_files_only: as for `fastattn.hub.find_model`.

    Raises as `Reranker.from_pretrained` does, and ValueError for a `max_length` beyond the model's positions.

    >>> model = CrossEncoder("path/to/cross-encoder")                               # doctest: +SKIP
    >>> model.predict([("How many live in Berlin?", "3.5 million.")])               # doctest: +SKIP
    array([0.9712], dtype=float32)
    """

    model_card_data = _NoCard()

    def __init__(
        self,
        name_or_folder: str | os.PathLike[str],
        *,
        max_length: int | None = None,
        activation_fn: Callable[[Any], Any] | None = None,
        weights: str | None = None,
        device: Any = None,
        revision: str | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
    ) -> None:
        check_accepted("CrossEncoder", device=device)
        self._reranker = Reranker.from_pretrained(
            name_or_folder, weights=weights, revision=revision, token=token, local_files_only=local_files_only
        )
        if max_length is not None:
            wanted = checks.integer("CrossEncoder: max_length", max_length)
            own = self._reranker
            own.max_length = token_limit(own.tokenizer, own.model.config, wanted)
        self.activation_fn = activation_fn

    @classmethod
    def from_pretrained(cls, name_or_folder: str | os.PathLike[str], **options: Any) -> CrossEncoder:
        """The constructor, under the name that all tasks have."""
        return cls(name_or_folder, **options)

    @property
    def num_labels(self) -> int:
        """How many scores a pair has."""
        return int(self._reranker.model.config.num_labels)

    @property
    def max_length(self) -> int:
        """The longest pair in tokens, special tokens included."""
        return int(self._reranker.max_length)

    def predict(
        self,
        inputs: Sequence[Any],
        prompt_name: None = None,
        prompt: None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        activation_fn: Callable[[Any], Any] | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        pool: None = None,
        chunk_size: None = None,
    ) -> Any:
        """The scores of pairs, float32 `[pairs]`, or `[pairs, num_labels]` if there are several for each.

        Args:
            inputs: pairs of texts; or one pair, which gets one score.
            batch_size: the most pairs in a pass. None sets a budget of tokens, which is faster. The bits of the scores
                are the same.
            show_progress_bar: None shows it if the logger "fastattn" is at INFO or DEBUG.
            activation_fn: instead of the model's.
            apply_softmax: turn several scores into probabilities.
            convert_to_numpy, convert_to_tensor, device, prompt_name, prompt, pool, chunk_size: options of
                sentence_transformers that have one value here: True, False, None or "cpu", and None for the others.

        Raises TypeError, by index, for what is no pair of str, and ValueError for a token that the model has no
        embedding for and for an option out of range.
        """
        check_accepted("predict", convert_to_numpy=convert_to_numpy, convert_to_tensor=convert_to_tensor, device=device)
        check_accepted("predict", prompt_name=prompt_name, prompt=prompt, pool=pool, chunk_size=chunk_size)
        pairs = list(checks.sequence("predict: inputs", inputs, "pairs of str"))
        single = bool(pairs) and isinstance(pairs[0], str)
        texts = split_pairs("inputs", [pairs] if single else pairs)
        scores = self._scores("predict", texts, batch_size, show_progress_bar, activation_fn)
        if apply_softmax and scores.ndim > 1:
            scores = F.softmax(scores, dim=1)
        return scores[0] if single else scores

    def _scores(
        self,
        owner: str,
        texts: tuple[Sequence[str], Sequence[str] | None],
        batch_size: int | None,
        show_progress_bar: bool | None,
        activation: Callable[[Any], Any] | None,
    ) -> NDArray[np.float32]:
        size = None if batch_size is None else checks.integer(f"{owner}: batch_size", batch_size)
        with progress_bar(len(texts[0]), show=shows_progress(owner, show_progress_bar)) as advance:
            logits = self._reranker._logits(*texts, size, advance)
        activation = activation or self.activation_fn
        if activation is None:
            return self._reranker._scores(logits)
        found = activation(logits)
        scores = found.numpy() if isinstance(found, Tensor) else np.asarray(found)
        return scores[:, 0] if scores.ndim > 1 and scores.shape[1] == 1 else scores

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: None = None,
        prompt: None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        activation_fn: Callable[[Any], Any] | None = None,
        device: Any = None,
        pool: None = None,
        chunk_size: None = None,
    ) -> list[dict[str, Any]]:
        """The documents by their scores with a query, the best first. See `Reranker.rank`, whose arguments and errors
        it has: `query`, `documents`, `top_k` and `return_documents`. The others are those of `predict`."""
        check_accepted("rank", prompt_name=prompt_name, prompt=prompt, pool=pool, chunk_size=chunk_size, device=device)

        def scored(texts: tuple[list[str], list[str]]) -> NDArray[np.float32]:
            return self._scores("rank", texts, batch_size, show_progress_bar, activation_fn)

        return self._reranker._rank(query, documents, top_k, return_documents, scored)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write a folder that this class and sentence-transformers read, each file whole or not at all."""
        self._reranker.save_pretrained(Path(folder))

    def __repr__(self) -> str:
        return f"CrossEncoder({str(self._reranker._folder)!r})"
