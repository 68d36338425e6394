"""Models, BERT and ELMo: their configuration, network and checkpoints."""

from fastattn.models.bert import BertConfig, BertModel, BertOutput
from fastattn.models.bert_heads import (
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from fastattn.models.bert_pretraining import BertForMaskedLM, BertForNextSentencePrediction, BertForPreTraining
from fastattn.models.bilm import BidirectionalLanguageModel, StreamLoss
from fastattn.models.elmo import Elmo, ElmoConfig, ElmoOutput, ElmoState

__all__ = [
    "BertConfig",
    "BertForMaskedLM",
    "BertForMultipleChoice",
    "BertForNextSentencePrediction",
    "BertForPreTraining",
    "BertForQuestionAnswering",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertModel",
    "BertOutput",
    "BidirectionalLanguageModel",
    "Elmo",
    "ElmoConfig",
    "ElmoOutput",
    "ElmoState",
    "StreamLoss",
]
