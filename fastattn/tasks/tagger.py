"""Words in, one label for each word out: part-of-speech tags, for example."""

from __future__ import annotations

import itertools
import os
import shutil
import warnings
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import runtime
from fastattn.autograd import no_grad
from fastattn.files import replacing
from fastattn.formats import hugging_face
from fastattn.functional.losses import IGNORE_INDEX
from fastattn.hub import find_model
from fastattn.models import BertForTokenClassification
from fastattn.tasks.embed.folder import FILES, read_sentence_folder
from fastattn.text import Tokenizer, encode_words, gather, token_budget_batches, tokens_per_batch
from fastattn.text.conllu import NO_TAG
from fastattn.training import TokenBatches

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


class Tagger:
    """A BERT model that labels words, for use or to be trained.

    The label of a word is that of its first wordpiece. A sentence of more than `max_length` wordpieces is cut
    into windows of whole words, each labelled on its own (`fastattn.text.encode_words`), so every word gets a
    label. A sentence's labels are the same whatever else is labelled with it, in whatever order and by however
    many threads; many threads may call `tag` at once.

    Attributes:
        model: a `BertForTokenClassification`.
        tokenizer: its tokenizer.
        labels: what a word may be labelled.
        max_length: the longest window in wordpieces, [CLS] and [SEP] included.

    >>> tagger = Tagger.from_pretrained("path/to/tagger")                   # doctest: +SKIP
    >>> tagger.tag([["The", "cat", "sleeps", "."], ["Go", "!"]])            # doctest: +SKIP
    [['DET', 'NOUN', 'VERB', 'PUNCT'], ['VERB', 'PUNCT']]
    """

    def __init__(self, model: BertForTokenClassification, folder: Path) -> None:
        """Put a model and the tokenizer in `folder` together."""
        self.model = model
        self.tokenizer = Tokenizer.from_pretrained(folder)
        self.labels: tuple[str, ...] = tuple(model.config.id2label[i] for i in range(model.config.num_labels))
        limit = model.config.max_position_embeddings
        self.max_length: int = min(self.tokenizer.model_max_length or limit, limit)
        self._folder = folder

    @classmethod
    def from_pretrained(cls, name_or_folder: str | os.PathLike[str]) -> Tagger:
        """Load a tagger to use, with frozen weights.

        Args:
            name_or_folder: a folder that `save_pretrained` or transformers' BertForTokenClassification wrote,
                or a name; `fastattn.hub.find_model` says where it is looked for.

        Raises:
            ModelNotFoundError: no such model.
            ValueError: a model that is no tagger, or a damaged file, by name.
            ImportError: the `tokenizers` library is missing.
        """
        folder = find_model(name_or_folder, FILES)
        with hugging_face.read_state_dict(folder) as tensors:
            if "classifier.weight" not in tensors:
                raise ValueError(f"{folder}: no tagger, its weights have no classifier; fastattn finetune makes one")
        return cls(BertForTokenClassification.from_pretrained(folder, trainable=False), folder)

    @classmethod
    def for_training(cls, name_or_folder: str | os.PathLike[str], labels: Sequence[str]) -> Tagger:
        """Load a model to be trained as a tagger.

        Args:
            name_or_folder: a BERT or sentence-transformers model, as for `SentenceEncoder`. A classifier that
                it does not have is drawn at random, see `fastattn.manual_seed`.
            labels: what a word may be labelled.

        Raises as `from_pretrained` does, and ValueError for labels that are none or not all different.
        """
        if not labels or len(set(labels)) < len(labels):
            raise ValueError(f"for_training: labels must be different names, one or more, got {list(labels)}")
        folder = read_sentence_folder(find_model(name_or_folder, FILES)).transformer
        names = dict(enumerate(labels))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*drawn at random")  # which is what was asked for
            model = BertForTokenClassification.from_pretrained(
                folder, trainable=True, id2label=names, label2id={name: i for i, name in names.items()}
            )
        return cls(model, folder)

    def __repr__(self) -> str:
        return f"Tagger({str(self._folder)!r})"

    def tag(self, sentences: Iterable[Sequence[str]]) -> list[list[str]]:
        """Label every word of every sentence; the model must be in evaluation mode, as a loaded one is.

        Args:
            sentences: sequences of words.

        Raises TypeError for a sentence that is one str, and for a word that is not a str, by its index.
        """
        sentences = list(sentences)
        words = encode_words(self.tokenizer, sentences, self.max_length)
        rows = np.arange(len(words.ids))
        predicted = np.empty(len(words.ids), np.int64)
        with no_grad():
            for indices in token_budget_batches(words.lengths, tokens_per_batch(runtime.num_threads())):
                input_ids, cu_seqlens = gather(words.ids, words.cu_seqlens, indices)
                logits = np.asarray(self.model.forward_ragged(input_ids, cu_seqlens).logits)
                predicted[gather(rows, words.cu_seqlens, indices)[0]] = logits.argmax(axis=1)
        labels = [self.labels[i] for i in predicted[words.first]]
        return [labels[start:end] for start, end in itertools.pairwise(words.cu_words.tolist())]

    def batches(
        self,
        sentences: Sequence[Sequence[str]],
        tags: Sequence[Sequence[str]],
        *,
        batch_size: int | None = None,
        batch_tokens: int | None = None,
        seed: int = 0,
    ) -> TokenBatches:
        """Batches for a `Trainer`, whose items are sentences (or windows of long ones).

        What they load are the arguments of `model.forward_ragged`; only first wordpieces have a label.

        Args:
            sentences: sequences of words.
            tags: for each word one of `labels`, or "_" for a word that is not to be learnt.
            batch_size: at most so many sentences in a batch.
            batch_tokens: at most so many wordpieces in a batch.
            seed: of the order.

        Raises ValueError for a tag that is not in `labels`, tags that are not one a word, and no tags at all.
        """
        words = encode_words(self.tokenizer, sentences, self.max_length)
        labels = np.full(len(words.ids), IGNORE_INDEX, np.int64)
        labels[words.first] = self._label_ids(sentences, tags)
        learnt = np.add.reduceat(labels != IGNORE_INDEX, words.cu_seqlens[:-1]) if len(words.ids) else np.empty(0)
        windows = np.flatnonzero(learnt)
        if not len(windows):
            raise ValueError("batches: no word has a tag")

        def load(indices: NDArray[np.int64]) -> dict[str, Any]:
            input_ids, cu_seqlens = gather(words.ids, words.cu_seqlens, windows[indices])
            return {
                "input_ids": input_ids,
                "cu_seqlens": cu_seqlens,
                "labels": gather(labels, words.cu_seqlens, windows[indices])[0],
            }

        return TokenBatches(
            words.lengths[windows],
            load,
            batch_tokens=batch_tokens,
            batch_size=batch_size,
            seed=seed,
            settings={"ids_crc32": zlib.crc32(words.ids.tobytes())},
        )

    def _label_ids(self, sentences: Sequence[Sequence[str]], tags: Sequence[Sequence[str]]) -> NDArray[np.int64]:
        numbers = {**{label: i for i, label in enumerate(self.labels)}, NO_TAG: IGNORE_INDEX}
        ids = []
        for i, (sentence, names) in enumerate(zip(sentences, tags, strict=True)):
            if len(sentence) != len(names):
                raise ValueError(f"batches: sentence {i} has {len(sentence)} words, but {len(names)} tags")
            for name in names:
                if name not in numbers:
                    raise ValueError(f"batches: the tag {name!r} of sentence {i} is none of {', '.join(self.labels)}")
                ids.append(numbers[name])
        return np.array(ids, np.int64)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write model and tokenizer, each file whole or not at all; transformers reads them, too."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name in TOKENIZER_FILES:
            if (self._folder / name).is_file() and self._folder.resolve() != folder.resolve():
                _copy(self._folder / name, folder / name)
        self.model.save_pretrained(folder)


def count_right(predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]) -> tuple[int, int]:
    """How many labels are those of `gold`, and how many of `gold` count, which "_" does not.

    >>> count_right([["NOUN", "VERB", "X"]], [["NOUN", "ADJ", "_"]])
    (1, 2)
    """
    words = [pair for tags in zip(predicted, gold, strict=True) for pair in zip(*tags, strict=True)]
    counted = [(label, tag) for label, tag in words if tag != NO_TAG]
    return sum(label == tag for label, tag in counted), len(counted)


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as (temporary,):
        shutil.copyfile(source, temporary)
