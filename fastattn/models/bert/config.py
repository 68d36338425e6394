"""The configuration of BERT, in Hugging Face's format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastattn.checks import shown
from fastattn.models.config import EncoderConfig, architectures


class BertConfig(EncoderConfig):
    """The shape of a BERT model, field by field as in Hugging Face's config.json; the defaults are BERT-base.

    `num_labels` is the length of `id2label`, or 2 without names. `id2label` defaults to LABEL_0, LABEL_1, ...;
    `label2id` is its inverse. More than 65,536 labels must be named.

    Raises ValueError, naming the field and the value, for a value that no BERT model can have.
    """

    model_types = ("bert",)

    @classmethod
    def _read(cls, values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a config.json. Early files say no `model_type`."""
        named = [] if "model_type" in values else architectures(values)
        if not all(name.startswith("Bert") for name in named):
            raise ValueError(f"architectures is {shown(named)}; BertModel reads Bert models")
        return super()._read({"model_type": "bert", **values}, changes)
