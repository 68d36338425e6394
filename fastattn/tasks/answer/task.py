"""Questions and texts in, the parts of the texts that answer them out."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastattn import checks, runtime
from fastattn.autograd import no_grad
from fastattn.files import json_line
from fastattn.hub import find_model
from fastattn.models.registry import load_head
from fastattn.random import manual_seed
from fastattn.tasks.answer.recipe import USUAL_LENGTH, AnswerOptions, AnswerRecipe, AnswerUse
from fastattn.tasks.answer.windows import Found, answer_tokens, best_answers, encode_windows
from fastattn.tasks.base import Task, make_recipe, metric_text, model_name
from fastattn.tasks.embed.folder import FILES, find_start, read_sentence_folder
from fastattn.tasks.heads import head_of, token_types
from fastattn.tasks.limits import token_limit
from fastattn.tasks.work import Together, Work, joined_windows
from fastattn.text import (
    SquadExample,
    TokenizedTexts,
    Tokenizer,
    gather,
    is_squad,
    parse_squad,
    read_squad,
    token_budget_batches,
    tokens_per_batch,
)
from fastattn.text.tables import format_by_name
from fastattn.training import TokenBatches, squad_scores
from fastattn.training.answer_metrics import check_known

HEAD = "QuestionAnswering"


class Input(NamedTuple):
    """Questions to answer, and whether they came as a table, whose answers are JSON lines."""

    examples: list[SquadExample]
    table: bool


class Answerer(Task):
    """A model that finds the part of a text, the context, that answers a question, and its tokenizer.

    A context that is too long is split into windows, as BERT's run_squad does, and the best answer of all windows
    counts. The answers of a question do not depend on the other questions, their order or the number of threads. Many
    threads may call at once.

    Attributes:
        model: a model for question answering, such as `BertForQuestionAnswering`.
        tokenizer: its tokenizer.
        recipe: how the model is trained, and the default options of a call.

    >>> answerer = Answerer.from_pretrained("path/to/answerer")                            # doctest: +SKIP
    >>> answerer(question="Who sat?", context="In the end, the cat sat.")["answer"]        # doctest: +SKIP
    'the cat'
    """

    heads = (HEAD,)
    data_class, item_class = list, SquadExample

    def __init__(self, model: Any, folder: Path, recipe: AnswerRecipe | None = None) -> None:
        """Combine a model and the tokenizer in `folder`."""
        self.model, self.recipe = model, recipe or AnswerRecipe()
        self.tokenizer = Tokenizer.from_pretrained(folder)
        self.tokenizer.warn_of_tokens_beyond(model.config.vocab_size)
        token_limit(self.tokenizer, model.config, self.recipe.max_length)  # before any work is done
        self._folder = folder

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | os.PathLike[str], *, weights: str | None = None, **hub: Any
    ) -> Answerer:
        """Load what `save_pretrained` or transformers' BertForQuestionAnswering wrote, frozen. See `Task`."""
        folder = find_model(name_or_folder, FILES, **hub)
        cls.check_folder(folder)
        return cls(load_head(folder, HEAD, trainable=False, weights=weights, new_head="refuse"), folder)

    @classmethod
    def check_folder(cls, folder: Path) -> None:
        head_of(folder, HEAD, refusal="has no head for answers (`fastattn train answer` makes one)")

    @classmethod
    def for_training(
        cls, start: str | os.PathLike[str], data: Any, recipe: AnswerRecipe | None = None, **options: Any
    ) -> Answerer:
        """Load a model to train.

        Args:
            start: an encoder, as for `SentenceEncoder`. A missing head is drawn at random.
            data: the questions: what `read` returns, or takes.
            recipe: the recipe; None is `AnswerRecipe()`.
            options: replace fields of the recipe.

        Raises as `from_pretrained` does, and ValueError for questions without known answers.
        """
        recipe = make_recipe(AnswerRecipe, recipe, options)
        check_known(cls.as_data("for_training", data, recipe))
        folder = read_sentence_folder(find_start(start)).transformer
        manual_seed(recipe.seed)
        answerer = cls(load_head(folder, HEAD, trainable=True, new_head="draw", num_labels=2), folder, recipe)
        answerer.base_model = model_name(start)
        return answerer

    def __repr__(self) -> str:
        return f"Answerer({str(self._folder)!r})"

    def __call__(
        self,
        inputs: Any = None,
        /,
        *,
        question: str | Sequence[str] | None = None,
        context: str | Sequence[str] | None = None,
        n_best: int | None = None,
        **options: Any,
    ) -> Any:
        """The best answer of each question, under the names of transformers' question-answering pipeline.

        Args:
            inputs: questions and their contexts: what `read` returns, or anything that `read_squad` takes, such as a
                list of dicts.
            question: a question, or a sequence of them, in the place of `inputs`.
            context: the context of the question, or of each.
            n_best: a list of the best answers of each question, at most this many; None gives the best one itself.
            options: replace fields of `AnswerOptions`, such as `max_answer_length`.

        Returns a list, or what is for a single `question`. An answer is a dict:

        - `answer`: a part of the context, or "" for no answer.
        - `score`: the probability of its first token times that of its last one, in the window where it is highest.
        - `start` and `end`: its first character, and the one behind it.
        - `no_answer_score`: by how much the score of no answer, where it is lowest among the windows, is above the
          highest score of a span in any window, in logits, as run_squad counts it; None in a context without tokens.

        There is no answer if `no_answer_score` is above `null_score_diff_threshold`, unless this is None, and in a
        context without tokens. Raises TypeError or ValueError for what are no questions and contexts, naming them.
        """
        if (question is None, context is None) != (inputs is not None,) * 2:
            raise TypeError("Answerer: either inputs must be given, or question and context")
        if inputs is not None:
            questions, contexts = _texts(self.as_data("Answerer", inputs, self.recipe))
        else:
            asked = [question] if isinstance(question, str) else question
            questions = checks.texts("Answerer: question", asked)
            told = [context] * len(questions) if isinstance(context, str) else context
            contexts = checks.texts("Answerer: context", told)
        given = replace(self._options, **options)
        count = 1 if n_best is None else checks.integer("Answerer: n_best", n_best)
        answers: list[Any] = self._answers(questions, contexts, given, count)
        if n_best is None:
            answers = [some[0] for some in answers]
        return answers[0] if isinstance(question, str) else answers

    @property
    def _options(self) -> AnswerOptions:
        return AnswerOptions(**{each.name: getattr(self.recipe, each.name) for each in fields(AnswerOptions)})

    def _answers(
        self, questions: list[str], contexts: list[str], options: AnswerOptions, count: int
    ) -> list[list[dict[str, Any]]]:
        if not questions:
            return []
        windows = self._encode(questions, contexts, options)
        scores = self._passes(windows.ids, windows.cu_seqlens, token_types(self.model.config, windows))
        return self._described(windows, scores, contexts, options, count)

    def _passes(
        self, ids: NDArray[np.int64], offsets: NDArray[np.int32], types: NDArray[np.int64] | None
    ) -> NDArray[np.float32]:
        """The scores of tokens as starts and as ends."""
        places, scores = np.arange(len(ids)), np.empty((2, len(ids)), np.float32)
        with no_grad():
            for batch in token_budget_batches(np.diff(offsets), tokens_per_batch(runtime.num_threads())):
                rows, cu_seqlens = gather(places, offsets, batch)
                kinds = None if types is None else types[rows]
                output = self.model.forward_ragged(ids[rows], cu_seqlens, kinds)
                scores[:, rows] = np.asarray(output.start_logits), np.asarray(output.end_logits)
        return scores

    def prepare(
        self, inputs: Any, method: str | None = None, *, n_best: int | None = None, **options: Any
    ) -> list[Work]:
        """Each of `inputs`, which are questions with their contexts, tokenised; see `Predictor.prepare`. The options
        are those of a call, and there is no other `method`."""
        checks.choice("prepare: method", method or "__call__", ("__call__",))
        given = replace(self._options, **options)
        count = None if n_best is None else checks.integer("Answerer: n_best", n_best)
        together = Together(self._compute, (given, count))
        found = []
        for question, context in zip(*_texts(self.as_data("Answerer", inputs, self.recipe)), strict=True):
            windows = self._encode([question], [context], given)
            types = token_types(self.model.config, windows)
            data = windows.ids, windows.cu_seqlens, types, windows, context
            found.append(Work(together, data, *[len(windows.ids)] * 2))
        return found

    def _compute(self, data: list[Any], options: AnswerOptions, count: int | None) -> Iterator[Any]:
        ids, offsets = joined_windows([each[:2] for each in data])
        kinds = [each[2] for each in data if each[2] is not None]
        scores = self._passes(ids, offsets, np.concatenate(kinds) if kinds else None)
        start = 0
        for own, _, _, windows, context in data:
            [some] = self._described(windows, scores[:, start : start + len(own)], [context], options, count or 1)
            yield some[0] if count is None else some
            start += len(own)

    def _described(
        self,
        windows: TokenizedTexts,
        scores: NDArray[np.float32],
        contexts: list[str],
        options: AnswerOptions,
        count: int,
    ) -> list[list[dict[str, Any]]]:
        every = best_answers(windows, scores[0], scores[1], options.max_answer_length, count)
        return [
            _described(found, context, options.null_score_diff_threshold, count)
            for found, context in zip(every, contexts, strict=True)
        ]

    def _encode(self, questions: list[str], contexts: list[str], options: AnswerOptions) -> TokenizedTexts:
        config = self.model.config
        longest = token_limit(self.tokenizer, config, options.max_length, USUAL_LENGTH)
        return encode_windows(self.tokenizer, questions, contexts, options, longest, config.vocab_size)

    def batches(self, data: Any) -> TokenBatches:
        """Batches of windows. Raises ValueError for questions without known answers, and for no questions."""
        examples = self.as_data("batches", data, self.recipe)
        check_known(examples)
        if not examples:
            raise ValueError("batches: there are no questions")
        windows = self._encode(*_texts(examples), self._options)
        spans = np.array([_span(example) for example in examples], np.int64)
        starts, ends = answer_tokens(windows, spans[:, 0], spans[:, 1])
        ids, types, places = windows.ids, token_types(self.model.config, windows), np.arange(len(windows.ids))

        def load(indices: NDArray[np.int64]) -> dict[str, Any]:
            rows, offsets = gather(places, windows.cu_seqlens, indices)
            return {
                "input_ids": ids[rows],
                "cu_seqlens": offsets,
                "token_type_ids": None if types is None else types[rows],
                "start_positions": starts[indices],
                "end_positions": ends[indices],
            }

        return TokenBatches(
            windows.lengths,
            load,
            **self.recipe.batching,
            settings={"ids_crc32": zlib.crc32(ids.tobytes())},
        )

    def loss(self, batch: Mapping[str, Any]) -> Any:
        return self.model.forward_ragged(**batch).loss

    def evaluate(self, data: Any) -> dict[str, float]:
        """Exact match and F1, from 0 to 100, see `fastattn.training.squad_scores`."""
        examples = self.as_data("evaluate", data, self.recipe)
        check_known(examples)
        return squad_scores([some[0]["answer"] for some in self._of(examples, self._options, 1)], examples)

    def _of(self, examples: list[SquadExample], options: AnswerOptions, count: int) -> list[list[dict[str, Any]]]:
        """The answers of questions. Those of SQuAD 2.0 may have none."""
        if options.null_score_diff_threshold is None and any(example.is_impossible for example in examples):
            options = replace(options, null_score_diff_threshold=0.0)
        return self._answers(*_texts(examples), options, count)

    def check(self, data: Any) -> None:
        check_known(self.as_data("evaluate", data, self.recipe))

    def configuration(self, data: Any) -> dict[str, Any]:
        return {"config": self.model.config.to_dict(), "train_crc32": self.checksum(data)}

    def checksum(self, data: Any) -> int:
        rows = [(each.id, each.question, each.context, each.answers, each.is_impossible) for each in data]
        return zlib.crc32(json.dumps(rows).encode())

    @classmethod
    def read(cls, *paths: Any) -> list[SquadExample]:
        """The questions of files, or of what else `read_squad` takes. Raises as it does."""
        return [example for path in paths for example in read_squad(path)]

    def read_input(self, lines: Iterable[bytes], name: str, options: Any) -> Input:
        given, kind = list(lines), options.format or format_by_name(name)
        if kind == "squad" or (kind == "jsonl" and options.format is None):  # .json may be either
            kind = None
        return Input(parse_squad(given, name, kind), kind is not None or not is_squad(given))

    def predict(self, data: Input, options: AnswerUse) -> tuple[Iterable[str], Iterable[str]]:
        found = self._of(data.examples, options, options.n_best or 1)
        best = [some[0] for some in found]
        known = all(example.answers or example.is_impossible for example in data.examples)
        told = [self.show(squad_scores([each["answer"] for each in best], data.examples))] if known else []
        ids = [example.id for example in data.examples]
        if data.table:
            rows: list[Any] = [{"answers": some} for some in found] if options.n_best else best
            return (json_line({"id": name, **row}) for name, row in zip(ids, rows, strict=True)), told
        values: list[Any] = found if options.n_best else [each["answer"] for each in best]
        return _object(dict(zip(ids, values, strict=True))), told

    def show(self, metrics: Mapping[str, float | None]) -> str:
        return ", ".join(f"{name} {metric_text(value, 2)}" for name, value in metrics.items())

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write model and tokenizer, each file whole or not at all. transformers reads them too."""
        checks.path("save_pretrained: folder", folder)
        self.tokenizer.save_pretrained(folder)
        self.model.save_pretrained(folder)


def _texts(examples: list[SquadExample]) -> tuple[list[str], list[str]]:
    """The questions and the contexts."""
    return [example.question for example in examples], [example.context for example in examples]


def _span(example: SquadExample) -> tuple[int, int]:
    """The characters of the first answer, without spaces around it; -1, -1 if there is none."""
    if not example.answers:
        return -1, -1
    text, start = example.answers[0]
    return start + len(text) - len(text.lstrip()), start + len(text.rstrip())


def _described(found: Found, context: str, threshold: float | None, count: int) -> list[dict[str, Any]]:
    """The answers of a question. One that is none stands among them if there is a `threshold` or no other."""
    difference = found.none_logits - found.best_logits if found.spans else None
    answers: list[dict[str, Any]] = [
        {"score": span.score, "start": span.start, "end": span.end, "answer": context[span.start : span.end]}
        for span in found.spans
    ]
    if threshold is not None or difference is None:
        none = {"score": found.none, "start": 0, "end": 0, "answer": ""}
        if difference is None or (threshold is not None and difference > threshold):
            answers.insert(0, none)
        else:
            behind = sum(answer["score"] >= found.none for answer in answers[1:])
            answers.insert(1 + behind, none)
    return [{**answer, "no_answer_score": difference} for answer in answers[:count]]


def _object(values: Mapping[str, Any]) -> Iterator[str]:
    """A JSON object, an entry on each line."""
    before = "{\n"
    for name, value in values.items():
        yield f"{before}{json_line(name)[:-1]}: {json_line(value)[:-1]}"
        before = ",\n"
    yield "\n}\n"
