"""What the BERT models share: making them, loading and saving."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from fastattn.formats import hugging_face
from fastattn.models.bert_config import BertConfig
from fastattn.models.pretrained import PreTrainedModel, check_changes
from fastattn.nn.parameter import Array

Self = TypeVar("Self", bound="BertPreTrainedModel")

_NORM_NAMES = {"gamma": "weight", "beta": "bias"}


class BertPreTrainedModel(PreTrainedModel):
    """A BERT encoder, alone or under a head.

    `tensors` are the weights, float32, under Hugging Face's names for a model of this class, and are copied. The
    encoder's must all be there; those of a head that are not are drawn at random and named in a warning. Without
    `tensors` all are: normally distributed with `initializer_range`, biases 0, as `fastattn.manual_seed` says. Such
    a model begins in training mode, a loaded one in evaluation mode. Raises ValueError when a tensor is missing or
    does not have the shape that `config` says.
    """

    config: BertConfig
    gradient_checkpointing = False
    loads_trainable = True
    required: tuple[str, ...] = ("bert.embeddings.", "bert.encoder.")
    layer_names: ClassVar = {"num_hidden_layers": r"(?:bert\.)?encoder\.layer\.(\d+)\."}

    @classmethod
    def from_pretrained(
        cls: type[Self], folder: str | os.PathLike[str], *, trainable: bool | None = None, **changes: Any
    ) -> Self:
        """Load a Hugging Face BERT folder: config.json and safetensors, single or sharded, F32, F16 or BF16.

        The folder may be that of another head, or of the encoder alone: what this model does not have is passed over,
        and a head that is not there is drawn at random, with a warning. `changes` replace fields of the config
        (`num_labels=3`). `trainable` is True by default, but for `BertModel`.

        Raises FileNotFoundError or ValueError, naming the file and the value, for a file that is missing or damaged,
        another architecture, and weights that do not fit the config; TypeError for a field that the config does not
        have.
        """
        return cls._read(folder, changes, trainable=trainable)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json and model.safetensors, each whole or not at all; transformers reads them back."""
        config = self.config.to_dict(type(self).__name__)
        hugging_face.write_checkpoint(folder, config, self.state_dict())

    def gradient_checkpointing_enable(self) -> None:
        """Keep only what goes into each layer, and compute the layer again in `backward()`: less memory, same bits."""
        self._set_checkpointing(True)

    def gradient_checkpointing_disable(self) -> None:
        """Keep what the layers compute."""
        self._set_checkpointing(False)

    @classmethod
    def current_name(cls, name: str) -> str:
        """A tensor's name in today's model of this class: `bert.` before the encoder, `weight` for `gamma`."""
        name = re.sub(r"LayerNorm\.(gamma|beta)$", lambda m: f"LayerNorm.{_NORM_NAMES[m[1]]}", name)
        return f"bert.{name}" if name.startswith(("embeddings.", "encoder.", "pooler.")) else name

    def _set_checkpointing(self, enabled: bool) -> None:
        for module in self.modules():
            if isinstance(module, BertPreTrainedModel):
                module.gradient_checkpointing = enabled

    @classmethod
    def _read(cls: type[Self], folder: str | os.PathLike[str], changes: Mapping[str, Any], **options: Any) -> Self:
        config = _read_config(folder, changes)
        with hugging_face.read_state_dict(folder) as tensors:
            return cls(config, tensors.renamed(cls.current_name), **options)

    def _fill(self, tensors: Mapping[str, Array], source: str, *, freeze: bool) -> None:
        new = [name for name, text in self.problems(tensors) if self._optional(name, text)]
        super()._fill(tensors, source, freeze=freeze)
        if new:
            warnings.warn(
                f"{type(self).__name__}: {', '.join(new)} are not in {source}: they are drawn at random and wait to "
                "be trained",
                stacklevel=5,
            )


def _read_config(folder: str | os.PathLike[str], changes: Mapping[str, Any]) -> BertConfig:
    """The configuration in a folder, with some fields changed."""
    values = hugging_face.read_config(folder)
    check_changes(BertConfig, changes)
    count = len(values.get("id2label") or ())
    if "id2label" in changes or changes.get("num_labels", count) != count:  # other labels than the folder's
        values = {name: value for name, value in values.items() if name not in ("id2label", "label2id")}
    return BertConfig.from_dict({**values, **changes}, source=str(Path(folder) / hugging_face.CONFIG))
