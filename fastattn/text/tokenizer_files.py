"""The files of a Hugging Face tokenizer, read into one of the `tokenizers` library.

The vocabulary is that of tokenizer.json, or else that of files of its own. What is done with it, the class says if
transformers has it (`tokenizer_kinds`), or else tokenizer.json. In all cases tokens may be added by
tokenizer_config.json, or, in folders of old versions of transformers, by added_tokens.json and special_tokens_map.json.
The ids are those of transformers' `AutoTokenizer`.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastattn.checks import shown
from fastattn.files import read_regular
from fastattn.formats.hugging_face import MAX_VOCABULARY, read_json
from fastattn.hub import Files
from fastattn.text.library import import_tokenizers, library_errors
from fastattn.text.tokenizer_kinds import CONFIG, KINDS, MERGES, TOKENIZER, Kind, kind_of, named_kind, special_token

ADDED_TOKENS, SPECIAL_TOKENS = "added_tokens.json", "special_tokens_map.json"
VOCABULARIES = (TOKENIZER, *dict.fromkeys(kind.files[0] for kind in KINDS.values()))
"""The files of which a folder needs one."""
NAMES = (*VOCABULARIES, MERGES, CONFIG, ADDED_TOKENS, SPECIAL_TOKENS)
"""The files that a tokenizer is read from."""
FILES = Files(NAMES, (VOCABULARIES,), VOCABULARIES, organization="sentence-transformers")

_SPECIAL = KINDS["Bert"].special
_USUAL = {key: (name, f"<{name[1:-1].lower()}>") for key, name in _SPECIAL.items()} | {
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
}
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")
_Token = tuple[str, int | None, Any]
"""A token to add: the file that names it, its id if that is said, and the library's AddedToken."""


def read_tokenizer(folder: Path) -> tuple[Any, dict[str, Any]]:
    """A tokenizer of the library, and its tokenizer_config.json with what special_tokens_map.json adds.

    Raises FileNotFoundError and ValueError, by file, and ImportError without the library.
    """
    library = import_tokenizers()
    config = _read_config(folder)
    _, _, kind = named_kind(folder, config)
    if kind is not None and not kind.types:
        config.setdefault("model_input_names", ["input_ids", "attention_mask"])
    usual: list[_Token]
    whole: list[str]
    flags: Mapping[str, Mapping[str, bool]]
    if os.path.lexists(folder / TOKENIZER):  # what is there and no file is refused, not passed over
        usual, whole, flags = [], [], {}
        backend = _from_tokenizer_json(library, folder, config, kind)
    else:
        kind = kind_of(folder, config)
        flags = kind.flags
        backend, usual, whole = _from_vocabulary(library, folder, kind, config)
    numbered = [*_numbered(library, folder, config)]
    there = {token.content for _, _, token in numbered}  # they keep their flags
    there.update(token.content for token in backend.get_added_tokens_decoder().values())
    special = _special_tokens(library, folder, config, flags)
    _add_tokens(backend, numbered + [found for found in special if found[2].content not in there])
    _add_tokens(backend, usual)
    if whole:  # saved, so that transformers adds no others
        config["extra_special_tokens"] = whole
    backend.encode_special_tokens = config.get("split_special_tokens") is True
    return backend, config


def _from_vocabulary(
    library: Any, folder: Path, kind: Kind, config: Mapping[str, Any]
) -> tuple[Any, list[_Token], list[str]]:
    """A tokenizer of its vocabulary's own files, tokens of the vocabulary to add unless others say how, and those that
    the vocabulary itself wants added."""
    missing = [name for name in kind.files if not os.path.lexists(folder / name)]
    if missing:
        raise FileNotFoundError(f"{folder}: no {TOKENIZER}, nor {' with '.join(missing)}")
    source, special = str(folder / kind.files[0]), kind.tokens(config)
    backend, whole = kind.read(folder, special)
    kind.finish(backend, folder, config, special)
    flags = {special[key]: {"special": True, **kind.flags.get(key, {})} for key in reversed(special)}
    whole = {} if config.get("extra_special_tokens") else whole
    flags = {**whole, **flags}
    known = (token for token in flags if backend.token_to_id(token) is not None)
    return backend, [(source, None, _added_token(library, source, token, flags[token])) for token in known], [*whole]


def _read_config(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, changed by special_tokens_map.json as transformers does."""
    config = read_json(folder / CONFIG) if os.path.lexists(folder / CONFIG) else {}
    if not config.get("extra_special_tokens") and "additional_special_tokens" in config:
        config["extra_special_tokens"] = config.pop("additional_special_tokens")
    if "added_tokens_decoder" in config or not os.path.lexists(folder / SPECIAL_TOKENS):
        return config
    special = read_json(folder / SPECIAL_TOKENS)
    if isinstance(special.get("extra_special_tokens"), list):
        own = _list(f"{folder / CONFIG}: extra_special_tokens", config.get("extra_special_tokens"))
        known = {json.dumps(token, sort_keys=True) for token in own}
        more = [token for token in special["extra_special_tokens"] if json.dumps(token, sort_keys=True) not in known]
        special["extra_special_tokens"] = own + more
    return config | special


def _from_tokenizer_json(library: Any, folder: Path, config: Mapping[str, Any], kind: Kind | None) -> Any:
    """As in transformers 5, a class may take no more than the vocabulary and the added tokens from tokenizer.json."""
    path = folder / TOKENIZER
    data = read_regular(path, MAX_VOCABULARY)
    with library_errors(f"{path}: not a tokenizer that the tokenizers library reads"):
        backend = library.Tokenizer.from_buffer(data)
    if kind is not None and kind.fits(backend, special := kind.tokens(config)):
        kind.finish(backend, folder, config, special)
    return backend


def _add_tokens(backend: Any, tokens: list[_Token]) -> None:
    """Add tokens that the tokenizer lacks. The library numbers those that are not in its vocabulary itself.

    The tokens of a file are added at once: after each call the library looks at all of its tokens.

    Raises ValueError, by file, for a token that gets another id than the file says, or one that is taken.
    """
    new: dict[str, tuple[str, int | None]] = {}
    for source, number, token in tokens:
        if backend.token_to_id(token.content) is None:
            new.setdefault(token.content, (source, number))
    taken = {number: token for token, number in backend.get_vocab().items()} if new else {}
    for source, some in itertools.groupby(tokens, key=lambda token: token[0]):
        with library_errors(source):
            backend.add_tokens([token for _, _, token in some])
    for content, (source, number) in new.items():
        found, name = backend.token_to_id(content), shown(content)
        if number not in (None, found):
            raise ValueError(f"{source}: the added token {name} must have the next free id {found}, got {number}")
        if found in taken:
            raise ValueError(
                f"{source}: the id {found} for the added token {name} is that of {shown(taken[found])}; "
                "the ids of the vocabulary have a gap"
            )


def _numbered(library: Any, folder: Path, config: Mapping[str, Any]) -> Iterator[_Token]:
    """Those of `added_tokens_decoder`, or else of added_tokens.json, by their ids."""
    if "added_tokens_decoder" in config:
        source = f"{folder / CONFIG}: added_tokens_decoder"
        found = [(_number(source, i), value) for i, value in _object(source, config["added_tokens_decoder"]).items()]
        for number, value in sorted(found, key=lambda item: item[0]):
            yield source, number, _added_token(library, source, value, {})
    elif os.path.lexists(folder / ADDED_TOKENS):
        source = str(folder / ADDED_TOKENS)
        named = {special_token(value, "") for _, value in _special_values(folder, config)}
        numbers = [(_number(source, i), content) for content, i in read_json(folder / ADDED_TOKENS).items()]
        for number, content in sorted(numbers):
            yield source, number, _added_token(library, source, content, {"special": content in named})


def _special_tokens(
    library: Any, folder: Path, config: Mapping[str, Any], flags: Mapping[str, Mapping[str, bool]]
) -> Iterator[_Token]:
    """Those that have a name, and those in the lists. `flags` are those of a named one that has none of its own."""
    source = f"{folder / CONFIG} or {SPECIAL_TOKENS}"
    values = [*_special_values(folder, config)]
    if "extra_special_tokens" not in config:
        more = _list(f"{source}: additional_special_tokens", config.get("additional_special_tokens"))
        values += [("", value) for value in more]
    for key, value in values:
        if isinstance(value, dict):
            own = {name: flag for name, flag in value.items() if name != "special"}
            yield source, None, _added_token(library, source, own, {"special": True})
        else:
            yield source, None, _added_token(library, source, value, {"special": True, **flags.get(key, {})})


def _special_values(folder: Path, config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The special tokens that a config names, by the name: strings, or objects with a content."""
    source = f"{folder / CONFIG} or {SPECIAL_TOKENS}"
    others = [key for key in config if key.endswith("_token") and key not in _NAMED]
    named = [(key, config[key]) for key in (*_NAMED, *others) if special_token(config.get(key), "")]
    return named + [
        ("", token) for token in _list(f"{source}: extra_special_tokens", config.get("extra_special_tokens"))
    ]


def special_ids(backend: Any, config: Mapping[str, Any]) -> dict[str, int | None]:
    """The ids of a tokenizer's special tokens: those that the config names, or that have the usual names."""
    found = {}
    for key, usual in _USUAL.items():
        name = special_token(config.get(key), None)
        ids = [backend.token_to_id(token) for token in (usual if name is None else (name,))]
        found[f"{key}_id"] = next((i for i in ids if i is not None), None)
    return found


def _list(source: str, values: Any) -> list[Any]:
    if isinstance(values, dict):
        return [*values.values()]
    if not isinstance(values, list | None):
        raise ValueError(f"{source} must be a list of tokens, got {shown(values)}")
    return values or []


def _object(source: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict | None):
        raise ValueError(f"{source} must be an object, got {shown(value)}")
    return value or {}


def _number(source: str, value: Any) -> int:
    if type(value) is int and 0 <= value < 2**31:
        return value
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        return int(value)
    raise ValueError(f"{source}: the id of a token must be an integer, got {shown(value)}")


def _added_token(library: Any, source: str, value: Any, flags: Mapping[str, bool]) -> Any:
    """The library's token for a string, or for an object with `content` and flags, which come before `flags`."""
    content = special_token(value, "")
    if not content:
        raise ValueError(f"{source}: a token must be a string, or an object with a content, got {shown(value)}")
    if isinstance(value, dict):
        own = {name: value[name] for name in FLAGS if name in value}
        for name, flag in own.items():
            if not isinstance(flag, bool):
                raise ValueError(f"{source}: {name} of {shown(content)} must be true or false, got {shown(flag)}")
        flags = {**flags, **own}
    with library_errors(f"{source}: a token that the tokenizers library cannot have"):
        return library.AddedToken(content, **flags)


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config in which special tokens are strings, as every version of transformers reads it."""
    values = {}
    for key, value in config.items():
        tokens = [special_token(one, one) for one in (value if isinstance(value, list) else [value])]
        values[key] = tokens if isinstance(value, list) else tokens[0]
    return values
