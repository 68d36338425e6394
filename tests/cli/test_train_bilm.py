"""`fastattn train bilm`, end to end, on a text that a tiny model can learn."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import helpers_train
import pytest
from helpers_runs import log_of, weights
from helpers_train import LINES, OPTIONS, error_of, files_of

from fastattn.cli import main
from fastattn.models import BidirectionalLanguageModel
from fastattn.tasks import BiLM, WordEncoder, train
from fastattn.tasks.streams.loss import perplexities
from fastattn.text import Vocabulary, character_ids, read_sentences, sentence_batches
from fastattn.training.run_state import read_state, saved_states

command = partial(helpers_train.command, "bilm")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    return files_of("bilm", tmp_path)


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
    measured = [float(match[3]) for match in found]
    baseline = float(unigram.removeprefix("unigram model: perplexity "))
    assert measured[-1] < baseline / 2 < measured[0]
    folder = Path(files["--output"])
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "config.json", "log.jsonl", "model.safetensors", "states", "vocab.txt",
    }  # fmt: skip
    last = log_of(folder)[-1]["metrics"]
    assert list(last) == ["perplexity", "forward_perplexity", "backward_perplexity", "unigram_perplexity"]
    model = BidirectionalLanguageModel.from_pretrained(folder)
    vocabulary = Vocabulary.from_file(folder / "vocab.txt")
    assert vocabulary.words[:5] == ("<S>", "</S>", "<UNK>", "the", ".")
    batches = sentence_batches(
        read_sentences([files["train"]]), vocabulary, lambda words: character_ids(words, max_characters=16)
    )
    assert perplexities(model, batches)["perplexity"] == pytest.approx(last["perplexity"], rel=1e-6)
    assert [x.shape for x in WordEncoder.from_pretrained(folder)([["the", "猫"], ["dog"]])] == [(3, 2, 16), (3, 1, 16)]


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


def test_other_text_is_refused(files, capsys):
    assert main(command(files, "--epochs", "1")) == 0
    Path(files["train"]).write_text("\n".join(LINES[::-1] * 4), encoding="utf-8")
    assert "batches.text_crc32 is" in error_of(command(files, "--epochs", "1", "--resume"), capsys)


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
    assert error_of(command(files, "--vocabulary-size", "2"), capsys).startswith("size must be at least 3")
    options = Path(files["--options"])
    options.write_text("{}", encoding="utf-8")
    assert error_of(command(files), capsys).startswith(f"{options}: char_cnn is missing")
    options.write_text(json.dumps({**OPTIONS, "lstm": {}}), encoding="utf-8")
    assert error_of(command(files), capsys).startswith(f"{options}: lstm.")
    assert not Path(files["--output"]).exists()


def test_another_vocabulary_is_refused(files, capsys, tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("<S>\n</S>\n<UNK>\n.\nthe\nunseen\n", encoding="utf-8")
    assert main(command(files, "--epochs", "1", vocabulary=str(path))) == 0
    path.write_text("<S>\n</S>\n<UNK>\n.\nthe\nabsent\n", encoding="utf-8")
    assert "vocabulary_crc32 is" in error_of(command(files, "--epochs", "1", "--resume", vocabulary=str(path)), capsys)


def test_python_does_the_same(files, tmp_path):
    assert main(command(files, "--epochs", "2", "--dim", "12", "--num-sampled", "5", "--seed", "3")) == 0
    data, gold = BiLM.read(files["train"]), BiLM.read(files["--eval"])
    options = {"batch_size": 4, "unroll_steps": 6, "learning_rate": 0.02, "plot": False, "seed": 3}
    bilm = BiLM.for_training(OPTIONS, data, epochs=2, dim=12, num_sampled=5, **options)
    train(bilm, data, tmp_path / "python", evaluate_on=gold)
    assert weights(tmp_path / "python") == weights(files["--output"])
    assert log_of(tmp_path / "python") == log_of(files["--output"])
    assert (tmp_path / "python" / "vocab.txt").read_bytes() == Path(files["--output"], "vocab.txt").read_bytes()
