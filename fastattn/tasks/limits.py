"""How many tokens a model reads at once."""

from __future__ import annotations

from typing import Any

from fastattn.errors import OptionError
from fastattn.text import Tokenizer


def token_limit(
    tokenizer: Tokenizer,
    config: Any,
    wanted: int | None = None,
    usual: int | None = None,
    option: str = "max_length",
) -> int:
    """The most tokens of a sequence: those that are `wanted` by an option; otherwise the `usual` ones, as far as
    tokenizer and model allow.

    Raises as `check_positions`.
    """
    if wanted is not None:
        return check_positions(option, wanted, config)
    limits = usual, tokenizer.model_max_length, config.max_tokens
    return min(limit for limit in limits if limit)


def check_positions(option: str, wanted: int, config: Any) -> int:
    """`wanted`, the value of an option, if the model with this config reads as many tokens. Raises OptionError."""
    positions = config.max_tokens
    if wanted > positions:
        raise OptionError(f"{{{option}}} is {{}}, but the model has {{}} positions", wanted, positions)
    return wanted
