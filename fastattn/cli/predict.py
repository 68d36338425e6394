"""Use a trained model.

  fastattn predict tag --model tagger input.conllu --output tagged.conllu
  cat input.conllu | fastattn predict tag --model tagger > tagged.conllu
  fastattn predict embed --model encoder pairs.tsv > similarities.txt
  fastattn predict answer --model answerer dev-v1.1.json --output predictions.json
  echo "The cat [MASK] on the mat." | fastattn predict fill --model bert
  fastattn predict translate --model de-en input.de --output output.en
  fastattn predict translate --model names --pairs test.tsv --attention first.svg > translated.txt
  fastattn predict bilm --model bilm sentences.txt > perplexities.txt

`tag` returns a CoNLL-U file with a new UPOS column, and nothing else changed. If the column had tags, the share of
words that got the same tag goes to standard error. `embed` gives each pair of texts its similarity. `answer` reads a
file of SQuAD and writes JSON with an answer for each question. `translate`, `bilm` and `fill` write a line for each
line.
"""

from __future__ import annotations

import argparse
import sys
import warnings

from fastattn.checks import printable
from fastattn.cli import add_options, add_tasks, add_threads, open_input, options_of, use_threads
from fastattn.files import open_output

SUMMARY = "label, answer, fill, translate or measure text with a trained model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for task, usage in add_tasks(parser, lambda usage: usage.predicting is not None):
        task.description, model, read = usage.predicting
        task.add_argument("input", nargs="?", default="-", help=f"{read} (default: standard input)")
        task.add_argument("--model", required=True, help=model)
        add_options(task, usage.predict_options)
        task.add_argument("--output", "-o", default="-", help="file to write (default: standard output)")
        add_threads(task)


def run(arguments: argparse.Namespace) -> int:
    from fastattn import tasks

    options = options_of(arguments, arguments.recipe.predict_options)
    kind = getattr(tasks, tasks.TASKS[arguments.task][0])
    use_threads(arguments.threads)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        with open_input(arguments) as (lines, name):
            task = kind.from_pretrained(arguments.model)
            data = task.read_input(lines, name, options)
        with open_output(arguments.output) as file:
            texts, reports = task.predict(data, options)
            file.writelines(text.encode() for text in texts)
    for warning in caught:
        print(f"{arguments.prog}: {printable(str(warning.message))}", file=sys.stderr)
    for line in reports:
        print(printable(line), file=sys.stderr)
    return 0
