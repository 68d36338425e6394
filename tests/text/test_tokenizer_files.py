"""Folders of slow tokenizers: vocab.txt, and the files that add tokens to it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers import no_hang
from helpers_sentences import VOCABULARY, write_bert

from fastattn.text import Tokenizer, tokenizer_files
from fastattn.text.tokenizer_files import NAMES

NEXT = len(VOCABULARY)
NAMED = {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "pad_token": "[PAD]", "mask_token": "[MASK]"}


OLD_FILES = ("tokenizer_config.json", "added_tokens.json", "special_tokens_map.json")


def token(content: str, **flags: bool) -> dict[str, Any]:
    usual = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
    return {"content": content, **usual, **flags}


DECODER = {
    str(NEXT + 1): token("<two>", normalized=True, special=False),
    str(NEXT): token("<One>"),
    "4": token("[MASK]", lstrip=True),
    str(NEXT + 2): token("cats", normalized=True, special=False, single_word=True),
}
# What a folder may say of added tokens: files by name, merged into what `write_bert` writes
FOLDERS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no config": {"tokenizer_config.json": None},
    "added_tokens.json": {"added_tokens.json": {"<two>": NEXT + 1, "<One>": NEXT}},
    "added_tokens_decoder": {"tokenizer_config.json": {"added_tokens_decoder": DECODER, **NAMED}},
    "the decoder comes before the old files": {
        "tokenizer_config.json": {"added_tokens_decoder": DECODER},
        "added_tokens.json": {"sat.": NEXT},
        "special_tokens_map.json": {"cls_token": "the"},
    },
    "additional_special_tokens": {"tokenizer_config.json": {"additional_special_tokens": ["<One>", "<two>"]}},
    "extra_special_tokens": {"tokenizer_config.json": {"extra_special_tokens": ["<One>"]}},
    "extra_special_tokens by name": {"tokenizer_config.json": {"extra_special_tokens": {"one_token": "<One>"}}},
    "a name of its own": {"tokenizer_config.json": {"one_token": "<One>"}},
    "special_tokens_map.json": {"special_tokens_map.json": {**NAMED, "additional_special_tokens": ["<One>", "<two>"]}},
    "both old files": {
        "added_tokens.json": {"<One>": NEXT, "<two>": NEXT + 1},
        "special_tokens_map.json": {**NAMED, "bos_token": token("<One>"), "mask_token": token("[MASK]", lstrip=True)},
    },
    "additional tokens of both old files": {
        "added_tokens.json": {"<One>": NEXT, "<two>": NEXT + 1},
        "special_tokens_map.json": {**NAMED, "additional_special_tokens": ["<One>"]},
    },
    "other names": {"special_tokens_map.json": {**NAMED, "cls_token": token("query"), "sep_token": "."}},
    "tokens of the vocabulary": {"tokenizer_config.json": {"additional_special_tokens": ["cat", "sat"]}},
    "split_special_tokens": {"tokenizer_config.json": {"split_special_tokens": True, "mask_token": "[MASK]"}},
    "DistilBertTokenizerFast": {"tokenizer_config.json": {"tokenizer_class": "DistilBertTokenizerFast"}},
    "ElectraTokenizer": {"tokenizer_config.json": {"tokenizer_class": "ElectraTokenizer"}},
    "MobileBertTokenizer": {"tokenizer_config.json": {"tokenizer_class": "MobileBertTokenizer"}},
    "ConvBertTokenizer": {"tokenizer_config.json": {"tokenizer_class": "ConvBertTokenizer"}},
    "SqueezeBertTokenizer": {"tokenizer_config.json": {"tokenizer_class": "SqueezeBertTokenizer"}},
}  # fmt: skip
TEXTS = [
    "the cat sat <One> the cat.", "<One><two>", "a<two>b", "<one> <TWO>", "the [MASK] sat", "[mask]", "cats sat",
    "catsat thecats cats", "The CAT [SEP] [CLS] query.", "sat.", "", "éa\u0300",
]  # fmt: skip


def write(folder: Path, files: dict[str, Any]) -> Path:
    write_bert(folder)
    for name, value in files.items():
        path = folder / name
        if value is None:
            path.unlink()
        else:
            before = json.loads(path.read_text()) if path.exists() else {}
            path.write_text(json.dumps({**before, **value}), encoding="utf-8")
    return folder


def rows(tokenizer: Tokenizer) -> list[list[int]]:
    tokens = tokenizer.encode(TEXTS)
    return [ids.tolist() for ids in np.split(tokens.ids, tokens.cu_seqlens[1:-1])]


@pytest.mark.parametrize("name", FOLDERS)
def test_ids_are_those_of_auto_tokenizer(tmp_path: Path, name: str) -> None:
    """Of the folder, and of what is saved from it."""
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    folder = write(tmp_path / "old", FOLDERS[name])
    tokenizer = Tokenizer.from_pretrained(folder)
    expected = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS)["input_ids"]
    assert rows(tokenizer) == expected
    tokenizer.save_pretrained(tmp_path / "new")
    (tmp_path / "new" / "config.json").write_text((folder / "config.json").read_text())
    assert rows(Tokenizer.from_pretrained(tmp_path / "new")) == expected
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "new")(TEXTS)["input_ids"] == expected


@pytest.mark.parametrize("name", FOLDERS)
def test_a_saved_tokenizer_is_the_same_whatever_else_is_in_the_folder(tmp_path: Path, name: str) -> None:
    tokenizer = Tokenizer.from_pretrained(write(tmp_path / "old", FOLDERS[name]))
    new = write(tmp_path / "new", FOLDERS["both old files"])
    tokenizer.save_pretrained(new)
    assert rows(Tokenizer.from_pretrained(new)) == rows(tokenizer)


def test_added_tokens_have_their_ids(tmp_path: Path) -> None:
    for i, name in enumerate(["added_tokens.json", "added_tokens_decoder", "special_tokens_map.json"]):
        tokenizer = Tokenizer.from_pretrained(write(tmp_path / str(i), FOLDERS[name]))
        assert tokenizer.encode(["a <One>b<two>"]).ids.tolist() == [2, 5, NEXT, 6, NEXT + 1, 3]


def test_an_added_token_keeps_its_flags(tmp_path: Path) -> None:
    """One of added_tokens.json is found in the normalised text, also if special_tokens_map.json lists it."""
    tokenizer = Tokenizer.from_pretrained(write(tmp_path, FOLDERS["additional tokens of both old files"]))
    assert tokenizer.encode(["a <one>"]).ids.tolist() == [2, 5, NEXT, 3]


def test_special_names_of_special_tokens_map(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(write(tmp_path, FOLDERS["other names"]))
    assert tokenizer.encode(["cat"]).ids.tolist() == [VOCABULARY.index(word) for word in ("query", "cat", ".")]


def test_lines_of_a_vocabulary_are_read_as_the_library_reads_them(tmp_path: Path) -> None:
    folder = write_bert(tmp_path)
    (folder / "vocab.txt").write_bytes("\r\n".join(VOCABULARY).encode())
    assert Tokenizer.from_pretrained(folder).encode(["the cat"]).ids.tolist() == [2, 57, 58, 3]


def config(**values: Any) -> dict[str, Any]:
    return {"tokenizer_config.json": values}


JAPANESE = "BertJapaneseTokenizer"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            config(tokenizer_class=JAPANESE),
            rf"tokenizer_config\.json: the vocabulary of the tokenizer_class '{JAPANESE}' is not read, only Bert",
        ),
        (
            {**config(tokenizer_class=None), "config.json": {"tokenizer_class": JAPANESE}},
            rf"/config\.json: the vocabulary of the tokenizer_class '{JAPANESE}' is not read",
        ),
        (config(tokenizer_class=5), r"tokenizer_config\.json: the vocabulary of the tokenizer_class 5 is not"),
        (config(auto_map={"AutoTokenizer": ["a.B", None]}), r"tokenizer_config\.json: auto_map names code"),
        (config(do_lower_case="yes"), r"tokenizer_config\.json: not options of a BertTokenizer"),
        (config(added_tokens_decoder=[1]), r"added_tokens_decoder must be an object, got \[1\]"),
        (config(added_tokens_decoder={"x": token("a")}), "the id of a token must be an integer, got 'x'"),
        (config(added_tokens_decoder={"9": 7}), "must be a string, or an object with a content, got 7"),
        (
            config(added_tokens_decoder={"9": {"content": "q", "lstrip": 1}}),
            "lstrip of 'q' must be true or false, got 1",
        ),
        (config(additional_special_tokens="<One>"), "extra_special_tokens must be a list of tokens, got '<One>'"),
        (
            {"special_tokens_map.json": {"additional_special_tokens": 3}},
            "additional_special_tokens must be a list of tokens, got 3",
        ),
        (
            {"added_tokens.json": {"<One>": NEXT + 7}},
            rf"added_tokens\.json: the added token '<One>' must have the next free id {NEXT}, got {NEXT + 7}",
        ),
        ({"added_tokens.json": {"<One>": "a"}}, r"added_tokens\.json: the id of a token must be an integer, got 'a'"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_pretrained(write(tmp_path, files))


def test_an_added_token_does_not_share_an_id(tmp_path: Path) -> None:
    folder = write(tmp_path, FOLDERS["additional_special_tokens"])
    (folder / "vocab.txt").write_text("\n".join([*VOCABULARY[:-1], "cat", VOCABULARY[-1]]) + "\n")
    with pytest.raises(ValueError, match=rf"the id {NEXT} for the added token '<One>' is that of 'The'"):
        Tokenizer.from_pretrained(folder)


def test_a_tokenizer_json_is_read_whatever_its_class(tmp_path: Path) -> None:
    folder = write_bert(tmp_path)
    expected = rows(Tokenizer.from_pretrained(folder))
    Tokenizer.from_pretrained(folder).save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "OtherTokenizer"}')
    assert rows(Tokenizer.from_pretrained(folder)) == expected


def test_every_loader_downloads_these_files() -> None:
    from fastattn.tasks.embed.folder import FILES

    assert set(NAMES) <= set(FILES.patterns)
    assert {f"[0-9]_*/{name}" for name in NAMES} <= set(FILES.patterns)


def test_many_added_tokens_are_added_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each call the library looks at all of its tokens; 50,000 calls took minutes."""
    many = {f"<{i}>": NEXT + i for i in range(2000)}
    folder = write(tmp_path, {"added_tokens.json": many})
    calls = []

    class Backend:
        def __init__(self, backend: Any) -> None:
            self._backend = backend

        def __getattr__(self, name: str) -> Any:
            if name == "add_tokens":
                calls.append(name)
            return getattr(self._backend, name)

    add = tokenizer_files._add_tokens
    monkeypatch.setattr(tokenizer_files, "_add_tokens", lambda backend, tokens: add(Backend(backend), tokens))
    tokenizer = Tokenizer.from_pretrained(folder)
    assert len(calls) <= 2
    assert tokenizer.encode(["<0> <1999>"]).ids.tolist()[1:-1] == [NEXT, NEXT + 1999]


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt", *OLD_FILES])
def test_what_is_there_and_no_file_is_not_passed_over(tmp_path: Path, name: str) -> None:
    """Without added_tokens.json or the lower-casing of the config, the ids would be others."""
    for i, make in enumerate([lambda path: path.symlink_to("nowhere"), os.mkfifo, Path.mkdir]):
        folder = write_bert(tmp_path / str(i))
        (folder / name).unlink(missing_ok=True)
        make(folder / name)
        with no_hang(), pytest.raises((ValueError, OSError), match=str(folder / name)):
            Tokenizer.from_pretrained(folder)
