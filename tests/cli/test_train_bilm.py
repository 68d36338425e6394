"""`fastattn train bilm`, end to end, on a text that a tiny model can learn."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers_runs import interrupt, kill_at, log_of, weights

from fastattn.cli import INTERRUPTED, main
from fastattn.models import BidirectionalLanguageModel
from fastattn.tasks import BiLM, WordEncoder, train
from fastattn.text import Vocabulary, character_ids, read_sentences, sentence_batches
from fastattn.training.run_state import read_state, saved_states

LINES = [
    "the cat sat on the mat .",
    "the dog saw a cat .",
    "",
    "a dog sat .",
    "naïve 猫 🐈 saw the dog .",
    "the cat saw .",
]
OPTIONS = {
    "char_cnn": {"activation": "relu", "embedding": {"dim": 4}, "filters": [[1, 8], [2, 8]], "n_highway": 1,
                 "max_characters_per_token": 16},
    "lstm": {"dim": 16, "projection_dim": 8, "n_layers": 2, "cell_clip": 3, "proj_clip": 3,
             "use_skip_connections": True},
}  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """What every call needs."""
    text, options = tmp_path / "text.txt", tmp_path / "options.json"
    text.write_text("\n".join(LINES * 4), encoding="utf-8")
    options.write_text(json.dumps(OPTIONS), encoding="utf-8")
    return {"train": str(text), "--eval": str(text), "--options": str(options), "--output": str(tmp_path / "out")}


def command(files: dict[str, str], *more: str, **changes: str | None) -> list[str]:
    options = {**files, **{f"--{name.replace('_', '-')}": value for name, value in changes.items()}}
    given = [text for name, value in options.items() if value is not None and name != "train" for text in (name, value)]
    sizes = ["--batch-size", "4", "--unroll-steps", "6", "--learning-rate", "0.02"]
    return ["train", "bilm", files["train"], *given, *sizes, "--no-plot", *more]


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 1
    text = capsys.readouterr().err
    start = "fastattn train bilm: error: "
    assert start in text
    return text[text.index(start) + len(start) :].strip()


def test_it_learns(files, capsys):
    assert main(command(files, "--epochs", "20", "--progress")) == 0
    captured = capsys.readouterr()
    assert "112 words in 20 sentences, 15 of vocabulary" in captured.err
    assert "120/120" in captured.err
    assert "perplexity" in captured.err
    *lines, unigram, model = captured.out.splitlines()
    assert model == f"model: {files['--output']}"
    found = [
        re.fullmatch(r"epoch (\d+), step (\d+): perplexity ([\d.]+) \(forward [\d.]+, backward [\d.]+\)", line)
        for line in lines
    ]
    assert [int(match[1]) for match in found] == list(range(1, 21))
    perplexities = [float(match[3]) for match in found]
    baseline = float(unigram.removeprefix("unigram model: perplexity "))
    assert perplexities[-1] < baseline / 2 < perplexities[0]
    folder = Path(files["--output"])
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "log.jsonl", "model.safetensors", "states", "vocab.txt",
    }  # fmt: skip
    last = log_of(folder)[-1]["metrics"]
    assert list(last) == ["perplexity", "forward_perplexity", "backward_perplexity", "unigram_perplexity"]
    model = BidirectionalLanguageModel.from_pretrained(folder)
    vocabulary = Vocabulary.from_file(folder / "vocab.txt")
    assert vocabulary.words[:5] == ("<S>", "</S>", "<UNK>", "the", ".")
    batches = sentence_batches(
        read_sentences([files["train"]]), vocabulary, lambda words: character_ids(words, max_characters=16)
    )
    assert model.perplexities(batches)["perplexity"] == pytest.approx(last["perplexity"], rel=1e-6)
    assert [x.shape for x in WordEncoder.from_pretrained(folder)([["the", "猫"], ["dog"]])] == [(3, 2, 16), (3, 1, 16)]


def test_without_an_evaluation(files, capsys):
    assert main(command(files, "--epochs", "1", eval=None)) == 0
    assert capsys.readouterr().out == f"model: {files['--output']}\n"


def test_a_plot(files):
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    assert main([argument for argument in command(files, "--epochs", "2") if argument != "--no-plot"]) == 0
    assert Path(files["--output"], "loss.svg").read_bytes().startswith(b"<?xml")


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
    more = ["--dim", "12", "--projection-dim", "12", "--layers", "1", "--dropout", "0", "--num-sampled", "5"]
    assert main(command(files, *more, "--epochs", "2", "--evaluate-every", "5", "--no-shuffle", "--keep", "2")) == 0
    model = BidirectionalLanguageModel.from_pretrained(files["--output"])
    config = model.config
    assert (config.dim, config.projection_dim, config.n_layers, config.filters) == (12, 12, 1, ((1, 8), (2, 8)))
    assert (model.config.num_sampled, model.dropout.p) == (5, 0.0)
    assert [record["step"] for record in log_of(files["--output"]) if "metrics" in record] == [5, 10, 12]
    states = saved_states(Path(files["--output"], "states"))
    assert len(states) >= 2
    settings = read_state(states[0][1])[1]["configuration"]
    assert settings["batches"]["shuffle"] is False
    assert settings["max_norm"] == 10 / 6


def test_the_small_network_is_the_default(files):
    assert main(command(files, "--epochs", "1", options=None)) == 0
    config = BidirectionalLanguageModel.from_pretrained(files["--output"]).config
    assert (config.dim, config.projection_dim, config.n_filters) == (256, 64, 256)


def test_a_vocabulary_of_ones_own(files, tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("<S>\n</S>\n<UNK>\n.\n猫\n", encoding="utf-8")
    assert main(command(files, "--epochs", "1", vocabulary=str(path))) == 0
    assert Path(files["--output"], "vocab.txt").read_text(encoding="utf-8") == path.read_text(encoding="utf-8")
    assert BidirectionalLanguageModel.from_pretrained(files["--output"]).config.vocabulary_size == 5
    assert main(command(files, "--epochs", "1", vocabulary_size="7", output=str(tmp_path / "other"))) == 0
    assert len(Vocabulary.from_file(tmp_path / "other" / "vocab.txt")) == 7


def test_patience_keeps_the_best_model(files, monkeypatch):
    perplexities = iter([9.0, 5.0, 7.0, 6.0, 3.0])
    seen: list[dict[str, bytes]] = []

    def measure(model, batches):
        seen.append({name: array.tobytes() for name, array in model.state_dict().items()})
        value = next(perplexities)
        return {"perplexity": value, "forward_perplexity": value, "backward_perplexity": value}

    monkeypatch.setattr(BidirectionalLanguageModel, "perplexities", measure)
    assert main(command(files, "--epochs", "5", "--patience", "2")) == 0
    assert len(seen) == 4
    assert weights(files["--output"]) == seen[1]


def test_a_killed_run_is_continued(files, tmp_path):
    whole = tmp_path / "whole"
    more = ["--epochs", "6", "--save-every", "1", "--num-sampled", "5"]
    assert main(command(files, *more, output=str(whole))) == 0
    for target in (3, 17):
        kill_at(command(files, *more, "--resume"), files["--output"], target)
    assert main(command(files, *more, "--resume")) == 0
    assert weights(files["--output"]) == weights(whole)
    assert log_of(files["--output"]) == log_of(whole)
    ours, theirs = (read_state(saved_states(Path(folder, "states"))[0][1])[0] for folder in (files["--output"], whole))
    assert sorted(name for name in ours if name.startswith("carried.")) == [
        "carried.0.c", "carried.0.h", "carried.1.c", "carried.1.h",
    ]  # fmt: skip
    assert ours["carried.0.c"].shape == (2, 4, 16)
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array)


def test_ctrl_c_leaves_a_run_that_goes_on(files):
    status, output, errors = interrupt(command(files, "--epochs", "4000", eval=None), files["--output"])
    assert status == INTERRUPTED
    assert (output, errors.splitlines()[-1]) == (b"", b"fastattn: interrupted")
    (step, path), *_ = saved_states(Path(files["--output"], "states"))
    assert step == len(log_of(files["--output"]))
    assert read_state(path)[0]["carried.0.h"].any()


def test_a_finished_run_may_be_resumed(files, capsys):
    assert main(command(files, "--epochs", "2")) == 0
    before = weights(files["--output"])
    assert main(command(files, "--epochs", "2", "--resume")) == 0
    assert weights(files["--output"]) == before
    assert "goes on after step 12" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--seed", "5"], "batches.seed is 0 there, 5 here"),
        (["--no-shuffle"], "batches.shuffle is true there, false here"),
        (["--vocabulary-size", "9"], "softmax.weight is [15, 8] there, [9, 8] here"),
        (["--dropout", "0.2"], "dropout is 0.1 there, 0.2 here"),
        (["--num-sampled", "3"], "num_sampled is null there, 3 here"),
        (["--reset", "0"], "reset is 0.05 there, 0.0 here"),
    ],
)
def test_another_configuration_is_refused(files, capsys, changes, message):
    assert main(command(files, "--epochs", "1")) == 0
    capsys.readouterr()
    text = error_of(command(files, "--epochs", "1", "--resume", *changes), capsys)
    assert "step-00000006.safetensors: of another model or configuration: " in text
    assert message in text


def test_other_text_is_refused(files, capsys):
    assert main(command(files, "--epochs", "1")) == 0
    Path(files["train"]).write_text("\n".join(LINES[::-1] * 4), encoding="utf-8")
    assert "batches.text_crc32 is" in error_of(command(files, "--epochs", "1", "--resume"), capsys)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "text.txt: there are no words"),
        (b" \n\n", "text.txt: there are no words"),
        (b"a b\n", "StreamBatches: 4 streams need as many tokens, the text has 3"),
        (b"fine\n\xff\n", "text.txt:2: not UTF-8: byte 0xff at 1"),
    ],
)
def test_a_text_that_cannot_be_learnt(files, capsys, text, message):
    Path(files["train"]).write_bytes(text)
    assert error_of(command(files), capsys).endswith(message)
    assert not Path(files["--output"]).exists()


def test_a_text_shorter_than_a_step(files):
    Path(files["train"]).write_text("a b c\n", encoding="utf-8")
    assert main(command(files, "--epochs", "1", "--min-count", "1")) == 0
    assert log_of(files["--output"])[0]["tokens"] == 4


def test_files_that_do_not_fit(files, capsys, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("<S>\nthe\n", encoding="utf-8")
    assert error_of(command(files, vocabulary=str(words)), capsys) == (
        f"{words}: </S>, <UNK> must be among the words of a vocabulary"
    )
    assert "need a vocabulary made of the text" in error_of(command(files, "--min-count", "2", vocabulary="v"), capsys)
    assert error_of(command(files, vocabulary=str(tmp_path / "no")), capsys).endswith("no: No such file or directory")
    assert error_of(command(files, "--num-sampled", "15"), capsys).endswith("below the vocabulary's 15, got 15")
    assert error_of(command(files, "--patience", "1", eval=None), capsys) == "--patience needs --eval"
    assert error_of(command(files, "--vocabulary-size", "2"), capsys).startswith("Vocabulary: size must be at least 3")
    options = Path(files["--options"])
    options.write_text("{}", encoding="utf-8")
    assert error_of(command(files), capsys).startswith(f"{options}: char_cnn is missing")
    options.write_text(json.dumps({**OPTIONS, "lstm": {}}), encoding="utf-8")
    assert error_of(command(files), capsys).startswith(f"{options}: lstm.")
    assert not Path(files["--output"]).exists()


def test_an_old_run_is_not_overwritten(files, capsys):
    assert main(command(files, "--epochs", "1")) == 0
    files["train"] = "missing"  # it is said before anything is read
    assert "states: holds states of a run; resume it" in error_of(command(files, "--epochs", "1"), capsys)


def test_a_model_of_somebody_is_not_overwritten(files, capsys):
    assert main(command(files, "--epochs", "1")) == 0
    folder = Path(files["--output"])
    shutil.rmtree(folder / "states")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for more in ([], ["--resume"]):
        text = error_of(command({**files, "train": "missing"}, *more), capsys)
        assert text == f"{folder}: holds a model (config.json), but no states of a run; choose another folder"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_patience_rests_on_is_compared(files, capsys, tmp_path):
    more = ["--epochs", "2", "--patience", "2"]
    assert main(command(files, *more)) == 0
    assert "patience is {" in error_of(command(files, "--epochs", "2", "--resume"), capsys)
    (tmp_path / "other").write_text("the dog .\n", encoding="utf-8")
    assert "eval_crc32 is" in error_of(command(files, *more, "--resume", eval=str(tmp_path / "other")), capsys)


def test_another_vocabulary_is_refused(files, capsys, tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("<S>\n</S>\n<UNK>\n.\nthe\nunseen\n", encoding="utf-8")
    assert main(command(files, "--epochs", "1", vocabulary=str(path))) == 0
    path.write_text("<S>\n</S>\n<UNK>\n.\nthe\nabsent\n", encoding="utf-8")
    assert "vocabulary_crc32 is" in error_of(command(files, "--epochs", "1", "--resume", vocabulary=str(path)), capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: TRAIN, --output"),
        (["text", "--output", "o", "--epochs", "0"], "must be a positive integer, got 0"),
        (["text", "--output", "o", "--dropout", "2"], "must be a number in [0, 1], got 2.0"),
        (["text", "--output", "o", "--max-norm", "0"], "must be a number above 0, got 0.0"),
    ],
)
def test_wrong_usage(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "bilm", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_python_does_the_same(files, tmp_path):
    assert main(command(files, "--epochs", "2", "--dim", "12", "--num-sampled", "5", "--seed", "3")) == 0
    data, gold = BiLM.read(files["train"]), BiLM.read(files["--eval"])
    options = {"batch_size": 4, "unroll_steps": 6, "learning_rate": 0.02, "plot": False, "seed": 3}
    bilm = BiLM.for_training(OPTIONS, data, epochs=2, dim=12, num_sampled=5, **options)
    train(bilm, data, tmp_path / "python", evaluate_on=gold)
    assert weights(tmp_path / "python") == weights(files["--output"])
    assert log_of(tmp_path / "python") == log_of(files["--output"])
    assert (tmp_path / "python" / "vocab.txt").read_bytes() == Path(files["--output"], "vocab.txt").read_bytes()
