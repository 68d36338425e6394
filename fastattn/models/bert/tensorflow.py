"""The names of google-research/bert, whose checkpoints are TensorFlow's: pre-trained, or fine-tuned by its scripts."""

from __future__ import annotations

from fastattn.models.registry import TensorFlowNames

TENSORFLOW = TensorFlowNames(
    config="bert_config.json",
    names={
        "bert/embeddings/word_embeddings": "bert.embeddings.word_embeddings.weight",
        "bert/embeddings/position_embeddings": "bert.embeddings.position_embeddings.weight",
        "bert/embeddings/token_type_embeddings": "bert.embeddings.token_type_embeddings.weight",
        "bert/embeddings/LayerNorm/gamma": "bert.embeddings.LayerNorm.weight",
        "bert/embeddings/LayerNorm/beta": "bert.embeddings.LayerNorm.bias",
        "bert/encoder/layer_{}/attention/self/query/kernel": "bert.encoder.layer.{}.attention.self.query.weight",
        "bert/encoder/layer_{}/attention/self/query/bias": "bert.encoder.layer.{}.attention.self.query.bias",
        "bert/encoder/layer_{}/attention/self/key/kernel": "bert.encoder.layer.{}.attention.self.key.weight",
        "bert/encoder/layer_{}/attention/self/key/bias": "bert.encoder.layer.{}.attention.self.key.bias",
        "bert/encoder/layer_{}/attention/self/value/kernel": "bert.encoder.layer.{}.attention.self.value.weight",
        "bert/encoder/layer_{}/attention/self/value/bias": "bert.encoder.layer.{}.attention.self.value.bias",
        "bert/encoder/layer_{}/attention/output/dense/kernel": "bert.encoder.layer.{}.attention.output.dense.weight",
        "bert/encoder/layer_{}/attention/output/dense/bias": "bert.encoder.layer.{}.attention.output.dense.bias",
        "bert/encoder/layer_{}/attention/output/LayerNorm/gamma": (
            "bert.encoder.layer.{}.attention.output.LayerNorm.weight"
        ),
        "bert/encoder/layer_{}/attention/output/LayerNorm/beta": (
            "bert.encoder.layer.{}.attention.output.LayerNorm.bias"
        ),
        "bert/encoder/layer_{}/intermediate/dense/kernel": "bert.encoder.layer.{}.intermediate.dense.weight",
        "bert/encoder/layer_{}/intermediate/dense/bias": "bert.encoder.layer.{}.intermediate.dense.bias",
        "bert/encoder/layer_{}/output/dense/kernel": "bert.encoder.layer.{}.output.dense.weight",
        "bert/encoder/layer_{}/output/dense/bias": "bert.encoder.layer.{}.output.dense.bias",
        "bert/encoder/layer_{}/output/LayerNorm/gamma": "bert.encoder.layer.{}.output.LayerNorm.weight",
        "bert/encoder/layer_{}/output/LayerNorm/beta": "bert.encoder.layer.{}.output.LayerNorm.bias",
        "bert/pooler/dense/kernel": "bert.pooler.dense.weight",
        "bert/pooler/dense/bias": "bert.pooler.dense.bias",
        "cls/predictions/transform/dense/kernel": "cls.predictions.transform.dense.weight",
        "cls/predictions/transform/dense/bias": "cls.predictions.transform.dense.bias",
        "cls/predictions/transform/LayerNorm/gamma": "cls.predictions.transform.LayerNorm.weight",
        "cls/predictions/transform/LayerNorm/beta": "cls.predictions.transform.LayerNorm.bias",
        "cls/predictions/output_bias": "cls.predictions.bias",
        "cls/seq_relationship/output_weights": "cls.seq_relationship.weight",
        "cls/seq_relationship/output_bias": "cls.seq_relationship.bias",
        "cls/squad/output_weights": "qa_outputs.weight",  # run_squad.py
        "cls/squad/output_bias": "qa_outputs.bias",
        "output_weights": "classifier.weight",  # run_classifier.py
        "output_bias": "classifier.bias",
    },
    whole="bert/",
    heads={
        "PreTraining": ("cls.predictions.bias", "cls.seq_relationship.bias"),
        "MaskedLM": ("cls.predictions.bias",),
        "NextSentencePrediction": ("cls.seq_relationship.bias",),
        "QuestionAnswering": ("qa_outputs.bias",),
        "SequenceClassification": ("classifier.bias",),
    },
    labels=("classifier.bias",),
    vocabulary="vocab.txt",
    tokenizer={"tokenizer_class": "BertTokenizer"},
)
