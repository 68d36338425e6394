"""AWD-LSTM: a language model of words in one direction or both, and ULMFiT's classifier above it."""

from fastattn.models.awd_lstm.classification import AwdLstmForSequenceClassification
from fastattn.models.awd_lstm.config import AwdLstmConfig
from fastattn.models.awd_lstm.model import AwdLstmForLanguageModel
from fastattn.models.registry import Family, by_kind

FAMILY = Family(AwdLstmConfig, None, by_kind(AwdLstmForLanguageModel, AwdLstmForSequenceClassification))
