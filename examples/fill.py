"""Fill masks, with alternatives: a small BERT is pre-trained on a few sentences, and then guesses their words."""

import tempfile

from fastattn.tasks import Filler, Pretrainer, train

FOOD = {"cat": "milk", "dog": "bones", "horse": "hay", "bird": "seeds"}
sentences = [[f"the {eater} eats {food} ."] for eater, food in FOOD.items()]
sentences += [[f"{food} is what a {eater} likes ."] for eater, food in FOOD.items()]

size = {"vocab_size": 160, "hidden_size": 64, "layers": 2, "heads": 2, "intermediate_size": 128, "dropout": 0.0}
options = {"epochs": 25, "batch_size": 16, "next_sentence": False, "max_seq_length": 12, "masked_lm_prob": 0.2}
pretrainer = Pretrainer.for_training(None, sentences * 25, **size, **options)
with tempfile.TemporaryDirectory() as folder:
    train(pretrainer, sentences * 25, folder)
    filler = Filler.from_pretrained(folder)

for text in ("the horse eats [MASK] .", "seeds is what a [MASK] likes ."):
    print(text)
    for word in filler(text, top_k=3):
        print(f"  {word['score']:.2f}  {word['token_str']}")
