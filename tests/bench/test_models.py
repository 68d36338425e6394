"""`python -m benchmarks models` and `train`: the names of cases, the folders that contenders load, the operations."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

import fastattn
from fastattn.models.registry import load_encoder, load_head

models = pytest.importorskip("benchmarks.models", reason="needs the source tree: python -m pytest")
measure = pytest.importorskip("benchmarks.measure")
report = pytest.importorskip("benchmarks.report")
rivals = pytest.importorskip("benchmarks.rivals")
train = pytest.importorskip("benchmarks.train")
training = pytest.importorskip("benchmarks.training")
weights = pytest.importorskip("benchmarks.weights")

SIZES = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 6}
SMALL = {"vocab_size": 1100, "max_position_embeddings": 40}
THEIRS = {"dim": 8, "n_heads": 2, "n_layers": 2, "hidden_dim": 6}
FAMILIES = {"bert": SIZES, "roberta": SIZES, "distilbert": THEIRS, "mpnet": SIZES}
FAMILIES["modernbert"] = {**SIZES, "pad_token_id": 5, "num_hidden_layers": 4}


@pytest.fixture(params=FAMILIES)
def name(request, monkeypatch):
    """A small model of a family among those that are benchmarked."""
    monkeypatch.setitem(weights.MODELS, "small", (request.param, FAMILIES[request.param] | SMALL))
    return "small"


def test_names_of_cases():
    assert models.parse_case("bert-base-8x128") == ("bert-base", [128] * 8)
    model, lengths = models.parse_case("modernbert-base-8x100to800")
    assert model == "modernbert-base"
    assert sorted(lengths) == [*range(100, 801, 100)] != lengths
    assert models.parse_case("modernbert-base-8x100to800")[1] == lengths


@pytest.mark.parametrize(
    "name", ["", "bert-base", "bert-base-8", "bert-base-8x", "bert-base-x8", "8x128", "b-8x1to", "b-0x8", "b-8x0"]
)
def test_a_name_that_is_no_case(name):
    with pytest.raises(SystemExit, match=f"unknown case '{name}'; a case is MODEL-BATCHxLENGTH or "):
        models.parse_case(name)


def test_an_unknown_model_is_named(tmp_path):
    with pytest.raises(SystemExit, match=r"unknown model 'bart-base'; known are bert-base, .*roberta-base"):
        weights.model_folder("bart-base", tmp_path)
    assert not [*tmp_path.iterdir()]


def test_every_case_has_a_model():
    named = [models.parse_case(case)[0] for case in models.CASES]
    assert {name for name in named if not name.endswith(weights.ENCODER)} < set(weights.MODELS)


def test_the_real_sizes():
    sizes = {name: weights.config(name) for name in weights.MODELS}
    assert {name: each.vocab_size for name, each in sizes.items() if each.vocab_size != 30522} == {
        "roberta-base": 50265,
        "mpnet-base": 30527,
        "modernbert-base": 50368,
    }
    assert {name: each.num_hidden_layers for name, each in sizes.items() if name.endswith("-base")} == {
        "bert-base": 12,
        "roberta-base": 12,
        "distilbert-base": 6,
        "mpnet-base": 12,
        "modernbert-base": 22,
    }
    assert [sizes[name].max_position_embeddings for name in ("roberta-base", "mpnet-base")] == [514, 514]


def test_the_folder_of_every_family(name, tmp_path):
    folder = weights.model_folder(name, tmp_path)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert weights.model_folder(name, tmp_path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    assert [each.name for each in tmp_path.iterdir()] == [folder.name]
    assert len((folder / "vocab.txt").read_text().split()) == 1100
    encoder = load_encoder(folder)
    for parameter, tensor in encoder.named_parameters():
        assert np.unique(tensor.data).size > tensor.data.size // 2, parameter  # no zeros and ones of a new model
    assert getattr(encoder, "pooler", None) is None


def test_ids_of_every_family(name, tmp_path):
    folder, rng = weights.model_folder(name, tmp_path), np.random.default_rng(0)
    ids, mask = weights.random_batch(folder, [3, 7], rng)
    assert mask.tolist() == [[1] * 3 + [0] * 4, [1] * 7]
    assert set(ids[mask == 0]) == {weights.config(name).pad_token_id}
    assert (ids[mask == 1] >= weights.FIRST_WORD).all()


def test_hidden_states_of_padding_are_not_compared(name, tmp_path):
    folder = weights.model_folder(name, tmp_path)
    batch = weights.random_batch(folder, [3, 7], np.random.default_rng(0))
    job = models.Forward(rivals.Fastattn(folder, tmp_path, fastattn.num_threads()), *batch)
    assert job().shape == (2, 7, 8)
    np.testing.assert_array_equal(job.check(), job()[job.mask == 1])
    assert job.check().shape == (10, 8)


def test_operations_of_every_family(name, tmp_path):
    """A number of a weight is multiplied and added once per token. A token sees 129 in the windows of ModernBERT."""
    folder = weights.model_folder(name, tmp_path)
    others = ("embeddings", "relative_attention_bias")
    matrices = [
        each
        for key, each in load_file(folder / "model.safetensors").items()
        if each.ndim == 2 and not any(w in key for w in others)
    ]
    products = 2 * sum(matrix.size for matrix in matrices)
    kinds = getattr(weights.config(name), "layer_types", ["full_attention"] * 2)
    for lengths in ([5], [3, 7, 7], [20, 300]):
        seen = [min(n, 129) if kind == "sliding_attention" else n for kind in kinds for n in lengths]
        attention = 2 * 2 * 8 * sum(n * m for n, m in zip(lengths * len(kinds), seen, strict=True))
        assert weights.flops(name, lengths) == products * sum(lengths) + attention


@pytest.mark.filterwarnings("ignore:.* are not in .*They are drawn at random")
def test_a_training_step_of_every_family(name, tmp_path):
    task = train.classification(name, [3, 7], tmp_path)
    assert (task.tokens, task.padded) == (10, 14 / 10)
    assert task.flops == 3 * weights.flops(name, [3, 7])
    assert type(load_head(task.folder, "SequenceClassification")).__name__ == task.head
    training.write_batches(tmp_path / "batches.npz", task.batches)
    before = load_file(task.folder / "model.safetensors")
    job = training.job(
        "fastattn", str(task.folder), str(tmp_path / "batches.npz"), task.head, 2, fastattn.num_threads()
    )
    loaded, prefix = job.training.weights, job.training.model.encoder_class.prefix
    for key, tensor in before.items():
        np.testing.assert_array_equal(loaded[f"{prefix}{key}"], tensor)
    losses = job.check()[: training.CHECK_STEPS]
    assert losses == pytest.approx(np.log(2), abs=0.1)
    assert losses[0] != losses[1]


def test_pairs_have_one_length():
    assert train.equal_lengths("transformer-base-4x32") == ("transformer-base", 4, 32)
    with pytest.raises(SystemExit, match="transformer-base-4x8to32: only classification has texts of several lengths"):
        train.equal_lengths("transformer-base-4x8to32")


def test_what_a_rival_says_of_its_model_is_in_its_row():
    series = {name: measure.Series(0.0, seconds=[1.0], peak_gflops=[1.0]) for name in ("fastattn", "onnxruntime")}
    result = measure.Result("case", 1, "tokens/s", None, series, notes={"onnxruntime": "attention not fused"})
    assert [row[1] for row in report.timing_rows(result)] == ["fastattn", "onnxruntime, attention not fused"]


def test_what_a_rival_says_of_its_model_is_kept_with_it(tmp_path, monkeypatch):
    class Rival(rivals.Fastattn):
        package = "numpy"
        note = "attention not fused"

        @classmethod
        def convert(cls, folder, converted):
            (converted / "model").write_text("")
            return cls.note

    monkeypatch.setitem(rivals.RUNTIMES, "rival", Rival)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    for note in ("attention not fused", "another that is not asked for"):
        Rival.note = note
        assert rivals.convert("rival", str(tmp_path), str(tmp_path)) == "attention not fused"
