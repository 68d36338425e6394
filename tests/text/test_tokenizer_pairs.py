"""Pairs, windows, characters and words of tokens, against the `tokenizers` library itself and against transformers."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

import tokenizers
from helpers_sentences import TEXTS, VOCABULARY, write_bert

from fastattn.text import TokenizedTexts, Tokenizer, long_texts
from fastattn.text import tokenizer as tokenizer_module

PAIRS = list(itertools.product(TEXTS[:6], TEXTS[:2:-1]))
FIRST, SECOND = [pair[0] for pair in PAIRS], [pair[1] for pair in PAIRS]
CLS, SEP = VOCABULARY.index("[CLS]"), VOCABULARY.index("[SEP]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert") / "bert")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_pretrained(folder)


def template(single: str, pair: str) -> Any:
    special = [(token, VOCABULARY.index(token)) for token in ("[CLS]", "[SEP]", "[MASK]")]
    return tokenizers.processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)


POST_PROCESSORS = {
    "bert": lambda: template("[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"),
    "bert processing": lambda: tokenizers.processors.BertProcessing(("[SEP]", SEP), ("[CLS]", CLS)),
    "roberta": lambda: tokenizers.processors.RobertaProcessing(("[SEP]", SEP), ("[CLS]", CLS), False, False),
    "t5": lambda: template("$A [SEP]", "$A [SEP] $B [SEP]"),
    "xlnet": lambda: template("$A:0 [SEP]:0 [CLS]:2", "$A:0 [SEP]:0 $B:1 [SEP]:1 [CLS]:2"),
    "b before a": lambda: template("[CLS] [MASK] $A", "[CLS]:1 $B:1 [MASK]:0 [SEP]:2 $A:0"),
    "none": lambda: None,
}


@pytest.fixture(params=POST_PROCESSORS)
def backend(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Any:
    state = json.loads(tokenizer._backend.to_str()) | {"post_processor": None}
    backend = tokenizers.Tokenizer.from_str(json.dumps(state))
    if processor := POST_PROCESSORS[request.param]():
        backend.post_processor = processor
    return backend


def copied(backend: Any, **truncation: Any) -> Any:
    library = tokenizers.Tokenizer.from_str(backend.to_str())
    library.enable_truncation(**truncation)
    return library


def rows(tokens: TokenizedTexts, values: np.ndarray) -> list[list[Any]]:
    return [part.tolist() for part in np.split(values, tokens.cu_seqlens[1:-1])] if len(tokens) else []


def check(tokens: TokenizedTexts, expected: list[Any], samples: list[int]) -> None:
    """All fields against the library's Encodings."""
    assert rows(tokens, tokens.ids) == [e.ids for e in expected]
    assert rows(tokens, tokens.token_type_ids) == [e.type_ids for e in expected]
    assert rows(tokens, tokens.special_tokens_mask) == [[*map(bool, e.special_tokens_mask)] for e in expected]
    sequences = [[-1 if x is None else x for x in e.sequence_ids] for e in expected]
    assert rows(tokens, tokens.sequence_ids) == sequences
    assert tokens.overflow_to_sample_mapping.tolist() == samples
    assert rows(tokens, tokens.offset_mapping) == [[*map(list, e.offsets)] for e in expected]
    assert rows(tokens, tokens.word_ids) == [[-1 if x is None else x for x in e.word_ids] for e in expected]


def limits(special: int) -> Iterator[int]:
    yield from (special + more for more in (1, 2, 3, 6, 7, 12))


@pytest.mark.parametrize("side", ["right", "left"])
def test_pairs_are_cut_as_the_library_does(backend: Any, side: str) -> None:
    ours = Tokenizer(backend, truncation_side=side)
    full = [len(e.ids) for e in backend.encode_batch(PAIRS)]
    for limit in limits(ours._templates[1].special):
        expected = copied(backend, max_length=limit, direction=side).encode_batch(PAIRS)
        tokens = ours.encode(FIRST, limit, text_pairs=SECOND, return_offsets_mapping=True)
        check(tokens, expected, [*range(len(PAIRS))])
        assert tokens.full_lengths.tolist() == full
        lean = ours.encode(FIRST, limit, text_pairs=SECOND, parallel=False)
        for name in ("ids", "cu_seqlens", "token_type_ids", "sequence_ids", "full_lengths"):
            np.testing.assert_array_equal(getattr(lean, name), getattr(tokens, name))


@pytest.mark.parametrize("strategy", ["only_first", "only_second"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_one_text_of_a_pair_is_cut_as_the_library_does(backend: Any, side: str, strategy: str) -> None:
    """And refused where the library does."""
    ours = Tokenizer(backend, truncation_side=side)
    for limit in limits(ours._templates[1].special):
        library = copied(backend, max_length=limit, direction=side, strategy=strategy)
        kept, expected = [], []
        for i, pair in enumerate(PAIRS):
            try:
                expected.append(library.encode(*pair))
                kept.append(i)
            except Exception:
                message = rf"^[ab]\[9\] has \d+ tokens, which leaves 0 for [ab]\[9\] in max_length {limit}$"
                names = {"name": "a", "pairs_name": "b", "first": 9}
                with pytest.raises(ValueError, match=message):
                    ours.encode([pair[0]], limit, text_pairs=[pair[1]], truncation=strategy, **names)
        some = {"truncation": strategy, "return_offsets_mapping": True}
        tokens = ours.encode([FIRST[i] for i in kept], limit, text_pairs=[SECOND[i] for i in kept], **some)
        check(tokens, expected, [*range(len(kept))])


@pytest.mark.parametrize(("length", "step"), [(6, 2), (5, 2), (9, 4), (4, 9), (12, 1)])
def test_a_step_is_the_distance_of_windows(tokenizer: Tokenizer, length: int, step: int) -> None:
    """BERT's run_squad: a window is as wide as the question leaves room, and the next one begins a step further."""
    questions, context = ["the", "the cat sat"], "a b c d e f g h i j"
    tokens = tokenizer.encode(questions, 3 + 3 + length, text_pairs=[context] * 2, truncation="only_second", step=step)
    expected = []
    for question in questions:
        words = question.split()
        width, start = 6 + length - 3 - len(words), 0
        while True:
            some = context.split()[start : start + width]
            expected.append(["[CLS]", *words, "[SEP]", *some, "[SEP]"])
            if start + len(some) == 10:
                break
            start += min(len(some), step)
    assert [tokenizer.tokens(ids) for ids in tokens] == expected
    alone = tokenizer.encode([context], 2 + length, step=step)
    starts = [tokenizer.tokens(ids)[1] for ids in alone]
    assert starts == [context.split()[i * min(step, length)] for i in range(len(starts))]


@pytest.mark.parametrize("side", ["right", "left"])
def test_windows_are_those_of_the_library(backend: Any, side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_module, "CHUNK", 3)
    ours = Tokenizer(backend, truncation_side=side)
    for limit, stride in ((4, 0), (5, 1), (8, 3), (12, 5)):
        expected, samples = [], []
        if limit - ours.special_tokens <= stride:
            continue
        library = copied(backend, max_length=limit, direction=side, stride=stride)
        for i, text in enumerate(TEXTS):
            encoding = library.encode(text)
            expected += [encoding, *encoding.overflowing]
            samples += [i] * (1 + len(encoding.overflowing))
        tokens = ours.encode(TEXTS, limit, stride=stride, return_offsets_mapping=True)
        check(tokens, expected, samples)
        assert not tokens.truncated.any()


def test_windows_over_the_second_text_are_those_of_the_library(backend: Any) -> None:
    ours = Tokenizer(backend)
    special, pair = ours._templates[1].special, ("the cat", "abcdef the cat sat, the cat sat. zz the the")
    for side, strategy in ((1, "only_second"), (0, "only_first")):
        texts = pair if side else pair[::-1]
        for stride in (0, 1, 4):
            library = copied(backend, max_length=special + 8, strategy=strategy, stride=stride)
            encoding = library.encode(*texts)
            expected = [encoding, *encoding.overflowing]
            options = {"truncation": strategy, "stride": stride, "return_offsets_mapping": True}
            tokens = ours.encode([texts[0]] * 2, special + 8, text_pairs=[texts[1]] * 2, **options)
            assert len(expected) > 2
            samples = [0] * len(expected) + [1] * len(expected)
            if ours._templates[1].leading or ours.special_tokens == 2:
                check(tokens, expected * 2, samples)
            else:  # the library gives its second window other types and sequences than its first one
                assert rows(tokens, tokens.ids) == [e.ids for e in expected * 2]
                assert rows(tokens, tokens.offset_mapping) == [[*map(list, e.offsets)] for e in expected * 2]
                assert tokens.overflow_to_sample_mapping.tolist() == samples


def test_words(backend: Any) -> None:
    ours = Tokenizer(backend)
    sentences = [text.split() for text in TEXTS]
    expected = backend.encode_batch(sentences, is_pretokenized=True)
    tokens = ours.encode(sentences, is_split_into_words=True)
    check(tokens, expected, [*range(len(TEXTS))])
    pairs = backend.encode_batch([*zip(sentences, sentences[::-1], strict=True)], is_pretokenized=True)
    found = ours.encode(sentences, text_pairs=sentences[::-1], is_split_into_words=True)
    check(found, pairs, [*range(len(TEXTS))])


@pytest.mark.parametrize("prefix_space", [False, True])
@pytest.mark.parametrize("trim", [False, True])
def test_byte_pairs_of_roberta(prefix_space: bool, trim: bool) -> None:
    """Offsets are trimmed by the post-processor, once."""
    library = tokenizers.Tokenizer(tokenizers.models.BPE())
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    library.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(TEXTS, trainer)
    library.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim, prefix_space)
    ours = Tokenizer(library)
    first, second = ["the cat 🐈  sat", " a", "Zoë"], ["  abc <mask> the", "", "cat cat"]
    expected = [library.encode(*pair) for pair in zip(first, second, strict=True)]
    tokens = ours.encode(first, text_pairs=second, return_offsets_mapping=True)
    check(tokens, expected, [0, 1, 2])
    ids = (ours.cls_token_id, ours.pad_token_id, ours.sep_token_id, ours.unk_token_id, ours.mask_token_id)
    assert ids == (0, 1, 2, 3, 4)
    space = " " if prefix_space else ""
    assert ours.decode(ours.encode(["the cat 🐈  sat"])) == [f"{space}the cat 🐈  sat"]


@pytest.mark.parametrize(("piece", "at_once"), [(1, 1), (5, 7), (13, 1000)])
def test_places_of_a_long_text_are_those_of_the_whole(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, piece: int, at_once: int
) -> None:
    texts = [*TEXTS, "ab 猫cat,  the\u2028sat!! é ", "the cat " * 9]
    whole = tokenizer.encode(texts, return_offsets_mapping=True)
    pairs = tokenizer.encode(texts, text_pairs=texts)
    monkeypatch.setattr(long_texts, "PIECE", piece)
    monkeypatch.setattr(long_texts, "AT_ONCE", at_once)
    found = tokenizer.encode(texts, return_offsets_mapping=True)
    for name in ("ids", "cu_seqlens", "offset_mapping", "word_ids"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    np.testing.assert_array_equal(tokenizer.encode(texts, text_pairs=texts).ids, pairs.ids)


def test_characters_of_a_token(tokenizer: Tokenizer) -> None:
    text = "Thé  cat🐈 sat"
    tokens = tokenizer.encode([text], return_offsets_mapping=True)
    assert [text[a:b] for a, b in tokens.offset_mapping] == ["", "Thé", "cat🐈", "sat", ""]
    assert tokens.word_ids.tolist() == [-1, 0, 1, 2, -1]
    with pytest.raises(ValueError, match="offset_mapping and word_ids need encode"):
        _ = tokenizer.encode([text]).offset_mapping


def test_dtypes_and_nothing(tokenizer: Tokenizer) -> None:
    for texts in ([], ["the cat"]):
        tokens = tokenizer.encode(texts, 8, text_pairs=texts, return_offsets_mapping=True)
        assert len(tokens) == len(texts)
        dtypes = {name: str(getattr(tokens, name).dtype) for name in (
            "ids", "cu_seqlens", "token_type_ids", "sequence_ids", "special_tokens_mask", "offset_mapping", "word_ids",
            "overflow_to_sample_mapping", "full_lengths")}  # fmt: skip
        assert dtypes.pop("cu_seqlens") == "int32"
        assert dtypes.pop("special_tokens_mask") == "bool"
        assert {*dtypes.values()} == {"int64"}


def test_limits_of_many_threads_do_not_mix(tokenizer: Tokenizer) -> None:
    def lengths(limit: int) -> list[int]:
        return tokenizer.encode(FIRST, limit, text_pairs=SECOND).lengths.tolist()

    alone = {limit: lengths(limit) for limit in (5, 8, 13)}
    with ThreadPoolExecutor(8) as pool:
        for limit, found in zip([5, 8, 13] * 10, pool.map(lengths, [5, 8, 13] * 10), strict=True):
            assert found == alone[limit]


def test_tokenised_texts_can_be_pickled(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode(FIRST, text_pairs=SECOND)
    for again in (pickle.loads(pickle.dumps(tokens)), copy.deepcopy(tokens)):
        np.testing.assert_array_equal(again.token_type_ids, tokens.token_type_ids)


def test_options_that_do_not_go_together(tokenizer: Tokenizer) -> None:
    def fails(message: str, *args: Any, error: type[Exception] = ValueError, **options: Any) -> None:
        with pytest.raises(error, match=message):
            tokenizer.encode(*args, **options)

    two = {"text_pairs": ["the cat sat the cat sat"]}
    fails("^encode: texts has 2 entries, but encode: text_pairs has 1$", ["a", "b"], **two)
    fails(r"^encode: text_pairs\[0\] must be str, got int$", ["a"], text_pairs=[1], error=TypeError)
    fails("^encode: max_length must be more than the 3 special tokens, got 3$", ["a"], 3, **two)
    fails("^encode: truncation must be one of longest_first, only_first, got 'only_second'$", ["a"], 9,
          truncation="only_second")  # fmt: skip
    fails("got 'drop'", ["a"], 9, truncation="drop", **two)
    fails("^encode: stride needs a max_length$", ["a"], stride=1)
    fails("^encode: step needs a max_length$", ["a"], step=1)
    fails("^encode: step must be a positive integer, got 0$", ["a"], 9, step=0)
    fails("^encode: stride and step both say how far a window moves", ["a"], 9, step=1, stride=1)
    fails("^encode: step needs truncation only_first or only_second, got longest_first$", ["a"], 9, step=1, **two)
    fails("^encode: stride needs truncation only_first or only_second, got longest_first$", ["a"], 9, stride=1, **two)
    fails("^encode: stride must be from 0 to 3, below the 4 tokens that max_length 6 leaves to a text, got 4$",
          ["a"], 6, stride=4)  # fmt: skip
    fails(r"^encode: texts\[0\] has 4 tokens, which leaves 2 for encode: text_pairs\[0\] in max_length 9, "
          "but stride 2 needs more$", ["a a a a"], 9, stride=2, truncation="only_second", **two)  # fmt: skip
    fails("must be a sequence of words, got the str 'the cat'", ["the cat"], is_split_into_words=True, error=TypeError)
    fails(r"^encode: text_pairs\[0\] has the token 'cat' \(58\), but the model has 58", ["a"], rows=58, **two)
    fails(
        r"^lines\[4\] has the token 'cat' \(58\)", ["a", "a b c d e cat"], 5, stride=0, rows=58, name="lines", first=3
    )


def test_special_ids(tokenizer: Tokenizer, folder: Path, tmp_path: Path) -> None:
    ids = {"cls": 2, "sep": 3, "mask": 4, "pad": 0, "unk": 1}
    assert {name: getattr(tokenizer, f"{name}_token_id") for name in ids} == ids
    assert (tokenizer.token_to_id("[MASK]"), tokenizer.token_to_id("dog")) == (4, None)
    state = tokenizer._backend.to_str()
    for old, new in (("[CLS]", "<s>"), ("[SEP]", "</s>"), ("[MASK]", "<mask>"), ("[PAD]", "<pad>")):
        state = state.replace(old, new)
    (tmp_path / "tokenizer.json").write_text(state.replace("[UNK]", "?!"))
    ids = {"cls": 2, "sep": 3, "mask": 4, "pad": 0, "unk": None}
    roberta = Tokenizer.from_pretrained(tmp_path)
    assert {name: getattr(roberta, f"{name}_token_id") for name in ids} == ids
    (tmp_path / "tokenizer_config.json").write_text('{"mask_token": "the", "unk_token": {"content": "?!"}}')
    named = Tokenizer.from_pretrained(tmp_path)
    assert (named.mask_token_id, named.unk_token_id) == (VOCABULARY.index("the"), 1)


def test_decode(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode(["The cat sat.", "", "abz"])
    assert tokenizer.decode(tokens) == ["the cat sat.", "", "abz"]
    assert tokenizer.decode(tokens, skip_special_tokens=False)[2] == "[CLS] abz [SEP]"
    assert tokenizer.decode(np.array([[2, 58, 3]])) == tokenizer.decode([[2, 58, 3]]) == ["cat"]
    assert tokenizer.decode([[], [58]]) == ["", "cat"]
    assert (tokenizer.tokens([2, 58]), tokenizer.tokens([])) == (["[CLS]", "cat"], [])
    with pytest.raises(TypeError, match=r"^tokens: ids must be a sequence of ids, got 5$"):
        tokenizer.tokens(5)
    for wrong in (-100, len(VOCABULARY), 2**40):
        with pytest.raises(ValueError, match=rf"^decode: sequences\[1\] must be ids of tokens, got {wrong}$"):
            tokenizer.decode([[2], [wrong]])
    with pytest.raises(TypeError, match=r"^decode: sequences\[0\] must be a sequence of ids, got 2$"):
        tokenizer.decode([2, 58, 3])  # type: ignore[list-item]


TRANSFORMERS = {
    "cut": {"truncation": "longest_first", "max_length": 9},
    "first": {"truncation": "only_first", "max_length": 24},
    "second": {"truncation": "only_second", "max_length": 24},
    "windows": {"truncation": "only_second", "max_length": 24, "stride": 2},
    "whole": {},
}


@pytest.mark.parametrize("options", TRANSFORMERS.values(), ids=TRANSFORMERS)
def test_pairs_are_those_of_transformers(folder: Path, tokenizer: Tokenizer, options: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    theirs = transformers.BertTokenizerFast.from_pretrained(folder)
    first, second = ["the cat", "a b"], ["abc, the cat sat. " * 4, "zz"]
    if options.get("truncation") == "only_first":
        first, second = second, first
    more = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
    wanted = theirs(first, second, return_overflowing_tokens="stride" in options, **options, **more)
    tokens = tokenizer.encode(first, text_pairs=second, return_offsets_mapping=True, **options)
    assert rows(tokens, tokens.ids) == wanted["input_ids"]
    assert rows(tokens, tokens.token_type_ids) == wanted["token_type_ids"]
    assert rows(tokens, tokens.special_tokens_mask.astype(int)) == wanted["special_tokens_mask"]
    assert rows(tokens, tokens.offset_mapping) == [[*map(list, some)] for some in wanted["offset_mapping"]]
    words = [[-1 if word is None else word for word in wanted.word_ids(i)] for i in range(len(tokens))]
    assert rows(tokens, tokens.word_ids) == words
    assert tokens.overflow_to_sample_mapping.tolist() == wanted.get("overflow_to_sample_mapping", [0, 1])
    assert tokenizer.decode(tokens) == theirs.batch_decode(wanted["input_ids"], skip_special_tokens=True)
    assert tokenizer.decode(tokens, skip_special_tokens=False) == theirs.batch_decode(wanted["input_ids"])


def test_words_and_special_ids_are_those_of_transformers(folder: Path, tokenizer: Tokenizer) -> None:
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    theirs = transformers.BertTokenizerFast.from_pretrained(folder)
    sentences = [["the", "cab", "."], ["cat's"]]
    wanted = theirs(sentences, is_split_into_words=True)
    tokens = tokenizer.encode(sentences, is_split_into_words=True)
    assert rows(tokens, tokens.ids) == wanted["input_ids"]
    words = [[-1 if word is None else word for word in wanted.word_ids(i)] for i in range(2)]
    assert rows(tokens, tokens.word_ids) == words
    for name in ("cls", "sep", "mask", "pad", "unk"):
        assert getattr(tokenizer, f"{name}_token_id") == getattr(theirs, f"{name}_token_id")
