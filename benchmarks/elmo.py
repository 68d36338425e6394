"""ELMo at its original size, sentences in, embeddings out, against a straight PyTorch version.

Part of `python -m benchmarks recurrent`. The weights are drawn at random, small enough that no clip is reached:
then `torch.nn.LSTM`, which has none and is PyTorch's fastest, gives the same numbers.
"""

from __future__ import annotations

import argparse
import importlib
import json
import secrets
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .measure import Case, Contender
from .rivals import time_major
from .worker import Job

NAME = "elmo original 32 sentences of ud_ewt"
TOLERANCE = 1e-3
OPTIONS: dict[str, Any] = {
    "lstm": {
        "use_skip_connections": True,
        "projection_dim": 512,
        "cell_clip": 3,
        "proj_clip": 3,
        "dim": 4096,
        "n_layers": 2,
    },
    "char_cnn": {
        "activation": "relu",
        "filters": [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512], [7, 1024]],
        "n_highway": 2,
        "embedding": {"dim": 16},
        "n_characters": 262,
        "max_characters_per_token": 50,
    },
}
CHARACTERS = 261  # rows of the file: the 262 count AllenNLP's id of the padding between sentences
SENTENCE_BEGIN, SENTENCE_END, WORD_BEGIN, WORD_END, PADDING = range(256, 261)
Sentences = Sequence[Sequence[str]]
Array = npt.NDArray[Any]


def random_weights() -> Iterator[tuple[str, Array]]:
    """The datasets of the HDF5 file by their names: everybody draws the same."""
    rng = np.random.default_rng(0)
    lstm, cnn = OPTIONS["lstm"], OPTIONS["char_cnn"]
    embedding, dim, projection = cnn["embedding"]["dim"], lstm["dim"], lstm["projection_dim"]
    filters = sum(number for _, number in cnn["filters"])

    def normal(*shape: int) -> Array:
        values = rng.standard_normal(shape, np.float32)
        values *= np.float32(int(np.prod(shape[:-1])) ** -0.5)
        return values

    def small(size: int) -> Array:
        values = rng.standard_normal(size, np.float32)
        values *= np.float32(0.1)
        return values

    yield "char_embed", rng.standard_normal((CHARACTERS, embedding), np.float32)
    for index, (width, number) in enumerate(cnn["filters"]):
        yield f"CNN/W_cnn_{index}", normal(1, width, embedding, number)
        yield f"CNN/b_cnn_{index}", small(number)
    for index in range(cnn["n_highway"]):
        for part in ("carry", "transform"):
            yield f"CNN_high_{index}/W_{part}", normal(filters, filters)
            yield f"CNN_high_{index}/b_{part}", small(filters)
    yield "CNN_proj/W_proj", normal(filters, projection)
    yield "CNN_proj/b_proj", small(projection)
    for direction in range(2):
        for layer in range(lstm["n_layers"]):
            cell = f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
            yield f"{cell}/W_0", normal(2 * projection, 4 * dim) * np.float32(0.5)
            yield f"{cell}/B", small(4 * dim)
            yield f"{cell}/W_P_0", normal(dim, projection)


def files(cache: Path) -> tuple[Path, Path]:
    """options.json and the weights, in bilm-tf's format; made on first use."""
    h5py = importlib.import_module("h5py")
    options, weights = cache / "elmo-original" / "options.json", cache / "elmo-original" / "weights.hdf5"
    options.parent.mkdir(parents=True, exist_ok=True)
    if not weights.exists():
        options.write_text(json.dumps(OPTIONS))
        partial = weights.with_suffix(f".{secrets.token_hex(8)}.partial")
        with h5py.File(partial, "w") as file:
            for name, array in random_weights():
                file[name] = array
        partial.rename(weights)
    return options, weights


def fastattn_job(files: list[str], sentences: list[list[str]], threads: int) -> Job:
    """The model as a user loads and calls it."""
    importlib.import_module("fastattn").set_num_threads(threads)
    elmo = importlib.import_module("fastattn.tasks").WordEncoder.from_pretrained(*files)
    return lambda: elmo(sentences)


def torch_job(sentences: list[list[str]], threads: int, clips: bool) -> Job:
    elmo = TorchElmo(dict(random_weights()), threads, clips)
    return lambda: elmo(sentences)


class TorchElmo:
    """PyTorch's: without any padding, as it is fastest there.

    Words are rows of one batch of convolutions; the layers of both directions read packed sequences, through
    torch.nn.LSTM, or with `clips` step by step.
    """

    def __init__(self, weights: dict[str, Array], threads: int, clips: bool) -> None:
        self.torch: Any = importlib.import_module("torch")
        self.torch.set_num_threads(threads)
        self.functional = self.torch.nn.functional
        self.clips = clips
        tensors = {name: self.torch.from_numpy(array) for name, array in weights.items()}
        filters = range(len(OPTIONS["char_cnn"]["filters"]))
        self.embedding = tensors["char_embed"]
        # [1, width, embedding, number] as [number, embedding, width]
        self.kernels = [tensors[f"CNN/W_cnn_{i}"][0].permute(2, 1, 0).contiguous() for i in filters]
        self.biases = [tensors[f"CNN/b_cnn_{i}"] for i in filters]
        highway = [f"CNN_high_{index}" for index in range(OPTIONS["char_cnn"]["n_highway"])]
        self.highway = [
            [
                tensors[f"{layer}/{part}"].t().contiguous()
                for part in ("W_transform", "b_transform", "W_carry", "b_carry")
            ]
            for layer in highway
        ]
        self.projection = tensors["CNN_proj/W_proj"].t().contiguous(), tensors["CNN_proj/b_proj"]
        layers = range(OPTIONS["lstm"]["n_layers"])
        self.lstms = [
            [self.lstm(tensors, f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell") for layer in layers]
            for direction in range(2)
        ]

    def lstm(self, tensors: dict[str, Any], cell: str) -> Any:
        """A module with a cell's weights: i, j, f, o become i, f, g, o, and 1 is added to f."""
        torch, size = self.torch, OPTIONS["lstm"]["projection_dim"]
        module = torch.nn.LSTM(size, OPTIONS["lstm"]["dim"], proj_size=size)
        i, j, f, o = tensors[f"{cell}/W_0"].t().chunk(4)
        weight_ih, weight_hh = torch.cat((i, f, j, o)).split(size, 1)
        i, j, f, o = tensors[f"{cell}/B"].chunk(4)
        values = {"weight_ih": weight_ih, "weight_hh": weight_hh, "bias_ih": torch.cat((i, f + 1, j, o))}
        values |= {"bias_hh": torch.zeros(len(weight_ih)), "weight_hr": tensors[f"{cell}/W_P_0"].t()}
        module.load_state_dict({f"{name}_l0": value for name, value in values.items()})
        return module

    def __call__(self, sentences: Sentences) -> list[Array]:
        """`[layers, words, 2 * projection]` for each sentence."""
        lengths = np.array([len(words) + 2 for words in sentences])
        with self.torch.inference_mode():
            tokens = self.encode(self.torch.from_numpy(character_ids(sentences)))
            ends = np.cumsum(lengths)
            result = self.torch.empty(1 + len(self.lstms[0]), len(tokens), 2, tokens.shape[1])
            result[0] = tokens[:, None]
            for direction, modules in enumerate(self.lstms):
                rows, running, _ = time_major(lengths, direction == 1)
                h = tokens[rows]
                for layer, module in enumerate(modules):
                    output = (self.steps if self.clips else self.packed)(module, h, running)
                    h = output + h if layer else output  # the skip connection
                    result[layer + 1, rows, direction] = h
            both = result.flatten(2).numpy()
        return [both[:, end - length + 1 : end - 1] for end, length in zip(ends, lengths, strict=True)]

    def encode(self, ids: Any) -> Any:
        """Token vectors `[tokens, projection]` of the characters `[tokens, 50]`."""
        functional = self.functional
        x = functional.embedding(ids, self.embedding).transpose(1, 2).contiguous()
        convolutions = zip(self.kernels, self.biases, strict=True)
        pooled = [functional.conv1d(x, kernel, bias).amax(-1) for kernel, bias in convolutions]
        x = self.torch.relu(self.torch.cat(pooled, 1))
        for transform, transform_bias, carry, carry_bias in self.highway:
            gate = self.torch.sigmoid(functional.linear(x, carry, carry_bias))
            x = self.torch.lerp(x, self.torch.relu(functional.linear(x, transform, transform_bias)), gate)
        return functional.linear(x, *self.projection)

    def packed(self, module: Any, x: Any, running: Array) -> Any:
        sequences = self.torch.nn.utils.rnn.PackedSequence(x, self.torch.from_numpy(running))
        return module(sequences)[0].data

    def steps(self, module: Any, x: Any, running: Array) -> Any:
        """The same one step after the other, with the clips."""
        torch, clips = self.torch, OPTIONS["lstm"]
        weights = dict(module.named_parameters())
        gates = self.functional.linear(x, weights["weight_ih_l0"], weights["bias_ih_l0"])
        weight_hh, weight_hr = weights["weight_hh_l0"].t(), weights["weight_hr_l0"].t()
        h, c = torch.zeros(running[0], weight_hr.shape[1]), torch.zeros(running[0], weight_hr.shape[0])
        output = torch.empty_like(x)
        start = 0
        for count in running.tolist():
            step = gates[start : start + count].addmm_(h[:count], weight_hh)
            i, f, g, o = step.chunk(4, 1)
            c = f.sigmoid_().mul_(c[:count]).addcmul_(i.sigmoid_(), g.tanh_())
            c.clamp_(-clips["cell_clip"], clips["cell_clip"])
            h = torch.mm(o.sigmoid_().mul_(c.tanh()), weight_hr, out=output[start : start + count])
            h.clamp_(-clips["proj_clip"], clips["proj_clip"])
            start += count
        return output


def character_ids(sentences: Sentences) -> Array:
    """bilm-tf's ids `[tokens, 50]`, each sentence between its two marks."""
    longest = OPTIONS["char_cnn"]["max_characters_per_token"]
    rows = []
    for words in sentences:
        spellings = [[SENTENCE_BEGIN], *(list(word.encode()[: longest - 2]) for word in words), [SENTENCE_END]]
        rows += [[WORD_BEGIN, *spelling, WORD_END] for spelling in spellings]
    ids = np.full((len(rows), longest), PADDING, np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
    return ids


def make_case(sentences: Sentences, options: argparse.Namespace) -> Case:
    shared = {"sentences": [list(words) for words in sentences], "threads": options.threads}
    ours = {"files": [str(path) for path in files(options.cache)], **shared}
    entrants = [Contender("fastattn", sys.executable, "benchmarks.elmo:fastattn_job", ours, ("fastattn",))]
    if "torch" in options.rivals:
        for name, clips in (("torch", False), ("torch, with clips", True)):
            arguments = {"clips": clips, **shared}
            entrants.append(Contender(name, options.rivals_python, "benchmarks.elmo:torch_job", arguments, ("torch",)))
    return Case(NAME, entrants, sum(map(len, sentences)), "words/s", TOLERANCE)
