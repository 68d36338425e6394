"""Tokenizers of MarianMT folders."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sentencepiece", reason="needs the sentencepiece library")

import sentencepiece

from fastattn.text import MarianTokenizer

ENGLISH = ["the cat sat on the mat", "a test of the tokenizer", "the rat ate a hat", "that is it"] * 3
GERMAN = ["die katze sass auf der matte", "ein test", "die ratte frass einen hut", "das ist es"] * 3
TEXTS = ["the cat", "", "that hat", "a ☃ test", "  the   mat ", "the </s> <pad>", ">>deu<< the cat", ">>fra<<the cat"]


def model(texts: list[str], kind: str = "unigram") -> bytes:
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=file, vocab_size=26, model_type=kind, minloglevel=2
    )
    return file.getvalue()


MODELS = {"source.spm": model(ENGLISH), "target.spm": model(GERMAN, "bpe")}


def pieces(name: str) -> list[str]:
    processor = sentencepiece.SentencePieceProcessor(model_proto=MODELS[name])
    return [processor.id_to_piece(i) for i in range(processor.vocab_size())]


def vocabulary(*names: str, last: str = "<pad>") -> dict[str, int]:
    """A vocabulary in Marian's order, `<pad>` last; some pieces of the models are not in it."""
    found = dict.fromkeys(piece for name in names for piece in pieces(name)[3:-2])
    return {token: i for i, token in enumerate(["</s>", "<unk>", *found, ">>deu<<", last])}


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a folder: of one vocabulary, or of two; keywords replace what is in a file, None leaves it out."""

    def write(separate: bool = False, **changes: Any) -> Path:
        files: dict[str, Any] = dict(MODELS)
        files["tokenizer_config.json"] = {"separate_vocabs": separate, "source_lang": "en", "model_max_length": 7}
        if separate:
            files["vocab.json"] = vocabulary("source.spm")
            files["target_vocab.json"] = vocabulary("target.spm")
        else:
            files["vocab.json"] = vocabulary("source.spm", "target.spm")
        files.update({name.replace("__", "."): content for name, content in changes.items()})
        for name, content in files.items():
            if content is not None:
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                (tmp_path / name).write_bytes(data)
        return tmp_path

    return write


@pytest.fixture
def tokenizer(write: Write) -> MarianTokenizer:
    return MarianTokenizer.from_pretrained(write())


def test_pieces_by_the_vocabulary(write: Write) -> None:
    folder = write()
    tokenizer = MarianTokenizer.from_pretrained(folder)
    ids = json.loads((folder / "vocab.json").read_text())
    processor = sentencepiece.SentencePieceProcessor(model_proto=MODELS["source.spm"])
    for text in ("the cat", "a ☃ test", "that hat"):
        expected = [piece if piece in ids else "<unk>" for piece in processor.encode(text, out_type=str)]
        assert tokenizer.source.tokens(tokenizer.source.encode([text]).ids) == [*expected, "</s>"]
    assert "<unk>" in tokenizer.source.tokens(tokenizer.source.encode(["☃"]).ids)
    assert "".join(tokenizer.target.tokens(tokenizer.target.encode(["die ratte"]).ids)) == "▁die▁ratte</s>"
    assert tokenizer.source.vocab_size == tokenizer.target.vocab_size == len(ids)
    assert (tokenizer.target.eos_token_id, tokenizer.target.pad_token_id) == (0, len(ids) - 1)
    assert tokenizer.model_max_length == 7


def test_ids_without_a_piece(write: Write) -> None:
    numbers = vocabulary("source.spm", "target.spm")
    size, hole = len(numbers), len(numbers) - 1
    numbers["<pad>"] = size + 2
    tokenizer = MarianTokenizer.from_pretrained(write(vocab__json=numbers))
    for side in (tokenizer.source, tokenizer.target):
        assert side.missing(size + 5) == [hole, size, size + 1, size + 3, size + 4]
        assert side.missing(hole) == []
    assert MarianTokenizer.from_pretrained(write(vocab__json=vocabulary("source.spm"))).source.missing(5) == []
    assert tokenizer.source.encode(["\u200b"]).ids.tolist() == tokenizer.source.encode(["\ufeff"]).ids.tolist() == [0]


def test_a_language_code_is_one_token(tokenizer: MarianTokenizer) -> None:
    plain, code = (tokenizer.source.encode([text]).ids for text in ("the cat", ">>deu<< the cat"))
    assert code.tolist() == [tokenizer.source.vocab_size - 2, *plain.tolist()]
    assert tokenizer.source.encode([">>fra<< the cat"]).ids.tolist() == [1, *plain.tolist()]
    assert tokenizer.source.encode([">> the"]).lengths > 2


def test_ids_are_ragged(tokenizer: MarianTokenizer) -> None:
    tokens = tokenizer.source.encode(TEXTS)
    assert tokens.ids.dtype == np.int64
    for i, text in enumerate(TEXTS):
        alone = tokenizer.source.encode([text])
        np.testing.assert_array_equal(tokens.ids[tokens.cu_seqlens[i] : tokens.cu_seqlens[i + 1]], alone.ids)
        assert alone.ids[-1] == 0
        assert alone.lengths == alone.full_lengths == tokens.lengths[i]
    assert tokenizer.source.encode([""]).ids.tolist() == [0]
    assert len(tokenizer.source.encode([]).ids) == len(tokenizer.source.encode([]).lengths) == 0


def test_a_cut_text_keeps_its_end(tokenizer: MarianTokenizer) -> None:
    whole = tokenizer.source.encode([">>deu<< the cat sat"]).ids
    for length in range(1, len(whole) + 2):
        cut = tokenizer.source.encode([">>deu<< the cat sat"], length)
        assert cut.ids.tolist() == [*whole[: min(length, len(whole)) - 1], 0]
        assert cut.truncated == (length < len(whole))


@pytest.mark.parametrize("separate", [False, True])
def test_what_is_decoded(write: Write, separate: bool) -> None:
    tokenizer = MarianTokenizer.from_pretrained(write(separate))
    texts = ["die ratte sass", "", "ein test", "das ist"]
    tokens = tokenizer.target.encode(texts)
    ids = [tokens.ids[i:j] for i, j in zip(tokens.cu_seqlens[:-1], tokens.cu_seqlens[1:], strict=True)]
    assert tokenizer.target.decode(ids) == texts
    pad = tokenizer.target.pad_token_id
    padded = np.full((len(ids), 2 + tokens.lengths.max()), pad)  # what a decoder gives
    for row, sequence in zip(padded, ids, strict=True):
        row[1 : 1 + len(sequence)] = sequence
    assert tokenizer.target.decode(padded) == texts
    assert tokenizer.target.decode([[], [pad, 0], [1]]) == ["", "", ""]
    assert tokenizer.target.decode([]) == []


CLEANED = {
    "ein test , ja ?": "ein test, ja?",
    "das ist ' es ' .": "das ist'es '.",
    "do n't ! I 'm , it 's , we 've , you 're": "don't! I'm, it's, we've, you're",
}


def pieces_as_ids(words: list[str]) -> dict[str, Any]:
    """A vocabulary of these words, each with the sign of its space, and their ids as one sequence."""
    ids = {"</s>": 0, "<unk>": 1, "<pad>": 2}
    sequence = [ids.setdefault(f"▁{word}", len(ids)) for word in words]
    return {"vocab__json": ids, "sequence": sequence}


@pytest.mark.parametrize("text", CLEANED)
def test_spaces_are_cleaned_up_where_the_config_says_so(write: Write, text: str) -> None:
    parts = pieces_as_ids(text.split())
    sequence = parts.pop("sequence")
    for cleans in (None, False, True):
        folder = write(**parts, tokenizer_config__json={"clean_up_tokenization_spaces": cleans})
        tokenizer = MarianTokenizer.from_pretrained(folder)
        assert tokenizer.target.decode([sequence]) == [CLEANED[text] if cleans else text]


def test_two_vocabularies(write: Write) -> None:
    tokenizer = MarianTokenizer.from_pretrained(write(separate=True))
    assert tokenizer.source.vocab_size == len(vocabulary("source.spm"))
    assert tokenizer.target.vocab_size == len(vocabulary("target.spm"))
    assert tokenizer.target.pad_token_id == tokenizer.target.vocab_size - 1
    assert tokenizer.target.encode(["die"]).ids.max() < tokenizer.target.vocab_size


@pytest.mark.parametrize("separate", [False, True])
def test_saved_and_loaded_again(write: Write, tmp_path: Path, separate: bool) -> None:
    folder = write(separate)
    tokenizer = MarianTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(tmp_path / "saved")
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert names == {path.name for path in folder.iterdir() if path.is_file()}
    again = MarianTokenizer.from_pretrained(tmp_path / "saved")
    for name in MODELS:
        assert (tmp_path / "saved" / name).read_bytes() == MODELS[name]
    np.testing.assert_array_equal(again.source.encode(TEXTS).ids, tokenizer.source.encode(TEXTS).ids)
    np.testing.assert_array_equal(again.target.encode(GERMAN).ids, tokenizer.target.encode(GERMAN).ids)
    assert again.model_max_length == 7
    assert json.loads((tmp_path / "saved/tokenizer_config.json").read_text())["source_lang"] == "en"


def test_other_names_of_special_tokens(write: Write) -> None:
    names = {"pad_token": {"content": "<nil>", "lstrip": False}, "model_max_length": int(1e30)}
    folder = write(tokenizer_config__json=names, vocab__json=vocabulary("source.spm", last="<nil>"))
    tokenizer = MarianTokenizer.from_pretrained(folder)
    assert tokenizer.target.pad_token_id == tokenizer.source.vocab_size - 1
    assert tokenizer.model_max_length is None
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ValueError, match=r"vocab\.json: the pad_token '<pad>' is not in the vocabulary"):
        MarianTokenizer.from_pretrained(folder)


def test_many_threads(tokenizer: MarianTokenizer) -> None:
    expected = tokenizer.source.encode(TEXTS).ids
    with ThreadPoolExecutor(4) as pool:
        for tokens in pool.map(lambda _: tokenizer.source.encode(TEXTS), range(40)):
            np.testing.assert_array_equal(tokens.ids, expected)


@pytest.mark.parametrize("name", ["source.spm", "target.spm", "vocab.json", "target_vocab.json"])
def test_a_missing_piece(write: Write, name: str) -> None:
    folder = write(separate=True, **{name.replace(".", "__"): None})
    with pytest.raises(FileNotFoundError, match=rf"{folder}: no {name}; a Marian tokenizer has source\.spm, "):
        MarianTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("source.spm", b"junk", "not a SentencePiece model"),
        ("target.spm", b"", "not a SentencePiece model"),
        ("target.spm", MODELS["target.spm"][:-30], "not a SentencePiece model"),
        ("vocab.json", b"{", "not valid JSON"),
        ("vocab.json", ["</s>"], "must hold a JSON object, got list"),
        ("vocab.json", {"</s>": 0, "<unk>": 1}, "the pad_token '<pad>' is not in the vocabulary"),
        ("vocab.json", {"</s>": 0, "<unk>": "1", "<pad>": 2}, "'<unk>' must have an id, got '1'"),
        ("vocab.json", {"</s>": 0, "<unk>": -1, "<pad>": 2}, "'<unk>' must have an id, got -1"),
        ("vocab.json", {"</s>": 0, "<unk>": 2, "<pad>": 2}, "'<unk>' and '<pad>' have the same id 2"),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": {"99": {"content": "<new>"}}},
            r"added token '<new>', 99, is not in vocab\.json",
        ),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": {"x": {"content": "<pad>"}}},
            r"added token '<pad>', x, is not in vocab\.json",
        ),
        ("tokenizer_config.json", {"added_tokens_decoder": [1]}, "added_tokens_decoder must be an object, got list"),
    ],
)
def test_a_damaged_piece(write: Write, name: str, content: Any, message: str) -> None:
    folder = write(**{name.replace(".", "__"): content})
    with pytest.raises(ValueError, match=rf"{folder}/{name}: {message}"):
        MarianTokenizer.from_pretrained(folder)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such folder.*nowhere"):
        MarianTokenizer.from_pretrained(tmp_path / "nowhere")


def test_bad_texts_and_ids(tokenizer: MarianTokenizer) -> None:
    with pytest.raises(TypeError, match=r"texts\[1\] must be str, got int"):
        tokenizer.source.encode(["a", 7])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="lines must be a sequence of str, got the str"):
        tokenizer.source.encode("a cat", name="lines")
    with pytest.raises(ValueError, match=r"lines\[0\] is not valid Unicode: '\\udcff' at position 1"):
        tokenizer.target.encode(["a\udcff"], name="lines")
    with pytest.raises(ValueError, match="max_length must be 1, for the end of the text, or more, got 0"):
        tokenizer.source.encode(["a"], 0)
    with pytest.raises(ValueError, match=r"max_length must be 1, .*, got 2\.5"):
        tokenizer.source.encode(["a"], 2.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tokens: ids has 999, which is not an id of the source vocabulary"):
        tokenizer.source.tokens([0, 999])
    with pytest.raises(ValueError, match="tokens: ids has -1, which is not an id of the target vocabulary"):
        tokenizer.target.tokens([-1])
    with pytest.raises(ValueError, match=r"sequences\[1\] has 900, which is not an id of the target vocabulary"):
        tokenizer.target.decode([[0], [900]])
    with pytest.raises(TypeError, match=r"sequences\[0\] must hold integers, got float64"):
        tokenizer.target.decode([[0.5]])
    with pytest.raises(ValueError, match=r"sequences\[0\] must have one axis, got shape \(\)"):
        tokenizer.target.decode([0, 3])


@pytest.mark.filterwarnings("default")  # theirs are not our errors
@pytest.mark.parametrize("separate", [False, True])
def test_as_in_transformers(write: Write, separate: bool) -> None:
    reason = "transformers, the other side of the parity tests, is not installed"
    transformers = pytest.importorskip("transformers", reason=reason)
    folder = write(separate)
    ours = MarianTokenizer.from_pretrained(folder)
    theirs = transformers.MarianTokenizer.from_pretrained(folder)
    plain = [text for text in TEXTS if "</s>" not in text]  # they take that for a special token
    for text in plain + ENGLISH[:4]:
        assert ours.source.encode([text]).ids.tolist() == theirs(text).input_ids, text
        assert ours.source.encode([text], 3).ids.tolist() == theirs(text, truncation=True, max_length=3).input_ids, text
    for text in GERMAN[:4]:
        ids = theirs(text_target=text).input_ids
        assert ours.target.encode([text]).ids.tolist() == ids, text
        assert ours.target.decode([ids]) == theirs.batch_decode([ids], skip_special_tokens=True)
    for cleans in (False, True):
        for text in CLEANED:
            parts = pieces_as_ids(text.split())
            sequence = parts.pop("sequence")
            spaced = write(**parts, tokenizer_config__json={"clean_up_tokenization_spaces": cleans})
            expected = transformers.MarianTokenizer.from_pretrained(spaced).batch_decode([sequence])
            assert MarianTokenizer.from_pretrained(spaced).target.decode([sequence]) == expected
    ours.save_pretrained(folder / "saved")
    again = transformers.MarianTokenizer.from_pretrained(folder / "saved")
    assert [again(text).input_ids for text in plain] == [theirs(text).input_ids for text in plain]


def test_a_git_lfs_pointer_is_named_once(write: Write) -> None:
    folder = write()
    (folder / "source.spm").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(ValueError, match=f"^{folder / 'source.spm'}: a Git LFS pointer"):
        MarianTokenizer.from_pretrained(folder)
