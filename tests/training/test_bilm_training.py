"""A bidirectional language model learns the text that bilm-tf's own test of training learns."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from fastattn.models import BidirectionalLanguageModel, ElmoConfig
from fastattn.random import manual_seed
from fastattn.tasks.streams.loss import StreamLoss, perplexities
from fastattn.text import (
    StreamBatches,
    Vocabulary,
    character_ids,
    read_sentences,
    sentence_batches,
    unigram_perplexity,
)
from fastattn.training import Adam, Trainer

EPOCHS = 40


@pytest.fixture
def data() -> Path:
    folder = (
        Path(os.environ.get("FASTATTN_DATA") or Path(__file__).parents[3] / "shared" / "data") / "bilm-tf" / "train"
    )
    if not (folder / "data.txt").is_file():
        pytest.skip(f"bilm-tf's training text is missing: {folder} (set FASTATTN_DATA)")
    return folder


@pytest.mark.parametrize("num_sampled", [None, 16])
def test_bilm_tf_demands_a_perplexity_below_20(data: Path, num_sampled: int | None) -> None:
    text, vocabulary = read_sentences([data / "data.txt"]), Vocabulary.from_file(data / "vocab.txt")
    assert (text.tokens, len(vocabulary)) == (139, 32)
    config = ElmoConfig(
        char_embedding_dim=4,
        filters=((1, 16), (2, 16), (3, 32)),
        n_highway=1,
        dim=64,
        projection_dim=16,
        vocabulary_size=len(vocabulary),
        num_sampled=num_sampled,
        lstm_dropout=0.0,
    )
    manual_seed(0)
    model = BidirectionalLanguageModel(config)
    characters = partial(character_ids, max_characters=config.max_characters_per_token)
    batches = StreamBatches(text, vocabulary, characters, batch_size=2, unroll_steps=10)
    loss = StreamLoss(model)
    optimizer = Adam(model.parameters(), lr=5e-3)
    trainer = Trainer(model, optimizer, None, batches, epochs=EPOCHS, loss=loss, carried=loss, progress=False)
    trainer.train()
    found = perplexities(model, sentence_batches(text, vocabulary, characters))
    assert unigram_perplexity(text, text, vocabulary) == pytest.approx(16.48, abs=0.01)
    for name, value in found.items():
        assert value < 8, name  # and so below that of a model that ignores the context
