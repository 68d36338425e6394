"""Weights that are packed as they are read, and tables whose rows stay in their file until they are used."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import fastattn
from fastattn import nn
from fastattn.formats import hugging_face
from fastattn.formats.hugging_face import StateDict, read_state_dict
from fastattn.kernels import PackedMatrix
from fastattn.models import BertConfig, BertForMaskedLM, BertModel
from fastattn.models.registry import load_encoder

ROWS = 4200
CU_SEQLENS = np.array([0, 3, 7], np.int32)


def written(folder: Path, **tensors: Any) -> StateDict:
    save_file(tensors, folder / "model.safetensors")
    return read_state_dict(folder)


def normal(*shape: int) -> Any:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder with a table of 4.3 MB."""
    folder = tmp_path_factory.mktemp("model")
    fastattn.manual_seed(0)
    config = BertConfig(vocab_size=ROWS, hidden_size=256, num_hidden_layers=1, num_attention_heads=4)
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved, tmp_path / "model")
    return tmp_path / "model"


def table_of(model: Any) -> Any:
    return model.embeddings.word_embeddings.weight


def unread(model: Any) -> int:
    """How many rows of a model's table are still in its file."""
    stored = table_of(model).stored
    return 0 if stored is None else int(np.count_nonzero(stored._unread))


def packed_alone(tensors: Any) -> PackedMatrix:
    (packed,) = tensors.packed([(["w"], 1)])
    return packed  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("rows", "columns", "groups"), [([1], 1, 1), ([48, 48], 33, 1), ([5, 40, 7], 130, 1), ([52], 9, 4)]
)
def test_matrices_are_packed_as_they_are_read(rows: list[int], columns: int, groups: int, tmp_path: Path) -> None:
    arrays = {f"w{i}": normal(count, columns) for i, count in enumerate(rows)}
    with written(tmp_path, first=normal(3), **arrays) as tensors:
        (packed,) = tensors.packed([(list(arrays), groups)])
    expected = PackedMatrix(np.concatenate(list(arrays.values())), groups)
    assert packed.shape == expected.shape
    assert packed.groups == groups
    np.testing.assert_array_equal(packed.unpack(), expected.unpack())
    if groups == 1:
        x = normal(4, columns)
        np.testing.assert_array_equal(fastattn.kernels.linear(x, packed), fastattn.kernels.linear(x, expected))


def test_other_dtypes_are_packed_too(tmp_path: Path) -> None:
    half = normal(20, 6).astype(np.float16)
    with written(tmp_path, w=half) as tensors:
        np.testing.assert_array_equal(packed_alone(tensors).unpack(), half.astype(np.float32))
        assert tensors.rows("w") is None


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    for value in (np.nan, np.inf, -np.inf):
        weight = normal(40, 33)
        weight[37, 32] = value
        with (
            written(tmp_path, w=weight) as tensors,
            pytest.raises(ValueError, match=r"tensor 'w' has -?(nan|inf) at \(37, 32\)"),
        ):
            packed_alone(tensors)
    huge = np.full((20, 4), 3e38, np.float32)  # whose sums overflow
    with written(tmp_path, w=huge) as tensors:
        np.testing.assert_array_equal(packed_alone(tensors).unpack(), huge)


def test_a_file_that_ends_before_is_refused(tmp_path: Path) -> None:
    with written(tmp_path, w=normal(64, 64)) as tensors:
        os.truncate(tmp_path / "model.safetensors", 9000)
        with pytest.raises(ValueError, match="truncated"):
            packed_alone(tensors)


def test_wrong_pieces_are_refused() -> None:
    with pytest.raises(TypeError, match="matrices must be a list or tuple"):
        PackedMatrix.read(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a piece must have 3 items"):
        PackedMatrix.read([([(0, 0)], 4, 1)])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="must not be negative"):
        PackedMatrix.read([([(0, -8, 2)], 4, 1)])
    wrong = [([(-1, 0, 2)], 4, 1), ([(0, 0, 3)], 4, 2), ([(0, 0, 3)], 10**9, 1), ([(0, 0, 3)], 4, 0)]
    assert PackedMatrix.read(wrong) == [None] * len(wrong)
    assert PackedMatrix.read([]) == []


def test_many_matrices_are_packed_at_once(tmp_path: Path) -> None:
    """Those of other dtypes and those that cannot be read have their places among the others."""
    shapes = [
        (7, 300),
        (600, 130),
        (3, 5),
        (512, 256),
        (1, 1),
        (700, 97),
    ]  # small ones, and some with pages of their own
    arrays: dict[str, Any] = {f"w{i}": normal(*shape) for i, shape in enumerate(shapes)}
    arrays["half"] = normal(20, 6).astype(np.float16)
    with written(tmp_path, **arrays) as tensors:
        packed = list(tensors.packed([([name], 1) for name in arrays]))
    for matrix, array in zip(packed, arrays.values(), strict=True):
        np.testing.assert_array_equal(matrix.unpack(), array.astype(np.float32))
    while packed:  # each leaves the pages of the others
        del packed[len(packed) // 2]
        for matrix in packed:
            (array,) = (a for a in arrays.values() if a.shape == matrix.shape)
            np.testing.assert_array_equal(matrix.unpack(), array.astype(np.float32))
    arrays["w3"][511, 255] = np.nan
    with written(tmp_path, **arrays) as tensors:
        matrices = tensors.packed([([name], 1) for name in arrays])
        assert [next(matrices).shape for _ in range(3)] == shapes[:3]
        with pytest.raises(ValueError, match=r"tensor 'w3' has nan at \(511, 255\)"):
            next(matrices)


def test_a_matrix_gives_back_its_own_pages(tmp_path: Path) -> None:
    """Also while others, which were read with it, stay."""
    with written(tmp_path, large=normal(4000, 1000), w=normal(512, 256)) as tensors:
        large, small = tensors.packed([(["large"], 1), (["w"], 1)])
    before = resident()
    del large
    assert before - resident() > 14 << 20
    assert small.shape == (512, 256)


def resident() -> int:
    """Bytes of memory that this process has in use."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc")
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_frozen_model_reads_the_rows_that_it_uses(folder: Path) -> None:
    model, ids = load_encoder(folder), np.array([5, 9, 4000, 5, 6, 7, 8])
    assert unread(model) == ROWS
    hidden = model.forward_ragged(ids, CU_SEQLENS).last_hidden_state
    assert unread(model) == ROWS - 6
    whole = load_encoder(folder)
    assert table_of(whole).value.shape == (ROWS, 256)
    assert unread(whole) == 0
    np.testing.assert_array_equal(hidden, whole.forward_ragged(ids, CU_SEQLENS).last_hidden_state)
    np.testing.assert_array_equal(hidden[:3], model(ids[None, :3]).last_hidden_state[0])
    with fastattn.use_reference():
        reference = model.forward_ragged(ids, CU_SEQLENS).last_hidden_state
    np.testing.assert_allclose(reference, hidden, atol=1e-4)
    with read_state_dict(folder) as tensors:
        np.testing.assert_array_equal(
            model.embeddings.word_embeddings(ids), tensors["embeddings.word_embeddings.weight"][ids]
        )


@pytest.mark.parametrize("ids", [[0, -1], [0, ROWS], [0, 2**62]])
def test_ids_beyond_the_table_are_refused_as_ever(ids: list[int], folder: Path) -> None:
    with pytest.raises(ValueError, match="input_ids"):
        load_encoder(folder).forward_ragged(np.array(ids), np.array([0, 2], np.int32))


def test_trained_and_shared_tables_are_read_whole(folder: Path, tmp_path: Path) -> None:
    assert load_encoder(folder, trainable=True).embeddings.word_embeddings.weight.stored is None
    config = BertConfig(vocab_size=ROWS, hidden_size=256, num_hidden_layers=1, num_attention_heads=4)
    BertForMaskedLM(config).save_pretrained(tmp_path / "words")
    model = BertForMaskedLM.from_pretrained(tmp_path / "words", trainable=False)
    assert table_of(model.base_model).stored is None  # the decoder reads it too


def test_copies_pickles_and_files_have_all_rows(folder: Path, tmp_path: Path) -> None:
    ids = np.array([1, 2, 3, 4, 5, 6, 7])
    model = BertModel.from_pretrained(folder)
    twin, pickled = copy.deepcopy(model), pickle.dumps(model)
    assert len(pickled) < 100_000
    assert unread(model) == unread(twin) == unread(pickle.loads(pickled)) == ROWS
    hidden = model.forward_ragged(ids, CU_SEQLENS).last_hidden_state
    for other in (twin, pickle.loads(pickled)):
        np.testing.assert_array_equal(other.forward_ragged(ids, CU_SEQLENS).last_hidden_state, hidden)
    model.save_pretrained(tmp_path / "again")
    again, before = ((place / "model.safetensors").read_bytes() for place in (tmp_path / "again", folder))
    assert again == before
    table = copy.copy(table_of(twin))
    np.testing.assert_array_equal(table.data, table_of(model).data)


def test_the_file_may_be_deleted_or_replaced(folder: Path) -> None:
    model, ids = load_encoder(folder), np.arange(7)
    expected = load_encoder(folder).forward_ragged(ids, CU_SEQLENS).last_hidden_state
    other = BertModel(model.config)
    other.save_pretrained(folder)
    np.testing.assert_array_equal(model.forward_ragged(ids, CU_SEQLENS).last_hidden_state, expected)
    shutil.rmtree(folder)
    np.testing.assert_array_equal(model.forward_ragged(ids[::-1], CU_SEQLENS).last_hidden_state[-1:].shape, (1, 256))
    assert np.isfinite(table_of(model).data).all()


@pytest.mark.parametrize("change", ["in place", "cut"])
def test_a_file_that_changes_is_noticed(change: str, folder: Path) -> None:
    model, file = load_encoder(folder), folder / "model.safetensors"
    model.forward_ragged(np.arange(7), CU_SEQLENS)
    if change == "cut":
        os.truncate(file, 1000)
    else:
        with file.open("r+b") as opened:
            opened.seek(-4, os.SEEK_END)
            opened.write(bytes(4))
        os.utime(file, ns=(1, 1))
    model.forward_ragged(np.arange(7), CU_SEQLENS)  # needs no more rows
    with pytest.raises(ValueError, match=r"model\.safetensors: has changed since the model was loaded"):
        model.forward_ragged(np.arange(7, 14), CU_SEQLENS)


def test_a_damaged_row_is_named_when_it_is_used(folder: Path) -> None:
    with read_state_dict(folder) as tensors:
        arrays = {name: tensors[name] for name in tensors}
    arrays["embeddings.word_embeddings.weight"][77, 3] = np.inf
    save_file(arrays, folder / "model.safetensors")
    model = load_encoder(folder)
    model.forward_ragged(np.arange(7), CU_SEQLENS)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"word_embeddings.weight' has inf at \(77, 3\); weights must be finite"):
            model.forward_ragged(np.arange(71, 78), CU_SEQLENS)


def test_many_threads_read_the_same_rows(folder: Path) -> None:
    model, wrong = load_encoder(folder), []
    with read_state_dict(folder) as tensors:
        whole = tensors["embeddings.word_embeddings.weight"]
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        for begin in range(0, ROWS, 70):
            ids = np.arange(begin, begin + 70)
            if not np.array_equal(model.embeddings.word_embeddings(ids), whole[ids]):
                wrong.append(begin)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert unread(model) == 0


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_files_are_closed_with_the_model(folder: Path) -> None:
    def files() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = files()
    model = load_encoder(folder)
    twin = copy.deepcopy(model)
    assert files() == before + 1
    del model
    assert files() == before + 1
    assert unread(twin) == ROWS
    del twin
    assert files() == before


def test_a_small_table_is_read_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hugging_face, "_LARGE_TABLE", 4 * ROWS * 256 + 1)
    assert table_of(load_encoder(folder)).stored is None


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_rows_of_fewer_bits_are_the_same_from_every_file(folder: Path, weights: str, tmp_path: Path) -> None:
    """Rounded when a float32 file is read, read as they are from a file of fewer bits, and rounded in memory."""
    ids = np.array([5, 1, 4100, 5, 7, 0, 2])
    model = BertModel.from_pretrained(folder, weights=weights)
    before = unread(model)
    hidden = model.forward_ragged(ids, CU_SEQLENS).last_hidden_state
    assert before == ROWS
    assert unread(model) == ROWS - 6
    model.save_pretrained(tmp_path / "saved")
    again = BertModel.from_pretrained(tmp_path / "saved")
    assert unread(again) == ROWS
    assert again.forward_ragged(ids, CU_SEQLENS).last_hidden_state.tobytes() == hidden.tobytes()
    assert unread(again) == ROWS - 6
    whole = BertModel.from_pretrained(folder, trainable=True)
    whole.freeze(weights)
    assert whole.forward_ragged(ids, CU_SEQLENS).last_hidden_state.tobytes() == hidden.tobytes()
    late = BertModel.from_pretrained(folder)
    late.forward_ragged(ids, CU_SEQLENS)
    late.freeze(weights)
    assert late.forward_ragged(ids, CU_SEQLENS).last_hidden_state.tobytes() == hidden.tobytes()
    sizes = [(path / "model.safetensors").stat().st_size for path in (folder, tmp_path / "saved")]
    assert sizes[1] < sizes[0] * {"bfloat16": 0.53, "int8": 0.5}[weights]


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_freezing_a_copy_leaves_the_other_model_as_it_is(folder, weights):
    ids = np.array([[1, 5, 9, 4000]])
    expected = BertModel.from_pretrained(folder, trainable=False)(ids).last_hidden_state.tobytes()
    model = BertModel.from_pretrained(folder, trainable=False)
    other = copy.deepcopy(model).freeze(weights)
    reduced = BertModel.from_pretrained(folder, weights=weights)(ids).last_hidden_state.tobytes()
    assert other(ids).last_hidden_state.tobytes() == reduced
    assert model(ids).last_hidden_state.tobytes() == expected
    assert unread(other) == unread(model) == ROWS - 4


def test_a_copy_of_rows_tells_that_the_file_has_changed(folder):
    model = BertModel.from_pretrained(folder, trainable=False)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="has changed since the model was loaded"):
        table_of(copy.deepcopy(model).freeze("int8")).stored.read(np.array([1]))


def test_a_table_counts_the_matrix_that_it_packs():
    table = nn.Embedding(ROWS, 256).freeze("int8").weight
    plain = table.nbytes
    assert plain == table.value.nbytes
    assert plain + table.matrix.nbytes == table.nbytes
