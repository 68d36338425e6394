"""Scores of pairs, as sentence-transformers' CrossEncoder gives them, and the folders that it writes and reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_sentences import write_bert, write_json
from test_regressor import PAIRS, ROWS, make

from fastattn import nn
from fastattn.cli import main
from fastattn.tasks import Classifier, CrossEncoder, Regressor, Reranker, SentenceEncoder

DOCUMENTS = ["query", "the cat sat", "the cat", "", "the cat"]
IDENTITY, SIGMOID = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("reranker"), Reranker)


@pytest.fixture(scope="module")
def encoder(folder: Path) -> CrossEncoder:
    return CrossEncoder(folder)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def test_scores(folder: Path, encoder: CrossEncoder, threads: int) -> None:
    reranker = Reranker.from_pretrained(folder)
    scores = encoder.predict(PAIRS)
    assert (scores.dtype, scores.shape) == (np.float32, (5,))
    np.testing.assert_allclose(scores, sigmoid(reranker.logits(PAIRS)[:, 0]), atol=1e-6)
    assert reranker(PAIRS) == scores.tolist()
    np.testing.assert_array_equal(encoder.predict(PAIRS * 20), np.tile(scores, 20))
    assert encoder.predict(PAIRS[0]) == encoder.predict(list(PAIRS[0])) == scores[0]
    assert encoder.predict([]).shape == (0,)


def test_activations(folder: Path, encoder: CrossEncoder) -> None:
    logits = Reranker.from_pretrained(folder).logits(PAIRS)
    np.testing.assert_array_equal(encoder.predict(PAIRS, activation_fn=lambda x: x), logits[:, 0])
    np.testing.assert_array_equal(encoder.predict(PAIRS, activation_fn=nn.Sigmoid()), encoder.predict(PAIRS))
    doubled = CrossEncoder(folder, activation_fn=lambda x: 2 * x)
    np.testing.assert_array_equal(doubled.predict(PAIRS), 2 * logits[:, 0])


def test_ranks(encoder: CrossEncoder) -> None:
    scores = encoder.predict([("the cat", document) for document in DOCUMENTS])
    ranks = encoder.rank("the cat", DOCUMENTS)
    assert [entry["corpus_id"] for entry in ranks] == np.argsort(-scores, kind="stable").tolist()
    assert [entry["score"] for entry in ranks] == sorted(scores.tolist(), reverse=True)
    assert encoder.rank("the cat", DOCUMENTS, top_k=2) == ranks[:2]
    assert encoder.rank("the cat", DOCUMENTS, top_k=9, return_documents=True) == [
        {**entry, "text": DOCUMENTS[entry["corpus_id"]]} for entry in ranks
    ]
    assert encoder.rank("the cat", []) == []


def test_the_options_of_sentence_transformers(folder: Path, encoder: CrossEncoder) -> None:
    scores = encoder.predict(PAIRS)
    ranks = encoder.rank("the cat", DOCUMENTS)
    options: dict[str, Any] = {"batch_size": 2, "show_progress_bar": False, "prompt_name": None, "prompt": None}
    options |= {"device": "cpu", "pool": None, "chunk_size": None}
    more = {"convert_to_numpy": True, "convert_to_tensor": False, "apply_softmax": None}
    np.testing.assert_array_equal(encoder.predict(PAIRS, **options, **more), scores)
    np.testing.assert_array_equal(encoder.predict(PAIRS, None, None, 2, False), scores)
    assert encoder.rank("the cat", DOCUMENTS, **options) == ranks
    worst = encoder.rank("the cat", DOCUMENTS, activation_fn=lambda logits: -logits, top_k=1)
    assert encoder.predict([("the cat", DOCUMENTS[worst[0]["corpus_id"]])])[0] == ranks[-1]["score"]
    np.testing.assert_array_equal(CrossEncoder(folder, device="cpu").predict(PAIRS), scores)
    for name, value in {"device": "cuda", "prompt": "query: ", "prompt_name": "query", "pool": {}}.items():
        with pytest.raises(ValueError, match=f"^predict: {name} must be "):
            encoder.predict(PAIRS, **{name: value})
        with pytest.raises(ValueError, match=f"^rank: {name} must be "):
            encoder.rank("a", ["b"], **{name: value})
    with pytest.raises(ValueError, match=r"^predict: convert_to_tensor must be False, got True$"):
        encoder.predict(PAIRS, convert_to_tensor=True)
    with pytest.raises(ValueError, match=r"^predict: batch_size must be a positive integer, got 0$"):
        encoder.predict(PAIRS, batch_size=0)
    with pytest.raises(ValueError, match=r"^CrossEncoder: device must be 'cpu', got 'cuda'$"):
        CrossEncoder(folder, device="cuda")


def test_a_pass_has_at_most_a_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, passes = CrossEncoder(folder), []
    model, forward = encoder._reranker.model, encoder._reranker.model.forward_ragged

    def counted(**batch: Any) -> Any:
        passes.append(len(batch["cu_seqlens"]) - 1)
        return forward(**batch)

    monkeypatch.setattr(model, "forward_ragged", counted)
    encoder.predict(PAIRS, batch_size=2)
    assert sorted(passes) == [1, 2, 2]


def test_evaluators_of_sentence_transformers(folder: Path, encoder: CrossEncoder) -> None:
    pytest.importorskip("sentence_transformers", reason="compares with sentence-transformers")
    from sentence_transformers import CrossEncoder as Theirs
    from sentence_transformers.cross_encoder import evaluation

    scores = [0.1, 0.9, 0.4, 0.3, 0.6]
    samples = [{"query": "the cat", "positive": ["the cat sat"], "negative": ["query", "a b c"]}]
    for evaluator in (
        evaluation.CrossEncoderCorrelationEvaluator(PAIRS, scores, write_csv=False),
        evaluation.CrossEncoderRerankingEvaluator(samples, batch_size=2, write_csv=False),
    ):
        wanted = evaluator(Theirs(str(folder), device="cpu"))
        found: Any = evaluator(encoder)
        assert found == pytest.approx(wanted, abs=1e-4)


def test_what_is_refused(encoder: CrossEncoder, tmp_path: Path) -> None:
    for wrong, message in (
        ("the cat", r"^predict: inputs must be a sequence of pairs of str, got the str"),
        (["a", "b", "c"], r"^inputs\[0\] must be a pair of str, got \['a', 'b', 'c'\]$"),
        ([("a", 1)], r"^inputs\[0\]\[1\] must be str, got int$"),
    ):
        with pytest.raises(TypeError, match=message):
            encoder.predict(wrong)
    with pytest.raises(ValueError, match=r"^rank: top_k must be a positive integer, got 0$"):
        encoder.rank("a", ["b"], top_k=0)
    with pytest.raises(TypeError, match=r"^rank: documents must be a sequence of str, got the str 'b'$"):
        encoder.rank("a", "b")
    bert = write_bert(tmp_path / "bert")
    with pytest.raises(ValueError, match="not a cross-encoder, its architecture is BertModel; `fastattn train rerank`"):
        CrossEncoder(bert)
    with pytest.raises(ValueError, match=r"^for_training: data must be pairs, got single texts in rows\[0\]$"):
        Reranker.for_training(bert, Reranker.read([{"text": "a", "score": 1}]))
    with pytest.raises(ValueError, match=r"^rows\[0\]: batches: a score must be from 0 to 1, got 5.0; regress learns"):
        Reranker.for_training(bert, Reranker.read(ROWS)).batches(Reranker.read(ROWS))


def test_the_loss_is_the_cross_entropy_of_the_score(folder: Path) -> None:
    data = Reranker.read([{**row, "score": row["score"] / 5} for row in ROWS])
    reranker = Reranker.for_training(folder, data)
    batch = reranker.batches(data).load(np.arange(5))
    score, right = sigmoid(reranker.logits(PAIRS)[:, 0]), np.array(data.labels)
    expected = -(right * np.log(score) + (1 - right) * np.log(1 - score)).mean()
    loss = reranker.loss(batch)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert set(reranker.evaluate(data)) == {"pearson", "spearman"}


def changed(folder: Path, target: Path, **fields: Any) -> Path:
    """A copy of a folder with other fields in config.json, or without those that are None."""
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    config = {**json.loads((folder / "config.json").read_text(encoding="utf-8")), **fields}
    write_json(target / "config.json", {name: value for name, value in config.items() if value is not None})
    return target


NO_NAMES: dict[str, Any] = {"sentence_transformers": None, "sbert_ce_default_activation_function": None}


@pytest.mark.parametrize(
    ("fields", "activation"),
    [
        (NO_NAMES, "Sigmoid"),
        ({**NO_NAMES, "sentence_transformers": {"activation_fn": IDENTITY, "version": "5.0.0"}}, "Identity"),
        ({**NO_NAMES, "sbert_ce_default_activation_function": IDENTITY}, "Identity"),
        ({"sentence_transformers": {"activation_fn": SIGMOID}, "sbert_ce_default_activation_function": IDENTITY},
         "Sigmoid"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.Tanh"}}, "Tanh"),
    ],
)  # fmt: skip
def test_the_activation_that_a_folder_names(fields: dict[str, Any], activation: str, folder: Path, tmp_path: Path):
    other = changed(folder, tmp_path / "other", **fields)
    assert Reranker.from_pretrained(other).activation == activation
    write_json(tmp_path / "other" / "modules.json", [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
    ])  # fmt: skip
    newest = {"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.activation.ReLU"}
    write_json(other / "config_sentence_transformers.json", newest)
    assert Reranker.from_pretrained(other).activation == "ReLU"


def test_what_a_folder_must_not_name(folder: Path, tmp_path: Path) -> None:
    for i, named in enumerate(("os.system", "torch.nn.Softplus", 3)):
        other = changed(folder, tmp_path / str(i), sentence_transformers={"activation_fn": named})
        with pytest.raises(ValueError, match=r"config\.json: the activation must be one of torch\.nn's Identity, Sigm"):
            CrossEncoder(other)
    other = changed(folder, tmp_path / "prompts")
    write_json(other / "modules.json", [{"path": "", "type": "sentence_transformers.models.Transformer"}])
    prompts = {"model_type": "CrossEncoder", "prompts": {"q": "query: "}, "default_prompt_name": "q"}
    write_json(other / "config_sentence_transformers.json", prompts)
    with pytest.raises(ValueError, match="default_prompt_name is 'q', but prompts of pairs are not supported"):
        CrossEncoder(other)
    write_json(other / "modules.json", [{"path": "", "type": "sentence_transformers.models.Pooling"}])
    with pytest.raises(ValueError, match=r"the first module must be Transformer, got \['Pooling'\]"):
        CrossEncoder(other)


def test_a_model_of_numbers_is_read(tmp_path: Path) -> None:
    folder = make(tmp_path)
    encoder = CrossEncoder(folder, max_length=9)
    assert (encoder.num_labels, encoder.max_length) == (1, 9)
    np.testing.assert_array_equal(CrossEncoder(folder).predict(PAIRS), Regressor.from_pretrained(folder)(PAIRS))
    encoder.save_pretrained(tmp_path / "again")
    again = CrossEncoder(tmp_path / "again")
    np.testing.assert_array_equal(again.predict(PAIRS), encoder.predict(PAIRS))
    assert Reranker.for_training(folder, Reranker.read([{**ROWS[0], "score": 1}])).activation == "Sigmoid"


def test_several_scores(tmp_path: Path) -> None:
    rows = [{**row, "label": label} for row, label in zip(ROWS, "abcab", strict=True)]
    Classifier.for_training(write_bert(tmp_path / "bert"), Classifier.read(rows)).save_pretrained(tmp_path / "model")
    encoder, classifier = CrossEncoder(tmp_path / "model"), Classifier.from_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(encoder.predict(PAIRS), classifier.logits(PAIRS))
    np.testing.assert_array_equal(encoder.predict(PAIRS, apply_softmax=True), classifier.probabilities(PAIRS))
    assert encoder.predict(PAIRS[0]).shape == (3,)
    with pytest.raises(ValueError, match=r"the model must give one score, but it gives 3$"):
        encoder.rank("a", ["b"])


def test_predictions(folder: Path, encoder: CrossEncoder, tmp_path: Path, capfd: Any) -> None:
    documents = tmp_path / "documents.txt"
    documents.write_text("".join(f"{text}\n" for text in DOCUMENTS), encoding="utf-8")
    arguments = ["predict", "rerank", "--model", str(folder)]
    assert main([*arguments, str(documents), "--query", "the cat", "--top-k", "2"]) == 0
    head, *lines = (line.split("\t") for line in capfd.readouterr().out.splitlines())
    assert head == ["score", "query", "document"]
    expected = encoder.rank("the cat", DOCUMENTS, top_k=2, return_documents=True)
    assert [line[1:] for line in lines] == [["the cat", entry["text"]] for entry in expected]
    np.testing.assert_allclose([float(line[0]) for line in lines], [entry["score"] for entry in expected], rtol=1e-6)
    table = tmp_path / "pairs.jsonl"
    rows = [{"query": query, "document": document} for document in DOCUMENTS for query in ("b", "a")]
    table.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    assert main([*arguments, str(table), "--answers", "jsonl"]) == 0
    found = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [row["query"] for row in found] == ["b"] * 5 + ["a"] * 5
    for query in "ab":
        ranks = [row["document"] for row in found if row["query"] == query]
        assert ranks == [entry["text"] for entry in encoder.rank(query, DOCUMENTS, return_documents=True)]
    for text, more, message in (
        ("a\tb\n", ("--query", "x"), "documents.txt:1: there are pairs, but --query is given: 'x'"),
        ("a\n", (), "documents.txt:1: a query and a document are needed, got a text; or give --query"),
    ):
        documents.write_text(text, encoding="utf-8")
        assert main([*arguments, str(documents), *more]) == 1
        assert message in capfd.readouterr().err


@pytest.mark.parametrize("labels", [1, 3])
def test_sentence_transformers_reads_and_writes_the_same(labels: int, folder: Path, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers", reason="compares with sentence-transformers")
    torch = pytest.importorskip("torch", reason="compares with torch")
    torch.manual_seed(0)
    theirs = library.CrossEncoder(str(folder if labels == 1 else write_bert(tmp_path / "bert")), num_labels=labels)
    theirs.save_pretrained(str(tmp_path / "theirs"))
    for path in (tmp_path / "theirs", *([folder] if labels == 1 else [])):
        ours = CrossEncoder(path)
        assert ours.num_labels == labels
        expected = theirs.predict(PAIRS)
        np.testing.assert_allclose(ours.predict(PAIRS), expected, rtol=0, atol=2e-5 * np.abs(expected).max())
        soft = theirs.predict(PAIRS, apply_softmax=True)
        np.testing.assert_allclose(ours.predict(PAIRS, apply_softmax=True), soft, rtol=0, atol=2e-5)
        one = theirs.predict(PAIRS[0])
        assert np.shape(ours.predict(PAIRS[0])) == np.shape(one)
    if labels == 1:
        ours, ranks = CrossEncoder(folder), theirs.rank("the cat", DOCUMENTS[:4], top_k=3, return_documents=True)
        found = ours.rank("the cat", DOCUMENTS[:4], top_k=3, return_documents=True)
        assert [entry["text"] for entry in found] == [entry["text"] for entry in ranks]
        ours.save_pretrained(tmp_path / "ours")
        again = library.CrossEncoder(str(tmp_path / "ours"))
        np.testing.assert_allclose(again.predict(PAIRS), theirs.predict(PAIRS), rtol=0, atol=2e-5)


def test_a_cross_encoder_is_no_sentence_encoder(folder: Path, tmp_path: Path) -> None:
    other = changed(folder, tmp_path / "other")
    write_json(other / "modules.json", [{"path": "", "type": "sentence_transformers.models.Transformer"}])
    with pytest.raises(ValueError, match="the first two modules must be Transformer and Pooling"):
        SentenceEncoder(other)
    assert Reranker.for_training(other, Reranker.read([{**ROWS[0], "score": 1}])).model is not None
