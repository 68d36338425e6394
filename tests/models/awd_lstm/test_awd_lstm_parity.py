"""AWD-LSTM against a plain one in PyTorch, without dropout: states, loss with penalties, and gradients."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from fastattn import use_reference
from fastattn.models import AwdLstmConfig, AwdLstmForLanguageModel
from fastattn.random import manual_seed

torch = pytest.importorskip("torch", reason="compares with torch")

BATCH, STEPS = 3, 7
CONFIG = AwdLstmConfig(
    vocabulary_size=13,
    embedding_dim=6,
    dim=9,
    **dict.fromkeys(("embedding_dropout", "input_dropout", "hidden_dropout", "output_dropout", "weight_dropout"), 0.0),
)


def theirs(model: AwdLstmForLanguageModel, ids: Any, targets: Any, state: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Loss, states and gradients of one direction; ids and targets are `[batch, steps]`."""
    config = model.config
    weights = {name: torch.tensor(p.data, requires_grad=True) for name, p in model.named_parameters()}
    x = torch.nn.functional.embedding(torch.tensor(ids.T.copy()), weights["networks.0.embedding.weight"])
    states = []
    for i, (inputs, size) in enumerate(config.sizes):
        layer = torch.nn.LSTM(inputs, size).to(x.dtype)
        own = {name: weights[f"networks.0.layers.{i}.{name}"] for name, _ in layer.named_parameters()}
        x, last = torch.func.functional_call(layer, own, (x, tuple(torch.tensor(each) for each in state[i])))
        states.append([each.detach().numpy() for each in last])
    decoder = weights["networks.0.embedding.weight" if config.tie_weights else "decoders.0.weight"]
    logits = torch.nn.functional.linear(x, decoder, weights["decoders.0.bias"])
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(targets.T.copy()).flatten())
    loss = loss + config.activation_penalty * x.pow(2).mean()
    loss = loss + config.temporal_penalty * (x[1:] - x[:-1]).pow(2).mean()
    loss.backward()
    return loss.item(), states, {name: weight.grad.numpy() for name, weight in weights.items()}


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-9)])
@pytest.mark.parametrize("tied", [True, False])
def test_it_is_pytorchs(dtype: Any, tolerance: float, tied: bool) -> None:
    manual_seed(0)
    model, rng = AwdLstmForLanguageModel(CONFIG.replace(tie_weights=tied)), np.random.default_rng(0)
    for parameter in model.parameters():
        parameter.data[...] = rng.normal(0, 0.4, parameter.shape)
    model.astype(dtype)
    ids, targets = rng.integers(0, 13, (2, BATCH, STEPS))
    state = [tuple(rng.normal(0, 0.5, (1, BATCH, size)).astype(dtype) for _ in "hc") for _, size in CONFIG.sizes]
    if not tied:
        state[-1] = tuple(rng.normal(0, 0.5, (1, BATCH, CONFIG.dim)).astype(dtype) for _ in "hc")
    offsets = np.arange(BATCH + 1) * STEPS
    with use_reference() if dtype is np.float64 else nullcontext():
        output = model(ids.reshape(1, -1), targets.reshape(1, -1), offsets, state)
        output.loss.backward()
    loss, states, gradients = theirs(model, ids, targets, state)
    np.testing.assert_allclose(output.loss.item(), loss, rtol=tolerance)
    for pair, other in zip(output.state, states, strict=True):
        for ours, other_states in zip(pair, other, strict=True):
            np.testing.assert_allclose(ours, other_states, atol=tolerance)
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.grad, gradients[name], atol=tolerance, err_msg=name)
