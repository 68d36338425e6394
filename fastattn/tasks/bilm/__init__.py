"""`BiLM`: ELMo's bidirectional language model, trained on raw text."""
