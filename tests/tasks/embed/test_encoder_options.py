"""The options of sentence embeddings: prompts, streams, truncation and limits."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_sentences import (
    HIDDEN,
    POSITIONS,
    TEXTS,
    VOCABULARY,
    write_bert,
    write_case,
    write_model,
)

import fastattn
from fastattn.tasks import SentenceEncoder, TextTooLongError, TruncationWarning


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be a positive integer, got 0"),
        ({"truncate_dim": 0}, ValueError, "truncate_dim must be from 1 to 16, got 0"),
        ({"truncate_dim": 17}, ValueError, "truncate_dim must be from 1 to 16, got 17"),
        ({"prompt_name": "x"}, ValueError, "there is no prompt 'x', only 'query', 'document'"),
        ({"prompt": 3}, TypeError, "prompt must be str, got int"),
        ({"output_value": None}, ValueError, "output_value must be 'sentence_embedding', got None"),
        ({"output_value": "token_embeddings"}, ValueError, "output_value must be 'sentence_embedding', got 'token_"),
        ({"precision": "int8"}, ValueError, "precision must be 'float32', got 'int8'"),
        ({"convert_to_numpy": False}, ValueError, "convert_to_numpy must be True, got False"),
        ({"convert_to_tensor": True}, ValueError, "convert_to_tensor must be False, got True"),
        ({"device": "cuda"}, ValueError, "device must be 'cpu', got 'cuda'"),
        ({"device": ["cpu", "cpu"]}, ValueError, "device must be 'cpu', got"),
    ],
)
def test_bad_options_are_named(encoder, options, error, message):
    with pytest.raises(error, match=message):
        encoder.encode("the cat", **options)


def test_options_that_have_one_meaning_are_accepted(encoder):
    expected = encoder.encode(TEXTS)
    options = {
        "output_value": "sentence_embedding",
        "precision": "float32",
        "convert_to_numpy": True,
        "convert_to_tensor": False,
        "device": "cpu",
    }
    np.testing.assert_array_equal(encoder.encode(TEXTS, None, None, 32, False, *options.values()), expected)
    for query in (encoder.encode_query, encoder.encode_document):
        np.testing.assert_array_equal(query(TEXTS, **options), expected)
    assert SentenceEncoder(encoder.folder, device="cpu").device == "cpu"
    with pytest.raises(ValueError, match="SentenceEncoder: device must be 'cpu', got 'cuda'"):
        SentenceEncoder(encoder.folder, device="cuda")


def test_normalize_and_truncate(encoder):
    whole = encoder.encode(TEXTS)
    part = encoder.encode(TEXTS, truncate_dim=5)
    np.testing.assert_array_equal(part, whole[:, :5])
    unit = encoder.encode(TEXTS, truncate_dim=5, normalize_embeddings=True)
    np.testing.assert_allclose((unit.astype(np.float64) ** 2).sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(unit * np.sqrt((part**2).sum(axis=1, keepdims=True)), part, atol=1e-6)


def test_prompts(tmp_path):
    folder = write_model(
        tmp_path / "m",
        config_sentence_transformers={"prompts": {"cat": "the cat "}, "default_prompt_name": "cat"},
    )
    encoder = SentenceEncoder(folder)
    expected = encoder.encode("the cat sat", prompt="")
    np.testing.assert_array_equal(encoder.encode("sat"), expected)
    np.testing.assert_array_equal(encoder.encode("sat", prompt_name="cat"), expected)
    np.testing.assert_array_equal(encoder.encode("sat", prompt_name="query", prompt="the cat "), expected)
    assert not np.array_equal(encoder.encode("sat", prompt_name="query"), expected)


def test_queries_and_documents_have_prompts(tmp_path):
    prompts = {"query": "the ", "passage": "a ", "corpus": "cat "}
    encoder = SentenceEncoder(write_model(tmp_path / "m", config_sentence_transformers={"prompts": prompts}))
    np.testing.assert_array_equal(encoder.encode_query("sat"), encoder.encode("the sat"))
    np.testing.assert_array_equal(encoder.encode_query("sat", prompt="zz "), encoder.encode("zz sat"))
    np.testing.assert_array_equal(encoder.encode_query(["sat"], prompt_name="corpus"), encoder.encode(["cat sat"]))
    np.testing.assert_array_equal(encoder.encode_document("sat"), encoder.encode("sat"))  # "document" is always there
    for name in ("document", "passage", "corpus"):
        np.testing.assert_array_equal(encoder.encode_document("sat"), encoder.encode("sat", prompt_name=name))
        del encoder.prompts[name]
    np.testing.assert_array_equal(encoder.encode_document("sat"), encoder.encode("sat"))


def test_a_stream_is_encoded_chunk_by_chunk(encoder):
    asked = []

    def chunks() -> Iterator[list[str]]:
        for i in range(0, len(TEXTS), 3):
            asked.append(i)
            yield TEXTS[i : i + 3]

    stream = encoder.encode_stream(chunks(), prompt="the ", normalize_embeddings=True, truncate_dim=5)
    assert asked == []
    texts, first = next(stream)
    assert (texts, asked) == (TEXTS[:3], [0])
    rest = [embeddings for _, embeddings in stream]
    expected = encoder.encode(TEXTS, prompt="the ", normalize_embeddings=True, truncate_dim=5)
    np.testing.assert_array_equal(np.concatenate([first, *rest]), expected)
    assert list(encoder.encode_stream([])) == []
    assert next(encoder.encode_stream([[]]))[1].shape == (0, HIDDEN)
    for options, message in [({"prompt_name": "x"}, "there is no prompt 'x'"), ({"batch_size": 0}, "batch_size")]:
        with pytest.raises(ValueError, match=message):
            encoder.encode_stream([], **options)  # at once
    with pytest.raises(TypeError, match="encode_stream: sentences must be an iterable of str, got int"):
        next(encoder.encode_stream([3]))
    with pytest.raises(TypeError, match="encode_stream: chunks must hold lists of sentences, got the str 'one text'"):
        next(encoder.encode_stream(["one text"]))
    with pytest.raises(TypeError, match="embed: sentences must be an iterable of str, got str"):
        encoder.embed("one text")


def test_a_stream_counts_what_it_cuts(tmp_path):
    folder = write_case("truncated", tmp_path / "m")
    chunks = [["the cat"], ["sat", "cat " * 20], [], ["cat " * 7, "a"]]
    with pytest.warns(TruncationWarning) as caught:
        list(SentenceEncoder(folder).encode_stream(chunks))
    warning = caught[0].message
    assert isinstance(warning, TruncationWarning)
    assert (warning.truncated, warning.total, warning.index, warning.tokens) == (2, 5, 2, 22)
    assert caught[0].filename == __file__
    stream = SentenceEncoder(folder, truncation="error").encode_stream(chunks)
    next(stream)
    with pytest.raises(TextTooLongError, match=r"sentences\[2\] has 22 tokens") as error:
        next(stream)
    assert error.value.index == 2


def test_a_prompt_that_leaves_no_text_is_refused(tmp_path):
    folder = write_model(tmp_path / "m", pooling={"include_prompt": False}, sentence_bert_config={"max_seq_length": 5})
    encoder = SentenceEncoder(folder, truncation="silent")
    encoder.encode("sat", prompt="the cat ")
    with pytest.raises(ValueError, match="a prompt of 4 tokens leaves no text in max_seq_length = 5"):
        encoder.encode("sat", prompt="the cat sat ")


def test_tokenize_gives_what_the_model_takes(encoder):
    batch = encoder.tokenize(TEXTS)
    hidden = fastattn.models.BertModel.from_pretrained(encoder.folder)(**batch).last_hidden_state
    mean = np.stack([rows[mask > 0].mean(axis=0) for rows, mask in zip(hidden, batch["attention_mask"], strict=True)])
    np.testing.assert_allclose(mean, encoder.encode(TEXTS), atol=1e-5)
    assert encoder.tokenize([])["input_ids"].shape == (0, 0)


# limits


def test_truncation_warns_with_the_count(tmp_path):
    encoder = SentenceEncoder(write_case("truncated", tmp_path / "m"))
    texts = ["the cat", "the cat sat " * 3, "cat " * 20]
    with pytest.warns(TruncationWarning, match=r"texts longer than max_seq_length tokens were truncated") as caught:
        cut = encoder.encode(texts)
    warning = caught[0].message
    assert isinstance(warning, TruncationWarning)
    assert (warning.truncated, warning.total, warning.limit, warning.index, warning.tokens) == (2, 3, 8, 1, 11)
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(cut[2], encoder.encode("cat " * 6))


def test_a_service_logs_truncation_once(tmp_path):
    """Python shows the same text from the same line once."""
    encoder = SentenceEncoder(write_case("truncated", tmp_path / "m"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for count in range(8, 20):
            encoder.encode(["cat " * count] * count)
    assert len(caught) == 1


def test_a_limit_of_a_folder_is_that_of_the_positions(tmp_path):
    """transformers writes 1e30, an integer, for no limit."""
    for i, limit in enumerate([2**31, int(1e30)]):
        folder = write_model(tmp_path / str(i), sentence_bert_config={"max_seq_length": limit})
        assert SentenceEncoder(folder).max_seq_length == POSITIONS


def test_tokens_without_an_embedding(tmp_path):
    """A warning when loading, and the place in all of a stream when a text has one. Nothing is computed then."""
    folder = write_model(tmp_path / "m")
    (folder / "added_tokens.json").write_text(json.dumps({"<x>": len(VOCABULARY)}))
    with pytest.warns(UserWarning, match=rf"{folder}: .* none for these tokens: '<x>' \({len(VOCABULARY)}\)\. A text"):
        encoder = SentenceEncoder(folder)
    assert encoder.encode(["a cat"]).shape == (1, HIDDEN)
    encoder._run = None  # nothing is computed
    message = (
        rf"sentences\[3\] has the token '<x>' \({len(VOCABULARY)}\), but the model has {len(VOCABULARY)} embeddings"
    )
    with pytest.raises(ValueError, match=rf"^encode: {message}"):
        encoder.encode(["a", "b", "c", "a <x>"])
    del encoder._run
    stream = encoder.encode_stream([["a", "b"], ["c", "a <x>"]])
    next(stream)
    with pytest.raises(ValueError, match=rf"^encode_stream: {message}"):
        next(stream)


def test_what_is_no_text_is_named_by_its_place_in_the_stream(encoder):
    stream = encoder.encode_stream([["a"] * 700, ["b", 5]])
    next(stream)
    with pytest.raises(TypeError, match=r"^encode_stream: sentences\[701\] must be str, got int"):
        next(stream)


@pytest.mark.parametrize("lowercase", [True, False])
def test_do_lower_case_is_that_of_sentence_transformers(tmp_path, lowercase):
    """For every letter that has two cases, alone and at the end of a word."""
    library = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
    letters = [chr(i) for i in range(sys.maxunicode + 1) if chr(i).lower() != chr(i)]
    options = {"sentence_bert_config": {"do_lower_case": True}, "lowercase": lowercase}
    folder = write_model(tmp_path / "m", **options)
    pieces = {
        piece for letter in letters for form in (letter, letter.lower(), letter.upper().lower()) for piece in form
    }
    marked = [*pieces, *(f"##{piece}" for piece in pieces)]
    vocabulary = [*dict.fromkeys([*VOCABULARY, *marked])]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": len(vocabulary)}))
    tensors = load_file(folder / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"] = np.zeros((len(vocabulary), HIDDEN), np.float32)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    texts = [*letters, *(f"A{letter}" for letter in letters), "ΟΔΟΣ", "İSTANBUL"]
    theirs = library.SentenceTransformer(str(folder), device="cpu").tokenizer(texts)["input_ids"]
    tokens = SentenceEncoder(folder).tokenizer.encode(texts)
    assert [ids.tolist() for ids in np.split(tokens.ids, tokens.cu_seqlens[1:-1])] == theirs


def test_truncation_error_names_the_text(tmp_path):
    encoder = SentenceEncoder(write_case("truncated", tmp_path / "m"), truncation="error")
    encoder.encode("cat " * 6)
    with pytest.raises(TextTooLongError, match=r"sentences\[1\] has 9 tokens, more than max_seq_length = 8"):
        encoder.encode(["the", "cat " * 7, "cat " * 20])


def test_truncation_silent(tmp_path):
    encoder = SentenceEncoder(write_case("truncated", tmp_path / "m"), truncation="silent")
    np.testing.assert_array_equal(encoder.encode("cat " * 20), encoder.encode("cat " * 6))
    with pytest.raises(ValueError, match="truncation must be one of warn, error, silent, got 'ignore'"):
        SentenceEncoder(tmp_path / "m", truncation="ignore")


@pytest.mark.parametrize(("configured", "effective"), [(8, 8), (POSITIONS + 1, POSITIONS), (None, POSITIONS)])
def test_the_limit_is_never_over_the_positions(tmp_path, configured, effective):
    folder = write_model(tmp_path / "m", sentence_bert_config={"max_seq_length": configured})
    encoder = SentenceEncoder(folder, truncation="silent")
    assert encoder.max_seq_length == effective
    encoder.encode("cat " * 100)


def test_the_tokenizers_limit_counts_where_no_other_is_named(tmp_path):
    folder = write_bert(tmp_path / "m")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": 10}))
    assert SentenceEncoder(folder).max_seq_length == 10


def test_max_seq_length_can_be_set(encoder):
    whole = encoder.encode("the cat sat the cat")
    encoder.max_seq_length = 5
    np.testing.assert_array_equal(encoder.encode("the cat sat the cat"), encoder.encode("the cat sat"))
    encoder.max_seq_length = POSITIONS
    np.testing.assert_array_equal(encoder.encode("the cat sat the cat"), whole)
    for value in (2, POSITIONS + 1):
        with pytest.raises(ValueError, match=f"max_seq_length must be from 3 to {POSITIONS}, got {value}"):
            encoder.max_seq_length = value


# the rest of the face
