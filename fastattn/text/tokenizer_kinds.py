"""What each class of tokenizers does, as transformers 5 builds it: with its vocabulary's own files or a tokenizer.json.

    kind = kind_of(folder, config)
    backend, whole = kind.read(folder, special := kind.tokens(config))
    kind.finish(backend, folder, config, special)

A kind is named by the `tokenizer_class` of tokenizer_config.json or config.json, or else by the `model_type`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fastattn.checks import shown
from fastattn.files import read_regular
from fastattn.formats.hugging_face import CONFIG as MODEL_CONFIG
from fastattn.formats.hugging_face import MAX_VOCABULARY, read_json
from fastattn.text.library import import_tokenizers, library_errors

TOKENIZER, CONFIG = "tokenizer.json", "tokenizer_config.json"
VOCABULARY, PAIRS, MERGES = "vocab.txt", "vocab.json", "merges.txt"
PIECES, ALBERT_PIECES = "sentencepiece.bpe.model", "spiece.model"

_ENDS = ("cls_token", "sep_token")
_NORMALIZER_OPTIONS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
_TYPED = "{0}:0 $A:0 {1}:0", "{0}:0 $A:0 {1}:0 $B:1 {1}:1"
_UNTYPED = "{0} $A {1}", "{0} $A {1} {1} $B {1}"
"""The forms of a text and a pair, with and without token types."""
_SPACE = "\u2581"  # what SentencePiece writes for a space
_BRACKETS = {
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "mask_token": "[MASK]",
}
_ANGLES = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}

Special = Mapping[str, str]
"""The names of special tokens, such as `cls_token`, and the tokens."""


Pieces = list[tuple[str, float]]
Whole = dict[str, dict[str, bool]]
"""Tokens that are found in a text before all else, with their flags."""


class Kind(NamedTuple):
    """A kind of tokenizer.

    Attributes:
        files: the files of its vocabulary.
        model: the class of its model in the tokenizers library.
        special: the special tokens unless the config names others.
        read: the tokenizer of a vocabulary's files, and the tokens that these want added.
        finish: gives a tokenizer its normalizer, pre-tokenizer, post-processor and decoder.
        flags: the flags of special tokens by their names, where they are not the usual ones.
        steps: the classes of normalizer and pre-tokenizer without which a tokenizer.json keeps its own.
        types: whether models get the token types, unless the config's `model_input_names` says it.
    """

    files: tuple[str, ...]
    model: str
    special: Special
    read: Callable[[Path, Special], tuple[Any, Whole]]
    finish: Callable[[Any, Path, Mapping[str, Any], Special], None]
    flags: Mapping[str, Mapping[str, bool]] = {}
    steps: tuple[str, ...] = ()
    types: bool = True

    def tokens(self, config: Mapping[str, Any]) -> dict[str, str]:
        """Its special tokens with a config."""
        return {key: special_token(config.get(key), default) for key, default in self.special.items()}

    def fits(self, backend: Any, special: Special) -> bool:
        """Whether the tokenizer of a tokenizer.json is of this kind."""
        parts = backend.model, backend.normalizer, backend.pre_tokenizer
        return [type(part).__name__ for part in parts][: 1 + len(self.steps)] == [self.model, *self.steps] and all(
            backend.token_to_id(special[key]) is not None for key in _ENDS
        )


def kind_of(folder: Path, config: Mapping[str, Any]) -> Kind:
    """The kind of the tokenizer in a folder with this tokenizer_config.json; BERT's if no file says another.

    Raises ValueError, naming the file, for a class whose vocabulary is not read.
    """
    if "auto_map" in config:
        path = folder / CONFIG
        raise ValueError(f"{path}: auto_map names code of its own, which fastattn does not run; save a {TOKENIZER}")
    path, name, kind = named_kind(folder, config)
    if kind is None and name is not None:
        classes = ", ".join(f"{kind}Tokenizer" for kind in KINDS)
        raise ValueError(
            f"{path}: the vocabulary of the tokenizer_class {shown(name)} is not read, only {classes}; "
            f"a {TOKENIZER} is read, whatever its class"
        )
    return kind or KINDS["Bert"]


def named_kind(folder: Path, config: Mapping[str, Any]) -> tuple[Path, Any, Kind | None]:
    """The file that names a class, the class, and its kind; None where there is none."""
    path, name = folder / CONFIG, config.get("tokenizer_class")
    model = read_json(folder / MODEL_CONFIG) if (folder / MODEL_CONFIG).is_file() else {}
    if name is None:
        path, name = folder / MODEL_CONFIG, model.get("tokenizer_class")
    if name is None:
        return path, None, _BY_NAME.get(re.sub("[-_]", "", str(model.get("model_type"))))
    return path, name, _BY_NAME.get(str(name).removesuffix("Fast").removesuffix("Tokenizer").lower())


def special_token(value: Any, default: Any) -> Any:
    """A token of tokenizer_config.json: a string, or an object that holds one."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else default


def check_ids(source: str, vocabulary: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the `source`, for a token whose id is none. Libraries cut bits of larger ones off."""
    for token, i in vocabulary.items():
        if type(i) is not int or not 0 <= i < 2**31:
            raise ValueError(f"{source}: {shown(token)} must have an id, got {shown(i)}")


def _word_pieces(folder: Path, special: Special) -> tuple[Any, Whole]:
    """WordPiece; a line of vocab.txt is a token, its number the id."""
    library, path = import_tokenizers(), folder / VOCABULARY
    try:
        read_regular(path, MAX_VOCABULARY).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8: {error}") from None
    with library_errors(f"{path}: not a vocabulary that the tokenizers library reads"):
        vocabulary = library.models.WordPiece.read_file(str(path))
        backend = library.Tokenizer(library.models.WordPiece(vocabulary, unk_token=special["unk_token"]))
    _check_known(path, backend, special, "unk_token", *_ENDS)
    return backend, {}


def _byte_pairs(folder: Path, special: Special) -> tuple[Any, Whole]:
    """BPE; vocab.json has the ids, merges.txt the pairs in their order."""
    library, path = import_tokenizers(), folder / PAIRS
    check_ids(str(path), read_json(path, MAX_VOCABULARY))
    read_regular(folder / MERGES, MAX_VOCABULARY)
    with library_errors(f"{path} or {MERGES}: not a vocabulary that the tokenizers library reads"):
        backend = library.Tokenizer(library.models.BPE.from_file(str(path), str(folder / MERGES), fuse_unk=False))
    _check_known(path, backend, special, *_ENDS)
    return backend, {}


def _unigram(name: str, change: Callable[[Pieces, Special], Pieces], unk_id: int) -> Callable[..., tuple[Any, Whole]]:
    """SentencePiece's Unigram in the file `name`; `change` makes the vocabulary of the pieces."""

    def read(folder: Path, special: Special) -> tuple[Any, Whole]:
        from fastattn.formats.sentencepiece_model import read_sentencepiece_model

        library, path = import_tokenizers(), folder / name
        model = read_sentencepiece_model(path)
        if model.kind != "Unigram":
            raise ValueError(f"{path}: a {model.kind} model; only Unigram is read. Save a {TOKENIZER}")
        with library_errors(f"{path}: not a model that the tokenizers library reads"):
            pieces = change(model.pieces, special)
            backend = library.Tokenizer(library.models.Unigram(pieces, unk_id=unk_id, byte_fallback=False))
            if model.charsmap:
                backend.normalizer = library.normalizers.Precompiled(model.charsmap)
        _check_known(path, backend, special, *_ENDS)
        return backend, {token: {"normalized": False, "special": control} for token, control in model.whole.items()}

    return read


def _with_fairseq(pieces: Pieces, special: Special) -> Pieces:
    """The pieces from the fourth on, behind fairseq's four special tokens, and the mask behind all."""
    first = [(special[key], 0.0) for key in ("bos_token", "pad_token", "eos_token", "unk_token")]
    return [*first, *pieces[3:], (special["mask_token"], 0.0)]


def _with_unused(pieces: Pieces, special: Special) -> Pieces:
    """All pieces but the first, behind five tokens, of which three are never used, and the mask behind all."""
    first = [("<s>NOTUSED", 0.0), (special["pad_token"], 0.0), ("</s>NOTUSED", 0.0), (special["unk_token"], 0.0)]
    return [*first, ("<unk>NOTUSED", -100.0), *pieces[1:], (special["mask_token"], 0.0)]


def _check_known(path: Path, backend: Any, special: Special, *keys: str) -> None:
    for key in keys:
        if backend.token_to_id(special[key]) is None:
            raise ValueError(f"{path}: the {key} {shown(special[key])} is not in the vocabulary")


def _finish_words(backend: Any, folder: Path, config: Mapping[str, Any]) -> None:
    """BERT's words. A normalizer that is there keeps what the config does not say."""
    library = import_tokenizers()
    normalizer = backend.normalizer or library.normalizers.BertNormalizer()
    with library_errors(f"{folder / CONFIG}: not options of a BertTokenizer"):
        for key, attribute in _NORMALIZER_OPTIONS.items():
            if config.get(key) is not None:
                setattr(normalizer, attribute, config[key])
    backend.normalizer = normalizer
    backend.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    backend.decoder = library.decoders.WordPiece(prefix="##")


def _finish_bert(backend: Any, folder: Path, config: Mapping[str, Any], special: Special) -> None:
    _finish_words(backend, folder, config)
    if backend.post_processor is not None:
        return
    _use_template(backend, folder, _TYPED, special["cls_token"], special["sep_token"])


def _finish_mpnet(backend: Any, folder: Path, config: Mapping[str, Any], special: Special) -> None:
    _finish_words(backend, folder, config)
    if backend.post_processor is None:
        _use_roberta(backend, special, trim=True, prefix=False)


def _finish_bytes(backend: Any, folder: Path, config: Mapping[str, Any], special: Special) -> None:
    """GPT-2's bytes."""
    library = import_tokenizers()
    prefix = _flag(folder, config, "add_prefix_space", False)
    backend.normalizer = None
    backend.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    backend.decoder = library.decoders.ByteLevel()
    _use_roberta(backend, special, trim=_flag(folder, config, "trim_offsets", True), prefix=prefix)


def _finish_spaces(backend: Any, folder: Path, config: Mapping[str, Any], steps: list[Any]) -> None:
    """SentencePiece's words; `steps` come before its own normalizer."""
    library = import_tokenizers()
    backend.normalizer = library.normalizers.Sequence([*steps, *_precompiled(backend)])
    scheme = "always" if _flag(folder, config, "add_prefix_space", True) else "never"
    spaces = library.pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme=scheme)
    backend.pre_tokenizer = library.pre_tokenizers.Sequence([library.pre_tokenizers.WhitespaceSplit(), spaces])
    backend.decoder = library.decoders.Metaspace(replacement=_SPACE, prepend_scheme=scheme)


def _finish_fairseq(backend: Any, folder: Path, config: Mapping[str, Any], special: Special) -> None:
    _finish_spaces(backend, folder, config, [])
    _use_template(backend, folder, _UNTYPED, special["bos_token"], special["eos_token"])


def _finish_albert(backend: Any, folder: Path, config: Mapping[str, Any], special: Special) -> None:
    library = import_tokenizers()
    steps = [library.normalizers.Replace(quotes, '"') for quotes in ("``", "''")]
    if not _flag(folder, config, "keep_accents", False):
        steps += [library.normalizers.NFKD(), library.normalizers.StripAccents()]
    if _flag(folder, config, "do_lower_case", True):
        steps.append(library.normalizers.Lowercase())
    _finish_spaces(backend, folder, config, steps)
    _use_template(backend, folder, _TYPED, special["cls_token"], special["sep_token"])


def _precompiled(backend: Any) -> list[Any]:
    """SentencePiece's own normalizer, if it is among the normalizers of a tokenizer."""
    import base64

    if backend.normalizer is None:
        return []
    state = json.loads(backend.normalizer.__getstate__())
    steps = state["normalizers"] if state["type"] == "Sequence" else [state]
    maps = [step["precompiled_charsmap"] for step in steps if step["type"] == "Precompiled"]
    return [import_tokenizers().normalizers.Precompiled(base64.b64decode(text)) for text in maps[:1] if text]


def _flag(folder: Path, config: Mapping[str, Any], key: str, default: bool) -> bool:
    value = config.get(key)
    if not isinstance(value, bool | None):
        raise ValueError(f"{folder / CONFIG}: {key} must be true or false, got {shown(value)}")
    return default if value is None else value


def _use_template(backend: Any, folder: Path, forms: tuple[str, str], first: str, last: str) -> None:
    """Put special tokens around texts and pairs, in these forms."""
    single, pair = (form.format(first, last) for form in forms)
    tokens = [(token, backend.token_to_id(token)) for token in (first, last)]
    with library_errors(f"{folder / CONFIG}: special tokens that the tokenizers library cannot have"):
        backend.post_processor = import_tokenizers().processors.TemplateProcessing(
            single=single, pair=pair, special_tokens=tokens
        )


def _use_roberta(backend: Any, special: Special, *, trim: bool, prefix: bool) -> None:
    """<s> A </s> and <s> A </s></s> B </s>, of one token type. `trim` leaves spaces out of offsets."""
    cls, sep = ((special[key], backend.token_to_id(special[key])) for key in _ENDS)
    backend.post_processor = import_tokenizers().processors.RobertaProcessing(sep, cls, trim, prefix)


_BERTS_STEPS = ("BertNormalizer", "BertPreTokenizer")
_AS_BERT = Kind((VOCABULARY,), "WordPiece", _BRACKETS, _word_pieces, _finish_bert, steps=_BERTS_STEPS)
_AS_XLM_ROBERTA = Kind((PIECES,), "Unigram", _ANGLES, _unigram(PIECES, _with_fairseq, 3), _finish_fairseq)
_MASK_WITH_SPACE = {"mask_token": {"lstrip": True}}

KINDS = {
    "Bert": _AS_BERT,
    "DistilBert": _AS_BERT,
    "Electra": _AS_BERT,
    "MobileBert": _AS_BERT,
    "ConvBert": _AS_BERT,
    "SqueezeBert": _AS_BERT,
    "NomicBert": _AS_BERT,
    "MPNet": Kind(
        (VOCABULARY,),
        "WordPiece",
        {**_ANGLES, "unk_token": "[UNK]"},
        _word_pieces,
        _finish_mpnet,
        _MASK_WITH_SPACE,
        _BERTS_STEPS,
    ),
    "Roberta": Kind((PAIRS, MERGES), "BPE", _ANGLES, _byte_pairs, _finish_bytes),
    "XLMRoberta": _AS_XLM_ROBERTA,
    "Gte": _AS_XLM_ROBERTA,
    "Camembert": Kind(
        (PIECES,), "Unigram", _ANGLES, _unigram(PIECES, _with_unused, 3), _finish_fairseq, _MASK_WITH_SPACE
    ),
    "Albert": Kind(
        (ALBERT_PIECES,),
        "Unigram",
        {**_BRACKETS, "bos_token": "[CLS]", "eos_token": "[SEP]", "unk_token": "<unk>", "pad_token": "<pad>"},
        _unigram(ALBERT_PIECES, lambda pieces, _: pieces, 1),
        _finish_albert,
        types=False,
    ),
}
"""The kinds by the names of their classes without "Tokenizer"; a `model_type` is such a name in lower case with "-" or
"_" in it."""
_BY_NAME = {name.lower(): kind for name, kind in KINDS.items()}
