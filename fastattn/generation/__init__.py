"""Decoding: a model's output, token by token. It calls models; no model knows it.

`decoder` is the protocol of a model, `rules` the allowed tokens, `greedy` a search.
"""

from fastattn.generation.decoder import Decoder, DecoderModel
from fastattn.generation.greedy import generate

__all__ = ["Decoder", "DecoderModel", "generate"]
