"""Use a fine-tuned model.

  fastattn predict tag --model tagger input.conllu --output tagged.conllu
  cat input.conllu | fastattn predict tag --model tagger > tagged.conllu

The file comes back as it was but for the UPOS column. Where that had tags, the share of words that got the same
one is told on standard error.
"""

from __future__ import annotations

import argparse
import sys

from fastattn.cli import positive, use_threads
from fastattn.cli.embed import open_output

SUMMARY = "label text with a fine-tuned model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    tasks = parser.add_subparsers(dest="task", metavar="TASK", required=True)
    tag = tasks.add_parser(
        "tag",
        help="label words: part-of-speech tags in CoNLL-U files",
        description="Replace the part-of-speech tags (UPOS) of a CoNLL-U file by those of a tagger.",
        allow_abbrev=False,
    )
    tag.add_argument("input", nargs="?", default="-", help="CoNLL-U file; - or nothing means standard input")
    tag.add_argument("--model", required=True, help="a tagger: folder, package or Hugging Face name")
    tag.add_argument("--output", "-o", default="-", help="file to write; - or nothing means standard output")
    tag.add_argument("--threads", type=positive, help="default: what `fastattn info` shows")


def run(arguments: argparse.Namespace) -> int:
    from fastattn.text import parse_conllu, read_conllu

    if arguments.input == "-":
        sentences = list(parse_conllu(sys.stdin.buffer, "standard input"))
    else:
        sentences = read_conllu(arguments.input)
    use_threads(arguments.threads)
    from fastattn.tasks.tagger import Tagger, count_right

    tagger = Tagger.from_pretrained(arguments.model)
    predicted = tagger.tag([sentence.words for sentence in sentences])
    with open_output(arguments.output) as file:
        for sentence, tags in zip(sentences, predicted, strict=True):
            file.write(sentence.with_upos(tags).encode())
    right, total = count_right(predicted, [sentence.upos for sentence in sentences])
    if total:
        print(f"accuracy: {right / total:.4f} ({right} of {total} words)", file=sys.stderr)
    return 0
