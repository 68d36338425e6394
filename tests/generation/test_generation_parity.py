"""Greedy and beam search against transformers' `generate`, on random models and random options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastattn.generation import generate
from fastattn.models import Transformer

torch = pytest.importorskip("torch", reason="torch, the other side of the parity tests, is not installed")
transformers = pytest.importorskip(
    "transformers", reason="transformers, the other side of the parity tests, is not installed"
)

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not our errors

MODELS, DRAWS = 30, 20
SCORES = 1e-4
TIE = 1e-5
"""The most that scores differ by rounding. Both are relative to scores above 1."""
NOTHING = -1e6
"""Scores below are those of beams that do not exist: theirs begin with -1e9."""


def random_model(rng: np.random.Generator, seed: int) -> Any:
    """A transformers model whose sequences end at different lengths."""
    ends = [0] if rng.random() < 0.7 else [0, 7]
    config = transformers.MarianConfig(
        vocab_size=61,
        d_model=int(rng.choice([32, 48])),
        encoder_layers=1,
        decoder_layers=int(rng.integers(1, 3)),
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=72,
        max_position_embeddings=48,
        pad_token_id=60,
        decoder_start_token_id=60,
        eos_token_id=ends if len(ends) > 1 else 0,
        forced_eos_token_id=0 if rng.random() < 0.5 else None,
        scale_embedding=bool(rng.random() < 0.5),
        activation_function="swish",
        attn_implementation="eager",
    )
    model = transformers.MarianMTModel(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_positions" not in name:
                parameter.normal_("layer_norm.weight" in name, config.d_model**-0.5, generator=generator)
        model.final_logits_bias.normal_(0.0, 0.3, generator=generator)
        model.final_logits_bias[0, ends] += rng.uniform(0.0, 4.0)
    return model


def options(rng: np.random.Generator) -> dict[str, Any]:
    """Random options, as `generate` of both takes them."""
    beams = int(rng.choice([1, 2, 3, 4, 5, 6]))
    found: dict[str, Any] = {"num_beams": beams, "max_length": int(rng.integers(3, 20))}
    if beams > 1:
        found["early_stopping"] = [True, False, "never"][rng.integers(3)]
        found["length_penalty"] = float(rng.choice([-1.0, -0.5, 0.0, 0.6, 1.0, 1.5, 2.0]))
        found["num_return_sequences"] = int(rng.integers(1, beams + 1))
    drawn = {
        "min_length": int(rng.integers(2, found["max_length"])),
        "no_repeat_ngram_size": int(rng.integers(1, 4)),
        "repetition_penalty": float(rng.choice([0.8, 1.2, 2.0])),
        "forced_bos_token_id": int(rng.integers(1, 60)),
        "forced_eos_token_id": int(rng.choice([0, 9])),
        "bad_words_ids": [[60], *([int(i) for i in rng.integers(1, 60, n)] for n in (1, 2, 2, 3))],
    }
    found |= {name: value for name, value in drawn.items() if rng.random() < 0.35}
    if rng.random() < 0.2 and found["max_length"] > 5:
        found["prefix_ids"] = rng.integers(1, 60, int(rng.integers(1, 4))).tolist()
    return found


def without_padding(ids: Any, ends: list[int], after: int) -> list[int]:
    """A result up to its first end behind a prompt."""
    row = ids.tolist()
    return next((row[: i + 1] for i in range(after, len(row)) if row[i] in ends), row)


@pytest.mark.parametrize("seed", range(MODELS))
def test_tokens_and_scores(tmp_path: Path, seed: int) -> None:
    """Tokens are equal, scores close. Hypotheses whose scores tie within rounding may differ, and are counted."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    theirs = random_model(rng, seed)
    theirs.save_pretrained(tmp_path)
    ours = Transformer.from_pretrained(tmp_path)
    ends = theirs.config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    ties = 0
    for _ in range(DRAWS):
        chosen = options(rng)
        lengths = rng.integers(1, 12, 4)
        ids, mask = rng.integers(1, 60, (4, 12)), np.arange(12) < lengths[:, None]
        prefix = chosen.pop("prefix_ids", [])
        given = {"decoder_input_ids": torch.tensor([[60, *prefix]] * 4)} if prefix else {}
        with torch.no_grad():
            expected = theirs.generate(
                torch.tensor(ids), attention_mask=torch.tensor(mask.astype(int)), do_sample=False, output_scores=True,
                return_dict_in_generate=True, **given, **chosen,
            )  # fmt: skip
        found = generate(ours, ids, mask, prefix_ids=[prefix] * 4 if prefix else None, output_scores=True, **chosen)
        assert len(found.sequences) == len(expected.sequences), chosen
        for i, (row, other) in enumerate(zip(found.sequences, expected.sequences.numpy(), strict=True)):
            mine, wanted = (without_padding(each, ends, 1 + len(prefix)) for each in (row, other))
            if chosen["num_beams"] == 1:
                assert mine == wanted, chosen
                continue
            if expected.sequences_scores[i] < NOTHING:
                assert found.sequences_scores[i] == -np.inf, chosen
                continue
            apart = abs(found.sequences_scores[i] - expected.sequences_scores[i].item())
            size = max(1.0, abs(float(found.sequences_scores[i])))  # hundreds, if a penalty of -1 multiplies
            assert apart <= SCORES * size, (chosen, mine, wanted)
            if mine != wanted:
                assert apart <= TIE * size, (chosen, mine, wanted)
                ties += 1
    if ties:
        print(f"{ties} hypotheses tie within rounding with the others")
    assert ties <= 2
