"""Texts over the limit of a model are cut or refused."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from fastattn.text import TokenizedTexts

TRUNCATION = ("warn", "error", "silent")


class TruncationWarning(UserWarning):
    """Texts were cut at the model's limit. The message is always the same, so that a service logs it once.

    Attributes:
        truncated: how many were cut.
        total: how many texts there were.
        limit: the limit in tokens.
        index: the first text that was cut.
        tokens: its length in tokens.
        counts: these numbers as text.
    """

    def __init__(self, truncated: int, total: int, limit: int, index: int, tokens: int) -> None:
        super().__init__(
            "texts longer than max_seq_length tokens were truncated; the warning's attributes say how many"
        )
        self.truncated, self.total, self.limit, self.index, self.tokens = truncated, total, limit, index, tokens

    @property
    def counts(self) -> str:
        return f"{self.truncated} of {self.total} texts have more than {self.limit} tokens and were cut"


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


@dataclass(eq=False, repr=False)
class Cut:
    """Counts texts that were cut: `count` of `total`; the first is `index`, with so many `tokens`."""

    total: int = 0
    count: int = 0
    index: int = 0
    tokens: int = 0

    def add(self, tokens: TokenizedTexts, limit: int, policy: str) -> None:
        """Count texts. Raises TextTooLongError for one that is cut, if the policy is "error"."""
        too_long = tokens.truncated.nonzero()[0]
        if len(too_long):
            first, length = self.total + int(too_long[0]), int(tokens.full_lengths[too_long[0]])
            if policy == "error":
                message = f"sentences[{first}] has {length} tokens, more than max_seq_length = {limit}"
                raise TextTooLongError(message, first, length, limit)
            if not self.count:
                self.index, self.tokens = first, length
            self.count += len(too_long)
        self.total += len(tokens.lengths)

    def warn(self, limit: int, policy: str) -> None:
        """Warn the caller of the caller, if the policy is "warn"."""
        if self.count and policy == "warn":
            warning = TruncationWarning(self.count, self.total, limit, self.index, self.tokens)
            warnings.warn(warning, stacklevel=3)
