"""`fastattn info MODEL`: what a folder is, what it can do here, and why not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_cases import TRAINED
from helpers_families import new_model
from helpers_sentences import HIDDEN, POSITIONS, VOCABULARY, module, write_bert, write_json, write_pooling
from helpers_tasks import MODELS, PREDICTED, of_encoders, taking

from fastattn.cli import main
from fastattn.models.registry import load_encoder, load_head
from fastattn.tasks import TASKS


def facts_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["info", str(folder), "--json"]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    return facts


def text_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What it prints; a long line goes on in the next one."""
    assert main(["info", str(folder)]) == 0
    return re.sub(r"\n {11}", " ", capsys.readouterr().out)


def write_head(folder: Path, model: str) -> Path:
    """One of the `MODELS`, with the weights of its head."""
    architecture, fields = MODELS[model]
    write_bert(folder, architectures=[architecture])
    if kind := architecture.partition("For")[2]:
        fields = {name: {int(i): x for i, x in v.items()} if name == "id2label" else v for name, v in fields.items()}
        load_head(folder, kind, new_head="draw", **fields).save_pretrained(folder)
    return folder


def change(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    write_json(path, {**(json.loads(path.read_text()) if path.exists() else {}), **values})


def test_a_plain_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = facts_of(write_bert(tmp_path), capsys)
    assert facts["model_type"] == "bert"
    assert facts["architectures"] == ["BertModel"]
    assert facts["sizes"] == {
        "layers": 2, "hidden": HIDDEN, "heads": 2, "vocabulary": len(VOCABULARY), "positions": POSITIONS
    }  # fmt: skip
    assert facts["weights"]["dtypes"] == ["F32"]
    assert facts["weights"]["bytes"] == (tmp_path / "model.safetensors").stat().st_size
    assert 4 * facts["weights"]["parameters"] < facts["weights"]["bytes"]
    assert facts["tokenizer"]["kind"] == "WordPiece"
    assert facts["tokenizer"]["file"] == "vocab.txt"
    assert facts["tokenizer"]["max_length"] == POSITIONS
    assert facts["tokenizer"]["special"]["mask"] == "[MASK]"
    assert facts["can"] == ["embed", *(f"predict {name}" for name in TASKS if name in taking("plain"))]
    assert set(facts["can_train"]) == of_encoders({*TRAINED})
    assert set(facts["cannot"]) == of_encoders(PREDICTED) - taking("plain")
    assert set(facts["others"]) == PREDICTED - of_encoders(PREDICTED)
    assert facts["problems"] == []


def test_a_sentence_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_bert(tmp_path)
    change(folder, "sentence_bert_config.json", max_seq_length=20)
    change(folder, "config_sentence_transformers.json", prompts={"query": "query: "}, similarity_fn_name="dot")
    modules = [module("Transformer", ""), write_pooling(folder, "cls", "max"), module("Normalize", "2_Normalize")]
    write_json(folder / "modules.json", modules)
    text = text_of(folder, capsys)
    assert "Transformer of 20 tokens, cls and max pooling, Normalize" in text
    assert "similarity dot, prompts query 'query: '" in text


@pytest.mark.parametrize("model", MODELS)
def test_heads(tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str) -> None:
    architecture, more = MODELS[model]
    facts = facts_of(write_head(tmp_path, model), capsys)
    can = taking(model)
    plain = {"embed"} if "embed" in can else set()  # not trained for a task yet
    assert set(facts["can"]) == {*plain, *(f"predict {name}" for name in can)}
    assert set(facts["cannot"]) == of_encoders(PREDICTED) - can
    assert plain or architecture in facts["cannot"]["embed"]
    if "Classification" in architecture:
        assert len(facts["labels"]) == len(more.get("id2label", "1"))


def test_reasons_are_those_of_predict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_head(tmp_path, "two classes")
    reasons = facts_of(folder, capsys)["cannot"]
    assert set(reasons) == of_encoders(PREDICTED) - taking("two classes")
    assert reasons["rerank"] == "the model must give one score, but it gives 2"
    for name, reason in reasons.items():
        assert main(["predict", name, "--model", str(folder), "/dev/null"]) == 1
        assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [{"dim": 2 * HIDDEN}, {"n_layers": 3}, {"vocab_size": 2**30}, {"n_layers": 2**31 - 1}, {"hidden_dim": 2**30}],
)
@pytest.mark.parametrize("kind", ["", "SequenceClassification"])
def test_weights_that_do_not_fit(
    wrong: dict[str, Any], kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = new_model("distilbert", kind)
    model.save_pretrained(tmp_path)
    change(tmp_path, "tokenizer_config.json", tokenizer_class="BertTokenizer")
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    before = facts_of(tmp_path, capsys)
    assert before["problems"] == []
    assert before["can"]
    change(tmp_path, "config.json", **wrong)
    facts = facts_of(tmp_path, capsys)
    with pytest.raises(ValueError, match=r"must have shape|tensors of") as refused:
        type(model).from_pretrained(tmp_path)
    assert facts["problems"] == [str(refused.value)]
    assert facts["can"] == facts["can_train"] == []


def test_weights_that_do_not_fit_where_no_architecture_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The encoder says it; nobody speaks of a head."""
    folder = write_bert(tmp_path)
    change(folder, "config.json", architectures=None, intermediate_size=7)
    with pytest.raises(ValueError, match="must have shape") as refused:
        load_encoder(folder)
    assert facts_of(folder, capsys)["problems"] == [str(refused.value)]


def test_a_head_that_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The encoder can be used; the head cannot."""
    facts = facts_of(write_bert(tmp_path, architectures=["BertForMaskedLM"]), capsys)
    assert facts["problems"] == []
    assert set(facts["can"]) == {"embed", "predict embed"}
    assert "model.safetensors: not a BertForMaskedLM, cls.predictions" in facts["cannot"]["fill"]


def test_no_safetensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_bert(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    text = text_of(folder, capsys)
    assert "pytorch_model.bin is not read: run `fastattn convert` first" in text
    assert "can        nothing" in text
    assert "sizes      layers 2" in text


def test_code_of_its_own_is_never_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_bert(tmp_path)
    (folder / "code.py").write_text("raise SystemExit(7)")
    change(folder, "config.json", model_type="new", auto_map={"AutoModel": "code.Model"})
    text = text_of(folder, capsys)
    assert "config.json: model_type is 'new'; known are albert, awd-lstm, bert, " in text
    assert "auto_map names code that comes with the model; fastattn never runs it" in text
    assert "can        nothing" in text


def test_a_family_that_is_here_needs_no_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_bert(tmp_path)
    change(folder, "config.json", auto_map={"AutoModel": "code.Model"})
    facts = facts_of(folder, capsys)
    assert facts["problems"] == []
    assert facts["can"]


def test_everything_that_is_missing_is_named_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_bert(tmp_path, hidden_act="relu6")
    (folder / "model.safetensors").write_bytes(b"\x01" * 20)
    (folder / "vocab.txt").unlink()
    text = text_of(folder, capsys)
    assert "hidden_act" in text
    assert "model.safetensors: not a valid safetensors file" in text
    assert "no tokenizer.json, nor vocab.txt" in text


def test_a_damaged_config_names_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (write_bert(tmp_path) / "config.json").write_text("{")
    text = text_of(tmp_path, capsys)
    assert "problem    config.json: not valid JSON" in text
    assert "None" not in text
    assert "no architecture named" not in text
    rows = tmp_path / "rows.tsv"
    rows.write_text("text\tlabel\na\tx\nb\ty\n")
    run = ["train", "classify", "--model", str(tmp_path), "--train", str(rows), "--output", str(tmp_path / "output")]
    assert main(run) == 1
    assert capsys.readouterr().err.startswith(f"fastattn train classify: error: {tmp_path}/config.json: not valid")


def test_a_module_without_its_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_bert(tmp_path)
    write_json(folder / "modules.json", [module("Transformer", ""), write_pooling(folder, "cls")])
    (folder / "1_Pooling" / "config.json").unlink()
    assert "problem    1_Pooling/config.json: No such file or directory" in text_of(folder, capsys)


def test_a_name_that_no_model_has(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["info", "no-such-model"]) == 1
    assert "no model named 'no-such-model'" in capsys.readouterr().err


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_bert(tmp_path)
    change(folder, "config.json", architectures=["Bert\x1b[31mModel"])
    assert "\x1b" not in text_of(folder, capsys)


def test_one_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = {i: f"label {i}" for i in range(500)}
    folder = write_bert(tmp_path, architectures=["BertForTokenClassification"])
    load_head(folder, "TokenClassification", new_head="draw", id2label=labels).save_pretrained(folder)
    assert main(["info", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "500: label 0, label 1" in text
    assert text.count("\n") < 25
    assert max(map(len, text.split("\n"))) <= 120
