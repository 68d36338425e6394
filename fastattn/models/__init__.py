"""Models: their configuration, network and checkpoints."""

from fastattn.models.bert import BertConfig, BertModel, BertOutput

__all__ = ["BertConfig", "BertModel", "BertOutput"]
