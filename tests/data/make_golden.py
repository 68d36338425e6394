"""Make the golden checkpoints of tests/models/test_bert.py: `python tests/data/make_golden.py`.

Each folder holds a tiny random BERT as transformers writes it and `golden.npz`: ids and what transformers
computes from them in float32. Needs torch, transformers and safetensors; written with torch 2.13 and
transformers 5.23.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, BertModel, PreTrainedModel

HERE = Path(__file__).parent

SIZES = {"vocab_size": 50, "max_position_embeddings": 20, "num_hidden_layers": 2}


def randomize(model: PreTrainedModel) -> PreTrainedModel:
    """Weights large enough for attention to choose, and norms and biases that are not 1 and 0."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if name.endswith("LayerNorm.weight") else 0.0, 0.2, generator=generator)
    return model.eval()


def golden(folder: Path, model: BertModel) -> None:
    """Ids with holes, left and right padding, and the numbers of the attended positions; 0 at all others."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(model.config.vocab_size, (4, 11), generator=generator)
    types = torch.randint(2, ids.shape, generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    mask[2, :4] = 0
    mask[3, [2, 3, 8, 10]] = 0
    with torch.no_grad():
        output = model(
            ids, attention_mask=mask, token_type_ids=types, output_hidden_states=True, output_attentions=True
        )
    seen = mask[:, :, None]
    arrays = {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": types,
        "hidden_states": torch.stack([x * seen for x in output.hidden_states]),
        "attentions": torch.stack([x * seen[:, None] for x in output.attentions]),
    }
    if output.pooler_output is not None:
        arrays["pooler_output"] = output.pooler_output
    np.savez_compressed(folder / "golden.npz", **{name: array.numpy() for name, array in arrays.items()})


def save(name: str, model: PreTrainedModel, **options: object) -> Path:
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, **options)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def main() -> None:
    plain = BertConfig(
        **SIZES, hidden_size=32, num_attention_heads=4, intermediate_size=64, attn_implementation="eager"
    )
    folder = save("bert_f32", randomize(BertModel(plain)))
    golden(folder, BertModel.from_pretrained(folder, attn_implementation="eager").eval())

    # With a head, so names begin with `bert.`; no pooler; shards; bfloat16.
    headed = BertConfig(**SIZES, hidden_size=24, num_attention_heads=3, intermediate_size=40, hidden_act="gelu_new")
    model = randomize(BertForMaskedLM(headed)).to(torch.bfloat16)
    folder = save("bert_bf16_sharded_masked_lm", model, max_shard_size="16KB")
    model = BertModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float32, attn_implementation="eager")
    golden(folder, model.eval())

    # Old names of LayerNorm's parameters, the old position_ids buffer, float16, a config without model_type.
    old = BertConfig(
        **SIZES,
        hidden_size=20,
        num_attention_heads=1,
        intermediate_size=48,
        hidden_act="relu",
        layer_norm_eps=1e-6,
    )
    folder = save("bert_f16_gamma_beta", randomize(BertModel(old)).to(torch.float16))
    model = BertModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    golden(folder, model.eval())
    tensors = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        tensors[name] = tensor
    tensors["embeddings.position_ids"] = torch.arange(old.max_position_embeddings)[None]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    fields = json.loads((folder / "config.json").read_text())
    for name in ("model_type", "architectures", "dtype"):
        del fields[name]
    (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n")


if __name__ == "__main__":
    main()
