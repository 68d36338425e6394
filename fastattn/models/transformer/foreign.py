"""Translation models of other programs become folders of MarianMT: what Marian's and CTranslate2's have in common.

Their decoder begins with zeros in the place of the embedding of a word. A folder of MarianMT has a word for that,
`<pad>`, behind all others: its embedding and its score are 0, and it is never chosen.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn.checks import listed, shown
from fastattn.files import open_regular
from fastattn.formats import hugging_face
from fastattn.formats.sentencepiece_model import read_sentencepiece_model
from fastattn.models.generation_config import GenerationSettings
from fastattn.models.transformer.config import TransformerConfig
from fastattn.models.transformer.pretrained import POSITIONS, SHARED, TABLES, are_computed
from fastattn.progress import progress_bar
from fastattn.text.marian_tokenizer import SOURCE, TARGET, TARGET_VOCABULARY, VOCABULARY
from fastattn.text.tokenizer_kinds import CONFIG

START = "<pad>"
OUTPUT, BIAS = "lm_head.weight", "final_logits_bias"
LONGEST = 512
"""The most tokens of a result, as in the folders of opus-mt."""

Read = Callable[[], NDArray[np.float32]]
Vocabulary = dict[str, int]


@dataclass(frozen=True)
class Foreign:
    """A model of another program.

    Attributes:
        source: the file of its weights.
        fields: fields of a TransformerConfig, except for those about words.
        tensors: what reads each tensor, by its name in a folder of MarianMT, without the row of `<pad>`.
        vocabularies: the numbers of words, of both sides or of each.
        pieces: the SentencePiece models of both sides, if there are some.
        special: the `unk_token` and the `eos_token`.
        generation: options of a generation_config.json.
        skipped: what is not used.
    """

    source: Path
    fields: Mapping[str, Any]
    tensors: Mapping[str, Read]
    vocabularies: Sequence[Vocabulary]
    pieces: Sequence[Path]
    special: Mapping[str, str]
    generation: Mapping[str, Any] = field(default_factory=dict)
    skipped: Sequence[str] = ()


def write_foreign(folder: Path, model: Foreign, show: bool | None) -> tuple[int, list[str]]:
    """Write a folder of MarianMT. Returns how many tensors it has, and what was skipped."""
    tensors: dict[str, NDArray[np.float32]] = {}
    with progress_bar(len(model.tensors), show=show, unit="tensor") as advance:
        for name, read in model.tensors.items():
            tensors[name] = read()
            advance()
    tables = [SHARED] if SHARED in tensors else [*TABLES]
    rows = [len(tensors[tables[0]]), len(tensors[tables[-1]])]
    for name in (*tables, OUTPUT, BIAS):
        if name in tensors:
            array = tensors[name]
            tensors[name] = np.concatenate([array, np.zeros((1, *array.shape[1:]), np.float32)])
    if BIAS in tensors:
        tensors[BIAS] = tensors[BIAS][None]
    config = _config(model, tensors, rows)
    skipped = [*model.skipped]
    for name in POSITIONS:
        if name in tensors and are_computed(config, tensors[name]):
            del tensors[name]
            skipped.append(name)
    if config.share_encoder_decoder_embeddings and not config.tie_word_embeddings:
        tensors |= dict.fromkeys(TABLES, tensors[SHARED])
    hugging_face.write_checkpoint(folder, config.to_dict(), tensors)
    GenerationSettings(values=model.generation).write(folder, config)
    _write_tokenizer(folder, model, rows)
    return len(tensors), skipped


def _config(model: Foreign, tensors: Mapping[str, Any], rows: Sequence[int]) -> TransformerConfig:
    end = model.vocabularies[-1][model.special["eos_token"]]
    words = {
        "vocab_size": rows[0] + 1,
        "decoder_vocab_size": rows[1] + 1,
        "pad_token_id": rows[0] if rows[0] == rows[1] else None,
        "bos_token_id": None,
        "eos_token_id": end,
        "forced_eos_token_id": end,
        "decoder_start_token_id": rows[1],
        "bad_words_ids": ((rows[1],),),
        "share_encoder_decoder_embeddings": SHARED in tensors,
        "tie_word_embeddings": OUTPUT not in tensors,
    }
    options = {"position_embedding_type": "marian", "max_length": min(LONGEST, model.fields["max_position_embeddings"])}
    try:
        return TransformerConfig(**{**options, **words, **model.fields})
    except ValueError as error:
        raise ValueError(f"{model.source}: {error}") from None


def _write_tokenizer(folder: Path, model: Foreign, rows: Sequence[int]) -> None:
    names = (VOCABULARY, TARGET_VOCABULARY)[: len(model.vocabularies)]
    for name, vocabulary, start in zip(names, model.vocabularies, rows, strict=False):
        (folder / name).write_text(_json({**vocabulary, START: start}), encoding="utf-8")
    config = {"tokenizer_class": "MarianTokenizer", "separate_vocabs": len(names) > 1, "model_max_length": LONGEST}
    (folder / CONFIG).write_text(_json({**config, **model.special, "pad_token": START}), encoding="utf-8")
    copied = {name: model.source.with_name(name) for name in ("LICENSE", "README.md")}
    for name, path in {**copied, **dict(zip((SOURCE, TARGET), model.pieces, strict=False))}.items():
        if path.is_file():
            with open_regular(path) as data, (folder / name).open("wb") as file:
                shutil.copyfileobj(data, file, 1 << 20)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def find_pieces(folder: Path) -> list[Path]:
    """The SentencePiece models in a folder: of both sides, or none. Raises ValueError, naming it, for a damaged one."""
    paths = [folder / name for name in (SOURCE, TARGET)]
    if not all(path.is_file() for path in paths):
        return []
    for path in paths:
        read_sentencepiece_model(path)
    return paths


def check_vocabulary(path: Path, vocabulary: Vocabulary, special: Mapping[str, str]) -> None:
    """Raise ValueError, naming the file, for a vocabulary without the special tokens, or with one that is ours."""
    for key, word in special.items():
        if word not in vocabulary:
            raise ValueError(f"{path}: the {key} {shown(word)} is not in the vocabulary")
    if START in vocabulary:
        raise ValueError(f"{path}: has {START!r}, {vocabulary[START]}, which a folder of MarianMT needs for itself")


def check_names(source: Path, names: Collection[str], used: Iterable[str]) -> None:
    """Raise ValueError, naming the file, unless its tensors are those of the network."""
    wanted = {*used}
    if missing := [name for name in wanted if name not in names]:
        raise ValueError(f"{source}: tensors are missing: {listed(sorted(missing))}")
    if unknown := [name for name in names if name not in wanted]:
        raise ValueError(f"{source}: tensors are not known: {listed(sorted(unknown))}; it is another network")


def decoded(source: object, data: bytes) -> str:
    """The text of a file, without a byte order mark. Raises ValueError, naming the source, if it is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{source}: not UTF-8: {error}") from None


def words_of_lines(path: Path, data: bytes, most: int) -> list[str]:
    """The words of a vocabulary with one in each line. Raises ValueError, naming the file, for more than `most`."""
    words = []
    for word in io.StringIO(decoded(path, data), newline=None):
        words.append(word.removesuffix("\n"))
        if len(words) > most:
            raise ValueError(f"{path}: more than {most} words")
    return words
