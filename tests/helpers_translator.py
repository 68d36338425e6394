"""A Translator of small letters into capitals, with random weights."""

from __future__ import annotations

from typing import Any

from fastattn.models import Transformer, TransformerConfig
from fastattn.random import manual_seed
from fastattn.tasks import Translator
from fastattn.text import Characters, SubwordTokenizer

LETTERS = "abcdefgh "


def make(**changes: Any) -> Translator:
    tokenizer = SubwordTokenizer(Characters(LETTERS), Characters(LETTERS.upper()))
    values = {
        "vocab_size": tokenizer.source.vocab_size,
        "decoder_vocab_size": tokenizer.target.vocab_size,
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "share_encoder_decoder_embeddings": False,
        "normalize_before": True,
        "init_std": None,
        "max_position_embeddings": 40,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
        "bos_token_id": None,
        "bad_words_ids": ((0,),),
    }
    manual_seed(3)
    return Translator(Transformer(TransformerConfig(**{**values, **changes})).eval(), tokenizer)
