"""Wrong arguments of the tasks' methods are refused with the names of method and argument."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import helpers_translator
import numpy as np
import pytest
from helpers_sentences import write_model

from fastattn.models import Elmo, ElmoConfig
from fastattn.tasks import SentenceEncoder, Tagger, Translator, WordEncoder
from fastattn.text import ConlluSentence

DATA = [ConlluSentence.from_words(["the", "cat"], ["DET", "NOUN"])]
Cases = list[tuple[Callable[[Any], Any], str]]


def check(task: Any, cases: Cases) -> None:
    for call, message in cases:
        with pytest.raises((TypeError, ValueError), match=f"^{message}"):
            call(task)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("tokenizers", reason="needs the tokenizers library")
    return write_model(tmp_path / "m")


def test_sentence_encoder(folder: Path) -> None:
    encoder = SentenceEncoder(folder)
    made: Cases = [
        (lambda _: SentenceEncoder(5), r"SentenceEncoder: name_or_folder must be str or a path, got 5"),
        (lambda _: SentenceEncoder(folder, trainable=2), "SentenceEncoder: trainable must be a bool, got 2"),
        (lambda _: SentenceEncoder(folder, truncation=3), "SentenceEncoder: truncation must be one of warn"),
        (lambda _: SentenceEncoder(folder, prompts=["a"]), "SentenceEncoder: prompts must be a mapping"),
        (lambda _: SentenceEncoder(folder, prompts={"a": 1}), r"SentenceEncoder: prompts\['a'\] must be str, got int"),
        (
            lambda _: SentenceEncoder(folder, default_prompt_name=["a"]),
            r"SentenceEncoder: default_prompt_name \['a'\] is",
        ),
        (lambda _: SentenceEncoder(folder, truncate_dim="3"), "SentenceEncoder: truncate_dim must be a positive"),
    ]
    cases: Cases = [
        (lambda x: x.encode(5), "encode: sentences must be a str or an iterable of str, got int"),
        (lambda x: x.encode(["a", 5]), r"encode: sentences\[1\] must be str, got int"),
        (lambda x: x.encode(["a"], batch_size="3"), "encode: batch_size must be a positive integer, got '3'"),
        (lambda x: x.encode(["a"], prompt_name=[]), r"encode: there is no prompt \[\]"),
        (lambda x: x.encode(["a"], prompt=5), "encode: prompt must be str, got int"),
        (lambda x: x.encode(["a"], normalize_embeddings="no"), "encode: normalize_embeddings must be a bool, got 'no'"),
        (lambda x: x.encode(["a"], show_progress_bar="no"), "encode: show_progress_bar must be a bool, got 'no'"),
        (lambda x: x.encode(["a"], truncate_dim="3"), "encode: truncate_dim must be from 1 to 16, got '3'"),
        (lambda x: x.embed(5), "embed: sentences must be an iterable of str, got int"),
        (lambda x: x.embed(["a", b"b"]), r"embed: sentences\[1\] must be str, got bytes"),
        (lambda x: x.embed(["a"], prompt=5), "embed: prompt must be str, got int"),
        (lambda x: x.encode_stream(5), "encode_stream: chunks must be a sequence of lists of sentences, got int"),
        (lambda x: x.encode_stream([], batch_size="3"), "encode_stream: batch_size must be a positive integer"),
        (lambda x: next(x.encode_stream([5])), "encode_stream: sentences must be an iterable of str, got int"),
        (lambda x: x.tokenize(5), "tokenize: texts must be an iterable of str, got int"),
        (lambda x: x.tokenize("abc"), "tokenize: texts must be an iterable of str, got str"),
        (lambda x: x.similarity(["a"], [1.0]), "similarity: a must hold numbers, got <U1"),
        (lambda x: x.save_pretrained(5), "save_pretrained: folder must be str or a path, got 5"),
    ]
    check(encoder, made + cases)


def test_tagger(folder: Path, tmp_path: Path) -> None:
    cases: Cases = [
        (lambda x: x.tag(5), "tag: sentences must be a sequence of sentences, each a sequence of words, got int"),
        (lambda x: x.tag("ab"), "tag: sentences must be a sequence of sentences, .* got the str 'ab'"),
        (lambda x: x.tag([["a"], "b"]), r"tag: sentences\[1\] must be a sequence of words, got the str 'b'"),
        (lambda x: x.tag([["a"], ["b", 5]]), r"tag: sentences\[1\]\[1\] must be str, got int"),
        (lambda x: x.evaluate(5), r"evaluate: data must be what Tagger\.read returns or takes, got int"),
        (lambda x: x.evaluate([["a"]]), r"rows\[0\] must be a dict, got \['a'\]"),
        (lambda x: x.batches([*DATA, 5]), r"batches: data\[1\] must be what Tagger\.read returns, as others are, got"),
        (lambda x: x.save_pretrained(5), "save_pretrained: folder must be str or a path, got 5"),
    ]
    check(Tagger.for_training(folder, DATA), cases)


def test_word_encoder() -> None:
    config = ElmoConfig(n_layers=1, dim=4, projection_dim=4, filters=((1, 4),), char_embedding_dim=2, n_highway=0)
    sentences = "must be a sequence of sentences, each a sequence of words, got"
    cases: Cases = [
        (lambda x: x(5), f"WordEncoder: sentences {sentences} int"),
        (lambda x: x([["a"], 5]), r"WordEncoder: sentences\[1\] must be a sequence of words, got int"),
        (lambda x: x.represent(5), f"represent: sentences {sentences} int"),
        (lambda x: x.embed_sentence(5), "embed_sentence: sentence must be a sequence of words, got int"),
        (lambda x: x.embed_sentence(["a", 5]), r"embed_sentence: sentence\[1\] must be str, got int"),
        (lambda x: next(x.embed_sentences(5)), f"embed_sentences: sentences {sentences} int"),
        (lambda x: next(x.embed_sentences([], "3")), "embed_sentences: batch_size must be a positive integer, got '3'"),
        (lambda x: [*x.embed_sentences([["a"]] * 9 + [["b", 5]], 4)], r"embed_sentences: sentences\[9\]\[1\] must be"),
        (lambda x: x.save_pretrained(5), "save_pretrained: folder must be str or a path, got 5"),
    ]
    check(WordEncoder(Elmo(config)), cases)


def test_translator() -> None:
    cases: Cases = [
        (lambda x: x.translate(5), "translate: texts must be a sequence of str, got int"),
        (lambda x: x.translate(["a", 5]), r"translate: texts\[1\] must be str, got int"),
        (lambda x: x.translate(["a"], batch_tokens="3"), "translate: batch_tokens must be a positive integer, got '3'"),
        (lambda x: x.encode(5), "encode: texts must be a sequence of str, got int"),
        (lambda x: x.attention(5), "attention: text must be str, got int"),
        (lambda x: x.attention("a", 5), "attention: translation must be str, got int"),
        (lambda x: x.evaluate(5), r"evaluate: data must be what Translator\.read returns or takes, got int"),
        (lambda x: x.cross_entropy(5), r"cross_entropy: data must be what Translator\.read returns or takes, got int"),
        (lambda x: x.batches(["a"]), r"rows\[0\] must be a dict, got 'a'"),
        (lambda _: Translator.from_pretrained(5), "from_pretrained: name_or_folder must be str or a path, got 5"),
        (lambda x: x.save_pretrained(5), "save_pretrained: folder must be str or a path, got 5"),
    ]
    translator = helpers_translator.make()
    check(translator, cases)
    assert translator.translate(text for text in ("ab", "c")) == translator.translate(["ab", "c"])


def test_numpy_numbers_are_numbers(folder: Path) -> None:
    encoder = SentenceEncoder(folder)
    assert encoder.encode(["a"], batch_size=np.int64(3), normalize_embeddings=np.True_).shape == (1, 16)
