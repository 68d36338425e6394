"""LSTM and GRU layers, a CRF, all of ELMo, and steps of a tagger and an AWD-LSTM: `python -m benchmarks recurrent`.

A layer is timed alone: forward as inference calls it, weights packed before, and forward + backward as a training
step does, with the gradients of input and weights. Sequences are of equal length, or those of the first sentences
of a CoNLL-U file, which PyTorch gets packed and ONNX models padded, with their lengths. The CRF is in `crf.py`, ELMo
in `elmo.py`, the tagger in `sequence_tagger.py`, the AWD-LSTM in `awd_lstm.py`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import awd_lstm, crf, elmo, rivals, sequence_tagger
from .measure import Case, Contender, measure
from .report import Report, timing_report, write
from .worker import Job, Restored

TOLERANCE = 1e-3
SENTENCES = 32
GATES = {"lstm": 4, "gru": 3}
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Layer:
    """One layer over one batch.

    Attributes:
        kind: "lstm" or "gru".
        inputs, hidden: its sizes.
        shape_name: what it reads, and where the sizes come from.
        lengths: those of the sequences.
        projection: that of an LSTM's output, or 0.
        directions: 2 for a bidirectional one.
        backward: whether the gradients are computed, too.
    """

    kind: str
    inputs: int
    hidden: int
    shape_name: str
    lengths: tuple[int, ...]
    projection: int = 0
    directions: int = 1
    backward: bool = False

    @property
    def name(self) -> str:
        sizes = f"{self.inputs}-{self.hidden}" + (f"-{self.projection}" if self.projection else "")
        return f"{self.kind} {sizes} {self.shape_name}, forward{'+backward' * self.backward}"

    @property
    def output(self) -> int:
        """Numbers per token and direction."""
        return self.projection or self.hidden

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    @property
    def flops(self) -> float:
        products = GATES[self.kind] * self.hidden * (self.inputs + self.output) + self.hidden * self.projection
        return 2.0 * products * self.tokens * self.directions * (3 if self.backward else 1)

    def make(self) -> tuple[Array, Array, list[tuple[Any, ...]], Array]:
        """x, cu_seqlens, weights as the kernels take them, and the gradient of the output: the same for everyone."""
        rng = np.random.default_rng(0)
        rows = GATES[self.kind] * self.hidden

        def uniform(*shape: int) -> Array:
            return np.asarray((2 * rng.random(shape, np.float32) - 1) * np.float32(self.hidden**-0.5))

        x = rng.standard_normal((self.tokens, self.inputs), np.float32)
        weights = []
        for _ in range(self.directions):
            own: list[Any] = [uniform(rows, self.inputs), uniform(rows, self.output), uniform(rows)]
            if self.kind == "gru":
                weights.append((*own, uniform(rows)))
            else:
                weights.append((*own, uniform(self.projection, self.hidden) if self.projection else None))
        dout = rng.standard_normal((self.tokens, self.directions * self.output), np.float32)
        return x, np.cumsum((0, *self.lengths)).astype(np.int32), weights, dout


def layers(sentences: tuple[int, ...]) -> list[Layer]:
    """All of them; `sentences` are the lengths of real ones, read in both directions."""
    ragged = f"{len(sentences)} sentences of ud_ewt, both directions"
    forward = [
        Layer("lstm", 512, 4096, "ELMo, batch 32, 20 steps", (20,) * 32, projection=512),
        Layer("lstm", 1024, 1024, "batch 32, 35 steps", (35,) * 32),
        Layer("lstm", 256, 256, "batch 32, 50 steps", (50,) * 32),
        Layer("lstm", 512, 512, "batch 1, 50 steps", (50,)),
        Layer("lstm", 512, 4096, f"ELMo, {ragged}", sentences, projection=512, directions=2),
        Layer("lstm", 1024, 1024, ragged, sentences, directions=2),
        Layer("lstm", 256, 256, ragged, sentences, directions=2),
        Layer("gru", 1024, 1024, "batch 32, 35 steps", (35,) * 32),
        Layer("gru", 256, 256, "batch 32, 50 steps", (50,) * 32),
    ]
    return [replace(layer, backward=backward) for layer in forward for backward in (False, True)]


def numpy_job(module: str, layer: dict[str, Any], threads: int) -> Job:
    """`module` is `fastattn.kernels` or `fastattn.reference`."""
    importlib.import_module("fastattn").set_num_threads(threads)
    ops, each = importlib.import_module(module), Layer(**layer)
    function = getattr(ops, each.kind)
    x, cu_seqlens, weights, dout = each.make()
    if not each.backward:
        if module == "fastattn.kernels":
            weights = [packed(ops, GATES[each.kind], *own) for own in weights]
        return lambda: function(x, cu_seqlens, weights)
    importlib.import_module("fastattn._core").keep_memory()  # as the first backward() of a training process does
    backward = getattr(ops, f"{each.kind}_backward")

    def run() -> Any:
        out, *states, reserve = function(x, cu_seqlens, weights, return_reserve=True)
        none = [None] * len(states)
        dx, dweights, *_ = backward(dout, *none, x, cu_seqlens, weights, reserve)
        return out, dx, dweights

    return run


def packed(ops: Any, gates: int, weight_ih: Array, weight_hh: Array, *rest: Array | None) -> tuple[Any, ...]:
    """A direction's weights as a frozen layer holds them."""
    more = [each if each is None or each.ndim == 1 else ops.PackedMatrix(each) for each in rest]
    return ops.PackedMatrix(weight_ih), ops.PackedMatrix(weight_hh, groups=gates), *more


def to_tokens(rows: Array, values: Array) -> Array:
    """Values of time-major rows in the order of the tokens."""
    result = np.empty_like(values)
    result[rows] = values
    return result


def torch_job(layer: dict[str, Any], threads: int, compiled: bool = False) -> Job:
    """torch.nn.LSTM or GRU: sequences of equal length as `[steps, batch, inputs]`, others packed."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    each = Layer(**layer)
    x, _, weights, dout = each.make()
    rnn, parameters = torch_layer(torch, each, weights)
    rows, running, order = rivals.time_major(np.array(each.lengths))
    data, dy = torch.from_numpy(x[rows]), torch.from_numpy(dout[rows])
    ragged = len(set(each.lengths)) > 1
    if ragged:
        order = torch.from_numpy(order)
        pack = torch.nn.utils.rnn.PackedSequence
        sequences = pack(data, torch.from_numpy(running), order, torch.argsort(order))
    else:
        data = sequences = data.unflatten(0, (-1, len(each.lengths)))
        dy = dy.unflatten(0, (-1, len(each.lengths)))
    if compiled:
        importlib.import_module("torch._dynamo.config").allow_rnn = True  # type: ignore[attr-defined]
        importlib.import_module("torch._inductor.config").freezing = True  # type: ignore[attr-defined]
        rnn = torch.compile(rnn, dynamic=False)

    def forward() -> Any:
        with torch.inference_mode():
            return rnn(sequences)

    def forward_backward() -> Any:
        y = rnn(sequences)[0]
        y = y.data if ragged else y
        return y.detach(), *torch.autograd.grad(y, [data, *parameters], dy)

    def restore(result: Any) -> Any:
        if each.backward:
            y, dx, *gradients = (part.numpy() for part in result)
            return (*(to_tokens(rows, part.reshape(len(rows), -1)) for part in (y, dx)), *gradients)
        y, states = result
        y = (y.data if ragged else y).numpy().reshape(len(rows), -1)
        return to_tokens(rows, y), tuple(part.numpy() for part in (states if each.kind == "lstm" else [states]))

    if each.backward:
        data.requires_grad_()
    return Restored(forward_backward if each.backward else forward, restore)


def torch_layer(torch: Any, layer: Layer, weights: list[tuple[Any, ...]]) -> tuple[Any, list[Any]]:
    """The module with these weights, and its parameters in their order."""
    options = {"proj_size": layer.projection} if layer.projection else {}
    module = getattr(torch.nn, layer.kind.upper())
    rnn = module(layer.inputs, layer.hidden, bidirectional=layer.directions == 2, **options)
    third = "bias_hh" if layer.kind == "gru" else "weight_hr"
    parameters = []
    with torch.no_grad():
        for suffix, own in zip(("_l0", "_l0_reverse"), weights, strict=False):
            rnn.get_parameter(f"bias_hh{suffix}").zero_()  # an LSTM's is the same as bias_ih: ours has their sum
            for name, array in zip(("weight_ih", "weight_hh", "bias_ih", third), own, strict=True):
                if array is not None:
                    parameters.append(rnn.get_parameter(name + suffix))
                    parameters[-1].copy_(torch.from_numpy(array))
    return rnn.eval(), parameters


def onnx_job(runtime: str, layer: dict[str, Any], threads: int) -> Job:
    """ONNX's operator LSTM or GRU in `runtime`, "onnxruntime" or "openvino", shapes and lengths being constants."""
    each = Layer(**layer)
    x, _, weights, _ = each.make()
    real = np.arange(max(each.lengths)) < np.array(each.lengths)[:, None]
    padded = np.zeros((*real.shape, each.inputs), np.float32)
    padded[real] = x
    padded = np.ascontiguousarray(padded.transpose(1, 0, 2))  # [steps, batch, inputs]
    model = onnx_model(each, weights)
    if runtime == "onnxruntime":
        session = rivals.onnx_session(model, threads)
        job = lambda: session.run(None, {"x": padded})  # noqa: E731
    else:
        core = importlib.import_module("openvino").Core()
        settings = rivals.openvino_settings(threads)
        request = core.compile_model(core.read_model(model), "CPU", settings).create_infer_request()
        job = lambda: request.infer([padded], share_inputs=True, share_outputs=True).to_tuple()  # noqa: E731

    def restore(result: Any) -> Any:
        y, *states = result  # y [steps, directions, batch, hidden]
        return y.transpose(2, 0, 1, 3)[real], *states

    return Restored(job, restore)


def onnx_model(layer: Layer, weights: list[tuple[Any, ...]]) -> bytes:
    """An ONNX file of one node."""
    onnx = importlib.import_module("onnx")
    order = [0, 3, 1, 2] if layer.kind == "lstm" else [1, 0, 2]  # i o f c of i f g o, z r h of r z n

    def reordered(array: Array) -> Array:
        parts = np.split(array, GATES[layer.kind])
        return np.concatenate([parts[gate] for gate in order])

    def stacked(index: int) -> Array:
        return np.stack([reordered(own[index]) for own in weights])

    bias = stacked(2)
    recurrent_bias = stacked(3) if layer.kind == "gru" else np.zeros_like(bias)
    constants = {"W": stacked(0), "R": stacked(1), "B": np.concatenate((bias, recurrent_bias), axis=1)}
    if len(set(layer.lengths)) > 1:
        constants["lengths"] = np.array(layer.lengths, np.int32)
    direction = "bidirectional" if layer.directions == 2 else "forward"
    options = {"linear_before_reset": 1} if layer.kind == "gru" else {}
    outputs = ["Y", "Y_h", "Y_c"] if layer.kind == "lstm" else ["Y", "Y_h"]
    inputs = ["x", "W", "R", "B", "lengths" if "lengths" in constants else ""]
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    node = helper.make_node(
        layer.kind.upper(), inputs, outputs, hidden_size=layer.hidden, direction=direction, **options
    )
    steps, batch = max(layer.lengths), len(layer.lengths)
    shapes = [(steps, layer.directions, batch, layer.hidden), *[(layer.directions, batch, layer.hidden)] * 2]
    graph = helper.make_graph(
        [node],
        layer.kind,
        [helper.make_tensor_value_info("x", float32, (steps, batch, layer.inputs))],
        [helper.make_tensor_value_info(*each) for each in zip(outputs, [float32] * 3, shapes, strict=False)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    serialized: bytes = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    return serialized


def contenders(layer: Layer, options: argparse.Namespace) -> list[Contender]:
    """fastattn and NumPy, then the rivals that have such a layer: ONNX has no projection and no backward."""
    shared = {"layer": asdict(layer), "threads": options.threads}
    entrants = [
        Contender(title, sys.executable, "benchmarks.recurrent:numpy_job", {"module": module, **shared}, (title,))
        for title, module in (("fastattn", "fastattn.kernels"), ("numpy", "fastattn.reference"))
    ]
    jobs: dict[str, tuple[str, dict[str, Any]]] = {"torch": ("torch_job", {})}
    if not layer.backward:
        jobs["torch-compile"] = ("torch_job", {"compiled": True})
        if not layer.projection:
            jobs |= {runtime: ("onnx_job", {"runtime": runtime}) for runtime in ("onnxruntime", "openvino")}
    for name in options.rivals:
        if name in jobs:
            function, more = jobs[name]
            arguments, package = {**shared, **more}, rivals.RUNTIMES[name].package
            function = f"benchmarks.recurrent:{function}"
            entrants.append(Contender(name, options.rivals_python, function, arguments, (package,)))
    return entrants


def make_case(layer: Layer, options: argparse.Namespace) -> Case:
    return Case(layer.name, contenders(layer, options), layer.tokens, "tokens/s", TOLERANCE, layer.flops)


def first_sentences(path: Path) -> list[tuple[str, ...]]:
    """The words of the first sentences of a CoNLL-U file."""
    if not path.is_file():
        raise SystemExit(f"{path}: no such file; --sentences names a CoNLL-U file")
    text: Any = importlib.import_module("fastattn.text")
    return [each.words for each in text.read_conllu(path)[:SENTENCES]]


def main(options: argparse.Namespace) -> Report:
    sentences = first_sentences(options.sentences)
    lengths = tuple(len(words) for words in sentences)
    cases: dict[str, Callable[[], Case]] = {each.name: partial(make_case, each, options) for each in layers(lengths)}
    cases[crf.NAME] = partial(crf.make_case, list(lengths), options)
    cases[elmo.NAME] = partial(elmo.make_case, sentences, options)
    cases[sequence_tagger.NAME] = partial(sequence_tagger.make_case, sentences, options)
    cases[awd_lstm.NAME] = partial(awd_lstm.make_case, options)
    wanted = [name for name in cases if not options.cases or any(part in name for part in options.cases)]
    if not wanted:
        raise SystemExit("\n  ".join(["no case has such a name; there are:", *cases]))
    results = []
    for name in wanted:
        results.append(measure(cases[name](), options.threads, options.samples))
        report = timing_report("recurrent", "Recurrent layers, ELMo and AWD-LSTM", results, options.threads)
        write(report, options.json)
    return report
