"""`Reranker`, and `CrossEncoder`, which is one with the calls of sentence-transformers: scores of pairs."""
