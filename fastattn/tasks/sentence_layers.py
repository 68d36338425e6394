"""From token vectors to a sentence vector: the modules that follow a Transformer in sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fastattn import kernels, ragged
from fastattn._types import FloatArray
from fastattn.formats.hugging_face import StateDict, read_state_dict
from fastattn.tasks.sentence_folder import Dense, SentenceFolder

Layer = Callable[[FloatArray], FloatArray]


def pool(hidden: FloatArray, cu_seqlens: NDArray[np.int32], modes: tuple[str, ...], skip: int = 0) -> FloatArray:
    """Pool each sequence in one or several modes, concatenated.

    Args:
        hidden: float32 `[tokens, dim]`.
        cu_seqlens: int32 `[batch + 1]`.
        modes: modes of `fastattn.kernels.pooling`.
        skip: so many leading tokens of each sequence (a prompt) are left out.

    Returns:
        float32 `[batch, len(modes) * dim]`.
    """
    if skip:
        hidden = hidden[ragged.positions(cu_seqlens) >= skip]
        cu_seqlens = ragged.cu_seqlens(np.maximum(ragged.lengths(cu_seqlens) - skip, 0))
    parts = [kernels.pooling(hidden, cu_seqlens, mode) for mode in modes]
    if skip and "weighted_mean" in modes:
        # Tokens keep the weights that they have behind the prompt: skip + 1, skip + 2, ...
        index = modes.index("weighted_mean")
        count = ragged.lengths(cu_seqlens).astype(np.float32)[:, None]
        own, extra = count * (count + 1) / 2, count * skip
        mean = kernels.pooling(hidden, cu_seqlens, "mean")
        total = np.maximum(own + extra, 1)
        parts[index] = np.divide(parts[index] * own + mean * extra, total, dtype=np.float32)
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


class DenseLayer:
    """act(x W^T + b), plus x, or a projection of x, where the module has a residual connection."""

    def __init__(self, description: Dense) -> None:
        shape = (description.out_features, description.in_features)
        self._activation = description.activation
        self._adds_input = description.residual
        self._projection: kernels.PackedMatrix | None = None
        with read_state_dict(description.folder) as tensors:
            self._weight = kernels.PackedMatrix(_tensor(tensors, "linear.weight", shape))
            self._bias = _tensor(tensors, "linear.bias", shape[:1]) if description.bias else None
            if description.residual and shape[0] != shape[1]:
                self._projection = kernels.PackedMatrix(_tensor(tensors, "residual.weight", shape))

    def __call__(self, x: FloatArray) -> FloatArray:
        """`[batch, in_features]` to `[batch, out_features]`."""
        residual = None
        if self._adds_input:
            residual = x if self._projection is None else kernels.linear(x, self._projection)
        y: FloatArray = kernels.linear(x, self._weight, self._bias, residual, activation=self._activation)
        return y


def load_layers(description: SentenceFolder, hidden_size: int) -> tuple[list[Layer], int]:
    """The layers after the pooling, and the length of an embedding.

    Raises ValueError when a layer does not take what the one before gives, or its weights do not fit.
    """
    dimension = hidden_size * len(description.pooling.modes)
    layers: list[Layer] = []
    for layer in description.layers:
        if not isinstance(layer, Dense):
            layers.append(kernels.l2_normalize)
            continue
        if layer.in_features != dimension:
            path = layer.folder / "config.json"
            raise ValueError(f"{path}: in_features is {layer.in_features}, but the module before gives {dimension}")
        layers.append(DenseLayer(layer))
        dimension = layer.out_features
    return layers, dimension


def _tensor(tensors: StateDict, name: str, shape: tuple[int, ...]) -> FloatArray:
    if name not in tensors:
        raise ValueError(f"{tensors.source}: no tensor {name!r}")
    if tensors.shape(name) != shape:
        raise ValueError(f"{tensors.source}: {name} must have shape {shape}, got {tensors.shape(name)}")
    return tensors[name]
