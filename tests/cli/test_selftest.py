"""`fastattn info --selftest`: a good machine passes, and a wrong one is found."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import pytest

from fastattn import kernels, reference, runtime
from fastattn.cli import main, selftest, selftest_kernels


def failed() -> dict[str, str]:
    return {check.name: check.found for check in selftest.run() if not check.good}


def test_this_machine_passes(capsys: pytest.CaptureFixture[str]) -> None:
    before = runtime.isa(), runtime.num_threads()
    assert main(["info", "--selftest"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "all is well"
    for isa in runtime.available_isas():
        assert any(line.startswith(f"{isa}: kernels") and " ok " in line for line in lines), isa
    assert (runtime.isa(), runtime.num_threads()) == before
    assert main(["info", "--selftest", "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)
    assert {check["good"] for check in checks} == {True}
    assert len(checks) == len(lines) - 2


def test_every_kernel_is_tried() -> None:
    class Recorder:
        def __getattr__(self, name: str) -> Any:
            used.add(name)
            return getattr(kernels, name)

    used: set[str] = set()
    for case in selftest_kernels.CASES.values():
        case(Recorder(), selftest_kernels.Draw(np.float32))
    assert used == set(kernels.__all__)
    assert set(selftest_kernels.CASES) <= set(reference.__all__)


@pytest.mark.parametrize("name", ["linear", "softmax_backward", "adamw"])
def test_a_wrong_number_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One number of one kernel, wrong in its third digit, on one instruction set."""
    right, isa = getattr(kernels, name), runtime.available_isas()[-1]

    def wrong(*arguments: Any, **options: Any) -> Any:
        result = right(*arguments, **options)
        if runtime.isa() == isa:
            array = next(selftest_kernels.arrays_of(arguments[0] if result is None else result))
            array.reshape(-1)[-1] += 0.01 * np.abs(array).max()
        return result

    monkeypatch.setattr(kernels, name, wrong)
    found = failed()
    assert [each for each in found if each.endswith("kernels")] == [f"{isa}: kernels"]
    assert name.partition("_")[0] in found[f"{isa}: kernels"]
    assert "is off by" in found[f"{isa}: kernels"]


def test_other_bits_with_more_threads_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: Any, **options: Any) -> Any:
        y = right(*arguments, **options)
        return np.nextafter(y, np.float32(2)) if runtime.num_threads() > 1 else y

    right = kernels.softmax
    monkeypatch.setattr(kernels, "softmax", wrong)
    assert set(failed()) == {f"{isa}: kernels" for isa in runtime.available_isas()}
    assert "other bits with" in failed()[f"{runtime.isa()}: kernels"]


def test_bits_that_depend_on_the_batch_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastattn.models import BertForSequenceClassification

    def wrong(self: Any, ids: Any, cu_seqlens: Any) -> Any:
        output = right(self, ids, cu_seqlens)
        output.logits.data = output.logits.data * np.float32(1 + (len(cu_seqlens) > 2) * 1e-6)
        return output

    right = BertForSequenceClassification.forward_ragged
    monkeypatch.setattr(BertForSequenceClassification, "forward_ragged", wrong)
    assert set(failed()) == {f"{isa}: model" for isa in runtime.available_isas()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_fails_or_hangs_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parent, right = os.getpid(), kernels.linear

    def broken(*arguments: Any, **options: Any) -> Any:
        if os.getpid() != parent:
            os._exit(7)
        return right(*arguments, **options)

    monkeypatch.setattr(kernels, "linear", broken)
    assert main(["info", "--selftest"]) == 1
    out = capsys.readouterr().out
    assert "a forked child ended with status 7" in out
    assert "1 of " in out.splitlines()[-1]

    monkeypatch.setattr(selftest, "CHILD_SECONDS", 0.2)
    monkeypatch.setattr(
        kernels, "linear", lambda *a, **o: right(*a, **o) if os.getpid() == parent else selftest.time.sleep(60)
    )
    assert "has not computed" in failed()["forked child"]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        if name == "tokenizers":
            raise ImportError(name)
        return right(name)

    right = selftest.importlib.import_module
    monkeypatch.setattr(selftest.importlib, "import_module", missing)
    text = next(check for check in selftest.run() if check.name == "text extra")
    assert text.good
    assert text.found == 'missing: tokenizers; pip install "fastattn[text]"'


def test_it_takes_no_model() -> None:
    with pytest.raises(SystemExit) as error:
        main(["info", "--selftest", "somewhere"])
    assert error.value.code == 2
