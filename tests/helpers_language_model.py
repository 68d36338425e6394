"""A small bidirectional language model, its text, and the streams of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastattn import no_grad
from fastattn.models import BidirectionalLanguageModel, ElmoConfig
from fastattn.random import manual_seed
from fastattn.text import Sentences, Vocabulary, character_ids, sentence_batches

CONFIG = ElmoConfig(
    char_embedding_dim=4,
    filters=((1, 3), (2, 5)),
    n_highway=1,
    max_characters_per_token=8,
    dim=6,
    projection_dim=4,
    cell_clip=0.8,
    proj_clip=0.5,
)
SENTENCES = [["the", "cat", "sat", "on", "it"], ["so", "it", "is"], ["the", "cat", "is", "so", "so"], ["a"]]
TEXT = Sentences.from_words(SENTENCES)
VOCABULARY = Vocabulary.build(TEXT, min_count=2)


def characters(words: Any) -> Any:
    return character_ids(words, CONFIG.max_characters_per_token)


def make(seed: int = 0, config: ElmoConfig = CONFIG, **options: Any) -> BidirectionalLanguageModel:
    """A model with weights that are large enough for every word to matter."""
    manual_seed(seed)
    model = BidirectionalLanguageModel(
        config.replace(**{"vocabulary_size": len(VOCABULARY), "lstm_dropout": 0.0, **options})
    )
    rng = np.random.default_rng(seed)
    for parameter in model.parameters():
        parameter.data[...] = rng.normal(0, 0.4, parameter.shape)
    return model


def batch_of(sentences: list[list[str]], budget: int = 1000) -> dict[str, Any]:
    (batch,) = sentence_batches(Sentences.from_words(sentences), VOCABULARY, characters, budget)
    return batch


def losses(model: BidirectionalLanguageModel, batch: dict[str, Any], state: Any = None) -> list[float]:
    with no_grad():
        output = model(**batch, state=state)
    return [output.loss.item(), output.forward_loss.item(), output.backward_loss.item()]


def halves(batch: dict[str, Any], cut: int, length: int, streams: int) -> list[dict[str, Any]]:
    """The streams of a batch, cut in two."""
    pieces = []
    for window in (slice(0, cut), slice(cut, length)):
        count = window.stop - window.start
        rows = {
            name: batch[name].reshape(2, streams, length)[..., window].reshape(2, -1) for name in ("inputs", "targets")
        }
        pieces.append({**batch, **rows, "cu_seqlens": np.arange(streams + 1, dtype=np.int32) * np.int32(count)})
    return pieces


def streams() -> dict[str, Any]:
    return batch_of([SENTENCES[0], SENTENCES[2]])  # of six tokens each
