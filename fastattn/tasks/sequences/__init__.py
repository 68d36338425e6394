"""What `classify`, `regress` and `rerank` share: a text or a pair of texts in, a row of numbers out."""
