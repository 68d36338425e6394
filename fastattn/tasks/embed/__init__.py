"""`SentenceEncoder`, its modules, its training, and search among embeddings. Names are imported on first use."""

from typing import TYPE_CHECKING

from fastattn._lazy import lazy

if TYPE_CHECKING:
    from fastattn.tasks.embed.data import TextPairs, read_pairs
    from fastattn.tasks.embed.encoder import SentenceEncoder
    from fastattn.tasks.embed.evaluation import evaluate_retrieval, evaluate_similarity
    from fastattn.tasks.embed.mining import mine_hard_negatives
    from fastattn.tasks.embed.modules import Dense, LayerNorm, Normalize, Pooling, Transformer
    from fastattn.tasks.embed.search import paraphrase_mining, paraphrase_mining_embeddings, semantic_search
    from fastattn.tasks.embed.truncation import TextTooLongError, TruncationWarning

__all__ = [
    "Dense",
    "LayerNorm",
    "Normalize",
    "Pooling",
    "SentenceEncoder",
    "TextPairs",
    "TextTooLongError",
    "Transformer",
    "TruncationWarning",
    "evaluate_retrieval",
    "evaluate_similarity",
    "mine_hard_negatives",
    "paraphrase_mining",
    "paraphrase_mining_embeddings",
    "read_pairs",
    "semantic_search",
]

__getattr__ = lazy(
    __name__,
    {
        "data": "TextPairs read_pairs",
        "encoder": "SentenceEncoder",
        "evaluation": "evaluate_retrieval evaluate_similarity",
        "mining": "mine_hard_negatives",
        "modules": "Dense LayerNorm Normalize Pooling Transformer",
        "search": "paraphrase_mining paraphrase_mining_embeddings semantic_search",
        "truncation": "TextTooLongError TruncationWarning",
    },
)


def __dir__() -> list[str]:
    return __all__
