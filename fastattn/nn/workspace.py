"""The buffers of one forward pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike


class Workspace:
    """Memory for what lies between the layers of an encoder, taken once per call and used by all its layers.

    Fresh memory costs as much as a pass over it, and a view a microsecond. A call has its own workspace, so
    calls on other threads never meet. `hidden` shares its memory with the attention's buffers: one is done
    with before the other begins.

    - `query_key_value` `[tokens, 3 * dim]`; its thirds `query`, `key`, `value` `[tokens, heads, head_dim]`
    - `context` `[tokens, dim]`, the same memory as `heads` `[tokens, heads, head_dim]`: attention's result
    - `hidden` `[tokens, hidden_dim]`: the feed-forward network's inner layer
    - `output` `[tokens, dim]`: what either of them gives
    """

    __slots__ = ("context", "heads", "hidden", "key", "output", "query", "query_key_value", "value")

    def __init__(
        self, tokens: int, dim: int, num_heads: int, hidden_dim: int = 0, dtype: DTypeLike = np.float32
    ) -> None:
        size = tokens * (max(4 * dim, hidden_dim) + dim)
        memory = np.empty(size, dtype)
        end = tokens * dim
        self.output = memory[:end].reshape(tokens, dim)
        self.hidden = memory[end : end + tokens * hidden_dim].reshape(tokens, hidden_dim)
        self.query_key_value = memory[end : 4 * end].reshape(tokens, 3 * dim)
        self.context = memory[4 * end : 5 * end].reshape(tokens, dim)
        parts = self.query_key_value.reshape(tokens, 3, num_heads, dim // num_heads)
        self.query, self.key, self.value = parts[:, 0], parts[:, 1], parts[:, 2]
        self.heads = self.context.reshape(tokens, num_heads, dim // num_heads)
