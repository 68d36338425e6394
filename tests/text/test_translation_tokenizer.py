"""Tokenizers of translation models: both sides, their files, and SentencePiece models."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_vocabularies import TEXTS, make

from fastattn.text import (
    Characters,
    MarianTokenizer,
    SubwordTokenizer,
    read_parallel,
    read_translation_tokenizer,
    sentencepiece_tokenizer,
)
from fastattn.text.subwords import Subwords


def test_long_texts_are_cut(vocabulary: Subwords) -> None:
    whole, cut = vocabulary.encode([*TEXTS, ""]), vocabulary.encode([*TEXTS, ""], 4)
    assert cut.lengths.tolist() == np.minimum(whole.lengths, 4).tolist()
    assert cut.full_lengths.tolist() == whole.lengths.tolist()
    for i in range(len(TEXTS)):
        row = cut.ids[cut.cu_seqlens[i] : cut.cu_seqlens[i + 1]]
        assert row.tolist() == [*whole.ids[whole.cu_seqlens[i] :][:3], 1]
    assert vocabulary.encode(TEXTS, 1).ids.tolist() == [1] * len(TEXTS)
    with pytest.raises(ValueError, match="max_length must be 1, for the end of the text, or more, got 0"):
        vocabulary.encode(TEXTS, 0)


@pytest.mark.parametrize("kind", ["characters", "byte pairs"])
@pytest.mark.parametrize("shared", [True, False])
def test_files(tmp_path: Path, kind: str, shared: bool) -> None:
    source, target = make(kind), Characters.build(["xyz"])
    tokenizer = SubwordTokenizer(source, source if shared else target)
    SubwordTokenizer(target, target).save_pretrained(tmp_path)
    SubwordTokenizer(target, Characters("a")).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    suffix = {"characters": "characters.json", "byte pairs": "bpe.json"}[kind]
    names = [f"vocabulary.{suffix}"] if shared else [f"source.{suffix}", "target.characters.json"]
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["vocabularies"] == names
    again = read_translation_tokenizer(tmp_path)
    assert isinstance(again, SubwordTokenizer)
    assert (again.source is again.target) == shared
    assert (again.source.vocab_size, again.target.vocab_size) == (source.vocab_size, tokenizer.target.vocab_size)
    assert again.source.encode(TEXTS).ids.tolist() == source.encode(TEXTS).ids.tolist()
    assert again.source.to_bytes() == source.to_bytes()


def damage(name: str, text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "target.characters.json").unlink(), r"/target\.characters\.json: no such file; tok"),
        (
            damage(
                "tokenizer_config.json", '{"tokenizer_class": "SubwordTokenizer", "vocabularies": ["../a.bpe.json"]}'
            ),
            r"tokenizer_config\.json: vocabularies must be one or two of .*, got \['\.\./a\.bpe\.json'\]",
        ),
        (damage("source.characters.json", "["), r"source\.characters\.json: not valid JSON"),
        (damage("source.characters.json", "{}"), r"source\.characters\.json: characters must be a list, got None"),
        (damage("source.characters.json", '{"characters": ["ab"]}'), r"source\.characters\.json: .* single ones, got"),
    ],
)
def test_damaged_files(tmp_path: Path, change: Callable[[Path], Any], message: str) -> None:
    SubwordTokenizer(Characters("ab"), Characters("c")).save_pretrained(tmp_path)
    change(tmp_path)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        read_translation_tokenizer(tmp_path)


def test_a_name_is_found_as_every_model_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "letters_from_a_package"
    SubwordTokenizer(Characters("ab"), Characters("c")).save_pretrained(package / "model")
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    for read in (SubwordTokenizer.from_pretrained, read_translation_tokenizer):
        assert read("letters-from-a-package", local_files_only=True).source.encode(["ab"]).ids.tolist() == [3, 4, 1]
        with pytest.raises(FileNotFoundError, match="no model named 'no-such-letters'"):
            read("no-such-letters", local_files_only=True)
        with pytest.raises(FileNotFoundError, match=r"no such folder: .*nowhere"):
            read(tmp_path / "nowhere")


def test_a_cached_folder_is_checked_for_the_files_of_its_own_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--letters"
    snapshot = repository / "snapshots" / "a"
    SubwordTokenizer(Characters("ab"), Characters("c")).save_pretrained(snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a")
    for read in (SubwordTokenizer.from_pretrained, read_translation_tokenizer):
        assert read("letters", local_files_only=True).target.vocab_size == 4
    (snapshot / "target.characters.json").unlink()
    for read in (SubwordTokenizer.from_pretrained, read_translation_tokenizer):
        with pytest.raises(FileNotFoundError, match=r"snapshots/a lacks target\.characters\.json"):
            read("letters", local_files_only=True)
    (snapshot / "tokenizer_config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"snapshots/a lacks source\.spm, target\.spm, vocab\.json"):
        read_translation_tokenizer("letters", local_files_only=True)


def test_damaged_byte_pairs(tmp_path: Path) -> None:
    library = pytest.importorskip("tokenizers", reason="needs the tokenizers library")
    vocabulary = make("byte pairs")
    SubwordTokenizer(vocabulary, vocabulary).save_pretrained(tmp_path)
    (tmp_path / "vocabulary.bpe.json").write_text("{}")
    with pytest.raises(ValueError, match=r"vocabulary\.bpe\.json: not a tokenizer that the tokenizers library reads"):
        read_translation_tokenizer(tmp_path)
    library.Tokenizer(library.models.BPE({"a": 0}, [])).save(str(tmp_path / "vocabulary.bpe.json"))
    with pytest.raises(ValueError, match=r"bpe\.json: the first tokens must be <pad>, </s>, <unk>"):
        read_translation_tokenizer(tmp_path)


def write_model(path: Path, texts: list[str], **options: Any) -> Path:
    library = pytest.importorskip("sentencepiece", reason="needs the sentencepiece library")
    model = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 10), model_writer=model, vocab_size=40, hard_vocab_limit=False,
        minloglevel=2, **options,
    )  # fmt: skip
    path.write_bytes(model.getvalue())
    return path


def test_sentencepiece(tmp_path: Path) -> None:
    source = write_model(tmp_path / "a.model", TEXTS[:3])
    target = write_model(tmp_path / "b.model", TEXTS[1:3])
    one = sentencepiece_tokenizer(source)
    assert one.source.vocab_size == one.target.vocab_size
    two = sentencepiece_tokenizer(source, target)
    assert two.source.vocab_size == one.source.vocab_size != two.target.vocab_size
    both = sentencepiece_tokenizer(source, target, shared=True)
    assert both.source.vocab_size == both.target.vocab_size > two.target.vocab_size
    for tokenizer in (one, two, both):
        rows = tokenizer.target.encode(TEXTS[1:3])
        assert tokenizer.target.decode(np.split(rows.ids, rows.cu_seqlens[1:-1])) == TEXTS[1:3]
        assert tokenizer.source.encode(["猫"]).ids.tolist()[-2:] == [1, 0]
        tokenizer.save_pretrained(tmp_path)
        again = read_translation_tokenizer(tmp_path)
        assert isinstance(again, MarianTokenizer)
        assert again.source.encode(TEXTS).ids.tolist() == tokenizer.source.encode(TEXTS).ids.tolist()


def test_a_tokenizer_takes_the_place_of_another_and_deletes_nothing(tmp_path: Path) -> None:
    """The one that was saved last is read."""
    marian = sentencepiece_tokenizer(write_model(tmp_path / "a.model", TEXTS))
    ours = SubwordTokenizer(Characters("ab"), Characters("c"))
    (tmp_path / "vocabulary.characters.json").write_text("mine")
    for tokenizer in (marian, ours, marian, ours):
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        tokenizer.save_pretrained(tmp_path)
        kept = {name: data for name, data in before.items() if name != "tokenizer_config.json"}
        assert kept.items() <= {path.name: path.read_bytes() for path in tmp_path.iterdir()}.items()
        assert type(read_translation_tokenizer(tmp_path)) is type(tokenizer)


def test_a_folder_without_its_models_names_them(tmp_path: Path) -> None:
    for name in ("config.json", "vocab.json", "tokenizer_config.json"):
        (tmp_path / name).write_text('{"model_type": "marian"}')
    with pytest.raises(
        FileNotFoundError, match=rf"^{tmp_path}: no source\.spm, no target\.spm; a Marian tokenizer has"
    ):
        read_translation_tokenizer(tmp_path)


def test_what_is_no_sentencepiece_model(tmp_path: Path) -> None:
    good = write_model(tmp_path / "good.model", TEXTS)
    (tmp_path / "a.model").write_text("x")
    with pytest.raises(ValueError, match=r"a\.model: .*not a SentencePiece model"):
        sentencepiece_tokenizer(tmp_path / "a.model")
    with pytest.raises(ValueError, match=rf"^{tmp_path}/a\.model: not a SentencePiece model"):
        sentencepiece_tokenizer(good, tmp_path / "a.model")
    with pytest.raises(FileNotFoundError, match=r"missing"):
        sentencepiece_tokenizer(tmp_path / "missing")


def test_the_names_of_the_transliteration_data() -> None:
    data = Path(os.environ.get("FASTATTN_DATA") or Path(__file__).parents[3] / "shared" / "data") / "transliteration"
    if not data.is_dir():
        pytest.skip(f"the transliteration data are missing: {data} (set FASTATTN_DATA)")
    text = read_parallel(data / "ar2en-train.txt")
    assert (len(text), text.skipped) == (12877, 0)
    tokenizer = SubwordTokenizer(Characters.build(text.sources), Characters.build(text.targets))
    assert (tokenizer.source.vocab_size, tokenizer.target.vocab_size) == (50, 42)
    tokens = tokenizer.target.encode(text.targets)
    assert tokenizer.target.decode(np.split(tokens.ids, tokens.cu_seqlens[1:-1])) == list(text.targets)
    assert tokenizer.target.tokens([3, 4, 5]) == ["a", "e", "i"]
