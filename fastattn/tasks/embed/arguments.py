"""The arguments of the methods of sentence-transformers, checked."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from fastattn import checks


class Plan(NamedTuple):
    """The options of a call of the method `owner`. The pooling leaves out `skip` leading tokens."""

    owner: str
    prompt: str
    skip: int
    batch_size: int | None
    normalize: bool
    dimension: int


_ONLY = {
    "output_value": "sentence_embedding",
    "precision": "float32",
    "convert_to_numpy": True,
    "convert_to_tensor": False,
    "device": "cpu",
    "prompt_name": None,
    "prompt": None,
    "pool": None,
    "chunk_size": None,
}


def check_accepted(owner: str, **options: Any) -> None:
    """Raise ValueError for an option of sentence_transformers with a value that has no meaning here."""
    for name, value in options.items():
        if value != _ONLY[name] and not (name == "device" and str(value) in ("cpu", "None")):
            raise ValueError(f"{owner}: {name} must be {_ONLY[name]!r}, got {checks.shown(value)}")


def shows_progress(owner: str, show_progress_bar: bool | None) -> bool:
    """Whether a call shows a progress bar: None means if the logger "fastattn" is at INFO (20) or DEBUG (10)."""
    if show_progress_bar is None:
        logging = sys.modules.get("logging")  # if nobody has imported it, nobody has set a level
        return logging is not None and logging.getLogger("fastattn").getEffectiveLevel() in (10, 20)
    return checks.boolean(f"{owner}: show_progress_bar", show_progress_bar)


def check_prompts(prompts: Any) -> dict[str, str]:
    """The prompts of a new encoder, by name. Raises TypeError for what is no mapping of names to texts."""
    if not isinstance(prompts, Mapping | None):
        raise TypeError(f"SentenceEncoder: prompts must be a mapping of names to texts, got {checks.shown(prompts)}")
    checks.texts("SentenceEncoder: the names of prompts", list(prompts or ()))
    return {
        name: checks.text(f"SentenceEncoder: prompts[{checks.shown(name)}]", text)
        for name, text in (prompts or {}).items()
    }


def texts_of(sentences: list[Any]) -> list[str]:
    """`sentences`, or the texts of mteb's batches."""
    if not sentences or not isinstance(sentences[0], Mapping):
        return sentences
    texts: list[str] = []
    for i, batch in enumerate(sentences):
        if not isinstance(batch, Mapping) or "text" not in batch:
            raise TypeError(f"encode: sentences[{i}] must have 'text', as batches of mteb, got {checks.shown(batch)}")
        texts += batch["text"]
    return texts


def as_list(owner: str, sentences: Iterable[str], name: str = "sentences") -> list[str]:
    """Sentences as a list. Raises TypeError for a single str and for what has no order."""
    if isinstance(sentences, (str, bytes, *checks.UNORDERED)) or not isinstance(sentences, Iterable):
        wanted = "a str or an iterable of str" if owner == "encode" else "an iterable of str"
        raise TypeError(f"{owner}: {name} must be {wanted}, got {type(sentences).__name__}")
    return list(sentences)
