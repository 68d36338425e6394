"""Raw text in, words out, for models of words: a simple rule, whose words are close to those of English treebanks."""

from __future__ import annotations

import re
import unicodedata

from fastattn import checks

__all__ = ["split_words"]

_WORD = re.compile(
    r"""
    (?:https?://|www\.)[^\s<>"]*[\w/]       # an address
    | [\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+     # one of mail
    | \d+(?:[.,:/]\d+)*(?!\w)               # a number, a time, a date
    | (?:[^\W\d_]\.){2,}                    # U.S.
    | \w+?(?=n['\u2019]t\b)                 # do of don't
    | n['\u2019]t\b
    | ['\u2019](?:s|m|d|re|ve|ll)\b
    | \w+
    | (\S)\1*                               # ... or --
    """,
    re.VERBOSE | re.IGNORECASE,
)


def split_words(text: str) -> list[tuple[int, int]]:
    """Where the words of a text begin and end, in characters.

    A word is a run of letters, digits and underscores, or of the same other character. Numbers keep the points,
    commas, colons and slashes within them, addresses and abbreviations such as U.S. their points. English contractions
    are split: do n't, it 's, we 'll. Whitespace stands between words and is in none. A mark, such as an accent or a
    vowel sign, and a joiner belong to the character before them.

    >>> text = "Ada doesn't live in the U.S., I'd say."
    >>> [text[start:end] for start, end in split_words(text)]
    ['Ada', 'does', "n't", 'live', 'in', 'the', 'U.S.', ',', 'I', "'d", 'say', '.']
    """
    checked = checks.text("split_words: text", text)
    return [match.span() for match in _WORD.finditer(checked if checked.isascii() else _without_marks(checked))]


def _without_marks(text: str) -> str:
    """`text` with the character before it in the place of each mark and joiner, so no place changes."""
    found: list[str] = []
    for character in text:
        joined = character in "\u200c\u200d" or unicodedata.category(character)[0] == "M"
        found.append(found[-1] if joined and found and not found[-1].isspace() else character)
    return "".join(found)
