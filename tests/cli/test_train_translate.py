"""`fastattn train translate`, end to end, on a language that a tiny model can learn: letters in another alphabet."""

from __future__ import annotations

import io
import re
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import helpers_train
import numpy as np
import pytest
from helpers_runs import kill_at, log_of, weights
from helpers_train import error_of, files_of, pairs, tsv, write

from fastattn.cli import INTERRUPTED, build_parser, main
from fastattn.models import Transformer
from fastattn.tasks import TranslateRecipe, Translator, train
from fastattn.tasks.translate.making import new_config
from fastattn.tasks.translate.recipe import SIZES
from fastattn.text import Characters, MarianTokenizer, ParallelText, SubwordTokenizer, read_translation_tokenizer
from fastattn.training.averaging import average_states
from fastattn.training.run_state import read_state, saved_states

command = partial(helpers_train.command, "translate")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    return files_of("translate", tmp_path)


def states(files: dict[str, str]) -> list[tuple[int, Path]]:
    return saved_states(Path(files["--output"], "states"))


def test_it_learns(files, tmp_path, capsys):
    files |= {
        "train": write(tmp_path / "many.tsv", tsv(pairs(0, 200))),
        "--test": write(tmp_path / "test.tsv", tsv(pairs(2))),
    }
    more = ["--epochs", "30", "--batch-tokens", "200", "--learning-rate", "0.02", "--dropout", "0"]
    assert main(command(files, *more, "--progress")) == 0
    captured = capsys.readouterr()
    assert "200 pairs, vocabulary of 9, " in captured.err
    assert " parameters" in captured.err
    *lines, mean, tested, model = captured.out.splitlines()
    assert model == f"model: {files['--output']}"
    found = [re.fullmatch(r"epoch (\d+), step (\d+): loss ([\d.]+), cer ([\d.]+)", line) for line in lines]
    assert [int(match[1]) for match in found] == list(range(1, 31))
    assert float(found[-1][4]) < 0.2 < float(found[0][4])
    assert re.fullmatch(r"mean of the last epochs: loss 0\.[\d]+, cer 0\.0\d+", mean)
    assert re.fullmatch(r"test: loss 0\.[\d]+, cer 0\.0\d+", tested)
    folder = Path(files["--output"])
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "config.json", "generation_config.json", "log.jsonl", "model.safetensors", "states",
        "source.characters.json", "target.characters.json", "tokenizer_config.json",
    }  # fmt: skip
    assert list(log_of(folder)[-1]["metrics"]) == ["loss", "cer"]
    assert len(states(files)) == 5
    for name, array in average_states(folder, 5).items():
        assert weights(folder)[name] == array.tobytes()
    translator = Translator.from_pretrained(folder)
    assert translator.translate(["fade", "cab", ""]) == ["ζαδε", "γαβ", ""]
    config = translator.model.config
    assert (config.normalize_before, config.share_encoder_decoder_embeddings, config.dropout) == (True, False, 0.0)


def test_two_files(files, tmp_path):
    rows = pairs(0)
    for side, name in enumerate(("a", "b")):
        (tmp_path / name).write_text("".join(f"{row[side]}\n" for row in rows), encoding="utf-8")
    two = command(files, "--epochs", "1")
    at = two.index(files["train"])
    assert main([*two[:at], str(tmp_path / "a"), str(tmp_path / "b"), *two[at + 1 :]]) == 0
    assert main(command(files, "--epochs", "1", output=str(tmp_path / "one"))) == 0
    assert weights(files["--output"]) == weights(tmp_path / "one")


def test_options_reach_the_model_and_the_trainer(files):
    more = ["--post-norm", "--attention-dropout", "0.25", "--max-length", "30", "--evaluate-every", "2"]
    assert main(command(files, *more, "--epochs", "3", "--max-tokens", "40", "--shared", "--average", "3")) == 0
    model = Transformer.from_pretrained(files["--output"])
    config = model.config
    assert (config.normalize_before, config.attention_dropout, config.max_position_embeddings) == (False, 0.25, 30)
    assert (config.d_model, config.encoder_layers, config.decoder_attention_heads) == (16, 1, 2)
    assert config.share_encoder_decoder_embeddings
    assert config.vocab_size == config.decoder_vocab_size == 3 + 12
    steps = [record["step"] for record in log_of(files["--output"]) if "metrics" in record]
    assert steps[:2] == [2, 4]
    settings = read_state(states(files)[0][1])[1]["configuration"]
    assert (settings["accumulation"], settings["batches"]["batch_tokens"]) == (3, 34)
    assert settings["schedule"] == {"schedule": "noam", "num_warmup_steps": 40, "model_size": 16}
    highest = max(record["learning_rate"] for record in log_of(files["--output"]) if "loss" in record)
    assert 0 < highest < 0.01
    assert len(states(files)) == 3


def test_the_papers_rate_is_the_default(files):
    arguments = command(files, "--epochs", "1")
    at = arguments.index("--learning-rate")
    assert main([*arguments[:at], *arguments[at + 2 :]]) == 0
    assert log_of(files["--output"])[0]["learning_rate"] == pytest.approx(16**-0.5 * 40**-1.5)


def test_byte_pairs_are_shared(files):
    pytest.importorskip("tokenizers", reason="needs the tokenizers library")
    assert main(command(files, "--epochs", "1", "--vocabulary-size", "40", vocabulary="bpe")) == 0
    tokenizer = read_translation_tokenizer(files["--output"])
    assert isinstance(tokenizer, SubwordTokenizer)
    assert tokenizer.source is tokenizer.target
    assert tokenizer.source.vocab_size == 40


@pytest.mark.parametrize("count", [1, 2])
def test_sentencepiece_models(files, tmp_path, count):
    library = pytest.importorskip("sentencepiece", reason="needs the sentencepiece library")
    paths = []
    for side in range(2):
        model = io.BytesIO()
        texts = [row[side] for row in pairs(0)] + ([row[1] for row in pairs(0)] if count == 1 else [])
        library.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=model, vocab_size=25, hard_vocab_limit=False, minloglevel=2
        )
        paths.append(tmp_path / f"{side}.model")
        paths[-1].write_bytes(model.getvalue())
    arguments = command(files, "--epochs", "1", vocabulary=str(paths[0]))
    at = arguments.index(str(paths[0])) + 1
    assert main([*arguments[:at], *map(str, paths[1:count]), *arguments[at:]]) == 0
    translator = Translator.from_pretrained(files["--output"])
    assert isinstance(translator.tokenizer, MarianTokenizer)
    assert translator.model.config.share_encoder_decoder_embeddings == (count == 1)
    assert len(translator.translate(["abc", "猫"])) == 2


def test_transformers_reads_marians_network(files):
    torch = pytest.importorskip("torch", reason="compares with torch and transformers")
    transformers = pytest.importorskip("transformers", reason="compares with torch and transformers")
    assert main(command(files, "--epochs", "2", "--marian")) == 0
    theirs = transformers.MarianMTModel.from_pretrained(files["--output"]).eval()
    ours = Translator.from_pretrained(files["--output"])
    ids = ours.tokenizer.source.encode(["fade"]).ids[None]
    target = np.array([[0, 4, 5]])
    with torch.no_grad():
        logits = theirs(torch.tensor(ids), decoder_input_ids=torch.tensor(target)).logits.numpy()
    found = ours.model(ids, decoder_input_ids=target).logits
    np.testing.assert_allclose(found, logits, atol=2e-5 * np.abs(logits).max())


def test_metrics(files, capsys):
    pytest.importorskip("sacrebleu", reason="needs sacrebleu")
    assert main(command(files, "--epochs", "2", "--metrics", "chrf", "bleu", "cer", "--patience", "9")) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert re.fullmatch(r"epoch 1, step \d+: loss [\d.]+, chrf [\d.]+, bleu [\d.]+, cer [\d.]+", line)


def scores(monkeypatch: pytest.MonkeyPatch, *values: float) -> list[dict[str, bytes]]:
    """Makes evaluations give these rates; their weights are put into the list."""
    seen: list[dict[str, bytes]] = []
    rates = iter(values)

    def evaluate(translator: Translator, *_: Any) -> dict[str, float]:
        seen.append({name: array.tobytes() for name, array in translator.model.state_dict().items()})
        return {"loss": 1.0, "cer": next(rates)}

    monkeypatch.setattr(Translator, "evaluate", evaluate)
    return seen


def test_a_moving_average_is_evaluated_and_kept(files, monkeypatch):
    seen = scores(monkeypatch, 0.5, 0.6)
    assert main(command(files, "--epochs", "2", "--ema", "0.9")) == 0
    assert weights(files["--output"]) == seen[1]
    (_, path), *_ = states(files)
    tensors = read_state(path)[0]
    assert {name: tensors[f"average.{name}"].tobytes() for name in seen[1]} == seen[1]
    assert {name: tensors[f"model.{name}"].tobytes() for name in seen[1]} != seen[1]


class Made(Exception):
    """What the trainer of a command is made of."""

    def __init__(self, model: Any, optimizer: Any, schedule: Any, batches: Any, **options: Any) -> None:
        self.model, self.optimizer, self.batches, self.options = model, optimizer, batches, options


def made(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> Made:
    """Runs a command as far as its trainer, and no step."""

    def trainer(*objects: Any, **options: Any) -> None:
        raise Made(*objects, **options)

    with monkeypatch.context() as patch:
        patch.setattr("fastattn.training.run.Trainer", trainer)
        patch.setattr("fastattn.tasks.translate.task.import_sacrebleu", lambda: None)
        parsed = build_parser().parse_args(arguments)
        with pytest.raises(Made) as caught:
            parsed.run(parsed)
    return caught.value


def test_what_the_trainer_is_given(files, monkeypatch):
    more = ["--epochs", "9", "--average", "2", "--keep", "3", "--save-every", "7", "--max-norm", "0.3"]
    run = made(command(files, *more), monkeypatch)
    group = run.optimizer.param_groups[0]
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.98), 1e-9, 0)
    names = ("epochs", "keep", "keep_epochs", "save_every", "max_norm", "accumulation", "metric", "higher_is_better")
    assert [run.options[name] for name in names] == [9, 3, 2, 7, 0.3, 1, "cer", False]
    for metrics in (["bleu"], ["chrf", "cer"]):
        run = made(command(files, "--metrics", *metrics), monkeypatch)
        assert (run.options["metric"], run.options["higher_is_better"]) == (metrics[0], True)
        assert (run.options["max_norm"], run.options["keep"], run.options["keep_epochs"]) == (1.0, 1, 5)


def test_the_loss_is_smoothed_and_shared(files, monkeypatch):
    more = ["--dropout", "0", "--max-tokens", "40"]
    for smoothing in ("0", "0.5"):
        run = made(command(files, *more, "--label-smoothing", smoothing), monkeypatch)
        batches = [run.batches.load(batch) for batch in run.batches.epoch(0)[: run.options["accumulation"]]]
        shares = [batch["share"] for batch in batches]
        assert len(set(shares)) > 1
        for batch, share in zip(batches, shares, strict=True):
            arguments = {name: value for name, value in batch.items() if name != "share"}
            loss = run.model.loss_ragged(**arguments, label_smoothing=float(smoothing)).item()
            assert run.options["loss"](batch).item() == pytest.approx(loss * share, rel=1e-6)


def test_first_weights_and_positions(files, monkeypatch):
    ours, marian = (made(command(files, *more), monkeypatch).model.config for more in ((), ("--marian",)))
    assert (ours.init_std, ours.position_embedding_type, ours.normalize_before) == (None, "sinusoidal", True)
    assert (marian.init_std, marian.position_embedding_type, marian.normalize_before) == (0.02, "marian", False)


@pytest.mark.parametrize(
    ("more", "sizes"),
    [
        ((), (128, 3, 4, 512)),
        (("--size", "base"), (512, 6, 8, 2048)),
        (("--size", "big"), (1024, 6, 16, 4096)),
        (("--size", "base", "--layers", "2", "--ffn-dim", "64"), (512, 2, 8, 64)),
    ],
)
def test_sizes(files, monkeypatch, more, sizes):
    given: dict[str, Any] = {}

    def make(start: str, data: ParallelText, recipe: TranslateRecipe) -> None:
        given["config"] = new_config(recipe, SIZES[start], SubwordTokenizer(Characters("ab"), Characters("c")))
        raise KeyboardInterrupt

    monkeypatch.setattr(Translator, "for_training", make)
    arguments = ["train", "translate", files["train"], "-o", "out", "--vocabulary", "characters", *more]
    assert main(arguments) == INTERRUPTED
    config = given["config"]
    width, layers, heads, ffn_dim = sizes
    assert (config.d_model, config.vocab_size, config.decoder_vocab_size) == (width, 5, 4)
    assert (config.encoder_layers, config.encoder_attention_heads, config.encoder_ffn_dim) == (layers, heads, ffn_dim)
    assert (config.decoder_layers, config.decoder_attention_heads, config.decoder_ffn_dim) == (layers, heads, ffn_dim)


def test_each_text_is_measured_for_what_it_is_given(files, tmp_path, monkeypatch, capsys):
    seen: list[tuple[str, ...]] = []

    def evaluate(translator: Translator, text: ParallelText) -> dict[str, float]:
        assert translator.recipe.measured == ("cer",)
        seen.append(text.sources)
        return {"loss": 1.0, "cer": len(seen) / 4}

    monkeypatch.setattr(Translator, "evaluate", evaluate)
    more = ["--epochs", "2", "--average", "2", "--test", write(tmp_path / "test.tsv", tsv(pairs(2)))]
    assert main(command(files, *more)) == 0
    gold, test = (tuple(source for source, _ in pairs(seed)) for seed in (1, 2))
    assert seen == [gold, gold, gold, test]
    *_, mean, tested, _ = capsys.readouterr().out.splitlines()
    assert (mean, tested) == ("mean of the last epochs: loss 1.0000, cer 0.7500", "test: loss 1.0000, cer 1.0000")


def test_what_else_is_saved_does_not_change_the_model(files, tmp_path):
    for name, more in (("whole", []), ("often", ["--save-every", "3"]), ("evaluated", ["--evaluate-every", "3"])):
        assert main(command(files, "--epochs", "4", "--average", "3", *more, output=str(tmp_path / name))) == 0
    assert weights(tmp_path / "often") == weights(tmp_path / "evaluated") == weights(tmp_path / "whole")


@pytest.mark.parametrize("more", [(), ("--average", "3"), ("--patience", "9"), ("--ema", "0.9", "--max-tokens", "40")])
@pytest.mark.parametrize("failure", [KeyboardInterrupt, MemoryError])
def test_a_stopped_run_is_continued(files, tmp_path, monkeypatch, default_interrupt, more, failure):
    more = ["--epochs", "4", *more]
    assert main(command(files, *more, output=str(tmp_path / "whole"))) == 0
    compute = Transformer.loss_ragged
    stopped = False

    def stop(model: Transformer, *arguments: Any, **options: Any) -> Any:
        nonlocal stopped
        last = (log_of(files["--output"]) or [{"epoch": 0}])[-1]
        if last["epoch"] == 4 and not stopped:  # after the first step of the last epoch
            stopped = True
            if failure is MemoryError:
                raise MemoryError
            signal.raise_signal(signal.SIGINT)
        return compute(model, *arguments, **options)

    parsed = build_parser().parse_args(command(files, *more))
    with monkeypatch.context() as patch:
        patch.setattr(Transformer, "loss_ragged", stop)
        with pytest.raises(failure):
            parsed.run(parsed)
    assert read_state(states(files)[0][1])[1]["batch"] > 0
    assert main(command(files, *more, "--resume")) == 0
    assert weights(files["--output"]) == weights(tmp_path / "whole")
    assert log_of(files["--output"]) == log_of(tmp_path / "whole")


def test_states_of_later_steps_are_none_of_the_run(files, capsys):
    assert main(command(files, "--epochs", "2", "--average", "2")) == 0
    before = weights(files["--output"])
    newest = states(files)[0][1]
    newest.with_name("step-00009999.safetensors").write_bytes(newest.read_bytes()[:-1])
    assert main(command(files, "--epochs", "2", "--average", "2", "--resume")) == 0
    assert re.search("(?m)^fastattn train translate: warning: .*step-00009999.safetensors.*$", capsys.readouterr().err)
    assert weights(files["--output"]) == before


def test_other_text_is_refused(files, capsys):
    assert main(command(files, "--epochs", "1")) == 0
    write(Path(files["train"]), tsv(pairs(0)[::-1]))
    assert "batches.lengths_crc32 is" in error_of(command(files, "--epochs", "1", "--resume"), capsys)
    write(Path(files["train"]), tsv([(source.upper(), target) for source, target in pairs(0)]))  # the same numbers
    assert "text_crc32 is" in error_of(command(files, "--epochs", "1", "--resume"), capsys)


def test_another_sentencepiece_model_is_refused(files, capsys, tmp_path):
    library = pytest.importorskip("sentencepiece", reason="needs the sentencepiece library")
    path = tmp_path / "both.model"
    for unseen in "xy":  # a letter that no text has: all numbers are the same
        model = io.BytesIO()
        library.SentencePieceTrainer.train(
            sentence_iterator=iter([*(text for row in pairs(0) for text in row), unseen]), model_writer=model,
            vocab_size=30, hard_vocab_limit=False, minloglevel=2,
        )  # fmt: skip
        path.write_bytes(model.getvalue())
        if unseen == "x":
            assert main(command(files, "--epochs", "1", vocabulary=str(path))) == 0
    text = error_of(command(files, "--epochs", "1", "--resume", vocabulary=str(path)), capsys)
    assert re.search(r"configuration: vocabulary_crc32 is \[\d+\] there, \[\d+\] here$", text)


def test_another_metric_is_refused(files, capsys, monkeypatch):
    assert main(command(files, "--epochs", "1")) == 0
    monkeypatch.setattr("fastattn.tasks.translate.task.import_sacrebleu", lambda: None)
    text = error_of(command(files, "--epochs", "1", "--resume", "--metrics", "chrf"), capsys)
    assert text.startswith("--metrics is chrf, but was the default when the run began; ")


def test_more_metrics_may_be_measured(files):
    pytest.importorskip("sacrebleu", reason="needs sacrebleu")
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    arguments = command(files, "--epochs", "2", "--evaluate-every", "4")
    arguments.remove("--no-plot")
    kill_at(arguments, files["--output"], 5)
    assert main([*arguments, "--resume", "--metrics", "cer", "chrf"]) == 0
    first, *_, last = (record["metrics"] for record in log_of(files["--output"]) if "metrics" in record)
    assert (list(first), list(last)) == (["loss", "cer"], ["loss", "cer", "chrf"])


def test_what_is_left_out_is_told(files, capsys):
    write(Path(files["train"]), tsv([*pairs(0), ("", "β"), ("a", " "), ("abc", "β" * 40)]))
    assert main(command(files, "--epochs", "1", "--max-length", "20")) == 0
    errors = capsys.readouterr().err
    assert "train.tsv: 2 pairs with a blank side are left out" in errors
    assert "1 pairs with more than 20 tokens are left out" in errors
    assert "60 pairs, vocabulary" in errors


def test_files_that_do_not_fit(files, capsys, tmp_path):
    short = tmp_path / "short"
    short.write_text("a\n")
    tabs = command(files, "--test", files["train"], files["train"])
    assert error_of(tabs, capsys) == f"{files['train']}: every line has a tab; give a file with two columns alone"
    columns, files["train"] = files["train"], str(tmp_path / "source")
    train = files["train"]
    Path(train).write_text("a\n" * 60)
    both = [
        text for argument in command(files) for text in ([argument, str(short)] if argument == train else [argument])
    ]
    assert error_of(both, capsys) == f"{train} has 60 lines, but {short} has 1"
    three = [text for argument in both for text in ([argument] * 2 if argument == str(short) else [argument])]
    assert error_of(three, capsys) == "parallel text must be one file with two columns, or two files, got 3"
    assert error_of(command(files, "--patience", "1", eval=None), capsys) == "--patience needs --eval"
    assert "give one of them" in error_of(command(files, "--patience", "1", "--average", "2"), capsys)
    assert "--average and --ema are two" in error_of(command(files, "--ema", "0.9", "--average", "2"), capsys)
    files["train"] = columns
    assert error_of(command(files, eval=str(tmp_path / "no")), capsys).endswith("no: No such file or directory")
    assert "no: No such file" in error_of(command(files, vocabulary=str(tmp_path / "no")), capsys)
    assert "must be bpe, characters, or" in error_of([*command(files), "--vocabulary", "bpe", "bpe"], capsys)
    text = error_of(command(files, "--vocabulary-size", "9", vocabulary="bpe"), capsys)
    assert text == "--vocabulary-size 9 is too small: the characters of the text and the special tokens are 16"
    assert "is only for --vocabulary bpe" in error_of(command(files, "--vocabulary-size", "50"), capsys)
    assert error_of(command(files, "--metrics", "cer", eval=None), capsys) == "--metrics needs --eval or --test"
    assert "at least as many --epochs, got 3" in error_of(command(files, "--average", "4", "--epochs", "3"), capsys)
    assert "--vocabulary is bpe, characters, or Sent" in error_of(command(files, vocabulary="chars"), capsys)
    assert "--no-shared needs two" in error_of(command(files, "--no-shared", vocabulary=str(short)), capsys)
    assert "--d-model must be a multiple of --heads" in error_of(command(files, "--heads", "3"), capsys)
    assert not Path(files["--output"]).exists()


@pytest.mark.parametrize("option", ["--eval", "--test"])
@pytest.mark.parametrize("side", [0, 1])
def test_a_long_text_to_measure_is_refused_before_the_training(files, tmp_path, capsys, option, side):
    rows = [("a", "β"), ("", "β"), ("a" * (1, 20)[side == 0], "β" * (1, 20)[side == 1])]
    files[option] = write(tmp_path / "long.tsv", tsv(rows))
    text = error_of(command(files, "--max-length", "20"), capsys)
    assert text.endswith(f"{files[option]}:3 has 21 tokens, but the model reads at most 20 (max_position_embeddings)")
    assert not Path(files["--output"]).exists()
    paths = [tmp_path / "long.a", tmp_path / "long.b"]
    for path, texts in zip(paths, zip(*rows, strict=True), strict=True):
        path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    text = error_of(
        [*command({**files, option: str(paths[0])}, "--max-length", "20"), option, *map(str, paths)], capsys
    )
    assert f"{paths[side]}:3 has 21 tokens" in text


@pytest.mark.parametrize(("overlong", "done"), [("truncate", "cut"), ("skip", "skipped")])
def test_long_texts_to_measure_can_be_cut_or_skipped(files, tmp_path, capsys, overlong, done):
    for option in ("--eval", "--test"):
        files[option] = write(tmp_path / f"long{option}.tsv", tsv([*pairs(1), ("a" * 20, "β"), ("a", "β" * 20)]))
    assert main(command(files, "--max-length", "20", "--overlong", overlong)) == 0
    captured = capsys.readouterr()
    for option in ("--eval", "--test"):
        assert f"{files[option]}: 2 pairs with more than 20 tokens are {done}" in captured.err
    assert "test: loss " in captured.out


@pytest.mark.parametrize("metric", ["bleu", "chrf"])
def test_a_library_that_is_missing_is_missed_before_the_training(files, capsys, monkeypatch, metric):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    assert "need sacrebleu: pip install" in error_of(command(files, "--metrics", "cer", metric), capsys)
    assert not Path(files["--output"]).exists()


def test_python_does_the_same(files, tmp_path):
    assert main(command(files, "--epochs", "4", "--average", "2", "--seed", "3", "--max-tokens", "60")) == 0
    data, gold = Translator.read(files["train"]), Translator.read(files["--eval"])
    sizes = {"d_model": 16, "layers": 1, "heads": 2, "ffn_dim": 32, "vocabulary": "characters"}
    run = {"epochs": 4, "batch_tokens": 100, "max_tokens": 60, "warmup": 40, "learning_rate": 0.01, "average": 2}
    translator = Translator.for_training("small", data, seed=3, plot=False, **sizes, **run)
    train(translator, data, tmp_path / "python", evaluate_on=gold)
    assert weights(tmp_path / "python") == weights(files["--output"])
    assert log_of(tmp_path / "python") == log_of(files["--output"])
