"""Recipes: what an option may be, what goes together, and that each is explained; and what loads what."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from fastattn import tasks
from fastattn.errors import OptionError
from fastattn.hub import ModelNotFoundError
from fastattn.tasks import TASKS, BiLMRecipe, TagRecipe, TranslateRecipe
from fastattn.tasks.base import Predictor, Recipe, Task
from fastattn.tasks.options import Options, Usage, options
from fastattn.training import train

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
USAGES: list[type[Usage]] = [getattr(tasks, usage) for _, usage in TASKS.values()]


@pytest.mark.parametrize(("name", "usage"), TASKS.values())
def test_every_task_has_every_verb(name: str, usage: str) -> None:
    """One with a recipe trains, and one that says what it predicts does."""
    task, kind = getattr(tasks, name), getattr(tasks, usage)
    assert issubclass(task, Predictor)
    assert not task.__abstractmethods__
    assert issubclass(kind, Usage)
    assert issubclass(task, Task) == issubclass(kind, Recipe)
    for verb in ("read_input", "predict"):
        own = getattr(task, verb).__qualname__ != f"Predictor.{verb}"
        assert own == (kind.predicting is not None)
    assert kind.predicting or issubclass(kind, Recipe)


@pytest.mark.parametrize("name", ["SentenceEncoder", "WordEncoder", *(task for task, _ in TASKS.values())])
def test_every_task_says_where_it_looks(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelNotFoundError, match=r"(?s)no some/model at v1 in .*not asked, local_files_only is set"):
        getattr(tasks, name).from_pretrained("some/model", revision="v1", token=False, local_files_only=True)


@pytest.mark.parametrize("usage", USAGES)
def test_every_option_is_explained_and_checked(usage: type[Usage]) -> None:
    for kind in (usage, usage.predict_options):
        for option in options(kind) if issubclass(kind, Options) else ():
            assert option.help
            assert not option.help.endswith(".")
            with pytest.raises((TypeError, ValueError), match=option.name):
                kind(**{option.name: object()})


@pytest.mark.parametrize(
    ("make", "values", "message"),
    [
        (TagRecipe, {"epochs": 0}, "TagRecipe: epochs must be a positive integer, got 0"),
        (TagRecipe, {"epochs": 1.5}, "TagRecipe: epochs must be a positive integer, got 1.5"),
        (BiLMRecipe, {"epochs": None}, "BiLMRecipe: epochs must be a positive integer, got None"),
        (TagRecipe, {"warmup": 2}, r"TagRecipe: warmup must be a number in \[0, 1\], got 2"),
        (TagRecipe, {"plot": 1}, "TagRecipe: plot must be a bool, got 1"),
        (BiLMRecipe, {"vocabulary": 3}, "BiLMRecipe: vocabulary must be str or a path, got 3"),
        (TranslateRecipe, {"metrics": "ter"}, "TranslateRecipe: metrics must be one of cer, bleu, chrf, got 'ter'"),
        (TagRecipe, {"average": 4}, "average 4 needs at least as many epochs, got 3"),
        (TagRecipe, {"average": 2, "ema": 0.9}, "average and ema are two kinds of averages; give one of them"),
        (TagRecipe, {"average": 2, "patience": 1}, "patience keeps the best model, average the mean of the last ones"),
        (BiLMRecipe, {"vocabulary": "v", "min_count": 3}, "vocabulary_size and min_count need a vocabulary"),
        (TranslateRecipe, {"vocabulary": "a.spm", "shared": False}, "shared=False needs two SentencePiece models"),
    ],
)
def test_what_is_refused(make: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        make(**values)


def test_flags_are_written_as_such() -> None:
    with pytest.raises(OptionError) as caught:
        TranslateRecipe(vocabulary="a.spm", shared=False)
    assert caught.value.as_flags == "--no-shared needs two SentencePiece models"
    with pytest.raises(TypeError, match="no_such_option"):
        TagRecipe(no_such_option=1)  # type: ignore[call-arg]


def test_values_become_pythons_own() -> None:
    np = pytest.importorskip("numpy")
    recipe = TranslateRecipe(epochs=np.int64(3), dropout=0, vocabulary="characters", metrics=["chrf", "cer"])
    assert (type(recipe.epochs), recipe.dropout, recipe.vocabulary) == (int, 0.0, ("characters",))
    assert (recipe.metric, recipe.higher_is_better, recipe.shares) == ("chrf", True, False)


def test_options_that_depend_on_others() -> None:
    assert (BiLMRecipe(unroll_steps=5).clipped_to, BiLMRecipe(max_norm=3).clipped_to) == (2.0, 3.0)
    assert [TranslateRecipe(epochs=n).averaged for n in (1, 8, 40)] == [1, 2, 5]
    assert TranslateRecipe(patience=1).averaged == TranslateRecipe(ema=0.5).averaged == 1
    assert TagRecipe().averaged == 0


@pytest.mark.skipif(not PAGE.exists(), reason="no documentation beside the tests")
def test_defaults_are_those_of_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| .* \| (\d+) \| (\S+|by its size) \| (\d+)( tokens)? \|$", page, re.M)
    trained = [pair for pair in TASKS.values() if issubclass(getattr(tasks, pair[1]), Recipe)]
    assert sorted(row[:2] for row in rows) == sorted(trained)
    for _, name, epochs, rate, size, tokens in rows:
        recipe = getattr(tasks, name)()
        batch = recipe.batch_tokens if tokens else recipe.batch_size
        assert (recipe.epochs, batch) == (int(epochs), int(size)), name
        assert recipe.learning_rate == (None if rate == "by its size" else float(rate)), name


def test_patience_needs_data(tmp_path: Any) -> None:
    class Impatient:
        recipe = TagRecipe(patience=1)

    with pytest.raises(OptionError, match=r"^patience needs evaluate_on$"):
        train(Impatient(), [], tmp_path)
