"""`fastattn info`."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import numpy as np

import fastattn
from fastattn.cli import info, main


def test_json_says_what_the_runtime_says(capsys):
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["fastattn"] == fastattn.__version__
    assert facts["numpy"] == np.__version__
    assert facts["isa"] == fastattn.isa()
    assert facts["available_isas"] == fastattn.available_isas()
    assert facts["dot_product"] == fastattn.runtime.dot_product()
    assert facts["threads"] == fastattn.num_threads()
    assert facts["isa_reason"]
    assert facts["threads_reason"]
    assert facts["cpu"]
    assert facts["build"]["compiler"]


def test_table(capsys):
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    for word in (fastattn.isa(), fastattn.__version__, f"Python {platform.python_version()}", "threads"):
        assert word in " ".join(text.split())


def test_the_environment_decides_and_is_named():
    for variable, value, key in (
        ("FASTATTN_NUM_THREADS", "1", "threads"),
        ("FASTATTN_ISA", "generic", "isa"),
    ):
        command = [sys.executable, "-m", "fastattn", "info", "--json"]
        result = subprocess.run(
            command,
            env={**os.environ, variable: value},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        facts = json.loads(result.stdout)
        assert str(facts[key]) == value
        assert variable in facts[f"{key}_reason"]


def test_cpu_names(tmp_path, monkeypatch, capsys):
    files = {
        "x86": "processor\t: 0\nmodel name\t: A CPU @ 3 GHz\n\nprocessor\t: 1\nmodel name\t: A CPU @ 3 GHz\n",
        "arm": "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n",
        "escapes": "model name\t: A \x1b[31mCPU\n",
        "other": "nothing: of this\n",
    }
    names = {}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(info, "CPUINFO", tmp_path / name)
        names[name] = info._name_in_cpuinfo()
    assert names["x86"] == "A CPU @ 3 GHz"
    assert names["arm"].endswith("implementer 0x41 part 0xd0c")
    assert names["other"] == ""
    monkeypatch.setattr(info, "CPUINFO", tmp_path / "escapes")
    assert main(["info"]) == 0
    assert "A \\x1b[31mCPU" in capsys.readouterr().out
    monkeypatch.setattr(info, "CPUINFO", tmp_path / "missing")
    assert info._name_in_cpuinfo() == ""
    assert info.cpu_name()
