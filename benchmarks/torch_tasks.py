"""BERT's tasks in PyTorch, as a careful user trains them: transformers' Trainer, or that of sentence-transformers.

It keeps its defaults: AdamW without weight decay of biases and LayerNorm, a rate that rises and falls linearly, clipped
gradients, batches padded to their longest sequence, a saved state every 500 steps and at the end. `grouped` adds
batches of similar lengths. Texts are tokenised beforehand, except for sentence-transformers, whose collator does it.
"""

from __future__ import annotations

import importlib
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = list[dict[str, Any]]

IGNORED = -100
LONGEST_ANSWER = 30  # wordpieces
TAGGED_LENGTH = 512


def run(
    folder: str,
    task: str,
    train: Rows,
    test: Rows,
    recipe: dict[str, Any],
    seed: int,
    threads: int,
    grouped: bool,
) -> dict[str, Any]:
    """Train and evaluate once an epoch.

    Returns `seconds` and `processor_seconds` from the first step to the end of the last evaluation; `padded`, tokens
    with padding per token; and `answers` for `test`, or `metrics`.
    """
    importlib.import_module("torch").set_num_threads(threads)
    importlib.import_module("transformers").set_seed(seed)
    with tempfile.TemporaryDirectory() as output:
        found = TASKS[task](folder, train, test, recipe, {"output_dir": output, "seed": seed}, grouped)
        clock = clock_callback()
        trainer = found.trainer()
        trainer.add_callback(clock)
        trainer.data_collator = padding = Padding(trainer.data_collator)
        trainer.train()
    return {
        "seconds": clock.seconds,
        "processor_seconds": clock.processor_seconds,
        "padded": padding.all / padding.real,
        "answers": found.answers,
        "metrics": found.metrics(clock.metrics),
    }


def clock_callback() -> Any:
    class Clock(importlib.import_module("transformers").TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.start = time.perf_counter(), time.process_time()

        def on_evaluate(self, *_: Any, metrics: Any, **__: Any) -> None:
            self.seconds, self.metrics = time.perf_counter() - self.start[0], metrics
            self.processor_seconds = time.process_time() - self.start[1]

    return Clock()


class Padding:
    """A collator that counts tokens."""

    def __init__(self, collate: Any) -> None:
        self.collate, self.all, self.real = collate, 0, 0

    def __call__(self, features: Any) -> Any:
        batch = self.collate(features)
        for name, values in batch.items():
            if name.endswith("attention_mask"):
                self.all += values.numel()
                self.real += int(values.sum())
        return batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.collate, name)


class TorchTask(ABC):
    """A task. `answers` are those of the last evaluation."""

    def __init__(
        self, folder: str, train: Rows, test: Rows, recipe: dict[str, Any], arguments: dict[str, Any], grouped: bool
    ) -> None:
        self.folder, self.train, self.test, self.recipe, self.grouped = folder, train, test, recipe, grouped
        self.answers: list[Any] = []
        self.arguments = {
            **arguments,
            "num_train_epochs": recipe["epochs"],
            "learning_rate": recipe["learning_rate"],
            "per_device_train_batch_size": recipe["batch_size"],
            "per_device_eval_batch_size": recipe["batch_size"],
            "warmup_steps": recipe["warmup"],  # a share
            "weight_decay": recipe["weight_decay"],
            "max_grad_norm": recipe["max_norm"],
            "eval_strategy": "epoch",
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
            "dataloader_pin_memory": False,
        }

    @abstractmethod
    def trainer(self) -> Any:
        """The Trainer, of a model that is read from the folder."""

    def metrics(self, found: dict[str, float]) -> dict[str, float] | None:
        """Those of the Trainer, if it has any."""
        return None


class TransformersTask(TorchTask):
    """A task of transformers' Trainer."""

    head: str
    collator = "DataCollatorWithPadding"

    def trainer(self) -> Any:
        transformers = importlib.import_module("transformers")
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder)
        model = getattr(transformers, f"AutoModelFor{self.head}").from_pretrained(self.folder, **self.fields())
        dataset = importlib.import_module("datasets").Dataset
        sampling = "group_by_length" if self.grouped else "random"
        return transformers.Trainer(
            model,
            transformers.TrainingArguments(**self.arguments, train_sampling_strategy=sampling),
            train_dataset=dataset.from_dict(self.features(self.train)),
            eval_dataset=dataset.from_dict(self.features(self.test)),
            data_collator=getattr(transformers, self.collator)(self.tokenizer),
            processing_class=self.tokenizer,
            compute_metrics=self.keep_answers,
        )

    def fields(self) -> dict[str, Any]:
        """Of the model's config."""
        return {}

    @abstractmethod
    def features(self, rows: Rows) -> dict[str, Any]:
        """The columns of the Trainer's dataset."""

    def keep_answers(self, found: Any) -> dict[str, float]:
        self.answers = self.answers_of(found.predictions, found.label_ids)
        return {}

    @abstractmethod
    def answers_of(self, logits: Any, labels: Any) -> list[Any]:
        """The answers for the rows to evaluate, from the Trainer's predictions."""


class Classify(TransformersTask):
    head = "SequenceClassification"

    def fields(self) -> dict[str, Any]:
        self.labels = sorted({row["label"] for row in self.train})
        return {"num_labels": len(self.labels)}

    def features(self, rows: Rows) -> dict[str, Any]:
        texts = [row["text"] for row in rows]
        encoded = self.tokenizer(texts, truncation=True, max_length=self.recipe["max_length"])
        return {**encoded, "labels": [self.labels.index(row["label"]) for row in rows]}

    def answers_of(self, logits: Any, labels: Any) -> list[Any]:
        return [self.labels[i] for i in logits.argmax(axis=1)]


class Regress(TransformersTask):
    head = "SequenceClassification"

    def fields(self) -> dict[str, Any]:
        return {"num_labels": 1, "problem_type": "regression"}

    def features(self, rows: Rows) -> dict[str, Any]:
        pairs = [[row[name] for row in rows] for name in ("sentence1", "sentence2")]
        encoded = self.tokenizer(*pairs, truncation=True, max_length=self.recipe["max_length"])
        return {**encoded, "labels": [row["score"] for row in rows]}

    def answers_of(self, logits: Any, labels: Any) -> list[Any]:
        return [float(value) for value in logits[:, 0]]


class Tag(TransformersTask):
    """A word has the label of its first wordpiece."""

    head = "TokenClassification"
    collator = "DataCollatorForTokenClassification"

    def fields(self) -> dict[str, Any]:
        self.labels = sorted({tag for row in self.train for tag in row["tags"]} - {"_"})
        return {"num_labels": len(self.labels)}

    def features(self, rows: Rows) -> dict[str, Any]:
        words = [row["tokens"] for row in rows]
        encoded = self.tokenizer(words, is_split_into_words=True, truncation=True, max_length=TAGGED_LENGTH)
        numbers = {**{label: i for i, label in enumerate(self.labels)}, "_": IGNORED}
        self.words: list[list[int | None]] = []  # of the rows to evaluate, the last ones
        labels = []
        for i, row in enumerate(rows):
            owners = encoded.word_ids(i)
            first = [word if word not in owners[:place] else None for place, word in enumerate(owners)]
            labels.append([IGNORED if word is None else numbers.get(row["tags"][word], IGNORED) for word in first])
            self.words.append(first)
        return {**encoded, "labels": labels}

    def answers_of(self, logits: Any, labels: Any) -> list[Any]:
        answers = []
        for row, owners, scores in zip(self.test, self.words, logits.argmax(axis=2), strict=True):
            found = [self.labels[0]] * len(row["tokens"])
            for word, label in zip(owners, scores, strict=False):
                if word is not None:
                    found[word] = self.labels[label]
            answers.append(found)
        return answers


class Answer(TransformersTask):
    """The first and the last token of an answer in each window; the first token, [CLS], if it is not there."""

    head = "QuestionAnswering"

    def features(self, rows: Rows) -> dict[str, Any]:
        encoded = self.tokenizer(
            [row["question"] for row in rows],
            [row["context"] for row in rows],
            truncation="only_second",
            max_length=self.recipe["max_length"],
            stride=self.recipe["doc_stride"],
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        owners = encoded.pop("overflow_to_sample_mapping")
        self.places: list[tuple[int, npt.NDArray[Any]]] = []  # of the rows to evaluate, the last ones
        starts, ends = [], []
        for window, (owner, offsets) in enumerate(zip(owners, encoded.pop("offset_mapping"), strict=True)):
            inside = np.array([kind == 1 for kind in encoded.sequence_ids(window)])
            characters = np.where(inside[:, None], np.array(offsets), -1)
            text, start = (rows[owner]["answers"][name][0] for name in ("text", "answer_start"))
            first = np.flatnonzero((characters[:, 0] <= start) & (characters[:, 1] > start))
            last = np.flatnonzero((characters[:, 0] < start + len(text)) & (characters[:, 1] >= start + len(text)))
            there = len(first) and len(last)
            starts.append(int(first[0]) if there else 0)
            ends.append(int(last[0]) if there else 0)
            self.places.append((owner, characters))
        return {**encoded, "start_positions": starts, "end_positions": ends}

    def answers_of(self, logits: Any, labels: Any) -> list[Any]:
        best: list[tuple[float, str]] = [(-np.inf, "")] * len(self.test)
        for (owner, characters), start, end in zip(self.places, *logits, strict=True):
            tokens = np.flatnonzero(characters[:, 0] >= 0)
            sums = start[tokens][:, None] + end[tokens]
            distance = np.arange(len(tokens)) - np.arange(len(tokens))[:, None]
            sums[(distance < 0) | (distance >= LONGEST_ANSWER)] = -np.inf
            first, last = np.unravel_index(sums.argmax(), sums.shape)
            text = self.test[owner]["context"][characters[tokens[first], 0] : characters[tokens[last], 1]]
            best[owner] = max(best[owner], (float(sums[first, last]), text))
        return [text for _, text in best]


class Embed(TorchTask):
    """sentence-transformers: CoSENT with scores, multiple negatives ranking without."""

    def trainer(self) -> Any:
        package = importlib.import_module("sentence_transformers")
        losses = importlib.import_module("sentence_transformers.losses")
        model = package.SentenceTransformer(self.folder, device="cpu")
        dataset = importlib.import_module("datasets").Dataset
        scored = "score" in self.train[0]
        kind = losses.CoSENTLoss if scored else losses.MultipleNegativesRankingLoss
        sampler = "batch_sampler" if scored else "no_duplicates"
        trainer = package.SentenceTransformerTrainer(
            model,
            package.SentenceTransformerTrainingArguments(**self.arguments, batch_sampler=sampler),
            train_dataset=dataset.from_list(self.train),
            loss=kind(model, scale=self.recipe["scale"]),
            evaluator=self.evaluator(scored),
        )
        if self.grouped:  # it has no option for this
            trainer.get_batch_sampler = self.by_length(model)
        return trainer

    def by_length(self, model: Any) -> Any:
        """Makes batches of rows with similar numbers of tokens."""
        texts = [[value for value in row.values() if isinstance(value, str)] for row in self.train]
        lengths = [sum(map(len, model.tokenizer(row)["input_ids"])) for row in texts]
        sampler = importlib.import_module("transformers.trainer_pt_utils").LengthGroupedSampler
        batches = importlib.import_module("sentence_transformers.base.sampler").DefaultBatchSampler

        def make(dataset: Any, batch_size: int, **others: Any) -> Any:
            order = sampler(batch_size, lengths=lengths, generator=others["generator"])
            return batches(order, batch_size=batch_size, **others)

        return make

    def evaluator(self, scored: bool) -> Any:
        evaluation = importlib.import_module("sentence_transformers.evaluation")
        size = self.recipe["batch_size"]
        if scored:
            columns = ([row[name] for row in self.test] for name in ("sentence1", "sentence2", "score"))
            return evaluation.EmbeddingSimilarityEvaluator(*columns, batch_size=size, write_csv=False)
        documents = {text: str(i) for i, text in enumerate(dict.fromkeys(row["positive"] for row in self.test))}
        queries = {text: str(i) for i, text in enumerate(dict.fromkeys(row["anchor"] for row in self.test))}
        relevant: dict[str, set[str]] = {number: set() for number in queries.values()}
        for row in self.test:
            relevant[queries[row["anchor"]]].add(documents[row["positive"]])
        by_number = ({number: text for text, number in found.items()} for found in (queries, documents))
        return evaluation.InformationRetrievalEvaluator(*by_number, relevant, batch_size=size, write_csv=False)

    def metrics(self, found: dict[str, float]) -> dict[str, float] | None:
        return {name.removeprefix("eval_"): value for name, value in found.items()}


TASKS: dict[str, Callable[..., TorchTask]] = {
    "classify": Classify,
    "regress": Regress,
    "tag": Tag,
    "answer": Answer,
    "embed": Embed,
}
