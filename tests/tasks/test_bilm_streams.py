"""The loss of a stream from step to step, and the perplexity of a text."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers_language_model import SENTENCES, TEXT, VOCABULARY, batch_of, characters, halves, losses, make, streams

from fastattn.random import manual_seed
from fastattn.tasks.streams.loss import StreamLoss, perplexities
from fastattn.text import sentence_batches


def test_a_stream_goes_on_from_step_to_step() -> None:
    model = make()
    first, second = halves(streams(), 3, 6, 2)
    loss = StreamLoss(model)
    assert loss.state_dict() == {}
    values = [loss(first).item(), loss(second).item()]
    state = model(**first).state
    assert values == [model(**first).loss.item(), model(**second, state=state).loss.item()]
    model.zero_grad()
    loss.load_state_dict({})
    one = loss(first)
    saved = loss.state_dict()
    assert {name: array.shape for name, array in saved.items()} == {
        "0.h": (2, 2, 4), "0.c": (2, 2, 6), "1.h": (2, 2, 4), "1.c": (2, 2, 6),
    }  # fmt: skip
    two = loss(second)
    two.backward()  # which does not reach the step before
    one.backward()
    again = StreamLoss(model)
    again.load_state_dict(saved)
    assert again(second).item() == values[1]


def test_a_stream_may_begin_anew() -> None:
    """With the probability `reset`, each direction by itself; with 1 it always does."""
    model = make()
    first, second = halves(streams(), 3, 6, 2)
    carried = model(**first).state
    always, never, sometimes = (StreamLoss(model, reset) for reset in (1.0, 0.0, 0.5))
    for loss in (always, never, sometimes):
        loss(first)
    assert always(second).item() == model(**second).loss.item()
    assert never(second).item() == model(**second, state=carried).loss.item()
    possible = set()
    for kept in np.ndindex(2, 2, 2, 2):
        keep = np.array(kept, np.float32).reshape(2, 2, 1)
        possible.add(model(**second, state=[(h * keep, c * keep) for h, c in carried]).loss.item())
    saved, seen = sometimes.state_dict(), []
    for seed in (*range(12), 11):
        manual_seed(seed)
        sometimes.load_state_dict(saved)
        seen.append(sometimes(second).item())
    assert possible >= set(seen)
    assert len(set(seen)) > 4
    assert seen[-1] == seen[-2]
    with pytest.raises(ValueError, match=r"StreamLoss: reset must be a number in \[0, 1\], got 1\.5"):
        StreamLoss(model, 1.5)


# Perplexity


def test_perplexities_do_not_depend_on_the_batches() -> None:
    model = make(lstm_dropout=0.5, num_sampled=2)
    results = []
    for budget in (1, 9, 1000):
        results.append(perplexities(model, sentence_batches(TEXT, VOCABULARY, characters, budget)))
        assert model.training
        assert model.network.dropout.training
    for result in results[1:]:
        assert result == pytest.approx(results[0], rel=1e-6)
    model.eval()
    both, forward, backward = losses(model, batch_of(SENTENCES))
    assert results[0] == pytest.approx(
        {
            "perplexity": math.exp(both),
            "forward_perplexity": math.exp(forward),
            "backward_perplexity": math.exp(backward),
        },
        rel=1e-5,
    )
    perplexities(model, [batch_of(SENTENCES)])
    assert not model.training


def test_a_model_that_knows_nothing() -> None:
    model = make()
    model.softmax.weight.data[...] = model.softmax.bias.data[...] = 0
    values = perplexities(model, [batch_of(SENTENCES)])
    assert list(values.values()) == pytest.approx([len(VOCABULARY)] * 3, rel=1e-5)


def test_perplexities_of_nothing() -> None:
    with pytest.raises(ValueError, match="perplexities: there are no tokens"):
        perplexities(make(), [])
