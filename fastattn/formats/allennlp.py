"""The files of ELMo, as written by bilm-tf and read by AllenNLP: `options.json` and HDF5 weights.

    with read_weights("lm_weights.hdf5", {"network.token_encoder.projection.weight": (512, 2048), ...}) as tensors:
        weight = tensors["network.token_encoder.projection.weight"]       # float32, read now

TensorFlow has matrices `[in, out]`, one for the input and the state of an LSTM, gates in the order i, j, f, o, and adds
1 to the forget gate. They are converted to PyTorch's layout: `[out, in]`, i, f, g, o, the 1 in the bias. Despite its
name, `W_carry` of a highway layer is the gate of the transformation. Tensors are read one at a time, so loading a model
needs little more memory than the model. Errors name the file and the dataset.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn.checks import listed, shown
from fastattn.files import open_regular, replacing
from fastattn.formats import hdf5
from fastattn.formats.hugging_face import check_finite, read_json

__all__ = ["Weights", "check_layers", "read_options", "read_weights", "write_files"]

Shape = tuple[int, ...]
Piece = tuple[str, Shape, Any, float]
"""A dataset, its shape, the part of it that is read, and the number that is added."""

_GATES = (0, 2, 1, 3)  # the places of i, f, g, o among i, j, f, o
_FORGET = 1


def read_options(options_file: str | os.PathLike[str]) -> dict[str, Any]:
    """The object in options.json. Raises FileNotFoundError or ValueError, naming the file."""
    _check_file(options_file, "options.json")
    return read_json(options_file)


class Weights(Mapping[str, NDArray[np.float32]]):
    """The tensors of a network, as float32. Each access reads a tensor from its datasets."""

    def __init__(self, path: Path, file: Any, shapes: Mapping[str, Shape]) -> None:
        self.source = path
        self._file = file
        self._shapes = dict(shapes)

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        tensor = np.empty(self._shapes[name], np.float32)
        for rows, (dataset, _, index, add) in _pieces(name, tensor.shape):
            with hdf5.damaged(f"{self.source}: dataset {shown(dataset)} cannot be read"):
                part = self._file[dataset][index].astype(np.float32, copy=False)
            tensor[rows] = part if dataset == _EMBEDDING else np.moveaxis(part, -1, 0)
            if add:
                tensor[rows] += np.float32(add)
        check_finite(self.source, name, tensor)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def __contains__(self, name: object) -> bool:
        return name in self._shapes  # a Mapping's own would read it

    def shape(self, name: str) -> Shape:
        """The shape of a tensor."""
        return self._shapes[name]


def check_layers(weight_file: str | os.PathLike[str], layers: int, options_file: str | os.PathLike[str]) -> None:
    """Raise ValueError for more layers than a file of weights of its size can have, before any layer is made.

    Raises ImportError if h5py is missing, and FileNotFoundError.
    """
    hdf5.import_h5py()
    _check_file(weight_file, "HDF5 weights")
    size = os.stat(weight_file).st_size
    if layers > size // _LAYER_SIZE:
        raise ValueError(
            f"{weight_file}: a file of {size} bytes cannot have the {layers} layers that {options_file} says"
        )


@contextlib.contextmanager
def read_weights(
    weight_file: str | os.PathLike[str], shapes: Mapping[str, Shape], options_file: str | os.PathLike[str] = "options"
) -> Iterator[Weights]:
    """Open a file of weights to read the tensors of a network, given their names and shapes.

    Every dataset is known to be written in its shape, in this file, and no other one to be there, before a tensor is
    read.

    Args:
        weight_file: HDF5; it is not written to.
        shapes: of the tensors of an ELMo network, by their names in its state_dict.
        options_file: where the shapes come from, for errors.

    Raises:
        ImportError: h5py is missing.
        FileNotFoundError: no such file.
        ValueError: no HDF5, a truncated or damaged file, a dataset that is missing, unknown, of another shape or
            dtype, never written, or elsewhere: behind a link, in another file, or virtual. Reading a tensor raises it
            for a NaN or an infinity.
    """
    h5py = hdf5.import_h5py()
    path = Path(weight_file)
    _check_file(path, "HDF5 weights")
    with hdf5.damaged(f"{path}: not a whole HDF5 file"):
        file = h5py.File(path, "r")
    with file:
        _check_datasets(file, path, shapes, options_file)
        yield Weights(path, file, shapes)


def write_files(
    options_file: str | os.PathLike[str],
    weight_file: str | os.PathLike[str],
    options: Mapping[str, Any],
    tensors: Mapping[str, NDArray[np.float32]],
) -> None:
    """Write the tensors of a network as bilm-tf does, each of the two files whole or not at all.

    Args:
        options_file: becomes JSON.
        weight_file: becomes HDF5, in the same folder.
        options: for `options_file`.
        tensors: the tensors of an ELMo network, by their names in its state_dict.

    Raises ImportError if h5py is missing, and ValueError if both files are the same.
    """
    h5py = hdf5.import_h5py()
    if Path(weight_file).absolute() == Path(options_file).absolute():
        raise ValueError(f"{weight_file}: cannot be both options_file and weight_file")
    with replacing(Path(weight_file), Path(options_file)) as (weights, text):
        text.write_text(json.dumps(options) + "\n", encoding="utf-8")
        with h5py.File(weights, "w") as file:
            for name, tensor in tensors.items():
                for rows, (dataset, shape, index, add) in _pieces(name, tensor.shape):
                    part = tensor[rows] - np.float32(add)
                    target = file.require_dataset(dataset, shape, np.float32)
                    target[index] = part if dataset == _EMBEDDING else np.moveaxis(part, 0, -1)


def _check_file(path: str | os.PathLike[str], kind: str) -> None:
    try:
        open_regular(path).close()
    except (FileNotFoundError, IsADirectoryError) as error:
        what = "is a folder" if isinstance(error, IsADirectoryError) else "no such file"
        raise FileNotFoundError(f"{path}: {what}; ELMo needs its {kind} here") from None


def _check_datasets(file: Any, path: Path, shapes: Mapping[str, Shape], options_file: Any) -> None:
    wanted = {piece[0]: piece[1] for name, shape in shapes.items() for _, piece in _pieces(name, shape)}
    found, unknown = hdf5.find_datasets(file, str(path), wanted)
    problems = []
    for name, shape in wanted.items():
        if name not in found:
            problems.append(f"dataset {shown(name)} is missing")
            continue
        with hdf5.damaged(f"{path}: dataset {shown(name)} cannot be read"):
            got, dtype = found[name].shape, found[name].dtype
        if got != shape:
            problems.append(f"dataset {shown(name)} must have shape {shape}, as {options_file} says, got {got}")
        elif dtype.kind != "f":
            problems.append(f"dataset {shown(name)} must be of floating point, got {dtype}")
    if problems := problems + unknown:
        raise ValueError(f"{path}: {listed(problems, '; ')}")
    hdf5.check_storage(found, str(path))


_LAYER_SIZE = 400
"""Bytes of a file that each layer takes at least: four datasets of which each has a header."""
_EMBEDDING = "char_embed"
_CELL = "RNN_{}/RNN/MultiRNNCell/Cell{}/LSTMCell"
Pieces = Iterator[tuple[slice, Piece]]


def _pieces(name: str, shape: Shape) -> Pieces:
    """Where a tensor of this name and shape is kept: its rows, and the dataset of each run of them."""
    for pattern, rule in _RULES:
        if match := re.fullmatch(rf"network\.{pattern}", name):
            yield from rule(shape, *match.groups())
            return
    raise KeyError(name)


def _whole(dataset: str) -> Callable[..., Pieces]:
    """A vector, or a matrix that is kept as its transpose."""

    def rule(shape: Shape, *numbers: str) -> Pieces:
        yield slice(None), (dataset.format(*numbers), shape[::-1], (), 0)

    return rule


def _characters(shape: Shape) -> Pieces:
    yield slice(None), (_EMBEDDING, shape, (), 0)


def _convolution(shape: Shape, i: str) -> Pieces:
    filters, width, dim = shape
    yield slice(None), (f"CNN/W_cnn_{i}", (1, width, dim, filters), 0, 0)


def _highway(shape: Shape, i: str, kind: str) -> Pieces:
    half, letter = shape[0] // 2, "W" if kind == "weight" else "b"
    for rows, part in ((slice(half), "transform"), (slice(half, None), "carry")):
        yield rows, (f"CNN_high_{i}/{letter}_{part}", (*shape[1:], half), (), 0)


def _gates(shape: Shape, layer: str, direction: str, kind: str) -> Pieces:
    cells = shape[0] // 4
    cell = _CELL.format(int(direction == "backward"), layer)
    for k, gate in enumerate(_GATES):
        rows, columns = slice(k * cells, (k + 1) * cells), slice(gate * cells, (gate + 1) * cells)
        if kind == "bias":
            yield rows, (f"{cell}/B", shape, columns, float(k == _FORGET))
        else:
            size = shape[1]  # of the input, and of the state
            inputs = slice(0, size) if kind == "weight_ih" else slice(size, 2 * size)
            yield rows, (f"{cell}/W_0", (2 * size, shape[0]), (inputs, columns), 0)


def _projection(shape: Shape, layer: str, direction: str) -> Pieces:
    yield slice(None), (f"{_CELL.format(int(direction == 'backward'), layer)}/W_P_0", shape[::-1], (), 0)


_RULES: list[tuple[str, Callable[..., Pieces]]] = [
    (r"token_encoder\.char_cnn\.embedding", _characters),
    (r"token_encoder\.char_cnn\.weight_(\d+)", _convolution),
    (r"token_encoder\.char_cnn\.bias_(\d+)", _whole("CNN/b_cnn_{}")),
    (r"token_encoder\.highway\.layers\.(\d+)\.(weight|bias)", _highway),
    (r"token_encoder\.projection\.weight", _whole("CNN_proj/W_proj")),
    (r"token_encoder\.projection\.bias", _whole("CNN_proj/b_proj")),
    (r"layers\.(\d+)\.(forward|backward)\.(weight_ih|weight_hh|bias)", _gates),
    (r"layers\.(\d+)\.(forward|backward)\.weight_hr", _projection),
]
