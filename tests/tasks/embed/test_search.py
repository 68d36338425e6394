"""Search and mining: exact, whatever the chunks, and as sentence-transformers has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_sentences import write_model

from fastattn.tasks import SentenceEncoder
from fastattn.tasks.embed import (
    mine_hard_negatives,
    paraphrase_mining,
    paraphrase_mining_embeddings,
    read_pairs,
    semantic_search,
)
from fastattn.tasks.embed import search as module
from fastattn.tasks.embed.similarity import SIMILARITIES, similarity

RNG = np.random.default_rng(5)
QUERIES, CORPUS = (RNG.normal(size=(n, 6)).astype(np.float32) for n in (7, 40))
ANCHORS = ["the cat", "a cat", "the", "sat", "query", "zz", "the cat"]
POSITIVES = ["cat", "a cat sat", "a", "the cat sat", "query :", "z", "the the cat"]
PAIRS = [{"anchor": a, "positive": b} for a, b in zip(ANCHORS, POSITIVES, strict=True)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> SentenceEncoder:
    return SentenceEncoder(write_model(tmp_path_factory.mktemp("search") / "m"))


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize(("queries", "corpus"), [(128, 1000), (2, 7), (3, 1)])
def test_the_best_rows_of_a_full_sort(name: str, queries: int, corpus: int) -> None:
    scores = similarity(QUERIES, CORPUS, name)
    found = semantic_search(QUERIES, CORPUS, 9, name, query_chunk_size=queries, corpus_chunk_size=corpus)
    for row, hits in zip(scores, found, strict=True):
        wanted = np.argsort(-row, kind="stable")[:9]
        assert [hit["corpus_id"] for hit in hits] == wanted.tolist()
        assert [hit["score"] for hit in hits] == row[wanted].tolist()


def test_equal_scores_come_in_the_order_of_the_rows() -> None:
    corpus = np.array([[1, 0], [0, 1], [2, 0], [0, 3], [3, 0]] * 5, np.float32)
    for size in (2, 3, 100):
        hits = semantic_search([1, 0], corpus, 12, corpus_chunk_size=size)[0]
        assert [hit["corpus_id"] for hit in hits] == [i for i in range(20) if i % 5 in (0, 2, 4)]
        assert {hit["score"] for hit in hits} == {1.0}


def test_small_and_empty_corpora() -> None:
    assert [len(hits) for hits in semantic_search(QUERIES, CORPUS[:3], 10)] == [3] * 7
    assert semantic_search(QUERIES, np.zeros((0, 6)), 10) == [[]] * 7
    assert semantic_search(np.zeros((0, 6)), CORPUS) == []
    assert paraphrase_mining_embeddings(CORPUS[:1]) == paraphrase_mining_embeddings(np.zeros((0, 6))) == []


def test_no_more_scores_are_held_than_a_chunk_has(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def watched(*arguments: Any) -> Any:
        scores = similarity(*arguments)
        sizes.append(scores.size)
        return scores

    monkeypatch.setattr(module, "similarity", watched)
    semantic_search(QUERIES, CORPUS, 3, query_chunk_size=2, corpus_chunk_size=8)
    paraphrase_mining_embeddings(CORPUS, top_k=3, query_chunk_size=2, corpus_chunk_size=8)
    assert max(sizes) == 16


def test_pairs_are_those_of_a_full_comparison() -> None:
    scores = similarity(CORPUS, CORPUS)
    pairs = [(-scores[i, j], i, j) for i in range(40) for j in range(i + 1, 40)]
    wanted = [[-score, i, j] for score, i, j in sorted(pairs)]
    for sizes in ({}, {"query_chunk_size": 3, "corpus_chunk_size": 7}):
        assert paraphrase_mining_embeddings(CORPUS, **sizes) == wanted
        assert paraphrase_mining_embeddings(CORPUS, max_pairs=5, **sizes) == wanted[:5]
    nearest = {tuple(sorted((i, int(j)))) for i in range(40) for j in np.argsort(-scores[i])[1:3]}
    assert {(i, j) for _, i, j in paraphrase_mining_embeddings(CORPUS, top_k=2)} == nearest


def test_equal_rows_are_paraphrases_of_each_other() -> None:
    found = paraphrase_mining_embeddings(np.ones((4, 3), np.float32), top_k=1)
    assert all(score > 0.999999 and i < j for score, i, j in found)
    assert {0, 1, 2, 3} == {row for _, *pair in found for row in pair}


def test_bad_arguments() -> None:
    for call, message in [
        (lambda: semantic_search(QUERIES, CORPUS[:, :3]), "similarity: a has 6 dimensions, b has 3"),
        (lambda: semantic_search(QUERIES, CORPUS, 0), "semantic_search: top_k must be a positive integer, got 0"),
        (lambda: semantic_search(QUERIES, CORPUS, 1, "l1"), "semantic_search: score_function must be one of cosine"),
        (lambda: semantic_search(QUERIES * np.nan, CORPUS), "semantic_search: embeddings must be finite"),
        (lambda: semantic_search(["a"], CORPUS), "semantic_search: query_embeddings must hold numbers"),
        (lambda: paraphrase_mining_embeddings(CORPUS, max_pairs=0), "paraphrase_mining: max_pairs must be"),
        (lambda: paraphrase_mining_embeddings(CORPUS[None]), r"paraphrase_mining: embeddings must have shape"),
    ]:
        with pytest.raises((TypeError, ValueError), match=f"^{message}"):
            call()


def test_sentence_transformers_finds_the_same() -> None:
    util = pytest.importorskip("sentence_transformers.util", reason="compares with sentence-transformers")
    torch = pytest.importorskip("torch", reason="compares with sentence-transformers")
    a, b = torch.tensor(QUERIES), torch.tensor(CORPUS)
    ours, theirs = semantic_search(QUERIES, CORPUS, 5), util.semantic_search(a, b, top_k=5)
    for hits, wanted in zip(ours, theirs, strict=True):
        assert [hit["corpus_id"] for hit in hits] == [hit["corpus_id"] for hit in wanted]
        np.testing.assert_allclose([hit["score"] for hit in hits], [hit["score"] for hit in wanted], atol=1e-6)
    for options in ({"top_k": 3}, {"max_pairs": 9}):
        mined, wanted = paraphrase_mining_embeddings(CORPUS, **options), util.paraphrase_mining_embeddings(b, **options)
        assert [pair[1:] for pair in mined] == [pair[1:] for pair in wanted]
        np.testing.assert_allclose([pair[0] for pair in mined], [pair[0] for pair in wanted], atol=1e-6)


def test_paraphrases_of_sentences(encoder: SentenceEncoder) -> None:
    sentences = ["the cat sat", "zz", "the cat sat"]
    score, *pair = paraphrase_mining(encoder, sentences)[0]
    assert (round(score, 5), pair) == (1.0, [0, 2])
    assert paraphrase_mining(encoder, sentences, max_pairs=1, truncate_dim=3)[0][1:] == [0, 2]


def test_paraphrases_of_sentences_have_the_options_of_embeddings(encoder: SentenceEncoder) -> None:
    sentences = [f"{a} {b}" for a in ("the cat", "query", "abc") for b in ("sat", "zz", ".")]
    embeddings = encoder.encode(sentences)
    chunks = {"query_chunk_size": 2, "corpus_chunk_size": 4}
    for options in (chunks, {"score_function": "dot"}, {"score_function": "euclidean", **chunks}):
        wanted = paraphrase_mining_embeddings(embeddings, **options)
        assert paraphrase_mining(encoder, sentences, **options) == wanted
    with pytest.raises(ValueError, match="query_chunk_size must be"):
        paraphrase_mining(encoder, sentences, query_chunk_size=0)
    with pytest.raises((TypeError, ValueError), match="score_function must be"):
        paraphrase_mining(encoder, sentences, score_function=np.dot)


MINING: list[dict[str, Any]] = [
    {},
    {"num_negatives": 2, "output_scores": True},
    {"range_min": 1, "range_max": 4},
    {"absolute_margin": 0.1},
    {"relative_margin": 0.05, "output_scores": True},
    {"max_score": 0.9, "min_score": 0.2},
    {"output_format": "n-tuple", "num_negatives": 2, "output_scores": True},
]


@pytest.mark.parametrize("options", MINING)
def test_negatives_are_none_of_the_positives(encoder: SentenceEncoder, options: dict[str, Any]) -> None:
    rows = mine_hard_negatives(encoder, PAIRS, **options)
    assert rows
    for row in rows:
        answers = {pair["positive"] for pair in PAIRS if pair["anchor"] == row["anchor"]}
        found = {text for name, text in row.items() if name.startswith("negative")}
        assert row["positive"] in answers
        assert found
        assert not found & answers
    data = read_pairs(rows)
    assert data.scores is None
    assert len(data.columns) == (4 if "output_format" in options else 3)


@pytest.mark.parametrize("options", MINING)
def test_sentence_transformers_mines_the_same(encoder: SentenceEncoder, tmp_path: Path, options: Any) -> None:
    util = pytest.importorskip("sentence_transformers.util", reason="compares with sentence-transformers")
    datasets = pytest.importorskip("datasets", reason="sentence-transformers mines with it")
    from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found,unused-ignore]

    encoder.save_pretrained(tmp_path)
    grouped = sorted(PAIRS, key=lambda pair: ANCHORS.index(pair["anchor"]))
    wanted = util.mine_hard_negatives(
        datasets.Dataset.from_list(grouped), SentenceTransformer(str(tmp_path)), verbose=False, **options
    ).to_list()
    ours = mine_hard_negatives(encoder, grouped, **options)
    for row in wanted:
        if "scores" in row:
            row["scores"] = pytest.approx(row["scores"], abs=1e-5)
    assert ours == wanted


def test_random_negatives_are_drawn_from_the_seed(encoder: SentenceEncoder) -> None:
    options: Any = {"sampling_strategy": "random", "num_negatives": 1, "range_max": 6}
    first, again, other = (mine_hard_negatives(encoder, PAIRS, seed=seed, **options) for seed in (1, 1, 2))
    assert first == again != other


def test_a_corpus_adds_candidates(encoder: SentenceEncoder) -> None:
    rows = mine_hard_negatives(encoder, PAIRS, corpus=["the cat ."], num_negatives=5)
    assert "the cat ." in {row["negative"] for row in rows}


def test_mining_refuses(encoder: SentenceEncoder) -> None:
    scored = [{"sentence1": "a", "sentence2": "b", "score": 1}]
    for data, options, message in [
        (scored, {}, "mine_hard_negatives: data must have anchors and positives, got scores"),
        (PAIRS, {"num_negatives": 0}, "mine_hard_negatives: num_negatives must be a positive integer"),
        (PAIRS, {"range_max": 2}, "mine_hard_negatives: num_negatives must be at most range_max - range_min, 2, got 3"),
        (PAIRS, {"output_format": "list"}, "mine_hard_negatives: output_format must be one of triplet, n-tuple"),
    ]:
        with pytest.raises(ValueError, match=f"^{message}"):
            mine_hard_negatives(encoder, data, **options)
