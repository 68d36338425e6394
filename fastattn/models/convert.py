"""Checkpoints of other libraries become folders that `from_pretrained` reads: safetensors with a config.json.

TensorFlow's checkpoints have a family's own names (its `tensorflow`). A pytorch_model.bin has the names of the folder
already. Translation models of Marian and CTranslate2 have readers in `fastattn.models.transformer`. All are read by
this library alone, and nothing in them is executed. A folder may get weights of fewer bits.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import checks
from fastattn.checks import listed, shown
from fastattn.files import making, open_regular, read_regular, utf8_lines
from fastattn.formats import hugging_face, tensorflow_bundle, torch_pickle
from fastattn.formats.hugging_face import MAX_VOCABULARY, check_finite, read_config, read_json, write_checkpoint
from fastattn.formats.stored import Tensors
from fastattn.models.base import PreTrainedModel
from fastattn.models.config import architectures
from fastattn.models.registry import FAMILIES, Family, TensorFlowNames, family, family_of
from fastattn.progress import progress_bar
from fastattn.text import marian_tokenizer, tokenizer_files

__all__ = ["Converted", "convert_checkpoint"]

_SAFETENSORS = (hugging_face.WEIGHTS, hugging_face.WEIGHTS_INDEX)
_PICKLES = (torch_pickle.WEIGHTS, torch_pickle.WEIGHTS_INDEX)
_WEIGHTS = (".bin", ".ckpt", ".gguf", ".h5", ".index", ".meta", ".msgpack", ".onnx", ".ot", ".pt", ".pth", ".tflite")
_TOKENIZERS = (*tokenizer_files.VOCABULARIES, marian_tokenizer.SOURCE)
_SHARD = re.compile(r".*\.data-\d{5}-of-\d{5}")


@dataclass(frozen=True)
class Converted:
    """What a conversion did.

    Attributes:
        source: what was read: an index of TensorFlow, files of torch.save, or a model of Marian or CTranslate2.
        model: the class that reads the folder, or None for a model that fastattn does not have.
        tensors: how many tensors were written.
        skipped: the names of the tensors and files that were not.
        do_lower_case: whether the tokenizer lowers case, if its tokenizer_config.json was written.
        tokenizer: whether the folder has a tokenizer, which the source may lack.
    """

    source: Path
    model: type[PreTrainedModel] | None
    tensors: int
    skipped: tuple[str, ...]
    do_lower_case: bool | None = None
    tokenizer: bool = True


def convert_checkpoint(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    do_lower_case: bool | None = None,
    weights: str = "float32",
    overwrite: bool = False,
    show_progress: bool | None = False,
) -> Converted:
    """Convert a checkpoint to a folder of safetensors, as a whole or not at all.

    The new folder is loaded once before it gets its name, so it fits its config.json. Numbers become float32; integers,
    such as the step of the training, are skipped, and so are further names of a shared tensor.

    Args:
        source: a folder with a `bert_config.json` and a checkpoint of TensorFlow, or the path that the files of the
            checkpoint begin with (`bert_model.ckpt`); or a folder with a `pytorch_model.bin`, or with its shards and
            `pytorch_model.bin.index.json`. In a folder of sentence-transformers, its modules are converted too.
            Or a translation model: a folder of Marian with a `decoder.yml`, or its .npz file; a folder of CTranslate2
            with a `model.bin`, or this file.
        folder: the folder to write. Tokenizers and other small files are copied.
        do_lower_case: whether the tokenizer of a TensorFlow checkpoint lowers case. None says no if `vocab.txt` has
            pieces with capital letters.
        weights: "bfloat16" or "int8" writes the matrices of linear layers in fewer bits, see
            `fastattn.nn.Module.freeze`. The source may then be a folder of safetensors, too.
        overwrite: replace `folder`, with all that is in it, if it is a model's folder.
        show_progress: whether to show a bar; None shows one on a terminal.

    Raises FileNotFoundError for a source without a checkpoint, and ValueError for a checkpoint that is damaged, cut
    short, of another model or runs code, for a source in safetensors, and for a `folder` that exists. The message names
    the file.

    >>> convert_checkpoint("uncased_L-12_H-768_A-12", "bert-base-uncased").model           # doctest: +SKIP
    <class 'fastattn.models.bert.pretraining.BertForPreTraining'>
    """
    source, folder = Path(source), Path(folder)
    checks.weights("convert_checkpoint: weights", weights)
    _check_target(source, folder, overwrite)
    prefix = _find_tensorflow(source)
    opener = None if prefix else _find_foreign(source)
    reduces = weights != "float32"
    root, pickled = (source, []) if prefix or opener else _find_pickles(source, or_safetensors=reduces)
    if do_lower_case is not None and not prefix:
        raise ValueError(f"{source}: do_lower_case is for a checkpoint of TensorFlow; this one has a tokenizer's files")
    with making(folder) as new:
        if prefix:
            done = _convert_tensorflow(prefix, new, do_lower_case, show_progress)
        elif opener:
            done = _convert_foreign(source, opener, new, show_progress)
        else:
            done = _convert_pickles(root, pickled, new, show_progress)
        if reduces:
            model, tensors = _reduce(new, source, weights)
            done = replace(done, model=done.model or model, tensors=tensors)
        return done if opener else replace(done, tokenizer=_has_tokenizer(new))


def _reduce(new: Path, source: Path, weights: str) -> tuple[type[PreTrainedModel] | None, int]:
    """Write the models of a new folder again, with weights of fewer bits. Returns the class of the last one and the
    number of tensors. Raises ValueError, naming the source, for a folder without a model that fastattn has."""
    found, count = None, 0
    for folder in [new, *sorted(path for path in new.iterdir() if path.is_dir())]:
        if not _has(folder, _SAFETENSORS):
            continue
        model = _model_of(folder, config := read_config(folder)) if (folder / hugging_face.CONFIG).is_file() else None
        if model is not None:
            found = model
            _load(model, folder, source, weights=weights).write_checkpoint(folder, config)
            for name in [path.name for path in folder.glob("model-*-of-*.safetensors")] + [_SAFETENSORS[1]]:
                (folder / name).unlink(missing_ok=True)
        with hugging_face.read_state_dict(folder) as tensors:
            count += len(tensors)
    if found is None:
        raise ValueError(f"{source}: no model that fastattn has, so its weights cannot become {weights}")
    return found, count


def _has_tokenizer(folder: Path) -> bool:
    """Whether the folder of a model, or one in it, has a file of a tokenizer."""
    return any(path.name in _TOKENIZERS for path in folder.rglob("*"))


def _find_tensorflow(source: Path) -> Path | None:
    """The path that the files of a TensorFlow checkpoint begin with. Raises ValueError for a folder of several."""
    end = tensorflow_bundle.INDEX
    for prefix in (str(source).removesuffix(end), str(source)):
        if os.path.isfile(f"{prefix}{end}"):
            return Path(prefix)
    if not source.is_dir() or any((source / name).is_file() for name in (*_PICKLES, *_SAFETENSORS)):
        return None
    found = sorted(path for path in source.iterdir() if path.name.endswith(end) and path.is_file())
    if len(found) > 1:
        names = listed([path.name.removesuffix(end) for path in found])
        raise ValueError(f"{source}: several checkpoints; give the path of one of {names}")
    return found[0].with_name(found[0].name.removesuffix(end)) if found else None


def _find_pickles(source: Path, or_safetensors: bool = False) -> tuple[Path, list[Path]]:
    """A model's folder, and where files of torch.save are: there, and in the folders in it. There need be none if there
    are safetensors, and these are enough."""
    root = source.parent if source.name in _PICKLES and source.is_file() else source
    if not root.is_dir():
        raise FileNotFoundError(f"{source}: no such folder, and no {source.name}{tensorflow_bundle.INDEX}")
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))]
    pickled = [folder for folder in folders if _has(folder, _PICKLES) and not _has(folder, _SAFETENSORS)]
    if not pickled and any(_has(folder, _SAFETENSORS) for folder in folders):
        if or_safetensors:
            return root, []
        raise ValueError(f"{source}: the weights are safetensors already; there is nothing to convert")
    if not pickled:
        raise FileNotFoundError(
            f"{source}: no {torch_pickle.WEIGHTS}, and no checkpoint of TensorFlow (a file *{tensorflow_bundle.INDEX})"
        )
    return root, pickled


def _has(folder: Path, names: tuple[str, ...]) -> bool:
    return any((folder / name).is_file() for name in names)


def _check_target(source: Path, folder: Path, overwrite: bool) -> None:
    if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not overwrite:
        raise ValueError(f"{folder}: exists; give another name, or overwrite it with --overwrite (overwrite=True)")
    if not (folder / hugging_face.CONFIG).is_file():
        raise ValueError(f"{folder}: is no model's folder (it has no {hugging_face.CONFIG}), and is not overwritten")
    if Path(os.path.realpath(source)).is_relative_to(os.path.realpath(folder)):
        raise ValueError(f"{folder}: has the checkpoint in it, and is not overwritten")


# Translation models of other programs.


def _find_foreign(source: Path) -> Any:
    """What opens a model of Marian or CTranslate2. A folder that also has files of torch or safetensors is theirs."""
    from fastattn.models.transformer.ctranslate2 import find_ctranslate2, open_ctranslate2
    from fastattn.models.transformer.marian_npz import find_marian, open_marian

    if source.is_dir() and _has(source, (*_PICKLES, *_SAFETENSORS)):
        return None
    return open_marian if find_marian(source) else open_ctranslate2 if find_ctranslate2(source) else None


def _convert_foreign(source: Path, opener: Any, new: Path, show: bool | None) -> Converted:
    from fastattn.models.transformer.foreign import write_foreign
    from fastattn.models.transformer.model import Transformer

    with opener(source) as model:
        count, skipped = write_foreign(new, model, show)
        path = model.source
    _load(Transformer, new, path)
    return Converted(path, Transformer, count, tuple(skipped), tokenizer=(new / marian_tokenizer.SOURCE).is_file())


# TensorFlow.


def _convert_tensorflow(prefix: Path, new: Path, do_lower_case: bool | None, show: bool | None) -> Converted:
    found, names = _family_of_tensorflow(prefix.parent)
    source = prefix.with_name(names.config)
    values = read_json(source)
    with tensorflow_bundle.read_tensors(prefix) as variables:
        new_names, skipped = _rename(variables, names)
        heads = (kind for kind, needed in names.heads.items() if {*needed} <= {*new_names.values()})
        kind = next(heads, None)
        model = found.encoder if kind is None else found.head(kind)
        if model is None:
            raise ValueError(f"{prefix}: {found.config.__name__} has no encoder to use alone")
        labels = [variables.shape(old)[0] for old, name in new_names.items() if name in names.labels]
        config = found.config.from_dict(values, str(source), **({"num_labels": labels[0]} if labels else {}))
        tensors = {
            model._current_name(new_names[old]): array.T if old.endswith("/kernel") else array
            for old, array in _read(variables, [*new_names], show)
        }
        write_checkpoint(new, config.to_dict(model.__name__), tensors)
        count = len(tensors)
        del tensors
    lower = _write_tokenizer(prefix.parent, new, names, config, do_lower_case)
    _load(model, new, prefix)
    return Converted(variables.source, model, count, tuple(skipped), lower)


def _family_of_tensorflow(folder: Path) -> tuple[Family, TensorFlowNames]:
    """The family whose config is beside a checkpoint."""
    known = [(found, found.tensorflow) for found in map(family, FAMILIES) if found.tensorflow is not None]
    for found, names in known:
        if (folder / names.config).is_file():
            return found, names
    configs = " or ".join(names.config for _, names in known)
    raise FileNotFoundError(f"{folder / configs}: no such file; the checkpoint beside it needs its sizes")


def _rename(variables: Tensors, names: TensorFlowNames) -> tuple[dict[str, str], list[str]]:
    """The tensors of the variables that are known, and the names of the others.

    Raises ValueError for an unknown variable in a part that must be known as a whole; but what an optimizer keeps for a
    variable has the variable's name and another behind it.
    """
    renamed, skipped, unknown = {}, [], []
    for name in variables:
        new = _renamed(name, names)
        if new is not None:
            renamed[name] = new
            continue
        skipped.append(name)
        if name.startswith(names.whole) and _renamed(name.rpartition("/")[0], names) is None:
            unknown.append(f"variable {shown(name)} is not known")
    if unknown:
        raise ValueError(f"{variables.source}: {listed(unknown, '; ')}")
    if not renamed:
        raise ValueError(
            f"{variables.source}: none of its variables is known: {listed(skipped, most=3) or 'it is empty'}"
        )
    return renamed, skipped


def _renamed(name: str, names: TensorFlowNames) -> str | None:
    number = re.search(r"(?<=layer_)\d+(?=/)", name)
    if number is None:
        return names.names.get(name)
    new = names.names.get(f"{name[: number.start()]}{{}}{name[number.end() :]}")
    return None if new is None else new.replace("{}", number[0])


def _write_tokenizer(
    folder: Path, new: Path, names: TensorFlowNames, config: Any, do_lower_case: bool | None
) -> bool | None:
    """Copy a vocabulary and describe its tokenizer. Returns whether this lowers case; None without a vocabulary."""
    path = folder / names.vocabulary
    if not path.is_file():
        return None
    data = read_regular(path, MAX_VOCABULARY)
    words = [*utf8_lines(data.splitlines(keepends=True), str(path))]
    if len(words) > config.vocab_size:
        raise ValueError(f"{path}: {len(words)} words, but vocab_size is {config.vocab_size} in {names.config}")
    if do_lower_case is None:
        do_lower_case = not any(re.search("[A-Z]", word) for word in words if not word.startswith("["))
    (new / names.vocabulary).write_bytes(data)
    values = {**names.tokenizer, "do_lower_case": do_lower_case, "model_max_length": config.max_position_embeddings}
    (new / "tokenizer_config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return do_lower_case


# PyTorch.


def _convert_pickles(root: Path, pickled: list[Path], new: Path, show: bool | None) -> Converted:
    """Convert the folders `pickled`, which are `root` and some in it, and copy what else there is."""
    skipped: list[str] = []
    models: dict[Path, type[PreTrainedModel]] = {}
    count = 0
    for folder in pickled:
        config, target = _finite_config(folder), new / folder.relative_to(root)
        if model := _model_of(folder, config):
            models[folder] = model
        with torch_pickle.read_folder(folder) as tensors:
            names = [name for name in tensors if "float" in tensors.dtype(name)]
            skipped += [name for name in tensors if "float" not in tensors.dtype(name)]
            arrays = {_current(name, model): array for name, array in _read(tensors, names, show)}
        if len(arrays) < len(names):
            raise ValueError(f"{tensors.source}: has a tensor under its old name and under the current one")
        write_checkpoint(target, config, arrays)
        count += len(arrays)
        del arrays
    for path in _others(root):
        if path.name.startswith("pytorch_model"):
            continue
        if path.name.endswith(_WEIGHTS) or _SHARD.fullmatch(path.name):
            skipped.append(str(path.relative_to(root)))
        elif not (copy := new / path.relative_to(root)).exists():
            copy.parent.mkdir(exist_ok=True)
            with open_regular(path) as data, copy.open("wb") as file:
                shutil.copyfileobj(data, file, 1 << 20)
    for folder, model in models.items():
        target = new / folder.relative_to(root)
        tied = _drop_tied(_load(model, target, folder), target)
        count -= len(tied)
        skipped += tied
    return Converted(root, next(iter(models.values()), None), count, tuple(skipped))


def _finite_config(folder: Path) -> dict[str, Any]:
    """The config.json of a folder. Raises ValueError, naming it, for numbers that JSON does not have, such as 1e999."""
    values = read_config(folder)
    try:
        json.dumps(values, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{folder / hugging_face.CONFIG}: {error}") from None
    return values


def _drop_tied(model: PreTrainedModel, folder: Path) -> list[str]:
    """Keep a parameter that has several names under its first one alone. Returns the names that are dropped.

    torch.save writes the names and the numbers once, safetensors would have the numbers twice.
    """
    first: dict[int, str] = {}
    extra = {name: first[id(p)] for name, p in model._names() if first.setdefault(id(p), name) != name}
    with hugging_face.read_state_dict(folder) as tensors:
        there = {model._current_name(name): name for name in tensors}
        tied = [there[name] for name, other in extra.items() if name in there and other in there]
        if tied:
            kept = {name: tensors[name] for name in tensors if name not in tied}
            write_checkpoint(folder, read_config(folder), kept)
    return tied


def _others(root: Path) -> Iterator[Path]:
    """The files of a folder and of the folders in it, without hidden ones."""
    for path in sorted(root.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from (inner for inner in sorted(path.iterdir()) if inner.name[0] != "." and not inner.is_dir())
        else:
            yield path


def _model_of(folder: Path, config: Mapping[str, Any]) -> type[PreTrainedModel] | None:
    """The class for a folder, by the `architectures` of its config.json. Without a known head it is the encoder, or the
    only class of a family."""
    if "model_type" not in config and not config.get("architectures"):
        return None
    try:
        found = family_of(folder)
    except ValueError:
        return None
    for name in architectures(config, folder / hugging_face.CONFIG):
        kind = name.partition("For")[2]
        if kind in found.heads:
            return found.heads[kind]
    only = [*found.heads.values()] if found.encoder is None else [found.encoder]
    return only[0] if len(only) == 1 else None


def _current(name: str, model: type[PreTrainedModel] | None) -> str:
    """A name without the ends that old checkpoints have."""
    for old, new in (model.old_endings if model else {}).items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


# Both.


def _read(tensors: Tensors, names: list[str], show: bool | None) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Tensors in float32, which are finite."""
    with progress_bar(len(names), show=show, unit="tensor") as advance:
        for name in names:
            with np.errstate(over="ignore"):  # what overflows is not finite
                array = tensors[name].astype(np.float32, copy=False)
            check_finite(tensors.source, name, array)
            yield name, array
            advance()


def _load(model: type[PreTrainedModel], folder: Path, source: Path, weights: str | None = None) -> PreTrainedModel:
    """Load a new folder. Raises ValueError, naming the source in the place of the folder, if it does not fit."""
    try:
        return model.from_pretrained(folder, new_head="refuse", weights=weights)
    except ValueError as error:
        text = str(error)
        for name in _SAFETENSORS:
            text = text.replace(str(folder / name), str(source))
        raise ValueError(text.replace(str(folder), str(source))) from None
