"""The task `embed`: what is read, learnt, measured and saved."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_sentences import HIDDEN, TEXTS, normalize, write_bert, write_model

from fastattn import functional as F
from fastattn.autograd import no_grad
from fastattn.cli import main
from fastattn.models import BertForTokenClassification
from fastattn.tasks import Embedder, EmbedRecipe, SentenceEncoder, train
from fastattn.tasks.embed import TextPairs, read_pairs
from fastattn.tasks.embed.evaluation import correlations

TRIPLES = [
    {"anchor": "the cat", "positive": "cat", "negative": "zz"},
    {"anchor": "a cat", "positive": "cat", "negative": "query"},
    {"anchor": "sat", "positive": "the sat", "negative": "abc"},
    {"anchor": "query", "positive": "a query :", "negative": "the"},
]
SCORED = [
    {"sentence1": a, "sentence2": b, "score": score}
    for a, b, score in (("the cat", "cat", 5), ("a", "zz", 0), ("sat", "the sat", 4.5), ("query", "cat", 1))
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("embedder") / "m", layers=[normalize("2_Normalize")])


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


class TestReading:
    def test_columns_say_what_is_learnt(self) -> None:
        triples = read_pairs(TRIPLES)
        assert triples.columns == tuple([row[name] for row in TRIPLES] for name in ("anchor", "positive", "negative"))
        assert triples.scores is None
        scored = read_pairs(SCORED)
        assert scored.scores is not None
        assert scored.scores.tolist() == [5, 0, 4.5, 1]
        assert len(scored) == 4

    def test_files(self, tmp_path: Path) -> None:
        lines = write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in TRIPLES))
        assert read_pairs(lines).columns == read_pairs(TRIPLES).columns
        assert len(read_pairs(lines, lines)) == 8
        table = write(tmp_path / "b.csv", '"a, b",c,3\nd,e,1\n')
        data = read_pairs(table, names=["sentence1", "sentence2", "score"])
        assert (data.columns, data.places[0]) == ((["a, b", "d"], ["c", "e"]), f"{table}:1")
        named = read_pairs(table, names=["x", "y", "z"], texts=["y", "x"])
        assert (named.columns, named.scores) == ((["c", "e"], ["a, b", "d"]), None)
        assert read_pairs(table, names=["x", "y", "z"], texts=["y", "x"], score="z").scores is not None

    def test_a_checksum_of_all_that_is_read(self) -> None:
        other = [{**SCORED[0], "score": 4}, *SCORED[1:]]
        moved = [{"anchor": "the", "positive": "catcat"}, {"anchor": "a", "positive": "b"}]
        again = [{"anchor": "thecat", "positive": "cat"}, {"anchor": "a", "positive": "b"}]
        sums = [read_pairs(rows).crc32 for rows in (SCORED, SCORED, other, moved, again)]
        assert sums[0] == sums[1]
        assert len(set(sums)) == 4

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "text\tlabel\na\tb\n",
                "a.tsv:1: the columns must include anchor and positive, or sentence1, sentence2 and score, got 'text'",
            ),
            ("anchor\tnegative\na\tb\n", "a.tsv:1: the columns must include .*, got 'anchor', 'negative'; "),
            (
                "sentence1\tsentence2\na\tb\n",
                "a.tsv:1: the columns must .*, got 'sentence1', 'sentence2'; texts and score name others; names, if",
            ),
            ("sentence1\tsentence2\tscore\na\tb\tx\n", "a.tsv:2: score must be a number, got 'x'"),
            ("anchor\tpositive\tnegative\na\tb\tc\na\tb\t\n", "a.tsv:3: negative is empty$"),
            ("anchor\tpositive\na\t \n", "a.tsv:2: positive is empty$"),
            ("anchor\tpositive\n\ta\n", "a.tsv:2: anchor is empty$"),
            ("anchor\tpositive\na\n", "a.tsv:2: a row must have 2 columns"),
            ("", "a.tsv: there are no rows"),
        ],
    )
    def test_what_is_refused(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            read_pairs(write(tmp_path / "a.tsv", text))

    def test_a_name_that_does_not_say_what_it_is(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.txt", "anchor\tpositive\na\tb\n")
        with pytest.raises(ValueError, match=r"a\.txt: the name of a table must end with .*, or format must say what"):
            read_pairs(path)
        assert read_pairs(path, format="tsv").columns == (["a"], ["b"])
        assert EmbedRecipe(format="tsv").reading["format"] == "tsv"

    def test_rows_that_differ(self, tmp_path: Path) -> None:
        with pytest.raises(
            ValueError, match=r"rows\[4\]: the columns must include anchor and positive, .*, got 'anchor'; texts"
        ):
            read_pairs([*TRIPLES, {"anchor": "a"}])
        with pytest.raises(ValueError, match=r"a.tsv:2: the columns must be those of rows\[0\], anchor, positive, neg"):
            read_pairs(TRIPLES, write(tmp_path / "a.tsv", "anchor\tpositive\na\tb\n"))
        with pytest.raises(ValueError, match=r"^texts must name two columns"):
            read_pairs(TRIPLES, texts=["anchor"])


class TestLoss:
    def loss(self, folder: Path, rows: Any, **options: Any) -> tuple[float, list[Any], Embedder]:
        """The loss of all rows, and the embeddings of each column."""
        data = read_pairs(rows)
        embedder = Embedder.for_training(folder, data, **options)
        embedder.model.eval()
        batch = embedder.batches(data).load(np.arange(len(data)))
        with no_grad():
            found = embedder.loss(batch).item()
        return found, [embedder.model.encode(column) for column in data.columns], embedder

    def test_ranking(self, folder: Path) -> None:
        found, (anchors, positives, negatives), _ = self.loss(folder, TRIPLES)
        candidates = np.concatenate([positives, negatives])
        ids = [0, 0, 1, 2, 3, 4, 5, 6]  # two rows have the same positive
        assert found == pytest.approx(float(F.multiple_negatives_ranking_loss(anchors, candidates, ids=ids)), rel=1e-5)

    def test_scores(self, folder: Path) -> None:
        scores = np.array([row["score"] for row in SCORED], np.float32)
        for options, wanted in (
            ({}, lambda a, b: F.cosent_loss(F.cosine_similarity(a, b), scores, 5.0)),
            ({"scale": 3}, lambda a, b: F.cosent_loss(F.cosine_similarity(a, b), scores, 3.0)),
            (
                {"loss": "cosine", "max_score": 5},
                lambda a, b: F.mse_loss(F.cosine_similarity(a, b), scores / np.float32(5)),
            ),
        ):
            found, embeddings, _ = self.loss(folder, SCORED, **options)
            assert found == pytest.approx(float(wanted(*embeddings)), rel=1e-5)

    def test_matryoshka_is_a_sum_over_the_first_dimensions(self, folder: Path) -> None:
        found, (a, b, c), _ = self.loss(folder, TRIPLES, matryoshka=[HIDDEN, 5])
        parts = [
            float(F.multiple_negatives_ranking_loss(a[:, :d], np.concatenate([b, c])[:, :d], ids=[0, 0, *range(1, 7)]))
            for d in (HIDDEN, 5)
        ]
        assert found == pytest.approx(sum(parts), rel=1e-5)
        for wrong in (0, HIDDEN + 1):
            with pytest.raises((TypeError, ValueError), match="matryoshka must be"):
                Embedder.for_training(folder, read_pairs(TRIPLES), matryoshka=[wrong])

    def test_the_default_prompt_is_learnt_too(self, tmp_path: Path) -> None:
        options = {"prompts": {"query": "query : "}, "default_prompt_name": "query"}
        start = write_model(tmp_path / "m", pooling={"include_prompt": False}, config_sentence_transformers=options)
        found, embeddings, embedder = self.loss(start, SCORED)
        wanted = F.cosent_loss(F.cosine_similarity(*embeddings), [row["score"] for row in SCORED], 5.0)
        assert found == pytest.approx(float(wanted), rel=1e-5)
        assert embedder.model.default_prompt_name == "query"

    def test_a_batch_is_as_large_as_the_recipe_says(self, folder: Path) -> None:
        data = read_pairs(TRIPLES * 3)
        batches = Embedder.for_training(folder, data, batch_size=5, accumulation=2).batches(data)
        assert [len(batch) for batch in batches.epoch(0)] == [5, 5, 2]
        assert batches.accumulation == 2
        assert batches.load(np.array([3, 1]))["texts"].shape == (3, 2)

    @pytest.mark.parametrize(
        ("rows", "options", "message"),
        [
            (TRIPLES, {"loss": "cosent"}, r"rows\[0\]: the loss cosent needs scores, got anchors and positives"),
            (SCORED, {"loss": "ranking"}, r"rows\[0\]: the loss ranking needs no scores, got scores"),
            (SCORED, {"loss": "cosine"}, r"rows\[0\]: the score 5 is above max_score, 1; a cosine is at most 1"),
            (SCORED[:1], {}, r"rows\[0\]: all scores are 5, so there is no order to learn"),
            (TRIPLES[:2], {}, "batches: ranking needs two different positives"),
            (TRIPLES, {"loss": "ranking", "batch_size": 1}, "loss ranking needs a batch_size above 1"),
        ],
    )
    def test_data_that_do_not_fit(self, folder: Path, rows: Any, options: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            self.loss(folder, rows, **options)


class TestEvaluation:
    def test_scores(self, folder: Path) -> None:
        embedder, data = Embedder(SentenceEncoder(folder)), read_pairs(SCORED)
        a, b = (embedder.model.encode(column) for column in data.columns)
        assert data.scores is not None
        wanted = correlations("cosine", embedder.model.similarity_pairwise(a, b), data.scores)
        assert embedder.evaluate(data) == wanted
        assert list(wanted) == ["spearman_cosine", "pearson_cosine"]
        embedder.check(data)
        with pytest.raises(ValueError, match=r"rows\[0\]: all scores are 5, so nothing correlates"):
            embedder.check(read_pairs(SCORED[:1]))

    def test_retrieval(self, folder: Path) -> None:
        rows = [{"anchor": text, "positive": text, "negative": "zz zz"} for text in TEXTS if text]
        found = Embedder(SentenceEncoder(folder)).evaluate(read_pairs(rows))
        assert next(iter(found)) == "cosine_ndcg@10"
        assert found == dict.fromkeys(
            [f"cosine_{name}" for name in ("ndcg@10", "mrr@10", "map@100", "accuracy@1", "recall@5", "recall@10")], 1.0
        )


@pytest.mark.parametrize("rows", [TRIPLES, SCORED])
def test_it_learns(folder: Path, tmp_path: Path, rows: Any) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shutil.copytree(folder, tmp_path / "start")
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    write(tmp_path / "start" / "config.json", json.dumps(config))
    data = Embedder.read(rows)
    embedder = Embedder.for_training(tmp_path / "start", data, epochs=40, learning_rate=0.01, batch_size=4, plot=False)
    batch = embedder.batches(data).load(np.arange(4))
    before = embedder.loss(batch).item()
    train(embedder, data, tmp_path / "out", evaluate_on=data)
    assert embedder.loss(batch).item() < before / 2
    again = Embedder.from_pretrained(tmp_path / "out")
    assert again.model.frozen
    np.testing.assert_array_equal(again(TEXTS), embedder.model.encode(TEXTS))
    assert [type(module).__name__ for module in again.model] == ["Transformer", "Pooling", "Normalize"]


def test_a_plain_bert_gets_mean_pooling(tmp_path: Path) -> None:
    data = read_pairs(SCORED)
    embedder = Embedder.for_training(write_bert(tmp_path / "bert"), data, epochs=1, plot=False)
    train(embedder, data, tmp_path / "out")
    assert (tmp_path / "out" / "modules.json").exists()
    assert [type(module).__name__ for module in SentenceEncoder(tmp_path / "out")] == ["Transformer", "Pooling"]


@pytest.mark.parametrize("head", ["BertForMaskedLM", "BertForPreTraining"])
def test_a_pretrained_bert_is_a_plain_one(head: str, tmp_path: Path) -> None:
    start = write_bert(tmp_path / "bert")
    plain = SentenceEncoder(start).encode("the cat")
    config = json.loads((start / "config.json").read_text(encoding="utf-8"))
    (start / "config.json").write_text(json.dumps({**config, "architectures": [head]}), encoding="utf-8")
    np.testing.assert_array_equal(SentenceEncoder(start).encode("the cat"), plain)


def test_another_head_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = write_bert(tmp_path / "bert")
    assert len(Embedder.from_pretrained(start)(["the cat"])) == 1
    with pytest.warns(UserWarning, match="drawn at random"):
        model = BertForTokenClassification.from_pretrained(start, num_labels=3)
    model.save_pretrained(start)
    message = f"{start}: not a sentence encoder, its architecture is BertForTokenClassification; "
    for load in (Embedder.from_pretrained, SentenceEncoder):
        with pytest.raises(ValueError, match=f"^{message}"):
            load(start)
    assert main(["embed", "--model", str(start)]) == 1
    assert capsys.readouterr().err.startswith(f"fastattn embed: error: {message}")
    assert SentenceEncoder(start, trainable=True).get_embedding_dimension() == 16  # a start like any other
    config = json.loads((start / "config.json").read_text(encoding="utf-8"))
    (start / "config.json").write_text(json.dumps({**config, "architectures": "BertModel"}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"bert/config\.json: architectures must be a list of names, got 'BertModel'"):
        Embedder.from_pretrained(start)


def test_pairs_get_their_similarity(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"{row['sentence1']}\t{row['sentence2']}\t{row['score']}\n" for row in SCORED)
    path = write(tmp_path / "pairs.tsv", rows)
    names = ["--names", "sentence1", "sentence2", "score"]
    assert main(["predict", "embed", "--model", str(folder), str(path), *names]) == 0
    captured = capsys.readouterr()
    encoder, data = SentenceEncoder(folder), read_pairs(SCORED)
    wanted = encoder.similarity_pairwise(*(encoder.encode(column) for column in data.columns))
    assert captured.out == "".join(f"{value:.6f}\n" for value in wanted.tolist())
    assert captured.err.startswith("spearman_cosine ")
    assert main(["predict", "embed", "--model", str(folder), str(path), "--names", "a", "b", "c", "--texts", "a"]) == 1
    assert "texts must name two columns" in capsys.readouterr().err


def test_an_evaluation_on_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = "question\tanswer\n" + "".join(f"{row['anchor']}\t{row['positive']}\n" for row in TRIPLES)
    path = str(write(tmp_path / "a.tsv", table))
    command = ["train", "embed", "--model", str(folder), "--train", path, path, "--eval", path, "--test", path]
    options = ["--texts", "question", "answer", "--output", str(tmp_path / "out"), "--epochs", "1", "--no-plot"]
    assert main([*command, *options]) == 0
    captured = capsys.readouterr()
    assert "text/s" not in captured.err  # a run has its own progress
    first, test, model = captured.out.splitlines()
    assert first.startswith("epoch 1, step 1: cosine_ndcg@10 ")
    assert test.startswith("test: cosine_ndcg@10 ")
    assert model == f"model: {tmp_path / 'out'}"


def test_stsb() -> None:
    path = Path(os.environ.get("FASTATTN_DATA", "../shared/data"), "stsb", "stsb-en-dev.csv")
    if not path.exists():
        pytest.skip("needs FASTATTN_DATA")
    data = read_pairs(path, names=["sentence1", "sentence2", "score"])
    assert isinstance(data, TextPairs)
    assert (len(data), data.columns[1][0]) == (1500, "A man wearing a hard hat is dancing.")
