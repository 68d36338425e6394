"""Making a Transformer, loading it from a MarianMT folder and saving it."""

from __future__ import annotations

import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn import nn
from fastattn.files import replacing
from fastattn.formats import hugging_face
from fastattn.models.inputs import pack
from fastattn.models.transformer_config import TransformerConfig
from fastattn.models.transformer_decoding import Rules, decode
from fastattn.models.transformer_inputs import OWNER
from fastattn.nn.parameter import Array

Self = TypeVar("Self", bound="TransformerPreTrainedModel")

GENERATION = "generation_config.json"

_TABLES = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
_OPTIONAL = "final_logits_bias"  # zeros where it is missing
# what a folder may have and the model does not: positions that are computed, and a table that neither side reads
_PASSED_OVER = (
    "model.encoder.embed_positions.weight",
    "model.decoder.embed_positions.weight",
    "model.shared.weight",
)
# Of a generation_config.json these count even where it leaves them out, the others only where it has them.
_DECODING = ("max_length", "bad_words_ids", "forced_eos_token_id")
_TOKENS = ("decoder_start_token_id", "eos_token_id")


class TransformerPreTrainedModel(nn.Module, ABC):
    """A Transformer: with `tensors` frozen, unless `trainable`, else new and trainable, unless `trainable=False`.

    `tensors` are the weights, float32, under the names of Hugging Face's `MarianMTModel`, and are copied. Tied ones may
    have any of their names, and without a `final_logits_bias` it is 0. Without `tensors` all weights are drawn at
    random, as `config.init_std` and `fastattn.manual_seed` say, and the model begins in training mode; else in
    evaluation mode. Raises ValueError when a tensor is missing, is not known or does not have the shape that `config`
    says.
    """

    config: TransformerConfig

    def __init__(
        self, config: TransformerConfig, tensors: Mapping[str, Array] | None = None, *, trainable: bool | None = None
    ) -> None:
        if not isinstance(config, TransformerConfig):
            raise TypeError(f"Transformer: config must be a TransformerConfig, got {type(config).__name__}")
        source = str(getattr(tensors, "source", type(self).__name__))
        if tensors is not None:
            _check_layers(config, tensors, source)
        self.config = config
        with nn.init.uninitialized():
            self.build(config)
        if tensors is not None:
            self._fill(tensors, source, freeze=not trainable)
            return
        self.initialize()
        if trainable is False:
            self.freeze()

    @abstractmethod
    def build(self, config: TransformerConfig) -> None:
        """Make the parts, under the names that the checkpoint has for them."""

    @classmethod
    def from_pretrained(
        cls: type[Self], folder: str | os.PathLike[str], *, trainable: bool | None = None, **changes: Any
    ) -> Self:
        """Load a MarianMT folder, or one of `save_pretrained`: config.json and safetensors, F32, F16 or BF16.

        The model is frozen unless `trainable`. What generation_config.json says about decoding, if it is there, comes
        before config.json, but beam search and sampling are passed over. `changes` replace fields of the config
        (`dropout=0.0`).

        Raises FileNotFoundError or ValueError, naming the file and the value, for a file that is missing or damaged,
        another architecture, an option that is not supported, and weights that do not fit the config; TypeError for a
        field that the config does not have.
        """
        config = _read_config(folder, changes)
        with hugging_face.read_state_dict(folder) as tensors:
            tensors = tensors.renamed(_current_name)
            return cls(_shared_or_not(config, tensors), tensors, trainable=trainable)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json, generation_config.json and model.safetensors, each whole or not at all.

        transformers reads them as a `MarianMTModel` if the config is one that Marian has: post-norm and its positions
        (`config.is_marian`). It refuses the others by their `model_type`, and `from_pretrained` reads all of them.
        """
        folder = Path(folder)
        tensors = self.state_dict()
        config = self.config.to_dict()
        if self.config.share_encoder_decoder_embeddings and not self.config.tie_word_embeddings:
            # transformers has two tables then, whatever is shared
            tensors.update(dict.fromkeys(_TABLES, tensors["model.shared.weight"]))
        hugging_face.write_checkpoint(folder, config, tensors)
        names = (*_DECODING, *_TOKENS, "pad_token_id", "bos_token_id")
        values = {name: getattr(self.config, name) for name in names}
        text = json.dumps({name: value for name, value in values.items() if value is not None}, indent=2) + "\n"
        with replacing(folder / GENERATION) as (file,):
            file.write_text(text, encoding="utf-8")

    def generate(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        *,
        max_length: int | None = None,
        max_new_tokens: int | None = None,
        bad_words_ids: Sequence[Sequence[int]] | None = None,
        forced_eos_token_id: int | None = None,
        decoder_start_token_id: int | None = None,
        use_cache: bool = True,
    ) -> NDArray[np.int64]:
        """The most probable token, again and again, until `config.eos_token_id`: greedy decoding, nothing is recorded.

        It is what transformers does with `num_beams=1, do_sample=False`. Sequences that have ended cost nothing. The
        ids of a sequence do not depend on the others, nor on the number of threads. A model that trains is copied and
        packed first, which pays after some steps; in training mode, with its dropout, none decodes.

        Args:
            input_ids: sources, integers `[batch, seq]`.
            attention_mask: `[batch, seq]`, bool or integers, with 1 at the tokens; None: everywhere.
            max_length: of a result, with what it begins with; None: `config.max_length`, or else
                `config.max_position_embeddings`.
            max_new_tokens: the same, without what it begins with; one of the two.
            bad_words_ids: sequences of ids that must not occur in a result; None: `config.bad_words_ids`.
            forced_eos_token_id: what a result ends with that reaches `max_length`; None: `config.forced_eos_token_id`,
                which may be None, too: any token.
            decoder_start_token_id: what a result begins with; None: `config.decoder_start_token_id`.
            use_cache: keep keys and values from step to step; without, everything is computed again, for the same bits.

        Returns int64 `[batch, longest]`: what each sequence begins with, its tokens and `eos_token_id`, then
        `config.pad_token_id`.

        Raises TypeError or ValueError for ids, a mask or an option that cannot be, and for a source without tokens.
        """
        source = pack(OWNER, "input_ids", input_ids, attention_mask)
        rules = Rules(
            self.config,
            max_length=max_length,
            max_new_tokens=max_new_tokens,
            bad_words_ids=bad_words_ids,
            forced_eos_token_id=forced_eos_token_id,
            decoder_start_token_id=decoder_start_token_id,
        )
        return decode(self, source, rules, use_cache)

    def _fill(self, tensors: Mapping[str, Array], source: str, *, freeze: bool) -> None:
        problems = [*self.problems(tensors)]
        known = {name for name, _ in self._names()}
        problems += [(name, "is not known") for name in tensors if name not in known and name not in _PASSED_OVER]
        texts = [f"tensor {name!r} {text}" for name, text in problems if (name, text) != (_OPTIONAL, "is missing")]
        if texts:
            raise ValueError(f"{source}: {'; '.join(texts)}")
        if not isinstance(tensors, hugging_face.StateDict):  # which gives new arrays, ours to keep
            tensors = {name: np.array(tensor) for name, tensor in tensors.items()}
        self.load(tensors, freeze=freeze)
        self.eval()


def _read_config(folder: str | os.PathLike[str], changes: Mapping[str, Any]) -> TransformerConfig:
    """The configuration in a folder, with some fields changed."""
    values = hugging_face.read_config(folder)
    known = {field.name for field in fields(TransformerConfig)}
    for name in changes:
        if name not in known:
            raise TypeError(f"from_pretrained: {name!r} is not a field of TransformerConfig")
    config = TransformerConfig.from_dict({**values, **changes}, str(Path(folder) / hugging_face.CONFIG))
    path = Path(folder) / GENERATION
    if not path.is_file():
        return config
    found = hugging_face.read_json(path)
    decoding = {name: found.get(name) for name in _DECODING}
    decoding |= {name: found[name] for name in _TOKENS if found.get(name) is not None}
    try:
        return replace(config, **{**decoding, **changes})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _current_name(name: str) -> str:
    """A tensor's name in a `MarianMTModel`; one of a `MarianModel` has no `model.`."""
    return f"model.{name}" if name.startswith(("shared.", "encoder.", "decoder.")) else name


def _shared_or_not(config: TransformerConfig, tensors: Mapping[str, Array]) -> TransformerConfig:
    """`config`, not sharing embeddings where transformers does not: without ties each side has a table in the file."""
    shared = config.share_encoder_decoder_embeddings and not config.tie_word_embeddings
    if shared and all(name in tensors for name in _TABLES):
        source, target = (tensors[name] for name in _TABLES)
        if source.shape != target.shape or (source != target).any():
            return replace(config, share_encoder_decoder_embeddings=False)
    return config


def _check_layers(config: TransformerConfig, tensors: Mapping[str, Array], source: str) -> None:
    """Raise ValueError when there are not as many layers as `config` says."""
    for side, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        matches = (re.match(rf"model\.{side}\.layers\.(\d+)\.", name) for name in tensors)
        numbers = {int(match[1]) for match in matches if match}
        if numbers != set(range(len(numbers))) or len(numbers) != layers:
            raise ValueError(
                f"{source}: {side}_layers is {layers}, but there are tensors of {len(numbers)} layers"
                f"{f', the last one numbered {max(numbers)}' if numbers else ''}"
            )
