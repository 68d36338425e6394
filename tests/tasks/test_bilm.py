"""The language model as a task: perplexities of sentences, and folders."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest

from fastattn.cli import main
from fastattn.models import Elmo
from fastattn.tasks import BiLM

SENTENCES = [["the", "cat", "sat"], ["dog"], [], ["the", "dog", "saw", "naïve", "猫"]]
OPTIONS = {
    "char_cnn": {"activation": "relu", "embedding": {"dim": 4}, "filters": [[1, 8], [2, 8]], "n_highway": 1,
                 "max_characters_per_token": 16},
    "lstm": {"dim": 16, "projection_dim": 8, "n_layers": 2, "cell_clip": 3, "proj_clip": 3,
             "use_skip_connections": True},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bilm")
    data = path / "text"
    data.write_text("the cat sat on the mat\nthe dog saw a cat\n", encoding="utf-8")
    BiLM.for_training(OPTIONS, BiLM.read(data), min_count=1).save_pretrained(path / "model")
    return path / "model"


def test_perplexities_do_not_depend_on_the_company(folder: Path, threads: int) -> None:
    bilm = BiLM.from_pretrained(folder)
    together = bilm(SENTENCES * 2)
    assert math.isnan(together[2])
    alone = [bilm([words])[0] for words in SENTENCES]
    assert [value for value in together if value == value] == [value for value in alone * 2 if value == value]


def test_what_is_no_list_of_sentences(folder: Path) -> None:
    bilm = BiLM.from_pretrained(folder)
    for wrong, message in (
        ("the cat", r"^BiLM: inputs must be a sequence of sentences, .*, got the str 'the cat'"),
        (5, "^BiLM: inputs must be a sequence of sentences, .*, got int"),
        ([["the"], "cat"], r"^BiLM: inputs\[1\] must be a sequence of words, got the str 'cat'"),
        ([["the"], ["a", 1]], r"^BiLM: inputs\[1\]\[1\] must be str, got int"),
    ):
        with pytest.raises(TypeError, match=message):
            bilm(wrong)  # type: ignore[arg-type]


def test_the_command_measures_lines(folder: Path, tmp_path: Path, monkeypatch, capfd) -> None:
    text = "\n".join(" ".join(words) for words in SENTENCES)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert main(["predict", "bilm", "--model", str(folder)]) == 0
    bilm = BiLM.from_pretrained(folder)
    found = bilm(SENTENCES)
    captured = capfd.readouterr()
    assert captured.out.splitlines() == [f"{value:.4f}" if value == value else "" for value in found]
    (tmp_path / "text").write_text(text, encoding="utf-8")
    all_words = bilm.evaluate(BiLM.read(tmp_path / "text"))
    assert captured.err == f"perplexity: {all_words['perplexity']:.2f} (3 sentences)\n"
    assert list(all_words) == ["perplexity", "forward_perplexity", "backward_perplexity"]
    (tmp_path / "empty").write_text("\n", encoding="utf-8")
    assert main(["predict", "bilm", "--model", str(folder), str(tmp_path / "empty")]) == 0
    assert tuple(capfd.readouterr()) == ("\n", "")


def test_other_models_are_named(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "bert"}), encoding="utf-8")
    with pytest.raises(ValueError, match=f"{tmp_path}: not a bidirectional language model, its model_type is 'bert'"):
        BiLM.from_pretrained(tmp_path)
    Elmo.from_pretrained(folder).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"{tmp_path}.*language_model is missing; BidirectionalLanguageModel"):
        BiLM.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="no-such-model"):
        BiLM.from_pretrained(tmp_path / "no-such-model")
