"""Use a trained model.

  fastattn predict tag --model tagger input.conllu --output tagged.conllu
  cat input.conllu | fastattn predict tag --model tagger > tagged.conllu
  fastattn predict translate --model de-en input.de --output output.en
  fastattn predict translate --model names --pairs test.tsv --attention first.svg > translated.txt

What tags a CoNLL-U file gives it back as it was but for the UPOS column. Where that had tags, the share of words that
got the same one is told on standard error. What translates gives a line for each line.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from pathlib import Path

from fastattn.cli import positive, use_threads
from fastattn.files import open_output

SUMMARY = "label or translate text with a trained model"


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
    translate = tasks.add_parser(
        "translate",
        help="translate text, line by line",
        description="Translate text, one line at a time, by greedy decoding. A blank line stays blank.",
        allow_abbrev=False,
    )
    translate.add_argument("input", nargs="?", default="-", help="UTF-8 text; - or nothing means standard input")
    translate.add_argument("--model", required=True, help="the folder of a Transformer: train-translate's, or MarianMT")
    translate.add_argument(
        "--pairs",
        action="store_true",
        help="the input has two columns, a tab between them, the second being a translation: the character error rate "
        "of ours is told on standard error; a pair with a blank side does not count",
    )
    translate.add_argument(
        "--attention",
        metavar="FILE",
        help="draw what the first line's translation attends to, the mean of all layers and heads, as .svg or .png",
    )
    for task in (tag, translate):
        task.add_argument("--output", "-o", default="-", help="file to write; - or nothing means standard output")
        task.add_argument("--threads", type=positive, help="default: what `fastattn info` shows")


def run(arguments: argparse.Namespace) -> int:
    return _tag(arguments) if arguments.task == "tag" else _translate(arguments)


def _tag(arguments: argparse.Namespace) -> int:
    from fastattn.text import parse_conllu, read_conllu

    if arguments.input == "-":
        sentences = list(parse_conllu(sys.stdin.buffer, "standard input"))
    else:
        sentences = read_conllu(arguments.input)
    use_threads(arguments.threads)
    from fastattn.tasks.tagger import Tagger, count_right

    tagger = Tagger.from_pretrained(arguments.model)
    with open_output(arguments.output) as file:
        predicted = tagger.tag([sentence.words for sentence in sentences])
        for sentence, tags in zip(sentences, predicted, strict=True):
            file.write(sentence.with_upos(tags).encode())
    right, total = count_right(predicted, [sentence.upos for sentence in sentences])
    if total:
        print(f"accuracy: {right / total:.4f} ({right} of {total} words)", file=sys.stderr)
    return 0


def _translate(arguments: argparse.Namespace) -> int:
    from fastattn.cli.embed import read_texts
    from fastattn.tasks import Translator
    from fastattn.text.parallel import split_columns
    from fastattn.training import character_error_rate
    from fastattn.training.plot import import_matplotlib, plot_attention, plot_format

    if arguments.attention:
        plot_format(arguments.attention)
        import_matplotlib()
        if not Path(arguments.attention).parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), arguments.attention)

    name = "standard input" if arguments.input == "-" else arguments.input
    texts = read_texts(arguments.input)
    pairs = split_columns(texts, name) if arguments.pairs else [(text.strip(), "") for text in texts]
    lines = [source for source, _ in pairs]
    use_threads(arguments.threads)

    translator = Translator.from_pretrained(arguments.model)
    translator.encode(lines, place=lambda i: f"{name}:{i + 1}")
    with open_output(arguments.output) as file:
        translations = translator.translate(lines)
        file.writelines(f"{' '.join(text.split())}\n".encode() for text in translations)
    if arguments.attention and lines:
        weights, source, target = translator.attention(lines[0], translations[0])
        plot_attention(weights.mean(axis=(0, 1)), source, target, arguments.attention)
    if arguments.pairs:
        counted = [i for i, pair in enumerate(pairs) if all(pair)]
        rate = character_error_rate([translations[i] for i in counted], [pairs[i][1] for i in counted])
        shown = f"{rate:.4f} ({len(counted)} texts)" if counted else "there are no pairs"
        print(f"character error rate: {shown}", file=sys.stderr)
    return 0
