"""Make bert_heads.npz of tests/models/test_bert_heads.py: `python tests/data/make_golden_heads.py`.

For each case of tests/helpers_heads.py what transformers computes, in float64, rounded to float32: the loss, the
logits and the gradients of all parameters, in the order of their names, NaN where there is none. Needs torch and
transformers; written with torch 2.13 and transformers 5.23.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import transformers

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from helpers_heads import CASES, make_case, weights  # noqa: E402

LOGITS = ("logits", "start_logits", "end_logits", "prediction_logits", "seq_relationship_logits")


def main() -> None:
    arrays = {}
    for name in CASES:
        case = make_case(name)
        config = transformers.BertConfig(**case.config, attn_implementation="eager")
        model = getattr(transformers, case.kind)(config).double().eval()
        with torch.no_grad():
            parameters = dict(model.named_parameters())
            for key, array in weights({key: tuple(p.shape) for key, p in parameters.items()}).items():
                parameters[key].copy_(torch.tensor(array))
        tensors = {key: torch.tensor(value) for key, value in case.call.items()}
        output = model(**{key: x.double() if x.is_floating_point() else x for key, x in tensors.items()})
        output.loss.backward()
        arrays[f"{name}/loss"] = output.loss.detach().numpy()
        for key in LOGITS:
            if hasattr(output, key):
                arrays[f"{name}/{key}"] = getattr(output, key).detach().numpy()
        gradients = [
            p.grad.ravel() if p.grad is not None else p.ravel() * np.nan for _, p in sorted(parameters.items())
        ]
        arrays[f"{name}/gradients"] = torch.cat(gradients).detach().numpy()
    np.savez_compressed(HERE / "bert_heads.npz", **{key: np.asarray(x, np.float32) for key, x in arrays.items()})


if __name__ == "__main__":
    main()
