"""BERT's pre-training data: pairs of segments of which half follow each other, with hidden words.

    documents = TokenizedDocuments.read(Documents(["corpus.txt"]), tokenizer)
    batches = PretrainingBatches(documents, tokenizer, masking, batch_size=32)

The rules and names are those of google-research/bert's create_pretraining_data. Nothing is written in advance: an epoch
draws new segments and new masks, each batch when it is needed. What is drawn depends on the seed and the place alone.

Source: Devlin et al. 2019, section 3.1 and appendix A.2.
"""

from __future__ import annotations

import itertools
import random
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import asdict
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from fastattn._types import IntArray
from fastattn.checks import FRACTION, integer, number
from fastattn.errors import OptionError
from fastattn.text.masking import Masking
from fastattn.text.tokenized_documents import TokenizedDocuments
from fastattn.text.tokenizer import Tokenizer

__all__ = ["PretrainingBatches", "plan_instances"]

SHARD = 1 << 22  # wordpieces of the documents whose instances are made and shuffled together
_KEPT = 16  # shards whose instances are kept in memory, about a megabyte each
_DOCUMENTS, _INSTANCES, _SHUFFLE, _MASKS, _BATCHES = range(1, 6)  # what a generator is for

Batch = tuple[int, int, int, int]
"""The epoch that it is drawn for, the pass over the documents, the shard of the pass and the batch of the shard."""


class PretrainingBatches:
    """Batches of instances for a `Trainer`.

    A pass shuffles the documents and goes through shards of them, with about 4 million wordpieces each. The instances
    of a shard are made and shuffled in memory; the wordpieces may stay on disk. The last batch of a shard may be
    smaller. Every epoch has as many batches as the first one.

    Args:
        documents: the text.
        tokenizer: the tokenizer of the text, whose special tokens are put around the segments.
        masking: hides words.
        batch_size: instances of a batch.
        next_sentence: two segments, not one (masked words alone).
        max_seq_length: the most tokens of an instance, special tokens included.
        short_seq_prob: the share of the documents whose instances have a smaller, random length.
        dupe_factor: passes over the documents in an epoch.
        static_masks: draw instances and masks once, not anew in each epoch; only the order of the batches changes.
        accumulation: batches of a step.
        seed: the seed of all draws, at least 0.

    Raises ValueError, by name, for numbers out of range, and for a single document if there are next sentences.
    """

    def __init__(
        self,
        documents: TokenizedDocuments,
        tokenizer: Tokenizer,
        masking: Masking,
        *,
        batch_size: int,
        next_sentence: bool = True,
        max_seq_length: int = 128,
        short_seq_prob: float = 0.1,
        dupe_factor: int = 1,
        static_masks: bool = False,
        accumulation: int = 1,
        seed: int = 0,
    ) -> None:
        owner, template, self._pairs = "PretrainingBatches", tokenizer.template(next_sentence), next_sentence
        low = template.special + 2
        length = integer(f"{owner}: max_seq_length", max_seq_length, low, wanted=f"at least {low}")
        self._room = length - template.special
        self.accumulation = integer(f"{owner}: accumulation", accumulation)
        self._batch_size = integer(f"{owner}: batch_size", batch_size)
        self._short = number(f"{owner}: short_seq_prob", short_seq_prob, **FRACTION)
        self._passes, self._static = integer(f"{owner}: dupe_factor", dupe_factor), static_masks
        self._seed = integer(f"{owner}: seed", seed, 0)
        if self._pairs and len(documents) < 2:
            told = "{}: next sentences need two documents or more, there is one; {no_next_sentence} learns masked words"
            raise OptionError(told, documents.name)
        self.documents, self._template, self._masking = documents, template, masking
        self._shards = lru_cache(2)(self._make_shards)
        self._plan = lru_cache(_KEPT)(self._make_plan)

    @property
    def settings(self) -> dict[str, Any]:
        """The identity of these batches: a checksum of the text, and every number."""
        masking = {name: value for name, value in asdict(self._masking).items() if name != "continuing"}
        return {
            **masking,
            "do_whole_word_mask": self._masking.continuing is not None,
            "text_crc32": self.documents.crc32,
            "batch_size": self._batch_size,
            "room": self._room,
            "short_seq_prob": self._short,
            "dupe_factor": self._passes,
            "static_masks": self._static,
            "next_sentences": self._pairs,
            "seed": self._seed,
        }

    @cached_property
    def count(self) -> int:
        """The batches of every epoch, as many as the draws of the first one give."""
        return sum(
            self._count(0, number, shard) for number in range(self._passes) for shard in self._numbers(0, number)
        )

    def epoch(self, number: int) -> list[Batch]:
        """The batches of epoch `number`. Its draws may give a few more than `count`, which are left out, or a few less,
        which a further pass gives."""
        drawn = 0 if self._static else number
        found: list[Batch] = []
        for i in itertools.count():
            for shard in self._numbers(drawn, i):
                found += [(drawn, i, shard, batch) for batch in range(self._count(drawn, i, shard))]
            if i + 1 >= self._passes and len(found) >= self.count:
                break
        found = found[: self.count]
        if not self._static:
            return found
        rng = self._generator(_BATCHES, number)
        groups = [list(group) for _, group in itertools.groupby(found, key=lambda batch: batch[:3])]
        return [groups[i][k] for i in rng.permutation(len(groups)) for k in rng.permutation(len(groups[i]))]

    def tokens(self, batch: Batch) -> int:
        """How many tokens a batch has."""
        plan = self._of(batch)
        return int(plan[:, 2:4].sum()) + len(plan) * self._template.special

    def load(self, batch: Batch) -> dict[str, Any]:
        """Arguments of `forward_ragged`: ids with masks, cu_seqlens, token types, labels; `next_sentence_label`, 0 for
        a second segment that follows the first and 1 for a random one, if there are two."""
        plan = self._of(batch)
        count = 1 + self._pairs
        filled = self._template.fill(self.documents.ids, plan[:, :count], plan[:, 2 : 2 + count])
        ids, cu_seqlens, types, special = filled
        ids, labels = self._masking(ids, cu_seqlens, special, self._generator(_MASKS, *batch))
        found = {"input_ids": ids, "cu_seqlens": cu_seqlens, "token_type_ids": types, "labels": labels}
        return {**found, "next_sentence_label": plan[:, 4]} if self._pairs else found

    def _numbers(self, epoch: int, number: int) -> range:
        return range(len(self._shards(epoch, number)))

    def _count(self, epoch: int, number: int, shard: int) -> int:
        return -(-len(self._plan(epoch, number, shard)) // self._batch_size)

    def _of(self, batch: Batch) -> IntArray:
        start = batch[3] * self._batch_size
        return self._plan(*batch[:3])[start : start + self._batch_size]

    def _make_shards(self, epoch: int, number: int) -> list[IntArray]:
        """The documents of each shard of a pass."""
        order = self._generator(_DOCUMENTS, epoch, number).permutation(len(self.documents))
        sizes = np.diff(self.documents.offsets[self.documents.bounds])[order]
        shard = (np.cumsum(sizes) - sizes) // SHARD
        return np.split(order, np.flatnonzero(np.diff(shard)) + 1)

    def _make_plan(self, epoch: int, number: int, shard: int) -> IntArray:
        """The instances of a shard, in their order."""
        documents = self._shards(epoch, number)[shard].tolist()
        draw = random.Random(int(self._generator(_INSTANCES, epoch, number, shard).integers(2**63)))
        plan = plan_instances(self.documents, documents, self._room, self._short, self._pairs, draw)
        order = self._generator(_SHUFFLE, epoch, number, shard).permutation(len(plan))
        return plan[order]

    def _generator(self, purpose: int, *place: int) -> np.random.Generator:
        return np.random.default_rng((purpose, self._seed, *place))


def plan_instances(
    documents: TokenizedDocuments,
    chosen: Iterable[int],
    room: int,
    short_seq_prob: float,
    pairs: bool,
    draw: random.Random,
) -> IntArray:
    """Where the segments of instances lie, int64 `[instances, 5]`: two starts, two lengths, and 1 for a random second.

    Sentences of a document are taken until there are `room` wordpieces, or in a share of the documents a smaller random
    number. With `pairs` they are split between two sentences. In half of the cases, and for a single sentence, the
    second segment comes from another document, and the rest of the sentences is taken again. What is too long loses
    wordpieces at the longer segment, at its beginning or its end with equal probability. Without `pairs` all sentences
    are one segment, and the second one is empty.

    Args:
        documents: the text.
        chosen: the documents to make instances of. Random segments come from all.
        room: the most wordpieces of an instance.
        short_seq_prob: the share of the documents with shorter instances.
        pairs: whether there are two segments.
        draw: the source of all draws.
    """
    offsets, bounds = documents.offsets, documents.bounds
    found: list[int] = []
    for document in chosen:
        first, last = bounds[document : document + 2].tolist()
        stops: list[int] = offsets[first : last + 1].tolist()
        target = draw.randint(2, room) if draw.random() < short_seq_prob else room
        i, end = 0, last - first
        while i < end:
            j = min(bisect_left(stops, stops[i] + target, i + 1), end)
            split = j if not pairs else i + 1 if j == i + 1 else i + draw.randint(1, j - i - 1)
            start, size = stops[i], stops[split] - stops[i]
            follows, rest, is_random = stops[split], stops[j] - stops[split], 0
            if pairs and (j == i + 1 or draw.random() < 0.5):
                other = draw.randrange(len(bounds) - 2)
                begin, stop = bounds[other + (other >= document) :][:2].tolist()
                place = draw.randrange(begin, stop)
                follows = int(offsets[place])
                stop = bisect_left(offsets, follows + max(target - size, 1), place + 1, stop)
                rest, is_random, j = int(offsets[stop]) - follows, 1, split
            if size + rest > room:
                kept = min(size, max(room - rest, (room + 1) // 2))
                start, follows = start + _front(size - kept, draw), follows + _front(rest - (room - kept), draw)
                size, rest = kept, room - kept
            found += (start, follows, size, rest, is_random)
            i = j
    return np.array(found, np.int64).reshape(-1, 5)


def _front(dropped: int, draw: random.Random) -> int:
    """How many of the dropped wordpieces lie at the front: a bit each."""
    return draw.getrandbits(dropped).bit_count() if dropped > 0 else 0
