"""BERT's pre-training on raw text: `Pretrainer`."""
