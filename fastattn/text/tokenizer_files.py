"""The files of a Hugging Face tokenizer, read into one of the `tokenizers` library.

tokenizer.json says everything itself. Without it, vocab.txt is BERT's WordPiece vocabulary, a token on each line. In
both cases tokens may be added by tokenizer_config.json, or, in folders of old versions of transformers, by
added_tokens.json and special_tokens_map.json. The ids are those of transformers' `AutoTokenizer`.
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
from fastattn.formats.hugging_face import CONFIG as MODEL_CONFIG
from fastattn.formats.hugging_face import MAX_VOCABULARY, read_json
from fastattn.hub import Files
from fastattn.text.library import import_tokenizers, library_errors

TOKENIZER, VOCABULARY, CONFIG = "tokenizer.json", "vocab.txt", "tokenizer_config.json"
ADDED_TOKENS, SPECIAL_TOKENS = "added_tokens.json", "special_tokens_map.json"
NAMES = (TOKENIZER, VOCABULARY, CONFIG, ADDED_TOKENS, SPECIAL_TOKENS)
"""The files that a tokenizer is read from."""
FILES = Files(NAMES, ((TOKENIZER, VOCABULARY),), (TOKENIZER, VOCABULARY), organization="sentence-transformers")

_BERTS = ("Bert", "DistilBert", "Electra", "MobileBert", "ConvBert", "SqueezeBert")
_CLASSES = tuple(f"{name}Tokenizer" for name in _BERTS)
"""The classes of transformers that read a vocab.txt as BERT does."""
_SPECIAL = {
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "mask_token": "[MASK]",
}
_USUAL = {key: (name, f"<{name[1:-1].lower()}>") for key, name in _SPECIAL.items()} | {
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
}
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")
_Token = tuple[str, int | None, Any]
"""A token to add: the file that names it, its id if that is said, and the library's AddedToken."""
_NORMALIZER_OPTIONS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}


def read_tokenizer(folder: Path) -> tuple[Any, dict[str, Any]]:
    """A tokenizer of the library, and its tokenizer_config.json with what special_tokens_map.json adds.

    Raises FileNotFoundError and ValueError, by file, and ImportError without the library.
    """
    library = import_tokenizers()
    config = _read_config(folder)
    if os.path.lexists(folder / TOKENIZER):  # what is there and no file is refused, not passed over
        backend = _from_tokenizer_json(library, folder / TOKENIZER, config)
    elif os.path.lexists(folder / VOCABULARY):
        _check_class(folder, config)
        backend = _from_vocabulary(library, folder / VOCABULARY, config)
    else:
        raise FileNotFoundError(f"{folder}: no {TOKENIZER} and no {VOCABULARY}")
    numbered = [*_numbered(library, folder, config)]
    there = {token.content for _, _, token in numbered}  # they keep their flags
    special = [found for found in _special_tokens(library, folder, config) if found[2].content not in there]
    _add_tokens(backend, numbered + special)
    if not os.path.lexists(folder / TOKENIZER):
        usual = (special_token(config.get(key), default) for key, default in _SPECIAL.items())
        backend.add_special_tokens([token for token in usual if backend.token_to_id(token) is not None])
    backend.encode_special_tokens = config.get("split_special_tokens") is True
    return backend, config


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


def _from_tokenizer_json(library: Any, path: Path, config: Mapping[str, Any]) -> Any:
    data = read_regular(path, MAX_VOCABULARY)
    with library_errors(f"{path}: not a tokenizer that the tokenizers library reads"):
        backend = library.Tokenizer.from_buffer(data)
    normalizer = backend.normalizer
    if isinstance(normalizer, library.normalizers.BertNormalizer):
        for key, attribute in _NORMALIZER_OPTIONS.items():
            if isinstance(config.get(key), bool):
                setattr(normalizer, attribute, config[key])
        backend.normalizer = normalizer
    return backend


def _check_class(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise ValueError for a class whose vocab.txt is no vocabulary of BERT's WordPiece."""
    path, kind = folder / CONFIG, config.get("tokenizer_class")
    if "auto_map" in config:
        raise ValueError(f"{path}: auto_map names code of its own, which fastattn does not run; save a {TOKENIZER}")
    if kind is None and (folder / MODEL_CONFIG).is_file():
        path = folder / MODEL_CONFIG
        kind = read_json(path).get("tokenizer_class")
    if kind is not None and str(kind).removesuffix("Fast") not in _CLASSES:
        raise ValueError(
            f"{path}: the tokenizer_class {shown(kind)} is not read from {VOCABULARY}, only {', '.join(_CLASSES)}; "
            f"a {TOKENIZER} is read, whatever its class"
        )


def _from_vocabulary(library: Any, path: Path, config: Mapping[str, Any]) -> Any:
    """BERT's own WordPiece tokenizer; a line of vocab.txt is a token, its number the id."""
    try:
        read_regular(path, MAX_VOCABULARY).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8: {error}") from None
    special = {key: special_token(config.get(key), default) for key, default in _SPECIAL.items()}
    with library_errors(f"{path}: not a vocabulary that the tokenizers library reads"):
        vocabulary = library.models.WordPiece.read_file(str(path))
        backend = library.Tokenizer(library.models.WordPiece(vocabulary, unk_token=special["unk_token"]))
    for key in ("unk_token", "cls_token", "sep_token"):
        if special[key] not in vocabulary:
            raise ValueError(f"{path}: the {key} {shown(special[key])} is not in the vocabulary")
    cls, sep = special["cls_token"], special["sep_token"]
    with library_errors(f"{path.parent / CONFIG}: not options of a BertTokenizer"):
        backend.normalizer = library.normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=config.get("tokenize_chinese_chars", True),
            strip_accents=config.get("strip_accents"),
            lowercase=config.get("do_lower_case", True),
        )
        backend.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
        backend.post_processor = library.processors.TemplateProcessing(
            single=f"{cls}:0 $A:0 {sep}:0",
            pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
            special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
        )
    backend.decoder = library.decoders.WordPiece(prefix="##")
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
        named = {special_token(value, "") for value in _special_values(folder, config)}
        numbers = [(_number(source, i), content) for content, i in read_json(folder / ADDED_TOKENS).items()]
        for number, content in sorted(numbers):
            yield source, number, _added_token(library, source, content, {"special": content in named})


def _special_tokens(library: Any, folder: Path, config: Mapping[str, Any]) -> Iterator[_Token]:
    """Those that have a name, and those in the lists."""
    source = f"{folder / CONFIG} or {SPECIAL_TOKENS}"
    values = [*_special_values(folder, config)]
    if "extra_special_tokens" not in config:
        values += _list(f"{source}: additional_special_tokens", config.get("additional_special_tokens"))
    for value in values:
        own = {name: flag for name, flag in value.items() if name != "special"} if isinstance(value, dict) else value
        yield source, None, _added_token(library, source, own, {"special": True})


def _special_values(folder: Path, config: Mapping[str, Any]) -> list[Any]:
    """The special tokens that a config names: strings, or objects with a content."""
    source = f"{folder / CONFIG} or {SPECIAL_TOKENS}"
    others = [key for key in config if key.endswith("_token") and key not in _NAMED]
    named = [config.get(key) for key in (*_NAMED, *others)]
    extra = _list(f"{source}: extra_special_tokens", config.get("extra_special_tokens"))
    return [value for value in named if special_token(value, "")] + extra


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


def special_token(value: Any, default: Any) -> Any:
    """A token of tokenizer_config.json: a string, or an object that holds one."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else default
