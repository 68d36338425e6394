"""Layers: small modules over `fastattn.functional`, ragged inside, trainable or frozen, and thread-safe."""

from fastattn.nn import init
from fastattn.nn.attention import SelfAttention
from fastattn.nn.dropout import Dropout
from fastattn.nn.embedding import Embedding
from fastattn.nn.feed_forward import FeedForward
from fastattn.nn.layer_norm import LayerNorm
from fastattn.nn.linear import Linear, StackedLinear
from fastattn.nn.module import Module
from fastattn.nn.parameter import Parameter, ParameterRows
from fastattn.nn.workspace import Workspace

__all__ = [
    "Dropout",
    "Embedding",
    "FeedForward",
    "LayerNorm",
    "Linear",
    "Module",
    "Parameter",
    "ParameterRows",
    "SelfAttention",
    "StackedLinear",
    "Workspace",
    "init",
]
