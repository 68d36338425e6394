"""The families of models: configurations, networks and checkpoints. Each family is imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastattn._lazy import lazy

if TYPE_CHECKING:
    from fastattn.models.albert.config import AlbertConfig as AlbertConfig
    from fastattn.models.albert.model import AlbertForMaskedLM as AlbertForMaskedLM
    from fastattn.models.albert.model import AlbertForMultipleChoice as AlbertForMultipleChoice
    from fastattn.models.albert.model import AlbertForPreTraining as AlbertForPreTraining
    from fastattn.models.albert.model import AlbertForQuestionAnswering as AlbertForQuestionAnswering
    from fastattn.models.albert.model import AlbertForSequenceClassification as AlbertForSequenceClassification
    from fastattn.models.albert.model import AlbertForTokenClassification as AlbertForTokenClassification
    from fastattn.models.albert.model import AlbertModel as AlbertModel
    from fastattn.models.awd_lstm.classification import (
        AwdLstmForSequenceClassification as AwdLstmForSequenceClassification,
    )
    from fastattn.models.awd_lstm.config import AwdLstmConfig as AwdLstmConfig
    from fastattn.models.awd_lstm.model import AwdLstmForLanguageModel as AwdLstmForLanguageModel
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
    from fastattn.models.distilbert.config import DistilBertConfig as DistilBertConfig
    from fastattn.models.distilbert.model import DistilBertForMaskedLM as DistilBertForMaskedLM
    from fastattn.models.distilbert.model import DistilBertForMultipleChoice as DistilBertForMultipleChoice
    from fastattn.models.distilbert.model import DistilBertForQuestionAnswering as DistilBertForQuestionAnswering
    from fastattn.models.distilbert.model import (
        DistilBertForSequenceClassification as DistilBertForSequenceClassification,
    )
    from fastattn.models.distilbert.model import DistilBertForTokenClassification as DistilBertForTokenClassification
    from fastattn.models.distilbert.model import DistilBertModel as DistilBertModel
    from fastattn.models.electra.config import ElectraConfig as ElectraConfig
    from fastattn.models.electra.model import ElectraForMaskedLM as ElectraForMaskedLM
    from fastattn.models.electra.model import ElectraForMultipleChoice as ElectraForMultipleChoice
    from fastattn.models.electra.model import ElectraForPreTraining as ElectraForPreTraining
    from fastattn.models.electra.model import ElectraForQuestionAnswering as ElectraForQuestionAnswering
    from fastattn.models.electra.model import ElectraForSequenceClassification as ElectraForSequenceClassification
    from fastattn.models.electra.model import ElectraForTokenClassification as ElectraForTokenClassification
    from fastattn.models.electra.model import ElectraModel as ElectraModel
    from fastattn.models.elmo.config import ElmoConfig as ElmoConfig
    from fastattn.models.elmo.language_model import BidirectionalLanguageModel as BidirectionalLanguageModel
    from fastattn.models.elmo.model import Elmo as Elmo
    from fastattn.models.elmo.model import ElmoOutput as ElmoOutput
    from fastattn.models.gte.config import GteConfig as GteConfig
    from fastattn.models.gte.model import GteForMaskedLM as GteForMaskedLM
    from fastattn.models.gte.model import GteForSequenceClassification as GteForSequenceClassification
    from fastattn.models.gte.model import GteForTokenClassification as GteForTokenClassification
    from fastattn.models.gte.model import GteModel as GteModel
    from fastattn.models.modernbert.config import ModernBertConfig as ModernBertConfig
    from fastattn.models.modernbert.heads import ModernBertForMaskedLM as ModernBertForMaskedLM
    from fastattn.models.modernbert.heads import ModernBertForMultipleChoice as ModernBertForMultipleChoice
    from fastattn.models.modernbert.heads import ModernBertForQuestionAnswering as ModernBertForQuestionAnswering
    from fastattn.models.modernbert.heads import (
        ModernBertForSequenceClassification as ModernBertForSequenceClassification,
    )
    from fastattn.models.modernbert.heads import ModernBertForTokenClassification as ModernBertForTokenClassification
    from fastattn.models.modernbert.model import ModernBertModel as ModernBertModel
    from fastattn.models.mpnet.config import MPNetConfig as MPNetConfig
    from fastattn.models.mpnet.model import MPNetForMaskedLM as MPNetForMaskedLM
    from fastattn.models.mpnet.model import MPNetForMultipleChoice as MPNetForMultipleChoice
    from fastattn.models.mpnet.model import MPNetForQuestionAnswering as MPNetForQuestionAnswering
    from fastattn.models.mpnet.model import MPNetForSequenceClassification as MPNetForSequenceClassification
    from fastattn.models.mpnet.model import MPNetForTokenClassification as MPNetForTokenClassification
    from fastattn.models.mpnet.model import MPNetModel as MPNetModel
    from fastattn.models.nomic_bert.config import NomicBertConfig as NomicBertConfig
    from fastattn.models.nomic_bert.model import NomicBertForMaskedLM as NomicBertForMaskedLM
    from fastattn.models.nomic_bert.model import (
        NomicBertForSequenceClassification as NomicBertForSequenceClassification,
    )
    from fastattn.models.nomic_bert.model import NomicBertForTokenClassification as NomicBertForTokenClassification
    from fastattn.models.nomic_bert.model import NomicBertModel as NomicBertModel
    from fastattn.models.outputs import EncoderOutput as EncoderOutput
    from fastattn.models.roberta.config import RobertaConfig as RobertaConfig
    from fastattn.models.roberta.model import RobertaForMaskedLM as RobertaForMaskedLM
    from fastattn.models.roberta.model import RobertaForMultipleChoice as RobertaForMultipleChoice
    from fastattn.models.roberta.model import RobertaForQuestionAnswering as RobertaForQuestionAnswering
    from fastattn.models.roberta.model import RobertaForSequenceClassification as RobertaForSequenceClassification
    from fastattn.models.roberta.model import RobertaForTokenClassification as RobertaForTokenClassification
    from fastattn.models.roberta.model import RobertaModel as RobertaModel
    from fastattn.models.sequence_tagger.config import SequenceTaggerConfig as SequenceTaggerConfig
    from fastattn.models.sequence_tagger.model import SequenceTagger as SequenceTagger
    from fastattn.models.transformer.config import TransformerConfig as TransformerConfig
    from fastattn.models.transformer.model import Transformer as Transformer
    from fastattn.models.transformer.model import TransformerOutput as TransformerOutput

_HOMES = {
    "albert": "AlbertConfig AlbertForMaskedLM AlbertForMultipleChoice AlbertForPreTraining AlbertForQuestionAnswering "
    "AlbertForSequenceClassification AlbertForTokenClassification AlbertModel",
    "awd_lstm": "AwdLstmConfig AwdLstmForLanguageModel AwdLstmForSequenceClassification",
    "bert": "BertConfig BertForMaskedLM BertForMultipleChoice BertForNextSentencePrediction BertForPreTraining "
    "BertForQuestionAnswering BertForSequenceClassification BertForTokenClassification BertModel",
    "convert": "Converted convert_checkpoint",
    "distilbert": "DistilBertConfig DistilBertForMaskedLM DistilBertForMultipleChoice DistilBertForQuestionAnswering "
    "DistilBertForSequenceClassification DistilBertForTokenClassification DistilBertModel",
    "electra": "ElectraConfig ElectraForMaskedLM ElectraForMultipleChoice ElectraForPreTraining "
    "ElectraForQuestionAnswering ElectraForSequenceClassification ElectraForTokenClassification ElectraModel",
    "elmo": "BidirectionalLanguageModel Elmo ElmoConfig",
    "elmo.model": "ElmoOutput",
    "gte": "GteConfig GteForMaskedLM GteForSequenceClassification GteForTokenClassification GteModel",
    "modernbert": "ModernBertConfig ModernBertForMaskedLM ModernBertForMultipleChoice ModernBertForQuestionAnswering "
    "ModernBertForSequenceClassification ModernBertForTokenClassification ModernBertModel",
    "mpnet": "MPNetConfig MPNetForMaskedLM MPNetForMultipleChoice MPNetForQuestionAnswering "
    "MPNetForSequenceClassification MPNetForTokenClassification MPNetModel",
    "nomic_bert": "NomicBertConfig NomicBertForMaskedLM NomicBertForSequenceClassification "
    "NomicBertForTokenClassification NomicBertModel",
    "outputs": "EncoderOutput",
    "roberta": "RobertaConfig RobertaForMaskedLM RobertaForMultipleChoice RobertaForQuestionAnswering "
    "RobertaForSequenceClassification RobertaForTokenClassification RobertaModel",
    "sequence_tagger": "SequenceTagger SequenceTaggerConfig",
    "transformer": "Transformer TransformerConfig",
    "transformer.model": "TransformerOutput",
}
__all__ = sorted(" ".join(_HOMES.values()).split())
__getattr__ = lazy(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
