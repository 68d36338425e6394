"""Every family against transformers: hidden states, every head's logits and loss, every gradient, folders both ways.

A family needs nothing but its row in `helpers_families`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import array
from helpers_families import HEADS, LABELS, ROWS, draw_fields, make_call, weights

import fastattn
from fastattn.models.registry import family, load_encoder, load_head

torch = pytest.importorskip("torch", reason="torch, the other side of the parity tests, is not installed")
transformers = pytest.importorskip(
    "transformers", reason="transformers, the other side of the parity tests, is not installed"
)

from helpers_rotary_torch import in_double  # noqa: E402 - imports torch

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not our errors

torch.set_num_threads(1)  # the arrays are small

PROBLEMS = [  # of SequenceClassification
    {"num_labels": LABELS},
    {"num_labels": 1, "problem_type": "regression"},
    {"num_labels": LABELS, "problem_type": "regression"},
    {"num_labels": LABELS, "problem_type": "multi_label_classification"},
]
ONES = ["logits", "start_logits", "end_logits", "prediction_logits", "seq_relationship_logits", "sop_logits"]


def random_model(name: str, kind: str, seed: int, **changes: Any) -> Any:
    """A model of transformers: an encoder, or one with a head."""
    fields = draw_fields(name, seed, **changes)
    del fields["model_type"]
    if kind == "SequenceClassification":
        fields |= PROBLEMS[seed % len(PROBLEMS)]
    elif kind == "TokenClassification":
        fields["num_labels"] = LABELS
    begin = ROWS[name].theirs
    config = getattr(transformers, f"{begin}Config")(**fields, attn_implementation="eager")
    model = getattr(transformers, f"{begin}For{kind}" if kind else f"{begin}Model")(config).eval()
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for own, values in weights({own: tuple(p.shape) for own, p in parameters.items()}, seed).items():
            parameters[own].copy_(torch.tensor(values))
    return model


def theirs_of(model: Any, call: dict[str, Any]) -> Any:
    tensors = {name: torch.tensor(value) for name, value in call.items()}
    tensors = {name: x.to(model.dtype) if x.is_floating_point() else x for name, x in tensors.items()}
    return model(**tensors, output_hidden_states=True, output_attentions=True)


def compare(ours: Any, theirs: Any, call: dict[str, Any], rtol: float) -> None:
    """The outputs: ours are 0 at the padding."""
    mask = call["attention_mask"]
    flat = mask.reshape(-1, mask.shape[-1])
    pairs = [(name, getattr(ours, name), getattr(theirs, name)) for name in ONES if hasattr(theirs, name)]
    assert pairs or hasattr(theirs, "last_hidden_state")
    for name in ("last_hidden_state", "pooler_output"):
        if getattr(theirs, name, None) is not None:
            pairs.append((name, getattr(ours, name), getattr(theirs, name)))
    for name in ("hidden_states", "attentions"):
        own, wanted = getattr(ours, name), getattr(theirs, name)
        assert len(own) == len(wanted), name
        pairs += [(f"{name}[{i}]", *pair) for i, pair in enumerate(zip(own, wanted, strict=True))]
    for name, own, wanted in pairs:
        actual, expected = array(own), wanted.detach().numpy()
        assert actual.shape == expected.shape, name
        if name.startswith("attentions"):
            expected = expected * flat[:, None, :, None]
        elif expected.shape[:2] == flat.shape and name != "pooler_output":
            expected = expected * flat.reshape(*flat.shape, *[1] * (expected.ndim - 2))
        limit = rtol * max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=limit, err_msg=name)


def gradients_of(model: Any) -> dict[str, Any]:
    """By every name: which name of a shared parameter is the first one depends on the class."""
    named = model.named_parameters(remove_duplicate=False)
    return {name: p.grad.numpy() for name, p in named if p.grad is not None}


@pytest.mark.parametrize(("name", "seed"), [(name, i) for name, row in ROWS.items() for i in range(row.configurations)])
def test_random_configurations_in_float64(name: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # ELECTRA's loss would be in float32
    row, found = ROWS[name], family(name)
    for kind in ("", *found.heads):
        theirs = in_double(random_model(name, kind, seed))
        config = found.config.from_dict(theirs.config.to_dict())
        call = make_call(kind, config, row.pair_label, np.random.default_rng(seed))
        ours: Any = (found.head(kind) if kind else found.encoder)(config)  # type: ignore[misc]  # each row has one
        ours.astype(np.float64)
        ours.load_state_dict({own: tensor.numpy() for own, tensor in theirs.state_dict().items()})
        ours.eval()
        expected = theirs_of(theirs, call)
        with fastattn.use_reference():
            actual = ours(**call, output_hidden_states=True, output_attentions=True)
            compare(actual, expected, call, 1e-9)
            if kind:
                assert abs(float(actual.loss) - expected.loss.item()) <= 1e-9 * max(1.0, expected.loss.item())
                actual.loss.backward()
            else:
                dy = np.random.default_rng(seed).normal(size=expected.last_hidden_state.shape)
                dy *= call["attention_mask"][..., None]
                actual.last_hidden_state.backward(dy)
        if kind:
            expected.loss.backward()
        else:
            expected.last_hidden_state.backward(torch.tensor(dy))
        wanted, got = gradients_of(theirs), {own: p.grad for own, p in ours.named_parameters()}
        assert {own for own, _ in ours._names()} == set(theirs.state_dict())
        top = max(1.0, *(float(np.abs(gradient).max()) for gradient in wanted.values()))
        for own, gradient in got.items():
            other = wanted.get(own)
            if gradient is None or other is None:  # a layer that has no part in the loss
                assert not np.any(other if gradient is None else gradient), own
            else:
                np.testing.assert_allclose(gradient, other, rtol=0, atol=1e-9 * top, err_msg=f"{kind} {own}")


@pytest.mark.parametrize(("name", "kind"), HEADS)
def test_float32_and_folders_both_ways(tmp_path: Path, name: str, kind: str) -> None:
    """A folder of theirs is loaded here, and what is saved here gives the same numbers there."""
    for seed in range(3):
        theirs = random_model(name, kind, seed)
        theirs.save_pretrained(tmp_path / "theirs")
        ours = load_head(tmp_path / "theirs", kind)
        call = make_call(kind, ours.config, ROWS[name].pair_label, np.random.default_rng(seed))
        before = theirs_of(theirs, call)
        ours.save_pretrained(tmp_path / "ours")
        auto = transformers.AutoConfig.from_pretrained(tmp_path / "ours")
        assert auto.model_type == name
        assert auto.architectures == [type(theirs).__name__]
        again, report = type(theirs).from_pretrained(
            tmp_path / "ours", output_loading_info=True, attn_implementation="eager"
        )
        assert not any(report.values()), report
        after = theirs_of(again.eval(), call)
        assert after.loss.item() == pytest.approx(before.loss.item(), rel=1e-6)
        states = theirs.state_dict(), again.state_dict()
        assert list(states[0]) == list(states[1])
        assert all(torch.equal(states[0][own], states[1][own]) for own in states[0])

        theirs = in_double(theirs)
        expected, actual = theirs_of(theirs, call), ours(**call, output_hidden_states=True, output_attentions=True)
        compare(actual, expected, call, 1e-4)
        assert actual.loss.item() == pytest.approx(expected.loss.item(), rel=2e-5)
        expected.loss.backward()
        actual.loss.backward()
        got = {own: p.grad for own, p in ours.named_parameters() if p.grad is not None}
        wanted = gradients_of(theirs)
        top = max(float(np.abs(gradient).max()) for gradient in wanted.values())
        for own, gradient in got.items():
            limit = max(1e-4 * float(np.abs(wanted[own]).max()), 1e-6 * top)
            np.testing.assert_allclose(gradient, wanted[own], rtol=0, atol=limit, err_msg=own)
        assert not any(wanted[own].any() for own, p in ours.named_parameters() if p.grad is None and own in wanted)


@pytest.mark.parametrize("name", ROWS)
def test_encoders_and_their_folders(tmp_path: Path, name: str) -> None:
    theirs = random_model(name, "", 1)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = family(name).encoder.from_pretrained(tmp_path / "theirs")  # type: ignore[union-attr]  # each row has one
    call = make_call("", ours.config, "", np.random.default_rng(1))
    with torch.no_grad():
        compare(ours(**call, output_hidden_states=True, output_attentions=True), theirs_of(theirs, call), call, 2e-5)
    ours.save_pretrained(tmp_path / "ours")
    again, report = type(theirs).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    states = theirs.state_dict(), again.state_dict()
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][own], states[1][own]) for own in states[0])
    plain = load_encoder(tmp_path / "ours")
    assert plain.pooler is None
