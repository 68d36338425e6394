"""Texts over the limit of a model are cut or refused."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from fastattn.text import TokenizedTexts

TRUNCATION = ("warn", "error", "silent")


class TruncationWarning(UserWarning):
    """Texts were cut at the model's limit.

    Attributes:
        truncated: how many were cut.
        total: how many texts there were.
        limit: the limit in tokens.
    """

    def __init__(self, message: str, truncated: int, total: int, limit: int) -> None:
        super().__init__(message)
        self.truncated, self.total, self.limit = truncated, total, limit


class TextTooLongError(ValueError):
    """A text has more tokens than the model takes, and `truncation` is "error".

    Attributes:
        index: the first such text.
        tokens: its length in tokens.
        limit: the limit in tokens.
    """

    def __init__(self, message: str, index: int, tokens: int, limit: int) -> None:
        super().__init__(message)
        self.index, self.tokens, self.limit = index, tokens, limit


@dataclass
class Cut:
    """Counts texts that were cut: `count` of `total`, and a description of the first."""

    total: int = 0
    count: int = 0
    first: str = ""

    def add(self, tokens: TokenizedTexts, limit: int, policy: str) -> None:
        """Count texts. Raises TextTooLongError for one that is cut, if the policy is "error"."""
        too_long = tokens.truncated.nonzero()[0]
        if len(too_long):
            first, length = self.total + int(too_long[0]), int(tokens.full_lengths[too_long[0]])
            if policy == "error":
                message = f"sentences[{first}] has {length} tokens, more than max_seq_length = {limit}"
                raise TextTooLongError(message, first, length, limit)
            self.first = self.first or f"sentences[{first}] with {length}"
            self.count += len(too_long)
        self.total += len(tokens.lengths)

    def warn(self, limit: int, policy: str) -> None:
        """Warn the caller of the caller, if the policy is "warn"."""
        if self.count and policy == "warn":
            message = (
                f"{self.count} of {self.total} texts have more than max_seq_length = {limit} tokens "
                f"and were cut (the first is {self.first})"
            )
            warnings.warn(TruncationWarning(message, self.count, self.total, limit), stacklevel=3)
