"""Text in, its translation out."""

from __future__ import annotations

import errno
import logging
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from fastattn import checks, ragged
from fastattn.autograd import no_grad
from fastattn.files import read_regular, utf8_lines
from fastattn.formats.hugging_face import CONFIG, read_config
from fastattn.generation import generate
from fastattn.hub import Files, find_model
from fastattn.models import Transformer, TransformerConfig
from fastattn.random import manual_seed
from fastattn.tasks.base import Task, make_recipe
from fastattn.tasks.translate.making import new_config, new_tokenizer
from fastattn.tasks.translate.recipe import SIZES, TranslateOptions, TranslateRecipe
from fastattn.text import (
    ParallelText,
    TokenizedTexts,
    TranslationTokenizer,
    gather,
    read_parallel,
    read_translation_tokenizer,
    token_budget_batches,
)
from fastattn.text.parallel import split_columns
from fastattn.training import PairBatches, bleu, character_error_rate, chrf, pair_arguments
from fastattn.training.metrics import import_sacrebleu
from fastattn.training.plot import import_matplotlib, plot_attention, plot_format
from fastattn.training.run_state import STATES, saved_states

FILES = Files(
    ("*.json", "model*.safetensors", "*.spm"),
    required=("config.json", ("model.safetensors", "model.safetensors.index.json")),
)
"""The files of a translator."""

BATCH_TOKENS = 4096
"""Source tokens translated at once. Every step of decoding reads all weights, however many texts there are."""

MORE_TOKENS = 50
"""How many tokens longer than its text a translation may be (Vaswani et al. 2017, section 6.1)."""

OVERLONG = {"error": "refused", "truncate": "cut", "skip": "skipped"}
"""What can be done with texts that are too long for the model, and how that is called."""

logger = logging.getLogger(__name__)


class Translator(Task):
    """A Transformer and its tokenizer.

    Decoding is greedy. A translation does not depend on the other texts, their order or the number of threads. Many
    threads may call `translate` at once. Text that the vocabulary does not know becomes `<unk>`, which a translation
    leaves out. The translation of a blank text is empty. A number of the model that is no token of the tokenizer, such
    as the rows that pad a table of embeddings, is never chosen.

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
    >>> translator.translate("سليم")                                        # doctest: +SKIP
    'salim'
    """

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
        self.max_length: int = config.max_position_embeddings
        missing = tokenizer.target.missing(config.decoder_vocab_size)
        self._bad_words = [*(config.bad_words_ids or ()), *((number,) for number in missing)]

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | os.PathLike[str], *, trainable: bool = False, **hub: Any
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
        model = Transformer.from_pretrained(folder, trainable=trainable)
        tokenizer = read_translation_tokenizer(folder)
        try:
            return cls(model, tokenizer)
        except ValueError as error:
            raise ValueError(str(error).replace("Translator", str(folder), 1)) from None

    @classmethod
    def check_folder(cls, folder: Path) -> None:
        TransformerConfig.from_dict(read_config(folder), str(folder / CONFIG))

    @classmethod
    def for_training(
        cls, start: str, data: ParallelText, recipe: TranslateRecipe | None = None, **options: Any
    ) -> Translator:
        """Make a new model, and its vocabularies from the text.

        Args:
            start: the size of the network: "small", "base" or "big".
            data: pairs of texts.
            recipe: the recipe; None is `TranslateRecipe()`.
            options: replace fields of the recipe. Some replace numbers of the size.

        Raises ValueError for another size and numbers that do not fit, FileNotFoundError for a missing SentencePiece
        model, and ImportError for a missing library.
        """
        _check("for_training", data)
        recipe = make_recipe(TranslateRecipe, recipe, options)
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

    @overload
    def translate(  # type: ignore[overload-overlap]  # a str is a Sequence[str] too; the first signature counts
        self, texts: str, *, batch_tokens: int = ..., overlong: str = ...
    ) -> str: ...

    @overload
    def translate(self, texts: Sequence[str], *, batch_tokens: int = ..., overlong: str = ...) -> list[str]: ...

    def translate(
        self, texts: str | Sequence[str], *, batch_tokens: int = BATCH_TOKENS, overlong: str = "error"
    ) -> str | list[str]:
        """Translate a text or many, at most `batch_tokens` of their tokens at once. The results do not depend on that.

        A text that is blank, or of which the tokenizer leaves no token (a zero-width space), becomes "". The model must
        be in evaluation mode, as loaded.

        Args:
            texts: a str, or a sequence of str.
            batch_tokens: the tokens, at least 1.
            overlong: what happens to texts of more than `max_length` tokens. "error" refuses them, "truncate" cuts
                them to the limit, and "skip" gives "" for them. How many were cut or skipped is logged.

        Returns a str for a str, else a list. Raises as `encode`, and ValueError for another `overlong`.
        """
        batch_tokens = checks.integer("translate: batch_tokens", batch_tokens)
        checks.choice("translate: overlong", overlong, OVERLONG)
        if isinstance(texts, str):
            return self.translate([texts], batch_tokens=batch_tokens, overlong=overlong)[0]
        texts = checks.texts("translate: texts", texts)
        encoded = self._encode_sources(texts, overlong)
        if long := int(encoded.truncated.sum()):
            logger.info("%d texts with more than %d tokens are %s", long, self.max_length, OVERLONG[overlong])
        return self._decode(texts, encoded, overlong, batch_tokens)

    __call__ = translate

    def _encode_sources(
        self, texts: Sequence[str], overlong: str, place: Callable[[int], str] = "texts[{}]".format
    ) -> TokenizedTexts:
        """The tokens of texts, cut to what the model reads if `overlong` is not "error"."""
        if overlong == "error":
            return self.encode(texts, place=place)
        return self.tokenizer.source.encode(texts, self.max_length)

    def _decode(
        self, texts: Sequence[str], encoded: TokenizedTexts, overlong: str, batch_tokens: int = BATCH_TOKENS
    ) -> list[str]:
        """The translations of texts, from their tokens."""
        lengths = encoded.lengths
        limits = np.minimum(lengths + MORE_TOKENS, self.max_length - 1)
        wanted = (lengths > 1) & np.fromiter((bool(text.strip()) for text in texts), bool, len(texts))
        if overlong == "skip":
            wanted &= ~encoded.truncated
        translations = [""] * len(texts)
        some, end = np.flatnonzero(wanted), self.model.config.eos_token_id
        for batch in token_budget_batches(lengths[some], batch_tokens):
            indices = some[batch]
            ids, cu_seqlens = gather(encoded.ids, encoded.cu_seqlens, indices)
            mask = np.arange(lengths[indices].max()) < lengths[indices][:, None]
            # One more than wanted: the token that a model is forced to end with is not part of the translation.
            most = int(limits[indices].max()) + 1
            found = generate(
                self.model, ragged.unpack(ids, cu_seqlens), mask, max_new_tokens=most, bad_words_ids=self._bad_words
            )
            rows = (row[1 : 1 + limits[i]] for i, row in zip(indices, found, strict=True))
            words = self.tokenizer.target.decode(row[np.cumsum(np.isin(row, end)) == 0] for row in rows)
            for i, text in zip(indices, words, strict=True):
                translations[i] = text
        return translations

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

    def batches(self, data: ParallelText) -> PairBatches:
        """Batches of pairs, without those that are too long for the model. Raises ValueError if none is left."""
        _check("batches", data)
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

    def evaluate(self, data: ParallelText) -> dict[str, float]:
        """The `cross_entropy` of a text, and the recipe's metrics of its translations.

        The recipe's `overlong` says what happens to texts that are too long for the model.
        """
        _check("evaluate", data)
        functions = {"cer": character_error_rate, "bleu": bleu, "chrf": chrf}
        overlong = self.recipe.overlong
        if overlong == "skip":
            data = data.take(np.flatnonzero(~self._overlong(data)))
        found = self._decode(data.sources, self._encode_sources(data.sources, overlong), overlong)
        loss = self.cross_entropy(data)
        return {"loss": loss, **{name: functions[name](found, data.targets) for name in self.recipe.measured}}

    def cross_entropy(self, text: ParallelText, *, batch_tokens: int = BATCH_TOKENS) -> float:
        """The mean of -log p over all target tokens, without label smoothing. Nothing is recorded.

        A text that is too long for the model is cut. At most `batch_tokens` tokens of both sides are read at once.
        """
        _check("cross_entropy", text)
        batch_tokens = checks.integer("cross_entropy: batch_tokens", batch_tokens)
        source = self.tokenizer.source.encode(text.sources, self.max_length)
        target = self.tokenizer.target.encode(text.targets, self.max_length)
        sides = (source.ids, source.cu_seqlens), (target.ids, target.cu_seqlens)
        start = self.model.config.decoder_start_token_id
        total = 0.0
        with no_grad():
            for indices in token_budget_batches(source.lengths + target.lengths, batch_tokens):
                total += self.model.loss_ragged(**pair_arguments(*sides, start, indices), reduction="sum").item()
        return total / len(target.ids)

    def configuration(self, data: ParallelText) -> dict[str, Any]:
        return {
            "config": self.model.config.to_dict(),
            "label_smoothing": self.recipe.label_smoothing,
            "text_crc32": data.crc32,
            "vocabulary_crc32": [zlib.crc32(read_regular(name)) for name in self.recipe.vocabulary_files],
        }

    def check(self, data: ParallelText) -> None:
        """Raise ValueError, with file and line, for a text that is too long for the model.

        If the recipe's `overlong` is not "error", they are counted in the log, and one pair must be left.
        """
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
    def read(cls, *paths: str | os.PathLike[str]) -> ParallelText:
        text = read_parallel(*paths)
        if text.skipped:
            logger.info("%s: %d pairs with a blank side are left out", " and ".join(text.files), text.skipped)
        return text

    def read_input(self, lines: Iterable[bytes], name: str, options: TranslateOptions) -> ParallelText:
        """The texts, blank ones too, with their right translations, or "" if these are not known."""
        if options.attention:
            plot_format(options.attention)
            import_matplotlib()
            if not Path(options.attention).parent.is_dir():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), options.attention)
        texts = utf8_lines(lines, name)
        pairs = split_columns(texts, name) if options.pairs else [(text.strip(), "") for text in texts]
        sources, targets = tuple(source for source, _ in pairs), tuple(target for _, target in pairs)
        return ParallelText(sources, targets, lines=tuple(range(1, len(pairs) + 1)), files=(name,))

    def predict(self, data: ParallelText, options: TranslateOptions) -> tuple[Iterable[str], Iterable[str]]:
        encoded = self._encode_sources(data.sources, options.overlong, data.place)
        found = self._decode(data.sources, encoded, options.overlong)
        return (f"{' '.join(text.split())}\n" for text in found), self._reports(data, encoded, found, options)

    def _reports(
        self, data: ParallelText, encoded: TokenizedTexts, found: Sequence[str], options: TranslateOptions
    ) -> Iterator[str]:
        skipped = encoded.truncated if options.overlong == "skip" else np.zeros(len(data), bool)
        if options.attention and not skipped.all():
            first = int(skipped.argmin())
            ids = encoded.ids[encoded.cu_seqlens[first] : encoded.cu_seqlens[first + 1]]
            weights, source, target = self._attention(ids, found[first])
            plot_attention(weights.mean(axis=(0, 1)), source, target, options.attention)
        if long := int(encoded.truncated.sum()):
            done = OVERLONG[options.overlong]
            yield f"{long} of {len(data)} lines have more than {self.max_length} tokens and were {done}"
        if options.pairs:
            counted = [i for i in range(len(data)) if data.sources[i] and data.targets[i] and not skipped[i]]
            rate = character_error_rate([found[i] for i in counted], [data.targets[i] for i in counted])
            yield f"character error rate: {f'{rate:.4f} ({len(counted)} texts)' if counted else 'there are no pairs'}"


def _check(owner: str, data: Any) -> None:
    """Raise TypeError for data that are no pairs of texts."""
    if not isinstance(data, ParallelText):
        raise TypeError(f"{owner}: data must be a ParallelText, got {type(data).__name__}")
