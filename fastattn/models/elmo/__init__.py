"""ELMo: a language model over characters that reads in both directions, and the mixes of its layers."""

from fastattn.models.elmo.config import ElmoConfig
from fastattn.models.elmo.language_model import BidirectionalLanguageModel, LanguageModelOutput, StreamLoss
from fastattn.models.elmo.model import Elmo, ElmoOutput
from fastattn.models.registry import Family

__all__ = [
    "FAMILY",
    "BidirectionalLanguageModel",
    "Elmo",
    "ElmoConfig",
    "ElmoOutput",
    "LanguageModelOutput",
    "StreamLoss",
]

FAMILY = Family(ElmoConfig, Elmo, {"LanguageModel": BidirectionalLanguageModel})
