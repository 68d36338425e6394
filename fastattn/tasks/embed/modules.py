"""The modules of a sentence encoder, as in sentence-transformers. Each takes features by name and adds its own.

The features of a batch are `input_ids`, int64 `[tokens]`, and `cu_seqlens`, int32 `[batch + 1]`, or padded ids with
their mask; and `prompt_length`, how many leading tokens of each text are its prompt. The modules add
`token_embeddings`, `[tokens, dim]`, and `sentence_embedding`, `[batch, dim]`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fastattn import _core, checks, nn, ragged
from fastattn import functional as F
from fastattn.formats import quantization
from fastattn.formats.hugging_face import CONFIG, read_config, read_state_dict, write_checkpoint
from fastattn.hub import find_model
from fastattn.models.registry import encoder_family, load_encoder
from fastattn.nn import init
from fastattn.nn.module import held_as
from fastattn.nn.parameter import Matrix, Parameter
from fastattn.tasks.embed.folder import (
    ACTIVATIONS,
    FILES,
    POOLING_MODES,
    TRANSFORMER_OPTIONS,
    SentenceFolder,
    write_json,
)
from fastattn.text import TokenizedTexts, Tokenizer

__all__ = ["Dense", "LayerNorm", "Normalize", "Pooling", "Transformer"]

Features = Mapping[str, Any]
Self = TypeVar("Self", bound="Weighted")


def load_modules(description: SentenceFolder, trainable: bool, weights: str | None = None) -> list[nn.Module]:
    """The modules of a folder with their weights, frozen unless `trainable`."""
    modules: list[nn.Module] = []
    for kind, folder, options in description.modules:
        if kind == "Transformer":
            transformer = Transformer.from_pretrained(folder, trainable=trainable, weights=weights, **options)
            modules.append(transformer)
        elif kind == "Pooling":
            modules.append(Pooling(transformer.get_embedding_dimension(), **options))
        elif kind == "Normalize":
            modules.append(Normalize())
        else:
            weighted: type[Dense] | type[LayerNorm] = {"Dense": Dense, "LayerNorm": LayerNorm}[kind]
            modules.append(weighted.from_pretrained(folder, trainable=trainable, weights=weights, **options))
    return modules


def check_modules(modules: Sequence[nn.Module], source: str) -> None:
    """Raise ValueError, naming `source`, for modules that do not fit."""
    kinds = [type(module) for module in modules]
    if kinds[:2] != [Transformer, Pooling]:
        got = [kind.__name__ for kind in kinds]
        raise ValueError(f"{source}: the first two modules must be Transformer and Pooling, got {checks.shown(got)}")
    dimension = 0
    for i, module in enumerate(modules):
        name = {Pooling: "embedding_dimension", Dense: "in_features", LayerNorm: "dimension"}.get(type(module), "")
        wanted = getattr(module, name, dimension)
        if wanted != dimension:
            raise ValueError(f"{source}: module {i}: {name} is {wanted}, but the module before gives {dimension}")
        if hasattr(module, "get_embedding_dimension"):
            dimension = module.get_embedding_dimension()


class Transformer(nn.Module):
    """An encoder with its tokenizer: `input_ids` to `token_embeddings`.

    `model` is an encoder of `fastattn.models` that reads tokens, such as `BertModel`. Texts are cut at `max_seq_length`
    tokens, by default the limit of the tokenizer, and never later than at the model's positions. `do_lower_case` tells
    `save` that the tokenizer lower-cases. Tokens that the model has no embedding for give a warning, and a text with
    one of them is refused.
    """

    def __init__(
        self, model: Any, tokenizer: Tokenizer, max_seq_length: int | None = None, do_lower_case: bool = False
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.do_lower_case = do_lower_case
        self._positions: int = model.config.max_tokens
        if max_seq_length is not None:
            max_seq_length = checks.integer("Transformer: max_seq_length", max_seq_length)
        self._limit: int = min(max_seq_length or tokenizer.model_max_length or self._positions, self._positions)
        tokenizer.warn_of_tokens_beyond(model.config.vocab_size)

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | os.PathLike[str],
        max_seq_length: int | None = None,
        do_lower_case: bool = False,
        *,
        trainable: bool | None = None,
        weights: str | None = None,
        **place: Any,
    ) -> Transformer:
        """Read the model and tokenizer of a folder. `do_lower_case` lower-cases texts before all else.

        The model is frozen unless `trainable`, and `weights` is what its matrices become. `place` has the options of
        `fastattn.hub.find_model`. Raises as that, `fastattn.models.registry.load_encoder` and
        `Tokenizer.from_pretrained`.
        """
        folder = find_model(name_or_folder, FILES, **place)
        encoder_family(folder, of_tokens=True)  # before the tokenizer, which other families have otherwise
        tokenizer = Tokenizer.from_pretrained(folder, lowercase=do_lower_case)
        model = load_encoder(folder, trainable=trainable, weights=weights)
        transformer = cls(model, tokenizer, max_seq_length, do_lower_case)
        if transformer.max_seq_length <= tokenizer.special_tokens:
            raise ValueError(
                f"{folder}: max_seq_length must be more than the {tokenizer.special_tokens} special tokens, "
                f"got {transformer.max_seq_length}"
            )
        return transformer

    @property
    def max_seq_length(self) -> int:
        """Longest text in tokens, special tokens included. You can set it, up to the model's positions."""
        return self._limit

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        lowest = self.tokenizer.special_tokens + 1
        wanted = f"from {lowest} to {self._positions}"
        self._limit = checks.integer("max_seq_length", value, lowest, self._positions + 1, wanted)

    def get_embedding_dimension(self) -> int:
        """Length of a token's vector."""
        dimension: int = self.model.config.hidden_size
        return dimension

    def tokenize(self, texts: Sequence[str], **options: Any) -> TokenizedTexts:
        """Token ids of texts, cut at `max_seq_length`. `options` are those of `Tokenizer.encode`."""
        return self.tokenizer.encode(texts, self._limit, rows=self.model.config.vocab_size, **options)

    def forward(self, features: Features) -> dict[str, Any]:
        """Add `token_embeddings`. Padded ids, `[batch, seq]` with `attention_mask`, are packed."""
        ids, types = features["input_ids"], features.get("token_type_ids")
        cu_seqlens = features.get("cu_seqlens")
        if cu_seqlens is None:
            batch = self.model.pack(ids, features["attention_mask"], types)
            ids, cu_seqlens, output = batch.ids, batch.cu_seqlens, self.model.encode(batch)
        else:
            output = self.model.forward_ragged(ids, cu_seqlens, types)
        hidden = output.last_hidden_state
        return {**features, "input_ids": ids, "cu_seqlens": cu_seqlens, "token_embeddings": hidden}

    def save(self, folder: Path) -> None:
        """Write the model, the tokenizer, and sentence_bert_config.json."""
        self.tokenizer.save_pretrained(folder)
        self.model.save_pretrained(folder)
        options = {"max_seq_length": self.max_seq_length, "do_lower_case": self.do_lower_case}
        write_json(folder / TRANSFORMER_OPTIONS, options)


class Pooling(nn.Module):
    """One vector per text: `token_embeddings` `[tokens, embedding_dimension]` to `sentence_embedding`.

    Args:
        embedding_dimension: length of a token's vector.
        pooling_mode: "cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean" or "lasttoken", or several, whose
            results are concatenated.
        include_prompt: False leaves the tokens of a prompt out.

    >>> pooling = Pooling(1, ("mean", "max"))
    >>> features = {"token_embeddings": np.array([[1.0], [2.0]], np.float32), "cu_seqlens": np.array([0, 2], np.int32)}
    >>> pooling(features)["sentence_embedding"].tolist()
    [[1.5, 2.0]]
    """

    def __init__(
        self, embedding_dimension: int, pooling_mode: str | Sequence[str] = "mean", include_prompt: bool = True
    ) -> None:
        self.embedding_dimension = checks.integer("Pooling: embedding_dimension", embedding_dimension)
        modes = [pooling_mode] if isinstance(pooling_mode, str) else list(pooling_mode)
        self.pooling_mode = [checks.choice("Pooling: pooling_mode", mode, POOLING_MODES) for mode in modes]
        self.include_prompt = checks.boolean("Pooling: include_prompt", include_prompt)

    def get_embedding_dimension(self) -> int:
        """Length of a text's vector."""
        return len(self.pooling_mode) * self.embedding_dimension

    def forward(self, features: Features) -> dict[str, Any]:
        """Add `sentence_embedding`, `[batch, get_embedding_dimension()]`."""
        hidden, cu_seqlens = features["token_embeddings"], features["cu_seqlens"]
        modes = [POOLING_MODES[mode][1] for mode in self.pooling_mode]
        skip = 0 if self.include_prompt else features.get("prompt_length", 0)
        if skip:
            hidden = F.gather_rows(hidden, np.flatnonzero(ragged.positions(cu_seqlens) >= skip))
            cu_seqlens = ragged.cu_seqlens(np.maximum(ragged.lengths(cu_seqlens) - skip, 0))
        parts = [F.pooling(hidden, cu_seqlens, mode) for mode in modes]
        if skip and "weighted_mean" in modes:
            # Tokens keep their weights after the prompt: skip + 1, skip + 2, ...
            index = modes.index("weighted_mean")
            count = ragged.lengths(cu_seqlens).astype(hidden.dtype)[:, None]
            own, extra = count * (count + 1) / 2, count * skip
            mean = F.pooling(hidden, cu_seqlens, "mean")
            _core.run_pass()
            parts[index] = (parts[index] * own + mean * extra) / np.maximum(own + extra, 1)
        return {**features, "sentence_embedding": F.cat(parts, 1) if len(parts) > 1 else parts[0]}

    def save(self, folder: Path) -> None:
        """Write config.json, with names that all versions of sentence-transformers know, if possible."""
        config: dict[str, Any] = {"word_embedding_dimension": self.embedding_dimension}
        chosen = [name for name in POOLING_MODES if name in self.pooling_mode]
        if chosen == self.pooling_mode:
            config |= {key: name in chosen for name, (key, _) in POOLING_MODES.items()}
        else:
            config["pooling_mode"] = self.pooling_mode
        write_json(folder / "config.json", {**config, "include_prompt": self.include_prompt})


class Weighted(nn.Module):
    """A module with weights of its own."""

    @classmethod
    def from_pretrained(
        cls: type[Self],
        folder: Path,
        *,
        trainable: bool | None = None,
        weights: str | None = None,
        **options: Any,
    ) -> Self:
        """Read the weights of a folder. `options` are those of the constructor. Raises ValueError for other weights."""
        source = str(folder / CONFIG)
        weights = quantization.chosen(quantization.read(read_config(folder), source), weights, trainable, source)
        with init.uninitialized():
            module = cls(**options)
        with read_state_dict(folder) as tensors:
            problems = [f"tensor {checks.shown(name)} {text}" for name, text in module.problems(tensors)]
            if problems:
                raise ValueError(f"{tensors.source}: {checks.listed(problems, '; ')}")
            module.load(tensors, freeze=not trainable, weights=weights)
        module.eval()
        return module

    def _write(self, folder: Path, config: dict[str, Any]) -> None:
        """Write config.json and model.safetensors."""
        write_checkpoint(folder, {**config, **quantization.written(held_as(self)[0])}, self.numbers())


class Dense(Weighted):
    """`sentence_embedding` x to `activation(x weight^T + bias)`. `use_residual` adds x, or a projection of x.

    `activation_function` is "Tanh", "ReLU", "GELU", "SiLU" or "Identity", as in `torch.nn`. New weights are drawn
    uniformly from -1 / sqrt(in_features) to 1 / sqrt(in_features).

    >>> dense = Dense(3, 2, activation_function="Identity")
    >>> dense({"sentence_embedding": np.ones((5, 3), np.float32)})["sentence_embedding"].shape
    (5, 2)
    """

    checkpoint_names: Mapping[str, str] = {
        "weight": "linear.weight",
        "bias": "linear.bias",
        "projection": "residual.weight",
    }

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation_function: str = "Tanh",
        use_residual: bool = False,
    ) -> None:
        self.in_features = checks.integer("Dense: in_features", in_features)
        self.out_features = checks.integer("Dense: out_features", out_features)
        self.activation_function = checks.choice("Dense: activation_function", activation_function, ACTIVATIONS)
        self.use_residual = use_residual
        shape, first = (out_features, in_features), init.uniform(in_features**-0.5)
        self.weight = Matrix(shape, first)
        self.bias = Parameter((out_features,)) if bias else None
        projects = use_residual and in_features != out_features
        self.projection = Matrix(shape, first) if projects else None

    def get_embedding_dimension(self) -> int:
        """Length of a text's vector."""
        return self.out_features

    def forward(self, features: Features) -> dict[str, Any]:
        """Replace `sentence_embedding`, `[batch, in_features]`, with `[batch, out_features]`."""
        x = features["sentence_embedding"]
        residual = None
        if self.use_residual:
            residual = x if self.projection is None else F.linear(x, self.projection)
        activation = ACTIVATIONS[self.activation_function]
        y = F.linear(x, self.weight, self.bias, residual=residual, activation=activation)
        return {**features, "sentence_embedding": y}

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors."""
        package = "linear" if self.activation_function == "Identity" else "activation"
        config = {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": self.bias is not None,
            "activation_function": f"torch.nn.modules.{package}.{self.activation_function}",
        }
        if self.use_residual:  # older versions of sentence-transformers do not know it
            config["use_residual"] = True
        self._write(folder, config)


class LayerNorm(Weighted):
    """Layer normalisation of `sentence_embedding`, of `dimension` numbers.

    >>> norm = LayerNorm(2)
    >>> norm({"sentence_embedding": np.array([[1, 3]], np.float32)})["sentence_embedding"].numpy().round(3).tolist()
    [[-1.0, 1.0]]
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = checks.integer("LayerNorm: dimension", dimension)
        self.norm = nn.LayerNorm(self.dimension)

    def get_embedding_dimension(self) -> int:
        """Length of a text's vector."""
        return self.dimension

    def forward(self, features: Features) -> dict[str, Any]:
        """Replace `sentence_embedding`."""
        return {**features, "sentence_embedding": self.norm(features["sentence_embedding"])}

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors."""
        self._write(folder, {"dimension": self.dimension})


class Normalize(nn.Module):
    """Scales `sentence_embedding` to length 1."""

    def forward(self, features: Features) -> dict[str, Any]:
        """Replace `sentence_embedding`."""
        return {**features, "sentence_embedding": F.normalize(features["sentence_embedding"])}

    def save(self, folder: Path) -> None:
        """Write nothing."""


KINDS = (Transformer, Pooling, Dense, LayerNorm, Normalize)
"""The modules that sentence-transformers has too."""
