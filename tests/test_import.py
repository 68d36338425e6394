"""`import fastattn` is light: NumPy and the compiled core at most."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastattn
from fastattn.models import BertConfig, BertModel

HEAVY = [
    "argparse",
    "concurrent",
    "ctypes",
    "h5py",
    "http",
    "huggingface_hub",
    "json",
    "matplotlib",
    "multiprocessing",
    "safetensors",
    "scipy",
    "socket",
    "ssl",
    "subprocess",
    "tokenizers",
    "torch",
    "tqdm",
    "transformers",
    "unittest",
    "urllib",
]


def python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return run.stdout


def loaded_by(statement: str, before: str = "import numpy") -> set[str]:
    """The modules that a statement adds to those of `before`."""
    code = f"import sys; {before}; old = set(sys.modules); {statement}; print(*(set(sys.modules) - old))"
    return set(python(code).split())


def test_import_pulls_in_nothing_heavy() -> None:
    modules = loaded_by("import fastattn")
    top = {name.partition(".")[0] for name in modules}
    assert not top & set(HEAVY)
    ours = {name for name in modules if name.startswith("fastattn.")}
    assert not {name for name in ours if name.split(".")[1] in ("cli", "formats", "models", "tasks", "text", "nn")}
    assert len(modules) < 30, sorted(modules)


def test_runtime_needs_no_more() -> None:
    modules = loaded_by("import fastattn; fastattn.isa(); fastattn.num_threads(); fastattn.build_info()")
    assert not {name.partition(".")[0] for name in modules} & set(HEAVY)


def test_kernels_need_no_extra() -> None:
    modules = loaded_by("import fastattn.kernels, fastattn.reference, fastattn.functional, fastattn.ragged")
    assert not {name.partition(".")[0] for name in modules} & set(HEAVY)


def test_what_is_lazy_is_there() -> None:
    code = """
import fastattn
assert fastattn.__version__
for name in fastattn.__all__:
    assert name in dir(fastattn), name
    getattr(fastattn, name)
try:
    fastattn.no_such_name
except AttributeError as error:
    assert "no_such_name" in str(error)
else:
    raise AssertionError("no AttributeError")
"""
    python(code)


def test_tasks_load_what_is_used() -> None:
    tasks = loaded_by(
        "import fastattn.tasks.tag, fastattn.tasks.bilm, fastattn.tasks.pretrain, fastattn.tasks.translate"
    )
    assert not [name for name in tasks if name.split(".")[1:2] in (["models"], ["training"], ["text"], ["nn"])]
    recipe = loaded_by("from fastattn.tasks import BiLMRecipe, PretrainRecipe, TagRecipe, TranslateRecipe")
    assert not [name for name in recipe if name.split(".")[1:2] in (["models"], ["training"], ["text"], ["_core"])]
    encoder = loaded_by("from fastattn.tasks import SentenceEncoder")
    assert not [name for name in encoder if name.startswith("fastattn.training")]
    python("from fastattn import tasks; assert tasks.__all__ == dir(tasks); [getattr(tasks, n) for n in dir(tasks)]")


def test_a_first_embedding_loads_little(tmp_path: Path) -> None:
    """hashlib brings OpenSSL, importlib.metadata brings email, zipfile and csv, np.unique brings numpy.ma."""
    config = BertConfig(vocab_size=4200, hidden_size=256, num_hidden_layers=1, num_attention_heads=4)
    BertModel(config).save_pretrained(tmp_path)
    modules = loaded_by(
        "from fastattn.tasks.embed.encoder import SentenceEncoder; from fastattn.models.registry import load_encoder; "
        f"load_encoder({str(tmp_path)!r}).forward_ragged(np.arange(7), np.array([0, 7]))",
        "import numpy as np, typing, json, fastattn",  # an editable package brings importlib.util
    )
    avoided = {"base64", "fcntl", "hashlib", "heapq", "importlib.metadata", "importlib.util", "logging", "numpy.ma"}
    avoided |= {"shutil", "tempfile", "zipfile"}
    assert not modules & (avoided | set(HEAVY) - {"safetensors", "urllib"})  # pathlib brings urllib
    ours = {name for name in modules if name.startswith("fastattn.")}
    assert not {name for name in ours if name.startswith("fastattn.text.conll") or "squad" in name}
    assert not ours & {"fastattn.nn.recurrent", "fastattn.nn.char_cnn", "fastattn.formats.sentencepiece_model"}
    assert len(ours) < 105, sorted(ours)


@pytest.mark.parametrize(
    "code",
    [
        "import fastattn; fastattn.SentenceEncoder",
        "from fastattn.tasks import Classifier",
        "import fastattn.kernels",
        "from fastattn import runtime",
    ],
)
def test_a_source_that_is_not_compiled_says_so(tmp_path: Path, code: str) -> None:
    """Python finds it first where it is started in a checkout."""
    shutil.copytree(
        Path(fastattn.__file__).parent, tmp_path / "fastattn", ignore=shutil.ignore_patterns("_core*", "__pycache__")
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    run = subprocess.run(  # without the finder of an editable install
        [sys.executable, "-c", f"import sys; sys.meta_path[:] = sys.meta_path[-3:]; {code}"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert run.stderr.splitlines()[-1].startswith(
        f"ImportError: {tmp_path / 'fastattn'} is the source of fastattn, which is not compiled there; start Python in "
    )
