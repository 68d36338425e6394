"""ULMFiT: a language model takes the words of another text, and classifies; its command, folders and errors."""

from __future__ import annotations

import io
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import helpers_train
import numpy as np
import pytest
from helpers import assert_same_bits
from helpers_cases import BY_LAYER, topics
from helpers_runs import log_of, weights
from helpers_sentences import write_bert
from helpers_train import CLASSES, error_of, files_of, write

from fastattn.cli import main
from fastattn.errors import OptionError
from fastattn.models import AwdLstmForSequenceClassification
from fastattn.tasks import BiLM, Classifier, LanguageModel, Regressor, train
from fastattn.tasks.classify.words import reads_words
from fastattn.tasks.description import describe
from fastattn.text import Sentences, Vocabulary
from fastattn.training import TrainerCallback

TEXT = [["the", "cat", "sat", "."], ["the", "dog", "saw", "a", "cat", "."], ["query", "the", "mat", "."]] * 2
SMALL: dict[str, Any] = {"embedding_dim": 6, "dim": 8, "layers": 2, "min_count": 1}
ROWS = [{"text": text, "label": label} for text, label in CLASSES.items()]
command = partial(helpers_train.command, "classify")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of language models, by the direction that they read."""
    path = tmp_path_factory.mktemp("models")
    for direction in ("forward", "backward", "both"):
        made = LanguageModel.for_training(None, TEXT, **SMALL, direction=direction, seed=len(direction))
        made.save_pretrained(path / direction)
    return path


# More words


def test_words_are_added(models: Path) -> None:
    data = Sentences.from_words([["the", "owl", "ran"], ["owl", "ran", "once"]])
    before = LanguageModel.from_pretrained(models / "forward")
    task = LanguageModel.for_training(models / "forward", data, add_words=True)
    known = before.vocabulary.words
    assert task.vocabulary.words == (*known, "owl", "ran")
    table = task.model.state_dict()["networks.0.embedding.weight"]
    old = before.model.state_dict()["networks.0.embedding.weight"]
    assert_same_bits(table[: len(known)], old)
    np.testing.assert_allclose(table[-2:], [old.mean(axis=0)] * 2, atol=1e-7)
    more = LanguageModel.for_training(models / "forward", data, add_words=True, min_count=1)
    assert more.vocabulary.words == (*known, "owl", "ran", "once")
    same = LanguageModel.for_training(models / "forward", TEXT, add_words=True)
    assert same.vocabulary.words == known


def test_a_run_with_more_words_goes_on(models: Path, tmp_path: Path) -> None:
    data = Sentences.from_words([["the", "owl", "ran"], ["owl", "ran", "once"]] * 6)
    options = {"add_words": True, "batch_size": 2, "unroll_steps": 4, "layer_decay": 0.5, "epochs": 3, "plot": False}
    options |= {"schedule": "slanted-triangular", "warmup": 0.2, "gradual_unfreezing": True}

    class Stop(TrainerCallback):
        def on_step_end(self, trainer: Any, record: Any) -> None:
            if trainer.step == 7:
                trainer.stop()

    def run(folder: Path, **more: Any) -> None:
        train(LanguageModel.for_training(models / "forward", data, **options), data, folder, **more)

    run(tmp_path / "whole")
    run(tmp_path / "parts", callbacks=[Stop()])
    run(tmp_path / "parts", resume=True)
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")
    again = LanguageModel.from_pretrained(tmp_path / "whole")
    assert {"owl", "ran", "once"} == {*again.vocabulary.words[-3:]}


def test_options_of_more_words(models: Path, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(OptionError, match=r"^add_words needs model, whose vocabulary"):
        LanguageModel.for_training(None, TEXT, add_words=True)
    with pytest.raises(OptionError, match=r"^min_count is for a new model"):
        LanguageModel.for_training(models / "forward", TEXT, min_count=1)
    with pytest.raises(OptionError, match=r"^vocabulary_size is for a new model"):
        LanguageModel.for_training(models / "forward", TEXT, vocabulary_size=9, add_words=True)
    files = files_of("language-model", tmp_path)
    assert error_of(helpers_train.command("language-model", files, "--add-words"), capsys).startswith(
        "--add-words needs --model"
    )
    spoilt = tmp_path / "spoilt"
    LanguageModel.from_pretrained(models / "forward").save_pretrained(spoilt)
    words = (spoilt / "vocab.txt").read_text(encoding="utf-8")
    (spoilt / "vocab.txt").write_text(words + "more\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"vocab.txt: must have \d+ words, as many as the model, got"):
        LanguageModel.for_training(spoilt, TEXT, add_words=True)


# The classifier


@pytest.mark.parametrize("both", [False, True])
def test_the_command(both: bool, models: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {**files_of("classify", tmp_path), "--model": str(models / "forward")}
    flags = ["--network", "ulmfit", "--epochs", "12", "--dropout-multiplier", "0.1"]
    flags += ["--backward-model", str(models / "backward")] if both else []
    assert main(command(files, *flags)) == 0
    *_, last, model = capsys.readouterr().out.splitlines()
    assert model == f"model: {files['--output']}"
    assert float(last.split("accuracy ")[1].split(",")[0]) == 1.0
    output = Path(files["--output"])
    assert {path.name for path in output.iterdir()} == {
        "README.md", "config.json", "log.jsonl", "model.safetensors", "states", "vocab.txt",
    }  # fmt: skip
    assert json.loads((output / "config.json").read_text())["direction"] == ("both" if both else "forward")

    text = "".join(f"{text}\n" for text in CLASSES)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert main(["predict", "classify", "--model", str(output)]) == 0
    assert capsys.readouterr().out.splitlines() == ["label", *CLASSES.values()]

    classifier = Classifier.from_pretrained(output)
    texts = [*CLASSES, "", "nothing known here", "  the\tcat \n sat .  "]
    together = classifier.logits(texts)
    for i, each in enumerate(texts):
        assert_same_bits(classifier.logits([each])[0], together[i])
    assert_same_bits(together[-1], together[0])
    classifier.save_pretrained(tmp_path / "saved")
    assert_same_bits(Classifier.from_pretrained(tmp_path / "saved").logits(texts), together)


def test_a_run_goes_on(models: Path, tmp_path: Path) -> None:
    files = {**files_of("classify", tmp_path), "--model": str(models / "both")}
    flags = ["--network", "ulmfit", *BY_LAYER, "--epochs", "4"]
    assert main(command(files, *flags)) == 0
    parts = {**files, "--output": str(tmp_path / "parts")}

    def stop(self: Any, trainer: Any, record: Any) -> None:
        if trainer.step == 9:
            trainer.stop()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainerCallback, "on_step_end", stop)
        patch.setattr("fastattn.training.trainer.checked_callbacks", lambda given: [TrainerCallback()])
        assert main(command(parts, *flags)) == 0
    assert main(command(parts, *flags, "--resume")) == 0
    assert weights(parts["--output"]) == weights(files["--output"])
    assert log_of(parts["--output"]) == log_of(files["--output"])


def test_several_labels_and_longest_texts(models: Path, tmp_path: Path) -> None:
    data = Classifier.read(write(tmp_path / "topics.tsv", topics()))
    options = {"network": "ulmfit", "multi_label": True, "max_length": 2, "epochs": 2, "plot": False}
    made = Classifier.for_training(models / "both", data, **options)
    train(made, data, tmp_path / "run", evaluate_on=data)
    again = Classifier.from_pretrained(tmp_path / "run")
    assert again.max_length == 2
    assert again.multi_label
    first, second = again.logits(["the cat sat on it", "the cat"])
    assert_same_bits(first, second)
    assert 0 <= again.evaluate(data)["micro_f1"] <= 1


def test_two_models_are_joined(models: Path) -> None:
    options = {"network": "ulmfit", "backward_model": str(models / "backward")}
    made = Classifier.for_training(models / "forward", Classifier.read(ROWS), **options)
    assert isinstance(made.model, AwdLstmForSequenceClassification)
    state = made.model.state_dict()
    for i, direction in enumerate(("forward", "backward")):
        own = LanguageModel.from_pretrained(models / direction).model.state_dict()
        for name, x in own.items():
            if name.startswith("networks."):
                assert_same_bits(state[name.replace("networks.0.", f"networks.{i}.")], x)
    assert made.model.config.direction == "both"
    assert made.model.config.input_dropout == 0.4


def test_a_classifier_is_trained_further(models: Path, tmp_path: Path) -> None:
    data = Classifier.read(ROWS)
    made = Classifier.for_training(models / "forward", data, network="ulmfit")
    made.save_pretrained(tmp_path)
    more = Classifier.for_training(tmp_path, data, network="ulmfit", dropout_multiplier=0)
    for name, x in more.model.state_dict().items():
        assert_same_bits(x, made.model.state_dict()[name])
    assert more.model.config.weight_dropout == 0
    other = Classifier.for_training(
        tmp_path, Classifier.read([{"text": "a", "label": i} for i in "pq"]), network="ulmfit"
    )
    assert other.labels == ("p", "q")


def test_models_that_do_not_fit(models: Path, tmp_path: Path, capsys: Any) -> None:
    data = Classifier.read(ROWS)
    make = partial(Classifier.for_training, data=data, network="ulmfit")
    bert = write_bert(tmp_path / "bert")
    with pytest.raises(ValueError, match="bert: not an AWD-LSTM language model, its model_type is 'bert'"):
        make(bert)
    with pytest.raises(OptionError, match=r"^model .*forward reads words: use network ulmfit"):
        Classifier.for_training(models / "forward", data)
    with pytest.raises(FileNotFoundError):
        make(tmp_path / "nowhere")
    for first, second, message in (
        ("forward", "forward", "backward_model .*forward must read backward, it reads forward"),
        (
            "both",
            "backward",
            "model .*both must read forward, it reads both; a model of both directions needs no other",
        ),
    ):
        with pytest.raises(OptionError, match=message):
            make(models / first, backward_model=str(models / second))
    LanguageModel.for_training(None, TEXT, **{**SMALL, "dim": 9}, direction="backward").save_pretrained(
        tmp_path / "wide"
    )
    with pytest.raises(OptionError, match=r"backward_model .*wide has dim 9, model .*forward has 8"):
        make(models / "forward", backward_model=str(tmp_path / "wide"))
    LanguageModel.for_training(None, TEXT[::-1], **SMALL, direction="backward").save_pretrained(tmp_path / "other")
    assert (
        Vocabulary.from_file(tmp_path / "other/vocab.txt").words
        != Vocabulary.from_file(models / "forward/vocab.txt").words
    )
    told = r"backward_model .*other must have the vocab.txt of model .*forward, got another"
    with pytest.raises(OptionError, match=told):
        make(models / "forward", backward_model=str(tmp_path / "other"))
    bilm = tmp_path / "bilm"
    BiLM.for_training(None, TEXT, dim=4, projection_dim=4).save_pretrained(bilm)
    with pytest.raises(ValueError, match="bilm: not an AWD-LSTM language model, its model_type is"):
        make(bilm)
    with pytest.raises(ValueError, match="not an AWD-LSTM language model, its model_type is"):
        make(models / "forward", backward_model=str(bilm))
    (tmp_path / "files").mkdir()
    files = {**files_of("classify", tmp_path / "files"), "--model": str(models / "forward")}
    assert error_of(command(files), capsys) == f"--model {models / 'forward'} reads words: use --network ulmfit"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backward_model": "lm"}, "^backward_model needs network ulmfit"),
        ({"dropout_multiplier": 1.0}, "^dropout_multiplier needs network ulmfit"),
        ({"dropout_multiplier": 2.0, "network": "ulmfit"}, "^dropout_multiplier must be below 2, got 2.0"),
        (
            {"dropout_multiplier": -1.0, "network": "ulmfit"},
            "dropout_multiplier must be a number of at least 0, got -1",
        ),
        ({"network": "lstm"}, "network must be one of encoder, ulmfit, got 'lstm'"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Classifier.for_training("lm", Classifier.read(ROWS), **options)


def test_pairs_are_refused(models: Path) -> None:
    made = Classifier.for_training(models / "forward", Classifier.read(ROWS), network="ulmfit")
    made.model.eval()
    with pytest.raises(ValueError, match="its network, ulmfit, reads single texts, not pairs"):
        made([("a", "b")])
    pairs = Classifier.read([{"sentence1": "a", "sentence2": "b", "label": x} for x in made.labels])
    with pytest.raises(ValueError, match="reads single texts, not pairs"):
        made.batches(pairs)


def test_folders_of_others(models: Path, tmp_path: Path) -> None:
    """What reads a language model and what reads a classifier refuse each other, and so does what reads tokens."""
    Classifier.for_training(models / "forward", Classifier.read(ROWS), network="ulmfit").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="not an AWD-LSTM language model, its architecture is AwdLstmForSequenceClass"):
        LanguageModel.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="not a classifier, its architecture is AwdLstmForLanguageModel"):
        Classifier.from_pretrained(models / "forward")
    with pytest.raises(ValueError, match="AwdLstmConfig has no encoder to use alone"):
        Regressor.from_pretrained(tmp_path)
    numbers = Regressor.read([{"sentence1": "a", "sentence2": "b", "score": x} for x in (0.0, 1.0)])
    with pytest.raises(ValueError, match="AwdLstmConfig has no encoder to use alone"):
        Regressor.for_training(models / "forward", numbers)
    facts = describe(tmp_path)
    assert facts["can"] == ["predict classify"]
    assert facts["can_train"] == ["classify", "language-model"]
    assert facts["labels"] == sorted({*CLASSES.values()})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b"{", "config.json"),
        ("config.json", b"[]", "config.json"),
        ("vocab.txt", b"\xff\n", "vocab.txt"),
        ("vocab.txt", b"<S>\n</S>\n<UNK>\n", "vocab.txt"),
        ("vocab.txt", b"a b\n", "vocab.txt"),
        ("model.safetensors", b"x", "model.safetensors"),
        ("vocab.txt", None, "vocab.txt"),
        ("model.safetensors", None, "model.safetensors"),
    ],
)
def test_damaged_folders(name: str, content: bytes | None, message: str, models: Path, tmp_path: Path) -> None:
    Classifier.for_training(models / "both", Classifier.read(ROWS), network="ulmfit").save_pretrained(tmp_path)
    (tmp_path / name).unlink() if content is None else (tmp_path / name).write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        Classifier.from_pretrained(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        Classifier.for_training(tmp_path, Classifier.read(ROWS), network="ulmfit")


@pytest.mark.parametrize("words", [False, True])
def test_a_bare_name_is_looked_up_like_an_encoder(
    words: bool, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First under sentence-transformers, as for every task of encoders."""
    source = models / "forward" if words else write_bert(tmp_path / "bert")
    entry = tmp_path / "cache/models--sentence-transformers--tiny"
    (entry / "refs").mkdir(parents=True)
    (entry / "refs/main").write_text("abc")
    shutil.copytree(source, entry / "snapshots/abc")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    assert reads_words("tiny", local_files_only=True) is words
