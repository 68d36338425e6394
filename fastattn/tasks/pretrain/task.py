"""Raw text in, a pre-trained BERT out."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastattn import checks
from fastattn import functional as F
from fastattn.autograd import no_grad
from fastattn.errors import OptionError, fields_as_options
from fastattn.formats import hugging_face
from fastattn.functional.losses import IGNORE_INDEX
from fastattn.hub import find_model
from fastattn.models.registry import family, family_of, load_head
from fastattn.random import manual_seed
from fastattn.tasks.base import Task, make_recipe, metric_text, model_name
from fastattn.tasks.embed.folder import FILES, find_start, read_sentence_folder
from fastattn.tasks.fill.task import Filler, word_scores
from fastattn.tasks.heads import head_of
from fastattn.tasks.limits import token_limit
from fastattn.tasks.pretrain.recipe import USUAL_LENGTH, PretrainRecipe
from fastattn.text import (
    Documents,
    Masking,
    PretrainingBatches,
    TokenizedDocuments,
    Tokenizer,
    continuing_ids,
    train_wordpiece,
)

HEADS = {True: "PreTraining", False: "MaskedLM"}
"""The head that learns next sentences, and the one of masked words alone."""
_VOCABULARY, _POSITIONS, _HEAD_DIM = 30522, 512, 64

logger = logging.getLogger(__name__)


class Pretrainer(Task):
    """A BERT with the heads of its pre-training, and its tokenizer.

    Attributes:
        model: a model for pre-training, such as `BertForPreTraining`, or for masked words, such as `BertForMaskedLM`.
        tokenizer: its tokenizer.
        recipe: how the model is trained.
        next_sentence: whether the model has a head for next sentences.

    >>> bert = Pretrainer.from_pretrained("path/to/bert")                   # doctest: +SKIP
    >>> bert("The [MASK] sleeps.", top_k=1)[0]["token_str"]                 # doctest: +SKIP
    'cat'
    """

    heads = tuple(HEADS.values())
    data_class = Documents

    def __init__(self, model: Any, tokenizer: Tokenizer, recipe: PretrainRecipe | None = None) -> None:
        """Combine a model and its tokenizer."""
        self.model, self.tokenizer, self.recipe = model, tokenizer, recipe or PretrainRecipe()
        self.next_sentence = type(model).__name__.endswith(HEADS[True])
        if tokenizer.mask_token_id is None:
            raise ValueError("the tokenizer has no mask_token, such as [MASK], which hides the words to predict")
        self._mask = tokenizer.mask_token_id
        tokenizer.warn_of_tokens_beyond(model.config.vocab_size)
        self._max_seq_length()  # before the text is read
        self._learnt: TokenizedDocuments | None = None
        self._measured: tuple[Documents, PretrainingBatches] | None = None

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | os.PathLike[str], *, weights: str | None = None, **hub: Any
    ) -> Pretrainer:
        """Load what `save_pretrained`, or BertForPreTraining or BertForMaskedLM of transformers wrote. See `Task`."""
        folder = find_model(name_or_folder, FILES, **hub)
        model = load_head(folder, _kind(folder), trainable=False, weights=weights, new_head="refuse")
        return cls(model, Tokenizer.from_pretrained(folder))

    @classmethod
    def check_folder(cls, folder: Path) -> None:
        _kind(folder)

    @classmethod
    def for_training(
        cls,
        start: str | os.PathLike[str] | None,
        data: Any,
        recipe: PretrainRecipe | None = None,
        **options: Any,
    ) -> Pretrainer:
        """A new model, with a vocabulary from `data`, or one to continue from.

        Args:
            start: the model to continue from: a folder or a name. None makes a new one.
            data: the text to learn: what `read` returns, or takes.
            recipe: the recipe; None is `PretrainRecipe()`.
            options: replace fields of the recipe.

        Raises as `from_pretrained`, OptionError for an option of a new model together with `start`, and ValueError for
        a tokenizer without [MASK] and for sizes that no BERT has.
        """
        recipe = make_recipe(PretrainRecipe, recipe, options)
        data = cls.as_data("for_training", data, recipe)
        kind = HEADS[recipe.next_sentence]
        if start is None:
            tokenizer = _new_tokenizer(data, recipe)
            manual_seed(recipe.seed)
            head: Any = family("bert").head(kind)
            return cls(head(_new_config(recipe, tokenizer)), tokenizer, recipe)
        recipe.check_start()
        folder = read_sentence_folder(find_start(start)).transformer
        _check_pairs(folder, kind)
        changes = {}
        if recipe.dropout is not None:
            changes = dict.fromkeys(family_of(folder).config.dropouts, recipe.dropout)
        manual_seed(recipe.seed)
        model = load_head(folder, kind, trainable=True, new_head="draw", **changes)
        task = cls(model, Tokenizer.from_pretrained(folder), recipe)
        task.base_model = model_name(start)
        return task

    def __call__(self, inputs: Any, /, **options: Any) -> list[Any]:
        """The words for each mask, as `Filler` gives them, with its options. The model must be in evaluation mode."""
        return Filler(self.model, self.tokenizer)(inputs, **options)

    def batches(self, data: Any) -> PretrainingBatches:
        """Batches of the recipe. Raises ValueError for a text without words or, for next sentences, one document."""
        documents = self._learnt = self._tokenize(self.as_data("batches", data, self.recipe))
        recipe = self.recipe
        batches = self._batches(
            documents,
            dupe_factor=recipe.dupe_factor,
            static_masks=recipe.static_masks,
            accumulation=recipe.accumulation,
            seed=recipe.seed,
        )
        sizes = len(documents.ids), len(documents.offsets) - 1, len(documents), self.tokenizer.vocab_size
        logger.info("%d wordpieces in %d sentences of %d documents, %d of vocabulary", *sizes)
        return batches

    def _tokenize(self, data: Documents) -> TokenizedDocuments:
        text = _documents(data, self.recipe)
        documents = TokenizedDocuments.read(text, self.tokenizer, text.name)
        rows, used = self.model.config.vocab_size, np.flatnonzero(documents.counts)
        self.tokenizer.check_rows(used.astype(np.int64), rows, lambda place: text.name)
        return documents

    def _batches(self, documents: TokenizedDocuments, **options: Any) -> PretrainingBatches:
        recipe = self.recipe
        masking = Masking(
            self._mask,
            min(self.tokenizer.vocab_size, self.model.config.vocab_size),
            recipe.masked_lm_prob,
            recipe.max_predictions_per_seq,
            continuing_ids(self.tokenizer) if recipe.do_whole_word_mask else None,
        )
        return PretrainingBatches(
            documents,
            self.tokenizer,
            masking,
            batch_size=recipe.batch_size,
            next_sentence=self.next_sentence,
            max_seq_length=self._max_seq_length(),
            short_seq_prob=recipe.short_seq_prob,
            **options,
        )

    def _max_seq_length(self) -> int:
        wanted = self.recipe.max_seq_length
        return token_limit(self.tokenizer, self.model.config, wanted, USUAL_LENGTH, "max_seq_length")

    def loss(self, batch: Mapping[str, Any]) -> Any:
        return self.model.forward_ragged(**self._known(batch)).loss

    def _known(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments that the model takes."""
        has_types = self.model.config.type_vocab_size > 1
        return {name: value for name, value in batch.items() if has_types or name != "token_type_ids"}

    def check(self, data: Any) -> None:
        self._measure(data)

    def _measure(self, data: Any) -> PretrainingBatches:
        """The batches that `data` are measured on, the same for every seed. Those used last are kept."""
        text = self.as_data("evaluate", data, self.recipe)
        if self._measured is None or not _same(self._measured[0], text):
            self._measured = text, self._batches(self._tokenize(text))
        return self._measured[1]

    def evaluate(self, data: Any) -> dict[str, float]:
        """`masked_loss`, `masked_accuracy` and `perplexity` of hidden words, and `next_sentence_accuracy`.

        For comparison, `random_share` is the share of the second segments that are random, and `unigram_loss` the loss
        of a unigram model, with 1 added to each count of the text that is learnt.
        """
        batches = self._measure(data)
        total = {"loss": 0.0, "right": 0, "words": 0, "next": 0, "random": 0, "pairs": 0}
        words = np.zeros(self.model.config.vocab_size, np.int64)
        training = self.model.training
        self.model.eval()
        try:
            with no_grad():
                for each in batches.epoch(0):
                    batch = self._known(batches.load(each))
                    labels, following = batch.pop("labels"), batch.pop("next_sentence_label", None)
                    places = np.flatnonzero(labels != IGNORE_INDEX)
                    output, gold = self.model.forward_ragged(**batch, places=places), labels[places]
                    scores = word_scores(output)
                    total["loss"] += float(np.asarray(F.cross_entropy(scores, gold))) * len(gold)
                    total["right"] += int((scores.argmax(axis=1) == gold).sum())
                    total["words"] += len(gold)
                    words += np.bincount(gold, minlength=len(words))
                    if following is not None:
                        found = np.asarray(output.seq_relationship_logits).argmax(axis=1)
                        total["next"] += int((found == following).sum())
                        total["random"] += int(following.sum())
                        total["pairs"] += len(following)
        finally:
            self.model.train(training)
        loss = total["loss"] / total["words"]
        metrics = {
            "masked_loss": loss,
            "masked_accuracy": total["right"] / total["words"],
            "perplexity": math.exp(min(loss, 700.0)),
        }
        if total["pairs"]:
            metrics["next_sentence_accuracy"] = total["next"] / total["pairs"]
            metrics["random_share"] = total["random"] / total["pairs"]
        if self._learnt is not None:
            counts = self._learnt.counts
            seen = np.flatnonzero(words)
            chances = [math.log((counts[i] + 1) / (counts.sum() + len(counts))) for i in seen.tolist()]
            metrics["unigram_loss"] = -math.fsum(words[seen] * chances) / total["words"]
        return metrics

    def configuration(self, data: Any) -> dict[str, Any]:
        return {"config": self.model.config.to_dict(type(self.model).__name__)}

    def checksum(self, data: Any) -> int:
        return int(self.as_data("checksum", data, self.recipe).crc32)

    def show(self, metrics: Mapping[str, float | None]) -> str:
        known = {name: metric_text(value, 2 if name == "perplexity" else 4) for name, value in metrics.items()}
        told = (
            f"masked words: loss {known['masked_loss']}, perplexity {known['perplexity']}, "
            f"accuracy {known['masked_accuracy']}"
        )
        if "next_sentence_accuracy" not in known:
            return told
        right, share = known["next_sentence_accuracy"], known["random_share"]
        return f"{told}; next sentences: accuracy {right} ({share} are random)"

    def report(self, evaluations: Iterable[Mapping[str, Any]]) -> Iterator[str]:
        entries = list(evaluations)
        yield from super().report(entries)
        if entries and "unigram_loss" in entries[-1]["metrics"]:
            yield f"unigram model: loss {entries[-1]['metrics']['unigram_loss']:.4f}"

    @classmethod
    def read(cls, *sources: Any) -> Documents:
        """The text of files, or of documents in memory, each a sequence of sentences.

        Raises OSError, TypeError for other things, and ValueError for a source without text.
        """
        if len(sources) == 1 and not isinstance(sources[0], str | os.PathLike):
            return Documents.of(sources[0], "data")
        return Documents(sources)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write model and tokenizer, each file whole or not at all. transformers reads them too."""
        checks.path("save_pretrained: folder", folder)
        self.tokenizer.save_pretrained(folder)
        self.model.save_pretrained(folder)


def _same(one: Documents, other: Documents) -> bool:
    """Whether both are the same object, or hold the same documents in memory. Files may have changed."""
    return one is other or bool(one.given and one.given == other.given and one.paragraphs == other.paragraphs)


def _documents(text: Documents, recipe: PretrainRecipe) -> Documents:
    return text.with_paragraphs(recipe.paragraphs or text.paragraphs)


def _kind(folder: Path) -> str:
    """The kind of head of a model for masked words."""
    kind = head_of(folder, *HEADS.values(), refusal="has no head for masked words")
    _check_pairs(folder, kind)
    return kind


def _check_pairs(folder: Path, kind: str) -> None:
    """Raise OptionError, naming the folder, for a family whose pre-training is another one."""
    found = family_of(folder)
    if kind == HEADS[True] and getattr(found.heads.get(kind), "pair_label", None) != "next_sentence_label":
        name = found.config.__name__.removesuffix("Config")
        told = "{}: {} learns no next sentences; with {no_next_sentence} it learns masked words"
        raise OptionError(told, folder, name)


def _new_tokenizer(data: Documents, recipe: PretrainRecipe) -> Tokenizer:
    if recipe.tokenizer:
        return Tokenizer.from_pretrained(recipe.tokenizer)
    return train_wordpiece(
        _documents(data, recipe),
        recipe.vocab_size or _VOCABULARY,
        lowercase=recipe.do_lower_case,
        model_max_length=max(_POSITIONS, recipe.max_seq_length or 0),
    )


def _new_config(recipe: PretrainRecipe, tokenizer: Tokenizer) -> Any:
    """The configuration of a new BERT with the tokenizer's vocabulary."""
    config, size = family("bert").config, recipe.hidden_size or 128
    changes: dict[str, Any] = {"vocab_size": tokenizer.vocab_size, "pad_token_id": tokenizer.pad_token_id}
    if recipe.dropout is not None:
        changes |= dict.fromkeys(config.dropouts, recipe.dropout)
    if recipe.config:
        return config.from_dict(hugging_face.read_json(recipe.config), recipe.config, **changes)
    sizes = {
        "hidden_size": size,
        "num_hidden_layers": recipe.layers or 2,
        "num_attention_heads": recipe.heads or max(1, size // _HEAD_DIM),
        "intermediate_size": recipe.intermediate_size or 4 * size,
        "max_position_embeddings": max(_POSITIONS, recipe.max_seq_length or 0),
    }
    with fields_as_options(hidden_size="hidden_size", num_attention_heads="heads"):
        return config(**sizes, **changes)
