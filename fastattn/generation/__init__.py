"""Decoding: a model's output, token by token. This package calls models; no model imports it.

`decoder` has the protocol of a model, `options` the options of `generate`, `rules` the allowed tokens, and `greedy`,
`beam` and `sample` a search each.
"""

from fastattn.generation.decoder import Decoder, DecoderModel
from fastattn.generation.generate import generate
from fastattn.generation.hypotheses import GenerateOutput

__all__ = ["Decoder", "DecoderModel", "GenerateOutput", "generate"]
