"""Train a Transformer that translates, from scratch, on parallel text.

  fastattn train-translate names.tsv --eval eval.tsv --vocabulary characters --output names
  fastattn train-translate names.tsv --eval eval.tsv --vocabulary characters --output names --resume
  fastattn train-translate train.de train.en --eval dev.de dev.en --size base --metrics bleu chrf --output de-en

Parallel text is one file with two columns, a tab between them, or two files whose lines belong together. Pairs with a
blank side, or with more tokens than --max-length, are left out. A vocabulary is made of the text: byte pairs, one for
both sides, unless told otherwise, or characters; SentencePiece models are given by their files.

Adam (betas 0.9 and 0.98, eps 1e-9) with the paper's schedule, the rate rising linearly for --warmup steps and then
falling with the square root of the steps; label smoothing; --batch-tokens tokens of both sides a step, computed
--max-tokens at a time. LayerNorm stands before each sublayer, or behind it, as in the paper, with --post-norm. With
--marian the network is one that transformers' MarianMTModel reads, and with SentencePiece models its tokenizer, too.

With --eval, the loss of a text, without label smoothing, and --metrics of its greedy translations are measured once an
epoch: cer, the character error rate (edit distance over reference characters), bleu and chrf (sacrebleu's). Nothing is
left out of what is measured: a text of more than --max-length tokens is an error, before the training. The model that
is kept is the mean of the weights at the ends of the last --average epochs; with --patience it is the best one, with
--ema the moving average.

The output folder is a model folder, which `fastattn predict translate` and Translator.from_pretrained read. Beside the
model it holds log.jsonl (one JSON object a step), loss.svg, and in states/ what --resume continues a run from, whether
it was stopped with Ctrl-C, killed, or ran out of disk.
"""

from __future__ import annotations

import argparse
import errno
import sys
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastattn.cli import above_zero, below_one, positive, use_threads
from fastattn.cli.run_arguments import PLOT, add_run_arguments, check_output

if TYPE_CHECKING:
    from fastattn.models import TransformerConfig
    from fastattn.tasks import Translator
    from fastattn.text import ParallelText, TranslationTokenizer
    from fastattn.training import ExponentialMovingAverage, Trainer

SUMMARY = "train a Transformer that translates"
AVERAGE = 5
VOCABULARY_SIZE = 8000
METRICS = ("cer", "bleu", "chrf")
SIZES = {  # d_model, layers of each side, heads, ffn_dim
    "small": (128, 3, 4, 512),
    "base": (512, 6, 8, 2048),
    "big": (1024, 6, 16, 4096),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("train", nargs="+", metavar="FILE", help="UTF-8 text to learn: one file, or source and target")
    parser.add_argument("--output", "-o", required=True, metavar="FOLDER", help="where model, log and states go")
    parser.add_argument("--eval", nargs="+", metavar="FILE", help="parallel text to measure the model on")
    parser.add_argument("--test", nargs="+", metavar="FILE", help="parallel text to measure the kept model on, once")
    parser.add_argument(
        "--metrics",
        nargs="+",
        choices=METRICS,
        help="beside the loss; by the first of them models are compared (default: cer)",
    )
    _add_vocabulary(parser)
    _add_model(parser)
    _add_training(parser)
    add_run_arguments(
        parser,
        patience="stop after so many evaluations that are no better, and keep the best model (default: train all "
        "epochs and keep the mean of the last ones)",
    )


def _add_vocabulary(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--vocabulary",
        nargs="+",
        default=["bpe"],
        metavar="KIND",
        help="bpe (byte pairs), characters, or SentencePiece model files, one or one a side (default: bpe)",
    )
    parser.add_argument(
        "--vocabulary-size", type=positive, metavar="TOKENS", help=f"of bpe (default: {VOCABULARY_SIZE})"
    )
    parser.add_argument(
        "--shared",
        action=argparse.BooleanOptionalAction,
        help="one vocabulary, and one table of embeddings, for both sides (default: yes for bpe and for one file)",
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    sizes = "; ".join(f"{name}: {d} wide, {n} layers, {h} heads, {f}" for name, (d, n, h, f) in SIZES.items())
    parser.add_argument(
        "--size", choices=SIZES, default="small", help=f"of the network, {sizes} (default: %(default)s)"
    )
    parser.add_argument("--d-model", type=positive, metavar="DIM", help="in place of the size's")
    parser.add_argument("--layers", type=positive, metavar="COUNT", help="of each side, likewise")
    parser.add_argument("--heads", type=positive, metavar="COUNT", help="likewise")
    parser.add_argument("--ffn-dim", type=positive, metavar="DIM", help="likewise")
    parser.add_argument("--post-norm", action="store_true", help="LayerNorm behind each sublayer, as in the paper")
    parser.add_argument(
        "--marian", action="store_true", help="MarianMT's network: --post-norm, other positions, other first weights"
    )
    parser.add_argument("--dropout", type=below_one, default=0.1, help="of embeddings and sublayers (default: 0.1)")
    parser.add_argument("--attention-dropout", type=below_one, default=0.0, help="of attention weights (default: 0)")
    parser.add_argument(
        "--max-length", type=positive, default=512, metavar="TOKENS", help="of a text (default: %(default)s)"
    )


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--epochs", type=positive, default=40, help="how often the text is seen (default: %(default)s)")
    parser.add_argument(
        "--batch-tokens",
        type=positive,
        default=2048,
        metavar="TOKENS",
        help="of both sides in a step (default: %(default)s; the paper: 50000)",
    )
    parser.add_argument(
        "--max-tokens",
        type=positive,
        default=4096,
        metavar="TOKENS",
        help="that are computed at once, for the sake of memory; a larger step is done in parts (default: %(default)s)",
    )
    parser.add_argument(
        "--learning-rate",
        type=above_zero,
        metavar="RATE",
        help="the highest rate (default: the paper's, 1 / sqrt(d_model * warmup))",
    )
    parser.add_argument(
        "--warmup", type=positive, default=1000, metavar="STEPS", help="in which it rises (default: %(default)s)"
    )
    parser.add_argument(
        "--label-smoothing", type=below_one, default=0.1, help="part of the target for all tokens (default: 0.1)"
    )
    parser.add_argument("--max-norm", type=above_zero, default=1.0, help="of the gradients (default: %(default)s)")
    averaging = parser.add_mutually_exclusive_group()
    averaging.add_argument(
        "--average",
        type=positive,
        metavar="EPOCHS",
        help=f"keep the mean of the weights at the ends of so many last epochs (default: {AVERAGE}, or a quarter of "
        "--epochs where that is less, but 1 with --ema or --patience)",
    )
    averaging.add_argument(
        "--ema",
        type=below_one,
        metavar="DECAY",
        help="keep, and evaluate, an exponential moving average of the weights of all steps, such as 0.999",
    )
    parser.add_argument(
        "--evaluate-every", type=positive, metavar="STEPS", help="measure --eval so often (default: once an epoch)"
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.patience and not arguments.eval:
        raise ValueError("--patience needs --eval")
    if arguments.patience and arguments.average:
        raise ValueError("--patience keeps the best model, --average the mean of the last ones; give one of them")
    if (arguments.average or 1) > arguments.epochs:
        raise ValueError(f"--average {arguments.average} needs as many --epochs, got {arguments.epochs}")
    if arguments.metrics and not (arguments.eval or arguments.test):
        raise ValueError("--metrics needs --eval or --test")
    metrics = arguments.metrics or METRICS[:1]
    check_output(arguments.output, arguments.resume)
    from fastattn.models import Transformer
    from fastattn.random import manual_seed
    from fastattn.tasks import Translator
    from fastattn.training import ExponentialMovingAverage, average_states
    from fastattn.training.metrics import import_sacrebleu

    if {"bleu", "chrf"} & {*metrics}:
        import_sacrebleu()
    text = _read("TRAIN", arguments.train)
    gold = _read("--eval", arguments.eval) if arguments.eval else None
    test = _read("--test", arguments.test) if arguments.test else None
    tokenizer, shared = _make_tokenizer(arguments, text)
    use_threads(arguments.threads)
    manual_seed(arguments.seed)
    translator = Translator(Transformer(_config(arguments, tokenizer, shared)), tokenizer)
    average = None if arguments.ema is None else ExponentialMovingAverage(translator.model, arguments.ema)
    single = average is not None or arguments.patience
    averaged = arguments.average or (1 if single else max(1, min(AVERAGE, arguments.epochs // 4)))
    for paths, some in ((arguments.eval, gold), (arguments.test, test)):
        if some is not None:
            _check_lengths(translator, paths, some)
    trainer = _make_trainer(arguments, translator, text, gold, metrics, average, averaged)
    if arguments.resume and trainer.resume():
        print(f"goes on after step {trainer.step}", file=sys.stderr)
    trainer.train()
    for entry in trainer.evaluations:
        print(f"epoch {entry['epoch']}, step {entry['step']}: {_show(entry['metrics'])}")
    if arguments.patience:
        trainer.load_best()
    elif average is not None:
        translator.model.load_state_dict(average.state_dict())
    elif averaged > 1:
        translator.model.load_state_dict(average_states(arguments.output, averaged, trainer.step))
    translator.save_pretrained(arguments.output)
    if averaged > 1 and gold is not None:
        print(f"mean of the last epochs: {_show(evaluate(translator, gold, metrics))}")
    if test is not None:
        print(f"test: {_show(evaluate(translator, test, metrics))}")
    print(f"model: {arguments.output}")
    return 0


def _read(name: str, paths: list[str]) -> ParallelText:
    from fastattn.text import read_parallel

    if len(paths) > 2:
        raise ValueError(f"{name} must be one file with two columns, or two files, got {len(paths)}")
    text = read_parallel(*paths)
    if text.skipped:
        print(f"{' and '.join(paths)}: {text.skipped} pairs with a blank side are left out", file=sys.stderr)
    return text


def _make_tokenizer(arguments: argparse.Namespace, text: ParallelText) -> tuple[TranslationTokenizer, bool]:
    """The vocabularies, and whether they are one."""
    from fastattn.text import BytePairs, Characters, SubwordTokenizer, sentencepiece_tokenizer

    kind, *more = arguments.vocabulary
    files = _vocabulary_files(arguments)
    if len(more) > bool(files):
        raise ValueError("--vocabulary must be bpe, characters, or one SentencePiece model or two")
    if arguments.vocabulary_size and kind != "bpe":
        raise ValueError("--vocabulary-size is that of --vocabulary bpe")
    shared: bool = (kind != "characters" and not more) if arguments.shared is None else arguments.shared
    if files:
        if not (shared or more):
            raise ValueError("--no-shared needs two SentencePiece models")
        for path in files:
            if not Path(path).exists():
                wanted = "--vocabulary is bpe, characters, or SentencePiece model files"
                raise FileNotFoundError(errno.ENOENT, f"No such file; {wanted}", path)
        return sentencepiece_tokenizer(*files, shared=shared), shared
    sides = [[*text.sources, *text.targets]] if shared else [text.sources, text.targets]
    if kind == "bpe":
        made = [BytePairs.train(some, arguments.vocabulary_size or VOCABULARY_SIZE) for some in sides]
        return SubwordTokenizer(made[0], made[-1]), shared
    characters = [Characters.build(some) for some in sides]
    return SubwordTokenizer(characters[0], characters[-1]), shared


def _vocabulary_files(arguments: argparse.Namespace) -> list[str]:
    """The SentencePiece models, where the vocabulary is not made of the text."""
    return [] if arguments.vocabulary[0] in ("bpe", "characters") else arguments.vocabulary


def _config(arguments: argparse.Namespace, tokenizer: TranslationTokenizer, shared: bool) -> TransformerConfig:
    from fastattn.models import TransformerConfig

    given = (arguments.d_model, arguments.layers, arguments.heads, arguments.ffn_dim)
    d_model, layers, heads, ffn_dim = (own or usual for own, usual in zip(given, SIZES[arguments.size], strict=True))
    return TransformerConfig(
        vocab_size=tokenizer.vocab_size,
        decoder_vocab_size=tokenizer.target_vocab_size,
        share_encoder_decoder_embeddings=shared,
        d_model=d_model,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=ffn_dim,
        decoder_ffn_dim=ffn_dim,
        dropout=arguments.dropout,
        attention_dropout=arguments.attention_dropout,
        normalize_before=not (arguments.post_norm or arguments.marian),
        position_embedding_type="marian" if arguments.marian else "sinusoidal",
        init_std=0.02 if arguments.marian else None,
        max_position_embeddings=arguments.max_length,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        bad_words_ids=((tokenizer.pad_token_id,),),
    )


def _check_lengths(translator: Translator, paths: list[str], text: ParallelText) -> None:
    """Raises ValueError, with file and line, for a text that the model cannot read to its end."""
    for path, texts, target in ((paths[0], text.sources, False), (paths[-1], text.targets, True)):
        translator.encode(texts, target=target, place=partial(_place, path, text))


def _place(path: str, text: ParallelText, index: int) -> str:
    return f"{path}:{text.lines[index]}"


def _make_trainer(
    arguments: argparse.Namespace,
    translator: Translator,
    text: ParallelText,
    gold: ParallelText | None,
    metrics: Sequence[str],
    average: ExponentialMovingAverage | None,
    averaged: int,
) -> Trainer:
    from fastattn.training import Adam, Trainer, get_noam_schedule

    model, config = translator.model, translator.model.config
    batches, long = translator.batches(
        text, step_tokens=arguments.batch_tokens, max_tokens=arguments.max_tokens, seed=arguments.seed
    )
    if long:
        print(f"{long} pairs with more than {config.max_position_embeddings} tokens are left out", file=sys.stderr)
    sizes = dict.fromkeys((config.vocab_size, config.decoder_vocab_size))
    parameters = sum(p.data.size for p in model.parameters())
    print(
        f"{len(text) - long} pairs, vocabulary of {' and '.join(map(str, sizes))}, {parameters:,} parameters",
        file=sys.stderr,
    )
    usual = (config.d_model * arguments.warmup) ** -0.5
    rate = 1.0 if arguments.learning_rate is None else arguments.learning_rate / usual
    optimizer = Adam((p for p in model.parameters() if p.requires_grad), lr=rate, betas=(0.9, 0.98), eps=1e-9)

    def loss(batch: Any) -> Any:
        arguments_of_model = {name: value for name, value in batch.items() if name != "share"}
        value = model.loss_ragged(**arguments_of_model, label_smoothing=arguments.label_smoothing)
        return value if batch["share"] == 1.0 else value * batch["share"]

    return Trainer(
        model,
        optimizer,
        get_noam_schedule(optimizer, arguments.warmup, config.d_model),
        batches,
        epochs=arguments.epochs,
        folder=arguments.output,
        loss=loss,
        average=average,
        accumulation=batches.accumulation,
        max_norm=arguments.max_norm,
        evaluate=None if gold is None else lambda: evaluate(translator, gold, metrics),
        evaluate_every=arguments.evaluate_every,
        metric=metrics[0],
        higher_is_better=metrics[0] != "cer",
        patience=arguments.patience,
        save_every=arguments.save_every,
        keep=arguments.keep,
        keep_epochs=averaged,
        progress=arguments.progress,
        plot=PLOT if arguments.plot else None,
        configuration={
            "config": config.to_dict(),
            "label_smoothing": arguments.label_smoothing,
            "text_crc32": text.crc32,
            "vocabulary_crc32": [zlib.crc32(Path(name).read_bytes()) for name in _vocabulary_files(arguments)],
            "epochs": arguments.epochs,
            "average": averaged,
            "eval_crc32": gold.crc32 if gold is not None and arguments.patience else None,  # when the run ends
        },
    )


def evaluate(translator: Translator, text: ParallelText, metrics: Sequence[str]) -> dict[str, float]:
    """The loss of a text, and `metrics` of its greedy translations."""
    from fastattn.training import bleu, character_error_rate, chrf

    functions = dict(zip(METRICS, (character_error_rate, bleu, chrf), strict=True))
    found = translator.translate(text.sources)
    return {
        "loss": translator.loss(text),
        **{name: functions[name](found, text.targets) for name in metrics},
    }


def _show(metrics: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items() if value is not None)
