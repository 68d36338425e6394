"""What torch makes of the cases of `helpers_recurrent`: for the parity tests, and for the golden file."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from helpers_recurrent import Case, named


def torch_results(case: Case, gradients: Any) -> dict[str, Any]:
    """What `named` gives, computed by nn.LSTM or nn.GRU in float64 on packed sequences."""
    directions, lstm = len(case.weights), case.kind == "lstm"
    inputs, hidden = case.weights[0][0].shape[1], case.weights[0][0].shape[0] // (4 if lstm else 3)
    projection = 0 if not lstm or case.weights[0][3] is None else case.weights[0][1].shape[1]
    bias = case.weights[0][2] is not None
    layer = (torch.nn.LSTM if lstm else torch.nn.GRU)(
        inputs, hidden, bias=bias, bidirectional=directions == 2, **({"proj_size": projection} if projection else {})
    ).double()
    parameters = []
    for d, weights in enumerate(case.weights):
        suffix = "_l0" + ("_reverse" if d else "")
        names = ("weight_ih", "weight_hh", "bias_ih", "weight_hr" if lstm else "bias_hh")
        own = [getattr(layer, name + suffix, None) for name in names]
        with torch.no_grad():
            if lstm and bias:  # ours has the sum of both
                getattr(layer, f"bias_hh{suffix}").zero_()
            for parameter, weight in zip(own, weights, strict=True):
                if parameter is not None:
                    parameter.copy_(torch.tensor(weight))
        parameters.append(own)

    x = torch.tensor(case.x, dtype=torch.float64, requires_grad=True)
    states = [torch.tensor(state, dtype=torch.float64, requires_grad=True) for state in case.states]
    lengths = np.diff(case.cu_seqlens).tolist()
    packed = torch.nn.utils.rnn.pack_sequence(x.split(lengths), enforce_sorted=False)
    y, final = layer(packed, tuple(states) if lstm else states[0])
    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True)
    results = [torch.cat([row[:n] for row, n in zip(padded, lengths, strict=True)]), *(final if lstm else (final,))]
    torch.autograd.backward(results, [torch.tensor(g, dtype=torch.float64) for g in gradients])

    def gradient(tensor: Any) -> Any:
        return None if tensor is None else tensor.grad.numpy()

    dweights = tuple(tuple(map(gradient, own)) for own in parameters)
    return named(case, [r.detach().numpy() for r in results], (gradient(x), dweights, *map(gradient, states)))
