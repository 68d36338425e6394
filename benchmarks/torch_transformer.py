"""The fastest Transformer of PyTorch, `torch.nn.Transformer`, in a contender's process, without fastattn.

`load` reads a folder that fastattn wrote; `train` is a whole run with the recipe of `fastattn train translate`.
"""

from __future__ import annotations

import importlib
import json
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

IGNORE = -100
LABEL_SMOOTHING = 0.1
MORE_TOKENS = 50  # that a translation may have beyond its text
DECODED = 256  # texts at once


class TorchTransformer:
    """`torch.nn.Transformer` between embeddings and scores. Padding is on the right.

    Dropout is where the paper has it. The module's dropout within the feed-forward network and on attention weights is
    switched off. `weights` are arrays by fastattn's names that share memory with the parameters.
    """

    def __init__(self, folder: Path) -> None:
        self.torch: Any = importlib.import_module("torch")
        self.config = json.loads((folder / "config.json").read_text())
        self.normalize_before = self.config.get("normalize_before", False)
        self.module = self.build()
        self.weights = self.named_weights()
        tensors = importlib.import_module("safetensors.numpy").load_file(folder / "model.safetensors")
        for name, weight in self.weights.items():
            weight[...] = tensors[name]

    def build(self) -> Any:
        torch, config = self.torch, self.config
        dim, vocabularies = config["d_model"], [config["vocab_size"], config["decoder_vocab_size"]]
        pad = config["pad_token_id"]
        source = torch.nn.Embedding(vocabularies[0], dim, padding_idx=pad)
        shared = config["share_encoder_decoder_embeddings"]
        parts = {
            "source": source,
            "target": source if shared else torch.nn.Embedding(vocabularies[1], dim, padding_idx=pad),
            "layers": torch.nn.Transformer(
                dim,
                config["encoder_attention_heads"],
                config["encoder_layers"],
                config["decoder_layers"],
                config["encoder_ffn_dim"],
                config["dropout"],
                batch_first=True,
                norm_first=self.normalize_before,
            ),
            "dropout": torch.nn.Dropout(config["dropout"]),
        }
        if not self.normalize_before:  # torch.nn.Transformer normalises behind each stack in any case
            parts["layers"].encoder.norm = parts["layers"].decoder.norm = None
        for layer in (*parts["layers"].encoder.layers, *parts["layers"].decoder.layers):
            layer.dropout.p = 0.0
            layer.self_attn.dropout = 0.0
            if hasattr(layer, "multihead_attn"):
                layer.multihead_attn.dropout = 0.0
        self.positions = self.position_table(config["max_position_embeddings"], dim)
        return torch.nn.ModuleDict(parts)

    def position_table(self, rows: int, dim: int) -> Any:
        angles = np.arange(rows)[:, None] / 10000.0 ** (2 * np.arange(dim // 2) / dim)
        parts = np.sin(angles), np.cos(angles)
        own = self.config.get("position_embedding_type", "marian") == "sinusoidal"
        table = np.stack(parts, axis=2).reshape(rows, dim) if own else np.concatenate(parts, axis=1)
        return self.torch.from_numpy(table.astype(np.float32))

    def named_weights(self) -> dict[str, Array]:
        arrays = {name: parameter.detach().numpy() for name, parameter in self.module.named_parameters()}
        weights = {}
        if self.config["share_encoder_decoder_embeddings"]:
            weights["model.shared.weight"] = arrays["source.weight"]
        else:
            weights["model.encoder.embed_tokens.weight"] = arrays["source.weight"]
            weights["model.decoder.embed_tokens.weight"] = arrays["target.weight"]
        for name, array in arrays.items():
            if name.startswith("layers."):
                weights |= dict(renamed("model." + name.removeprefix("layers."), array))
        return weights

    # What the benchmark of training steps calls

    def __call__(self, input_ids: Any, attention_mask: Any, labels: Any, label_smoothing: float) -> Any:
        """The loss of tensors `[batch, source]` and `[batch, target]`, -100 at the padding of `labels`."""
        functional = self.torch.nn.functional
        before = labels.roll(1, 1)
        before[:, 0] = self.config["decoder_start_token_id"]
        before[before == IGNORE] = self.config["pad_token_id"]
        mask = attention_mask.bool()
        memory, hidden_keys = self.encode(input_ids, None if bool(mask.all()) else ~mask)
        hidden = self.decode(before, memory, hidden_keys)
        scores = functional.linear(hidden, self.module["target"].weight).flatten(0, 1)
        loss = functional.cross_entropy(scores, labels.flatten(), label_smoothing=label_smoothing)
        return SimpleNamespace(loss=loss)

    def parameters(self) -> Any:
        return self.module.parameters()

    def train(self) -> None:
        self.module.train()

    def eval(self) -> None:
        self.module.eval()

    # Its parts

    def embed(self, side: str, ids: Any) -> Any:
        scale = math.sqrt(self.config["d_model"]) if self.config["scale_embedding"] else 1.0
        return self.module["dropout"](self.module[side](ids) * scale + self.positions[: ids.shape[1]])

    def encode(self, ids: Any, hidden_keys: Any = None) -> tuple[Any, Any]:
        """The memory, and `hidden_keys`: True at the padding, None without any."""
        x = self.embed("source", ids)
        return self.module["layers"].encoder(x, src_key_padding_mask=hidden_keys), hidden_keys

    def decode(self, ids: Any, memory: Any, hidden_keys: Any) -> Any:
        """Right padding needs no mask here: no real token sees it, and its results are not used."""
        layers = self.module["layers"]
        causal = layers.generate_square_subsequent_mask(ids.shape[1])
        options = {"tgt_mask": causal, "tgt_is_causal": True, "memory_key_padding_mask": hidden_keys}
        return layers.decoder(self.embed("target", ids), memory, **options)

    def translate(self, ids: Any, mask: Any) -> list[list[int]]:
        """Greedy, without a cache, which would gain little for a model of this size."""
        torch, end = self.torch, self.config["eos_token_id"]
        limits = mask.sum(1) + MORE_TOKENS
        with torch.inference_mode():
            memory, hidden_keys = self.encode(ids, ~mask)
            words = torch.full((len(ids), 1), self.config["decoder_start_token_id"])
            running = torch.ones(len(ids), dtype=torch.bool)
            while running.any():
                hidden = self.decode(words, memory, hidden_keys)[:, -1]
                scores = torch.nn.functional.linear(hidden, self.module["target"].weight)
                scores[:, self.config["pad_token_id"]] = -math.inf
                words = torch.cat((words, scores.argmax(1, keepdim=True)), 1)
                running &= (words[:, -1] != end) & (words.shape[1] <= limits)
        return [up_to(end, row[1:]) for row in words.tolist()]


def up_to(end: int, row: list[int]) -> list[int]:
    return row[: row.index(end)] if end in row else row


def renamed(name: str, array: Array) -> list[tuple[str, Array]]:
    """fastattn's names of a parameter of torch.nn.Transformer, which has the three projections of attention in one."""
    decoder = ".decoder." in name
    for old, new in (
        ("multihead_attn.", "encoder_attn."),
        ("linear1.", "fc1."),
        ("linear2.", "fc2."),
        ("norm1.", "self_attn_layer_norm."),
        ("norm2.", "encoder_attn_layer_norm." if decoder else "final_layer_norm."),
        ("norm3.", "final_layer_norm."),
        ("coder.norm.", "coder.layer_norm."),
        ("in_proj_", "in_proj."),
    ):
        name = name.replace(old, new)
    if "in_proj." not in name:
        return [(name, array)]
    parts = zip(("q_proj.", "k_proj.", "v_proj."), np.split(array, 3), strict=True)
    return [(name.replace("in_proj.", part), rows) for part, rows in parts]


class Run:
    """A whole run: pairs as `[tokens]` and `cu_seqlens` in an .npz file, with the order of batches fastattn draws."""

    def __init__(self, folder: str, pairs: str, threads: int) -> None:
        self.model = TorchTransformer(Path(folder))
        self.torch = self.model.torch
        self.torch.set_num_threads(threads)
        with np.load(pairs) as file:
            self.pairs = {name: file[name] for name in file.files}

    def sequences(self, name: str, indices: Array, fill: int) -> tuple[Any, Any]:
        """A padded batch `[batch, longest]` and where its tokens are."""
        ids, cu_seqlens = self.pairs[name], self.pairs[f"cu_{name}"]
        lengths = np.diff(cu_seqlens)[indices]
        mask = np.arange(lengths.max()) < lengths[:, None]
        padded = np.full(mask.shape, fill, np.int64)
        padded[mask] = np.concatenate([ids[cu_seqlens[i] : cu_seqlens[i + 1]] for i in indices])
        return self.torch.from_numpy(padded), self.torch.from_numpy(mask)

    def batch(self, indices: Array) -> dict[str, Any]:
        ids, mask = self.sequences("source", indices, self.model.config["pad_token_id"])
        return {"input_ids": ids, "attention_mask": mask, "labels": self.sequences("target", indices, IGNORE)[0]}

    def train(self, epochs: list[list[list[int]]], seed: int, peak: float, warmup: int, average: int) -> None:
        """Adam(0.9, 0.98, 1e-9), the paper's schedule, gradients of norm 1, the mean of the last `average` epochs."""
        torch, module = self.torch, self.model.module
        torch.manual_seed(seed)
        optimizer = torch.optim.Adam(module.parameters(), lr=peak, betas=(0.9, 0.98), eps=1e-9, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / warmup, math.sqrt(warmup / (step + 1)))
        )
        kept = []
        for number, batches in enumerate(epochs):
            module.train()
            for indices in batches:
                self.model(**self.batch(np.array(indices)), label_smoothing=LABEL_SMOOTHING).loss.backward()
                torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
            if number >= len(epochs) - average:
                kept.append({name: tensor.clone() for name, tensor in module.state_dict().items()})
        module.load_state_dict({name: torch.stack([each[name] for each in kept]).mean(0) for name in kept[0]})
        module.eval()

    def translate(self) -> list[list[int]]:
        """Of the texts "test", each up to `</s>`."""
        pad = self.model.config["pad_token_id"]
        lengths = np.diff(self.pairs["cu_test"])
        order = np.argsort(lengths, kind="stable")
        found: list[list[int]] = [[] for _ in order]
        for indices in np.split(order, range(DECODED, len(order), DECODED)):
            for i, words in zip(indices, self.model.translate(*self.sequences("test", indices, pad)), strict=True):
                found[i] = words
        return found


def train(
    folder: str,
    pairs: str,
    threads: int,
    epochs: list[list[list[int]]],
    seed: int,
    peak: float,
    warmup: int,
    average: int,
) -> dict[str, Any]:
    """Train and translate: `seconds` of both, and the ids of the translations."""
    run = Run(folder, pairs, threads)
    start = time.perf_counter()
    run.train(epochs, seed, peak, warmup, average)
    found = run.translate()
    return {"seconds": time.perf_counter() - start, "translations": found}
