"""Decoding: a model's output, token by token. This package calls models; no model imports it.

`decoder` has the protocol of a model, `rules` the allowed tokens, `greedy` a search.
"""

from fastattn.generation.decoder import Decoder, DecoderModel
from fastattn.generation.greedy import generate

__all__ = ["Decoder", "DecoderModel", "generate"]
