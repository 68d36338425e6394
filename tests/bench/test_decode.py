"""`python -m benchmarks decode`: its cases, the folders that contenders load, and what is compared."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import fastattn
from fastattn.models import Transformer

decode = pytest.importorskip("benchmarks.decode", reason="needs the source tree: python -m pytest")
decoding = pytest.importorskip("benchmarks.decoding")
marian = pytest.importorskip("benchmarks.marian")
measure = pytest.importorskip("benchmarks.measure")
transformer = pytest.importorskip("benchmarks.transformer")

PAIRS = "ab\tba\ncab\tbac\naa\tbb\n"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A network among those that are benchmarked, with 30 words."""
    monkeypatch.setitem(transformer.SIZES, "small", {"d_model": 8, "layers": 1, "heads": 2, "ffn_dim": 6})
    monkeypatch.setattr(marian, "WORDS", 30)
    monkeypatch.setattr(marian, "EPOCHS", 2)
    monkeypatch.setattr(marian, "WARMUP", 0)
    monkeypatch.setattr(decode, "NAMES_MODEL", "small")
    monkeypatch.setattr(decode, "FORCED", 6)


def options(folder):
    return SimpleNamespace(cache=folder, pairs=folder)


def test_names_of_cases():
    assert decode.parse_case("transformer-base-1x32-greedy") == ("transformer-base-1x32", 1)
    assert decode.parse_case("names-beam12") == ("names", 12)
    assert {decode.parse_case(name)[1] for name in decode.CASES} == {1, 4}


@pytest.mark.parametrize("name", ["", "names", "names-beam", "names-beam1", "names-beam0", "names-greedy2", "-greedy"])
def test_a_name_that_is_no_case(name):
    with pytest.raises(SystemExit, match=f"unknown case '{name}'; a case ends with -greedy or with -beamN"):
        decode.parse_case(name)


def test_an_unknown_model_is_named(tmp_path):
    with pytest.raises(SystemExit, match=r"unknown model 'big'; known are transformer-base, transformer-small, small"):
        decode.prepare("big-1x8-greedy", options(tmp_path))


def test_a_folder_without_names_is_named(tmp_path):
    with pytest.raises(SystemExit, match=r"no ar2en-train.txt there; --pairs names"):
        decode.prepare("names-greedy", options(tmp_path))


def test_the_folder_is_made_once_and_has_every_word(tmp_path):
    folder, work, _ = decode.prepare("small-3x4to8-beam4", options(tmp_path))
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert decode.prepare("small-3x4to8-beam4", options(tmp_path))[0] == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    assert [each.name for each in tmp_path.iterdir()] == [folder.name]
    assert sorted(map(len, work.sources)) == [4, 6, 8]
    assert {row[-1] for row in work.sources} == {0}
    config, words = json.loads((folder / "config.json").read_text()), marian.vocabulary(folder)
    assert (config["model_type"], config["vocab_size"]) == ("marian", 30)
    assert [words[each] for each in (marian.END, marian.UNKNOWN, marian.PAD)] == [0, 1, 29]
    assert (config["eos_token_id"], config["pad_token_id"], config["decoder_start_token_id"]) == (0, 29, 29)
    assert sorted(words.values()) == [*range(30)]


@pytest.mark.parametrize("search", ["greedy", "beam4"])
def test_results_have_the_forced_length_and_the_scores_that_the_network_gives_them(tmp_path, search):
    folder, work, _ = decode.prepare(f"small-3x4to8-{search}", options(tmp_path))
    job = decoding.Fastattn(folder, tmp_path, fastattn.num_threads(), work)
    answer = job.answer()
    found = np.concatenate(job())[:, 1:]
    assert [answer["tokens"][i] for i in job.order] == found.tolist()
    alone = decoding.Fastattn(folder, tmp_path, fastattn.num_threads(), replace(work, batch=1)).answer()
    assert alone == answer  # in the order of the sources
    assert not {0, 29} & set(np.ravel(answer["tokens"]))  # no end before the last, no padding
    answer["rates"] = decoding.rate(str(folder), fastattn.num_threads(), work.sources, answer["tokens"])
    assert np.shape(answer["rates"]) == (3, 6)
    difference, *rest = decode.judge(answer, answer, work, exact=True)
    assert difference < 1e-5
    assert rest == ["", ""]


@pytest.mark.parametrize("search", ["greedy", "beam4"])
def test_names_are_learned_and_end(tmp_path, search):
    for part in ("train", "test"):
        (tmp_path / f"ar2en-{part}.txt").write_text(PAIRS)
    folder, work, operations = decode.prepare(f"names-{search}", options(tmp_path))
    assert operations is None
    assert marian.vocabulary(folder) == {"</s>": 0, "<unk>": 1, "a": 2, "b": 3, "c": 4, "<pad>": 5}
    assert work.sources == [[2, 3, 0], [4, 2, 3, 0], [2, 2, 0]]
    model = Transformer.from_pretrained(folder, trainable=True)
    assert not model.shared.weight.data[-1].any()  # CTranslate2 starts with zeros
    first = transformer.network("small", (6,)).shared.weight.data
    assert (np.abs(model.shared.weight.data - first)[:-1].max(1) > 0).all()
    job = decoding.Fastattn(folder, tmp_path, fastattn.num_threads(), work)
    answer = job.answer()
    answer["rates"] = decoding.rate(str(folder), fastattn.num_threads(), work.sources, answer["tokens"])
    assert decode.judge(answer, answer, work, exact=True)[0] < 1e-5
    assert all(row.index(0) == len(row) - 1 if 0 in row else len(row) == 40 for row in answer["tokens"])


def test_a_result_ends_with_its_end_or_before_its_padding():
    rows = np.array([[3, 0, 9, 9], [3, 9, 9, 9], [3, 4, 5, 6], [0, 9, 9, 9]])
    assert decoding.unpadded(rows, 9, 0) == [[3, 0], [3], [3, 4, 5, 6], [0]]
    assert decoding.unpadded(rows, 0, 0) == [[3, 0], [3, 9, 9, 9], [3, 4, 5, 6], [0]]


def test_the_end_that_ctranslate2_cuts_off_is_added():
    job = object.__new__(decoding.CTranslate2)
    job.ids, job.end, job.work = {"</s>": 0, "a": 2, "b": 3}, 0, SimpleNamespace(longest=3)
    results = [SimpleNamespace(hypotheses=[[*text]], scores=[-1.0]) for text in ("ab", "bab", "")]
    job.translate = lambda return_scores: results
    assert job.answer() == {"tokens": [[2, 3, 0], [3, 2, 3], [0]], "scores": [-1.0] * 3}


def answer(*tokens, rates=None, scores=None):
    rates = rates or [[-1.0] * len(row) for row in tokens]
    return {"tokens": [*tokens], "rates": rates, "scores": scores or [float(np.mean(row)) for row in rates]}


def verdict(theirs, ours, beams=1, exact=True, forced=True):
    return decode.judge(theirs, ours, decoding.Work([], beams, 2, forced, 1, 0), exact)


def test_results_of_another_length_are_wrong():
    ours = answer([1, 2], [3, 4])
    assert verdict(answer([1, 2], [3]), ours)[2] == "decodes 1 to 2 tokens, not 2"
    assert verdict(answer([1, 2], [3]), ours, exact=False)[2]
    assert verdict(ours, ours, forced=False) == (0.0, "", "")


def test_a_score_that_the_network_does_not_give_is_wrong():
    ours = answer([1, 2])
    wrong = answer([1, 2], scores=[-1.01])
    assert verdict(wrong, ours) == (pytest.approx(0.01), "", "scores differ by 0.01, more than 1e-03")
    assert verdict(wrong, ours, exact=False) == (pytest.approx(0.01), "", "")
    assert verdict(answer([1, 2], scores=[float("nan")]), ours)[2]


@pytest.mark.parametrize(("gap", "reason"), [(5e-4, ""), (5e-3, "result 0 differs at word 1, by 0.005, and is no tie")])
def test_a_greedy_result_may_differ_from_a_tie_on(gap, reason):
    ours, theirs = answer([1, 2]), answer([1, 3], rates=[[-1.0, -1.0 - gap]])
    assert verdict(theirs, ours) == (0.0, "1 of 1 results differ", reason)
    assert verdict(theirs, ours, exact=False) == (0.0, "1 of 1 results differ", "")


def test_few_results_of_beams_may_differ():
    ours, theirs = [[[1, 2]] * (40 - n) + [[1, 3]] * n for n in (0, 2)]
    assert verdict(answer(*theirs), answer(*ours), beams=4) == (0.0, "2 of 40 results differ", "")
    theirs[0] = [3, 3]
    note = "3 of 40 results differ"
    assert verdict(answer(*theirs), answer(*ours), beams=4) == (0.0, note, note)
    assert verdict(answer(*theirs), answer(*ours), beams=4, exact=False) == (0.0, note, "")


def test_beams_share_their_source():
    lengths, model = [3, 5], "small"
    source, target = np.array(lengths), np.array([6, 6])
    assert decode.flops(model, lengths, 1) == transformer.flops(model, 30, source, target)
    more = decode.flops(model, lengths, 4) - decode.flops(model, lengths, 1)
    assert more == pytest.approx(
        3 * (decode.flops(model, lengths, 1) - transformer.flops(model, 30, source, 0 * target))
    )


def test_a_column_for_each_runtime():
    results = [measure.Result(name, 1, "tokens/s", None) for name in ("one", "two")]
    results[0].series = {"fastattn": measure.Series(0.0, seconds=[0.1, 0.2, 0.3])}
    results[0].series["torch"] = measure.Series(0.0, seconds=[0.2, 0.6, 0.6])
    results[1].series = {"fastattn": measure.Series(0.0, seconds=[1.0])}
    found = decode.table(results)
    assert found["header"] == ["case", "fastattn", "torch"]
    assert found["rows"] == [["one", "200", "600, 2.00x"], ["two", "1,000", ""]]
