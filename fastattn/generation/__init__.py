"""Decoding: what a model says, token by token. It calls models; no model knows it.

`decoder` is what it asks of a model, `rules` what it may say, `greedy` a search.
"""

from fastattn.generation.decoder import Decoder, DecoderModel
from fastattn.generation.greedy import generate

__all__ = ["Decoder", "DecoderModel", "generate"]
