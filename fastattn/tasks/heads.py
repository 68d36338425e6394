"""What tasks ask of any family: which head a folder has, where another one is refused by name, and token types."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn.checks import listed
from fastattn.formats import hugging_face
from fastattn.models.config import architectures
from fastattn.models.registry import family_of
from fastattn.tasks.embed.folder import MODULES
from fastattn.text import TokenizedTexts


def architectures_in(folder: Path) -> list[str]:
    """The classes that the config.json in a folder names.

    Raises as `read_config`, and ValueError, with the file, for what is no list of names.
    """
    return architectures(hugging_face.read_config(folder), folder / hugging_face.CONFIG)


PRETRAINING = ("MaskedLM", "PreTraining", "NextSentencePrediction")
"""Heads of models that are not trained for a task yet: their hidden states are a plain encoder's."""


def check_encoder(folder: Path) -> None:
    """Raise ValueError, with folder and architecture, for a model that was trained for a task, such as a classifier: it
    is no sentence encoder. A folder of sentence-transformers says itself that it is one."""
    if os.path.lexists(folder / MODULES):
        return
    named = architectures_in(folder)
    ends = tuple(f"For{kind}" for kind in PRETRAINING)
    if any("For" in name and not name.endswith(ends) for name in named):
        raise ValueError(
            f"{folder}: not a sentence encoder, its architecture is {listed(named)}; `fastattn train embed` makes one"
        )


def head_of(folder: Path, *kinds: str, refusal: str, end: str = "") -> str:
    """Which of these kinds of heads the model in a folder has, see `fastattn.models.registry.Family`. A config.json
    that names no architecture counts as the first kind.

    Raises as `architectures_in`, and for another head ValueError with the folder, the `refusal`, the architecture and
    the `end`. So does a family without such a head.
    """
    named = architectures_in(folder)
    found = [kind for kind in kinds if any(name.endswith(f"For{kind}") for name in named)]
    if named and not found:
        raise ValueError(f"{folder}: {refusal}, its architecture is {listed(named)}{end}")
    kind = found[0] if found else kinds[0]
    family = family_of(folder)
    try:
        family.head(kind)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    return kind


def token_types(config: Any, tokens: TokenizedTexts) -> NDArray[np.int64] | None:
    """The token types for a model with this config; None if it has one type or none, whatever the tokenizer says."""
    return tokens.token_type_ids if config.type_vocab_size > 1 else None
