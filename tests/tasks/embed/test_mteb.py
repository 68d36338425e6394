"""mteb measures an encoder as it is: a task of its own, with the model in the test, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_sentences import write_model
from helpers_train import pairs

from fastattn.tasks import SentenceEncoder
from fastattn.training import pearson_correlation, spearman_correlation

WORDS = [word for word, _ in pairs(7, 21)]
FIRST, SECOND = WORDS[:20], WORDS[1:]
SCORES = [float(len({*a} & {*b})) for a, b in zip(FIRST, SECOND, strict=True)]


@pytest.mark.filterwarnings("default")  # theirs are not our errors
def test_mteb_measures_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    mteb = pytest.importorskip("mteb", reason="runs mteb")
    datasets = pytest.importorskip("datasets", reason="runs mteb")
    sts = pytest.importorskip("mteb.abstasks.sts", reason="runs mteb")

    class Alike(sts.AbsTaskSTS):
        metadata = mteb.TaskMetadata(
            name="Alike", type="STS", description="Words with the same letters.", reference=None,
            dataset={"path": "none", "revision": "1"}, eval_splits=["test"], eval_langs=["eng-Latn"],
            main_score="cosine_spearman", category="t2t", modalities=["text"], date=("2020-01-01", "2020-01-01"),
            domains=["Written"], task_subtypes=[], license="mit", annotations_creators="derived", dialect=[],
            sample_creation="created", bibtex_citation="",
        )  # fmt: skip
        min_score, max_score = 0, 5

        def load_data(self, *arguments: Any, **options: Any) -> None:
            rows = datasets.Dataset.from_dict({"sentence1": FIRST, "sentence2": SECOND, "score": SCORES})
            self.dataset, self.data_loaded = datasets.DatasetDict({"test": rows}), True

    encoder = SentenceEncoder(write_model(tmp_path / "model"))
    result = mteb.evaluate(encoder, Alike(), cache=None, show_progress_bar=False, co2_tracker=False)
    found = result.task_results[0].scores["test"][0]
    vectors = [encoder.encode(texts, normalize_embeddings=True) for texts in (FIRST, SECOND)]
    cosines = np.sum(vectors[0] * vectors[1], axis=1, dtype=np.float64)
    assert found["cosine_spearman"] == pytest.approx(spearman_correlation(cosines, np.array(SCORES)), abs=1e-6)
    assert found["cosine_pearson"] == pytest.approx(pearson_correlation(cosines, np.array(SCORES)), abs=1e-5)
    assert found["main_score"] == found["cosine_spearman"]
