"""The Transformer, encoder and decoder: configuration and model."""

from fastattn.models.registry import Family
from fastattn.models.transformer.config import TransformerConfig
from fastattn.models.transformer.model import Transformer

FAMILY = Family(TransformerConfig, heads={"ConditionalGeneration": Transformer})
