"""What the commands say of filling masks. A model for it is pre-trained, so there is nothing to train here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastattn.tasks.options import Count, Options, Usage


@dataclass(frozen=True, kw_only=True)
class FillOptions(Options):
    """Which words may stand for a mask.

    Args:
        top_k: the most words of each mask
        targets: the only words that may stand there (default: the whole vocabulary)
    """

    top_k: Count = 5
    targets: tuple[str, ...] | None = None


class FillUsage(Usage):
    summary = "fill the masks of texts with words"
    predicting = (
        "Write the best words for the masks of each line, such as [MASK], as JSON lines.",
        "a model for masked words: a folder, a package or a Hugging Face name",
        "UTF-8 text, with a mask or more in each line",
    )
    predict_options: ClassVar[type[Options]] = FillOptions
