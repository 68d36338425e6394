"""Decoding: what a model says, token by token. It calls models; no model knows it."""

from fastattn.generation.greedy import generate

__all__ = ["generate"]
