"""Layers: small modules built on `fastattn.functional`, ragged inside, trainable or frozen, and thread-safe."""

from typing import TYPE_CHECKING

from fastattn._lazy import lazy

if TYPE_CHECKING:
    from fastattn.nn import init
    from fastattn.nn.activations import GELU, ReLU, Sigmoid, SiLU, Softmax, Tanh
    from fastattn.nn.additive_attention import AdditiveAttention
    from fastattn.nn.attention import MultiHeadAttention
    from fastattn.nn.blocks import DecoderBlock, EncoderBlock
    from fastattn.nn.cache import Cache
    from fastattn.nn.char_cnn import CharCNN, Highway
    from fastattn.nn.containers import ModuleDict, ModuleList, Sequential
    from fastattn.nn.crf import CRF
    from fastattn.nn.dropout import Dropout
    from fastattn.nn.embedding import Embedding
    from fastattn.nn.layer_norm import LayerNorm
    from fastattn.nn.linear import Linear, StackedLinear
    from fastattn.nn.module import Module
    from fastattn.nn.parameter import Parameter, ParameterRows
    from fastattn.nn.positions import SinusoidalPositions
    from fastattn.nn.recurrent import GRU, LSTM, GRUCell, LSTMCell
    from fastattn.nn.scalar_mix import ScalarMix
    from fastattn.nn.stacks import decode, decode_step, encode

__all__ = [
    "CRF",
    "GELU",
    "GRU",
    "LSTM",
    "AdditiveAttention",
    "Cache",
    "CharCNN",
    "DecoderBlock",
    "Dropout",
    "Embedding",
    "EncoderBlock",
    "GRUCell",
    "Highway",
    "LSTMCell",
    "LayerNorm",
    "Linear",
    "Module",
    "ModuleDict",
    "ModuleList",
    "MultiHeadAttention",
    "Parameter",
    "ParameterRows",
    "ReLU",
    "ScalarMix",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SinusoidalPositions",
    "Softmax",
    "StackedLinear",
    "Tanh",
    "decode",
    "decode_step",
    "encode",
    "init",
]

__getattr__ = lazy(
    __name__,
    {
        "activations": "GELU ReLU Sigmoid SiLU Softmax Tanh",
        "additive_attention": "AdditiveAttention",
        "attention": "MultiHeadAttention",
        "blocks": "DecoderBlock EncoderBlock",
        "cache": "Cache",
        "char_cnn": "CharCNN Highway",
        "containers": "ModuleDict ModuleList Sequential",
        "crf": "CRF",
        "dropout": "Dropout",
        "embedding": "Embedding",
        "layer_norm": "LayerNorm",
        "linear": "Linear StackedLinear",
        "module": "Module",
        "parameter": "Parameter ParameterRows",
        "positions": "SinusoidalPositions",
        "recurrent": "GRU LSTM GRUCell LSTMCell",
        "scalar_mix": "ScalarMix",
        "stacks": "decode decode_step encode",
    },
    "init",
)


def __dir__() -> list[str]:
    return __all__
