"""The configuration of a Transformer, under the names of Hugging Face's Marian."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fastattn.checks import POSITIVE, PROBABILITY, boolean, choice, config_integer, config_number, shown
from fastattn.models.config import ACTIVATIONS, PreTrainedConfig
from fastattn.models.generation_config import bad_words, ends, token

POSITIONS = ("sinusoidal", "marian", "learned", "stored")
OWN_TYPE = "fastattn-transformer"
LONGEST = 2**24
"""The most positions that are computed, and so the most tokens of a result."""

_SIZES = (
    *("vocab_size", "decoder_vocab_size", "d_model", "max_position_embeddings"),
    *(f"{side}_{part}" for side in ("encoder", "decoder") for part in ("layers", "attention_heads", "ffn_dim")),
)
_SWITCHES = ("scale_embedding", "normalize_before", "share_encoder_decoder_embeddings", "tie_word_embeddings")

# transformers' defaults for fields that the config.json of a Marian model lacks
_MARIAN_DEFAULTS: dict[str, Any] = {
    "vocab_size": 58101,
    "d_model": 1024,
    "encoder_layers": 12,
    "decoder_layers": 12,
    "encoder_attention_heads": 16,
    "decoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "decoder_ffn_dim": 4096,
    "activation_function": "gelu",
    "max_position_embeddings": 1024,
    "scale_embedding": False,
    "pad_token_id": 58100,
    "bos_token_id": None,
    "eos_token_id": 0,
    "decoder_start_token_id": 58100,
    "forced_eos_token_id": 0,
}
# Fields that would make Marian a different network, each with the value that keeps it the same
_MARIAN_REFUSED: dict[str, Any] = {
    "normalize_before": False,
    "normalize_embedding": False,
    "add_final_layer_norm": False,
    "add_bias_logits": False,
    "static_position_embeddings": True,
    "is_encoder_decoder": True,
    "is_decoder": False,
}
# Fields that Marian does not have. transformers ignores them in a config.json
_OWN = ("normalize_before", "position_embedding_type", "first_position", "max_timescale", "layer_norm_eps")


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(PreTrainedConfig):
    """The shape of a Transformer; the defaults are the base model of Vaswani et al. 2017.

    Fields that Hugging Face's `MarianConfig` also has keep its names. The others:

    - `normalize_before`: each sub-layer normalises its input and each stack its output (pre-norm); otherwise each
      sub-layer normalises the sum of its input and output (post-norm, as in the paper)
    - `position_embedding_type`: "sinusoidal" (sines and cosines alternate, as in the paper), "marian" (all sines, then
      all cosines) or "learned". The first two start with the angle of `first_position` and have wavelengths up to
      `max_timescale` times 2 pi, see `fastattn.nn.SinusoidalPositions`. "stored" is for a Marian folder whose tables
      of positions are rounded, for example to F16: they are used as they are, as in transformers, and do not train.
      With every type, a sequence has at most `max_position_embeddings` tokens
    - `decoder_vocab_size`: the size of the target vocabulary, `vocab_size` by default
    - `tie_word_embeddings`: use the embeddings of the target as the matrix of the scores
    - `pad_token_id`: the id of the padding, whose embedding gets no gradient; None if there is none
    - `init_std`: the standard deviation of new matrices; None uses `sqrt(2 / (in + out))` (Glorot and Bengio 2010), and
      `d_model ** -0.5` for embeddings

    - `eos_token_id`: the id that ends a decoded sequence, or several

    `max_length`, `forced_eos_token_id` and `bad_words_ids` are only for decoding.

    Raises ValueError, naming the field and the value, for a value that no such model can have.

    >>> TransformerConfig(vocab_size=8000, encoder_layers=3, decoder_layers=3).decoder_vocab_size
    8000
    """

    model_types = ("marian", OWN_TYPE)

    vocab_size: int = 37000
    decoder_vocab_size: int = None  # type: ignore[assignment]  # `vocab_size`
    d_model: int = 512
    encoder_layers: int = 6
    decoder_layers: int = 6
    encoder_attention_heads: int = 8
    decoder_attention_heads: int = 8
    encoder_ffn_dim: int = 2048
    decoder_ffn_dim: int = 2048
    activation_function: str = "relu"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    max_position_embeddings: int = 512
    position_embedding_type: str = "sinusoidal"
    first_position: int = 0
    max_timescale: float = 10000.0
    scale_embedding: bool = True
    normalize_before: bool = False
    share_encoder_decoder_embeddings: bool = True
    tie_word_embeddings: bool = True
    layer_norm_eps: float = 1e-5
    init_std: float | None = 0.02
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | tuple[int, ...] = 2
    decoder_start_token_id: int = 1
    forced_eos_token_id: int | None = None
    bad_words_ids: tuple[tuple[int, ...], ...] | None = None
    max_length: int | None = None

    def __post_init__(self) -> None:
        if self.decoder_vocab_size is None:
            self._set("decoder_vocab_size", self.vocab_size)
        self._check(config_integer, *_SIZES)
        self._check(config_integer, "max_length", high=None)  # the positions bound it
        if self.position_embedding_type not in ("learned", "stored"):  # no table says how many positions there are
            wanted = f"from 1 to {LONGEST}"
            self._check(config_integer, "max_position_embeddings", high=LONGEST + 1, wanted=wanted)
        self._check(config_integer, "first_position", low=0)
        for side in ("encoder", "decoder"):
            self._check_heads("d_model", f"{side}_attention_heads")
        self._check(config_number, "layer_norm_eps", high=1.0, above=True)
        self._check(config_number, "dropout", "attention_dropout", "activation_dropout", **PROBABILITY)
        self._check(config_number, "max_timescale", low=1.0, above=True)
        self._check(config_number, "init_std", **POSITIVE)
        self._check(choice, "activation_function", known=ACTIVATIONS)
        self._check(choice, "position_embedding_type", known=POSITIONS)
        self._check(boolean, *_SWITCHES)
        if self.share_encoder_decoder_embeddings and self.decoder_vocab_size != self.vocab_size:
            raise ValueError(
                f"decoder_vocab_size must be vocab_size = {self.vocab_size} with share_encoder_decoder_embeddings, "
                f"got {self.decoder_vocab_size}"
            )
        target = self.decoder_vocab_size
        self._check(ends, "eos_token_id", size=target)
        forced = self.forced_eos_token_id
        if isinstance(forced, list | tuple) and len(forced) == 1:  # transformers may have a list here
            self._set("forced_eos_token_id", forced[0])
        self._check(token, "decoder_start_token_id", "forced_eos_token_id", size=target)
        both = min(self.vocab_size, target)
        wanted = f"an id of both vocabularies, below {both}"
        self._check(config_integer, "pad_token_id", low=0, high=both, wanted=wanted)
        self._check(config_integer, "bos_token_id", low=0, wanted="an id")  # nothing reads it
        self._check(bad_words, "bad_words_ids", size=target)

    @property
    def is_marian(self) -> bool:
        """Whether transformers' `MarianMTModel` computes the same results with this configuration."""
        return (
            not self.normalize_before
            and self.position_embedding_type in ("marian", "stored")
            and (self.first_position, self.max_timescale, self.layer_norm_eps) == (0, 10000.0, 1e-5)
        )

    def std(self, in_features: int, out_features: int) -> float:
        """The standard deviation of a new matrix."""
        return float((2 / (in_features + out_features)) ** 0.5) if self.init_std is None else self.init_std

    @property
    def embedding_std(self) -> float:
        """The standard deviation of new embeddings."""
        return float(self.d_model**-0.5) if self.init_std is None else self.init_std

    @classmethod
    def _read(cls, values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        """The fields from a config.json of MarianMT, which has its own defaults, or from `to_dict`."""
        found = super()._read(values, changes)
        if values["model_type"] == OWN_TYPE:
            return found
        for name, usual in _MARIAN_REFUSED.items():
            if values.get(name, usual) not in (usual, None):
                raise ValueError(f"{name} is {shown(values[name])}; only {usual!r} is supported")
        found = {name: value for name, value in found.items() if name not in _OWN}
        return {**_MARIAN_DEFAULTS, **found, "position_embedding_type": "marian"}

    def to_dict(self, architecture: str = "") -> dict[str, Any]:
        """The object to write to config.json: for `MarianMTModel` if transformers computes the same results with it."""
        values = asdict(self)
        if not self.is_marian:
            return {"model_type": OWN_TYPE, "architectures": [architecture or "Transformer"], **values}
        values = {name: value for name, value in values.items() if name not in _OWN and value is not None}
        optional = dict.fromkeys(("pad_token_id", "bos_token_id", "forced_eos_token_id"))  # else the defaults
        return {
            "model_type": "marian",
            "architectures": ["MarianMTModel"],
            "is_encoder_decoder": True,
            **optional,
            **values,
        }
