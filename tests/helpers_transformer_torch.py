"""The Transformer in torch, for padded batches: what ours is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as T
from helpers_transformer import SMOOTHING, call, config_of, weights

from fastattn.models import Transformer

ACTIVATIONS = {
    "relu": T.relu,
    "gelu": T.gelu,
    "silu": T.silu,
    "gelu_new": lambda x: T.gelu(x, approximate="tanh"),
}


class TorchTransformer:
    """`state` has its weights, tensors of float64 that get gradients, under our names."""

    def __init__(self, name: str) -> None:
        self.config = config_of(name)
        shapes = {key: p.shape for key, p in Transformer(self.config).named_parameters()}
        self.state = {key: torch.tensor(array, dtype=torch.float64) for key, array in weights(shapes).items()}
        for key, tensor in self.state.items():
            tensor.requires_grad = key != "final_logits_bias"

    def linear(self, name: str, x: Any) -> Any:
        return T.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def norm(self, name: str, x: Any) -> Any:
        dim, eps = self.config.d_model, self.config.layer_norm_eps
        return T.layer_norm(x, (dim,), self.state[f"{name}.weight"], self.state[f"{name}.bias"], eps)

    def attention(self, name: str, heads: int, x: Any, memory: Any, allowed: Any) -> Any:
        def split(part: str, rows: Any) -> Any:
            return self.linear(f"{name}.{part}_proj", rows).unflatten(-1, (heads, -1)).transpose(1, 2)

        q, k, v = split("q", x), split("k", memory), split("v", memory)
        context = T.scaled_dot_product_attention(q, k, v, attn_mask=allowed[:, None])
        return self.linear(f"{name}.out_proj", context.transpose(1, 2).flatten(2))

    def sublayer(self, norm: str, function: Any, x: Any) -> Any:
        return x + function(self.norm(norm, x)) if self.config.normalize_before else self.norm(norm, x + function(x))

    def positions(self, stack: str, count: int) -> Any:
        config = self.config
        if config.position_embedding_type == "learned":
            return self.state[f"{stack}.embed_positions.weight"][:count]
        frequency = config.max_timescale ** (-torch.arange(0, config.d_model, 2).double() / config.d_model)
        angles = torch.arange(config.first_position, config.first_position + count).double()[:, None] * frequency
        parts = torch.sin(angles), torch.cos(angles)
        if config.position_embedding_type == "marian":
            return torch.cat(parts, dim=1)
        return torch.stack(parts, dim=2).flatten(1)

    def table(self, stack: str) -> Any:
        return self.state.get("model.shared.weight", self.state.get(f"{stack}.embed_tokens.weight"))

    def embed(self, stack: str, ids: Any) -> Any:
        config = self.config
        x = T.embedding(ids, self.table(stack), config.pad_token_id)
        return x * (config.d_model**0.5 if config.scale_embedding else 1.0) + self.positions(stack, ids.shape[1])

    def run(self, stack: str, ids: Any, allowed: Any, memory: Any = None, memory_allowed: Any = None) -> Any:
        config, decodes = self.config, memory is not None
        heads = config.decoder_attention_heads if decodes else config.encoder_attention_heads
        act = ACTIVATIONS[config.activation_function]
        x = self.embed(stack, ids)
        for i in range(config.decoder_layers if decodes else config.encoder_layers):
            name = f"{stack}.layers.{i}"

            def attend(h: Any, name: str = name) -> Any:
                return self.attention(f"{name}.self_attn", heads, h, h, allowed)

            def attend_memory(h: Any, name: str = name) -> Any:
                return self.attention(f"{name}.encoder_attn", heads, h, memory, memory_allowed)

            def feed_forward(h: Any, name: str = name) -> Any:
                return self.linear(f"{name}.fc2", act(self.linear(f"{name}.fc1", h)))

            x = self.sublayer(f"{name}.self_attn_layer_norm", attend, x)
            if decodes:
                x = self.sublayer(f"{name}.encoder_attn_layer_norm", attend_memory, x)
            x = self.sublayer(f"{name}.final_layer_norm", feed_forward, x)
        return self.norm(f"{stack}.layer_norm", x) if config.normalize_before else x

    def __call__(self, input_ids: Any, attention_mask: Any, labels: Any, label_smoothing: float) -> tuple[Any, Any]:
        """The loss and all logits; arguments are arrays. A masked row of the source may hold anything."""
        ids, mask, words = (torch.tensor(array) for array in (input_ids, attention_mask, labels))
        start = torch.full_like(words[:, :1], self.config.decoder_start_token_id)
        shifted = torch.cat([start, words[:, :-1]], dim=1)
        shifted[shifted == -100] = self.config.pad_token_id
        seen = mask[:, None].bool()
        memory = self.run("model.encoder", ids, seen.expand(-1, ids.shape[1], -1))
        causal = torch.ones(1, words.shape[1], words.shape[1], dtype=torch.bool).tril()
        hidden = self.run("model.decoder", shifted, causal, memory, seen.expand(-1, words.shape[1], -1))
        matrix = self.state.get("lm_head.weight", self.table("model.decoder"))
        logits = hidden @ matrix.T + self.state["final_logits_bias"]
        loss = T.cross_entropy(logits.flatten(0, 1), words.flatten(), label_smoothing=label_smoothing)
        return loss, logits


def golden(name: str) -> Mapping[str, Any]:
    """Loss, logits and gradients of a case, the gradients one after the other in the order of their names."""
    model = TorchTransformer(name)
    assert call(name)["label_smoothing"] == SMOOTHING
    loss, logits = model(**call(name))
    loss.backward()
    gradients = [tensor.grad.ravel() for _, tensor in sorted(model.state.items()) if tensor.requires_grad]
    arrays = {"loss": loss.detach(), "logits": logits.detach(), "gradients": torch.cat(gradients)}
    return {f"{name}/{key}": np.asarray(tensor.numpy(), np.float32) for key, tensor in arrays.items()}
