"""Errors of the tokenizers library: ValueErrors that name a file or a text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

import tokenizers

from fastattn.text import BytePairs, Tokenizer, encode_words
from fastattn.text.library import by_index, library_errors

SPECIAL = {"<pad>": 0, "</s>": 1, "<unk>": 2}
WORDS = {"type": "WordLevel", "vocab": {**SPECIAL, "b": 3}, "unk_token": "b"}
UNIGRAM = {"type": "Unigram", "vocab": [["a", -1.0]], "unk_id": None}
# The library panics when it reads the one, and when the other is used.
PANICS_AT_ONCE = {
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": ["a b"], "continuing_subword_prefix": "##"}
}
PANICS_LATER = {"model": WORDS, "pre_tokenizer": {"type": "FixedLength", "length": 0}}


def description(**fields: Any) -> str:
    return json.dumps({"version": "1.0", "added_tokens": [], **fields})


def test_a_panic_is_a_base_exception() -> None:
    with pytest.raises(BaseException) as caught:  # noqa: PT011  # it has no public name
        tokenizers.Tokenizer.from_str(description(**PANICS_AT_ONCE))
    assert not isinstance(caught.value, Exception)


@pytest.mark.parametrize("fields", [PANICS_AT_ONCE, PANICS_LATER, {"model": {**WORDS, "vocab": SPECIAL}}])
def test_a_tokenizer_that_cannot_be_used_is_named(tmp_path: Path, fields: dict[str, Any]) -> None:
    for name, load in (("tokenizer.json", Tokenizer.from_pretrained), ("a.bpe.json", None)):
        path = tmp_path / name
        path.write_text(description(**fields))
        with pytest.raises(ValueError, match=rf"^{tmp_path}.*: not a tokenizer that"):
            load(tmp_path) if load else BytePairs.from_file(path)


@pytest.mark.parametrize("parallel", [True, False])
def test_a_text_that_cannot_be_tokenised_is_named(parallel: bool) -> None:
    """One of a thousand, by its place in the list of the caller."""
    tokenizer = Tokenizer(tokenizers.Tokenizer.from_str(description(model=UNIGRAM)))
    texts = ["a"] * 1100 + ["b"] + ["a"] * 50
    with pytest.raises(ValueError, match=r"^encode: texts\[1100\] cannot be tokenised: .*unk_id"):
        tokenizer.encode(texts, parallel=parallel)
    with pytest.raises(ValueError, match=r"^lines\[1107\] cannot be tokenised"):
        tokenizer.encode(texts, parallel=parallel, name="lines", first=7)
    with pytest.raises(ValueError, match=r"^encode_words: sentences\[1100\] cannot be tokenised"):
        encode_words(tokenizer, [[text] for text in texts], 10)


@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError, MemoryError, type("Stop", (Exception,), {})])
def test_other_errors_pass(error: type[BaseException]) -> None:
    """A signal handler may raise any error, for instance a timeout, while the library works."""

    def stop() -> Any:
        raise error

    with pytest.raises(error), library_errors("a"):
        stop()
    with pytest.raises(error):
        by_index("a", ["b"], lambda _: stop())


def test_what_fails_only_together_is_named_too() -> None:
    def call(texts: Any) -> list[Any]:
        if len(texts) > 1:
            raise Exception("too many")  # as the library does
        return []

    with pytest.raises(ValueError, match=r"^texts: too many$"):
        by_index("texts", ["a", "b"], call)


@pytest.mark.parametrize("make", [lambda texts: BytePairs.train(texts, 50)])
def test_training_names_what_is_no_text(make: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match=r"^train: texts\[1\] must be str, got int"):
        make(["a", 5])
    with pytest.raises(TypeError, match=r"^train: texts must be a sequence of str, got the str 'abc'"):
        make("abc")
    with pytest.raises(TypeError, match=r"^train: size must be a positive integer, got '50'"):
        BytePairs.train(["a"], "50")
