"""Documents of raw text: one sentence per line, and a blank line between two documents."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from fastattn import checks
from fastattn.files import text_lines


def read_documents(source: str | os.PathLike[str] | Iterable[Iterable[str]]) -> Iterator[list[str]]:
    """The sentences of each document, one document after the other.

    A file is UTF-8, its lines end as `fastattn.files.utf8_lines` says, and whitespace around a sentence is removed.
    Several blank lines are as good as one. A file is not read before its documents are needed.

    Args:
        source: a file, or the documents themselves, each a sequence of sentences.

    Raises OSError; ValueError, with file and line, for a line that is not UTF-8, and for a source without sentences;
    and TypeError, by index, for a document that is no sequence of str.

    >>> list(read_documents([["A cat.", "It sat."], [" "], ["A dog."]]))
    [['A cat.', 'It sat.'], ['A dog.']]
    """
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        documents = _split(text_lines(name))
    else:
        name = "read_documents: source"
        documents = _checked(name, checks.sequence(name, source, "documents, each a sequence of sentences"))
    found = False
    for document in documents:
        sentences = [line.strip() for line in document if line and not line.isspace()]
        if sentences:
            found = True
            yield sentences
    if not found:
        raise ValueError(f"{name}: there are no sentences")


def _split(lines: Iterable[str]) -> Iterator[list[str]]:
    document: list[str] = []
    for line in lines:
        if line and not line.isspace():
            document.append(line)
        elif document:
            yield document
            document = []
    yield document


def _checked(name: str, documents: Iterable[Iterable[str]]) -> Iterator[list[str]]:
    return (checks.texts(f"{name}[{i}]", document, "sentences") for i, document in enumerate(documents))
