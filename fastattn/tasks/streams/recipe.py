"""The options of language models that learn from streams of sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastattn.errors import OptionError
from fastattn.tasks.base import Recipe
from fastattn.tasks.options import Count, Fraction


@dataclass(frozen=True, kw_only=True)
class StreamRecipe(Recipe):
    """How a language model is made and trained. `Recipe` has the other options.

    Args:
        vocabulary: file of the words to predict, one per line, most frequent first, with <S>, </S> and <UNK> (default:
            the words of the text)
        vocabulary_size: the maximum number of words of the text in the vocabulary
        min_count: rarer words of the text become <UNK> (default: 2, so that there is something to learn <UNK> from)
        batch_size: streams in each direction
        unroll_steps: words of each stream in a step
        reset: share of the steps that a stream starts from zeros, like a sentence read on its own (bilm-tf: 0)
        shuffle: shuffle the sentences in each epoch (default: yes)
    """

    metric: ClassVar[str | None] = "perplexity"
    higher_is_better: ClassVar[bool] = False

    vocabulary: str | None = None
    vocabulary_size: Count | None = None
    min_count: Count | None = None
    batch_size: Count = 32
    unroll_steps: Count = 20
    reset: Fraction = 0.05
    shuffle: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vocabulary and (self.vocabulary_size or self.min_count):
            raise OptionError("{vocabulary_size} and {min_count} need a vocabulary made of the text, not {vocabulary}")
