"""ULMFiT: texts as words, and classifiers made of language models."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastattn.checks import shown
from fastattn.errors import OptionError
from fastattn.formats.hugging_face import read_json
from fastattn.hub import Files, find_model
from fastattn.models import AwdLstmConfig, AwdLstmForSequenceClassification
from fastattn.tasks.embed.folder import FILES as ENCODER
from fastattn.tasks.embed.folder import MODULES
from fastattn.tasks.streams.task import FILES, VOCABULARY
from fastattn.text import TokenizedTexts, Vocabulary
from fastattn.text.characters import BEGIN, END

CONFIG = "config.json"
_EITHER = Files((CONFIG, MODULES), marks=(CONFIG, MODULES), organization=ENCODER.organization)
"""What says whether a name has an encoder or a model of words."""
_SIZES = ("embedding_dim", "dim", "n_layers", "tie_weights")


class Words:
    """Texts as ids of words, as the language model reads them: whitespace separates words.

    It has what `SequenceTask` needs of a tokenizer.
    """

    model_max_length: int | None = None

    def __init__(self, folder: Path, config: AwdLstmConfig) -> None:
        self.vocabulary = Vocabulary.from_file(folder / VOCABULARY)
        self.vocabulary.check_size(config.vocabulary_size)
        self._marks = self.vocabulary.ids([BEGIN, END])

    def encode(self, texts: Sequence[str], max_length: int | None) -> TokenizedTexts:
        """The ids of at most `max_length` words of each text, with <S> before and </S> behind them."""
        begin, end = self._marks
        split = [text.split() for text in texts]
        lengths = [len(words) for words in split]
        cut = [words[:max_length] for words in split]
        ids = self.vocabulary.ids(word for words in cut for word in words)
        starts = np.cumsum([0, *(len(words) for words in cut)])
        marked = np.insert(np.insert(ids, starts[1:], end), starts[:-1] + np.arange(len(cut)), begin)
        return TokenizedTexts.of(marked, np.diff(starts) + 2, np.array(lengths, np.int64) + 2)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the vocabulary."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.vocabulary.write(Path(folder) / VOCABULARY)


def reads_words(name_or_folder: str | os.PathLike[str], **hub: Any) -> bool:
    """Whether a folder or a name has a model of words. Raises as `find_model` and for a config.json that is damaged."""
    path = find_model(name_or_folder, _EITHER, **hub) / CONFIG
    return path.is_file() and read_json(path).get("model_type") in AwdLstmConfig.model_types


def find_words(name_or_folder: str | os.PathLike[str], **hub: Any) -> Path:
    """The folder of a model of words. Raises as `find_model`, and ValueError for another model."""
    folder = find_model(name_or_folder, FILES, **hub)
    kind = read_json(folder / CONFIG).get("model_type")
    if kind not in AwdLstmConfig.model_types:
        raise ValueError(f"{folder}: not an AWD-LSTM language model, its model_type is {shown(kind)}")
    return folder


def start_of(
    start: str | os.PathLike[str], backward: str | None, fields: Mapping[str, Any]
) -> tuple[AwdLstmForSequenceClassification, Path]:
    """A classifier above a language model, or above a forward and a `backward` one, and the folder of its vocabulary.

    Raises as `find_words`, and OptionError for two models that do not belong together.
    """
    folder = find_words(start)
    first = _load(folder, fields)
    if backward is None:
        return first, folder
    other = find_words(backward)
    second = _load(other, fields)
    both = (("model", folder, first, "forward"), ("backward_model", other, second, "backward"))
    for option, path, model, wanted in both:
        if model.config.direction != wanted:
            told = f"{{{option}}} {{}} must read {wanted}, it reads {{}}; a model of both directions needs no other one"
            raise OptionError(told, path, model.config.direction)
    for name in _SIZES:
        own, its = (getattr(model.config, name) for model in (first, second))
        if own != its:
            raise OptionError("{backward_model} {} has {} {}, {model} {} has {}", other, name, its, folder, own)
    words = [Vocabulary.from_file(each / VOCABULARY).words for each in (folder, other)]
    if words[0] != words[1]:
        raise OptionError("{backward_model} {} must have the {} of {model} {}, got another", other, VOCABULARY, folder)
    tensors = dict(first.state_dict())
    for name, x in second.state_dict().items():
        tensors[name.replace("s.0.", "s.1.", 1)] = x
    config = first.config.replace(direction="both")
    return AwdLstmForSequenceClassification(config, tensors, new_head="draw"), folder


def _load(folder: Path, fields: Mapping[str, Any]) -> AwdLstmForSequenceClassification:
    return AwdLstmForSequenceClassification.from_pretrained(folder, trainable=True, new_head="draw", **fields)
