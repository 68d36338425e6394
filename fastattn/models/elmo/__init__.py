"""ELMo: a bidirectional language model over characters, and the scalar mixes of its layers."""

from fastattn.models.elmo.config import ElmoConfig
from fastattn.models.elmo.language_model import BidirectionalLanguageModel
from fastattn.models.elmo.model import Elmo
from fastattn.models.registry import Family

FAMILY = Family(ElmoConfig, Elmo, {"LanguageModel": BidirectionalLanguageModel})
