"""A new model that translates: its tokenizer, and the config of its network."""

from __future__ import annotations

import errno
from pathlib import Path

from fastattn.errors import OptionError, fields_as_options
from fastattn.models import TransformerConfig
from fastattn.tasks.translate.recipe import VOCABULARY_SIZE, TranslateRecipe
from fastattn.text import (
    BytePairs,
    Characters,
    ParallelText,
    SubwordTokenizer,
    TranslationTokenizer,
    sentencepiece_tokenizer,
)
from fastattn.text.subwords import Subwords


def new_tokenizer(recipe: TranslateRecipe, text: ParallelText) -> TranslationTokenizer:
    """The tokenizer of the recipe, from its files or made of the text.

    Raises FileNotFoundError for a file that is missing, and OptionError for too small a vocabulary.
    """
    if recipe.vocabulary_files:
        for path in recipe.vocabulary_files:
            if not Path(path).exists():
                kinds = "--vocabulary is bpe, characters, or SentencePiece model files"
                raise FileNotFoundError(errno.ENOENT, f"No such file; {kinds}", path)
        return sentencepiece_tokenizer(*recipe.vocabulary_files, shared=recipe.shares)
    sides = [[*text.sources, *text.targets]] if recipe.shares else [text.sources, text.targets]
    made: list[Subwords]
    if recipe.vocabulary == ("bpe",):
        wanted = recipe.vocabulary_size or VOCABULARY_SIZE
        made = [BytePairs.train(some, wanted) for some in sides]
        least = max(side.vocab_size for side in made)
        if recipe.vocabulary_size and least > wanted:
            reason = f"the characters of the text and the special tokens are {least}"
            raise OptionError("{vocabulary_size} {} is too small: {}", wanted, reason)
    else:
        made = [Characters.build(some) for some in sides]
    return SubwordTokenizer(made[0], made[-1])


def new_config(
    recipe: TranslateRecipe, size: tuple[int, int, int, int], tokenizer: TranslationTokenizer
) -> TransformerConfig:
    """The config of a network of a size, with the sizes that the recipe names: width, layers, heads, inner width."""
    given = (recipe.d_model, recipe.layers, recipe.heads, recipe.ffn_dim)
    d_model, layers, heads, ffn_dim = (own or usual for own, usual in zip(given, size, strict=True))
    target = tokenizer.target
    heads_of = {"encoder_attention_heads": "heads", "decoder_attention_heads": "heads"}
    with fields_as_options(d_model="d_model", **heads_of):
        return TransformerConfig(
            vocab_size=tokenizer.source.vocab_size,
            decoder_vocab_size=target.vocab_size,
            share_encoder_decoder_embeddings=recipe.shares,
            d_model=d_model,
            encoder_layers=layers,
            decoder_layers=layers,
            encoder_attention_heads=heads,
            decoder_attention_heads=heads,
            encoder_ffn_dim=ffn_dim,
            decoder_ffn_dim=ffn_dim,
            dropout=recipe.dropout,
            attention_dropout=recipe.attention_dropout,
            normalize_before=not (recipe.post_norm or recipe.marian),
            position_embedding_type="marian" if recipe.marian else "sinusoidal",
            init_std=0.02 if recipe.marian else None,
            max_position_embeddings=recipe.max_length,
            pad_token_id=target.pad_token_id,
            eos_token_id=target.eos_token_id,
            decoder_start_token_id=target.pad_token_id,
            bos_token_id=None,
            bad_words_ids=((target.pad_token_id,),),
        )
