"""The answerer: windows, labels, the best answers, and folders that others read."""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_sentences import HIDDEN, POSITIONS, pattern, write_bert
from helpers_train import json_lines, questions, squad, write

from fastattn.autograd import no_grad
from fastattn.cli import main
from fastattn.tasks import Answerer, AnswerRecipe, Tagger
from fastattn.tasks.answer.recipe import AnswerOptions
from fastattn.tasks.answer.windows import answer_tokens, encode_windows
from fastattn.text import ConlluSentence, SquadExample, Tokenizer, read_squad
from fastattn.training import squad_scores

CONTEXT = "The cat sat. abc def query, the cat: a b c d e f g h i j k l m n o p q r s t u v w x y z."
QUESTIONS = ["the cat", "query", "", "a b c d e f g h i j k l m n o p q r s t", "sat"]
CONTEXTS = [CONTEXT, "cat", "the cat sat.", CONTEXT, "  "]
ROWS = questions(0)


def make_answerer(folder: Path, **config: Any) -> Path:
    """An answerer whose answers depend on the words."""
    answerer = Answerer.for_training(write_bert(folder / "bert", **config), ROWS, seed=1)
    answerer.model.qa_outputs.weight.data[...] = pattern(2, HIDDEN, salt=70, scale=2.0)
    answerer.save_pretrained(folder / "answerer")
    return folder / "answerer"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_answerer(tmp_path_factory.mktemp("answer"))


@pytest.fixture(scope="module")
def answerer(folder: Path) -> Answerer:
    return Answerer.from_pretrained(folder)


def by_hand(
    answerer: Answerer,
    question: str,
    context: str,
    longest: int,
    forward: Callable[[Any, Any], tuple[Any, Any]] | None = None,
    **limits: int,
) -> tuple[list[Any], float]:
    """All answers of a question that fits into its windows, the best one first, and the score of no answer. `forward`
    computes the logits of starts and ends, if not the answerer."""

    def own(ids: Any, types: Any) -> tuple[Any, Any]:
        with no_grad():
            output = answerer.model(ids, None, types)
        return output.start_logits, output.end_logits

    options = AnswerOptions(**{"max_length": POSITIONS, **limits})
    windows = encode_windows(answerer.tokenizer, [question], [context], options, options.max_length, 10**6)
    found: dict[tuple[int, int], float] = defaultdict(float)
    none, logits = [], -np.inf
    for begin, end in zip(windows.cu_seqlens[:-1], windows.cu_seqlens[1:], strict=True):
        logits_of = (forward or own)(windows.ids[None, begin:end], windows.token_type_ids[None, begin:end])
        starts, ends = (np.float64(x[0]) for x in logits_of)
        none.append(starts[0] + ends[0])
        tokens = [i for i in range(end - begin) if windows.sequence_ids[begin + i] == 1]
        kept = [0, *tokens]
        totals = [np.log(np.exp(x[kept]).sum()) for x in (starts, ends)]
        for first in tokens:
            for last in tokens:
                if first <= last < first + longest:
                    place = int(windows.offset_mapping[begin + first, 0]), int(windows.offset_mapping[begin + last, 1])
                    score = float(np.exp(starts[first] - totals[0] + ends[last] - totals[1]))
                    found[place] = max(found[place], score)
                    logits = max(logits, starts[first] + ends[last])
    best = sorted(found.items(), key=lambda item: -item[1])
    return [(score, start, end, context[start:end]) for (start, end), score in best], min(none) - logits


@pytest.mark.parametrize("longest", [1, 4, 30])
@pytest.mark.parametrize(("question", "context"), [("the cat", CONTEXT), ("query", "cat"), ("", "the cat sat.")])
def test_the_best_answers_are_those_of_all(answerer: Answerer, question: str, context: str, longest: int) -> None:
    wanted, none = by_hand(answerer, question, context, longest, doc_stride=6)
    for count in (1, 3, 1000):
        found = answerer(question=question, context=context, n_best=count, max_answer_length=longest, doc_stride=6)
        assert [tuple(answer[key] for key in ("start", "end", "answer")) for answer in found] == [
            answer[1:] for answer in wanted[:count]
        ]
        np.testing.assert_allclose([answer["score"] for answer in found], [x[0] for x in wanted[:count]], rtol=1e-5)
        assert found[0]["no_answer_score"] == pytest.approx(none, abs=1e-4)
    assert answerer(question=question, context=context, max_answer_length=longest, doc_stride=6) == found[0]


def test_the_score_of_no_answer_is_that_of_run_squad(answerer: Answerer) -> None:
    """The highest sum of logits counts, also if it is not in the window of the answer."""
    words, rng = CONTEXT.split(), np.random.default_rng(0)
    for _ in range(20):
        context = " ".join(rng.choice(words, 40))
        wanted, none = by_hand(answerer, "the cat", context, 5, doc_stride=6)
        found = answerer(question="the cat", context=context, max_answer_length=5, doc_stride=6)
        assert found["answer"] == wanted[0][3]
        assert found["no_answer_score"] == pytest.approx(none, abs=1e-4)
        limits = {"max_answer_length": 5, "doc_stride": 6, "null_score_diff_threshold": none - 0.01}
        assert answerer(question="the cat", context=context, **limits)["answer"] == ""
    assert answerer(question="the cat", context=context, n_best=3, max_answer_length=5, doc_stride=6)[0] == found


def test_ways_to_ask(answerer: Answerer) -> None:
    together = answerer(question=QUESTIONS, context=CONTEXTS)
    assert [answerer(question=q, context=c) for q, c in zip(QUESTIONS, CONTEXTS, strict=True)] == together
    rows = [{"question": q, "context": c} for q, c in zip(QUESTIONS, CONTEXTS, strict=True)]
    assert answerer(rows) == answerer(read_squad(rows)) == answerer(iter(rows)) == together
    assert answerer(rows, n_best=1) == [[answer] for answer in together]
    assert answerer(question=QUESTIONS[:2], context=CONTEXT) == answerer(question=QUESTIONS[:2], context=[CONTEXT] * 2)
    assert answerer([]) == answerer(question=[], context=CONTEXT) == []
    assert "Answerer(" in repr(answerer)
    for arguments in ({}, {"question": "a"}, {"context": "a"}):
        with pytest.raises(TypeError, match="either inputs must be given, or question and context"):
            answerer(**arguments)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="either inputs must be given, or question and context"):
        answerer(rows, question="a")
    with pytest.raises(ValueError, match="question has 2 entries, but context has 1"):
        answerer(question=["a", "b"], context=["c"])
    with pytest.raises(TypeError, match=r"^Answerer: context\[1\] must be str, got NoneType"):
        answerer(question=["a", "b"], context=["c", None])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="n_best must be a positive integer"):
        answerer(rows, n_best="2")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="max_answer_len'"):
        answerer(rows, max_answer_len=3)
    with pytest.raises(ValueError, match="doc_stride must be a positive integer, got 0"):
        answerer(rows, doc_stride=0)
    with pytest.raises(ValueError, match=r"^rows\[0\]: there is no column 'context', only 'question'"):
        answerer([{"question": "a"}])


def test_answers_do_not_depend_on_the_company(answerer: Answerer, threads: int) -> None:
    alone = [answerer(question=q, context=c, n_best=3) for q, c in zip(QUESTIONS, CONTEXTS, strict=True)]
    assert answerer(question=QUESTIONS * 7, context=CONTEXTS * 7, n_best=3) == alone * 7
    assert answerer(question=QUESTIONS[::-1], context=CONTEXTS[::-1], n_best=3) == alone[::-1]


def test_many_threads_at_once(answerer: Answerer) -> None:
    expected, results = answerer(question=QUESTIONS, context=CONTEXTS), []
    ask = lambda: results.append(answerer(question=QUESTIONS, context=CONTEXTS))  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4


def test_no_answer(answerer: Answerer) -> None:
    ask = {"question": "the cat", "context": "the cat sat."}
    best = answerer(**ask)
    difference = best["no_answer_score"]
    for threshold, wanted in ((difference - 1, ""), (difference, best["answer"]), (difference + 1, best["answer"])):
        found = answerer(**ask, null_score_diff_threshold=threshold)
        assert (found["answer"], found["no_answer_score"]) == (wanted, difference)
        every = answerer(**ask, null_score_diff_threshold=threshold, n_best=100)
        assert every[0] == found
        assert [answer["answer"] for answer in every].count("") == 1
        rest = [answer["score"] for answer in every[1:]]
        assert rest == sorted(rest, reverse=True)
        assert len(every) == len(answerer(**ask, n_best=100)) + 1
    nothing = {"start": 0, "end": 0, "answer": "", "no_answer_score": None}
    for context in ("", " \n"):
        assert answerer(question="cat", context=context) == {"score": 1.0, **nothing}


def test_long_questions_are_cut(answerer: Answerer) -> None:
    long, short = "a b c d e f g h i j", "a b c"
    for options in ({"max_question_length": 3},):
        cut = answerer(question=long, context=CONTEXT, n_best=5, **options)
        assert cut == answerer(question=short, context=CONTEXT, n_best=5)
    windows = encode_windows(answerer.tokenizer, ["abcdef " * 99], ["cat"], AnswerOptions(), POSITIONS, 10**6)
    assert windows.lengths.max() <= POSITIONS


def test_labels(answerer: Answerer) -> None:
    """In each window, the tokens that have characters of the answer; 0 where not all of them are there."""
    options = AnswerOptions(doc_stride=3)
    context = "the abc sat, def cat. a b c d"
    answers = [(0, 3), (4, 7), (5, 6), (4, 11), (8, 16), (11, 12), (20, 29), (-1, -1), (13, 21)]
    count = len(answers)
    windows = encode_windows(answerer.tokenizer, ["query"] * count, [context] * count, options, 12, 10**6)
    starts, ends = answer_tokens(windows, *np.array(answers).T)
    offsets, inside = windows.offset_mapping, windows.sequence_ids == 1
    seen = defaultdict(int)
    for i, sample in enumerate(windows.overflow_to_sample_mapping.tolist()):
        begin, stop = windows.cu_seqlens[i : i + 2]
        first, last = answers[sample]
        tokens = [t for t in range(begin, stop) if inside[t]]
        wanted = [t for t in tokens if offsets[t, 1] > first and offsets[t, 0] < last]
        whole = wanted and offsets[wanted[0], 0] <= first and offsets[wanted[-1], 1] >= last
        assert (starts[i], ends[i]) == ((wanted[0] - begin, wanted[-1] - begin) if whole else (0, 0))
        seen[sample] += bool(whole)
    assert seen.pop(7) == 0
    assert len(seen) == count - 1
    assert all(seen[i] for i in (0, 1, 2, 3, 5)), seen
    assert len(windows) > count


def test_batches(folder: Path) -> None:
    rows = [
        {"question": "query", "context": "the cat sat", "answers": {"text": ["cat sat", "a"], "answer_start": [4, 5]}},
        {"question": "a b", "context": "the abc", "answers": {"text": [" abc"], "answer_start": [3]}},
        {"question": "sat", "context": "the", "answers": {"text": [], "answer_start": []}},
    ]  # fmt: skip
    answerer = Answerer.for_training(folder, rows, batch_size=2, accumulation=3)
    batches = answerer.batches(rows)
    assert batches.lengths.tolist() == [7, 9, 5]
    assert (batches.settings["batch_size"], batches.accumulation) == (2, 3)
    loaded = batches.load(np.array([1, 0, 2]))
    assert loaded["cu_seqlens"].tolist() == [0, 9, 16, 21]
    assert loaded["token_type_ids"].tolist() == [0] * 4 + [1] * 5 + [0] * 3 + [1] * 4 + [0] * 3 + [1] * 2
    assert (loaded["start_positions"].tolist(), loaded["end_positions"].tolist()) == ([5, 4, 0], [7, 5, 0])
    answerer.loss(loaded).backward()
    assert answerer.model.qa_outputs.weight.grad is not None


def test_data_are_refused(folder: Path, tmp_path: Path) -> None:
    unknown = [{"question": "a", "context": "b"}]
    answerer = Answerer.for_training(folder, ROWS)
    for call in (
        lambda: Answerer.for_training(folder, unknown),
        lambda: answerer.batches(unknown),
        lambda: answerer.evaluate(unknown),
        lambda: answerer.check(unknown),
    ):
        with pytest.raises(ValueError, match=r"^rows\[0\]: the question has no answers; is_impossible says if"):
            call()
    with pytest.raises(ValueError, match="batches: there are no questions"):
        answerer.batches([])
    path = tmp_path / "wrong.json"
    wrong = [{"question": "a", "context": "the cat", "answers": {"text": ["cat"], "answer_start": [3]}}]
    for text, message in (
        ("", "there are no questions"),
        (json_lines(wrong), r"wrong.json:1.answers\[0\]: 'cat' is not at 3 of the context, where ' ca' stands"),
        (squad(wrong), r"paragraphs\[0\].qas\[0\].answers\[0\]: 'cat' is not at 3 of the context"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            Answerer.read(path)


def test_every_object_is_read(folder: Path, tmp_path: Path) -> None:
    file, lines = write(tmp_path / "a.json", squad(ROWS)), write(tmp_path / "b.jsonl", json_lines(ROWS))
    answerer = Answerer.from_pretrained(folder)
    expected = answerer.evaluate(ROWS)
    assert set(expected) == {"exact_match", "f1", "has_answer_exact_match", "has_answer_f1", "no_answer"}
    for source in (file, lines, Answerer.read(file), Answerer.read(ROWS), (row for row in ROWS)):
        assert answerer.evaluate(source) == expected
    assert len(Answerer.read(file, lines)) == 2 * len(ROWS)
    pandas = pytest.importorskip("pandas", reason="reads a frame of pandas")
    assert answerer.evaluate(pandas.DataFrame(ROWS)) == expected


def test_evaluation(answerer: Answerer) -> None:
    """Questions of SQuAD 2.0 may get no answer, unless a threshold says otherwise; those of SQuAD 1.1 get one."""
    examples = read_squad(ROWS)
    best = answerer(examples)
    told = [answer["answer"] if answer["no_answer_score"] <= 0 else "" for answer in best]
    assert answerer.evaluate(examples) == squad_scores(told, examples)
    answered = [example for example in examples if example.answers]
    texts = [answer["answer"] for answer in answerer(answered)]
    assert answerer.evaluate(answered) == squad_scores(texts, answered)
    never = Answerer.for_training(answerer._folder, ROWS, null_score_diff_threshold=1e9)
    assert never.evaluate(examples)["no_answer"] == 0.0
    assert never.show({"exact_match": 12.345, "f1": None}) == "exact_match 12.35, f1 undefined"


def test_what_is_saved_comes_back(folder: Path, tmp_path: Path, answerer: Answerer) -> None:
    answerer.save_pretrained(tmp_path / "again")
    again = Answerer.from_pretrained(tmp_path / "again")
    assert again(question=QUESTIONS, context=CONTEXTS) == answerer(question=QUESTIONS, context=CONTEXTS)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["BertForQuestionAnswering"]


def test_a_tagger_is_a_start_but_no_answerer(folder: Path, tmp_path: Path) -> None:
    words = ["DET", "NOUN", "VERB"]
    Tagger.for_training(folder, [ConlluSentence.from_words(words, words)]).save_pretrained(tmp_path / "tagger")
    with pytest.raises(ValueError, match=r"tagger: has no head for answers \(`fastattn train answer` makes one\)"):
        Answerer.from_pretrained(tmp_path / "tagger")
    with pytest.raises(ValueError, match=r"bert: has no head for answers .* architecture is BertModel$"):
        Answerer.from_pretrained(write_bert(tmp_path / "bert"))
    answerer = Answerer.for_training(tmp_path / "tagger", ROWS)
    answerer.save_pretrained(tmp_path / "answerer")
    assert Answerer.from_pretrained(tmp_path / "answerer").model.config.num_labels == 2


def predict(folder: Path, path: Path, *more: str) -> str:
    output = path.with_name("output")
    assert main(["predict", "answer", "--model", str(folder), str(path), "--output", str(output), *more]) == 0
    return output.read_text(encoding="utf-8")


def test_predict_squad(folder: Path, answerer: Answerer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "dev.json"
    write(path, squad(ROWS))
    examples = read_squad(path)
    found = json.loads(predict(folder, path))
    options = {"null_score_diff_threshold": 0.0}
    expected = answerer(examples, **options)
    assert found == {each.id: answer["answer"] for each, answer in zip(examples, expected, strict=True)}
    assert capsys.readouterr().err == answerer.show(answerer.evaluate(examples)) + "\n"
    best = json.loads(predict(folder, path, "--n-best", "3", "--max-answer-length", "2"))
    expected = answerer(examples, n_best=3, max_answer_length=2, **options)
    assert best == dict(zip([each.id for each in examples], expected, strict=True))
    unknown = json.loads(squad(ROWS[:2]))
    for paragraph in unknown["data"][0]["paragraphs"]:
        del paragraph["qas"][0]["answers"], paragraph["qas"][0]["is_impossible"]
    path.write_text(json.dumps(unknown, indent=1))
    capsys.readouterr()
    assert json.loads(predict(folder, path)) == {
        each.id: answer["answer"] for each, answer in zip(examples[:2], answerer(examples[:2]), strict=True)
    }
    assert capsys.readouterr().err == ""
    threshold = predict(folder, path, "--null-score-diff-threshold", "-1000000")
    assert json.loads(threshold) == {"q0": "", "q1": ""}


def test_predict_json_lines(folder: Path, answerer: Answerer, tmp_path: Path) -> None:
    rows = [{"id": "a\u2028", "question": "query", "context": CONTEXT}, {"id": "b", "question": "", "context": "cat"}]
    path = tmp_path / "rows.jsonl"
    write(path, json_lines(rows))
    text = predict(folder, path)
    assert "\u2028" not in text
    expected = answerer(rows)
    assert [json.loads(line) for line in text.splitlines()] == [
        {"id": row["id"], **answer} for row, answer in zip(rows, expected, strict=True)
    ]
    best = predict(folder, path, "--n-best", "2").splitlines()
    expected = answerer(rows, n_best=2)
    assert [json.loads(line)["answers"] for line in best] == expected


@pytest.fixture(scope="module")
def xquad() -> list[SquadExample]:
    data = Path(os.environ.get("FASTATTN_DATA") or Path(__file__).parents[3] / "shared" / "data")
    path = data / "xquad" / "xquad.en.json"
    if not path.is_file():
        pytest.skip(f"XQuAD is missing: {path} (set FASTATTN_DATA)")
    return read_squad(path)


def test_real_answers_are_found_in_their_windows(folder: Path, xquad: list[SquadExample]) -> None:
    """Every answer of XQuAD stands whole in a window, and its tokens have its characters."""
    tokenizer = Tokenizer.from_pretrained(folder)
    starts, ends = np.array([(a.start, a.start + len(a.text)) for a in (each.answers[0] for each in xquad)]).T
    texts = [each.question for each in xquad], [each.context for each in xquad]
    windows = encode_windows(tokenizer, *texts, AnswerOptions(), 384, 10**6)
    first, last = answer_tokens(windows, starts, ends)
    found = np.flatnonzero(first)
    owners = windows.overflow_to_sample_mapping
    assert len(windows) > len(xquad)
    assert set(owners[found].tolist()) == set(range(len(xquad)))
    places = windows.cu_seqlens[:-1][found]
    begins, finishes = windows.offset_mapping[places + first[found], 0], windows.offset_mapping[places + last[found], 1]
    exact = (begins == starts[owners[found]]) & (finishes == ends[owners[found]])
    assert exact.mean() > 0.98
    assert (begins <= starts[owners[found]]).all()
    assert (finishes >= ends[owners[found]]).all()


@pytest.mark.parametrize("writer", ["ours", "theirs"])
def test_transformers_gives_the_same_logits(folder: Path, tmp_path: Path, writer: str) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch and transformers")
    transformers = pytest.importorskip("transformers", reason="compares with torch and transformers")
    if writer == "theirs":
        folder = write_theirs(transformers, folder, tmp_path / "theirs")
    theirs = transformers.BertForQuestionAnswering.from_pretrained(folder).eval()
    encoded = transformers.AutoTokenizer.from_pretrained(folder)("query", "the cat sat. abc", return_tensors="pt")
    with torch.no_grad():
        wanted = theirs(**encoded)
    ids, types = encoded["input_ids"].numpy(), encoded["token_type_ids"].numpy()
    ours = Answerer.from_pretrained(folder).model(ids, None, types)
    for name in ("start_logits", "end_logits"):
        logits = wanted[name].numpy()
        np.testing.assert_allclose(ours[name], logits, rtol=0, atol=2e-5 * np.abs(logits).max())


def write_theirs(transformers: Any, start: Path, folder: Path) -> Path:
    """An answerer made by transformers, of the sizes and with the tokenizer of `start`."""
    transformers.set_seed(0)
    config = transformers.BertConfig.from_pretrained(start)
    config.initializer_range = 0.5
    transformers.BertForQuestionAnswering(config).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(start).save_pretrained(folder)
    return folder


def test_answers_are_the_best_of_the_logits_of_transformers(folder: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch and transformers")
    transformers = pytest.importorskip("transformers", reason="compares with torch and transformers")
    write_theirs(transformers, folder, tmp_path / "theirs")
    theirs = transformers.BertForQuestionAnswering.from_pretrained(tmp_path / "theirs").eval()
    ours = Answerer.from_pretrained(tmp_path / "theirs")

    def forward(ids: Any, types: Any) -> tuple[Any, Any]:
        with torch.no_grad():
            output = theirs(input_ids=torch.tensor(ids), token_type_ids=torch.tensor(types))
        return output.start_logits.numpy(), output.end_logits.numpy()

    for question, context in itertools.product(("the cat", "query", "abcdef"), (CONTEXT, "cat sat", "abc. the: query")):
        wanted, none = by_hand(ours, question, context, 6, forward, doc_stride=6)
        found = ours(question=question, context=context, n_best=5, max_answer_length=6, doc_stride=6)
        assert [tuple(answer[key] for key in ("start", "end", "answer")) for answer in found] == [
            answer[1:] for answer in wanted[:5]
        ]
        np.testing.assert_allclose([answer["score"] for answer in found], [x[0] for x in wanted[:5]], rtol=1e-4)
        assert found[0]["no_answer_score"] == pytest.approx(none, abs=1e-3)


def test_the_recipe() -> None:
    assert AnswerRecipe(null_score_diff_threshold=-3).null_score_diff_threshold == -3.0
    assert (AnswerRecipe.metric, AnswerRecipe().max_length, AnswerRecipe().doc_stride) == ("f1", None, 128)
    with pytest.raises(ValueError, match="null_score_diff_threshold must be a number"):
        AnswerRecipe(null_score_diff_threshold=float("nan"))


def test_weights_decay_but_for_biases_and_norms(folder: Path) -> None:
    answerer = Answerer.for_training(folder, ROWS, weight_decay=0.2)
    groups = answerer.recipe.make_optimizer(answerer.model).param_groups
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    for name, parameter in answerer.model.named_parameters():
        assert decays.pop(id(parameter)) == (0.0 if name.endswith("bias") or "LayerNorm" in name else 0.2), name
    assert not decays
