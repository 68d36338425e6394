"""A tagger of words: two bidirectional LSTMs, which may read the states of a frozen model."""

from fastattn.models.registry import Family
from fastattn.models.sequence_tagger.config import SequenceTaggerConfig
from fastattn.models.sequence_tagger.model import SequenceTagger

FAMILY = Family(SequenceTaggerConfig, None, {"SequenceTagging": SequenceTagger})
