"""The AWD-LSTM as a task: perplexities of sentences and of texts, folders, going on from a model, and its command."""

from __future__ import annotations

import io
import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import helpers_train
import numpy as np
import pytest
from helpers import assert_same_bits
from helpers_runs import log_of
from helpers_train import error_of, files_of

from fastattn.cli import main
from fastattn.errors import OptionError
from fastattn.models import AwdLstmForLanguageModel
from fastattn.tasks import BiLM, LanguageModel, LanguageModelRecipe
from fastattn.text import Sentences, Vocabulary
from fastattn.training import SGD

SENTENCES = [["the", "cat", "sat"], ["dog"], [], ["the", "dog", "saw", "naïve", "猫"]]
TEXT = [["the", "cat", "sat", "on", "the", "mat"], ["the", "dog", "saw", "a", "cat"]]
SMALL: dict[str, Any] = {"embedding_dim": 5, "dim": 7, "layers": 2, "min_count": 1}

command = partial(helpers_train.command, "language-model")


@pytest.fixture(scope="module", params=["forward", "backward", "both"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lm")
    task = LanguageModel.for_training(None, Sentences.from_words(TEXT), **SMALL, direction=request.param)
    for parameter in task.model.parameters():
        parameter.data[...] *= 5
    task.save_pretrained(path)
    return path


def test_perplexities_do_not_depend_on_the_company(folder: Path, threads: int) -> None:
    task = LanguageModel.from_pretrained(folder)
    together = task(SENTENCES * 2)
    assert math.isnan(together[2])
    alone = [task([words])[0] for words in SENTENCES]
    assert [value for value in together if value == value] == [value for value in alone * 2 if value == value]


def test_words_may_be_read_once_or_be_in_an_array(folder: Path) -> None:
    task = LanguageModel.from_pretrained(folder)
    assert task([iter(TEXT[0]), np.array(TEXT[1])]) == task(TEXT)


def test_a_text_is_read_in_its_order(folder: Path) -> None:
    """As a text of few tokens is, which is one stream: by hand, a sentence after the other."""
    task, data = LanguageModel.from_pretrained(folder), Sentences.from_words(TEXT * 4)
    found = task.evaluate(data)
    names = ["perplexity", *(f"{name}_perplexity" for name in ("forward", "backward") if len(task.directions) > 1)]
    assert list(found) == names
    losses = []
    for i, direction in enumerate(task.directions):
        state, total = None, 0.0
        for words in (TEXT * 4)[:: -1 if direction else 1]:
            ids, targets = Sentences.from_words([words]).sequences(np.array([0]), bool(direction))
            forms = task.vocabulary.ids(Sentences.from_words([words]).forms)
            other = np.zeros((len(task.directions), len(ids)), np.int64)
            read, wanted = other.copy(), other.copy()
            read[i], wanted[i] = forms[ids], forms[targets]
            output = task.model(read, wanted, np.array([0, len(ids)]), state)
            loss = (output.forward_loss, output.backward_loss)[direction]
            state, total = output.state, total + len(ids) * loss.item()
        losses.append(total / data.tokens)
    assert found["perplexity"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)
    assert task.show(found).startswith(f"perplexity {found['perplexity']:.2f}")


def test_a_long_text_is_read_in_streams() -> None:
    data = Sentences.from_words(TEXT * 100)
    task = LanguageModel.for_training(None, data, **SMALL)
    found = task.evaluate(data)
    assert sorted(found) == ["perplexity", "unigram_perplexity"]
    assert task.model.training
    assert found["perplexity"] == pytest.approx(len(task.vocabulary), rel=0.3)


def test_the_command_measures_lines(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    text = "\n".join(" ".join(words) for words in SENTENCES)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert main(["predict", "language-model", "--model", str(folder)]) == 0
    found = LanguageModel.from_pretrained(folder)(SENTENCES)
    captured = capfd.readouterr()
    assert captured.out.splitlines() == [f"{value:.4f}" if value == value else "" for value in found]
    assert captured.err.endswith("(3 sentences)\n")


def test_other_models_are_named(folder: Path, tmp_path: Path) -> None:
    for kind, other in ((BiLM, "a bidirectional language model"), (LanguageModel, "an AWD-LSTM language model")):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        changed = config if kind is BiLM else {**config, "model_type": "bert"}
        (tmp_path / "config.json").write_text(json.dumps(changed), encoding="utf-8")
        for load in (kind.from_pretrained, kind.check_folder):
            with pytest.raises(ValueError, match=f"{tmp_path}: not {other}, its model_type is '"):
                load(tmp_path)


@pytest.mark.parametrize("kind", [BiLM, LanguageModel])
@pytest.mark.parametrize("change", [-1, 1])
def test_the_vocabulary_of_another_model(kind: Any, change: int, tmp_path: Path) -> None:
    options = SMALL if kind is LanguageModel else {"dim": 8, "projection_dim": 4}
    task = kind.for_training(None, Sentences.from_words(TEXT), **options)
    task.save_pretrained(tmp_path)
    size, file = len(task.vocabulary), tmp_path / "vocab.txt"
    Vocabulary([*task.vocabulary.words, "more"][: size + change]).write(file)
    loads = [kind.from_pretrained]
    if kind is LanguageModel:
        loads.append(lambda folder: kind.for_training(folder, Sentences.from_words(TEXT)))
    for load in loads:
        with pytest.raises(ValueError, match=f"^{file}: must have {size} words, as many as the model, got "):
            load(tmp_path)


# Training


def test_it_learns(tmp_path: Path, capsys: Any) -> None:
    files = files_of("language-model", tmp_path)
    sizes = ["--embedding-dim", "32", "--dim", "32", "--layers", "1"]
    off = ["--activation-penalty", "0", "--temporal-penalty", "0", "--embedding-dropout", "0"]
    low = ["--weight-dropout", "0.1", "--output-dropout", "0.1"]
    assert main(command(files, *sizes, *off, *low, "--epochs", "14", "--test", files["train"])) == 0
    *lines, unigram, test, model = capsys.readouterr().out.splitlines()
    assert model == f"model: {files['--output']}"
    measured = [float(line.rpartition("perplexity ")[2]) for line in lines]
    assert len(measured) == 14
    assert measured[-1] < float(unigram.removeprefix("unigram model: perplexity ")) / 2 < measured[0]
    assert test == f"test: perplexity {measured[-1]:.2f}"
    records = [record for record in log_of(files["--output"]) if "loss" in record]
    rates, tokens = (np.array([record[name] for record in records]) for name in ("learning_rate", "tokens"))
    np.testing.assert_allclose(rates, 5 * tokens / (4 * 6))  # a long step counts more
    assert len({*rates.tolist()}) > 3
    assert {path.name for path in Path(files["--output"]).iterdir()} == {
        "README.md", "config.json", "log.jsonl", "model.safetensors", "states", "vocab.txt",
    }  # fmt: skip


def test_averaged_weights_are_saved_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of("language-model", tmp_path)
    values = iter([5.0, 4.0, 6.0, 5.0])
    measured: list[Any] = []

    def measure(task: LanguageModel, data: Any) -> dict[str, float]:
        measured.append({name: array.copy() for name, array in task.model.state_dict().items()})
        return {"perplexity": next(values)}

    monkeypatch.setattr(LanguageModel, "measure", measure)
    assert main(command(files, "--epochs", "4", "--average-after", "1")) == 0
    saved = AwdLstmForLanguageModel.from_pretrained(files["--output"]).state_dict()
    for name, array in saved.items():
        assert_same_bits(array, measured[-1][name])
    card = Path(files["--output"], "README.md").read_text(encoding="utf-8")
    assert "the mean of those after each step from " in card


def test_a_model_is_trained_further(folder: Path, tmp_path: Path, capsys: Any) -> None:
    data = Sentences.from_words(TEXT)
    task = LanguageModel.for_training(folder, data, weight_dropout=0.25, batch_size=2)
    before = LanguageModel.from_pretrained(folder)
    assert task.model.config == before.model.config.replace(weight_dropout=0.25, hidden_dropout=0.2)
    assert task.vocabulary.words == before.vocabulary.words
    assert task.base_model == folder.name
    assert task.evaluate(data)["perplexity"] == pytest.approx(before.evaluate(data)["perplexity"], rel=1e-6)
    assert {layer.weight_dropout for network in task.model.networks for layer in network.layers} == {0.25}
    for name, value in (("dim", 8), ("vocabulary_size", 9), ("direction", "both"), ("tie_weights", False)):
        with pytest.raises(OptionError, match=f"{name} is for a new model, not for model, which has its own"):
            LanguageModel.for_training(folder, data, **{name: value})
    files = {**files_of("language-model", tmp_path), "--model": str(folder)}
    message = error_of(command(files), capsys)
    assert message == "--embedding-dim is for a new model, not for --model, which has its own"


def test_the_recipe() -> None:
    recipe = LanguageModelRecipe(layers=2, direction="both", weight_decay=0.5, warmup=0.5, epochs=2, varied=False)
    assert recipe.sizes == {"n_layers": 2, "direction": "both"}
    data = Sentences.from_words(TEXT * 20)
    task = LanguageModel.for_training(None, data, recipe, batch_size=2, unroll_steps=13, **SMALL)
    assert (task.model.config.dim, len(task.model.networks)) == (7, 2)
    optimizer, batches = task.recipe.make_optimizer(task.model), task.batches(data)
    assert isinstance(optimizer, SGD)
    assert optimizer.param_groups[0]["weight_decay"] == 0.5
    schedule = task.recipe.make_schedule(optimizer, task.model, batches)
    rates = []
    for _ in range(2 * batches.count):
        rates += schedule.get_last_lr()
        schedule.step()
    half = batches.count
    np.testing.assert_allclose(rates, [*(30 * i / half for i in range(half)), *[30.0] * half])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"average_after": 2, "ema": 0.5}, "average_after and ema are two kinds of averages; give one of them"),
        ({"average_after": 2, "average": 2}, "average_after and average are two kinds of averages; give one of them"),
        ({"direction": "up"}, "LanguageModelRecipe: direction must be one of forward, backward, both, got 'up'"),
        ({"weight_dropout": 1}, r"LanguageModelRecipe: weight_dropout must be a number in \[0, 1\), got 1"),
        ({"temporal_penalty": -1}, "LanguageModelRecipe: temporal_penalty must be a number of at least 0, got -1"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        LanguageModelRecipe(**options)


def test_an_average_needs_data(tmp_path: Path, capsys: Any) -> None:
    files = files_of("language-model", tmp_path)
    assert error_of(command(files, "--average-after", "1", eval=None), capsys) == "--average-after needs --eval"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "there are no words"),
        (b"a b\n", "4 streams need as many tokens, the text has 3"),
        (b"\xff\n", "not UTF-8"),
    ],
)
def test_texts_that_do_not_do(tmp_path: Path, text: bytes, message: str, capsys: Any) -> None:
    files = files_of("language-model", tmp_path)
    Path(files["train"]).write_bytes(text)
    assert message in error_of(command(files, eval=None), capsys)
