"""One small class per runtime, all with the same methods: load an encoder, perhaps a MarianMT model's, and turn ids and
mask into hidden states.

A class runs in a process of its own, perhaps with another Python, so it imports only what it needs. Each rival is set
up as its own guide recommends for the lowest latency in float32. `convert` writes its files once, so that the process
that serves never holds the exporter.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import os
import secrets
import shutil
from abc import ABC, abstractmethod
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
NOTE = "note.txt"  # in the folder of a converted model


class Runtime(ABC):
    """`folder` is a Hugging Face folder, `converted` is the folder that `convert` wrote."""

    package: ClassVar[str]
    variant: ClassVar[str] = ""
    """Tells the files of `convert` from those of another class of the package."""

    @abstractmethod
    def __init__(self, folder: Path, converted: Path, threads: int) -> None:
        """Load the model."""

    @abstractmethod
    def run(self, ids: Ids, mask: Ids) -> Floats:
        """Hidden states `[batch, length, dim]` of `ids` and `mask`, `[batch, length]` int64."""

    @staticmethod
    def convert(folder: Path, converted: Path) -> str:
        """Write the runtime's own format, and return what the table has to say about it.

        A runtime that reads the folder itself writes nothing.
        """
        return ""


class Fastattn(Runtime):
    """The library itself."""

    package = "fastattn"
    weights: ClassVar[str] = "float32"

    def __init__(self, folder: Path, converted: Path, threads: int) -> None:
        fastattn = importlib.import_module("fastattn")
        fastattn.set_num_threads(threads)
        models = importlib.import_module("fastattn.models")
        if model_type(folder) == "marian":
            ragged = importlib.import_module("fastattn.ragged")
            model = models.Transformer.from_pretrained(folder, weights=self.weights)

            def encode(ids: Ids, mask: Ids) -> Floats:
                tokens, cu_seqlens, positions = ragged.pack(ids, mask)
                hidden: Floats = ragged.unpack(model.encode_ragged(tokens, cu_seqlens, positions), cu_seqlens, mask)
                return hidden

            self.encode = encode
        else:
            # no pooler, as for the rivals: hidden states are compared
            load_encoder = importlib.import_module("fastattn.models.registry").load_encoder
            encoder = load_encoder(folder, weights=self.weights)
            self.encode = lambda ids, mask: encoder(ids, attention_mask=mask).last_hidden_state

    def run(self, ids: Ids, mask: Ids) -> Floats:
        hidden: Floats = self.encode(ids, mask)
        return hidden


class FastattnBfloat16(Fastattn):
    """The same with weights in bfloat16."""

    weights = "bfloat16"


class FastattnInt8(Fastattn):
    """The same with weights in int8."""

    weights = "int8"


class Torch(Runtime):
    """transformers' model in inference mode, with scaled_dot_product_attention, its default, if the family has it."""

    package = "torch"

    def __init__(self, folder: Path, converted: Path, threads: int) -> None:
        self.torch = importlib.import_module("torch")
        self.torch.set_num_threads(threads)
        self.model = transformers_encoder(folder)

    def run(self, ids: Ids, mask: Ids) -> Floats:
        with self.torch.inference_mode():
            tensors = {"input_ids": self.torch.from_numpy(ids), "attention_mask": self.torch.from_numpy(mask)}
            hidden: Floats = self.model(**tensors).last_hidden_state.numpy()
        return hidden


class TorchCompile(Torch):
    """The same through torch.compile with frozen weights: compiles for half a minute at every new shape."""

    def __init__(self, folder: Path, converted: Path, threads: int) -> None:
        super().__init__(folder, converted, threads)
        config: Any = importlib.import_module("torch._inductor.config")
        config.freezing = True
        self.model = self.torch.compile(self.model, dynamic=False)


class OnnxRuntime(Runtime):
    """An ONNX export fused by onnxruntime.transformers.optimizer, then the session's own optimisations.

    Where it does not know a family's attention, the export is left to the session's.
    """

    package = "onnxruntime"

    def __init__(self, folder: Path, converted: Path, threads: int) -> None:
        self.session = onnx_session(str(converted / "model.onnx"), threads)

    @staticmethod
    def convert(folder: Path, converted: Path) -> str:
        torch = importlib.import_module("torch")
        optimizer = importlib.import_module("onnxruntime.transformers.optimizer")
        settings = json.loads((folder / "config.json").read_text())
        names = ["input_ids", "attention_mask", "last_hidden_state"]
        with torch.no_grad():
            torch.onnx.export(
                hidden_states_only(folder),
                tuple(example(torch).values()),
                str(converted / "exported.onnx"),
                input_names=names[:2],
                output_names=names[2:],
                dynamic_axes={name: {0: "batch", 1: "length"} for name in names},
                opset_version=17,
                dynamo=False,  # onnxruntime's optimiser fuses attention only in graphs of this exporter
            )
        fused = optimizer.optimize_model(
            str(converted / "exported.onnx"),
            model_type="bert",
            num_heads=first(settings, "num_attention_heads", "n_heads", "encoder_attention_heads"),
            hidden_size=first(settings, "hidden_size", "dim", "d_model"),
            opt_level=0,
        )
        layers = first(settings, "num_hidden_layers", "n_layers", "encoder_layers")
        if fused.get_fused_operator_statistics()["Attention"] < layers:
            (converted / "exported.onnx").rename(converted / "model.onnx")
            return "attention not fused"
        fused.save_model_to_file(str(converted / "model.onnx"))
        (converted / "exported.onnx").unlink()
        return ""

    def run(self, ids: Ids, mask: Ids) -> Floats:
        hidden: Floats = self.session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        return hidden


class OnnxRuntimeNoSpin(OnnxRuntime):
    """The same with threads that sleep as soon as they have nothing to do, for machines with other work."""

    def __init__(self, folder: Path, converted: Path, threads: int) -> None:
        self.session = onnx_session(str(converted / "model.onnx"), threads, spin=False)


class OnnxRuntimeInt8(OnnxRuntime):
    """The same graph through `quantize_dynamic`: int8 weights, a scale for each channel and for each activation."""

    variant = "int8"

    @staticmethod
    def convert(folder: Path, converted: Path) -> str:
        return quantized_onnx(folder, converted, reduce_range=False)


class OnnxRuntimeInt8ReducedRange(OnnxRuntime):
    """The same with weights of 7 bits, so that no product saturates on AVX2 (onnxruntime#6004)."""

    variant = "int8-reduced-range"

    @staticmethod
    def convert(folder: Path, converted: Path) -> str:
        return quantized_onnx(folder, converted, reduce_range=True)


class OpenVino(Runtime):
    """ov.convert_model from PyTorch, LATENCY hint, float32; one model for every shape."""

    package = "openvino"

    def __init__(self, folder: Path, converted: Path, threads: int) -> None:
        openvino = importlib.import_module("openvino")
        self.core = openvino.Core()
        self.model = self.core.read_model(converted / "model.xml")
        self.settings = openvino_settings(threads)
        self.request = self.core.compile_model(self.model, "CPU", self.settings).create_infer_request()

    @staticmethod
    def convert(folder: Path, converted: Path) -> str:
        torch = importlib.import_module("torch")
        openvino = importlib.import_module("openvino")
        any_shape = openvino.PartialShape([-1, -1])
        model = openvino.convert_model(
            hidden_states_only(folder), example_input=example(torch), input=[any_shape, any_shape]
        )
        openvino.save_model(model, converted / "model.xml", compress_to_fp16=False)
        return ""

    def run(self, ids: Ids, mask: Ids) -> Floats:
        inputs = {"input_ids": ids, "attention_mask": mask}
        hidden: Floats = self.request.infer(inputs, share_inputs=True, share_outputs=True)[0]
        return hidden


class OpenVinoStatic(OpenVino):
    """The same compiled for one fixed shape. A service with texts of any length cannot use it."""

    shape: tuple[int, ...] = ()

    def run(self, ids: Ids, mask: Ids) -> Floats:
        if ids.shape != self.shape:
            self.shape = ids.shape
            self.model.reshape({each: list(ids.shape) for each in self.model.inputs})
            self.request = self.core.compile_model(self.model, "CPU", self.settings).create_infer_request()
        return super().run(ids, mask)


class OpenVinoInt8(OpenVino):
    """The same through `nncf.quantize`, for transformers, with activations measured on `calibration` texts."""

    variant = "int8"

    @staticmethod
    def convert(folder: Path, converted: Path) -> str:
        openvino, nncf = importlib.import_module("openvino"), importlib.import_module("nncf")
        plain = converted / "plain"
        plain.mkdir()
        OpenVino.convert(folder, plain)
        samples = [np.array([ids]) for ids in calibration(folder)]
        inputs = [{"input_ids": ids, "attention_mask": np.ones_like(ids)} for ids in samples]
        model = nncf.quantize(
            openvino.Core().read_model(plain / "model.xml"),
            nncf.Dataset(inputs),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(inputs),
        )
        openvino.save_model(model, converted / "model.xml", compress_to_fp16=False)
        shutil.rmtree(plain)
        return ""


class CTranslate2(Runtime):
    """ctranslate2.Encoder in float32 with the GEMM it picks for this CPU; padding must be on the right."""

    package = "ctranslate2"
    compute_type: ClassVar[str] = "float32"

    def __init__(self, folder: Path, converted: Path, threads: int) -> None:
        self.ctranslate2 = importlib.import_module("ctranslate2")
        settings = {"compute_type": self.compute_type, "inter_threads": 1, "intra_threads": threads}
        self.encoder = self.ctranslate2.Encoder(str(converted / "model"), device="cpu", **settings)

    @staticmethod
    def convert(folder: Path, converted: Path) -> str:
        converter = importlib.import_module("ctranslate2.converters").TransformersConverter(str(folder))
        converter.convert(str(converted / "model"), quantization="float32")
        return ""

    def run(self, ids: Ids, mask: Ids) -> Floats:
        view = self.ctranslate2.StorageView.from_array
        output = self.encoder.forward_batch(view(ids.astype(np.int32)), view(mask.sum(1).astype(np.int32)))
        hidden: Floats = np.array(output.last_hidden_state)
        return hidden


class CTranslate2Int8(CTranslate2):
    """The same converted to int8."""

    variant = compute_type = "int8"

    @staticmethod
    def convert(folder: Path, converted: Path) -> str:
        converter = importlib.import_module("ctranslate2.converters").TransformersConverter(str(folder))
        converter.convert(str(converted / "model"), quantization="int8")
        return ""


RUNTIMES: dict[str, type[Runtime]] = {
    "fastattn": Fastattn,
    "fastattn-bfloat16": FastattnBfloat16,
    "fastattn-int8": FastattnInt8,
    "torch": Torch,
    "torch-compile": TorchCompile,
    "onnxruntime": OnnxRuntime,
    "onnxruntime-no-spin": OnnxRuntimeNoSpin,
    "onnxruntime-int8": OnnxRuntimeInt8,
    "onnxruntime-int8-reduced-range": OnnxRuntimeInt8ReducedRange,
    "openvino": OpenVino,
    "openvino-static": OpenVinoStatic,
    "openvino-int8": OpenVinoInt8,
    "ctranslate2": CTranslate2,
    "ctranslate2-int8": CTranslate2Int8,
}


def onnx_session(model: str | bytes, threads: int, spin: bool = True) -> Any:
    """A session of ONNX Runtime for a file, or for the bytes of one."""
    ort = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def calibration(folder: Path) -> list[list[int]]:
    """The ids of 300 texts: sentences of STS-B's dev set for a model with a tokenizer, random ids for others."""
    sentences = Path(os.environ.get("FASTATTN_DATA") or "../shared/data") / "stsb/stsb-en-dev.csv"
    if (folder / "tokenizer.json").is_file() and sentences.is_file():
        tokenizer = importlib.import_module("tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        with sentences.open(newline="", encoding="utf-8") as file:
            return [tokenizer.encode(row[0]).ids for row in islice(csv.reader(file), 300)]
    rng, words = np.random.default_rng(0), json.loads((folder / "config.json").read_text())["vocab_size"]
    return [rng.integers(words // 2, words, length).tolist() for length in rng.integers(8, 128, 300)]


def quantized_onnx(folder: Path, converted: Path, reduce_range: bool) -> str:
    """`OnnxRuntime.convert`, then `quantize_dynamic` per channel."""
    note = OnnxRuntime.convert(folder, converted)
    quantization, onnx = importlib.import_module("onnxruntime.quantization"), importlib.import_module("onnx")
    plain = (converted / "model.onnx").rename(converted / "plain.onnx")
    options: dict[str, Any] = {
        "per_channel": True,
        "reduce_range": reduce_range,
        "weight_type": quantization.QuantType.QInt8,
    }
    options["extra_options"] = {"DefaultTensorType": onnx.TensorProto.FLOAT}  # of what fused nodes give
    quantization.quantize_dynamic(str(plain), str(converted / "model.onnx"), **options)
    plain.unlink()
    return note


def openvino_settings(threads: int) -> dict[str, Any]:
    return {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}


def first(settings: dict[str, Any], *names: str) -> int:
    """The size that a family's config.json has under one of these names."""
    return next(int(settings[name]) for name in names if name in settings)


def model_type(folder: Path) -> str:
    return str(json.loads((folder / "config.json").read_text())["model_type"])


def transformers_encoder(folder: Path, attention: str | None = None) -> Any:
    transformers = importlib.import_module("transformers")
    if model_type(folder) == "marian":
        return transformers.MarianModel.from_pretrained(folder, attn_implementation=attention).get_encoder().eval()
    options: dict[str, Any] = {"attn_implementation": attention}
    if model_type(folder) in ("bert", "mpnet", "roberta"):
        options["add_pooling_layer"] = False
    return transformers.AutoModel.from_pretrained(folder, **options).eval()


def hidden_states_only(folder: Path) -> Any:
    """A module with two inputs and one output, for exporters."""
    torch = importlib.import_module("torch")

    class HiddenStates(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = transformers_encoder(folder, "eager")

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    return HiddenStates().eval()


def example(torch: Any) -> dict[str, Any]:
    """Inputs for tracing: two lengths in one batch, so that the mask is not trivial."""
    mask = torch.ones((2, 16), dtype=torch.int64)
    mask[1, 10:] = 0
    return {"input_ids": torch.arange(1000, 1032).reshape(2, 16), "attention_mask": mask}


def time_major(lengths: npt.NDArray[Any], reverse: bool = False) -> tuple[npt.NDArray[Any], ...]:
    """The order of PyTorch's packed sequences, for a ragged batch whose sequences have these lengths.

    Returns the token of each row (first all first tokens, longest sequence first; with `reverse` each sequence from its
    end), how many sequences each step has, and the sequences in their order. Equal lengths give `[steps, batch]`.
    """
    order = np.argsort(-lengths, kind="stable")
    running = np.arange(lengths.max())[:, None] < lengths[order]
    step, rank = np.nonzero(running)
    starts = (np.cumsum(lengths) - lengths)[order]
    offset = lengths[order][rank] - 1 - step if reverse else step
    return starts[rank] + offset, running.sum(1), order


def converted_folder(name: str, folder: Path, cache: Path) -> Path:
    """The folder of a rival's own format of a model, named after the weights and the rival's version."""
    weights = folder / "model.safetensors"
    with weights.open("rb") as file:
        digest = hashlib.sha256(file.read(1 << 20) + str(weights.stat().st_size).encode()).hexdigest()[:12]
    kind = RUNTIMES[name]
    variant = f"-{kind.variant}" if kind.variant else ""
    return cache / "converted" / f"{kind.package}-{version(kind.package)}{variant}-{digest}"


def convert(name: str, folder: str, cache: str) -> str:
    """Write the rival's own format, unless it exists, and return what the table has to say about it."""
    target = converted_folder(name, Path(folder), Path(cache))
    if not target.exists():
        partial = target.with_name(f"{target.name}.{secrets.token_hex(8)}.partial")
        partial.mkdir(parents=True)
        try:
            if note := RUNTIMES[name].convert(Path(folder), partial):
                (partial / NOTE).write_text(note)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return (target / NOTE).read_text() if (target / NOTE).exists() else ""


def load(name: str, folder: str, cache: str, threads: int) -> Runtime:
    """The runtime with the model loaded. `convert` ran before, in another process."""
    return RUNTIMES[name](Path(folder), converted_folder(name, Path(folder), Path(cache)), threads)
