"""ELMo: the layers of a bidirectional language model, and trained weighted sums of these layers.

The input is the characters of words. `fastattn.tasks.WordEncoder` takes words.

Source: Peters et al. 2018, "Deep contextualized word representations". The files are those of bilm-tf and AllenNLP.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn import functional as F
from fastattn import nn, ragged
from fastattn.checks import integers
from fastattn.formats import allennlp
from fastattn.models.base import PreTrainedModel
from fastattn.models.elmo.config import ElmoConfig
from fastattn.models.elmo.network import LAYER_NAMES, ElmoNetwork, State, detached
from fastattn.nn.module import Values
from fastattn.nn.parameter import Array

Self = TypeVar("Self", bound="Elmo")


@dataclass
class ElmoOutput:
    """The output of `Elmo`. Sequence i is rows `cu_seqlens[i]` to `cu_seqlens[i + 1]`.

    - `elmo_representations`: for each scalar mix, `[words, 2 * projection_dim]`
    - `layers`: the `n_layers + 1` layers of a mix, with the same shape: the token vectors twice, then the LSTM layers
    - `cu_seqlens`: int32 `[sequences + 1]`
    - `state`: the last states of each layer, as `ElmoNetwork.lstm` takes them: arrays, without gradients

    If the network is frozen, the layers are float32 arrays; if the whole model is frozen, so are the mixes. Otherwise
    they are Tensors.
    """

    elmo_representations: list[Any]
    layers: list[Any]
    cu_seqlens: NDArray[np.int32]
    state: list[tuple[Array, Array]]


class Elmo(PreTrainedModel):
    """ELMo's network and the scalar mixes above it. A loaded network is frozen unless `trainable`; the mixes train.

    `from_pretrained` reads the files of bilm-tf or AllenNLP, and a folder from `save_pretrained`, including one of a
    `BidirectionalLanguageModel`. The mixes in a folder are loaded unless `num_output_representations` or
    `scalar_mix_parameters` is given.

    >>> import fastattn
    >>> fastattn.manual_seed(0)
    >>> elmo = Elmo(ElmoConfig(filters=((1, 4), (2, 4)), dim=8, projection_dim=4, num_output_representations=1)).eval()
    >>> char_ids = np.full((5, 50), 260)         # of <S>, three words and </S>
    >>> output = elmo(char_ids, [0, 5])
    >>> output.elmo_representations[0].shape, len(output.layers), output.cu_seqlens.tolist()
    ((3, 8), 3, [0, 3])
    """

    config_class = ElmoConfig
    layer_names: ClassVar = LAYER_NAMES
    deep = ("n_layers",)
    whole = ("network.",)
    defaulted = ("scalar_mixes.",)
    unused_fields = ("language_model",)

    config: ElmoConfig

    def build(self, config: ElmoConfig) -> None:
        fixed = config.scalar_mix_parameters
        self.dropout = nn.Dropout(config.dropout)
        self.network = ElmoNetwork(config)
        self.scalar_mixes = [
            nn.ScalarMix(config.n_layers + 1, config.do_layer_norm, fixed, trainable=fixed is None)
            for _ in range(config.num_output_representations)
        ]

    @classmethod
    def from_pretrained(
        cls: type[Self],
        name_or_folder: str | os.PathLike[str],
        weight_file: str | os.PathLike[str] | None = None,
        *,
        trainable: bool | None = None,
        **options: Any,
    ) -> Self:
        """Load a folder or a name like every model, or an options.json with HDF5 weights.

        `options` are as in `PreTrainedModel.from_pretrained`; with two files, only fields of the config are allowed.
        Errors are as in `PreTrainedModel.from_pretrained`, and name the dataset. Raises ImportError if h5py is missing.
        """
        if weight_file is None:
            if Path(name_or_folder).is_file():
                raise ValueError(f"{name_or_folder}: weight_file must be given with a file of options")
            return super().from_pretrained(name_or_folder, trainable=trainable, **options)
        config = ElmoConfig.from_dict(allennlp.read_options(name_or_folder), str(name_or_folder), **options)
        allennlp.check_layers(weight_file, config.n_layers + config.n_highway, name_or_folder)
        with nn.init.uninitialized():
            parameters = ElmoNetwork(config).named_parameters("network.")
        shapes = {name: parameter.shape for name, parameter in parameters}
        with allennlp.read_weights(weight_file, shapes, name_or_folder) as tensors:
            return cls(config, tensors, trainable=trainable)

    def export(self, options_file: str | os.PathLike[str], weight_file: str | os.PathLike[str]) -> None:
        """Write the network in bilm-tf's format, each of the two files whole or not at all. AllenNLP reads them too.

        Scalar mixes are not written. The biases of forget gates are stored minus 1 and may lose their last bit. Raises
        ImportError if h5py is missing, and ValueError if both are the same file.
        """
        weights = {name: array for name, array in self.state_dict().items() if name.startswith("network.")}
        allennlp.write_files(options_file, weight_file, self.config.to_options(), weights)

    def forward(
        self,
        char_ids: ArrayLike,
        cu_seqlens: ArrayLike,
        state: Sequence[State] | None = None,
        index: ArrayLike | None = None,
    ) -> ElmoOutput:
        """Read sequences, each from its start mark (`<S>`) to its end mark (`</S>`).

        Args:
            char_ids: int64 `[words, max_characters_per_token]`, from `fastattn.text.character_ids`.
            cu_seqlens: `[sequences + 1]`.
            state: the `state` of the previous output; zeros by default.
            index: integers `[tokens]`, the words as row indices of `char_ids`. A repeated word is then computed once.
                None if there is a row for every token.

        Raises TypeError and ValueError for other types, shapes and ids, and for a sequence without its two marks.
        """
        char_ids = integers("Elmo: char_ids", char_ids)
        with self.network.one_pass():
            vectors = self.network.tokens(char_ids)
            return self.read(vectors, np.arange(len(char_ids)) if index is None else index, cu_seqlens, state)

    def read(
        self,
        vectors: Values,
        index: ArrayLike,
        cu_seqlens: ArrayLike,
        state: Sequence[State] | None = None,
    ) -> ElmoOutput:
        """`forward` from `vectors` `[words, projection_dim]`, computed by `network.tokens`."""
        index = integers("Elmo: index", index)
        cu_seqlens = ragged.check_cu_seqlens(cu_seqlens, len(index), "Elmo: cu_seqlens")
        starts, stops = self.rows(cu_seqlens)
        if (stops < starts).any():
            raise ValueError(f"Elmo: cu_seqlens: sequence {(stops < starts).argmax()} has no marks around it")
        kept = np.concatenate([np.arange(0), *map(np.arange, starts, stops)])
        dim = 2 * self.config.projection_dim
        with self.network.one_pass():
            x = F.embedding(index, vectors)
            outputs, after = self.network.lstm(x, x, cu_seqlens, state)
            layers = [F.embedding(np.repeat(index[kept], 2), vectors).reshape(len(kept), dim)]
            layers += [F.gather_rows(y, kept) for y in outputs]
            mixes = [self.dropout(mix(layers)) for mix in self.scalar_mixes]
        return ElmoOutput(mixes, layers, ragged.cu_seqlens(stops - starts), detached(after))

    def rows(self, cu_seqlens: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Where the results of each sequence begin and end among its tokens."""
        edge = 0 if self.config.keep_sentence_boundaries else 1
        return cu_seqlens[:-1] + edge, cu_seqlens[1:] - edge

    def _frozen_modules(self) -> Iterator[nn.Module]:
        """Only the network if there are mixes, which stay trainable."""
        return (self.network if self.scalar_mixes else self).modules()

    @classmethod
    def _adapt(cls, config: ElmoConfig, tensors: Any, changes: Mapping[str, Any]) -> tuple[ElmoConfig, Any]:
        config, tensors = super()._adapt(config, tensors, changes)
        if changes.keys() & {"num_output_representations", "scalar_mix_parameters"}:
            tensors = tensors.renamed(lambda name: None if name.startswith("scalar_mixes.") else name)
        return config, tensors
