"""`fastattn predict translate`: lines in, translations out, as they come."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastattn.files import utf8_lines
from fastattn.progress import progress_bar
from fastattn.tasks.translate.recipe import TranslateOptions
from fastattn.tasks.translate.translations import OVERLONG, Translation
from fastattn.text.parallel import split_columns
from fastattn.training import character_error_rate
from fastattn.training.plot import import_matplotlib, plot_attention, plot_format

READ_AHEAD = 1024
"""How many lines are sorted by length and translated together, if they are there."""


@dataclass
class Input:
    """Texts and their right translations, "" where they are not known, from a file that errors call `name`. `waits`
    says whether the next line is still to come."""

    pairs: Iterator[tuple[str, str]]
    name: str
    waits: Callable[[], bool]

    def chunks(self) -> Iterator[list[tuple[str, str]]]:
        """What is there, at least a line and at most `READ_AHEAD`, until there is no more."""
        for first in self.pairs:
            chunk = [first]
            while len(chunk) < READ_AHEAD and not self.waits():
                if not (more := list(itertools.islice(self.pairs, 1))):
                    break
                chunk += more
            yield chunk


def read_input(lines: Iterable[bytes], name: str, options: TranslateOptions) -> Input:
    """The lines, to be read one after the other. What cannot be drawn is refused now."""
    if options.attention:
        plot_format(options.attention)
        import_matplotlib()
        if not Path(options.attention).parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), options.attention)
    texts = utf8_lines(lines, name)
    pairs = split_columns(texts, name) if options.pairs else ((text.strip(), "") for text in texts)
    return Input(pairs, name, lambda: bool(getattr(lines, "waits", False)))


@dataclass
class LineTranslator:
    """Translates lines with a `Translator`, and remembers what there is to report."""

    translator: Any
    options: TranslateOptions
    done: int = 0
    long: int = 0
    drawn: tuple[Any, ...] | None = None
    pairs: list[tuple[str, str]] = field(default_factory=list)

    def run(self, data: Input) -> Iterator[str]:
        """The lines of the output, those of a chunk at once. A line of the input has `n_best`, a blank one too."""
        with progress_bar(None, unit="line", delay=1) as advance:
            for chunk in data.chunks():
                found = self._translate([source for source, _ in chunk], [target for _, target in chunk], data.name)
                yield "".join(self._line(one) for each in found for one in each)
                advance(len(chunk))

    def _translate(self, sources: list[str], targets: list[str], name: str) -> list[list[Translation]]:
        options, translator, before = self.options, self.translator, self.done
        encoded = translator._encode_sources(sources, options.overlong, lambda i: f"{name}:{before + i + 1}")
        search = translator._search(
            n_best=options.n_best, prefixes=options.prefix, replace_unknowns=options.replace_unknowns,
            options=options.decoding, texts=sources,
        )  # fmt: skip
        found: list[list[Translation]] = translator._find(sources, encoded, search, options.overlong)
        self.done += len(sources)
        self.long += int(encoded.truncated.sum())
        for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
            skipped = options.overlong == "skip" and encoded.truncated[i]
            if options.attention and self.drawn is None and not skipped:
                ids = encoded.ids[encoded.cu_seqlens[i] : encoded.cu_seqlens[i + 1]]
                self.drawn = translator._attention(ids, found[i][0].text)
            if source and target and not skipped:
                self.pairs.append((found[i][0].text, target))
        return found

    def _line(self, translation: Translation) -> str:
        text = " ".join(translation.text.split())
        return f"{translation.score:.6f}\t{text}\n" if self.options.scores else f"{text}\n"

    def reports(self) -> Iterator[str]:
        """What there is to say once all lines are written."""
        options = self.options
        if self.drawn is not None:
            weights, source, target = self.drawn
            plot_attention(weights.mean(axis=(0, 1)), source, target, str(options.attention))
        if self.long:
            longest, done = self.translator.max_length, OVERLONG[options.overlong]
            yield f"{self.long} of {self.done} lines have more than {longest} tokens and were {done}"
        if options.pairs:
            found, wanted = [one for one, _ in self.pairs], [other for _, other in self.pairs]
            rate = f"{character_error_rate(found, wanted):.4f} ({len(found)} texts)" if found else "there are no pairs"
            yield f"character error rate: {rate}"
