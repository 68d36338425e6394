"""A training step of a tagger of LSTMs over ELMo's layers, against PyTorch.

Part of `python -m benchmarks recurrent`. A step is forward with dropout, the mean of the cross entropies, backward,
clipping and AdamW; the frozen model's layers, three of 1,024 numbers, are there. PyTorch has its LSTM on packed
sequences, whose order all its inputs have from the start, and a convolution over the characters of distinct words. Loss
and gradients without dropout are compared first.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from .measure import Case, Contender

NAME = "tagger of two LSTMs of 2 x 256 over ELMo's layers, 32 sentences of ud_ewt, training step"
LAYERS, DIM, LABELS, WORDS = 3, 1024, 17, 5000
TOLERANCE = 1e-3
RATE, MAX_NORM, DECAY = 3e-3, 1.0, 0.01
COMPARED = ("word_embedding.weight", "first.weight_ih_l0", "first.weight_hh_l0", "second.weight_hh_l0_reverse")
Array = npt.NDArray[Any]


def model_of(drops: bool) -> Any:
    """A model with the same weights every time."""
    models: Any = importlib.import_module("fastattn.models")
    importlib.import_module("fastattn").manual_seed(0)
    rates = {} if drops else {"dropout": 0.0, "word_dropout": 0.0}
    sizes = {"vocab_size": WORDS, "num_labels": LABELS, "feature_layers": LAYERS, "feature_dim": DIM}
    return models.SequenceTagger(models.SequenceTaggerConfig(features="elmo", **sizes, **rates))


def batch_of(sentences: list[list[str]]) -> dict[str, Array]:
    """The arguments of a call: the same for everyone."""
    rng = np.random.default_rng(0)
    forms, index = np.unique([word for words in sentences for word in words], return_inverse=True)
    tokens = len(index)
    character_ids = importlib.import_module("fastattn.text").character_ids
    return {
        "word_ids": index.astype(np.int64) + 3,
        "cu_seqlens": np.cumsum([0, *map(len, sentences)]).astype(np.int32),
        "char_ids": character_ids(forms.tolist(), 32),
        "char_index": index.astype(np.int64),
        "features": rng.standard_normal((LAYERS, tokens, DIM), np.float32),
        "labels": rng.integers(0, LABELS, tokens),
    }


class FastattnJob:
    """The library itself."""

    def __init__(self, sentences: list[list[str]], threads: int) -> None:
        importlib.import_module("fastattn").set_num_threads(threads)
        self.training: Any = importlib.import_module("fastattn.training")
        self.batch, self.model = batch_of(sentences), model_of(drops=True)
        self.optimizer = self.training.AdamW(self.model.parameters(), lr=RATE, weight_decay=DECAY)

    def __call__(self) -> None:
        self.model(**self.batch).loss.backward()
        self.training.clip_grad_norm(list(self.model.parameters()), MAX_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def check(self) -> Any:
        model = model_of(drops=False)
        loss = model(**self.batch).loss
        loss.backward()
        named = dict(model.named_parameters())
        return [loss.data.reshape(1), *(named[name].grad for name in COMPARED)]


class TorchJob:
    """PyTorch, with fastattn's first weights."""

    def __init__(self, arguments: str, threads: int) -> None:
        self.torch: Any = importlib.import_module("torch")
        self.torch.set_num_threads(threads)
        with np.load(arguments) as file:
            arrays = {name: file[name] for name in file.files}
        self.weights = {name.removeprefix("w."): x for name, x in arrays.items() if name.startswith("w.")}
        lengths = np.diff(arrays["cu_seqlens"])
        order = np.argsort(-lengths, kind="stable")
        steps = [order[lengths[order] > step] for step in range(int(lengths.max()))]
        rows = np.concatenate([arrays["cu_seqlens"][each] + step for step, each in enumerate(steps)])
        self.sizes = self.torch.tensor([len(each) for each in steps])
        tensor = self.torch.from_numpy
        self.sentence = tensor(np.concatenate(steps))
        names = ("word_ids", "char_index", "labels")
        self.rows = {name: tensor(np.ascontiguousarray(arrays[name][rows])) for name in names}
        self.features = [tensor(np.ascontiguousarray(layer[rows])) for layer in arrays["features"]]
        self.char_ids, self.count = tensor(arrays["char_ids"]), len(lengths)
        self.model = self.build()
        parameters = self.model.parameters()
        self.optimizer = self.torch.optim.AdamW(parameters, lr=RATE, weight_decay=DECAY, fused=True)

    def build(self) -> Any:
        """The layers under fastattn's names."""
        nn, weights = self.torch.nn, self.weights
        filters = [weights[f"characters.weight_{i}"] for i in range(3)]
        hidden = weights["first.weight_hh_l0"].shape[1]
        inputs = {name: weights[f"{name}.weight_ih_l0"].shape[1] for name in ("first", "second")}
        model = nn.ModuleDict(
            {
                "word_embedding": nn.Embedding(*weights["word_embedding.weight"].shape),
                "embedding": nn.Embedding(*weights["characters.embedding"].shape),
                "filters": nn.ModuleList([nn.Conv1d(x.shape[2], x.shape[0], x.shape[1]) for x in filters]),
                **{name: nn.LSTM(size, hidden, bidirectional=True) for name, size in inputs.items()},
                "classifier": nn.Linear(*weights["classifier.weight"].shape[::-1]),
                "mixes": nn.ModuleList([nn.ParameterDict({"gamma": self.torch.ones(1)}) for _ in range(2)]),
            }
        )
        with self.torch.no_grad():
            for mix in model["mixes"]:
                mix["scalars"] = nn.Parameter(self.torch.zeros(LAYERS))
            own = dict(model.named_parameters())
            for name, x in weights.items():
                if name in own:
                    own[name].copy_(self.torch.from_numpy(x))
            model["embedding"].weight.copy_(self.torch.from_numpy(weights["characters.embedding"]))
            for i, (layer, x) in enumerate(zip(model["filters"], filters, strict=True)):
                layer.weight.copy_(self.torch.from_numpy(np.ascontiguousarray(x.transpose(0, 2, 1))))
                layer.bias.copy_(self.torch.from_numpy(weights[f"characters.bias_{i}"]))
        return model

    def loss(self, model: Any, dropout: float, word_dropout: float) -> Any:
        torch, rows = self.torch, self.rows
        rnn = torch.nn.utils.rnn
        ids = rows["word_ids"]
        if word_dropout:
            ids = torch.where(torch.rand(len(ids)) < word_dropout, 2, ids)
        letters = model["embedding"](self.char_ids).transpose(1, 2)
        found = torch.cat([torch.relu(each(letters)).amax(2) for each in model["filters"]], 1)
        mixes = []
        for mix in model["mixes"]:
            shares = torch.softmax(mix["scalars"], 0) * mix["gamma"]
            mixes.append(sum(share * layer for share, layer in zip(shares, self.features, strict=True)))

        def dropped(x: Any) -> Any:
            if not dropout:
                return x
            return x * torch.nn.functional.dropout(torch.ones(self.count, x.shape[1]), dropout)[self.sentence]

        def read(lstm: Any, x: Any) -> Any:
            return lstm(rnn.PackedSequence(dropped(x), self.sizes))[0].data

        x = torch.cat([model["word_embedding"](ids), found[rows["char_index"]], mixes[0]], 1)
        x = read(model["second"], read(model["first"], x))
        scores = model["classifier"](dropped(torch.cat([x, mixes[1]], 1)))
        return torch.nn.functional.cross_entropy(scores, rows["labels"])

    def __call__(self) -> None:
        self.loss(self.model, 0.5, 0.1).backward()
        self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def check(self) -> Any:
        model = self.build()
        loss = self.loss(model, 0.0, 0.0)
        loss.backward()
        named = dict(model.named_parameters())
        return [loss.detach().numpy().reshape(1), *(named[name].grad.numpy() for name in COMPARED)]


def make_case(sentences: list[tuple[str, ...]], options: argparse.Namespace) -> Case:
    words = [[*each] for each in sentences]
    shared = {"sentences": words, "threads": options.threads}
    entrants = [Contender("fastattn", sys.executable, "benchmarks.sequence_tagger:FastattnJob", shared, ())]
    if "torch" in options.rivals:
        path = options.cache / "sequence-tagger.npz"
        arrays: dict[str, Any] = {f"w.{name}": x for name, x in model_of(drops=True).state_dict().items()}
        np.savez(path, **{**arrays, **batch_of(words)})
        arguments = {"arguments": str(path), "threads": options.threads}
        entrants.append(
            Contender("torch", options.rivals_python, "benchmarks.sequence_tagger:TorchJob", arguments, ("torch",))
        )
    return Case(NAME, entrants, sum(map(len, words)), "tokens/s", TOLERANCE)
