"""Translator: text in, text out, whatever else is translated."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_translator import LETTERS, make

from fastattn.autograd import Tensor
from fastattn.generation import generate
from fastattn.tasks import TranslateRecipe, Translator
from fastattn.tasks.translate import translations
from fastattn.text import Characters, ParallelText, SubwordTokenizer, TokenizedTexts
from fastattn.training.run_state import write_state

TEXTS = ["abc", "", "a", "hgfe dcba" * 3, " \t", "bad 猫", "hhhh", "a b c d e"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("translator")
    make().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def translator(folder: Path) -> Translator:
    return Translator.from_pretrained(folder)


def test_what_is_saved_comes_back(folder: Path, translator: Translator) -> None:
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", "source.characters.json",
        "target.characters.json", "tokenizer_config.json",
    }  # fmt: skip
    assert translator.translate(TEXTS) == make().translate(TEXTS)
    assert translator.model.frozen
    assert not Translator.from_pretrained(folder, trainable=True).model.frozen
    assert Translator.from_pretrained(folder, trainable=True).translate(TEXTS) == translator.translate(TEXTS)


def test_translations_are_those_of_generate(translator: Translator) -> None:
    ids = translator.tokenizer.source.encode(["abc"]).ids[None]
    found = generate(translator.model, ids, max_new_tokens=39)
    assert translator.translate(["abc"]) == translator.tokenizer.target.decode(found)
    assert set("".join(translator.translate(TEXTS))) <= set(LETTERS.upper())


@pytest.mark.parametrize("forced", [None, 1])
def test_translations_do_not_depend_on_the_company(forced: int | None, threads: int) -> None:
    translator = make(forced_eos_token_id=forced)
    together = translator.translate(TEXTS * 3)
    assert together == [translator.translate([text])[0] for text in TEXTS] * 3
    assert translator.translate(TEXTS[::-1]) == together[: len(TEXTS)][::-1]
    for batch_tokens in (1, 10, 30):
        assert translator.translate(TEXTS, batch_tokens=batch_tokens) == together[: len(TEXTS)]


def test_blank_texts_are_blank(translator: Translator) -> None:
    assert translator.translate(["", "  ", "\n"]) == ["", "", ""]
    assert translator.translate([]) == []


def test_one_text_gives_one_translation(translator: Translator) -> None:
    assert translator.translate("abc") == translator("abc") == translator.translate(["abc"])[0]
    assert translator.translate("") == ""


class WithoutMarks(Characters):
    """A vocabulary that has nothing for zero-width spaces and byte order marks, as SentencePiece's have not."""

    def _encode(self, texts: Sequence[str]) -> TokenizedTexts:
        return super()._encode([text.replace("\u200b", "").replace("\ufeff", "") for text in texts])


def test_a_text_without_tokens_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    translator = make()
    wanted = translator.translate(["abc"])
    translator.tokenizer = SubwordTokenizer(WithoutMarks(LETTERS), Characters(LETTERS.upper()))
    asked = []
    monkeypatch.setattr(translations, "generate", lambda model, ids, *rest, **more: asked.append(len(ids)) or generate(
        model, ids, *rest, **more
    ))  # fmt: skip
    assert translator.translate(["\u200b", "\ufeff", "a\u200bbc", "\u200b\ufeff"]) == ["", "", *wanted, ""]
    assert asked == [1]
    assert translator.translate("\u200b") == ""
    assert asked == [1]


def test_long_texts_can_be_cut_or_skipped(translator: Translator, caplog: pytest.LogCaptureFixture) -> None:
    texts = ["abc", "b" * 40, "c" * 39, "d" * 100]
    cut = translator.translate(["abc", "b" * 39, "c" * 39, "d" * 39])
    with caplog.at_level("INFO", logger="fastattn"):
        assert translator.translate(texts, overlong="truncate") == cut
        assert translator.translate(texts, overlong="skip") == [cut[0], "", cut[2], ""]
        assert translator.translate("b" * 40, overlong="skip") == ""
        assert translator.translate(texts[:1], overlong="skip") == cut[:1]
    assert [record.getMessage() for record in caplog.records] == [
        "2 texts with more than 40 tokens are cut",
        "2 texts with more than 40 tokens are skipped",
        "1 texts with more than 40 tokens are skipped",
    ]


def test_an_evaluation_can_cut_or_skip_long_pairs(caplog: pytest.LogCaptureFixture) -> None:
    translator = make()
    fits = ParallelText(("abc", "hgf"), ("CBA", "A"))
    long = ParallelText(("abc", "b" * 40, "hgf", "d"), ("CBA", "B", "A", "A" * 40))
    with pytest.raises(ValueError, match=r"sources\[1\] has 41 tokens"):
        translator.check(long)
    translator.recipe = TranslateRecipe(overlong="skip")
    with caplog.at_level("INFO", logger="fastattn"):
        translator.check(long)
        translator.check(fits)
    assert [record.getMessage() for record in caplog.records] == ["check: 2 pairs with more than 40 tokens are skipped"]
    assert translator.evaluate(long) == translator.evaluate(fits)
    with pytest.raises(ValueError, match="check: all 2 pairs have more than 40 tokens"):
        translator.check(long.take([1, 3]))
    translator.recipe = TranslateRecipe(overlong="truncate")
    cut = ParallelText(("abc", "b" * 39, "hgf", "d"), ("CBA", "B", "A", "A" * 40))
    assert translator.evaluate(long) == translator.evaluate(cut)


def test_numbers_that_the_tokenizer_lacks_are_never_chosen() -> None:
    padded = make(decoder_vocab_size=len(LETTERS) + 3 + 7)
    padded.model.final_logits_bias.data[:, len(LETTERS) + 3 :] = 1e9
    found = padded.translate(TEXTS)
    assert set("".join(found)) <= set(LETTERS.upper())
    assert padded.evaluate(ParallelText(("abc",), ("A",)))["cer"] >= 0
    ids = padded.tokenizer.source.encode(["abc"]).ids[None]
    assert generate(padded.model, ids, max_new_tokens=3)[0, 1] >= len(LETTERS) + 3  # the model alone chooses one


def test_padding_and_ends_that_the_tokenizer_lacks() -> None:
    more = len(LETTERS) + 10
    translator = make(vocab_size=more, decoder_vocab_size=more, pad_token_id=15, forced_eos_token_id=16)
    assert translator.translate(TEXTS) == [translator.translate(text) for text in TEXTS]


def test_unknown_characters_are_one_token(translator: Translator) -> None:
    first, second = translator.translate(["猫a", "☃a"])
    assert first == second != translator.translate(["aa"])[0]


def test_translations_have_an_end() -> None:
    translator = make(max_position_embeddings=200)
    translator.model.final_logits_bias.data[:, 1] = -1e9  # never </s>
    assert [len(text) for text in translator.translate(["abc", "abcdefgh" * 20])] == [4 + 50, 199]
    translator = make(max_position_embeddings=200, forced_eos_token_id=1)  # the last token that is decoded
    translator.model.final_logits_bias.data[:, 1] = -1e9
    assert [len(text) for text in translator.translate(["abc"])] == [4 + 50]


def test_many_threads_at_once(translator: Translator) -> None:
    expected = translator.translate(TEXTS)
    results: list[list[str]] = []
    threads = [threading.Thread(target=lambda: results.append(translator.translate(TEXTS))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4


def test_attention(translator: Translator) -> None:
    weights, source, target = translator.attention("ab", "BA")
    assert weights.shape == (2, 2, 3, 3)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    assert (source, target) == (["a", "b", "</s>"], ["B", "A", "</s>"])
    _, _, own = translator.attention("ab")
    assert "".join(own[:-1]) == translator.translate(["ab"])[0][:39]


def test_the_loss_is_that_of_padded_batches(translator: Translator) -> None:
    text = ParallelText(("abc", "hg", "d"), ("A", "BCDE", "H H"))
    losses, count = 0.0, 0
    for source, target in zip(text.sources, text.targets, strict=True):
        ids, labels = (x.ids[None] for x in (translator.tokenizer.source.encode([source]),
                                             translator.tokenizer.target.encode([target])))  # fmt: skip
        loss = translator.model(ids, labels=labels).loss
        assert isinstance(loss, Tensor)
        losses, count = losses + loss.item() * labels.size, count + labels.size
    assert translator.cross_entropy(text) == pytest.approx(losses / count, rel=1e-5)
    assert translator.cross_entropy(text, batch_tokens=1) == pytest.approx(losses / count, rel=1e-5)


def with_recipe(**options: Any) -> Translator:
    translator = make()
    return Translator(translator.model, translator.tokenizer, TranslateRecipe(**options))


def test_batches(caplog: pytest.LogCaptureFixture) -> None:
    text = ParallelText(("abc", "a" * 40, "d", "e", "f" * 39), ("A", "B", "C", "D" * 40, "E" * 39))
    with caplog.at_level("INFO", "fastattn"):
        batches = with_recipe(batch_tokens=1000, max_tokens=90, seed=1).batches(text)
    assert "2 pairs with more than 40 tokens are left out" in caplog.messages
    assert batches.accumulation == 12
    assert batches.settings["items"] == 3
    translator = with_recipe(batch_tokens=1000, max_tokens=1000, label_smoothing=0)
    (batch,) = translator.batches(text).epoch(0)
    arguments = translator.batches(text).load(batch)
    assert arguments["share"] == 1.0
    loss = translator.loss(arguments)
    short = ParallelText(text.sources[::2], text.targets[::2])
    assert loss.item() == pytest.approx(translator.cross_entropy(short), rel=1e-5)
    loss.backward()
    with pytest.raises(ValueError, match="no pair of texts has at most 40 tokens on each side"):
        translator.batches(ParallelText(("a" * 40,), ("b",)))


def test_bad_texts(translator: Translator) -> None:
    with pytest.raises(ValueError, match=r"texts\[1\] has 41 tokens, but the model reads at most 40 \(max_position"):
        translator.translate(["a", "b" * 40])
    assert translator.translate(["b" * 39])
    with pytest.raises(ValueError, match=r"texts\[0\] has 41 tokens"):
        translator.translate("b" * 40)
    with pytest.raises(TypeError, match=r"texts must be a sequence of str, got int"):
        translator.translate(5)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="translate: overlong must be one of error, truncate, skip, split, got 'cut'"):
        translator.translate(["a"], overlong="cut")
    with pytest.raises(TypeError, match=r"texts\[0\] must be str, got int"):
        translator.translate([1])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"attention: text must be str, got list"):
        translator.attention(["a"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="translate: batch_tokens must be a positive integer, got 0"):
        translator.translate(["a"], batch_tokens=0)


def test_texts_that_can_be_read_to_their_ends(translator: Translator) -> None:
    assert translator.encode(["a", "bc"]).lengths.tolist() == [2, 3]
    for target, letter in ((False, "b"), (True, "B")):
        assert translator.encode([letter * 39], target=target).lengths.tolist() == [40]
        with pytest.raises(ValueError, match=r"^file:2 has 41 tokens, but the model reads at most 40"):
            translator.encode(["a", letter * 40], target=target, place=lambda i: f"file:{i + 1}")


def test_another_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{tmp_path}/config\.json: model_type is 'bert'"):
        Translator.from_pretrained(tmp_path)


def test_bad_folders(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*missing"):
        Translator.from_pretrained(tmp_path / "missing")
    run = tmp_path / "MyTranslator"
    write_state(run / "states", 5, {}, {})
    with pytest.raises(FileNotFoundError, match="MyTranslator: no model yet; the run is not finished, continue it"):
        Translator.from_pretrained(run)
    make().save_pretrained(run)
    config = (run / "config.json").read_text(encoding="utf-8")
    (run / "config.json").write_text(config.replace('"d_model": 16', '"d_model": 15'), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"^{run}[/:].*d_model"):  # the folder's name as it is
        Translator.from_pretrained(run)
    make().model.save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no tokenizer: no tokenizer_config\.json of a SubwordTok"):
        Translator.from_pretrained(tmp_path)
    SubwordTokenizer(Characters(LETTERS + "xyz"), Characters("A")).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"{tmp_path}: the tokenizer has 15 source tokens, but the model only 12"):
        Translator.from_pretrained(tmp_path)
    SubwordTokenizer(Characters(LETTERS), Characters(LETTERS)).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"model\.safetensors: not a valid safetensors file"):
        Translator.from_pretrained(tmp_path)


def test_several_ends() -> None:
    """A translation ends at the first of several `eos_token_id`s."""
    text = "abc"
    whole = make().translate(text)
    other = make().tokenizer.target.encode([whole]).ids[0]
    translator = make(eos_token_id=(1, int(other)))
    assert whole
    assert translator.translate(text) == ""
    assert translator.translate([text, "", "hg"])[:2] == ["", ""]
