"""Use a trained model.

  fastattn predict classify --model classifier input.tsv --output answers.tsv
  fastattn predict regress --model similarity pairs.txt
  fastattn predict rerank --model reranker --query "Who sings?" documents.txt --top-k 10
  fastattn predict tag --model tagger input.conllu --output tagged.conllu
  cat input.conllu | fastattn predict tag --model tagger > tagged.conllu
  fastattn predict embed --model encoder pairs.tsv > similarities.txt
  fastattn predict answer --model answerer dev-v1.1.json --output predictions.json
  echo "The cat [MASK] on the mat." | fastattn predict fill --model bert
  fastattn predict translate --model de-en input.de --output output.en
  fastattn predict translate --model names --pairs test.tsv --attention first.svg > translated.txt
  fastattn predict bilm --model bilm sentences.txt > perplexities.txt
  fastattn predict language-model --model lm sentences.txt > perplexities.txt

`classify` and `regress` give each text or pair of texts a class or a number, and `rerank` sorts the documents of each
query. `tag` returns a CoNLL-U file with a new UPOS column, and nothing else changed. `embed` gives each pair of texts
its similarity. `answer` reads a file of SQuAD and writes JSON with an answer for each question. `translate`, `bilm`,
`language-model` and `fill` write a line for each line. If the input has right answers, scores go to standard error. An
empty input gives an empty output. `fastattn predict TASK --help` lists the options of a task.
"""

from __future__ import annotations

import argparse
import sys

from fastattn.checks import printable
from fastattn.cli import add_options, add_tasks, add_threads, add_weights, open_input, options_of, use_threads
from fastattn.errors import EmptyError
from fastattn.files import open_output

SUMMARY = "label, answer, fill, translate or measure text with a trained model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for task, usage in add_tasks(parser, lambda usage: usage.predicting is not None):
        task.description, model, read = usage.predicting
        task.add_argument("input", nargs="?", default="-", help=f"{read} (default: standard input)")
        task.add_argument("--model", required=True, help=model)
        add_options(task, usage.predict_options)
        task.add_argument("--output", "-o", default="-", help="file to write (default: standard output)")
        add_weights(task)
        add_threads(task)


def run(arguments: argparse.Namespace) -> int:
    from fastattn import tasks

    options = options_of(arguments, arguments.recipe.predict_options)
    kind = getattr(tasks, tasks.TASKS[arguments.task][0])
    use_threads(arguments.threads)
    with open_input(arguments) as (lines, name):
        task = kind.from_pretrained(arguments.model, weights=arguments.weights)
        try:
            data = task.read_input(lines, name, options)
        except EmptyError:
            data = None
        with open_output(arguments.output) as file:
            texts, reports = ([], []) if data is None else task.predict(data, options)
            for text in texts:
                file.write(text.encode())
                file.flush()  # somebody may wait for it
    for line in reports:
        print(printable(line), file=sys.stderr)
    return 0
