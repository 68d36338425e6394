"""generation_config.json: the decoding options of a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastattn.checks import config_integer, shown
from fastattn.files import replacing
from fastattn.formats import hugging_face
from fastattn.models.config import PreTrainedConfig

GENERATION_CONFIG = "generation_config.json"

# The options of `fastattn.generation.generate` that are not fields of the config, with transformers' defaults
OPTIONS: dict[str, Any] = {
    "do_sample": False,
    "early_stopping": False,
    "forced_bos_token_id": None,
    "length_penalty": 1.0,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "num_beams": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1.0,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
}
# Unsupported options of transformers, each with its neutral value: of any search, of beams, and of samples
UNSUPPORTED: dict[str, Any] = {
    "begin_suppress_tokens": None,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "exponential_decay_length_penalty": None,
    "guidance_scale": 1.0,
    "max_time": None,
    "min_new_tokens": 0,
    "sequence_bias": None,
    "stop_strings": None,
    "suppress_tokens": None,
    "watermarking_config": None,
}
UNSUPPORTED_BEAMS: dict[str, Any] = {
    "constraints": None,
    "diversity_penalty": 0.0,
    "force_words_ids": None,
    "num_beam_groups": 1,
    "renormalize_logits": False,
}
UNSUPPORTED_SAMPLES: dict[str, Any] = {
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "min_p": None,
    "top_h": None,
    "typical_p": 1.0,
}

# A generation_config.json overrides the first group even if it omits them, the second group only if it has them
_DECODING = ("max_length", "bad_words_ids", "forced_eos_token_id")
_TOKENS = ("decoder_start_token_id", "eos_token_id")


@dataclass(frozen=True)
class GenerationSettings:
    """The decoding options that are not fields of the config: `values`, and the file they come from."""

    source: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, changes: Mapping[str, Any]) -> tuple[GenerationSettings, dict[str, Any]]:
        """The settings of a folder, and the fields of the config that generation_config.json replaces.

        Without this file the settings come from config.json. `changes` override both.
        """
        path = folder / GENERATION_CONFIG
        fields: dict[str, Any] = {}
        names = [*OPTIONS, *UNSUPPORTED, *UNSUPPORTED_BEAMS, *UNSUPPORTED_SAMPLES]
        if os.path.lexists(path):
            values = hugging_face.read_json(path)
            fields = {name: values.get(name) for name in _DECODING}
            fields |= {name: values[name] for name in _TOKENS if values.get(name) is not None}
            names += ["pad_token_id"] * ("pad_token_id" not in changes)
        else:
            path, values = folder / hugging_face.CONFIG, hugging_face.read_config(folder)
        if values.get("max_new_tokens") is not None:
            try:
                fields["max_length"] = 1 + config_integer("max_new_tokens", values["max_new_tokens"], high=None)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
        return cls(str(path), {name: values.get(name) for name in names}), fields

    def write(self, folder: Path, config: PreTrainedConfig) -> None:
        """Write generation_config.json, whole or not at all."""
        names = (*_DECODING, *_TOKENS, "pad_token_id", "bos_token_id")
        values = {**{name: getattr(config, name) for name in names}, **self.values}
        text = json.dumps({name: value for name, value in values.items() if value is not None}, indent=2) + "\n"
        with replacing(folder / GENERATION_CONFIG) as (file,):
            file.write_text(text, encoding="utf-8")


def token(name: str, value: Any, size: int) -> int:
    """`value`, if it is an id in a target vocabulary of `size` words. Raises ValueError otherwise."""
    return config_integer(name, value, 0, high=size, wanted=f"an id of the target vocabulary, below {size}")


def ends(name: str, value: Any, size: int) -> int | tuple[int, ...]:
    """`value`, if it is an id of a target vocabulary of `size`, or several as a tuple. Raises ValueError."""
    if not isinstance(value, list | tuple) or not value:
        return token(name, value, size)
    several = tuple(token(name, each, size) for each in value)
    return several if len(several) > 1 else several[0]


def bad_words(name: str, words: Any, size: int) -> tuple[tuple[int, ...], ...]:
    """`words` as tuples, if they are lists of ids in a target vocabulary of `size` words. Raises ValueError."""
    try:
        phrases = tuple(tuple(word) for word in words)
    except TypeError:
        phrases = ((),)
    if not all(phrases):
        raise ValueError(f"{name} must be lists of ids, none of them empty, got {shown(words)}")
    text = f"lists of ids of the target vocabulary, below {size}"
    return tuple(tuple(config_integer(name, i, 0, high=size, wanted=text) for i in phrase) for phrase in phrases)
