"""The configuration of MPNet, in Hugging Face's format."""

from __future__ import annotations

from dataclasses import dataclass

from fastattn.checks import config_integer, shown
from fastattn.models.config import EncoderConfig

BUCKETS = 32
"""The buckets of distances, half of them for keys after the query."""


@dataclass(frozen=True, kw_only=True)
class MPNetConfig(EncoderConfig):
    """The shape of an MPNet model, field by field as in Hugging Face's config.json; the defaults are transformers'.

    As in transformers, distances have 32 buckets, so `relative_attention_num_buckets`, the rows of their table, is at
    least 32, and positions do not count the id 1, whatever `pad_token_id` is. Labels are as in `BertConfig`.

    Raises ValueError, naming the field and the value, for a value that no such model can have.
    """

    model_types = ("mpnet",)
    fewest_types = 0

    vocab_size: int = 30527
    type_vocab_size: int = 0
    pad_token_id: int | None = 1
    relative_attention_num_buckets: int = BUCKETS

    def _check_fields(self) -> None:
        super()._check_fields()
        self._check(config_integer, "relative_attention_num_buckets", low=BUCKETS)
        if self.type_vocab_size != 0:
            raise ValueError(f"type_vocab_size must be 0, got {shown(self.type_vocab_size)}")

    @property
    def uncounted(self) -> int:
        """The id that positions do not count."""
        return 1
