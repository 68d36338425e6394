"""The checkpoints of a Transformer: MarianMT's folders, and our own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from fastattn.checks import shown
from fastattn.formats import hugging_face
from fastattn.hub import Files
from fastattn.models.base import HUGGING_FACE, PreTrainedModel
from fastattn.models.generation_config import GENERATION_CONFIG, GenerationSettings
from fastattn.models.transformer.config import TransformerConfig
from fastattn.nn import SinusoidalPositions
from fastattn.nn.parameter import Array
from fastattn.text import translation_tokenizer

Self = TypeVar("Self", bound="TransformerPreTrainedModel")

SHARED = "model.shared.weight"
TABLES = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
# Tensors that a folder may have but the model does not: positions, and a table that neither side reads
POSITIONS = ("model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight")
_LAYERDROP = ("encoder_layerdrop", "decoder_layerdrop")
_LAST_BITS = 2.0**-20
"""The largest difference between stored and computed positions at which the computed ones are used."""


class TransformerPreTrainedModel(PreTrainedModel):
    """A Transformer. A loaded model is frozen unless `trainable` is set.

    The names of its tensors match Hugging Face's `MarianMTModel`. A tied tensor may have any of its names, and a
    missing `final_logits_bias` is 0.

    `from_pretrained` reads folders of MarianMT and of `save_pretrained`: config.json, generation_config.json and
    safetensors. The decoding options in generation_config.json, if it exists, replace those in config.json, and are the
    defaults of `fastattn.generation.generate`. It refuses options of transformers that it does not have and that would
    change its result; the model can be used for everything else. transformers reads a folder from `save_pretrained` as
    a `MarianMTModel` if the config is post-norm with Marian's positions (`config.is_marian`). It refuses the others by
    their `model_type`.
    """

    config_class = TransformerConfig
    tokenizer_files = translation_tokenizer.EITHER.patterns
    files = Files((*HUGGING_FACE.patterns, GENERATION_CONFIG, *tokenizer_files), HUGGING_FACE.required)
    whole = ("model.", "lm_head.", "final_logits_bias")
    passed_over = (*POSITIONS, SHARED)
    defaulted = ("final_logits_bias",)
    layer_names: ClassVar = {f"{side}_layers": f"model.{side}.layers.{{}}." for side in ("encoder", "decoder")}
    prefix = "model."
    prefixed = ("shared.", "encoder.", "decoder.")

    config: TransformerConfig
    encoder: Any
    settings = GenerationSettings()
    """The decoding options of the folder that are not fields of the config."""

    @classmethod
    def _read_config(cls, folder: Path, changes: Mapping[str, Any]) -> TransformerConfig:
        config: TransformerConfig = super()._read_config(folder, changes)
        settings, fields = GenerationSettings.read(folder, changes)
        try:
            return config.replace(**{**fields, **changes})
        except ValueError as error:
            raise ValueError(f"{settings.source}: {error}") from None

    @classmethod
    def _adapt(
        cls, config: TransformerConfig, tensors: Any, changes: Mapping[str, Any]
    ) -> tuple[TransformerConfig, Any]:
        """Use stored positions that are rounded. Share the tables of both sides only if they are equal.

        Without ties the file has a table for each side.
        """
        config, tensors = super()._adapt(config, tensors, changes)
        if config.position_embedding_type == "marian" and not all(
            are_computed(config, tensors[name]) for name in POSITIONS if name in tensors
        ):
            config = config.replace(position_embedding_type="stored")
        shared = config.share_encoder_decoder_embeddings and not config.tie_word_embeddings
        if shared and all(name in tensors for name in TABLES):
            first, *others = (tensors[name] for name in (*TABLES, SHARED) if name in tensors)
            if not all(np.array_equal(first, table, equal_nan=True) for table in others):
                config = config.replace(share_encoder_decoder_embeddings=False)
        return config, tensors

    def _refused(self, tensors: Mapping[str, Array]) -> list[tuple[str, str]]:
        known = {name for name, _ in self._names()}
        found = super()._refused(tensors)
        wrong = [n for n in POSITIONS if n in tensors and n not in known]
        wrong = [name for name in wrong if not are_computed(self.config, tensors[name])]
        return found + [(name, "must be the positions that the config asks for") for name in wrong]

    @classmethod
    def _load(cls: type[Self], folder: Path, changes: Mapping[str, Any], **options: Any) -> Self:
        model = super()._load(folder, changes, **options)
        model.settings, _ = GenerationSettings.read(folder, changes)
        values = hugging_face.read_config(folder)
        for name in _LAYERDROP:
            if values.get(name) and not model.frozen:
                source = folder / hugging_face.CONFIG
                raise ValueError(
                    f"{source}: {name} is {shown(values[name])}; only 0.0 is supported in a model that trains"
                )
        return model

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        shared = self.config.share_encoder_decoder_embeddings and not self.config.tie_word_embeddings
        same = dict.fromkeys(TABLES, SHARED) if shared else {}  # transformers then reads two tables
        self.write_checkpoint(folder, self.config.to_dict(), **same)
        self.settings.write(Path(folder), self.config)
        self._copy_tokenizer(folder)


def computed_positions(config: TransformerConfig) -> SinusoidalPositions:
    """The positions of a config without a table of them."""
    order = "interleaved" if config.position_embedding_type == "sinusoidal" else "concatenated"
    start, longest = config.first_position, config.max_timescale
    return SinusoidalPositions(config.d_model, order=order, first_position=start, max_timescale=longest)


def are_computed(config: TransformerConfig, table: Array) -> bool:
    """Whether a table of `[max_position_embeddings, d_model]` holds the positions that the model computes."""
    rows = config.max_position_embeddings
    return table.shape == (rows, config.d_model) and np.allclose(
        table, computed_positions(config)(np.arange(rows)), rtol=0, atol=_LAST_BITS
    )
