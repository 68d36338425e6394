"""The YAML that Marian writes: keys at the beginning of a line, each with a word or a list of words.

>>> pairs("type: transformer\\ndim-vocabs:\\n  - 9\\n  - 8\\nmodels: [a.npz]\\n", "a.yml")
[('type', 'transformer'), ('dim-vocabs', ['9', '8']), ('models', ['a.npz'])]

Every word is a str, whatever it looks like. Anything else that YAML has is an error that names the line. A library
reads some tokens of a vocabulary as something else: `yes`, `~`, `=`, `1_000`. Source: chapter 7 of YAML 1.2.2 and
yaml-cpp's emitter.
"""

from __future__ import annotations

import io
import re

from fastattn.checks import shown

__all__ = ["pairs"]

MAX_KEYS, MAX_ITEMS = 10_000, 1000
"""The most keys and words of a list. The options of a training are some 250."""

Value = str | list[str]

_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"')
_SINGLE = re.compile(r"'((?:[^']|'')*)'")
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))")
_ESCAPED = {
    **dict(zip("0abtnvfre", "\0\a\b\t\n\v\f\r\x1b", strict=True)), **{c: c for c in ' "/\\\t'},
    "N": "\x85", "_": "\xa0", "L": "\u2028", "P": "\u2029",
}  # fmt: skip
_SIGNS = ("|", ">", "&", "*", "!", "{", "[", "%", "@", "`")
"""With which a word without quotes cannot begin."""


def pairs(text: str, source: str, most: int = MAX_KEYS) -> list[tuple[str, Value]]:
    """The keys of a text with their values, in order, a key that is said twice included. A missing value is "".

    Raises ValueError, naming the `source` and the line, for anything else, and for more than `most` keys.
    """
    found: list[tuple[str, Value]] = []
    opened = False  # whether the value of the last key may follow
    asked = None  # the key of a line "? key", whose value follows in a line ": value"
    for number, whole in enumerate(io.StringIO(text, newline=None), 1):
        line = whole.removesuffix("\n")
        bare = line.strip(" ")
        if len(found) > most:
            raise ValueError(f"{source}: more than {most} keys")
        try:
            if not bare or bare.startswith("#") or bare in ("---", "..."):
                continue
            if asked is not None:
                if not line.startswith(": "):
                    raise ValueError("is not the value of the key above")
                found.append((asked, _value(line[2:].strip(" "))))
                asked, opened = None, False
            elif line.startswith("? "):
                asked = _word(bare[2:].strip(" "))
            elif opened and (bare == "-" or bare.startswith("- ")):
                items = found[-1][1] or []
                assert isinstance(items, list)
                found[-1] = found[-1][0], items
                items.append(_word(bare[2:].strip(" ")))
                if len(items) > MAX_ITEMS:
                    raise ValueError(f"has more than {MAX_ITEMS} words in its list")
            elif opened and line[0] == " " and not found[-1][1]:
                found[-1] = found[-1][0], _value(bare)
                opened = False
            elif line[0] in " \t":
                raise ValueError("is not read: only keys with a word or a list of words are")
            else:
                key, value = _split(line)
                found.append((key, _value(value)))
                opened = not value or value.startswith("#")
        except ValueError as error:
            raise ValueError(f"{source}: line {number} {error}: {shown(line)}") from None
    if asked is not None:
        raise ValueError(f"{source}: the key {shown(asked)} at its end has no value")
    return found


def _split(line: str) -> tuple[str, str]:
    """The key of a line, and the rest behind the colon."""
    quoted = _DOUBLE.match(line) or _SINGLE.match(line)
    if quoted is not None and line[quoted.end() :].startswith(":"):
        key, rest = quoted[0], line[quoted.end() + 1 :]
    else:
        key, colon, rest = line.partition(": ")
        if not colon and not key.endswith(":"):
            raise ValueError("is no key with a value")
        key, rest = (key, f" {rest}") if colon else (key[:-1], "")
    if rest and not rest.startswith(" "):
        raise ValueError("is no key with a value")
    return _word(key), rest.strip(" ")


def _value(text: str) -> Value:
    """A word, or a list in brackets; a comment may follow a word without quotes."""
    if text.startswith("#"):
        return ""
    if not text.startswith(("[", '"', "'")):
        text = text.partition(" #")[0].rstrip(" ")
    if not text.startswith("["):
        return _word(text)
    if not text.endswith("]"):
        raise ValueError("has a list that does not end")
    inner = text[1:-1].strip(" ")
    words, place = [], 0
    while place < len(inner):
        quoted = _DOUBLE.match(inner, place) or _SINGLE.match(inner, place)
        comma = inner.find(",", place if quoted is None else quoted.end())
        end = len(inner) if comma < 0 else comma
        words.append(_word(inner[place:end].strip(" ")))
        if len(words) > MAX_ITEMS:
            raise ValueError(f"has more than {MAX_ITEMS} words in its list")
        place = end + 1
        while place < len(inner) and inner[place] == " ":
            place += 1
    return words


def _word(text: str) -> str:
    """A word, with or without quotes."""
    if text.startswith('"'):
        if _DOUBLE.fullmatch(text) is None:
            raise ValueError("has a quote that does not end")
        return _ESCAPE.sub(_unescaped, text[1:-1])
    if text.startswith("'"):
        if _SINGLE.fullmatch(text) is None:
            raise ValueError("has a quote that does not end")
        return text[1:-1].replace("''", "'")
    if text.startswith(_SIGNS):
        raise ValueError("is not read: only keys with a word or a list of words are")
    return text


def _unescaped(found: re.Match[str]) -> str:
    digits = found[1] or found[2] or found[3]
    if digits is None:
        if found[4] not in _ESCAPED:
            raise ValueError(f"has the escape {shown(found[0])}")
        return _ESCAPED[found[4]]
    code = int(digits, 16)
    if code > 0x10FFFF or 0xD800 <= code < 0xE000:
        raise ValueError(f"has no character {shown(found[0])}")
    return chr(code)
