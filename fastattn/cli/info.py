"""Show what a model is, what it can do here, and why not. Its code is never run, and no weights are loaded.

Without a model: show what fastattn runs on, that is CPU, instruction set and threads with the reasons, and versions.
FASTATTN_ISA and FASTATTN_NUM_THREADS set instruction set and threads. With --selftest: check this machine, and end
with status 1 if a check fails.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

from fastattn.checks import printable

SUMMARY = "show what a model is and can do; without one, CPU, instruction set, threads and versions"
CPUINFO = Path("/proc/cpuinfo")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", help="a folder, an installed model package, or a Hugging Face model name")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--selftest", action="store_true", help="compare every kernel here with plain NumPy, and more")


def run(arguments: argparse.Namespace) -> int:
    if arguments.selftest:
        return selftest(arguments)
    if arguments.model is None:
        facts, text = collect(), render
    else:
        from fastattn.tasks import description

        facts, text = description.describe(arguments.model), description.render
    print(json.dumps(facts, indent=2) if arguments.json else printable(text(facts)))
    return 0


def selftest(arguments: argparse.Namespace) -> int:
    """Check this machine, print a table, and return 1 if a check fails."""
    if arguments.model is not None:
        arguments.parser.error("--selftest checks this machine, and takes no model")
    from fastattn.cli import FAILED
    from fastattn.cli import selftest as machine

    checks = machine.run()
    text = json.dumps([vars(check) for check in checks], indent=2) if arguments.json else machine.render(checks)
    print(printable(text))
    return 0 if all(check.good for check in checks) else FAILED


def collect() -> dict[str, Any]:
    """All facts, in the order of the table, as values for JSON."""
    import numpy as np

    from fastattn import __version__, runtime

    return {
        "fastattn": __version__,
        "cpu": cpu_name(),
        "isa": runtime.isa(),
        "isa_reason": runtime.isa_reason(),
        "dot_product": runtime.dot_product(),
        "available_isas": list(runtime.available_isas()),
        "threads": runtime.num_threads(),
        "threads_reason": runtime.threads_reason(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "build": dict(runtime.build_info()),
    }


def render(facts: dict[str, Any]) -> str:
    """The facts as a table."""
    build = facts["build"]
    openmp = "with OpenMP" if build["openmp"] else "without OpenMP"
    rows = [
        ("CPU", facts["cpu"]),
        ("ISA", f"{facts['isa']}: {facts['isa_reason']}"),
        ("", f"products of bytes: {facts['dot_product'] or 'without an instruction of their own'}"),
        ("", f"can be used: {', '.join(facts['available_isas'])}"),
        ("", f"compiled in: {', '.join(build['isas'])}"),
        ("threads", f"{facts['threads']}: {facts['threads_reason']}"),
        ("fastattn", f"{facts['fastattn']}, {build['compiler']}, {openmp}"),
        ("Python", f"{facts['python']}, NumPy {facts['numpy']}"),
        ("platform", facts["platform"]),
    ]
    return "\n".join(f"{label:<8}  {value}" for label, value in rows)


def cpu_name() -> str:
    """The operating system's name of the CPU."""
    if platform.system() == "Darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return platform.processor() or platform.machine()
    return _name_in_cpuinfo() or platform.processor() or platform.machine()


def _name_in_cpuinfo() -> str:
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    fields: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    if fields.get("model name"):
        return fields["model name"]
    if "CPU part" in fields:  # aarch64 has only numbers
        return f"{platform.machine()} implementer {fields.get('CPU implementer', '?')} part {fields['CPU part']}"
    return ""
