"""The filler: words for masks, whatever the company, as transformers' pipeline gives them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_sentences import POSITIONS, VOCABULARY, pattern, write_bert

from fastattn import manual_seed
from fastattn.cli import main
from fastattn.models import BertForMaskedLM, BertForPreTraining
from fastattn.tasks import Filler, Tagger
from fastattn.text import ConlluSentence

TEXTS = ["the [MASK] sat .", "[MASK]", "a [MASK] query [MASK] the cat", "the cat [MASK] " * 4, "The cat sat [MASK]"]


def write_model(folder: Path, kind: Any = BertForMaskedLM) -> Path:
    manual_seed(3)
    with pytest.warns(UserWarning, match="are drawn at random"):
        model = kind.from_pretrained(write_bert(folder / "bert"))
    model.predictions.bias.data[...] = pattern(len(VOCABULARY), salt=5)
    model.save_pretrained(folder / "filler")
    return folder / "filler"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("fill"))


@pytest.fixture(scope="module")
def filler(folder: Path) -> Filler:
    return Filler.from_pretrained(folder)


def test_the_words_of_a_mask(filler: Filler) -> None:
    words = filler("the [MASK] sat .", top_k=len(VOCABULARY))
    assert sum(word["score"] for word in words) == pytest.approx(1.0, abs=1e-5)
    scores = [word["score"] for word in words]
    assert scores == sorted(scores, reverse=True)
    assert sorted(word["token"] for word in words) == [*range(len(VOCABULARY))]
    assert words[:5] == filler("the [MASK] sat .") == filler(["the [MASK] sat ."])[0]
    ids = filler.tokenizer.encode(["the [MASK] sat ."]).ids
    logits = np.asarray(filler.model(ids[None]).logits)[0, 2]
    assert words[0]["token"] == int(logits.argmax())
    shares = np.exp(logits - logits.max())
    assert words[0]["score"] == pytest.approx(shares.max() / shares.sum(), rel=1e-5)
    word = next(word for word in words if word["token_str"] == "cat")
    assert word["sequence"] == "the cat sat."
    assert filler([]) == []


def test_several_masks_are_several_lists(filler: Filler) -> None:
    found = filler("a [MASK] query [MASK] the cat", top_k=2)
    assert [len(words) for words in found] == [2, 2]
    word = found[1][0]
    assert word["sequence"] == filler.tokenizer.decode(
        [filler.tokenizer.encode([f"a [MASK] query {word['token_str']} the cat"]).ids], skip_special_tokens=False
    )[0].replace("##", "")  # fmt: skip


def test_targets(filler: Filler) -> None:
    every = {word["token_str"]: word for word in filler(TEXTS[0], top_k=len(VOCABULARY))}
    found = filler(TEXTS[0], targets=["cat", "the", "cat", "sat"])
    assert found == sorted((every[word] for word in ("cat", "the", "sat")), key=lambda word: -word["score"])
    assert filler(TEXTS[0], targets="cat") == [every["cat"]]
    assert filler(TEXTS[0], targets=["cat", "the", "sat"], top_k=1) == found[:1]
    assert filler(TEXTS[0], targets="CAT") == [every["cat"]]  # the tokenizer makes it lower case
    with pytest.warns(UserWarning, match="the target 'abc' is 3 tokens; the first one, a, counts"):
        assert filler(TEXTS[0], targets="abc") == [every["a"]]
    for wrong in ("", "\U0001f408", "[UNK]x"):
        with pytest.raises(ValueError, match="is no token of the vocabulary"):
            filler(TEXTS[0], targets=["cat", wrong])
    with pytest.raises(ValueError, match=r"targets must have a word or more, got \(\)"):
        filler(TEXTS[0], targets=[])


def test_words_do_not_depend_on_the_company(filler: Filler, threads: int) -> None:
    together = filler(TEXTS * 9)
    assert together == [filler(text) for text in TEXTS] * 9
    assert filler(TEXTS[::-1]) == together[: len(TEXTS)][::-1]


def test_what_is_refused(filler: Filler, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^Filler: inputs\[1\] has no \[MASK\]$"):
        filler(["[MASK]", "the cat"])
    with pytest.raises(ValueError, match=rf"^Filler: inputs\[0\] has {POSITIONS + 1} tokens, but the model reads"):
        filler("the " * (POSITIONS - 2) + "[MASK]")
    with pytest.raises(TypeError, match=r"^Filler: inputs\[0\] must be str, got int"):
        filler([3])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="top_k must be a positive integer"):
        filler("[MASK]", top_k=1.5)  # type: ignore[arg-type]
    tagger = Tagger.for_training(folder, [ConlluSentence.from_words(["a", "b"], ["X", "Y"])])
    tagger.save_pretrained(tmp_path / "tagger")
    with pytest.raises(ValueError, match="tagger: has no head for masked words, its architecture is BertForTokenCl"):
        Filler.from_pretrained(tmp_path / "tagger")


def test_a_model_for_pre_training_fills_too(tmp_path: Path) -> None:
    folder = write_model(tmp_path, BertForPreTraining)
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["BertForPreTraining"]
    filler = Filler.from_pretrained(folder)
    assert isinstance(filler.model, BertForMaskedLM)
    assert len(filler("the [MASK]")) == 5
    assert repr(filler) == f"Filler({str(folder)!r})"


def test_predict(filler: Filler, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, output = tmp_path / "texts.txt", tmp_path / "out.jsonl"
    path.write_text("\n".join(TEXTS), encoding="utf-8")
    command = ["predict", "fill", "--model", str(folder), str(path), "--output", str(output)]
    assert main(command) == 0
    assert [json.loads(line) for line in output.read_text().splitlines()] == filler(TEXTS)
    assert main([*command, "--top-k", "2", "--targets", "cat", "sat", "the"]) == 0
    expected = filler(TEXTS, top_k=2, targets=["cat", "sat", "the"])
    assert [json.loads(line) for line in output.read_text().splitlines()] == expected
    path.write_text("[MASK]\nthe cat\n", encoding="utf-8")
    assert main(command) == 1
    assert f"{path}:2 has no [MASK]" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["BertForMaskedLM", "BertForPreTraining"])
def test_the_pipeline_of_transformers_gives_the_same(kind: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch and transformers")
    transformers = pytest.importorskip("transformers", reason="compares with torch and transformers")
    torch.manual_seed(0)
    start = write_bert(tmp_path / "bert")
    config = transformers.BertConfig.from_pretrained(start)
    config.initializer_range = 0.5
    getattr(transformers, kind)(config).save_pretrained(tmp_path / "theirs")
    transformers.AutoTokenizer.from_pretrained(start).save_pretrained(tmp_path / "theirs")
    theirs = transformers.pipeline("fill-mask", str(tmp_path / "theirs"), device="cpu")
    ours = Filler.from_pretrained(tmp_path / "theirs")
    for options in ({}, {"top_k": 3}, {"targets": ["cat", "the", "sat"]}, {"targets": ["cat", "the"], "top_k": 1}):
        for text in TEXTS:
            assert_same(ours(text, **options), theirs(text, **options))
        assert_same(ours(TEXTS, **options), theirs(TEXTS, **options))


def assert_same(ours: Any, theirs: Any) -> None:
    if isinstance(ours, list):
        assert len(ours) == len(theirs)
        for pair in zip(ours, theirs, strict=True):
            assert_same(*pair)
    else:
        assert ours == {**theirs, "score": pytest.approx(theirs["score"], abs=2e-6)}


def test_the_command_warns_in_a_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "in.txt"
    path.write_text("the [MASK]\n", encoding="utf-8")
    assert main(["predict", "fill", "--model", str(folder), str(path), "--targets", "abc"]) == 0
    warned = "fastattn predict fill: warning: the target 'abc' is 3 tokens; the first one, a, counts\n"
    assert capsys.readouterr().err == warned
