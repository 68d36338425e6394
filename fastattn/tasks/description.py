"""What a folder is and what it can do here, read from its files without loading the model."""

from __future__ import annotations

import math
import os
import shlex
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fastattn import tasks
from fastattn.checks import listed
from fastattn.formats import hugging_face, quantization
from fastattn.hub import find_model
from fastattn.models import registry
from fastattn.models.config import architectures
from fastattn.tasks.base import Recipe
from fastattn.tasks.embed.folder import FILES, MODULES, read_sentence_folder
from fastattn.tasks.heads import check_encoder
from fastattn.text import Tokenizer
from fastattn.text.tokenizer_files import VOCABULARIES

Value = TypeVar("Value")

_SIZES = (
    ("layers", ("num_hidden_layers", "n_layers", "encoder_layers")),
    ("hidden", ("hidden_size", "dim", "d_model")),
    ("heads", ("num_attention_heads", "n_heads", "encoder_attention_heads")),
    ("vocabulary", ("vocab_size", "vocabulary_size")),
    ("positions", ("max_position_embeddings",)),
)
"""The sizes of a model, and the fields of a config that may hold them."""
_REMOTE = "auto_map names code that comes with the model; fastattn never runs it"
_LABELS, _WIDTH = 12, 109


def describe(name_or_folder: str | os.PathLike[str], **place: Any) -> dict[str, Any]:
    """What a folder is, as values for JSON; what does not apply is missing.

    Args:
        name_or_folder: a folder or a name, see `fastattn.hub.find_model`.
        place: `revision`, `token` and `local_files_only` of `find_model`.

    Returns `name`, `folder`, `model_type`, `architectures`, `sizes`, `weights` (`file`, `parameters`, `bytes`,
    `dtypes`), `tokenizer`, `modules` of a sentence encoder, `labels`; `can`, the commands that it is for; `can_train`,
    the tasks whose training can start from it; `problems`, why it cannot be used; `cannot`, why it is no model for
    other tasks of its family, by task; and `others`, the tasks of other families.

    Raises ModelNotFoundError and NotADirectoryError as `find_model`. What is wrong in the folder is among `problems`.
    """
    folder = find_model(name_or_folder, FILES._replace(more=None), **place)
    problems: list[str] = []
    facts: dict[str, Any] = {"name": os.fspath(name_or_folder), "folder": str(folder)}
    transformer = folder
    if os.path.lexists(folder / MODULES):
        described = _tried(problems, lambda: read_sentence_folder(folder))
        if described is not None:
            transformer = described.transformer
            facts["modules"] = [{"kind": kind, **options} for kind, _, options in described.modules]
            facts["sentences"] = described.options
    values = _tried(problems, lambda: hugging_face.read_config(transformer)) or {}
    facts["model_type"] = values.get("model_type", "bert") if values else None
    facts["architectures"] = _tried(problems, lambda: architectures(values, transformer / hugging_face.CONFIG)) or []
    family = _tried(problems, lambda: registry.family_of(transformer)) if values else None
    if "auto_map" in values and family is None:
        problems.append(f"{transformer / hugging_face.CONFIG}: {_REMOTE}")
    config = None
    if values:
        _tried(problems, lambda: quantization.read(values, str(transformer / hugging_face.CONFIG)))
    if family is not None:
        source = str(transformer / hugging_face.CONFIG)
        config = _tried(problems, lambda: family.config.from_dict(values, source))
    facts["sizes"] = _sizes(values if config is None else {**asdict(config), **_most_tokens(config)})
    weights = _tried(problems, lambda: _weights(transformer))
    if weights is not None:
        facts["weights"] = weights
        if family is not None and config is not None:
            problems += _misfits(transformer, family, facts["architectures"])
    if family is None or family.reads_tokens:
        tokenizer = _tried(problems, lambda: _tokenizer(transformer))
        if tokenizer is not None:
            facts["tokenizer"] = tokenizer
    labels = getattr(config, "id2label", None)
    if labels is not None and any("Classification" in name or "Tagger" in name for name in facts["architectures"]):
        facts["labels"] = list(labels.values())
    facts |= {"can": [], "can_train": [], "problems": problems, "cannot": {}, "others": []}
    if family is not None and config is not None:
        _find_uses(facts, folder, transformer, family)
    return facts


def _tried(problems: list[str], call: Callable[[], Value]) -> Value | None:
    """The result of a call, or None, with its error among the problems."""
    try:
        return call()
    except (OSError, ValueError, ImportError) as error:
        text = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            text = f"{error.filename}: {error.strerror}"  # as the commands say it
        if text not in problems:
            problems.append(text)
        return None


def _most_tokens(config: Any) -> dict[str, int]:
    """The positions for tokens, where the config counts others too."""
    return {"max_position_embeddings": config.max_tokens} if hasattr(config, "max_position_embeddings") else {}


def _sizes(values: Mapping[str, Any]) -> dict[str, int]:
    found = {}
    for size, names in _SIZES:
        numbers = [values[name] for name in names if type(values.get(name)) is int]
        if numbers:
            found[size] = numbers[0]
    return found


def _weights(folder: Path) -> dict[str, Any]:
    """The tensors of a folder, from their headers."""
    with hugging_face.read_state_dict(folder) as tensors:
        sizes = {name: math.prod(tensors.shape(name)) for name in tensors}
        dtypes: Counter[str] = Counter()
        for name, size in list(sizes.items()):
            dtype = tensors.dtype(name)
            if dtype.startswith(("F", "BF")) or dtype == quantization.DTYPES["int8"]:
                dtypes[dtype] += size
            else:
                del sizes[name]  # numbers of positions, which old folders have
        bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        return {
            "file": tensors.source.name,
            "parameters": sum(sizes.values()),
            "bytes": bytes,
            "dtypes": [name for name, _ in dtypes.most_common()],
        }


def _misfits(folder: Path, family: registry.Family, named: list[str]) -> list[str]:
    """Why the weights of an encoder do not fit its config, as the model that the config names says it."""
    encoder = family.encoder
    if encoder is None:
        return []
    reason = _refusal(partial(encoder.check_weights, **family.states_only), folder)
    if not reason:
        return []
    heads = [head for kind, head in family.heads.items() if any(name.endswith(f"For{kind}") for name in named)]
    return [next(filter(None, (_refusal(head.check_weights, folder) for head in heads)), reason)]


def _headless(task: Any, folder: Path, family: registry.Family) -> str:
    """Why the head that a task reads cannot be loaded, or an empty string."""
    kinds = [kind for kind in task.heads if kind in family.heads]
    if not kinds or family.encoder is None:
        return ""
    return _refusal(partial(family.heads[kinds[0]].check_weights, new_head="refuse"), folder)


def _tokenizer(folder: Path) -> dict[str, Any]:
    tokenizer = Tokenizer.from_pretrained(folder)
    return {
        "kind": tokenizer.kind,
        "file": next(name for name in VOCABULARIES if os.path.lexists(folder / name)),
        "tokens": tokenizer.vocab_size,
        "max_length": tokenizer.model_max_length,
        "special": {
            name: tokenizer.tokens([number])[0]
            for name in ("cls", "sep", "pad", "mask", "unk")
            if (number := getattr(tokenizer, f"{name}_token_id")) is not None
        },
    }


def _find_uses(facts: dict[str, Any], folder: Path, transformer: Path, family: registry.Family) -> None:
    """Fill `can`, `can_train`, `cannot` and `others`."""
    usable, encodes = not facts["problems"], family.encoder is not None
    trains = quantization.DTYPES["int8"] not in facts["weights"]["dtypes"] if usable else False
    if usable and encodes and not _refusal(check_encoder, folder):
        facts["can"].append("embed")
    for name, (task_name, usage_name) in tasks.TASKS.items():
        task, usage = getattr(tasks, task_name), getattr(tasks, usage_name)
        fits = family.reads_tokens if name == "embed" else bool(set(task.heads) & set(family.heads))
        fits = fits and (family.encoder is not None or getattr(task, "reads_words", True))
        if usable and fits and trains and issubclass(usage, Recipe):
            facts["can_train"].append(name)
        if usage.predicting is None:
            continue
        reason = _refusal(task.check_predicting, folder)
        if not reason and usable and fits:
            reason = _headless(task, transformer, family)
        reason = reason.removeprefix(f"{folder}: ").removeprefix(f"{transformer}: ")
        if reason and fits:
            facts["cannot"][name] = reason
        elif reason:
            facts["others"].append(name)
        elif usable:
            facts["can"].append(f"predict {name}")


def _refusal(check: Callable[[Path], None], folder: Path) -> str:
    """Why a folder is refused, or an empty string."""
    reasons: list[str] = []
    _tried(reasons, lambda: check(folder))
    return reasons[0] if reasons else ""


def render(facts: Mapping[str, Any]) -> str:
    """The facts on one screen."""
    rows: list[tuple[str, str]] = [("folder", facts["folder"])]
    named = listed(facts["architectures"]) if facts["architectures"] else "no architecture named"
    if facts["model_type"] is not None:
        rows.append(("model", f"{facts['model_type']}, {named}"))
    if facts["sizes"]:
        rows.append(("sizes", ", ".join(f"{name} {size:,}" for name, size in facts["sizes"].items())))
    if weights := facts.get("weights"):
        size = f"{weights['parameters']:,} parameters, {weights['bytes'] / 1e6:,.1f} MB"
        rows.append(("weights", f"{weights['file']}: {size}, {' and '.join(weights['dtypes'])}"))
    if tokenizer := facts.get("tokenizer"):
        limit = f", at most {tokenizer['max_length']:,}" if tokenizer["max_length"] else ""
        rows.append(("tokenizer", f"{tokenizer['file']}: {tokenizer['kind']}, {tokenizer['tokens']:,} tokens{limit}"))
        rows.append(("", ", ".join(f"{name} {token}" for name, token in tokenizer["special"].items())))
    if modules := facts.get("modules"):
        rows.append(("sentences", ", ".join(map(_module, modules))))
        rows += [("", text) for text in _sentences(facts["sentences"])]
    if labels := facts.get("labels"):
        more = f" and {len(labels) - _LABELS} more" if len(labels) > _LABELS else ""
        rows.append(("labels", f"{len(labels)}: {', '.join(map(str, labels[:_LABELS]))}{more}"))
    rows += _column("problem", [_short(text, facts) for text in facts["problems"]])
    uses = [f"fastattn {command} --model {shlex.quote(facts['name'])}" for command in facts["can"]]
    if facts["can_train"]:
        uses.append(f"begin the training of: {', '.join(facts['can_train'])}")
    rows += _column("can", uses or ["nothing"])
    if not facts["problems"]:
        reasons = [f"predict {name}: {_short(reason, facts)}" for name, reason in facts["cannot"].items()]
        if facts["others"]:
            reasons.append(f"predict {', '.join(facts['others'])}: for models of other families")
        rows += _column("cannot", reasons)
    lines = []
    for label, text in rows:
        wrapped = textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False) or [""]
        lines += [f"{label if i == 0 else '':<9}  {line}" for i, line in enumerate(wrapped)]
    return "\n".join(lines)


def _short(text: str, facts: Mapping[str, Any]) -> str:
    """A message without the folder before its files."""
    return text.replace(f"{facts['folder']}/", "")


def _column(label: str, texts: list[str]) -> list[tuple[str, str]]:
    return [(label if i == 0 else "", text) for i, text in enumerate(texts)]


def _module(module: Mapping[str, Any]) -> str:
    kind = str(module["kind"])
    if kind == "Transformer":
        limit = module.get("max_seq_length")
        return f"Transformer of {limit} tokens" if limit else kind
    if kind == "Pooling":
        return f"{' and '.join(module.get('pooling_mode', ['mean']))} pooling"
    if kind == "Dense":
        return f"Dense to {module['out_features']} ({module['activation_function']})"
    return kind


def _sentences(options: Mapping[str, Any]) -> list[str]:
    """The options of a sentence encoder."""
    found = [f"similarity {options['similarity_fn_name']}"] if "similarity_fn_name" in options else []
    prompts = {name: text for name, text in options.get("prompts", {}).items() if text}
    if prompts:
        found.append("prompts " + listed([f"{name} {text!r}" for name, text in prompts.items()]))
    if options.get("truncate_dim"):
        found.append(f"the first {options['truncate_dim']} dimensions")
    return [", ".join(found)] if found else []
