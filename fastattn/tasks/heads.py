"""The folder of a task's model: another head is refused by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fastattn.checks import listed
from fastattn.formats import hugging_face
from fastattn.hub import find_model
from fastattn.models.config import architectures
from fastattn.tasks.embed.folder import FILES


def find_head(name_or_folder: str | os.PathLike[str], *kinds: str, purpose: str, **hub: Any) -> Path:
    """The folder of a model with one of these kinds of heads, see `fastattn.models.registry.Family`.

    Raises as `find_model`, and ValueError, with the folder, its architecture and the `purpose` of the head, for the
    model of another head. A config.json that names no architecture may have any.
    """
    folder = find_model(name_or_folder, FILES, **hub)
    try:
        named = architectures(hugging_face.read_config(folder))
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    if named and not any(name.endswith(f"For{kind}") for name in named for kind in kinds):
        raise ValueError(f"{folder}: has no head {purpose}, its architecture is {listed(named)}")
    return folder
