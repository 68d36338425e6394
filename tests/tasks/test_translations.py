"""Beams, scores, prefixes, unknown words, alignments, sentences and streams of a Translator."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from helpers_translator import LETTERS, make

from fastattn.tasks import Translation, Translator
from fastattn.tasks.translate import translations
from fastattn.text import BytePairs, Characters, SubwordTokenizer

TEXTS = ["abc", "", "hgfedcba", "a", "bad cab", "猫ab"]
DETAILS = [
    {"num_beams": 4},
    {"num_beams": 3, "n_best": 3, "length_penalty": 0.3},
    {"do_sample": True, "seed": 3, "n_best": 2},
]


@pytest.fixture
def translator() -> Translator:
    return make()


def details(translator: Translator, texts: Any, **options: Any) -> Any:
    return translator.translate(texts, return_scores=True, **options)


@pytest.mark.parametrize("options", DETAILS)
def test_a_result_does_not_depend_on_the_others(translator: Translator, options: dict[str, Any]) -> None:
    together = details(translator, TEXTS, **options)
    assert together == [details(translator, text, **options) for text in TEXTS]
    assert together[::-1] == details(translator, TEXTS[::-1], **options, batch_tokens=10)
    texts = translator.translate(TEXTS, **options)
    if "n_best" in options:
        assert texts == [[one.text for one in each] for each in together]
        assert texts[1] == [""] * options["n_best"]
    else:
        assert texts == [each.text for each in together]


def test_scores_are_what_score_says(translator: Translator) -> None:
    texts = [text for text in TEXTS if text]
    for text, found in zip(texts, details(translator, texts, num_beams=3), strict=True):
        if found.tokens[-1] != "</s>":  # cut at 50 tokens more than its text
            continue
        assert "<unk>" not in found.tokens
        (again,) = translator.score([text], [found.text])
        assert again.tokens == found.tokens
        np.testing.assert_allclose(again.token_log_probs, found.token_log_probs, rtol=1e-4, atol=1e-5)
        assert again.score == pytest.approx(found.score, abs=1e-4)
    scored = translator.score(["abc", "hh"], ["CAB", "G"])
    assert scored == [*translator.score(["abc"], ["CAB"]), *translator.score(["hh"], ["G"])]
    assert translator.score(["abc", "hh"], ["CAB", "G"], batch_tokens=1) == scored
    assert scored[0].score == pytest.approx(np.mean(scored[0].token_log_probs), abs=1e-5)
    assert scored[0].tokens == ["C", "A", "B", "</s>"]


@pytest.mark.parametrize("forced", [None, 1])
def test_a_score_is_that_of_the_tokens(forced: int | None) -> None:
    """Also of translations that are cut."""
    translator = make(forced_eos_token_id=forced)
    found = details(translator, ["abc", "hgfedcba", "hh"], num_beams=3, n_best=3, length_penalty=0.7)
    every = [one for each in found for one in each]
    longest = translator.max_length if forced else translator.max_length - 1
    assert any(len(one.tokens) == longest for one in every)
    for one in every:
        assert one.score == pytest.approx(sum(one.token_log_probs) / len(one.tokens) ** 0.7, rel=1e-5)
        assert len(one.token_log_probs) == len(one.tokens)
        assert len(one.text) == len(one.tokens) - (one.tokens[-1] == "</s>") <= translator.max_length - 1


@pytest.mark.parametrize("more", [{}, {"return_alignments": True, "replace_unknowns": True}, {"prefixes": "A"}])
def test_fewer_translations_than_asked_for(translator: Translator, more: dict[str, Any]) -> None:
    options = {"num_beams": 4, "n_best": 4, "vocabulary": ["A"], "no_repeat_ngram_size": 1, **more}
    found = details(translator, ["abc", "hh"], **options)
    for each in found:
        real = [one for one in each if one.tokens]
        assert 0 < len(real) < 4
        none = Translation("", float("-inf"), [], [], [] if "return_alignments" in more else None)
        assert each[len(real) :] == [none] * (4 - len(real))
    [nothing] = details(translator, ["hh"], **{**options, "min_length": 30})
    assert [one.text for one in nothing] == [""] * 4


def test_options_do_not_depend_on_the_texts(translator: Translator) -> None:
    """Wrong ones are refused without a text, and a limit of one text does not refuse another."""
    for texts in ([], [""], ["abc"]):
        with pytest.raises(ValueError, match=r"generate: num_beams must be from 1 to 12, .* got '4'"):
            translator.translate(texts, num_beams="4")
    translator = make(max_position_embeddings=200)
    texts = ["a", "abcabcabcabcabcabcabcabcabc"]
    together = translator.translate(texts, min_length=70)
    assert together == [translator.translate(text, min_length=70) for text in texts]


def test_prefixes(translator: Translator) -> None:
    for options in ({}, {"num_beams": 3}):
        found = details(translator, ["abc", "hh", "ab"], prefixes=["HAG", "", "B"], **options)
        assert found[0].text.startswith("HAG")
        assert found[0].token_log_probs[:3] == [0.0, 0.0, 0.0]
        assert found[1] == details(translator, "hh", **options)
        assert found[2] == details(translator, "ab", prefixes="B", **options)


def test_a_vocabulary(translator: Translator) -> None:
    for found in translator.translate(TEXTS, vocabulary=["AB", "G"], num_beams=2):
        assert set(found) <= set("ABG")


class TestUnknowns:
    def model(self, seed: int = 0) -> Translator:
        """One that likes unknown words."""
        translator = make()
        bias = translator.model.final_logits_bias.data
        bias[0, 2] += 6.0
        return translator

    def test_they_are_replaced_by_what_they_attend_to(self) -> None:
        translator = self.model()
        left_out = translator.translate(["abc", "hg"], return_alignments=True)
        replaced = translator.translate(["abc", "hg"], replace_unknowns=True)
        for text, found, other in zip(["abc", "hg"], left_out, replaced, strict=True):
            words, before, expected = [*text, ""], None, ""
            for token, place in zip(found.tokens, found.alignment, strict=True):
                word = words[place] if token == "<unk>" else token.replace("</s>", "")
                if not (token == "<unk>" and before == ("<unk>", word)):
                    expected += word
                before = token, word
            assert other == expected != found.text

    def test_whole_words_of_byte_pairs(self) -> None:
        pairs = BytePairs.train(["the old man saw the sea", "a man a plan"], 40)
        assert pairs.words("the  Xold seaY") == ["the", "Xold", "Xold", "Xold", "seaY", "seaY"]
        ids = [*pairs.encode(["the man"]).ids[:-1].tolist(), 2, 2, 1]
        assert pairs.decode([ids]) == ["the man"]
        assert pairs.decode([ids], [["Müller", ""]]) == ["the man Müller"]


def test_alignments_are_what_attention_says(translator: Translator) -> None:
    for text in ("abc", "hgfedcba"):
        found = translator.translate(text, return_alignments=True, num_beams=2)
        if found.tokens[-1] != "</s>":
            continue
        weights, source, target = translator.attention(text, found.text)
        assert target == found.tokens
        assert found.alignment == weights.astype(np.float64).mean((0, 1)).argmax(1).tolist()
        assert max(found.alignment) < len(source)


def test_a_long_text_is_cut_into_sentences(translator: Translator) -> None:
    translator = make()
    translator.tokenizer = SubwordTokenizer(Characters(LETTERS + ".!"), Characters(LETTERS.upper()))
    translator = Translator(make(vocab_size=14).model, translator.tokenizer)
    sentences = ["Abc abc abc abc.", "Bad cab bad cab!", "Hgf hgf hgf hgf."]
    whole = " ".join(sentences)
    assert translator.translate([whole, "abc"], overlong="split", num_beams=2) == [
        " ".join(filter(None, translator.translate(sentences, num_beams=2))),
        translator.translate("abc", num_beams=2),
    ]
    assert translator.translate(whole, overlong="split", prefixes="HAG") == " ".join(
        [translator.translate(sentences[0], prefixes="HAG"), *filter(None, translator.translate(sentences[1:]))]
    )
    endless = "abc " * 30  # no sentence ends: it is cut between words
    parts = translator._fitting(endless.strip())
    assert " ".join(parts) == endless.strip()
    assert all(len(part) < 40 for part in parts)
    assert translator._fitting("b" * 100) == ["b" * 25] * 4


def test_a_stream_is_read_as_it_is_needed(translator: Translator) -> None:
    read = []

    def texts() -> Iterator[str]:
        for text in itertools.cycle(TEXTS):
            read.append(text)
            yield text

    stream = translator.translate_iterable(texts(), read_ahead=4, num_beams=2)
    found = list(itertools.islice(stream, 9))
    assert found == translator.translate([*TEXTS, *TEXTS[:3]], num_beams=2)
    assert len(read) == 12
    assert list(translator.translate_iterable(iter([]), prefixes=None)) == []
    assert list(translator.translate_iterable(TEXTS, read_ahead=1, prefixes="B")) == translator.translate(
        TEXTS, prefixes="B"
    )


def test_a_translation_is_at_most_50_tokens_longer_than_its_text() -> None:
    """Its own text, whatever else is translated at the same time."""
    translator = make(max_position_embeddings=200, bad_words_ids=((0,), (1,)))
    texts = ["a", "abcabcabcabcabcabcabc"]
    for options in ({}, {"num_beams": 3}):
        found = details(translator, texts, **options)
        assert [len(each.tokens) for each in found] == [2 + translations.MORE_TOKENS, 22 + translations.MORE_TOKENS]
        assert found == [details(translator, text, **options) for text in texts]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_best": 0}, ValueError, "n_best must be a positive integer, got 0"),
        ({"n_best": 3, "num_beams": 2}, ValueError, "n_best must be at most num_beams = 2, got 3"),
        ({"n_best": 2}, ValueError, "n_best must be at most num_beams = 1, got 2"),
        ({"beam_size": 4}, TypeError, "unexpected argument 'beam_size'"),
        ({"prefixes": ["A"]}, ValueError, "prefixes must have a str for each of 2 texts, got 1"),
        ({"prefixes": ["A", 3]}, TypeError, r"prefixes\[1\] must be str, got int"),
        ({"prefixes": "xyz"}, ValueError, r"prefixes\[0\] must be made of the target vocabulary, got 'xyz'"),
        ({"prefixes": "A" * 60}, ValueError, r"prefixes\[0\] has 60 tokens, more than 38"),
        ({"vocabulary": ["A", "z"]}, ValueError, r"vocabulary\[1\] must be made of the target vocabulary, got 'z'"),
        ({"vocabulary": []}, ValueError, "vocabulary must have words, got none"),
        ({"vocabulary": "AB"}, TypeError, "vocabulary must be"),
        ({"overlong": "split", "return_scores": True}, ValueError, "overlong 'split' cannot be given with n_best"),
        ({"return_scores": 1}, TypeError, "return_scores must be a bool, got 1"),
        ({"replace_unknowns": "yes"}, TypeError, "replace_unknowns must be a bool, got 'yes'"),
    ],
)
def test_refusals(translator: Translator, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"translate: {message}"):
        translator.translate(["abc", "hh"], **options)


def test_refusals_of_scores_and_streams(translator: Translator) -> None:
    with pytest.raises(ValueError, match="score: targets must have a text for each of 2 sources, got 1"):
        translator.score(["a", "b"], ["A"])
    with pytest.raises(ValueError, match=r"score: targets\[0\] has 41 tokens"):
        translator.score(["a"], ["A" * 40])
    with pytest.raises(TypeError, match="translate_iterable: texts must be an iterable of str, got str"):
        next(translator.translate_iterable("abc"))
    with pytest.raises(TypeError, match="translate_iterable: texts must be an iterable of str, got int"):
        next(translator.translate_iterable(5))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="translate_iterable: prefixes must be one str"):
        next(translator.translate_iterable(["abc"], prefixes=["A"]))
    assert Translation("", 0.0, [], []) == translations.NOTHING
