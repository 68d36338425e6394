"""Words of raw text."""

from __future__ import annotations

import os
import subprocess
import sys

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
    "Cafe\u0301 \u0301 (हिन्दी) می\u200cشود!": ["Cafe\u0301", "\u0301", "(", "हिन्दी", ")", "می\u200cشود", "!"],
    "I \u2764\ufe0fParis \u200d1\ufe0f\u20e3": ["I", "\u2764\ufe0f", "Paris", "\u200d", "1\ufe0f\u20e3"],
    "naïve 日本語 🐈🐈": ["naïve", "日本語", "🐈🐈"],
}


@pytest.mark.parametrize("text", CASES)
def test_words(text: str) -> None:
    places = split_words(text)
    assert [text[start:end] for start, end in places] == CASES[text]
    assert "".join(text.split()) == "".join(text[start:end] for start, end in places)


LONG = """
from fastattn.text import split_words
for part in ("a.-", "a@b-", "n'", "1.", "http://!", "a"):
    split_words(part * 100_000)
"""


def test_long_texts_take_time_in_proportion() -> None:
    """A rule that looks at the rest of a text from each place would take hours."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", LONG], check=True, timeout=600, env=environment)
