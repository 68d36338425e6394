"""Make recurrent.npz of tests/kernels/test_recurrent_golden.py: `python tests/data/make_golden_recurrent.py`.

For each of TORCH_CASES of tests/helpers_recurrent.py what torch computes on packed sequences, in float64, rounded to
float32: the results and all gradients. Needs torch; written with torch 2.13.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from helpers_recurrent import TORCH_CASES, golden_case  # noqa: E402
from helpers_recurrent_torch import torch_results  # noqa: E402


def main() -> None:
    arrays = {f"{name}/{key}": a for name in TORCH_CASES for key, a in torch_results(*golden_case(name)).items()}
    np.savez_compressed(HERE / "recurrent.npz", **{key: np.asarray(a, np.float32) for key, a in arrays.items()})


if __name__ == "__main__":
    main()
