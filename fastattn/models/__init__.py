"""Models, BERT, ELMo and the Transformer: their configuration, network and checkpoints."""

from fastattn.models.bert import BertConfig, BertModel, BertOutput
from fastattn.models.bert_heads import (
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from fastattn.models.bert_pretraining import BertForMaskedLM, BertForNextSentencePrediction, BertForPreTraining
from fastattn.models.elmo import BidirectionalLanguageModel, Elmo, ElmoConfig, ElmoOutput, StreamLoss
from fastattn.models.transformer import Transformer, TransformerConfig, TransformerOutput

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
    "StreamLoss",
    "Transformer",
    "TransformerConfig",
    "TransformerOutput",
]
