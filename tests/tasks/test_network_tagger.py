"""Taggers that are LSTMs, with and without a frozen model: training, folders, labels of words and of raw text."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_network_tagger import SMALL, write_bilm
from helpers_runs import log_of
from helpers_sentences import write_bert
from helpers_train import SENTENCES, conllu

from fastattn.cli import main
from fastattn.errors import OptionError
from fastattn.tasks import Tagger, train
from fastattn.tasks.tag.files import TAGGER_FILES
from fastattn.tasks.tag.network import NetworkTagger
from fastattn.text import ConllSentence, ConlluSentence

WORDS = [sentence.split() for sentence in SENTENCES]
TAGS = {"the": "DET", "cat": "NOUN", "sat": "VERB", ".": "PUNCT", "query": "NOUN"}
DATA = [ConlluSentence.from_words(words, [TAGS[word] for word in words]) for words in WORDS]
NAMES = [
    ConllSentence.from_words(words, ["B-PER" if word in ("cat", "query") else "O" for word in words]) for words in WORDS
]
FEATURES = (None, "bilm", "elmo", "bert")


def start_of(features: str | None, folder: Path) -> Path | None:
    if features is None:
        return None
    return write_bert(folder / "bert") if features == "bert" else write_bilm(folder / "bilm")


def make(folder: Path, features: str | None = None, network: str = "lstm-crf", data: Any = DATA, **more: Any) -> Any:
    options = {**SMALL, "network": network, "features": features, **more}
    return Tagger.for_training(start_of(features, folder), data, **options)


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("network", ["lstm", "lstm-crf"])
def test_what_is_trained_and_saved_comes_back(tmp_path: Path, features: str | None, network: str) -> None:
    tagger = make(tmp_path, features, network)
    assert isinstance(tagger, NetworkTagger)
    train(tagger, DATA, tmp_path / "out", evaluate_on=DATA)
    expected = tagger.tag(WORDS)
    assert pickle.loads(pickle.dumps(tagger)).tag(WORDS) == expected
    for start in ("bert", "bilm"):  # the folder stands alone
        shutil.rmtree(tmp_path / start, ignore_errors=True)
    loaded = Tagger.from_pretrained(tmp_path / "out")
    assert loaded.tag(WORDS) == expected
    assert [loaded.tag([words])[0] for words in WORDS] == expected
    assert loaded.tag(WORDS[::-1]) == expected[::-1]
    assert loaded.tag([[], *WORDS, []]) == [[], *expected, []]
    assert loaded.evaluate(DATA) == tagger.evaluate(DATA)
    assert (tmp_path / "out" / "features").is_dir() == (features is not None)
    loaded.save_pretrained(tmp_path / "again")
    assert Tagger.from_pretrained(tmp_path / "again").tag(WORDS) == expected


def test_a_run_does_not_go_on_with_another_tokenizer(tmp_path: Path) -> None:
    train(make(tmp_path, "bert"), DATA, tmp_path / "out")
    words = (tmp_path / "bert/vocab.txt").read_text(encoding="utf-8").split("\n")
    cat, sat = words.index("cat"), words.index("sat")
    words[cat], words[sat] = words[sat], words[cat]
    (tmp_path / "bert/vocab.txt").write_text("\n".join(words), encoding="utf-8")
    tagger = Tagger.for_training(tmp_path / "bert", DATA, **SMALL, network="lstm-crf", features="bert")
    with pytest.raises(ValueError, match="of another model or configuration: features_crc32"):
        train(tagger, DATA, tmp_path / "out", resume=True)


@pytest.mark.parametrize("features", FEATURES)
def test_it_learns(tmp_path: Path, features: str | None) -> None:
    tagger = make(tmp_path, features, epochs=30, dropout=0.1, learning_rate=0.02)
    train(tagger, DATA * 4, tmp_path / "out")
    assert tagger.evaluate(DATA) == {"accuracy": 1.0}


@pytest.mark.parametrize("features", ["bilm", "elmo", "bert"])
def test_features_that_are_kept_are_those_that_are_computed_again(tmp_path: Path, features: str) -> None:
    logs = []
    for where in (None, "memory", "disk", "none"):
        tagger = make(tmp_path, features, features_cache=where)
        frozen, calls = tagger.features, []
        read = frozen.read
        frozen.read = lambda sentences, read=read, calls=calls: calls.extend(sentences) or read(sentences)
        train(tagger, DATA, tmp_path / str(where), evaluate_on=DATA)
        found = tagger.model.state_dict()
        logs.append((log_of(tmp_path / str(where)), {name: x.tobytes() for name, x in found.items()}))
        assert (len(calls) == len(DATA)) == (where != "none")  # once, although they are read in each epoch
    assert logs[0] == logs[1] == logs[2] == logs[3]


def test_features_of_a_run_leave_nothing_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr("fastattn.tasks.tag.features.MEMORY", 0)
    tagger = make(tmp_path, "elmo")
    tagger.batches(DATA)
    kept = tagger._kept._kept
    assert len(kept) == len(WORDS)
    assert not any(array.flags.writeable or array.flags.owndata for array in kept.values())
    assert not list((tmp_path / "tmp").iterdir())


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **options: Full())
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}'"):
        make(tmp_path, "bilm", features_cache="disk").batches(DATA)


def test_what_a_part_of_a_download_lacks(tmp_path: Path) -> None:
    def missing() -> list[str]:
        return TAGGER_FILES.missing(tmp_path / "out")

    (tmp_path / "out").mkdir()
    assert "config.json" in missing()
    make(tmp_path, "elmo").save_pretrained(tmp_path / "out")
    assert missing() == []
    (tmp_path / "out" / "features" / "model.safetensors").unlink()
    (tmp_path / "out" / "vocab.txt").unlink()
    assert missing() == ["vocab.txt", "features/model.safetensors or model.safetensors.index.json"]


def test_bits_do_not_depend_on_the_company(tmp_path: Path, threads: int) -> None:
    for features in FEATURES:
        tagger = make(tmp_path, features, word_dropout=0.0)
        tagger.model.eval()

        def scores(sentences: list[list[str]], tagger: Any = tagger) -> bytes:
            (_, logits, _), *others = tagger._run(sentences)
            assert not others
            return bytes(np.asarray(logits).tobytes())

        many = scores([words for words in WORDS if len(words) == 2] * 3)
        alone = [scores([words]) for words in WORDS if len(words) == 2] * 3
        assert many == b"".join(alone)


def test_unknown_words_and_the_case(tmp_path: Path) -> None:
    tagger = make(tmp_path, min_count=3)
    assert tagger.vocabulary.words == ("<S>", "</S>", "<UNK>", "the", "cat", "sat", ".")
    assert tagger._encode([["The", "the", "query", "dog"]]).word_ids.tolist() == [3, 3, 2, 2]
    with pytest.raises(ValueError, match=r"tag: sentences\[0\]\[1\] is an empty word"):
        tagger.tag([["the", ""]])
    with pytest.raises(TypeError, match=r"tag: sentences\[1\]"):
        tagger.tag([["the"], "cat"])


def test_vectors_of_words(tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text("the 1 2 3 4\ncat 5 6 7 8\nother 0 0 0 0\n")
    tagger = make(tmp_path, vectors=str(path), word_dim=None)
    table = tagger.model.word_embedding.weight.data
    assert table.shape == (8, 4)
    rows = tagger.vocabulary.ids(["the", "cat", "sat"])
    assert table[rows[:2]].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert np.abs(table[rows[2]]).max() > 0
    with pytest.raises(OptionError, match="has vectors of 4 numbers, but word_dim is 6"):
        make(tmp_path, vectors=str(path))


def test_labels_of_a_crf_are_all_tags_of_the_scheme(tmp_path: Path) -> None:
    tagger = make(tmp_path, data=NAMES, scheme="BIOES")
    assert tagger.labels == ("O", "B-PER", "I-PER", "E-PER", "S-PER")
    assert set(tagger.evaluate(NAMES)) == {"f1", "precision", "recall", "accuracy"}
    tagger = make(tmp_path, data=NAMES, network="lstm")
    assert tagger.labels == ("B-PER", "O")
    forbidden = [ConllSentence.from_words(["the", "cat"], ["O", "I-PER"])]  # read as seqeval reads it
    assert make(tmp_path, data=[*NAMES, *forbidden]).batches(forbidden).load(np.array([0]))["labels"].tolist() == [0, 1]


def test_a_crf_learns_sentences_with_all_tags(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    part = ConlluSentence.from_words(["the", "cat"], ["DET", "_"])
    caplog.set_level("INFO")
    assert len(make(tmp_path).batches([*DATA, part]).lengths) == len(DATA)
    assert "not learnt: 1 sentence in which a word has no tag" in caplog.text
    assert len(make(tmp_path, network="lstm").batches([*DATA, part]).lengths) == len(DATA) + 1
    with pytest.raises(ValueError, match="batches: no word has a tag in a sentence with a tag for each"):
        make(tmp_path).batches([part])
    with pytest.raises(ValueError, match=r"batches: data\[0\]: the tag 'ADJ' is none of DET, NOUN, PUNCT, VERB"):
        make(tmp_path).batches([ConlluSentence.from_words(["the"], ["ADJ"])])


def test_entities_in_text(tmp_path: Path) -> None:
    tagger = make(tmp_path, "elmo", data=NAMES, epochs=30, dropout=0.1, learning_rate=0.02)
    train(tagger, NAMES * 4, tmp_path / "out")
    tagger = Tagger.from_pretrained(tmp_path / "out")
    text = "the cat sat.  the query"
    found = tagger.entities([text, ""])
    assert found[1] == []
    assert [(each["entity_group"], each["word"], each["start"], each["end"]) for each in found[0]] == [
        ("PER", "cat", 4, 7),
        ("PER", "query", 18, 23),
    ]
    assert all(0.5 < each["score"] <= 1 for each in found[0])
    words = tagger.entities([text], "none")[0]
    assert [(each["entity"], each["index"], each["word"]) for each in words] == [
        ("B-PER", 1, "cat"),
        ("B-PER", 5, "query"),
    ]
    with pytest.raises(OptionError, match="stride is for models of wordpieces"):
        tagger.entities([text], stride=3)
    together = tagger.entities(["cat", text, "sat"])
    assert together[1] == found[0]


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "train.conllu"
    data.write_text(conllu(SENTENCES * 4), encoding="utf-8")
    bilm = write_bilm(tmp_path / "bilm")
    more = ["--word-dim", "6", "--hidden-size", "8", "--epochs", "1", "--no-plot", "--network", "lstm"]
    both = ["--features", "bilm", "--model", str(bilm), "--train", str(data), "--eval", str(data)]
    assert main(["train", "tag", *both, *more, "--output", str(tmp_path / "out")]) == 0
    assert "epoch 1, step 1: accuracy" in capsys.readouterr().out
    output = tmp_path / "tagged.conllu"
    assert main(["predict", "tag", "--model", str(tmp_path / "out"), str(data), "--output", str(output)]) == 0
    assert "accuracy: " in capsys.readouterr().err
    assert len(output.read_text(encoding="utf-8")) > 100
    text = tmp_path / "text.txt"
    text.write_text("the cat sat.\n", encoding="utf-8")
    assert main(["predict", "tag", "--model", str(tmp_path / "out"), "--format", "text", str(text)]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "the cat sat."
    assert main(["info", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "fastattn predict tag --model" in told
    assert "problem" not in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "encoder"}, "model must name the encoder to train, or network be lstm or lstm-crf"),
        ({"network": "lstm", "features": "elmo"}, "features elmo needs model"),
        ({"network": "lstm", "start": "bilm"}, "model is for network encoder, or needs features"),
        ({"features": "elmo"}, "features is for network lstm and lstm-crf, not for encoder"),
        ({"dropout": 0.1}, "dropout is for network lstm and lstm-crf, not for encoder"),
        ({"network": "lstm", "features_cache": "disk"}, "features_cache needs features"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Tagger.for_training(options.pop("start", None), DATA, **options)


def test_a_frozen_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    bert, bilm = write_bert(tmp_path / "bert"), write_bilm(tmp_path / "bilm")
    with pytest.raises(ValueError, match=f"^{bert}: not a bidirectional language model, its model_type is 'bert'"):
        Tagger.for_training(bert, DATA, network="lstm", features="bilm")
    with pytest.raises(ValueError, match="reads words, not tokens"):
        Tagger.for_training(bilm, DATA, network="lstm", features="bert")


def damage(folder: Path, name: str) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text())
    if name == "vocabulary":
        (folder / "vocab.txt").write_text("<S>\n</S>\n<UNK>\n")
    elif name == "order":
        words = (folder / "vocab.txt").read_text().split()
        (folder / "vocab.txt").write_text("\n".join([words[2], *words[:2], *words[3:]]))
    elif name == "features":
        shutil.rmtree(folder / "features")
        write_bilm(folder / "features", projection_dim=6)
    elif name == "kind":
        shutil.rmtree(folder / "features")
        write_bert(folder / "features")
    elif name == "labels":
        path.write_text(json.dumps({**values, "id2label": {"0": "O", "1": "X"}}))
    elif name == "layout":
        (folder / "tagger.json").unlink()
    elif name == "size":
        path.write_text(json.dumps({**values, "hidden_size": 10**9}))
    else:
        shutil.rmtree(folder / "features")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vocabulary", r"vocab.txt: must have 8 words, as many as the model, got 3"),
        ("order", r"vocab.txt:3: must be <UNK>"),
        ("features", r"features: must give 3 layers of 8 numbers, as the tagger reads, got 3 of 12"),
        ("kind", r"features: not a bidirectional language model"),
        ("labels", r"model.safetensors: tensor 'classifier"),
        ("size", r"model.safetensors: "),
        ("layout", r"tagger.json"),
        ("missing", r"features"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(tmp_path: Path, name: str, message: str) -> None:
    make(tmp_path, "elmo").save_pretrained(tmp_path / "out")
    damage(tmp_path / "out", name)
    with pytest.raises((ValueError, OSError), match=message):
        Tagger.from_pretrained(tmp_path / "out")
