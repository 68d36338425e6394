"""Text in, its translation out."""

from __future__ import annotations

import itertools
import logging
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastattn import checks
from fastattn.autograd import no_grad
from fastattn.files import read_regular
from fastattn.formats.hugging_face import CONFIG, read_config
from fastattn.generation.hypotheses import score
from fastattn.hub import Files, find_model
from fastattn.models import Transformer, TransformerConfig
from fastattn.random import manual_seed
from fastattn.tasks.base import Task, make_recipe
from fastattn.tasks.translate.lines import READ_AHEAD, Input, LineTranslator, read_input
from fastattn.tasks.translate.making import new_config, new_tokenizer
from fastattn.tasks.translate.recipe import SIZES, TranslateOptions, TranslateRecipe
from fastattn.tasks.translate.translations import BATCH_TOKENS, OVERLONG, Search, Searcher, Translation
from fastattn.tasks.work import Together, Work
from fastattn.text import (
    ParallelText,
    TokenizedTexts,
    TranslationTokenizer,
    gather,
    read_parallel,
    read_translation_tokenizer,
    token_budget_batches,
)
from fastattn.training import PairBatches, bleu, character_error_rate, chrf, pair_arguments
from fastattn.training.metrics import import_sacrebleu
from fastattn.training.run_state import STATES, saved_states

FILES = Files(
    ("*.json", "model*.safetensors", "*.spm"),
    required=("config.json", ("model.safetensors", "model.safetensors.index.json")),
)
"""The files of a translator."""

logger = logging.getLogger(__name__)


class _Plan(NamedTuple):
    """How texts are translated, and what is told of it."""

    search: Search
    details: bool
    overlong: str
    batch_tokens: int


class Translator(Searcher, Task):
    """A Transformer and its tokenizer.

    A model decodes as its folder's generation_config.json says, greedily if it says nothing. A translation does not
    depend on the other texts, their order or the number of threads. Many threads may call `translate` at once. Text
    that the vocabulary does not know becomes `<unk>`, which a translation leaves out. The translation of a blank text
    is empty. A number of the model that is no token of the tokenizer, such as the rows that pad a table of embeddings,
    is never chosen.

    Args:
        model: a Transformer.
        tokenizer: the vocabularies of both sides.
        recipe: how it is trained; None is `TranslateRecipe()`.

    Attributes:
        model, tokenizer, recipe: the arguments.
        max_length: the longest text in tokens, `</s>` included.

    Raises ValueError for a tokenizer with more tokens than the model has.

    >>> translator = Translator.from_pretrained("path/to/ar2en")            # doctest: +SKIP
    >>> translator.translate(["نورمان", "سليم"])                             # doctest: +SKIP
    ['norman', 'salim']
    >>> translator.translate("سليم", num_beams=4, n_best=2)                 # doctest: +SKIP
    ['salim', 'saleem']
    """

    data_class = ParallelText

    def __init__(
        self, model: Transformer, tokenizer: TranslationTokenizer, recipe: TranslateRecipe | None = None
    ) -> None:
        config = model.config
        for side, has, knows in (
            ("source", tokenizer.source.vocab_size, config.vocab_size),
            ("target", tokenizer.target.vocab_size, config.decoder_vocab_size),
        ):
            if has > knows:
                raise ValueError(f"Translator: the tokenizer has {has} {side} tokens, but the model only {knows}")
        self.model, self.tokenizer, self.recipe = model, tokenizer, recipe or TranslateRecipe()
        self.max_length = config.max_position_embeddings
        missing = tokenizer.target.missing(config.decoder_vocab_size)
        self._bad_words = [*(config.bad_words_ids or ()), *((number,) for number in missing)]

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | os.PathLike[str],
        *,
        trainable: bool = False,
        weights: str | None = None,
        **hub: Any,
    ) -> Translator:
        """Load what `save_pretrained`, or transformers' MarianMTModel and MarianTokenizer, wrote. See `Task`.

        The model is frozen unless `trainable`.
        """
        checks.path("from_pretrained: name_or_folder", name_or_folder)
        if saved_states(Path(name_or_folder, STATES)) and not Path(name_or_folder, "config.json").exists():
            raise FileNotFoundError(
                f"{name_or_folder}: no model yet; the run is not finished, continue it with --resume"
            )
        folder = find_model(name_or_folder, FILES, **hub)
        cls.check_folder(folder)
        model = Transformer.from_pretrained(folder, trainable=trainable, weights=weights)
        tokenizer = read_translation_tokenizer(folder)
        try:
            return cls(model, tokenizer)
        except ValueError as error:
            raise ValueError(str(error).replace("Translator", str(folder), 1)) from None

    @classmethod
    def check_folder(cls, folder: Path) -> None:
        TransformerConfig.from_dict(read_config(folder), str(folder / CONFIG))

    @classmethod
    def for_training(cls, start: str, data: Any, recipe: TranslateRecipe | None = None, **options: Any) -> Translator:
        """Make a new model, and its vocabularies from the text.

        Args:
            start: the size of the network: "small", "base" or "big".
            data: pairs of texts: what `read` returns, or takes.
            recipe: the recipe; None is `TranslateRecipe()`.
            options: replace fields of the recipe. Some replace numbers of the size.

        Raises ValueError for another size and numbers that do not fit, FileNotFoundError for a missing SentencePiece
        model, and ImportError for a missing library.
        """
        recipe = make_recipe(TranslateRecipe, recipe, options)
        data = cls.as_data("for_training", data, recipe)
        size = SIZES[checks.choice("for_training: start", start, SIZES)]
        if {"bleu", "chrf"} & {*recipe.measured}:
            import_sacrebleu()
        tokenizer = new_tokenizer(recipe, data)
        manual_seed(recipe.seed)
        return cls(Transformer(new_config(recipe, size, tokenizer)), tokenizer, recipe)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write model and vocabularies, each file whole or not at all."""
        checks.path("save_pretrained: folder", folder)
        self.tokenizer.save_pretrained(folder)  # a folder with a model has its vocabularies
        self.model.save_pretrained(folder)

    def encode(
        self, texts: Sequence[str], *, target: bool = False, place: Callable[[int], str] = "texts[{}]".format
    ) -> TokenizedTexts:
        """The tokens of texts. None of them may be too long for the model.

        Args:
            texts: the texts.
            target: whether they are of the target side.
            place: the name that an error gives to the text of an index, such as its file and line.

        Raises TypeError for what is not a sequence of str, and ValueError for a text that is too long or not valid
        Unicode.
        """
        texts = checks.texts("encode: texts", texts)
        encoded = (self.tokenizer.target if target else self.tokenizer.source).encode(texts)
        long = encoded.lengths > self.max_length
        if long.any():
            i = int(long.argmax())
            raise ValueError(
                f"{place(i)} has {encoded.lengths[i]} tokens, but the model reads at most {self.max_length} "
                "(max_position_embeddings)"
            )
        return encoded

    def translate(
        self,
        texts: str | Sequence[str],
        *,
        n_best: int = 1,
        return_scores: bool = False,
        return_alignments: bool = False,
        prefixes: str | Sequence[str] | None = None,
        replace_unknowns: bool = False,
        vocabulary: Sequence[str] | None = None,
        batch_tokens: int = BATCH_TOKENS,
        overlong: str = "error",
        **options: Any,
    ) -> Any:
        """Translate a text or many, at most `batch_tokens` of their tokens at once. The results do not depend on that.

        A text that is blank, or of which the tokenizer leaves no token (a zero-width space), becomes "". The model must
        be in evaluation mode, as loaded. A translation has at most 50 tokens more than its text.

        Args:
            texts: a str, or a sequence of str.
            n_best: translations for each text, the best first: at most `num_beams`, or any number of samples.
            return_scores: return each translation as a `Translation`, with score, tokens and their log-probabilities.
            return_alignments: the same, with alignments.
            prefixes: what translations begin with: a str for all texts, or one for each, "" for none.
            replace_unknowns: put the word of the text that an `<unk>` attends to most in its place.
            vocabulary: the words that translations are made of; their tokens are all that the output layer computes.
            batch_tokens: the tokens, at least 1.
            overlong: what happens to texts of more than `max_length` tokens. "error" refuses them, "truncate" cuts
                them to the limit, and "skip" gives "" for them. "split" translates them sentence by sentence, and
                gives neither scores nor more than one translation; the first sentence has the prefix. How many
                there were is logged.
            options: `num_beams`, `length_penalty`, `early_stopping`, `min_length`, `no_repeat_ngram_size`,
                `repetition_penalty`, `do_sample`, `temperature`, `top_k`, `top_p` and `seed` of
                `fastattn.generation.generate`. The default of each is the folder's.

        Returns a str for a str, else a list; with `n_best` above 1, a list for each text. Raises as `encode` and
        `generate`, and TypeError or ValueError for other arguments that are wrong, contradict each other, or have text
        that the vocabulary does not know.
        """
        plan = self._plan(
            texts,
            {
                "n_best": n_best,
                "prefixes": prefixes,
                "replace_unknowns": replace_unknowns,
                "return_alignments": return_alignments,
                "vocabulary": vocabulary,
            },
            return_scores,
            batch_tokens,
            overlong,
            options,
        )
        several = checks.texts("translate: texts", [texts] if isinstance(texts, str) else texts)
        encoded = self._encode_sources(several, overlong)
        if long := int(encoded.truncated.sum()):
            logger.info("%d texts with more than %d tokens are %s", long, self.max_length, OVERLONG[overlong])
        results = self._results(several, encoded, plan)
        return results[0] if isinstance(texts, str) else results

    __call__ = translate

    def prepare(self, inputs: Sequence[str], method: str | None = None, **options: Any) -> list[Work]:
        """Each of `inputs`, which are texts, tokenised; see `Predictor.prepare`. The options are those of `translate`
        but `prefixes`, `vocabulary` and `batch_tokens`; there is no other `method`. Samples are drawn alone."""
        checks.choice("prepare: method", method or "translate", ("translate",))
        if wrong := sorted({"prefixes", "vocabulary", "batch_tokens"} & set(options)):
            raise TypeError(f"prepare: {wrong[0]} is for translate")
        texts = checks.texts("translate: texts", inputs)
        self._plan_of(options)  # checks them
        samples = options.get("do_sample", self.model.settings.values.get("do_sample"))
        together = Together(self._compute, tuple(sorted(options.items())), object() if samples else None)
        tokens = self._encode_sources(texts, options.get("overlong", "error"))
        found = zip(texts, tokens, tokens.full_lengths.tolist(), strict=True)
        return [Work(together, (text, ids, full), len(ids), full) for text, ids, full in found]

    def _compute(self, data: list[tuple[str, NDArray[np.int64], int]], *options: tuple[str, Any]) -> list[Any]:
        texts, ids, full = zip(*data, strict=True)
        tokens = TokenizedTexts.of(np.concatenate(ids), [len(each) for each in ids], full)
        return self._results(list(texts), tokens, self._plan_of(dict(options)))

    def _plan_of(self, given: Mapping[str, Any]) -> _Plan:
        """What the options of `translate` say, without those of single texts."""
        names = {"n_best", "replace_unknowns", "return_alignments"}
        searched = {name: value for name, value in given.items() if name in names}
        rest = {name: value for name, value in given.items() if name not in {*names, "return_scores", "overlong"}}
        return self._plan(
            [], searched, given.get("return_scores", False), BATCH_TOKENS, given.get("overlong", "error"), rest
        )

    def _plan(
        self,
        texts: str | Sequence[str],
        searched: Mapping[str, Any],
        return_scores: bool,
        batch_tokens: int,
        overlong: str,
        options: Mapping[str, Any],
    ) -> _Plan:
        """The arguments of `translate`, checked."""
        batch_tokens = checks.integer("translate: batch_tokens", batch_tokens)
        search = self._search(texts=texts, options=options, **searched)
        scored = checks.boolean("translate: return_scores", return_scores, error=TypeError)
        details = scored or search.return_alignments
        checks.choice("translate: overlong", overlong, OVERLONG)
        if overlong == "split" and (details or search.n_best > 1):
            raise ValueError("translate: overlong 'split' cannot be given with n_best, return_scores or alignments")
        return _Plan(search, details, overlong, batch_tokens)

    def _results(self, texts: list[str], encoded: TokenizedTexts, plan: _Plan) -> list[Any]:
        found = self._find(texts, encoded, plan.search, plan.overlong, plan.batch_tokens)
        rows: list[list[Any]] = found if plan.details else [[one.text for one in each] for each in found]
        return rows if plan.search.n_best > 1 else [each[0] for each in rows]

    def translate_iterable(
        self, texts: Iterable[str], *, read_ahead: int = READ_AHEAD, **arguments: Any
    ) -> Iterator[Any]:
        """Translate texts as they come: an iterator over the results of `translate`, in order.

        `read_ahead` texts are read, sorted by length, translated and given, then the next. No result depends on that.
        `arguments` are those of `translate`; `prefixes` must be one str.
        """
        read_ahead = checks.integer("translate_iterable: read_ahead", read_ahead)
        if isinstance(texts, str) or not isinstance(texts, Iterable):
            got = type(texts).__name__
            raise TypeError(f"translate_iterable: texts must be an iterable of str, got {got}")
        if not isinstance(arguments.get("prefixes"), str | None):
            got = type(arguments["prefixes"]).__name__
            raise TypeError(
                f"translate_iterable: prefixes must be one str, which all translations begin with, got {got}"
            )
        rest = iter(texts)
        while some := list(itertools.islice(rest, read_ahead)):
            yield from self.translate(some, **arguments)

    def _encode_sources(
        self, texts: Sequence[str], overlong: str, place: Callable[[int], str] = "texts[{}]".format
    ) -> TokenizedTexts:
        """The tokens of texts, cut to what the model reads if `overlong` is not "error"."""
        if overlong == "error":
            return self.encode(texts, place=place)
        return self.tokenizer.source.encode(texts, self.max_length)

    def score(
        self, sources: Sequence[str], targets: Sequence[str], *, batch_tokens: int = BATCH_TOKENS
    ) -> list[Translation]:
        """How probable given translations are.

        Args:
            sources: texts.
            targets: a translation of each.
            batch_tokens: the tokens of both sides that are computed at once, at least 1.

        Returns a `Translation` for each pair, whose score is the mean log-probability of its tokens, `</s>` included,
        or what the folder's `length_penalty` makes of their sum. Raises as `encode`, also for a target that is too
        long, and ValueError for lists of different lengths.
        """
        batch_tokens = checks.integer("score: batch_tokens", batch_tokens)
        sources, targets = checks.texts("score: sources", sources), checks.texts("score: targets", targets)
        if len(sources) != len(targets):
            raise ValueError(f"score: targets must have a text for each of {len(sources)} sources, got {len(targets)}")
        source = self.encode(sources, place="score: sources[{}]".format)
        target = self.encode(targets, target=True, place="score: targets[{}]".format)
        own = np.empty(len(target.ids), np.float32)
        for indices, losses in self._losses(source, target, batch_tokens, "none"):
            places = [np.arange(*target.cu_seqlens[i : i + 2]) for i in indices]
            own[np.concatenate(places)] = -losses
        penalty = self.model.settings.values.get("length_penalty")
        found = []
        for text, ids, start, end in zip(targets, target, target.cu_seqlens, target.cu_seqlens[1:], strict=False):
            value = float(score(own[start:end].sum(), end - start, 1.0 if penalty is None else penalty))
            found.append(Translation(text, value, self.tokenizer.target.tokens(ids), own[start:end].tolist()))
        return found

    def _losses(
        self, source: TokenizedTexts, target: TokenizedTexts, batch_tokens: int, reduction: str
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """The loss of pairs, batch by batch: the indices of the pairs, and the loss as `reduction` has it."""
        sides = (source.ids, source.cu_seqlens), (target.ids, target.cu_seqlens)
        start = self.model.config.decoder_start_token_id
        with no_grad():
            for indices in token_budget_batches(source.lengths + target.lengths, batch_tokens):
                arguments = pair_arguments(*sides, start, indices)
                yield indices, self.model.loss_ragged(**arguments, reduction=reduction).data

    def attention(self, text: str, translation: str | None = None) -> tuple[NDArray[Any], list[str], list[str]]:
        """What each token of a translation attends to in its text, for `fastattn.training.plot_attention`.

        `translation` is the model's own if it is None. Returns weights float32 `[layers, heads, target, source]`, the
        tokens of the text and those of the translation, each with `</s>` at its end. A target token's row is that of
        the step that chose it. Raises as `translate` does.
        """
        source = self.encode([checks.text("attention: text", text)])
        wanted = self.translate(text) if translation is None else checks.text("attention: translation", translation)
        return self._attention(source.ids, wanted)

    def _attention(self, source: NDArray[np.int64], translation: str) -> tuple[NDArray[Any], list[str], list[str]]:
        target = self.tokenizer.target.encode([translation], self.max_length)
        start = self.model.config.decoder_start_token_id
        with no_grad():
            output = self.model(
                source[None], decoder_input_ids=np.array([[start, *target.ids[:-1]]]), output_attentions=True
            )
        weights = np.stack([layer[0] for layer in output.cross_attentions or ()])
        return weights, self.tokenizer.source.tokens(source), self.tokenizer.target.tokens(target.ids)

    def batches(self, data: Any) -> PairBatches:
        """Batches of pairs, without those that are too long for the model. Raises ValueError if none is left."""
        data = self.as_data("batches", data, self.recipe)
        source, target = self.tokenizer.source.encode(data.sources), self.tokenizer.target.encode(data.targets)
        kept = np.flatnonzero(np.maximum(source.lengths, target.lengths) <= self.max_length)
        if not len(kept):
            raise ValueError(f"batches: no pair of texts has at most {self.max_length} tokens on each side")
        config = self.model.config
        batches = PairBatches(
            gather(source.ids, source.cu_seqlens, kept),
            gather(target.ids, target.cu_seqlens, kept),
            config.decoder_start_token_id,
            step_tokens=self.recipe.batch_tokens,
            max_tokens=self.recipe.max_tokens,
            seed=self.recipe.seed,
        )
        if long := len(data) - len(kept):
            logger.info("%d pairs with more than %d tokens are left out", long, self.max_length)
        sizes = " and ".join(map(str, dict.fromkeys((config.vocab_size, config.decoder_vocab_size))))
        parameters = sum(p.data.size for p in self.model.parameters())
        logger.info("%d pairs, vocabulary of %s, %s parameters", len(kept), sizes, f"{parameters:,}")
        return batches

    def loss(self, batch: Mapping[str, Any]) -> Any:
        arguments = {name: value for name, value in batch.items() if name != "share"}
        value = self.model.loss_ragged(**arguments, label_smoothing=self.recipe.label_smoothing)
        return value if batch["share"] == 1.0 else value * batch["share"]

    def evaluate(self, data: Any) -> dict[str, float]:
        """The `cross_entropy` of a text, and the recipe's metrics of its translations.

        The recipe's `overlong` says what happens to texts that are too long for the model.
        """
        data = self.as_data("evaluate", data, self.recipe)
        functions = {"cer": character_error_rate, "bleu": bleu, "chrf": chrf}
        overlong = self.recipe.overlong
        if overlong == "skip":
            data = data.take(np.flatnonzero(~self._overlong(data)))
        encoded, search = self._encode_sources(data.sources, overlong), self._search(texts=data.sources, options={})
        found = [best.text for best, *_ in self._find(data.sources, encoded, search, overlong)]
        loss = self.cross_entropy(data)
        return {"loss": loss, **{name: functions[name](found, data.targets) for name in self.recipe.measured}}

    def cross_entropy(self, text: Any, *, batch_tokens: int = BATCH_TOKENS) -> float:
        """The mean of -log p over all target tokens, without label smoothing. Nothing is recorded.

        A text that is too long for the model is cut. At most `batch_tokens` tokens of both sides are read at once.
        """
        text = self.as_data("cross_entropy", text, self.recipe)
        batch_tokens = checks.integer("cross_entropy: batch_tokens", batch_tokens)
        source = self.tokenizer.source.encode(text.sources, self.max_length)
        target = self.tokenizer.target.encode(text.targets, self.max_length)
        total = sum(float(loss) for _, loss in self._losses(source, target, batch_tokens, "sum"))
        return total / len(target.ids)

    def configuration(self, data: ParallelText) -> dict[str, Any]:
        return {
            "config": self.model.config.to_dict(),
            "label_smoothing": self.recipe.label_smoothing,
            "text_crc32": data.crc32,
            "vocabulary_crc32": [zlib.crc32(read_regular(name)) for name in self.recipe.vocabulary_files],
        }

    def check(self, data: Any) -> None:
        """Raise ValueError, with file and line, for a text that is too long for the model.

        If the recipe's `overlong` is not "error", they are counted in the log, and one pair must be left.
        """
        data = self.as_data("evaluate", data, self.recipe)
        if self.recipe.overlong == "error":
            for texts, target in ((data.sources, False), (data.targets, True)):
                self.encode(texts, target=target, place=partial(data.place, target=target))
        elif long := int(self._overlong(data).sum()):
            done, name = OVERLONG[self.recipe.overlong], " and ".join(data.files) or "check"
            if done == "skipped" and long == len(data):
                raise ValueError(f"{name}: all {long} pairs have more than {self.max_length} tokens")
            logger.info("%s: %d pairs with more than %d tokens are %s", name, long, self.max_length, done)

    def _overlong(self, data: ParallelText) -> NDArray[np.bool_]:
        """Which pairs have a side that is too long for the model."""
        sides = (self.tokenizer.source, data.sources), (self.tokenizer.target, data.targets)
        source, target = (side.encode(texts, self.max_length).truncated for side, texts in sides)
        return source | target

    @classmethod
    def read(cls, *sources: Any) -> ParallelText:
        """Pairs of one or two files, or of rows in memory, as `fastattn.text.read_parallel` reads them."""
        text = read_parallel(*sources)
        if text.skipped:
            name = " and ".join(text.files) or "rows"
            logger.info("%s: %d pairs with a blank side are left out", name, text.skipped)
        return text

    def read_input(self, lines: Iterable[bytes], name: str, options: TranslateOptions) -> Input:
        """The texts, blank ones too, with their right translations, or "" if these are not known."""
        return read_input(lines, name, options)

    def predict(self, data: Input, options: TranslateOptions) -> tuple[Iterable[str], Iterable[str]]:
        """Translations as they come: lines are read when they are needed."""
        lines = LineTranslator(self, options)
        return lines.run(data), lines.reports()
