"""`python -m benchmarks precision`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest

import fastattn

precision = pytest.importorskip("benchmarks.precision")
models = pytest.importorskip("benchmarks.models")
rivals = pytest.importorskip("benchmarks.rivals")
weights = pytest.importorskip("benchmarks.weights")
main = pytest.importorskip("benchmarks.__main__")


def options(cache: Path, **more: object) -> argparse.Namespace:
    given = {
        "rivals": [],
        "rivals_python": "python-of-rivals",
        "cache": cache,
        "threads": 1,
        "samples": 1,
        "json": None,
    }
    return argparse.Namespace(**{**given, **more})


def test_linear_layers_compute_the_same_with_all_weights() -> None:
    threads = fastattn.num_threads()
    outputs = [precision.linear_job(name, "MiniLM", 8, threads)() for name in ("float32", "bfloat16", "int8")]
    assert outputs[0].shape == (8, 1152 + 384 + 1536 + 384)
    for output in outputs[1:]:
        assert 0 < np.abs(output - outputs[0]).max() < precision.LINEAR_TOLERANCE


def test_a_pass_has_ours_in_this_python_and_the_int8_of_rivals_in_theirs(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(precision, "model_folder", lambda model, cache: tmp_path)
    monkeypatch.setattr(precision.models, "convert", lambda *_: {})
    monkeypatch.setattr(precision, "flops", lambda *_: 1.0)
    case = precision.pass_case("minilm-l6-1x8", options(tmp_path, rivals=["onnxruntime", "ctranslate2"]))
    found = {each.name: each.python for each in case.contenders}
    theirs = ("onnxruntime-int8", "onnxruntime-int8-reduced-range", "ctranslate2-int8")
    assert list(found) == [*precision.OURS, *theirs]
    assert {found[name] for name in precision.OURS} == {sys.executable}
    assert {found[name] for name in theirs} == {"python-of-rivals"}


def test_contenders_load_the_weights_that_they_are_called_after(tmp_path) -> None:
    folder = weights.model_folder("bert-tiny", tmp_path)
    ids, mask = weights.random_batch(folder, [5, 9], np.random.default_rng(0))
    found = {}
    for name in precision.OURS:
        found[name] = rivals.RUNTIMES[name](folder, tmp_path, fastattn.num_threads()).run(ids, mask)[mask == 1]
    assert 0 < np.abs(found["fastattn-bfloat16"] - found["fastattn"]).max() < 0.1
    assert 0 < np.abs(found["fastattn-int8"] - found["fastattn"]).max() < 0.5


def test_other_commands_do_not_take_ours_as_a_rival() -> None:
    assert main.rival_names("onnxruntime-int8,openvino-int8") == ["onnxruntime-int8", "openvino-int8"]
    for name in ("fastattn", "fastattn-int8", "nothing"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"unknown rival '{name}'"):
            main.rival_names(name)


def test_files_of_a_variant_are_apart(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(rivals, "version", lambda package: "1.0")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    names = ("onnxruntime", "onnxruntime-int8", "onnxruntime-int8-reduced-range", "ctranslate2", "ctranslate2-int8")
    assert len({rivals.converted_folder(name, tmp_path, tmp_path) for name in names}) == len(names)


def test_an_unknown_case_is_refused(tmp_path) -> None:
    with pytest.raises(SystemExit, match="unknown case bert; known are linear, minilm-l6-1x8"):
        precision.main(options(tmp_path, cases=["bert"]))
