"""ELMo: a language model over characters that reads in both directions, and the mixes of its layers."""

from fastattn.models.elmo.config import ElmoConfig
from fastattn.models.elmo.language_model import BidirectionalLanguageModel
from fastattn.models.elmo.model import Elmo
from fastattn.models.registry import Family

FAMILY = Family(ElmoConfig, Elmo, {"LanguageModel": BidirectionalLanguageModel})
