"""Words of raw text."""

from __future__ import annotations

import time

import pytest

from fastattn.text import split_words

CASES = {
    "": [],
    "  \n": [],
    "Hello, world!": ["Hello", ",", "world", "!"],
    "It's what they don't say; we'll see.": [
        "It",
        "'s",
        "what",
        "they",
        "do",
        "n't",
        "say",
        ";",
        "we",
        "'ll",
        "see",
        ".",
    ],
    "I can\u2019t.": ["I", "ca", "n\u2019t", "."],
    "At 10:30 on 3/4 it cost $1,000.50.": ["At", "10:30", "on", "3/4", "it", "cost", "$", "1,000.50", "."],
    "the U.S. of 3rd e-mail": ["the", "U.S.", "of", "3rd", "e", "-", "mail"],
    "see http://a.b/c?d=e, mail me@x.org...": ["see", "http://a.b/c?d=e", ",", "mail", "me@x.org", "..."],
    "naïve 日本語 🐈🐈": ["naïve", "日本語", "🐈🐈"],
}


@pytest.mark.parametrize("text", CASES)
def test_words(text: str) -> None:
    places = split_words(text)
    assert [text[start:end] for start, end in places] == CASES[text]
    assert "".join(text.split()) == "".join(text[start:end] for start, end in places)


@pytest.mark.parametrize("part", ["a.-", "a@b-", "n'", "1.", "http://!", "a"])
def test_long_texts_take_time_in_proportion(part: str) -> None:
    """A rule that looks at the rest of a text from each place would take hours."""
    start = time.monotonic()
    split_words(part * 100_000)
    assert time.monotonic() - start < 300
