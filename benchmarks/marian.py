"""MarianMT folders that everyone loads or converts: random weights, or a small network that has learned to spell."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from . import transformer
from .measure import say

END, UNKNOWN, PAD = "</s>", "<unk>", "<pad>"  # the first two words and the last, which starts a result
WORDS = 32000
TOKENIZER = "tokenizer.json"  # for converters that ask for a tokenizer
NEVER = -100.0  # the bias of the padding: CTranslate2 does not have it among the words

EPOCHS, RATE, WARMUP = 6, 1e-3, 100
SMOOTHING = 0.1


def random_folder(name: str, cache: Path) -> Path:
    """A model of `transformer.SIZES` with random weights and `WORDS` words."""
    words = [END, UNKNOWN, *map("word{}".format, range(2, WORDS - 1)), PAD]
    return transformer.once(cache / f"{name}-marian", lambda folder: save(network(name, words), words, folder))


def names_folder(name: str, path: Path, cache: Path) -> Path:
    """A model that has learned for `EPOCHS` epochs to spell the names of a file, letter by letter."""
    return transformer.once(cache / f"{name}-names", lambda folder: learn(name, path, folder))


def network(name: str, words: Sequence[str]) -> Any:
    """A model of `transformer.SIZES` with MarianMT's special words."""
    pad = len(words) - 1
    special = {"eos_token_id": 0, "bos_token_id": 0, "pad_token_id": pad, "decoder_start_token_id": pad}
    return transformer.network(name, (len(words),), **special, bad_words_ids=((pad,),))


def save(model: Any, words: Sequence[str], folder: Path) -> None:
    """Write a folder, with a vocabulary that transformers reads as a tokenizer."""
    model.final_logits_bias.data[0, -1] = NEVER
    model.save_pretrained(folder)
    numbers = {word: number for number, word in enumerate(words)}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    special = [{"id": numbers[word], "content": word, "special": True, **flags} for word in (END, UNKNOWN, PAD)]
    parts = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"))
    level = {"type": "WordLevel", "vocab": numbers, "unk_token": UNKNOWN}
    (folder / TOKENIZER).write_text(json.dumps({"version": "1.0", **parts, "added_tokens": special, "model": level}))
    names = {"eos_token": END, "unk_token": UNKNOWN, "pad_token": PAD}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def vocabulary(folder: Path) -> dict[str, int]:
    """The words of a folder that `save` wrote, and their ids."""
    words: dict[str, int] = json.loads((folder / TOKENIZER).read_text())["model"]["vocab"]
    return words


def encode(texts: Iterable[str], words: dict[str, int]) -> list[list[int]]:
    """Ids of letters, and the end of each text."""
    return [[*(words.get(letter, words[UNKNOWN]) for letter in text), words[END]] for text in texts]


def learn(name: str, path: Path, folder: Path) -> None:
    training = importlib.import_module("fastattn.training")
    pairs = importlib.import_module("fastattn.text").read_parallel(path)
    words = [END, UNKNOWN, *sorted(set(chain(*pairs.sources, *pairs.targets))), PAD]
    model = network(name, words).train()
    numbers = {word: number for number, word in enumerate(words)}
    source, target = (ragged(encode(side, numbers)) for side in (pairs.sources, pairs.targets))
    limits = {"step_tokens": transformer.STEP_TOKENS, "max_tokens": transformer.STEP_TOKENS}
    plan = training.PairBatches(source, target, len(words) - 1, **limits)
    epochs = [plan.epoch(number) for number in range(EPOCHS)]
    table = model.shared.weight
    optimizer = training.AdamW(model.parameters(), lr=RATE)
    schedule = training.get_linear_schedule_with_warmup(optimizer, WARMUP, sum(map(len, epochs)))
    for number, batches in enumerate(epochs, start=1):
        say(f"{folder}: learning, epoch {number}/{EPOCHS}")
        for indices, _ in batches:
            batch = transformer.padded(source, target, indices)
            model(**batch, label_smoothing=SMOOTHING).loss.backward()
            optimizer.step()
            table.data[-1] = 0  # as MarianMT starts, but a tied row learns that it is no word
            schedule.step()
            optimizer.zero_grad()
    save(model.eval(), words, folder)


def ragged(rows: list[list[int]]) -> tuple[transformer.Array, transformer.Array]:
    """Ids of all rows one after the other, and where each begins."""
    return np.array([*chain(*rows)]), np.cumsum([0, *map(len, rows)])
