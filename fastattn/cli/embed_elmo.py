"""`fastattn embed --elmo`: a vector for every word of every line."""

from __future__ import annotations

import argparse
import json
import os
import zipfile
from collections.abc import Callable
from typing import BinaryIO

import numpy as np

from fastattn.cli import embed, use_threads
from fastattn.files import open_output
from fastattn.progress import progress_bar

FORMATS = {".npz": "npz", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}
LAYERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "all": lambda layers: layers,
    "average": lambda layers: layers.mean(axis=0),
    "top": lambda layers: layers[-1],
}
NOT_FOR_ELMO = {"normalize": False, "prompt_name": None, "truncate_dim": None, "truncation": None}


def run(arguments: argparse.Namespace) -> int:
    """Embed with the model of `--elmo`."""
    for name, unused in NOT_FOR_ELMO.items():
        if getattr(arguments, name) != unused:
            raise ValueError(f"--{name.replace('_', '-')} is for --model, not for --elmo")
    files, source = _split(arguments.elmo, arguments.input)
    output_format = embed.choose_format(arguments, FORMATS)
    texts = embed.read_texts(source)
    use_threads(arguments.threads)
    from fastattn.models import Elmo

    elmo = Elmo.from_pretrained(*files)
    choose = LAYERS[arguments.layers or "all"]
    with (
        open_output(arguments.output) as file,
        (_Arrays if output_format == "npz" else _Lines)(file) as output,
        progress_bar(len(texts), show=arguments.progress, delay=0 if arguments.progress else 1) as advance,
    ):
        for chunk in embed.chunks(texts, embed.CHUNK):
            sentences = [text.split() for text in chunk]
            for words, layers in zip(sentences, elmo(sentences), strict=True):
                output.write(words, choose(layers))
            advance(len(chunk))
    return 0


def _split(values: list[str], source: str) -> tuple[list[str], str]:
    """The model's files, and the text; which may stand behind them."""
    count = 1 if os.path.isdir(values[0]) else 2
    files, rest = values[:count], values[count:]
    if len(files) < count:
        raise ValueError(f"--elmo {files[0]}: no such folder; give a folder, or options.json and the HDF5 weights")
    if len(rest) > 1 or (rest and source != "-"):
        raise ValueError(f"--elmo takes {count} here, and one text file may follow, got also {rest[-1]}")
    return files, rest[0] if rest else source


class _Arrays:
    """An .npz file, array by array: "0", "1", ..."""

    def __init__(self, file: BinaryIO) -> None:
        self._zip = zipfile.ZipFile(file, "w")
        self._count = 0

    def write(self, words: list[str], embedding: np.ndarray) -> None:
        entry = zipfile.ZipInfo(f"{self._count}.npy")  # of 1980: the same text gives the same bytes
        self._count += 1
        with self._zip.open(entry, "w", force_zip64=True) as file:
            np.lib.format.write_array(file, np.ascontiguousarray(embedding), allow_pickle=False)

    def __enter__(self) -> _Arrays:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()


class _Lines:
    """Lines of JSON; numbers have the fewest digits that give every bit back."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, words: list[str], embedding: np.ndarray) -> None:
        text, numbers = json.dumps(words, ensure_ascii=False), _numbers(embedding)
        self._file.write(f'{{"words": {text}, "embedding": {numbers}}}\n'.encode())

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None: ...


def _numbers(array: np.ndarray) -> str:
    inner = embed.numbers(array) if array.ndim == 1 else ", ".join(map(_numbers, array))
    return f"[{inner}]"
