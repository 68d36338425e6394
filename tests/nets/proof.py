"""Whether the nets catch what they are for: `python tests/nets/proof.py` plants faults in a copy of csrc/.

One at a time, each is built into the net that should find it, and the net must report it; without a fault, it must not.
Prints a table. Needs what sanitizers.py needs. The copy and what is built stay in build/proof.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from sanitizers import PYTEST, ROOT, SAMPLE, build, missing, run


@dataclass(frozen=True)
class Fault:
    what: str
    file: str
    text: str
    """What the file has there, once."""
    replacement: str
    report: str
    """What the net says."""


def properties(kernel: str) -> list[str]:
    return [*PYTEST, "tests/kernels/test_properties.py", "-k", f"[{kernel}]"]


LEAKS, STORM = ["tests/nets/leaks.py"], ["tests/nets/storm.py", "1"]
# The sanitizer, the command, and the faults that it should find.
NETS: list[tuple[str, list[str], list[Fault]]] = [
    ("address", LEAKS, [
        Fault("leak: packed weights are never freed", "packing.cpp", "std::free(p);", "(void)p;", "then "),
        Fault("leak: a reference too many of each result", "bindings/arrays.cpp", "return std::move(fresh);",
              "return fresh.inc_ref(), std::move(fresh);", "then "),
    ]),
    ("address", properties("softmax"), [
        Fault("overflow: a read of one float past a row", "kernels/softmax.cpp",
              "row_max(args.dim, [&]", "row_max(args.dim + 1, [&]", "AddressSanitizer: heap-buffer-overflow"),
    ]),
    ("address", properties("scatter_rows"), [
        Fault("overflow: a write of one float past a row", "kernels/scatter_rows.cpp",
              "static_cast<std::size_t>(args.dim) *", "static_cast<std::size_t>(args.dim + 1) *",
              "AddressSanitizer: heap-buffer-overflow"),
    ]),
    ("address", properties("pooling"), [
        Fault("use after free: offsets that do not live as long as the call", "bindings/pooling.cpp",
              "    return offsets;", "    return {};", "AddressSanitizer: heap-use-after-free"),
    ]),
    ("address", properties("rotary_embedding"), [
        Fault("undefined behaviour: a sum of 64-bit integers overflows", "bindings/rotary_embedding.cpp",
              "args.parts = x.shape[1];", "args.parts = x.shape[1] * INT64_MAX / INT64_MAX;",
              "signed integer overflow"),
    ]),
    ("thread", STORM, [
        Fault("race: a piece is claimed with a relaxed exchange", "pieces.h", "word - 1, std::memory_order_acquire",
              "word - 1, std::memory_order_relaxed", "ThreadSanitizer: data race"),
    ]),
    ("address", properties("gradient_norm"), [
        Fault("dropped tail: the last count % width elements of a sum", "kernels/gradient_norm.cpp",
              "j < count - i;", "j < 0;", "test_values[gradient_norm]"),
    ]),
    ("address", properties("sgd"), [
        Fault("dropped tail: the last count % width elements stay as they were", "kernels/sgd.cpp",
              "for_vectors(end - begin,", "for_vectors((end - begin) / W * W,", "test_values[sgd]"),
    ]),
]  # fmt: skip


def planted(source: Path, fault: Fault) -> str:
    """Plants it; returns what the file was."""
    path = source / "csrc" / fault.file
    text = path.read_text(encoding="utf-8")
    if text.count(fault.text) != 1:
        sys.exit(
            f"{fault.file} has {text.count(fault.text)} times {fault.text!r}, not once: plant this fault elsewhere"
        )
    path.write_text(text.replace(fault.text, fault.replacement), encoding="utf-8")
    return text


def copy(source: Path) -> None:
    """Of csrc/ and what builds it. A file that is the same stays as old as it is."""
    for path in [ROOT / "CMakeLists.txt", *ROOT.glob("cmake/*"), *ROOT.glob("csrc/**/*.*")]:
        target = source / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_bytes() != path.read_bytes():
            shutil.copyfile(path, target)


def reports(sanitizer: str, folder: Path, command: list[str]) -> tuple[bool, str]:
    """Whether the command failed with this build, and what it said."""
    package = build(sanitizer, SAMPLE, folder / sanitizer, folder / "source")
    done = run(sanitizer, package, command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode != 0, done.stdout


def main() -> None:
    for sanitizer in ("address", "thread"):
        if reason := missing(sanitizer):
            sys.exit(f"{sanitizer}: {reason}")
    missed = 0
    folder = ROOT / "build" / "proof"
    source = folder / "source"
    copy(source)
    for sanitizer, command, faults in NETS:
        failed, said = reports(sanitizer, folder, command)
        if failed:
            sys.exit(f"{sanitizer}: {' '.join(command)} fails without a fault:\n{said}")
        for fault in faults:
            begin = time.monotonic()
            before = planted(source, fault)
            failed, said = reports(sanitizer, folder, command)
            found = failed and fault.report in said
            missed += not found
            net = f"{sanitizer}: {Path(command[-3 if '-k' in command else 0]).name}"
            print(
                f"{'found ' if found else 'MISSED'} {fault.what:75} {net:30} {time.monotonic() - begin:4.0f} s",
                flush=True,
            )
            if not found:
                print(said[-3000:])
            (source / "csrc" / fault.file).write_text(before, encoding="utf-8")
    sys.exit(f"{missed} faults were missed" if missed else 0)


if __name__ == "__main__":
    main()
