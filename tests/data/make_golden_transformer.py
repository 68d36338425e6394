"""Make transformer.npz of tests/models/test_transformer.py: `python tests/data/make_golden_transformer.py`.

For each case of tests/helpers_transformer.py what tests/helpers_transformer_torch.py computes, in float64, rounded to
float32: the loss, the logits and the gradients of all parameters, in the order of their names. Needs torch; written
with torch 2.13.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from helpers_transformer import CASES  # noqa: E402
from helpers_transformer_torch import golden  # noqa: E402


def main() -> None:
    arrays: dict[str, np.ndarray] = {}
    for name in CASES:
        arrays.update(golden(name))
    np.savez_compressed(HERE / "transformer.npz", **arrays)


if __name__ == "__main__":
    main()
