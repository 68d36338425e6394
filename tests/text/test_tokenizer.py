"""Tokenizers from Hugging Face folders."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_sentences import TEXTS, VOCABULARY, write_bert

from fastattn import functional as F
from fastattn.formats.hugging_face import MAX_VOCABULARY
from fastattn.text import BytePairs, TokenizedTexts, Tokenizer
from fastattn.text import tokenizer as tokenizer_module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bert(tmp_path / "bert")


@pytest.fixture
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_pretrained(folder)


def tokens_of(tokenizer: Tokenizer, text: str) -> list[str]:
    return [VOCABULARY[i] for i in tokenizer.encode([text]).ids]


def write_tokenizer_json(folder: Path, **changes: object) -> None:
    """Put tokenizer.json in the place of vocab.txt, with fields of its normalizer changed."""
    tokenizer = json.loads(Tokenizer.from_pretrained(folder)._backend.to_str())
    tokenizer["normalizer"].update(changes)
    tokenizer["padding"] = {
        "strategy": {"Fixed": 12}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip
    tokenizer["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "vocab.txt").unlink()


def test_word_pieces_between_special_tokens(tokenizer):
    assert tokens_of(tokenizer, "The cat abz.") == ["[CLS]", "the", "cat", "a", "##b", "##z", ".", "[SEP]"]
    assert tokens_of(tokenizer, "") == ["[CLS]", "[SEP]"]
    assert tokens_of(tokenizer, "cat 7") == ["[CLS]", "cat", "[UNK]", "[SEP]"]
    assert tokens_of(tokenizer, "[MASK]") == ["[CLS]", "[MASK]", "[SEP]"]


def test_ids_are_ragged(tokenizer):
    tokens = tokenizer.encode(TEXTS)
    assert tokens.ids.dtype == np.int64
    assert tokens.cu_seqlens[0] == 0
    assert tokens.cu_seqlens[-1] == len(tokens.ids)
    for i, text in enumerate(TEXTS):
        alone = tokenizer.encode([text]).ids
        np.testing.assert_array_equal(tokens.ids[tokens.cu_seqlens[i] : tokens.cu_seqlens[i + 1]], alone)
    assert not tokens.truncated.any()


def test_offsets_are_those_of_the_kernels(tokenizer):
    """`F.pooling` reads them as they are. There is no room for 2^31 tokens."""
    tokens = tokenizer.encode(TEXTS)
    assert tokens.cu_seqlens.dtype == tokens.lengths.dtype == np.int32
    rows = np.ones((len(tokens.ids), 4), np.float32)
    assert F.pooling(rows, tokens.cu_seqlens, "mean").shape == (len(TEXTS), 4)
    with pytest.raises(ValueError, match=r"cu_seqlens must end below 2\*\*31"):
        TokenizedTexts.of([], [2**30, 2**30])


def test_one_text_is_refused_by_name(tokenizer):
    with pytest.raises(TypeError, match=r"^encode: texts must be a sequence of str, got the str 'a b'$"):
        tokenizer.encode("a b")
    with pytest.raises(TypeError, match=r"^encode: texts must be a sequence of str, got int$"):
        tokenizer.encode(5)
    with pytest.raises(TypeError, match=r"^encode: max_length must be more than the 2 special tokens, got '3'$"):
        tokenizer.encode(["cat"], "3")


def test_tokens_without_an_embedding(tokenizer):
    """A warning names some of them, and an error the text that has one, after it was cut."""
    with pytest.warns(
        UserWarning,
        match=r"/bert: the model has 58 embeddings and none for these tokens: "
        r"'cat' \(58\), 'sat' \(59\), 'query' \(60\), ':' \(61\), '.' \(62\) and 1 more\.",
    ):
        tokenizer.warn_of_tokens_beyond(58)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer.warn_of_tokens_beyond(len(VOCABULARY))
        tokenizer.warn_of_tokens_beyond(len(VOCABULARY) + 5)
    texts = ["a", "", "the the the cat"]
    with pytest.raises(ValueError, match=r"^encode: texts\[2\] has the token 'cat' \(58\), but the model has 58 embed"):
        tokenizer.encode(texts, rows=58)
    with pytest.raises(ValueError, match=r"^lines\[12\] has the token"):
        tokenizer.encode(texts, rows=58, name="lines", first=10)
    assert tokenizer.encode(texts, 5, rows=58).lengths.tolist() == [3, 2, 5]


def test_no_text_no_ids(tokenizer):
    tokens = tokenizer.encode([])
    assert len(tokens.ids) == len(tokens.lengths) == 0


@pytest.mark.parametrize("parallel", [True, False])
def test_more_texts_than_a_chunk(tokenizer, monkeypatch, parallel):
    expected = tokenizer.encode(TEXTS, 6)
    monkeypatch.setattr(tokenizer_module, "CHUNK", 3)
    actual = tokenizer.encode(TEXTS, 6, parallel=parallel)
    np.testing.assert_array_equal(actual.ids, expected.ids)
    np.testing.assert_array_equal(actual.full_lengths, expected.full_lengths)


def test_truncation_keeps_the_last_special_token_and_the_full_length(tokenizer):
    tokens = tokenizer.encode(["cat", "the cat sat the cat"], max_length=4)
    assert [VOCABULARY[i] for i in tokens.ids[3:]] == ["[CLS]", "the", "cat", "[SEP]"]
    assert tokens.full_lengths.tolist() == [3, 7]
    assert tokens.lengths.tolist() == [3, 4]
    assert tokens.truncated.tolist() == [False, True]


def test_truncation_is_that_of_the_tokenizers_library(folder, tokenizer):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"truncation_side": "left"}))
    left = Tokenizer.from_pretrained(folder)
    library = sys.modules["tokenizers"].Tokenizer.from_str(tokenizer._backend.to_str())
    for side, ours in (("right", tokenizer), ("left", left)):
        for limit in range(3, 12):
            library.enable_truncation(limit, direction=side)
            expected = [encoding.ids for encoding in library.encode_batch(TEXTS)]
            tokens = ours.encode(TEXTS, limit)
            actual = np.split(tokens.ids, tokens.cu_seqlens[1:-1])
            assert [ids.tolist() for ids in actual] == expected


def test_limits_of_different_calls_do_not_mix(tokenizer):
    text = ["the cat sat the cat sat"]
    with ThreadPoolExecutor(8) as pool:
        limits = [3, 4, 5, 6] * 50
        lengths = pool.map(lambda limit: len(tokenizer.encode(text, limit).ids), limits)
        assert list(lengths) == limits
    assert len(tokenizer.encode(text).ids) == 8


def test_a_limit_without_room_is_refused(tokenizer):
    with pytest.raises(ValueError, match="max_length must be more than the 2 special tokens, got 2"):
        tokenizer.encode(["cat"], max_length=2)


def test_padding_and_truncation_of_tokenizer_json_are_ignored(folder, tokenizer):
    expected = tokenizer.encode(TEXTS).ids
    write_tokenizer_json(folder)
    np.testing.assert_array_equal(Tokenizer.from_pretrained(folder).encode(TEXTS).ids, expected)


@pytest.mark.parametrize("lower_case", [True, False])
def test_tokenizer_config_decides_about_case(folder, lower_case):
    write_tokenizer_json(folder, lowercase=not lower_case)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"do_lower_case": lower_case}))
    word = "the" if lower_case else "The"
    assert tokens_of(Tokenizer.from_pretrained(folder), "The")[1] == word


def test_without_tokenizer_config_tokenizer_json_decides_about_case(folder):
    write_tokenizer_json(folder, lowercase=False)
    (folder / "tokenizer_config.json").unlink()
    tokenizer = Tokenizer.from_pretrained(folder)
    assert tokens_of(tokenizer, "The")[1] == "The"
    assert tokenizer.model_max_length is None


def test_lowercase_argument(tmp_path):
    folder = write_bert(tmp_path / "cased", lowercase=False)
    assert tokens_of(Tokenizer.from_pretrained(folder), "The")[1] == "The"
    assert tokens_of(Tokenizer.from_pretrained(folder, lowercase=True), "The")[1] == "the"


def test_special_tokens_of_other_names(folder):
    vocabulary = (folder / "vocab.txt").read_text().replace("[CLS]", "<s>").replace("[SEP]", "</s>")
    (folder / "vocab.txt").write_text(vocabulary)
    with pytest.raises(ValueError, match=r"vocab.txt: the cls_token '\[CLS\]' is not in the vocabulary"):
        Tokenizer.from_pretrained(folder)
    config = {"cls_token": {"content": "<s>", "lstrip": False}, "sep_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert Tokenizer.from_pretrained(folder).encode(["cat"]).ids[[0, -1]].tolist() == [2, 3]


def test_model_max_length(folder):
    assert Tokenizer.from_pretrained(folder).model_max_length == 32
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624838656}')
    assert Tokenizer.from_pretrained(folder).model_max_length is None


def test_prefix_length(tokenizer):
    assert tokenizer.prefix_length("the cat ") == 3
    assert tokenizer.prefix_length("") == 1


@pytest.mark.parametrize("parallel", [True, False])
def test_wrong_entries_are_named(tokenizer, parallel):
    with pytest.raises(TypeError, match=r"sentences\[1\] must be str, got NoneType"):
        tokenizer.encode(["cat", None], name="sentences", parallel=parallel)
    with pytest.raises(ValueError, match=r"texts\[2\] is not valid Unicode: '\\ud800' at position 1"):
        tokenizer.encode(["cat", "sat", "a\ud800b"], parallel=parallel)


def test_broken_files_are_named(folder):
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer.json: not a tokenizer"):
        Tokenizer.from_pretrained(folder)
    (folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"tokenizer_config.json"):
        Tokenizer.from_pretrained(folder)
    (folder / "tokenizer_config.json").write_text('{"truncation_side": "middle"}')
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"truncation_side must be left or right, got 'middle'"):
        Tokenizer.from_pretrained(folder)
    (folder / "tokenizer_config.json").unlink()
    (folder / "vocab.txt").write_bytes(b"\xff\n")
    with pytest.raises(ValueError, match=r"vocab.txt: not UTF-8"):
        Tokenizer.from_pretrained(folder)
    (folder / "vocab.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no tokenizer.json, nor vocab.txt"):
        Tokenizer.from_pretrained(folder)


def test_a_missing_library_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r'pip install "fastattn\[text\]"'):
        Tokenizer.from_pretrained(folder)


FORK = """
import os, subprocess, sys
environment, during = dict(os.environ), []
os.register_at_fork(before=lambda: during.append(dict(os.environ)))  # runs after the hooks that are registered later
from fastattn.text import Tokenizer
tokenizer = Tokenizer.from_pretrained(sys.argv[1])
expected = tokenizer.encode(["the cat"] * 50).ids.tolist()

def check():
    assert tokenizer.encode(["the cat"] * 50).ids.tolist() == expected
    assert during and all(seen == environment for seen in during)
    assert dict(os.environ) == environment

def fork(generations):
    pid = os.fork()
    if pid == 0:
        try:
            check()
            if generations > 1:
                fork(generations - 1)
                check()
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

for _ in range(2):
    fork(3)
    check()
printed = subprocess.run([sys.executable, "-c", "import os; print(os.environ.get('TOKENIZERS_PARALLELISM', ''))"],
                         stdout=subprocess.PIPE, text=True).stdout
assert printed.strip() == sys.argv[2], "programs that the parent runs see its own setting"
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("setting", ["", "false"])
def test_a_forked_child_tokenises_without_a_warning(folder, setting):
    environment = {k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"}
    if setting:
        environment["TOKENIZERS_PARALLELISM"] = setting
    command = [sys.executable, "-W", "ignore", "-c", FORK, str(folder), setting]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("lowercase", [False, True])
def test_saved_and_pickled(folder, tmp_path, lowercase):
    tokenizer = Tokenizer.from_pretrained(folder, lowercase=lowercase)
    tokenizer.save_pretrained(tmp_path)
    texts = ["The CAT sat.", "", "été"]
    for again in (Tokenizer.from_pretrained(tmp_path), pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):
        np.testing.assert_array_equal(again.encode(texts).ids, tokenizer.encode(texts).ids)
        assert again.model_max_length == tokenizer.model_max_length
    pickled = pickle.dumps(tokenizer)
    assert len(pickled) < 500
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ValueError, match=f"{folder}: the files of this tokenizer have changed since it was pickled"):
        pickle.loads(pickled)


def test_a_tokenizer_whose_files_have_changed_is_pickled_whole(folder, monkeypatch):
    """The files are summed up when somebody pickles, which few do, and not when they are read."""
    with monkeypatch.context() as patch:
        patch.setattr(tokenizer_module, "checksum", None)
        tokenizer = Tokenizer.from_pretrained(folder)
    small, expected = pickle.dumps(tokenizer), tokenizer.encode(TEXTS).ids
    (folder / "tokenizer_config.json").write_text("{}")
    for _ in range(2):
        pickled = pickle.dumps(tokenizer)
        assert len(pickled) > len(small)
        tokenizer = pickle.loads(pickled)
        np.testing.assert_array_equal(tokenizer.encode(TEXTS).ids, expected)


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt", "bpe.json"])
def test_a_file_that_is_too_large_is_not_read(folder, name):
    with open(folder / name, "wb") as file:
        file.truncate(MAX_VOCABULARY + 1)  # zeros that take no place on the disk
    message = rf"{name}: a file of {MAX_VOCABULARY + 1} bytes; at most {MAX_VOCABULARY} are read"
    with pytest.raises(ValueError, match=message):
        BytePairs.from_file(folder / name) if name == "bpe.json" else Tokenizer.from_pretrained(folder)
