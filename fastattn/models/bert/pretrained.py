"""The checkpoints of BERT, and what its models share."""

from __future__ import annotations

from typing import ClassVar

from fastattn.models.base import PreTrainedModel
from fastattn.models.bert.config import BertConfig


class BertPreTrainedModel(PreTrainedModel):
    """A BERT encoder, alone or under a head."""

    config_class = BertConfig
    loads_trainable = True
    layer_names: ClassVar = {"num_hidden_layers": "bert.encoder.layer.{}."}
    required: ClassVar[tuple[str, ...]] = ("bert.embeddings.", "bert.encoder.")
    prefix = "bert."
    prefixed: ClassVar[tuple[str, ...]] = ("embeddings.", "encoder.", "pooler.")
    old_endings: ClassVar = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

    config: BertConfig
    gradient_checkpointing = False

    def gradient_checkpointing_enable(self) -> None:
        """Keep only what goes into each layer, and compute the layer again in `backward()`: less memory, same bits."""
        self._set_checkpointing(True)

    def gradient_checkpointing_disable(self) -> None:
        """Keep what the layers compute."""
        self._set_checkpointing(False)

    def _set_checkpointing(self, enabled: bool) -> None:
        for module in self.modules():
            if isinstance(module, BertPreTrainedModel):
                module.gradient_checkpointing = enabled
