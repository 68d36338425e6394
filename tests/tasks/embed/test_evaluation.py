"""Metrics of embeddings: by hand, and as sentence-transformers' evaluators count them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_sentences import write_model

from fastattn.tasks import SentenceEncoder
from fastattn.tasks.embed import evaluate_retrieval, evaluate_similarity

TEXTS = ["the cat", "a cat sat", "zz top", "query : a", "the", "sat sat", "cat", "a b c d", "the cat .", "the query"]
CORPUS = {f"d{i}": text for i, text in enumerate([*TEXTS, "the cat", "zz", "abc", "cat cat cat"])}
QUERIES = {"q2": "the cat sat", "q1": "zz", "q0": "a query", "unanswered": "sat"}
RELEVANT = {"q2": {"d0", "d8", "d10"}, "q1": {"d2"}, "q0": {"d3", "d9", "not there"}}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> SentenceEncoder:
    return SentenceEncoder(write_model(tmp_path_factory.mktemp("evaluation") / "m"))


class Given:
    """An encoder of numbers."""

    similarity_fn_name = "dot"

    def encode_query(self, texts: list[str], show_progress_bar: bool) -> Any:
        return np.array([[float(text), 1.0] for text in texts], np.float32)

    encode_document = encode_query


def test_retrieval_by_hand() -> None:
    # The query 1 ranks the documents 5, 4, 3, 2, 1; the right ones are the second and the fourth.
    corpus = {i: str(i) for i in range(1, 6)}
    found = evaluate_retrieval(Given(), {0: "1"}, corpus, {0: {4, 2}}, mrr_at_k=[1, 5], map_at_k=[5], ndcg_at_k=[3])  # type: ignore[arg-type]
    gain = 1 / np.log2(3)
    assert found == pytest.approx(
        {
            "dot_ndcg@3": gain / (1 + gain), "dot_mrr@1": 0.0, "dot_mrr@5": 0.5, "dot_map@5": (1 / 2 + 2 / 4) / 2,
            "dot_accuracy@1": 0.0, "dot_accuracy@3": 1.0, "dot_accuracy@5": 1.0, "dot_accuracy@10": 1.0,
            "dot_precision@1": 0.0, "dot_precision@3": 1 / 3, "dot_precision@5": 0.4, "dot_precision@10": 0.2,
            "dot_recall@1": 0.0, "dot_recall@3": 0.5, "dot_recall@5": 1.0, "dot_recall@10": 1.0,
        }
    )  # fmt: skip


def test_what_cannot_be_measured(encoder: SentenceEncoder) -> None:
    for queries, corpus, relevant in (({}, CORPUS, {}), (QUERIES, {}, RELEVANT), (QUERIES, CORPUS, {"q1": set()})):
        with pytest.raises(ValueError, match="evaluate_retrieval: there must be a document, and a query with"):
            evaluate_retrieval(encoder, queries, corpus, relevant)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"evaluate_retrieval: corpus must have ids that can be ordered, got int, str$"):
        evaluate_retrieval(encoder, {1: "cat"}, {1: "cat", "b": "sat"}, {1: [1]})
    with pytest.raises(ValueError, match="evaluate_retrieval: mrr_at_k must be a positive integer, got 0"):
        evaluate_retrieval(encoder, QUERIES, CORPUS, RELEVANT, mrr_at_k=[0])


def test_sentence_transformers_counts_the_same(encoder: SentenceEncoder, tmp_path: Path) -> None:
    module = pytest.importorskip("sentence_transformers", reason="compares with sentence-transformers")
    evaluation = pytest.importorskip("sentence_transformers.evaluation", reason="compares with sentence-transformers")
    encoder.save_pretrained(tmp_path)
    theirs = module.SentenceTransformer(str(tmp_path))
    wanted = evaluation.InformationRetrievalEvaluator(QUERIES, CORPUS, RELEVANT, write_csv=False)(theirs)
    assert evaluate_retrieval(encoder, QUERIES, CORPUS, RELEVANT) == pytest.approx(wanted)
    first, second, scores = TEXTS, TEXTS[::-1], [float(i % 4) for i in range(10)]
    wanted = evaluation.EmbeddingSimilarityEvaluator(first, second, scores, write_csv=False)(theirs)
    assert evaluate_similarity(encoder, first, second, scores) == pytest.approx(wanted, abs=1e-5)
