"""Pre-training as a task: what it makes, continues from, measures and refuses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_runs import log_of, weights
from helpers_sentences import HIDDEN, write_bert, write_json
from helpers_train import command, documents, files_of

from fastattn import functional as F
from fastattn.cli import main
from fastattn.models import BertConfig, BertForMaskedLM, BertForPreTraining
from fastattn.tasks import Filler, Pretrainer, PretrainRecipe, Tagger
from fastattn.text import Documents, TokenizedDocuments, Tokenizer
from fastattn.training import train

SMALL = {"hidden_size": 16, "layers": 1, "heads": 2, "max_seq_length": 16, "batch_size": 4, "plot": False}


@pytest.fixture
def data(tmp_path: Path) -> Documents:
    path = tmp_path / "text.txt"
    path.write_text(documents(0), encoding="utf-8")
    return Pretrainer.read(path)


def test_it_learns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = files_of("pretrain", tmp_path)
    more = ["--epochs", "20", "--dropout", "0", "--evaluate-every", "140", "--max-seq-length", "24"]
    assert main(command("pretrain", files, *more, "--hidden-size", "32", "--learning-rate", "0.003")) == 0
    captured = capsys.readouterr()
    assert "640 wordpieces in 160 sentences of 20 documents, 47 of vocabulary" in captured.err
    *lines, unigram, model = captured.out.splitlines()
    assert model == f"model: {files['--output']}"
    assert lines[-1].startswith("epoch 20, step ")
    metrics = log_of(files["--output"])[-1]["metrics"]
    assert unigram == f"unigram model: loss {metrics['unigram_loss']:.4f}"
    assert metrics["masked_loss"] < metrics["unigram_loss"] - 0.3
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["masked_loss"]))
    words = ["masked_loss", "masked_accuracy", "perplexity", "unigram_loss"]
    pairs = ["next_sentence_accuracy", "random_share"]
    assert set(metrics) == {*words, *pairs}
    assert lines[-1].endswith(f" ({metrics['random_share']:.4f} are random)")
    assert 0.4 < metrics["random_share"] < 0.7
    bert = Pretrainer.from_pretrained(files["--output"])
    texts = ["the cat sat [MASK]", "[MASK] dog [MASK] .", "the [MASK] ran ."]
    found = bert(texts, top_k=1)
    assert found == Filler.from_pretrained(files["--output"])(texts, top_k=1)
    assert (found[0][0]["token_str"], found[1][0][0]["token_str"]) == (".", "the")
    bert.recipe = PretrainRecipe(batch_size=4, max_seq_length=24, max_predictions_per_seq=3)
    again = bert.evaluate(Pretrainer.read(files["--eval"]))
    assert again == {name: metrics[name] for name in again}


def test_the_loss_is_that_of_the_padded_model(data: Documents) -> None:
    bert = Pretrainer.for_training(None, data, **SMALL)
    bert.model.eval()
    batches = bert.batches(data)
    batch = batches.load(batches.epoch(0)[0])
    loss = bert.loss(batch).item()
    cu_seqlens = batch["cu_seqlens"]
    lengths = np.diff(cu_seqlens)
    mask = np.arange(lengths.max()) < lengths[:, None]
    padded = {name: np.zeros(mask.shape, np.int64) for name in ("input_ids", "token_type_ids")}
    padded["labels"] = np.full(mask.shape, -100)
    for name, array in padded.items():
        array[mask] = batch[name]
    output = bert.model(**padded, attention_mask=mask, next_sentence_label=batch["next_sentence_label"])
    assert output.loss.item() == loss
    places = np.flatnonzero(batch["labels"] != -100)
    given = {name: batch[name] for name in ("input_ids", "cu_seqlens", "token_type_ids")}
    some = bert.model.forward_ragged(**given, places=places).prediction_logits
    every = bert.model.forward_ragged(**given).prediction_logits
    assert every.shape == (len(batch["input_ids"]), bert.tokenizer.vocab_size)
    np.testing.assert_array_equal(some.numpy(), every.numpy()[places])
    words = F.cross_entropy(some, batch["labels"][places]) + F.cross_entropy(
        output.seq_relationship_logits, batch["next_sentence_label"]
    )
    assert words.item() == loss


@pytest.mark.parametrize("head", [BertForMaskedLM, BertForPreTraining])
def test_scores_of_some_places(head: Any) -> None:
    config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    ids, cu_seqlens = np.arange(5), np.array([0, 2, 5])
    for trainable in (True, False):
        model = head(config, trainable=trainable)
        model.eval()
        every, some = (model.forward_ragged(ids, cu_seqlens, places=places) for places in (None, [4, 0]))
        name = "prediction_logits" if head is BertForPreTraining else "logits"
        first, second = (
            np.asarray(getattr(x, name).detach() if trainable else getattr(x, name)) for x in (every, some)
        )
        np.testing.assert_array_equal(second, first[[4, 0]])
    with pytest.raises(ValueError, match=r"places must be in \[0, 5\), got 5 at index 0"):
        model.forward_ragged(ids, cu_seqlens, places=[5])
    with pytest.raises(ValueError, match=r"places must have shape \(n,\)"):
        model.forward_ragged(ids, cu_seqlens, places=[[1]])
    with pytest.raises(TypeError, match="places must be an integer array"):
        model.forward_ragged(ids, cu_seqlens, places=[0.5])


def test_masked_words_alone(data: Documents, tmp_path: Path) -> None:
    bert = Pretrainer.for_training(None, data, **SMALL, next_sentence=False, epochs=1)
    trainer = train(bert, data, tmp_path / "out", evaluate_on=data)
    assert isinstance(bert.model, BertForMaskedLM)
    assert set(trainer.evaluations[0]["metrics"]) == {"masked_loss", "masked_accuracy", "perplexity", "unigram_loss"}
    loaded = Pretrainer.from_pretrained(tmp_path / "out")
    assert isinstance(loaded.model, BertForMaskedLM)
    assert not loaded.next_sentence


def test_one_document_is_enough_for_masked_words_alone(tmp_path: Path) -> None:
    data = Documents.of([["the cat sat .", "the dog sat ."] * 4])
    with pytest.raises(ValueError, match="next sentences need two documents or more, there is one"):
        train(Pretrainer.for_training(None, data, **SMALL), data, tmp_path / "a")
    train(Pretrainer.for_training(None, data, **SMALL, next_sentence=False, epochs=1), data, tmp_path / "b")
    two = Documents.of([["the cat sat ."], ["the dog sat ."]])
    task = Pretrainer.for_training(None, two, **SMALL, epochs=1)
    with pytest.raises(ValueError, match="next sentences need two"):  # before anything is trained
        train(task, two, tmp_path / "c", evaluate_on=data)


def test_lists_of_documents_serve_as_a_file_does(data: Documents, tmp_path: Path) -> None:
    lines = (tmp_path / "text.txt").read_text(encoding="utf-8").split("\n\n")
    lists = [document.splitlines() for document in lines]
    options = {**SMALL, "epochs": 2}
    found = []
    for name, some in (("file", data), ("lists", lists)):
        trainer = train(Pretrainer.for_training(None, some, **options), some, tmp_path / name, evaluate_on=some)
        found.append((trainer.evaluations, weights(tmp_path / name)))
    assert found[0][0] == found[1][0]
    for name, array in found[0][1].items():
        np.testing.assert_array_equal(array, found[1][1][name])
    train(Pretrainer.for_training(None, lists, **options), lists, tmp_path / "lists", resume=True, evaluate_on=lists)


def test_lists_are_tokenised_once_and_again_when_they_change(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = [["the cat sat .", "the dog sat ."], ["the dog ran ."]]
    bert = Pretrainer.for_training(None, Pretrainer.read(lists), **SMALL)
    read, texts = TokenizedDocuments.read, []
    monkeypatch.setattr(TokenizedDocuments, "read", lambda text, *more: texts.append([*text]) or read(text, *more))
    assert bert.evaluate(lists) == bert.evaluate([*map(tuple, lists)])
    assert len(texts) == 1
    lists[1][0] = "the cat ran ."
    bert.evaluate(lists)
    assert len(texts) == 2
    lists = [["The cat sat . The dog sat ."], ["The dog ran ."]]
    bert = Pretrainer.for_training(None, lists, **SMALL, paragraphs=True)
    assert len(bert.batches(lists).documents.offsets) - 1 == 3
    for wrong in (["text.txt"], [["a"], "b"]):
        with pytest.raises(TypeError, match=r"^data.* must be a sequence of .*, got the str"):
            bert.batches(wrong)


def test_it_continues_from_a_model(data: Documents, tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "model")
    options = {"max_seq_length": 16, "batch_size": 4, "plot": False, "epochs": 1, "learning_rate": 1e-3}
    bert = Pretrainer.for_training(folder, data, **options, dropout=0.2)
    assert bert.model.config.hidden_size == HIDDEN
    assert bert.model.config.hidden_dropout_prob == bert.model.config.attention_probs_dropout_prob == 0.2
    before = bert.model.state_dict()["bert.embeddings.word_embeddings.weight"].copy()
    np.testing.assert_array_equal(before, Tagger.for_training(folder, tags()).model.state_dict()[
        "bert.embeddings.word_embeddings.weight"])  # fmt: skip
    train(bert, data, tmp_path / "first")
    second = Pretrainer.for_training(tmp_path / "first", data, **options, next_sentence=False)
    assert set(second.model.state_dict()) < set(bert.model.state_dict())
    for name, array in second.model.state_dict().items():
        np.testing.assert_array_equal(array, bert.model.state_dict()[name])
    assert second.tokenizer.encode(["the cat"]).ids.tolist() == bert.tokenizer.encode(["the cat"]).ids.tolist()


def tags() -> Any:
    from fastattn.text import parse_conllu

    rows = (b"1\tthe\t_\tDET", b"2\tcat\t_\tNOUN")
    return list(parse_conllu([*(row + b"\t_" * 6 + b"\n" for row in rows), b"\n"], "x"))


def test_paragraphs_and_a_tokenizer_of_ones_own(tmp_path: Path) -> None:
    text = tmp_path / "wiki.txt"
    text.write_text("= A =\nThe cat sat . The cat ran .\n\n= B =\nThe dog sat .\n", encoding="utf-8")
    data = Pretrainer.read(text)
    folder = write_bert(tmp_path / "model", vocab_size=99)
    bert = Pretrainer.for_training(None, data, **SMALL, paragraphs=True, tokenizer=str(folder))
    assert bert.tokenizer.encode(["the"]).ids.tolist() == Tokenizer.from_pretrained(folder).encode(["the"]).ids.tolist()
    assert bert.model.config.vocab_size == bert.tokenizer.vocab_size
    assert len(bert.batches(data).documents) == 2
    assert len(bert.batches(data).documents.offsets) - 1 == 5  # headings are sentences, too


def test_a_config_with_the_sizes(data: Documents, tmp_path: Path) -> None:
    path = tmp_path / "sizes.json"
    sizes = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 40}
    write_json(path, {"model_type": "bert", "vocab_size": 1, "pad_token_id": None, **sizes})
    bert = Pretrainer.for_training(None, data, config=str(path))
    assert {name: getattr(bert.model.config, name) for name in sizes} == sizes
    assert bert.model.config.vocab_size == bert.tokenizer.vocab_size
    write_json(path, {"model_type": "elmo"})
    with pytest.raises(ValueError, match=r"sizes\.json: model_type is 'elmo'"):
        Pretrainer.for_training(None, data, config=str(path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": "c", "layers": 2}, "layers and config both give the size of the network"),
        ({"tokenizer": "t", "vocab_size": 9}, "vocab_size is for a vocabulary made of the text, not for tokenizer"),
        ({"start": "m", "layers": 2}, "layers is for a new model, not for model, which has its own"),
        ({"start": "m", "vocab_size": 99}, "vocab_size is for a new model"),
        ({"vocab_size": 9}, "vocab_size must be at least .* for the characters of the text, got 9"),
        ({"hidden_size": 10, "heads": 3}, "hidden_size must be a multiple of heads, got 10 and 3"),
        ({"masked_lm_prob": 1.5}, "PretrainRecipe: masked_lm_prob must be a number in"),
    ],
)
def test_options_that_do_not_go_together(data: Documents, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pretrainer.for_training(options.pop("start", None), data, **options)


def test_instances_are_as_long_as_the_model_reads(data: Documents, tmp_path: Path) -> None:
    for start, length in ((write_bert(tmp_path / "bert"), 32), (None, 128)):
        bert = Pretrainer.for_training(start, data)
        assert bert.batches(data).settings["room"] == length - 3


def test_what_cannot_be_trained_or_loaded(data: Documents, tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "plain")
    with pytest.raises(ValueError, match="has no head for masked words, its architecture is BertModel"):
        Pretrainer.from_pretrained(folder)
    with pytest.raises(ValueError, match="max_seq_length is 64, but the model has 32 positions"):
        Pretrainer.for_training(folder, data, max_seq_length=64)
    words = (folder / "vocab.txt").read_text(encoding="utf-8").replace("[MASK]", "[NONE]")
    (folder / "vocab.txt").write_text(words, encoding="utf-8")
    with pytest.raises(ValueError, match=r"the tokenizer has no mask_token, such as \[MASK\], which hides the words"):
        Pretrainer.for_training(folder, data, max_seq_length=16)
    small = write_bert(tmp_path / "small")
    lines = (small / "vocab.txt").read_text(encoding="utf-8")
    (small / "vocab.txt").write_text(lines + "dog\n", encoding="utf-8")
    with pytest.warns(UserWarning, match="none for these tokens: 'dog'"):
        bert = Pretrainer.for_training(small, data, max_seq_length=16)
    with pytest.raises(ValueError, match="has the token 'dog'"):
        bert.batches(data)
