"""ELMo: vectors of words in their sentence, from every layer of a language model that reads in both directions.

    >>> elmo = Elmo.from_pretrained("options.json", "weights.hdf5")           # doctest: +SKIP
    >>> [x.shape for x in elmo([["The", "cat", "sleeps"], ["Go", "!"]])]      # doctest: +SKIP
    [(3, 3, 1024), (3, 2, 1024)]

Source: Peters et al. 2018, "Deep contextualized word representations". Files are bilm-tf's and AllenNLP's.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import functional as F
from fastattn import nn, ragged, runtime
from fastattn.autograd import no_grad
from fastattn.checks import PROBABILITY, boolean, config_integer, config_number, texts
from fastattn.formats import allennlp, hugging_face
from fastattn.models.elmo_config import ElmoConfig
from fastattn.models.elmo_network import ElmoNetwork, detached
from fastattn.models.elmo_state import ElmoState
from fastattn.nn.module import Values
from fastattn.nn.parameter import Array
from fastattn.text import gather, token_budget_batches
from fastattn.text.characters import character_ids, index_words

__all__ = ["Elmo", "ElmoConfig", "ElmoOutput", "ElmoState"]

BATCH_TOKENS = 2048
"""Of a stateless call, read at once: a step reads all recurrent weights, which pays with some dozens of sentences."""
WORDS = 1024
"""Given to the token encoder at once, which has some 32 kB of intermediate results for each in the original model."""


@dataclass
class ElmoOutput:
    """What `Elmo.represent` gives; sentence i is the rows from `cu_seqlens[i]` to `cu_seqlens[i + 1]`.

    - `elmo_representations`: for each scalar mix `[words, 2 * projection_dim]`
    - `layers`: what is mixed, `n_layers + 1` of that shape: the token vectors twice, then every LSTM layer
    - `cu_seqlens`: int32 `[sentences + 1]`

    Where something is recorded they are Tensors, else float32 arrays.
    """

    elmo_representations: list[Any]
    layers: list[Any]
    cu_seqlens: NDArray[np.int32]


class Elmo(nn.Module):
    """An ELMo model: with `tensors` frozen, unless `trainable`, else new and trainable, unless `trainable=False`.

    Any number of threads may call it at once. It reads every sentence on its own, unless a state is given: results
    have the same bits whatever else is in the call, and for any number of threads. `<S>` and `</S>` are put around
    every sentence, an empty one too, and left out of the results. Words are read as UTF-8, of which the first
    `max_characters_per_token - 2` bytes count (48).

    Args:
        config: the shape of the network.
        tensors: the weights, float32, under the names of `state_dict`; kept, not copied, where they are trained.
        trainable: whether the network trains; the scalar mixes always do, but for fixed ones.
        num_output_representations: how many scalar mixes `represent` gives.
        do_layer_norm: whether each mix normalises each layer first, row by row.
        dropout: of the mixes, while training.
        scalar_mix_parameters: weights of the `n_layers + 1` layers before the softmax, the same for all mixes, which
            are not trained then.
        keep_sentence_boundaries: leave the vectors of `<S>` and `</S>` in the results.

    Raises ValueError when a tensor is missing or does not have the shape that `config` says, and for an option that
    cannot be; TypeError for a `config` that is none.
    """

    def __init__(
        self,
        config: ElmoConfig,
        tensors: Mapping[str, Array] | None = None,
        *,
        trainable: bool | None = None,
        num_output_representations: int = 0,
        do_layer_norm: bool = False,
        dropout: float = 0.5,
        scalar_mix_parameters: Sequence[float] | None = None,
        keep_sentence_boundaries: bool = False,
    ) -> None:
        if not isinstance(config, ElmoConfig):
            raise TypeError(f"Elmo: config must be an ElmoConfig, got {type(config).__name__}")
        layers = config.n_layers + 1
        fixed = None if scalar_mix_parameters is None else np.asarray(scalar_mix_parameters).tolist()
        _check_options(
            "Elmo",
            layers,
            num_output_representations=num_output_representations,
            do_layer_norm=do_layer_norm,
            dropout=dropout,
            scalar_mix_parameters=fixed,
            keep_sentence_boundaries=keep_sentence_boundaries,
        )
        self.config = config
        self.do_layer_norm = do_layer_norm
        self.scalar_mix_parameters = None if fixed is None else tuple(fixed)
        self.keep_sentence_boundaries = keep_sentence_boundaries
        self._cache: tuple[str, dict[str, int], Array] | None = None
        self.dropout = nn.Dropout(dropout)
        with nn.init.uninitialized():
            self.network = ElmoNetwork(config)
            self.scalar_mixes = [
                nn.ScalarMix(layers, do_layer_norm, fixed, trainable=fixed is None)
                for _ in range(num_output_representations)
            ]
        freeze = tensors is not None if trainable is None else not trainable
        if tensors is not None:
            self._fill(tensors, freeze)
        self.initialize()
        if freeze:
            self.network.freeze()

    @classmethod
    def from_pretrained(
        cls,
        options_file: str | os.PathLike[str],
        weight_file: str | os.PathLike[str] | None = None,
        *,
        trainable: bool = False,
        num_output_representations: int | None = None,
        do_layer_norm: bool | None = None,
        dropout: float | None = None,
        scalar_mix_parameters: Sequence[float] | None = None,
        keep_sentence_boundaries: bool | None = None,
    ) -> Elmo:
        """Load the files of bilm-tf or AllenNLP, or the folder of `save_pretrained`, for inference.

        Args:
            options_file: options.json, or the folder; that of a `BidirectionalLanguageModel` will do.
            weight_file: HDF5, beside an options.json.
            trainable: load the network to be trained.
            num_output_representations: as for the class, like all that follow; None: what the folder says, else 0.
                Mixes in a folder are loaded unless this or `scalar_mix_parameters` is given.
            do_layer_norm: None: what the folder says, else False.
            dropout: None: what the folder says, else 0.5.
            scalar_mix_parameters: None: what the folder says, else mixes that are trained and begin with equal weights.
            keep_sentence_boundaries: None: what the folder says, else False.

        Raises FileNotFoundError or ValueError, naming the file and the dataset or value, for a file that is missing or
        damaged, another architecture, and weights that do not fit the options; ImportError when h5py is missing.
        """
        given: dict[str, Any] = {
            "num_output_representations": num_output_representations,
            "do_layer_norm": do_layer_norm,
            "dropout": dropout,
            "scalar_mix_parameters": scalar_mix_parameters,
            "keep_sentence_boundaries": keep_sentence_boundaries,
        }
        options = {name: value for name, value in given.items() if value is not None}
        with ExitStack() as files:
            tensors: allennlp.Weights | hugging_face.StateDict
            if weight_file is not None:
                config = ElmoConfig.from_options(allennlp.read_options(options_file), str(options_file))
                with nn.init.uninitialized():
                    parameters = ElmoNetwork(config).named_parameters("network.")
                shapes = {name: parameter.shape for name, parameter in parameters}
                tensors = files.enter_context(allennlp.read_weights(weight_file, shapes, options_file))
            else:
                if Path(options_file).is_file():
                    raise ValueError(f"{options_file}: weight_file must be given beside a file of options")
                source = str(Path(options_file) / hugging_face.CONFIG)
                values = hugging_face.read_config(options_file)
                if values.get("model_type") != "elmo":
                    raise ValueError(f"{source}: model_type is {values.get('model_type')!r}; Elmo reads 'elmo'")
                config = ElmoConfig.from_options(values, source)
                tensors = files.enter_context(hugging_face.read_state_dict(options_file))
                if "num_output_representations" in options or "scalar_mix_parameters" in options:
                    tensors = tensors.renamed(lambda name: name.replace("scalar_mixes.", "old_mixes."))  # not loaded
                found = {name: values[name] for name in given if values.get(name) is not None}
                _check_options(source, config.n_layers + 1, **found)
                options = found | options
            return cls(config, tensors, trainable=trainable, **options)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json and model.safetensors, each whole or not at all."""
        mix = self.scalar_mix_parameters
        config = {
            "model_type": "elmo",
            "architectures": [type(self).__name__],
            **self.config.to_options(),
            "num_output_representations": len(self.scalar_mixes),
            "do_layer_norm": self.do_layer_norm,
            "dropout": self.dropout.p,
            "scalar_mix_parameters": None if mix is None else list(mix),
            "keep_sentence_boundaries": self.keep_sentence_boundaries,
        }
        hugging_face.write_checkpoint(folder, config, self.state_dict())

    def export(self, options_file: str | os.PathLike[str], weight_file: str | os.PathLike[str]) -> None:
        """Write the network as bilm-tf does, each of the two files whole or not at all; AllenNLP reads them, too.

        The scalar mixes are not in it, and the forget gates' biases, which are kept less 1, may lose their last bit.

        Args:
            options_file: becomes an options.json.
            weight_file: becomes HDF5.

        Raises ImportError when h5py is missing, and ValueError when both are the same file.
        """
        weights = {name: array for name, array in self.state_dict().items() if name.startswith("network.")}
        allennlp.write_files(options_file, weight_file, self.config.to_options(), weights)

    def new_state(self) -> ElmoState:
        """A state for `self(sentences, state=...)`, whose slots hold zeros."""
        return ElmoState(self.config)

    def __call__(self, sentences: Iterable[Sequence[str]], state: ElmoState | None = None) -> list[Array]:
        """Every layer of every sentence, for inference: float32 `[n_layers + 1, words, 2 * projection_dim]` for each.

        Layer 0 is the token vectors, twice; then come the LSTM layers, the forward direction's half first. An empty
        sentence gives `[n_layers + 1, 0, 2 * projection_dim]`. A call takes any number of sentences of any length.

        Args:
            sentences: sequences of words, which are not changed in any way.
            state: what sentence i begins with is the state's slot i, which is then replaced. All sentences are read
                at once then. It stays as it was when an error is raised.

        Raises TypeError for a sentence that is one str or no sequence and for a word that is not a str; ValueError for
        a word that cannot be written as UTF-8, all by index, and for a state of another model.
        """
        return self._embed(sentences, state)

    def _embed(self, sentences: Iterable[Sequence[str]], state: ElmoState | None, first: int = 0) -> list[Array]:
        """A call; `first` is the index of the first sentence, for errors."""
        words, index, cu_seqlens = index_words(sentences, first)
        results: list[Any] = [None] * (len(cu_seqlens) - 1)
        everything = [np.arange(len(results))]
        with no_grad():
            vectors = self._vectors(words)
            lengths = ragged.lengths(cu_seqlens)
            for batch in everything if state is not None else token_budget_batches(lengths, BATCH_TOKENS):
                places, offsets = gather(index, cu_seqlens, batch)
                x = F.embedding(places, vectors)
                outputs = self._read(x, offsets, state)
                for i, start, stop in zip(batch, *self._rows(offsets), strict=True):
                    results[i] = _stack(x[start:stop], [y[start:stop] for y in outputs])
        return results

    def represent(self, sentences: Iterable[Sequence[str]], state: ElmoState | None = None) -> ElmoOutput:
        """The scalar mixes of every word, for a model above; `backward()` goes through them.

        All sentences are read at once; a gradient does not reach back through the state. Arguments and errors are
        those of a call.
        """
        words, index, cu_seqlens = index_words(sentences)
        vectors = self._vectors(words)
        outputs = self._read(F.embedding(index, vectors), cu_seqlens, state)
        starts, stops = self._rows(cu_seqlens)
        kept = np.concatenate([np.arange(0), *map(np.arange, starts, stops)])
        dim = 2 * self.config.projection_dim
        layers = [F.embedding(np.repeat(index[kept], 2), vectors).reshape(len(kept), dim)]
        layers += [F.gather_rows(y, kept) for y in outputs]
        mixes = [self.dropout(mix(layers)) for mix in self.scalar_mixes]
        return ElmoOutput(mixes, layers, ragged.cu_seqlens(stops - starts))

    def embed_sentence(self, sentence: Sequence[str], state: ElmoState | None = None) -> Array:
        """`[n_layers + 1, words, 2 * projection_dim]` of one sentence, a sequence of words; see a call for `state`."""
        return self.embed_batch([sentence], state)[0]

    def embed_batch(self, batch: Iterable[Sequence[str]], state: ElmoState | None = None) -> list[Array]:
        """The call under the name that AllenNLP's `ElmoEmbedder` has for it; `batch` is sentences."""
        return self(batch, state)

    def embed_sentences(
        self, sentences: Iterable[Sequence[str]], batch_size: int = 64, state: ElmoState | None = None
    ) -> Iterator[Array]:
        """The results of a call, sentence by sentence, with `batch_size` sentences read and held at once.

        Unlike `ElmoEmbedder`'s they do not depend on `batch_size`, unless a `state` is given.
        """
        batch_size = config_integer("embed_sentences: batch_size", batch_size)
        rest, first = iter(sentences), 0
        while batch := list(islice(rest, batch_size)):
            yield from self._embed(batch, state, first)
            first += len(batch)

    def cache_vocabulary(self, words: Iterable[str]) -> None:
        """Keep the token vectors of these words, in place of those that were kept before; none: keep nothing.

        They are used wherever the word occurs from now on, with the same bits as without, and take `4 *
        projection_dim` bytes each. An instruction set that is chosen later computes its own.

        Args:
            words: strings; `<S>` and `</S>` are added.

        Raises ValueError when the network is trainable, so that its vectors change; TypeError for one str in place of
        `words`, and else as a call.
        """
        if not self.network.frozen:
            raise ValueError("cache_vocabulary: the network is trainable and its vectors change; load it frozen")
        distinct, _, _ = index_words([texts("cache_vocabulary: words", words, "words")])
        self._cache = None
        if len(distinct) > 2:
            vectors = self._vectors(distinct)
            self._cache = runtime.isa(), {word: i for i, word in enumerate(distinct)}, vectors

    def load(self, state: Mapping[str, Array], *, freeze: bool = False, prefix: str = "") -> None:
        super().load(state, freeze=freeze, prefix=prefix)
        self._cache = None

    def _fill(self, tensors: Mapping[str, Array], freeze: bool) -> None:
        problems = [
            f"tensor {name!r} {problem}"
            for name, problem in self.problems(tensors)
            if problem != "is missing" or name.startswith("network.")
        ]
        if problems:
            raise ValueError(f"{getattr(tensors, 'source', 'Elmo')}: {'; '.join(problems)}")
        if not hasattr(tensors, "source"):  # a file gives new arrays, ours to keep
            tensors = {name: np.array(tensor) for name, tensor in tensors.items()}
        self.network.load(tensors, freeze=freeze, prefix="network.")
        for i, mix in enumerate(self.scalar_mixes):
            mix.load(tensors, prefix=f"scalar_mixes.{i}.")
        self.eval()

    def _vectors(self, words: list[str]) -> Any:
        """The token vectors of distinct words, `[words, projection_dim]`."""
        cache = self._cache
        if cache is None or cache[0] != runtime.isa():
            return self._encode(words)
        _, places, known = cache
        rows = np.array([places.get(word, -1) for word in words])
        new = np.flatnonzero(rows < 0)
        vectors = known[rows]
        vectors[new] = self._encode([words[i] for i in new])
        return vectors

    def _encode(self, words: list[str]) -> Any:
        length = self.config.max_characters_per_token
        if self.network.records():
            return self.network.tokens(character_ids(words, length))
        starts = range(0, max(1, len(words)), WORDS)
        parts = [self.network.tokens(character_ids(words[i : i + WORDS], length)) for i in starts]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def _read(self, x: Values, cu_seqlens: NDArray[np.int32], state: ElmoState | None) -> list[Any]:
        """The output of each LSTM layer; the state goes on."""
        if state is not None and not isinstance(state, ElmoState):
            raise TypeError(f"Elmo: state must be an ElmoState or None, got {type(state).__name__}")
        before = None if state is None else state.begin(len(cu_seqlens) - 1, self.config)
        outputs, after = self.network.lstm(x, x, cu_seqlens, before)
        if state is not None:
            state.end(detached(after))
        return outputs

    def _rows(self, cu_seqlens: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Where the results of each sentence begin and end."""
        edge = 0 if self.keep_sentence_boundaries else 1
        return cu_seqlens[:-1] + edge, cu_seqlens[1:] - edge


def _stack(x: Array, outputs: list[Array]) -> Array:
    words, dim = x.shape
    result = np.empty((len(outputs) + 1, words, 2 * dim), x.dtype)
    result[0, :, :dim] = result[0, :, dim:] = x
    for y, row in zip(outputs, result[1:], strict=True):
        row[...] = y
    return result


def _check_options(source: str, layers: int, **options: Any) -> None:
    """Raise ValueError, which begins with `source`, for an option of `Elmo` that cannot be."""
    for name, value in options.items():
        if name == "num_output_representations":
            config_integer(f"{source}: {name}", value, 0)
        elif name == "dropout":
            config_number(f"{source}: {name}", value, **PROBABILITY)
        elif name == "scalar_mix_parameters":
            if value is None:
                continue
            if not isinstance(value, list) or not all(isinstance(x, int | float) and math.isfinite(x) for x in value):
                raise ValueError(f"{source}: {name} must be finite numbers, got {value!r}")
            if len(value) != layers:
                raise ValueError(f"{source}: {name} must have one number for each of {layers} layers, got {len(value)}")
        else:
            boolean(f"{source}: {name}", value)
