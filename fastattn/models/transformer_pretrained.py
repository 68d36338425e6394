"""Making a Transformer, loading it from a MarianMT folder and saving it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn.checks import config_integer
from fastattn.files import replacing
from fastattn.formats import hugging_face
from fastattn.models.inputs import pack
from fastattn.models.pretrained import PreTrainedModel, check_changes
from fastattn.models.transformer_config import TransformerConfig
from fastattn.models.transformer_decoding import UNSUPPORTED, Rules, Settings, decode
from fastattn.models.transformer_inputs import OWNER
from fastattn.nn.parameter import Array

Self = TypeVar("Self", bound="TransformerPreTrainedModel")

GENERATION = "generation_config.json"

_SHARED = "model.shared.weight"
_TABLES = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
# what a folder may have and the model does not: positions that are computed, and a table that neither side reads
_POSITIONS = ("model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight")
_PASSED_OVER = (*_POSITIONS, _SHARED)
_LAYERDROP = ("encoder_layerdrop", "decoder_layerdrop")
_ROUNDING = 2.0**-8
"""How far BF16 may be from positions."""

# Of a generation_config.json these count even where it leaves them out, the others only where it has them.
_DECODING = ("max_length", "bad_words_ids", "forced_eos_token_id")
_TOKENS = ("decoder_start_token_id", "eos_token_id")


class TransformerPreTrainedModel(PreTrainedModel):
    """A Transformer: with `tensors` frozen, unless `trainable`, else new and trainable, unless `trainable=False`.

    `tensors` are the weights, float32, under the names of Hugging Face's `MarianMTModel`, and are copied. Tied ones may
    have any of their names, and without a `final_logits_bias` it is 0. Without `tensors` all weights are drawn at
    random, as `config.init_std` and `fastattn.manual_seed` say, and the model begins in training mode; else in
    evaluation mode. Raises ValueError when a tensor is missing, is not known, does not have the shape that `config`
    says, or is there under several of its names with different values.
    """

    config: TransformerConfig
    encoder: Any
    required: tuple[str, ...] = ("model.", "lm_head.")  # not final_logits_bias, which is zeros where it is missing
    layer_names: ClassVar = {f"{side}_layers": rf"model\.{side}\.layers\.(\d+)\." for side in ("encoder", "decoder")}
    settings = Settings()
    """What the folder says about decoding and the config does not."""

    def __init__(
        self, config: TransformerConfig, tensors: Mapping[str, Array] | None = None, *, trainable: bool | None = None
    ) -> None:
        if not isinstance(config, TransformerConfig):
            raise TypeError(f"Transformer: config must be a TransformerConfig, got {type(config).__name__}")
        super().__init__(config, tensors, trainable=trainable)

    @classmethod
    def from_pretrained(
        cls: type[Self], folder: str | os.PathLike[str], *, trainable: bool | None = None, **changes: Any
    ) -> Self:
        """Load a MarianMT folder, or one of `save_pretrained`: config.json and safetensors, F32, F16 or BF16.

        The model is frozen unless `trainable`. What generation_config.json says about decoding, if it is there, comes
        before config.json. Beam search and sampling are passed over; what would change the greedy choice is refused by
        `generate`, so that the model can be used for all else. `changes` replace fields of the config (`dropout=0.0`).

        Raises FileNotFoundError or ValueError, naming the file and the value, for a file that is missing or damaged,
        another architecture, an option that is not supported, and weights that do not fit the config; TypeError for a
        field that the config does not have.
        """
        config, settings = _read_config(folder, changes, bool(trainable))
        with hugging_face.read_state_dict(folder) as tensors:
            tensors = tensors.renamed(_current_name)
            model = cls(_shared_or_not(config, tensors), tensors, trainable=trainable)
        model.settings = settings
        return model

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json, generation_config.json and model.safetensors, each whole or not at all.

        transformers reads them as a `MarianMTModel` if the config is one that Marian has: post-norm and its positions
        (`config.is_marian`). It refuses the others by their `model_type`, and `from_pretrained` reads all of them.
        pickle, too, has no place for a frozen model's packed matrices: this is how to send one to another process.
        """
        folder = Path(folder)
        tensors = self.state_dict()
        config = self.config.to_dict()
        if self.config.share_encoder_decoder_embeddings and not self.config.tie_word_embeddings:
            # transformers has two tables then, whatever is shared
            tensors.update(dict.fromkeys(_TABLES, tensors[_SHARED]))
        hugging_face.write_checkpoint(folder, config, tensors)
        names = (*_DECODING, *_TOKENS, "pad_token_id", "bos_token_id")
        values = {**{name: getattr(self.config, name) for name in names}, **self.settings.values}
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

        Returns int64 `[batch, longest]`: what each sequence begins with, its tokens and `eos_token_id`, then the
        `pad_token_id` of generation_config.json, or of the config where there is no such file; or `eos_token_id`, where
        that is None.

        Raises TypeError or ValueError for ids, a mask or an option that cannot be, and for a source without tokens;
        ValueError, naming the file, for what the folder asks for and is not done here (`no_repeat_ngram_size`).
        """
        source = pack(OWNER, "input_ids", input_ids, attention_mask)
        rules = Rules(
            self.config,
            self.settings,
            max_length=max_length,
            max_new_tokens=max_new_tokens,
            bad_words_ids=bad_words_ids,
            forced_eos_token_id=forced_eos_token_id,
            decoder_start_token_id=decoder_start_token_id,
        )
        return decode(self, source, rules, use_cache)

    def refusals(self, tensors: Mapping[str, Array]) -> list[tuple[str, str]]:
        known = {name for name, _ in self._names()}
        others = [name for name in tensors if name not in known]
        found = super().refusals(tensors)
        found += [(name, "is not known") for name in others if name not in _PASSED_OVER]
        wrong = [name for name in others if name in _POSITIONS and not self._computes(tensors[name])]
        return found + [(name, "must be the positions that the config says, but is not") for name in wrong]

    def _computes(self, table: Array) -> bool:
        """Whether these are the positions that need no table."""
        computed: Array = self.encoder.embed_positions(np.arange(table.size // self.config.d_model))
        return table.shape == computed.shape and np.allclose(table, computed, rtol=0, atol=_ROUNDING)


def _read_config(
    folder: str | os.PathLike[str], changes: Mapping[str, Any], trainable: bool
) -> tuple[TransformerConfig, Settings]:
    """The configuration in a folder, with some fields changed, and what else it says about decoding."""
    check_changes(TransformerConfig, changes)
    path = Path(folder) / hugging_face.CONFIG
    values = hugging_face.read_config(folder)
    config = TransformerConfig.from_dict(values, str(path), **changes)
    for name in _LAYERDROP:
        if trainable and values.get(name):
            raise ValueError(f"{path}: {name} is {values[name]!r}; only 0.0 is supported in a model that trains")
    decoding: dict[str, Any] = {}
    names = list(UNSUPPORTED)
    if (Path(folder) / GENERATION).is_file():
        path = Path(folder) / GENERATION
        values = hugging_face.read_json(path)
        decoding = {name: values.get(name) for name in _DECODING}
        decoding |= {name: values[name] for name in _TOKENS if values.get(name) is not None}
        names += ["pad_token_id"] * ("pad_token_id" not in changes)
    settings = Settings(str(path), {name: values.get(name) for name in names})
    try:
        if values.get("max_new_tokens") is not None:
            decoding["max_length"] = 1 + config_integer("max_new_tokens", values["max_new_tokens"])
        return replace(config, **{**decoding, **changes}), settings
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _current_name(name: str) -> str:
    """A tensor's name in a `MarianMTModel`; one of a `MarianModel` has no `model.`."""
    return f"model.{name}" if name.startswith(("shared.", "encoder.", "decoder.")) else name


def _shared_or_not(config: TransformerConfig, tensors: Mapping[str, Array]) -> TransformerConfig:
    """`config`, not sharing embeddings where transformers does not: without ties each side has a table in the file."""
    shared = config.share_encoder_decoder_embeddings and not config.tie_word_embeddings
    if shared and all(name in tensors for name in _TABLES):
        first, *others = (tensors[name] for name in (*_TABLES, _SHARED) if name in tensors)
        if not all(np.array_equal(first, table, equal_nan=True) for table in others):
            return replace(config, share_encoder_decoder_embeddings=False)
    return config
