"""One of every task that a service can have, small and drawn at random."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import helpers_language_model
import helpers_translator
import numpy as np
from helpers_network_tagger import NAMES, SMALL
from helpers_sentences import HIDDEN, TEXTS, VOCABULARY, pattern, write_bert, write_case

from fastattn import manual_seed
from fastattn.models import Elmo
from fastattn.models.registry import load_head
from fastattn.tasks import (
    Answerer,
    Classifier,
    Filler,
    NetworkTagger,
    Regressor,
    Reranker,
    SentenceEncoder,
    Tagger,
    Translator,
    WordEncoder,
)
from fastattn.text import Tokenizer

PAIRS = [("the cat", "query"), ("a", "the cat sat."), ("The CAT", ""), ("zz", "query the cat " * 5)]
WORDS = [["the", "cat", "sat", "."], ["a"], [], ["query", "cat"] * 6]
QUESTIONS = [
    {"question": a, "context": b}
    for a, b in [("the cat", "the cat sat. " * 12), ("a", "cat"), ("query", "abc def the cat sat.")]
]
MASKED = ["the [MASK] sat .", "[MASK]", "a [MASK] query [MASK] the cat"]
LETTERS = ["abc", "h", "", "ab cd ef gh", "aaaa"]


@dataclass(frozen=True)
class Served:
    """A task, inputs, and what its method gives for a list of them."""

    task: Any
    inputs: list[Any]
    direct: Callable[[list[Any]], Any]
    method: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


def head(kind: str, folder: Path, **fields: Any) -> Any:
    """A frozen head over a small BERT, which depends on the words."""
    manual_seed(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_head(folder, kind, trainable=True, new_head="draw", **fields)
    name = {"QuestionAnswering": "qa_outputs", "MaskedLM": ""}.get(kind, "classifier")
    if name:
        weight = getattr(model, name).weight.data
        weight[...] = pattern(len(weight), HIDDEN, salt=70, scale=2.0)
    else:
        model.predictions.bias.data[...] = pattern(len(VOCABULARY), salt=5)
    return model.eval().freeze()


def make_tasks(folder: Path) -> dict[str, Served]:
    """Every task by a name, with files in a folder."""
    bert = write_bert(folder / "bert")
    three = {"id2label": {0: "no", 1: "yes", 2: "both"}, "label2id": {"no": 0, "yes": 1, "both": 2}}
    tags = {"id2label": {0: "O", 1: "B-CAT", 2: "I-CAT"}, "label2id": {"O": 0, "B-CAT": 1, "I-CAT": 2}}
    encoder = SentenceEncoder(write_case("normalize", folder / "encoder"), truncation="silent")
    classifier = Classifier(head("SequenceClassification", bert, **three), bert)
    regressor = Regressor(head("SequenceClassification", bert, num_labels=1), bert)
    reranker = Reranker(head("SequenceClassification", bert, num_labels=1), bert)
    tagger = Tagger(head("TokenClassification", bert, **tags), bert)
    rows = [{"tokens": words, "tags": ["O"] * (len(words) - 1) + ["B-CAT"]} for words in NAMES]
    network = NetworkTagger.for_training(None, rows, None, **SMALL)
    network.model.eval().freeze()
    answerer = Answerer(head("QuestionAnswering", bert), bert)
    filler = Filler(head("MaskedLM", bert), Tokenizer.from_pretrained(bert))
    translator = Translator(helpers_translator.make().model.freeze(), helpers_translator.make().tokenizer)
    manual_seed(4)
    words = WordEncoder(Elmo(helpers_language_model.CONFIG).eval().freeze())
    both = {"normalize_embeddings": True, "truncate_dim": 5}
    return {
        "encode": Served(encoder, TEXTS, encoder.encode),
        "encode, shorter": Served(encoder, TEXTS, lambda some: encoder.encode(some, **both), "encode", both),
        "probabilities": Served(classifier, PAIRS, classifier.probabilities, "probabilities"),
        "classify": Served(classifier, TEXTS, classifier),
        "regress": Served(regressor, TEXTS, regressor),
        "scores": Served(reranker, PAIRS, reranker.scores, "scores"),
        "tag": Served(tagger, [some for some in WORDS if some], tagger.tag, "tag"),
        "entities": Served(tagger, [*TEXTS, "the cat sat " * 30], tagger.entities, "entities"),
        "network": Served(network, WORDS, network),
        "network entities": Served(network, TEXTS, network.entities, "entities"),
        "answer": Served(answerer, QUESTIONS, answerer),
        "answers": Served(answerer, QUESTIONS, lambda some: answerer(some, n_best=3), None, {"n_best": 3}),
        "fill": Served(filler, MASKED, filler),
        "fill targets": Served(
            filler, MASKED, lambda some: filler(some, targets=["cat", "a"]), None, {"targets": ["cat", "a"]}
        ),
        "translate": Served(translator, LETTERS, translator),
        "beams": Served(
            translator,
            LETTERS,
            lambda some: translator(some, num_beams=3, n_best=2, return_alignments=True),
            "translate",
            {"num_beams": 3, "n_best": 2, "return_alignments": True},
        ),
        "words": Served(words, WORDS, words),
    }


def assert_same(found: Any, wanted: Any) -> None:
    """The same values, to the bit."""
    if isinstance(wanted, np.ndarray):
        np.testing.assert_array_equal(found, wanted, strict=True)
    elif isinstance(wanted, np.generic):
        assert found == wanted
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
    else:
        assert found == wanted


KINDS = {
    "encode": "embed",
    "scores": "rerank",
    "probabilities": "classify",
    "regress": "regress",
    "entities": "tag",
    "answer": "answer",
    "fill": "fill",
    "translate": "translate",
}
"""The tasks of `make_tasks` that a server has, and what they are served as, each under that name and with -alias."""


def client_for(app: Any) -> Any:
    """A client of an application, to be entered."""
    from starlette.testclient import TestClient

    return TestClient(app, raise_server_exceptions=False)


def client_of(served: dict[str, Served], **settings: Any) -> Any:
    """A client of a server, to be entered."""
    from fastattn.serving.app import create_app
    from fastattn.serving.models import Models, Settings

    def load(models: Models) -> None:
        for name, kind in KINDS.items():
            models.add([kind, f"{kind}-alias"], kind, served[name].task, f"/models/{kind}")

    return client_for(create_app(settings=Settings(**settings), load=load))
