"""Every task takes `weights`, and `fastattn evaluate` shows what they cost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_sentences import HIDDEN, TEXTS, dense, normalize, write_bert, write_model
from helpers_tasks import TRIALS

from fastattn import tasks
from fastattn.cli import main
from fastattn.cli.evaluate import cosines
from fastattn.nn.module import held_as
from fastattn.tasks import CrossEncoder, SentenceEncoder

LEARNING = sorted(name for name, trial in TRIALS.items() if trial.data is not None and name != "fill")
PAIRS = [("the cat sat", "the cat"), ("query", "the cat sat"), ("cat", "query"), ("a", "the")]


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", layers=[dense("2_Dense", HIDDEN, 6), normalize("3_Normalize")])


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_a_sentence_encoder_with_its_head(encoder, tmp_path, weights):
    loaded = SentenceEncoder(encoder, weights=weights, truncation="silent")
    assert held_as(loaded) == [weights]
    assert loaded[2].weight.value.dtype == weights
    loaded.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved/2_Dense/config.json").read_text())["quantization_config"]["weights"] == weights
    again = SentenceEncoder(tmp_path / "saved", truncation="silent")
    found = loaded.encode(TEXTS)
    assert again.encode(TEXTS).tobytes() == found.tobytes()
    assert loaded.encode(TEXTS[0]).tobytes() == found[0].tobytes()
    plain = SentenceEncoder(encoder, truncation="silent").encode(TEXTS)
    assert (found * plain).sum(axis=1).min() > 0.95


def test_a_sentence_encoder_refuses(encoder):
    with pytest.raises(ValueError, match=r"^SentenceEncoder: weights must be one of .*, got 'int4'$"):
        SentenceEncoder(encoder, weights="int4")
    with pytest.raises(ValueError, match=r"^SentenceEncoder: weights 'int8' cannot be trained"):
        SentenceEncoder(encoder, weights="int8", trainable=True)
    with pytest.raises(TypeError, match="weights and modules must not both be given"):
        SentenceEncoder(modules=list(SentenceEncoder(encoder)), weights="int8")


@pytest.mark.parametrize("name", LEARNING)
def test_every_task_takes_weights(name, tmp_path):
    trial, kind = TRIALS[name], getattr(tasks, tasks.TASKS[name][0])
    data = trial.data(tmp_path)
    trained = kind.for_training(write_bert(tmp_path / "bert"), data, epochs=1, **trial.options)
    trained.save_pretrained(tmp_path / "saved")
    loaded = kind.from_pretrained(tmp_path / "saved", weights="int8")
    assert held_as(loaded.model) == ["int8"]
    loaded.save_pretrained(tmp_path / "int8")
    again = kind.from_pretrained(tmp_path / "int8")
    assert held_as(again.model) == ["int8"]
    assert repr(loaded(trial.inputs)) == repr(again(trial.inputs))
    with pytest.raises(ValueError, match="weights must be one of"):
        kind.from_pretrained(tmp_path / "saved", weights="int4")
    with pytest.raises(ValueError, match="the weights are int8, which cannot be trained"):
        kind.for_training(tmp_path / "int8", data, epochs=1, **trial.options)


def test_a_cross_encoder(tmp_path):
    trial = TRIALS["rerank"]
    trained = tasks.Reranker.for_training(write_bert(tmp_path / "bert"), trial.data(tmp_path), epochs=1)
    trained.save_pretrained(tmp_path / "saved")
    plain, loaded = (
        CrossEncoder(tmp_path / "saved", weights=weights).predict(PAIRS) for weights in ("float32", "int8")
    )
    assert plain.tobytes() != loaded.tobytes()
    np.testing.assert_allclose(plain, loaded, atol=0.1)


def test_evaluate_embed(encoder, tmp_path, capsys):
    table = tmp_path / "pairs.tsv"
    table.write_text("".join(f"{a}\t{b}\t{i}\n" for i, (a, b) in enumerate(PAIRS)))
    arguments = ["evaluate", "embed", "--model", str(encoder), str(table), "--names", "sentence1", "sentence2", "score"]
    assert main([*arguments, "--weights", "float32,bfloat16,int8"]) == 0
    heading, *lines = (line.split() for line in capsys.readouterr().out.splitlines())
    assert heading == [
        "weights", "spearman_cosine", "pearson_cosine", "cosine_mean", "cosine_worst", "MB", "seconds"
    ]  # fmt: skip
    assert [line[0] for line in lines] == ["float32", "bfloat16", "int8"]
    assert lines[0][3:5] == ["1.00000", "1.00000"]
    assert 0.9 < float(lines[2][4]) <= float(lines[2][3]) <= 1
    data = tasks.Embedder.read(table, names=["sentence1", "sentence2", "score"])
    expected = tasks.Embedder.from_pretrained(encoder, weights="int8").evaluate(data)
    assert lines[2][1:3] == [f"{value:.5f}" for value in expected.values()]
    assert main(arguments) == 0
    heading, line = (line.split() for line in capsys.readouterr().out.splitlines())
    assert "cosine_mean" not in heading
    assert line[:3] == ["as", "they", "are"]


def test_evaluate_refuses_other_weights(encoder, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "embed", "--model", str(encoder), "x.tsv", "--weights", "float32,int4"])
    assert "--weights: must be one of float32, bfloat16, int8, got 'int4'" in capsys.readouterr().err


def test_evaluate_tag(tmp_path, capsys):
    trial = TRIALS["tag"]
    tasks.Tagger.for_training(write_bert(tmp_path / "bert"), trial.data(tmp_path), epochs=1).save_pretrained(
        tmp_path / "tagger"
    )
    file = str(tmp_path / "train.conllu")
    assert main(["evaluate", "tag", "--model", str(tmp_path / "tagger"), file, "--weights", "float32,int8"]) == 0
    heading, *lines = (line.split() for line in capsys.readouterr().out.splitlines())
    assert heading == ["weights", "accuracy", "MB", "seconds"]
    assert len(lines) == 2


def test_commands_take_weights(encoder, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("the cat\n")
    commands = (
        ["embed", "--model", str(encoder), str(tmp_path / "texts.txt"), "--weights", "int8"],
        ["convert", str(encoder), str(tmp_path / "int8"), "--weights", "int8"],
        ["embed", "--model", str(tmp_path / "int8"), str(tmp_path / "texts.txt")],
    )
    outputs = []
    for command in commands:
        assert main(command) == 0
        outputs.append(capsys.readouterr().out)
    numbers = [np.array(json.loads(outputs[i])["embedding"]) for i in (0, 2)]
    np.testing.assert_allclose(*numbers, atol=0.02)  # its Dense stays float32
    assert main(["info", str(tmp_path / "int8")]) == 0
    told = capsys.readouterr().out
    assert "F32 and I8" in told or "I8 and F32" in told
    assert "begin the training" not in told
    assert main(["embed", "--elmo", str(encoder), "--weights", "int8"]) == 1
    assert "--weights is for --model, not for --elmo" in capsys.readouterr().err


def test_cosines_of_vectors():
    found = cosines(np.array([[2.0, 0.0], [1.0, 1.0]]), np.eye(2))
    assert found == pytest.approx({"cosine_mean": (1 + 0.5**0.5) / 2, "cosine_worst": 0.5**0.5})


def test_fill(tmp_path):
    folder = write_bert(tmp_path / "bert")
    trained = tasks.Pretrainer.for_training(folder, TRIALS["pretrain"].data(tmp_path), **TRIALS["pretrain"].options)
    trained.save_pretrained(tmp_path / "saved")
    plain, filler = (tasks.Filler.from_pretrained(tmp_path / "saved", weights=w) for w in ("float32", "int8"))
    assert filler.model.predictions.decoder.matrix.dtype == "int8"
    a, b = ([word["score"] for word in each("the [MASK] sat .", top_k=3)] for each in (plain, filler))
    np.testing.assert_allclose(a, b, rtol=0.1)
    assert a != b
