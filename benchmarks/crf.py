"""The log-likelihood of tags and its gradients, against a straight PyTorch version.

Part of `python -m benchmarks recurrent`. PyTorch has no such layer: its version steps through a padded batch, as
pytorch-crf does, but takes the scores of the tags all at once.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from .measure import Case, Contender
from .worker import Job, Restored

TAGS = 17  # of UPOS
NAME = f"crf {TAGS} tags, 32 sentences of ud_ewt, forward+backward"
TOLERANCE = 1e-3
Array = npt.NDArray[Any]


def make_arguments(lengths: list[int]) -> dict[str, Array]:
    """The same for everyone, as the kernels take them."""
    rng = np.random.default_rng(0)
    tokens = sum(lengths)
    scores = {"transitions": (TAGS, TAGS), "start_transitions": (TAGS,), "end_transitions": (TAGS,)}
    return {
        "emissions": rng.standard_normal((tokens, TAGS), np.float32),
        "tags": rng.integers(0, TAGS, tokens),
        "cu_seqlens": np.cumsum([0, *lengths]).astype(np.int32),
        **{name: rng.standard_normal(shape, np.float32) for name, shape in scores.items()},
    }


def numpy_job(module: str, lengths: list[int], threads: int) -> Job:
    """`module` is `fastattn.kernels` or `fastattn.reference`."""
    importlib.import_module("fastattn").set_num_threads(threads)
    importlib.import_module("fastattn._core").keep_memory()  # as the first backward() of a training process does
    ops, given, ones = importlib.import_module(module), make_arguments(lengths), np.ones(len(lengths), np.float32)

    def run() -> Any:
        log_likelihood, alpha = ops.crf(**given)
        return log_likelihood, ops.crf_backward(ones, **given, log_likelihood=log_likelihood, alpha=alpha)

    return run


def torch_job(lengths: list[int], threads: int) -> Job:
    """Time-major and padded; the mask and the places of the tags are made beforehand."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    given = {name: torch.from_numpy(array) for name, array in make_arguments(lengths).items()}
    sizes = torch.tensor(lengths)
    steps, batch = int(sizes.max()), torch.arange(len(lengths))
    mask = torch.arange(steps)[:, None] < sizes
    emissions, tags = torch.zeros(steps, len(lengths), TAGS), torch.zeros(steps, len(lengths), dtype=torch.int64)
    emissions.transpose(0, 1)[mask.T] = given["emissions"]
    tags.transpose(0, 1)[mask.T] = given["tags"]
    transitions, start, end = (given[f"{name}transitions"] for name in ("", "start_", "end_"))
    inputs = [each.requires_grad_() for each in (emissions, transitions, start, end)]
    weight, last = mask.float(), tags[sizes - 1, batch]

    def run() -> Any:
        own = emissions.gather(2, tags[:, :, None])[:, :, 0]
        score = (own * weight).sum(0) + (transitions[tags[:-1], tags[1:]] * weight[1:]).sum(0) + start[tags[0]]
        alpha = start + emissions[0]
        for t in range(1, steps):
            following = torch.logsumexp(alpha[:, :, None] + transitions, 1) + emissions[t]
            alpha = torch.where(mask[t, :, None], following, alpha)
        log_likelihood = score + end[last] - torch.logsumexp(alpha + end, 1)
        return log_likelihood.detach(), torch.autograd.grad(log_likelihood.sum(), inputs)

    def restore(result: Any) -> Any:
        log_likelihood, (demissions, *others) = result
        rows = demissions.transpose(0, 1)[mask.T]
        return log_likelihood.numpy(), tuple(each.numpy() for each in (rows, *others))

    return Restored(run, restore)


def make_case(lengths: list[int], options: argparse.Namespace) -> Case:
    shared = {"lengths": lengths, "threads": options.threads}
    entrants = [
        Contender(title, sys.executable, "benchmarks.crf:numpy_job", {"module": module, **shared}, (title,))
        for title, module in (("fastattn", "fastattn.kernels"), ("numpy", "fastattn.reference"))
    ]
    if "torch" in options.rivals:
        entrants.append(Contender("torch", options.rivals_python, "benchmarks.crf:torch_job", shared, ("torch",)))
    return Case(NAME, entrants, sum(lengths), "tokens/s", TOLERANCE)
