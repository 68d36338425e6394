"""A layer of your own, trained: a gate mixes, for each token, its own projection with that of its sequence's mean."""

import numpy as np

import fastattn
from fastattn import functional as F
from fastattn import nn
from fastattn.training import AdamW


class Mixer(nn.Module):
    def __init__(self, size: int) -> None:
        self.first, self.second, self.gate = nn.Linear(size, size), nn.Linear(size, size), nn.Linear(size, size)

    def forward(self, x, cu_seqlens):
        mean = F.gather_rows(F.pooling(x, cu_seqlens), np.repeat(np.arange(len(cu_seqlens) - 1), np.diff(cu_seqlens)))
        gate = F.sigmoid(self.gate(x))
        return gate * self.first(mean) + (1 - gate) * self.second(x)


fastattn.manual_seed(0)
rng = np.random.default_rng(0)
cu_seqlens = np.array([0, 5, 8, 20], np.int32)
x = rng.standard_normal((20, 16), np.float32)
means = np.repeat([x[0:5].mean(), x[5:8].mean(), x[8:20].mean()], [5, 3, 12])
target = (x.mean(axis=1) > means).astype(np.int64)  # whether a token is above the mean of its sequence
mixer, output = Mixer(16), nn.Linear(16, 2)
optimizer = AdamW([*mixer.parameters(), *output.parameters()], lr=3e-3)
for step in range(101):
    loss = F.cross_entropy(output(mixer(x, cu_seqlens)), target)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 25 == 0:
        print(f"step {step:>3}: loss {loss.item():.3f}")
