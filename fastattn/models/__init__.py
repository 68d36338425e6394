"""BERT, ELMo and the Transformer: configurations, networks and checkpoints. Each family is imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastattn._lazy import lazy

if TYPE_CHECKING:
    from fastattn.models.bert.config import BertConfig as BertConfig
    from fastattn.models.bert.model import BertForMultipleChoice as BertForMultipleChoice
    from fastattn.models.bert.model import BertForQuestionAnswering as BertForQuestionAnswering
    from fastattn.models.bert.model import BertForSequenceClassification as BertForSequenceClassification
    from fastattn.models.bert.model import BertForTokenClassification as BertForTokenClassification
    from fastattn.models.bert.model import BertModel as BertModel
    from fastattn.models.bert.pretraining import BertForMaskedLM as BertForMaskedLM
    from fastattn.models.bert.pretraining import BertForNextSentencePrediction as BertForNextSentencePrediction
    from fastattn.models.bert.pretraining import BertForPreTraining as BertForPreTraining
    from fastattn.models.convert import Converted as Converted
    from fastattn.models.convert import convert_checkpoint as convert_checkpoint
    from fastattn.models.elmo.config import ElmoConfig as ElmoConfig
    from fastattn.models.elmo.language_model import BidirectionalLanguageModel as BidirectionalLanguageModel
    from fastattn.models.elmo.model import Elmo as Elmo
    from fastattn.models.elmo.model import ElmoOutput as ElmoOutput
    from fastattn.models.outputs import EncoderOutput as EncoderOutput
    from fastattn.models.transformer.config import TransformerConfig as TransformerConfig
    from fastattn.models.transformer.model import Transformer as Transformer
    from fastattn.models.transformer.model import TransformerOutput as TransformerOutput

_HOMES = {
    "bert": "BertConfig BertForMaskedLM BertForMultipleChoice BertForNextSentencePrediction BertForPreTraining "
    "BertForQuestionAnswering BertForSequenceClassification BertForTokenClassification BertModel",
    "convert": "Converted convert_checkpoint",
    "elmo": "BidirectionalLanguageModel Elmo ElmoConfig",
    "elmo.model": "ElmoOutput",
    "outputs": "EncoderOutput",
    "transformer": "Transformer TransformerConfig",
    "transformer.model": "TransformerOutput",
}
__all__ = sorted(" ".join(_HOMES.values()).split())
__getattr__ = lazy(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
