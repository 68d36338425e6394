"""`fastattn train-translate`, end to end, on a language that a tiny model can learn: letters in another alphabet."""

from __future__ import annotations

import io
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_runs import interrupt, kill_at, log_of, weights

from fastattn.cli import INTERRUPTED, main
from fastattn.models import Transformer
from fastattn.tasks import Translator
from fastattn.text import MarianTokenizer, SubwordTokenizer, read_translation_tokenizer
from fastattn.training.averaging import average_states
from fastattn.training.run_state import read_state, saved_states

PAIRS = 60


def pairs(seed: int, count: int = PAIRS) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdef", k=rng.randint(1, 5))) for _ in range(count)]
    return [(word, word.translate(str.maketrans("abcdef", "αβγδεζ"))) for word in words]


def write(path: Path, rows: list[tuple[str, str]]) -> str:
    path.write_text("".join(f"{source}\t{target}\n" for source, target in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """What every call needs."""
    return {
        "train": write(tmp_path / "train.tsv", pairs(0)),
        "--eval": write(tmp_path / "eval.tsv", pairs(1)),
        "--output": str(tmp_path / "out"),
        "--vocabulary": "characters",
    }


def command(files: dict[str, str], *more: str, **changes: str | None) -> list[str]:
    options = {**files, **{f"--{name.replace('_', '-')}": value for name, value in changes.items()}}
    given = [text for name, value in options.items() if value is not None and name != "train" for text in (name, value)]
    sizes = ["--d-model", "16", "--layers", "1", "--heads", "2", "--ffn-dim", "32"]
    run = ["--batch-tokens", "100", "--warmup", "40", "--learning-rate", "0.01", "--no-plot"]
    return ["train-translate", files["train"], *given, *sizes, *run, *more]


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 1
    text = capsys.readouterr().err
    start = "fastattn train-translate: error: "
    assert start in text
    return text[text.index(start) + len(start) :].strip()


def states(files: dict[str, str]) -> list[tuple[int, Path]]:
    return saved_states(Path(files["--output"], "states"))


def test_it_learns(files, tmp_path, capsys):
    files |= {"train": write(tmp_path / "many.tsv", pairs(0, 200)), "--test": write(tmp_path / "test.tsv", pairs(2))}
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
    assert re.fullmatch(r"mean of the last states: loss 0\.[\d]+, cer 0\.0\d+", mean)
    assert re.fullmatch(r"test: loss 0\.[\d]+, cer 0\.0\d+", tested)
    folder = Path(files["--output"])
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "generation_config.json", "log.jsonl", "model.safetensors", "states",
        "source.characters.json", "target.characters.json",
    }  # fmt: skip
    assert list(log_of(folder)[-1]["metrics"]) == ["loss", "cer"]
    assert len(states(files)) == 5
    for name, array in average_states(folder, 5).items():
        assert weights(folder)[name] == array.tobytes()
    translator = Translator.from_pretrained(folder)
    assert translator.translate(["fade", "cab", ""]) == ["ζαδε", "γαβ", ""]
    config = translator.model.config
    assert (config.normalize_before, config.share_encoder_decoder_embeddings, config.dropout) == (True, False, 0.0)


def test_without_an_evaluation(files, capsys):
    assert main(command(files, "--epochs", "1", eval=None)) == 0
    assert capsys.readouterr().out == f"model: {files['--output']}\n"


def test_a_plot(files):
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    assert main([argument for argument in command(files, "--epochs", "2") if argument != "--no-plot"]) == 0
    assert Path(files["--output"], "loss.svg").read_bytes().startswith(b"<?xml")


def test_two_files(files, tmp_path):
    rows = pairs(0)
    for side, name in enumerate(("a", "b")):
        (tmp_path / name).write_text("".join(f"{row[side]}\n" for row in rows), encoding="utf-8")
    two = command(files, "--epochs", "1")
    at = two.index(files["train"])
    assert main([*two[:at], str(tmp_path / "a"), str(tmp_path / "b"), *two[at + 1 :]]) == 0
    assert main(command(files, "--epochs", "1", output=str(tmp_path / "one"))) == 0
    assert weights(files["--output"]) == weights(tmp_path / "one")


def test_same_seed_same_bits(files, threads, tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main(command(files, "--epochs", "2", seed=seed, output=str(tmp_path / name))) == 0
    first, second, other = (weights(tmp_path / name) for name in "abc")
    assert first == second
    assert first != other
    assert main(command(files, "--epochs", "2", "--threads", "1", seed="1", output=str(tmp_path / "one"))) == 0
    assert weights(tmp_path / "one") == first
    assert log_of(tmp_path / "one") == log_of(tmp_path / "a")


def test_options_reach_the_model_and_the_trainer(files):
    more = ["--post-norm", "--attention-dropout", "0.25", "--max-length", "30", "--evaluate-every", "2"]
    assert main(command(files, *more, "--epochs", "2", "--max-tokens", "40", "--shared", "--average", "3")) == 0
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
    assert settings["param_groups"][0]["betas"] == [0.9, 0.98]
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
    assert tokenizer.vocab_size == 40


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
    ids = ours.tokenizer.encode(["fade"]).ids[None]
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

    monkeypatch.setattr("fastattn.cli.train_translate.evaluate", evaluate)
    return seen


@pytest.mark.parametrize("more", [(), ("--ema", "0.9")])
def test_patience_keeps_the_best_model(files, monkeypatch, more):
    seen = scores(monkeypatch, 0.9, 0.5, 0.7, 0.6, 0.3)
    assert main(command(files, "--epochs", "5", "--patience", "2", *more)) == 0
    assert len(seen) == 4
    assert weights(files["--output"]) == seen[1]


def test_a_moving_average_is_evaluated_and_kept(files, monkeypatch):
    seen = scores(monkeypatch, 0.5, 0.6)
    assert main(command(files, "--epochs", "2", "--ema", "0.9")) == 0
    assert weights(files["--output"]) == seen[1]
    (_, path), *_ = states(files)
    tensors = read_state(path)[0]
    assert {name: tensors[f"average.{name}"].tobytes() for name in seen[1]} == seen[1]
    assert {name: tensors[f"model.{name}"].tobytes() for name in seen[1]} != seen[1]


@pytest.mark.parametrize("more", [("--average", "3"), ("--ema", "0.9", "--max-tokens", "40")])
def test_a_killed_run_is_continued(files, tmp_path, more):
    whole = tmp_path / "whole"
    more = ["--epochs", "6", "--save-every", "1", *more]
    assert main(command(files, *more, output=str(whole))) == 0
    for target in (3, 17):
        kill_at(command(files, *more, "--resume"), files["--output"], target)
    assert main(command(files, *more, "--resume")) == 0
    assert weights(files["--output"]) == weights(whole)
    assert log_of(files["--output"]) == log_of(whole)
    ours, theirs = (read_state(saved_states(Path(folder, "states"))[0][1])[0] for folder in (files["--output"], whole))
    assert set(ours) == set(theirs)
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array)


def test_ctrl_c_leaves_a_run_that_goes_on(files):
    status, output, errors = interrupt(command(files, "--epochs", "4000", eval=None), files["--output"])
    assert status == INTERRUPTED
    assert (output, errors.splitlines()[-1]) == (b"", b"fastattn: interrupted")
    assert states(files)[0][0] == len(log_of(files["--output"]))


def test_a_finished_run_may_be_resumed(files, capsys):
    assert main(command(files, "--epochs", "2")) == 0
    before = weights(files["--output"])
    assert main(command(files, "--epochs", "2", "--resume")) == 0
    assert weights(files["--output"]) == before
    assert "goes on after step " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--seed", "5"], "batches.seed is 0 there, 5 here"),
        (["--batch-tokens", "90"], "batches.batch_tokens is 100 there, 90 here"),
        (["--max-tokens", "50"], "accumulation is 1 there, 2 here"),
        (["--warmup", "41"], "schedule.num_warmup_steps is 40 there, 41 here"),
        (["--dropout", "0.2"], "config.dropout is 0.1 there, 0.2 here"),
        (["--label-smoothing", "0"], "label_smoothing is 0.1 there, 0.0 here"),
        (["--ema", "0.9"], "average_decay is null there, 0.9 here"),
        (["--max-length", "30"], "config.max_position_embeddings is 512 there, 30 here"),
    ],
)
def test_another_configuration_is_refused(files, capsys, changes, message):
    assert main(command(files, "--epochs", "1")) == 0
    capsys.readouterr()
    text = error_of(command(files, "--epochs", "1", "--resume", *changes), capsys)
    assert ".safetensors: of another model or configuration: " in text
    assert message in text


def test_other_text_is_refused(files, capsys):
    assert main(command(files, "--epochs", "1")) == 0
    write(Path(files["train"]), pairs(0)[::-1])
    assert "batches.lengths_crc32 is" in error_of(command(files, "--epochs", "1", "--resume"), capsys)


def test_what_is_left_out_is_told(files, capsys):
    write(Path(files["train"]), [*pairs(0), ("", "β"), ("a", " "), ("abc", "β" * 40)])
    assert main(command(files, "--epochs", "1", "--max-length", "20")) == 0
    errors = capsys.readouterr().err
    assert "train.tsv: 2 pairs with a blank side are left out" in errors
    assert "1 pairs with more than 20 tokens are left out" in errors
    assert "60 pairs, vocabulary" in errors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "train.tsv: no pair of texts among the 0 lines"),
        (b"a\tb\nc\n", "train.tsv:2: a line must have 2 columns with a tab between them, got 1"),
        (b"a\tb\n\xff\tc\n", "train.tsv:2: not UTF-8: byte 0xff at 1"),
        (b"a\t" + b"b" * 600, "batches: no pair of texts has at most 512 tokens on each side"),
    ],
)
def test_a_text_that_cannot_be_learnt(files, capsys, text, message):
    Path(files["train"]).write_bytes(text)
    assert error_of(command(files), capsys).endswith(message)
    assert not Path(files["--output"]).exists()


def test_files_that_do_not_fit(files, capsys, tmp_path):
    short = tmp_path / "short"
    short.write_text("a\n")
    train = files["train"]
    both = [
        text for argument in command(files) for text in ([argument, str(short)] if argument == train else [argument])
    ]
    assert error_of(both, capsys) == f"{train} has 60 lines, but {short} has 1"
    three = [text for argument in both for text in ([argument] * 2 if argument == str(short) else [argument])]
    assert error_of(three, capsys) == "TRAIN must be one file with two columns, or two files, got 3"
    assert error_of(command(files, "--patience", "1", eval=None), capsys) == "--patience needs --eval"
    assert "give one of them" in error_of(command(files, "--patience", "1", "--average", "2"), capsys)
    assert error_of(command(files, eval=str(tmp_path / "no")), capsys).endswith("no: No such file or directory")
    assert "no: No such file" in error_of(command(files, vocabulary=str(tmp_path / "no")), capsys)
    assert "must be bpe, characters, or" in error_of([*command(files), "--vocabulary", "bpe", "bpe"], capsys)
    assert "--no-shared needs two" in error_of(command(files, "--no-shared", vocabulary=str(short)), capsys)
    assert "d_model must be a multiple of" in error_of(command(files, "--heads", "3"), capsys)
    assert not Path(files["--output"]).exists()


def test_a_long_text_to_evaluate_is_refused_by_its_place(files, capsys):
    write(Path(files["--eval"]), [("a", "β"), ("a" * 20, "β")])
    assert "texts[1] has 21 tokens, but the model reads at most 20" in error_of(
        command(files, "--max-length", "20", "--epochs", "1"), capsys
    )


def test_an_old_run_is_not_overwritten(files, capsys):
    assert main(command(files, "--epochs", "1")) == 0
    assert "states: holds states of a run; resume it" in error_of(command(files, "--epochs", "1"), capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: FILE, --output"),
        (["text", "--output", "o", "--epochs", "0"], "must be a positive integer, got '0'"),
        (["text", "--output", "o", "--dropout", "2"], "must be a number from 0 to 1, got '2'"),
        (["text", "--output", "o", "--metrics", "ter"], "invalid choice: 'ter'"),
        (["text", "--output", "o", "--ema", "0.9", "--average", "2"], "not allowed with argument"),
    ],
)
def test_wrong_usage(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train-translate", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
