"""The YAML that Marian writes."""

from __future__ import annotations

from typing import Any

import pytest

from fastattn.formats.yaml_lines import pairs


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("---\n# words\n\na: 1\n...\n", [("a", "1")]),
        ("a: b c: d\nb:\nc: \n", [("a", "b c: d"), ("b", ""), ("c", "")]),
        ("a: ~\nyes: no\n1_0: 0x1\n=: 3\n<<: 4", [("a", "~"), ("yes", "no"), ("1_0", "0x1"), ("=", "3"), ("<<", "4")]),
        ('"a: b": "c\\"\\\\"\n\'it\'\'s\': \'\'\n', [("a: b", 'c"\\'), ("it's", "")]),
        (r'"\x85\u2581\U0001F600\t\0\_": 1', [("\x85\u2581\U0001f600\t\0\xa0", "1")]),
        ("a:b: 1\nc:: 2\n", [("a:b", "1"), ("c:", "2")]),
        ("a:\n  - 1\n  - b c\nb:\n- x\n- 'y'\n", [("a", ["1", "b c"]), ("b", ["x", "y"])]),
        ("c:\n  []\nd: z", [("c", []), ("d", "z")]),
        ("a: []\nb: [1, 'x, y', \"z\"]\nc: [ ]", [("a", []), ("b", ["1", "x, y", "z"]), ("c", [])]),
        ("? a\n: 1\n? \"b\"\n: 2\n", [("a", "1"), ("b", "2")]),
        ("a: 1 # one\nb: c#d\nc:  # none\n- 'e # f'", [("a", "1"), ("b", "c#d"), ("c", ["e # f"])]),
        ("a: 1\r\nb: 2\rc: 3", [("a", "1"), ("b", "2"), ("c", "3")]),
        ("a: \x85\u2028b\n", [("a", "\x85\u2028b")]),
        ("a: 1\na: 2", [("a", "1"), ("a", "2")]),
    ],
)  # fmt: skip
def test_what_it_reads(text: str, expected: Any) -> None:
    assert pairs(text, "x.yml") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "line 1 is no key with a value: 'a'"),
        ("a: 1\n  b: 2", "line 2 is not read: only keys with a word or a list of words are: '  b: 2'"),
        ("a:\n  b: 2\n  c: 3", "line 3 is not read"),
        ("a: 1\n- b", "line 2 is no key with a value"),
        ("a: &x 1", "line 1 is not read"),
        ("a: *x", "line 1 is not read"),
        ("a: !!python/object:os.system x", "line 1 is not read"),
        ("a: |\n  text", "line 1 is not read"),
        ("a: {b: c}", "line 1 is not read"),
        ("a: [b, [c]]", "line 1 is not read"),
        ("a: [b", "line 1 has a list that does not end"),
        ('a: "b', "line 1 has a quote that does not end"),
        ("a: 'b' c", "line 1 has a quote that does not end"),
        ('"a"b: c', "line 1 has a quote that does not end"),
        (r'a: "\z"', r"line 1 has the escape '\\\\z'"),
        (r'a: "\ud800"', "line 1 has no character"),
        (r'a: "\U00110000"', "line 1 has no character"),
        (r'a: "\x8"', "line 1 has the escape"),
        ("? a\nb: 1", "line 2 is not the value of the key above"),
        ("? a", "the key 'a' at its end has no value"),
    ],
)
def test_what_it_refuses(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^x.yml: {message}"):
        pairs(text, "x.yml")


def test_it_takes_no_memory_out_of_proportion() -> None:
    with pytest.raises(ValueError, match=r"x\.yml: more than 10 keys"):
        pairs("a: 1\n" * 20, "x.yml", 10)
    with pytest.raises(ValueError, match=r"x\.yml: more than 10000 keys"):
        pairs("a: 1\n" * 20_000, "x.yml")
    with pytest.raises(ValueError, match="has more than 1000 words in its list"):
        pairs("a:\n" + "- 1\n" * 2000, "x.yml")
    with pytest.raises(ValueError, match="has more than 1000 words in its list"):
        pairs(f"a: [{'1, ' * 2000}]", "x.yml")
