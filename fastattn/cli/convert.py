"""Convert a checkpoint of TensorFlow, PyTorch, Marian or CTranslate2 to a folder of safetensors.

SOURCE is a folder with bert_config.json, vocab.txt and bert_model.ckpt.index, as google-research/bert writes it, or the
path bert_model.ckpt; a folder with config.json and pytorch_model.bin; a folder of Marian with decoder.yml, or its .npz
file; or a folder of CTranslate2 with model.bin. None of these programs is needed, and nothing in a file is executed: a
file that calls code is refused.

  fastattn convert uncased_L-12_H-768_A-12 bert-base-uncased
  fastattn convert all-MiniLM-L6-v2-pytorch all-MiniLM-L6-v2
  fastattn convert opus-2020-02-26 opus-mt-en-de

With --weights bfloat16 or int8, the matrices of linear layers are written in fewer bits: the folder is smaller, and the
model loads and runs faster. SOURCE may then be a folder of safetensors, or the name of a model.

  fastattn convert all-MiniLM-L6-v2 all-MiniLM-L6-v2-int8 --weights int8
"""

from __future__ import annotations

import argparse
import glob
import os
from pathlib import Path

from fastattn.checks import WEIGHTS, listed, printable

SUMMARY = "turn a checkpoint of TensorFlow, PyTorch, Marian or CTranslate2 into safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="folder of the checkpoint, or path of its file")
    parser.add_argument("folder", metavar="FOLDER", help="folder to write")
    parser.add_argument(
        "--do-lower-case",
        action=argparse.BooleanOptionalAction,
        help="whether the tokenizer of a TensorFlow checkpoint lowers case (default: no if vocab.txt has capitals)",
    )
    parser.add_argument(
        "--weights",
        choices=WEIGHTS,
        default="float32",
        help="what the matrices of linear layers become (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FOLDER, with all that is in it")
    parser.add_argument(
        "--progress", action=argparse.BooleanOptionalAction, help="a progress bar (default: on a terminal)"
    )


def run(arguments: argparse.Namespace) -> int:
    from fastattn.models import convert_checkpoint

    done = convert_checkpoint(
        _source(arguments),
        arguments.folder,
        do_lower_case=arguments.do_lower_case,
        weights=arguments.weights,
        overwrite=arguments.overwrite,
        show_progress=arguments.progress,
    )
    print(printable(f"source: {done.source}"))
    if done.skipped:
        print(f"skipped: {listed(done.skipped)}")
    if done.do_lower_case is not None:
        print(f"tokenizer: do_lower_case is {str(done.do_lower_case).lower()}")
    if not done.tokenizer:
        files, them = ("source.spm and target.spm", "them") if _translates(done.model) else ("vocab.txt", "one")
        told = f"tokenizer: none, {arguments.source} has no {files}; put {them} into {arguments.folder}"
        print(printable(f"{told} to use the model"))
    name = "not checked, fastattn has no such model" if done.model is None else done.model.__name__
    print(printable(f"model: {arguments.folder} ({done.tensors} tensors, {name})"))
    return 0


def _source(arguments: argparse.Namespace) -> str:
    """The checkpoint, or with --weights the folder of the model of this name."""
    source: str = arguments.source
    path = Path(source)
    there = os.path.lexists(path) or any(path.parent.glob(f"{glob.escape(path.name)}.*"))
    if arguments.weights == "float32" or there:
        return source
    from fastattn.hub import find_model
    from fastattn.tasks.embed.folder import FILES

    return str(find_model(source, FILES._replace(more=None)))


def _translates(model: type | None) -> bool:
    from fastattn.models import Transformer

    return model is Transformer
