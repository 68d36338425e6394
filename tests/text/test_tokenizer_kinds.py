"""Tokenizers of every family: the ids, offsets and token types of transformers, and of SentencePiece itself."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_tokenizers import (
    KINDS,
    NEEDS_SENTENCEPIECE,
    SENTENCES,
    XLM,
    mixed_texts,
    write_albert,
    write_byte_pairs,
    write_pieces,
    write_tokenizer_json,
    write_word_pieces,
)

from fastattn.text import Tokenizer

TEXTS = mixed_texts(10_000)
NAMES = ("cls", "sep", "pad", "mask", "unk")


def folder_of(kind: str, folder: Path) -> Path:
    if kind in NEEDS_SENTENCEPIECE:
        pytest.importorskip("sentencepiece", reason="trains a SentencePiece model")
    return KINDS[kind](folder)


def check_same(ours: Tokenizer, theirs: Any, texts: list[str] = TEXTS[:1000]) -> None:
    """Ids and offsets of texts; ids and token types of pairs; texts of ids."""
    tokens = ours.encode(texts, return_offsets_mapping=True)
    expected = theirs(texts, return_offsets_mapping=True)
    starts = tokens.cu_seqlens
    for i, (ids, offsets) in enumerate(zip(expected["input_ids"], expected["offset_mapping"], strict=True)):
        row = slice(starts[i], starts[i + 1])
        assert tokens.ids[row].tolist() == ids, texts[i]
        assert tokens.offset_mapping[row].tolist() == [[*pair] for pair in offsets], texts[i]
    first, second = texts[:300], texts[300:600]
    pairs, expected = ours.encode(first, text_pairs=second), theirs(first, second, return_token_type_ids=True)
    assert pairs.ids.tolist() == [*chain.from_iterable(expected["input_ids"])]
    types = [*chain.from_iterable(expected["token_type_ids"])]
    typed = "token_type_ids" in theirs.model_input_names  # else a model of theirs gets none
    assert pairs.token_type_ids.tolist() == (types if typed else [0] * len(types))
    rows = [ids.tolist() for ids in ours.encode(first)]
    for skip in (False, True):
        decoded = [theirs.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False) for ids in rows]
        assert ours.decode(rows, skip_special_tokens=skip) == decoded
    for name in NAMES:
        assert getattr(ours, f"{name}_token_id") == getattr(theirs, f"{name}_token_id"), name


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_auto_tokenizer(tmp_path: Path, kind: str) -> None:
    """Of the folder as it is on the hub, and of what either library saves from it."""
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    folder = folder_of(kind, tmp_path / "hub")
    ours, theirs = Tokenizer.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)
    check_same(ours, theirs, TEXTS)
    theirs.save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / "config.json").write_text((folder / "config.json").read_text())
    check_same(Tokenizer.from_pretrained(tmp_path / "theirs"), theirs)
    ours.save_pretrained(tmp_path / "ours")
    (tmp_path / "ours" / "config.json").write_text((folder / "config.json").read_text())
    check_same(Tokenizer.from_pretrained(tmp_path / "ours"), theirs)
    check_same(ours, transformers.AutoTokenizer.from_pretrained(tmp_path / "ours"))


@pytest.mark.parametrize("kind", ["xlm-roberta", "albert", "roberta", "mpnet", "distilbert"])
def test_a_tokenizer_json_with_other_steps(tmp_path: Path, kind: str) -> None:
    """Of the first three the class says what is done, as in transformers 5: version 4 wrote other steps, which keep a
    space at the end. Those of WordPiece, and of any other class, stay."""
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    tokenizers = pytest.importorskip("tokenizers")
    folder = folder_of(kind, tmp_path)
    whole = Tokenizer.from_pretrained(folder)
    whole.save_pretrained(folder)
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    spaces = tokenizers.normalizers.Replace(tokenizers.Regex(" {2,}"), " ")
    steps = [spaces, *([backend.normalizer] if backend.normalizer else [])]
    backend.normalizer = tokenizers.normalizers.Sequence(steps)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.save(str(folder / "tokenizer.json"))
    named = {f"{key}_token": whole.tokens([getattr(whole, f"{key}_token_id")])[0] for key in NAMES}
    for name in ("", "PreTrainedTokenizerFast"):
        if name:
            inputs = ["input_ids", "token_type_ids", "attention_mask"]
            change(folder, "tokenizer_config.json", tokenizer_class=name, model_input_names=inputs, **named)
        ours = Tokenizer.from_pretrained(folder)
        if name or kind not in ("mpnet", "distilbert"):
            check_same(ours, transformers.AutoTokenizer.from_pretrained(folder))
        else:
            kept = [encoding.ids for encoding in backend.encode_batch(TEXTS[:500])]
            assert [ids.tolist() for ids in ours.encode(TEXTS[:500])] == kept


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_gives_the_same_ids(tmp_path: Path, kind: str) -> None:
    ours = Tokenizer.from_pretrained(folder_of(kind, tmp_path / "hub"))
    tokens = ours.encode(TEXTS[:1000], return_offsets_mapping=True)
    ours.save_pretrained(tmp_path / "saved")
    again = Tokenizer.from_pretrained(tmp_path / "saved").encode(TEXTS[:1000], return_offsets_mapping=True)
    np.testing.assert_array_equal(again.ids, tokens.ids)
    np.testing.assert_array_equal(again.offset_mapping, tokens.offset_mapping)


@pytest.mark.parametrize(("kind", "moved", "start"), [("xlm-roberta", 1, 3), ("camembert", 4, 1)])
def test_ids_of_sentencepiece_are_moved(tmp_path: Path, kind: str, moved: int, start: int) -> None:
    """fairseq has its own special tokens before the pieces."""
    library = pytest.importorskip("sentencepiece")
    folder = folder_of(kind, tmp_path)
    model = library.SentencePieceProcessor(model_file=str(folder / XLM))
    tokenizer = Tokenizer.from_pretrained(folder)
    assert tokenizer.vocab_size == model.get_piece_size() + moved + 1  # the mask
    assert tokenizer.mask_token_id == tokenizer.vocab_size - 1
    for i in range(start, model.get_piece_size()):
        assert tokenizer.token_to_id(model.id_to_piece(i)) == i + moved
    plain = [text for text in SENTENCES if model.unk_id() not in model.encode(text)]
    assert len(plain) > 15
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    ties = 0
    for text, tokens in zip(plain, tokenizer.encode(plain), strict=True):
        first, *ids, last = tokens.tolist()
        assert (first, last) == (cls, sep)
        pieces, expected = [i - moved for i in ids], model.encode(text)
        # Two ways to cut a text may be as likely; which one is taken hangs on rounding.
        assert model.decode(pieces) == model.decode(expected)
        assert sum(map(model.get_score, pieces)) == pytest.approx(sum(map(model.get_score, expected)), abs=1e-4)
        ties += pieces != expected
    assert ties <= 2


def test_token_types_that_a_model_does_not_get(tmp_path: Path) -> None:
    """ALBERT gets none in transformers 5, unless the config names them; any tokenizer may leave them out."""
    folder = KINDS["bert"](tmp_path)
    types = [0] * 3 + [1] * 2
    for names in (None, ["input_ids", "token_type_ids", "attention_mask"], ["input_ids", "attention_mask"]):
        change(folder, "tokenizer_config.json", **({} if names is None else {"model_input_names": names}))
        tokens = Tokenizer.from_pretrained(folder).encode(["a"], text_pairs=["b"])
        assert tokens.token_type_ids.tolist() == ([0] * 5 if names == ["input_ids", "attention_mask"] else types)
    pytest.importorskip("sentencepiece")
    for names in ([], ["input_ids", "token_type_ids"]):
        folder = write_albert(tmp_path / str(len(names)), {"model_input_names": names} if names else None)
        tokens = Tokenizer.from_pretrained(folder).encode(["a"], text_pairs=["b"])
        assert tokens.token_type_ids.any() == bool(names)


def test_pairs_and_windows_of_two_ends(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(write_byte_pairs(tmp_path))
    (ids,) = tokenizer.encode(["a"], text_pairs=["b"])
    a, b = tokenizer.token_to_id("a"), tokenizer.token_to_id("b")
    assert ids.tolist() == [0, a, 2, 2, b, 2]
    assert tokenizer.special_tokens == 2
    assert tokenizer.template(True).special == 4
    tokens = tokenizer.encode(
        ["a"], 8, text_pairs=["b" * 9], truncation="only_second", stride=1, return_offsets_mapping=True
    )
    assert tokens.ids[:4].tolist() == [0, a, 2, 2]
    assert not tokens.token_type_ids.any()
    assert tokens.offset_mapping[tokens.sequence_ids == 1].max() == 9


def test_a_model_of_byte_pairs_reads_every_byte(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(write_byte_pairs(tmp_path))
    texts = [text for text in TEXTS[:2000] if "<" not in text]
    assert tokenizer.decode(tokenizer.encode(texts)) == texts


def test_a_named_token_keeps_the_flags_of_tokenizer_json(tmp_path: Path) -> None:
    """ModernBERT's mask takes the space before it."""
    tokenizer = Tokenizer.from_pretrained(write_tokenizer_json(tmp_path))
    around = tokenizer.encode(["a"]).ids.tolist()
    assert tokenizer.encode(["a [MASK]"]).ids.tolist() == [*around[:-1], tokenizer.mask_token_id, around[-1]]


def change(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**before, **values}))


def test_the_class_comes_before_the_model_type(tmp_path: Path) -> None:
    """tokenizer_config.json's, then config.json's, then the model_type."""
    names = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    folder = write_word_pieces(tmp_path, "mpnet", names, None)

    def ends() -> list[int]:
        return Tokenizer.from_pretrained(folder).encode([""]).ids.tolist()

    assert ends() == [0, 2]
    change(folder, "config.json", tokenizer_class="BertTokenizerFast")
    assert ends() == [6, 7]
    change(folder, "tokenizer_config.json", tokenizer_class="MPNetTokenizer")
    assert ends() == [0, 2]


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    folder = write_byte_pairs(tmp_path)
    (folder / "merges.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json, nor merges\.txt$"):
        Tokenizer.from_pretrained(folder)
    change(folder, "config.json", model_type="xlm-roberta")
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json, nor sentencepiece\.bpe\.model$"):
        Tokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"add_prefix_space": "yes"}, r"tokenizer_config\.json: add_prefix_space must be true or false, got 'yes'"),
        ({"trim_offsets": 1}, r"tokenizer_config\.json: trim_offsets must be true or false, got 1"),
        ({"cls_token": "<cls>"}, r"vocab\.json: the cls_token '<cls>' is not in the vocabulary"),
        ({"tokenizer_class": "GPT2Tokenizer"}, r"tokenizer_config\.json: the vocabulary of the tokenizer_class 'GPT2"),
        ({"auto_map": {"AutoTokenizer": ["a.B", None]}}, r"tokenizer_config\.json: auto_map names code of its own"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    folder = write_byte_pairs(tmp_path)
    change(folder, "tokenizer_config.json", **values)
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("vocab.json", "[1]", r"vocab\.json: must hold a JSON object"),
        ("vocab.json", '{"a": "b"}', r"vocab\.json: 'a' must have an id, got 'b'"),
        ("vocab.json", '{"a": 4294967296}', r"vocab\.json: 'a' must have an id, got 4294967296"),
        ("vocab.json", '{"a": -1}', r"vocab\.json: 'a' must have an id, got -1"),
        ("merges.txt", "#version: 0.2\nq\n", r"merges\.txt: not a vocabulary"),
    ],
)
def test_damaged_vocabularies_are_refused_by_name(tmp_path: Path, name: str, text: str, message: str) -> None:
    folder = write_byte_pairs(tmp_path)
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_pretrained(folder)


def test_other_models_of_sentencepiece_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    folder = write_pieces(tmp_path, XLM, "xlm-roberta", model_type="bpe")
    with pytest.raises(ValueError, match=r"sentencepiece\.bpe\.model: a BPE model; only Unigram is read"):
        Tokenizer.from_pretrained(folder)


def test_an_albert_without_its_special_tokens_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    folder = write_albert(tmp_path, {"cls_token": "<cls>"})
    with pytest.raises(ValueError, match=r"spiece\.model: the cls_token '<cls>' is not in the vocabulary"):
        Tokenizer.from_pretrained(folder)
