"""ELMo as bilm-tf's papers and files have it: random files, and what they give, in plain NumPy and float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

OPTIONS: dict[str, Any] = {
    "lstm": {
        "use_skip_connections": True,
        "projection_dim": 6,
        "cell_clip": 0.4,
        "proj_clip": 0.3,
        "dim": 10,
        "n_layers": 3,
    },
    "char_cnn": {
        "activation": "relu",
        "filters": [[1, 4], [2, 5], [5, 3]],
        "n_highway": 2,
        "embedding": {"dim": 3},
        "n_characters": 262,
        "max_characters_per_token": 50,
    },
}
SENTENCES = [
    ["The", "cat", "sat", "on", "the", "mat", "."],
    [],
    ["naïve", "日本語", "x" * 60, "", "cat", "🐈" * 13],
    ["Go"],
    ["<S>", "the", "</S>"],
]


def options(**changes: Any) -> dict[str, Any]:
    """The options of a small model, changed; a name is that of either section."""
    new = json.loads(json.dumps(OPTIONS))
    for name, value in changes.items():
        new["lstm" if name in OPTIONS["lstm"] else "char_cnn"][name] = value
    return new


def random_datasets(options: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    """Weights for these options under bilm-tf's names, large enough for the clips to bind."""
    rng = np.random.default_rng(seed)
    characters, lstm = options["char_cnn"], options["lstm"]
    dim, size, hidden = characters["embedding"]["dim"], lstm["projection_dim"], lstm["dim"]
    shapes: dict[str, tuple[int, ...]] = {"char_embed": (261, dim)}
    for i, (width, number) in enumerate(characters["filters"]):
        shapes |= {f"CNN/W_cnn_{i}": (1, width, dim, number), f"CNN/b_cnn_{i}": (number,)}
    n = sum(number for _, number in characters["filters"])
    for i in range(characters["n_highway"]):
        for part in ("carry", "transform"):
            shapes |= {f"CNN_high_{i}/W_{part}": (n, n), f"CNN_high_{i}/b_{part}": (n,)}
    if n != size:
        shapes |= {"CNN_proj/W_proj": (n, size), "CNN_proj/b_proj": (size,)}
    for direction in range(2):
        for layer in range(lstm["n_layers"]):
            cell = f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
            shapes |= {f"{cell}/W_0": (2 * size, 4 * hidden), f"{cell}/B": (4 * hidden,)}
            if size != hidden:
                shapes[f"{cell}/W_P_0"] = (hidden, size)
    return {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def write(folder: Path, options: dict[str, Any], datasets: dict[str, Any]) -> tuple[Path, Path]:
    """options.json and weights.hdf5 in a folder."""
    import h5py

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "options.json").write_text(json.dumps(options))
    with h5py.File(folder / "weights.hdf5", "w") as file:
        for name, array in datasets.items():
            file[name] = array
    return folder / "options.json", folder / "weights.hdf5"


class Oracle:
    """The model that files describe, one word and one step at a time, in TensorFlow's conventions."""

    def __init__(self, options: dict[str, Any], datasets: dict[str, Any]) -> None:
        self.characters, self.lstm = options["char_cnn"], options["lstm"]
        self.weights = {name: np.asarray(array, np.float64) for name, array in datasets.items()}

    def __call__(self, sentence: list[str], state: dict[Any, Any] | None = None) -> Any:
        """`[n_layers + 1, words, 2 * projection_dim]`; `state` is read and written."""
        state = {} if state is None else state
        x = np.array([self.word(word) for word in ["<S>", *sentence, "</S>"]])
        directions = [self.read(x, 0, state), [y[::-1] for y in self.read(x[::-1], 1, state)]]
        layers = [np.concatenate([x, x], 1)]
        layers += [np.concatenate(pair, 1) for pair in zip(*directions, strict=True)]
        return np.array(layers)[:, 1:-1]

    def word(self, word: str) -> Any:
        w, length = self.weights, self.characters["max_characters_per_token"]
        code = {"<S>": [256], "</S>": [257]}.get(word, list(word.encode("utf-8"))[: length - 2])
        ids = [258, *code, 259] + [260] * (length - 2 - len(code))
        x = w["char_embed"][ids]
        found = []
        for i, (width, _) in enumerate(self.characters["filters"]):
            windows = [x[p : p + width].reshape(-1) for p in range(length - width + 1)]
            kernel = w[f"CNN/W_cnn_{i}"][0].reshape(width * x.shape[1], -1)
            found.append((np.array(windows) @ kernel + w[f"CNN/b_cnn_{i}"]).max(axis=0))
        y = np.concatenate(found)
        y = np.tanh(y) if self.characters["activation"] == "tanh" else np.maximum(y, 0)
        for i in range(self.characters["n_highway"]):
            carry = sigmoid(y @ w[f"CNN_high_{i}/W_carry"] + w[f"CNN_high_{i}/b_carry"])
            transformed = np.maximum(y @ w[f"CNN_high_{i}/W_transform"] + w[f"CNN_high_{i}/b_transform"], 0)
            y = carry * transformed + (1 - carry) * y
        return y @ w["CNN_proj/W_proj"] + w["CNN_proj/b_proj"] if "CNN_proj/W_proj" in w else y

    def read(self, x: Any, direction: int, state: dict[Any, Any]) -> list[Any]:
        outputs = []
        for layer in range(self.lstm["n_layers"]):
            cell = f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
            zeros = np.zeros(self.lstm["projection_dim"]), np.zeros(self.lstm["dim"])
            h, c = state.get((direction, layer), zeros)
            steps = []
            for row in x:
                h, c = self.step(row, h, c, cell)
                steps.append(h)
            state[direction, layer] = h, c
            y = np.array(steps)
            x = y + x if layer and self.lstm["use_skip_connections"] else y
            outputs.append(x)
        return outputs

    def step(self, x: Any, h: Any, c: Any, cell: str) -> tuple[Any, Any]:
        i, j, f, o = np.split(np.concatenate([x, h]) @ self.weights[f"{cell}/W_0"] + self.weights[f"{cell}/B"], 4)
        c = clip(sigmoid(f + 1) * c + sigmoid(i) * np.tanh(j), self.lstm.get("cell_clip"))
        h = sigmoid(o) * np.tanh(c)
        if f"{cell}/W_P_0" in self.weights:
            h = clip(h @ self.weights[f"{cell}/W_P_0"], self.lstm.get("proj_clip"))
        return h, c


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def clip(x: Any, bound: float | None) -> Any:
    return x if bound is None else np.clip(x, -bound, bound)
