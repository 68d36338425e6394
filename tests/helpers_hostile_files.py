"""More folders of an enemy: tokenizers, checkpoints of PyTorch and TensorFlow, ELMo, translation, and saved states."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import helpers_checkpoints as by_hand
import helpers_elmo
import numpy as np
from helpers_bundles import bundle, closed, entry, field, header, table, write_files
from helpers_fuzz_text import BACKEND, write_pairs
from helpers_hostile import ANY, CONFIG, DEEP, Folder, Make, changed, encode, replaced, spoilt
from helpers_marian import MARIAN, marian_tensors
from helpers_network_tagger import write_network
from helpers_sentences import VOCABULARY, write_json

from fastattn.formats import tensorflow_bundle, torch_pickle
from fastattn.formats.hugging_face import write_checkpoint
from fastattn.models import Transformer
from fastattn.tasks import Tagger, WordEncoder
from fastattn.text import Tokenizer
from fastattn.training.run_state import read_state, write_state

BERT = "tokenizer.json"


def _backend(**parts: Any) -> Make:
    """A tokenizer.json of other parts."""
    return replaced(BERT, json.dumps({**BACKEND, **parts}).encode())


def _model(**fields: Any) -> Make:
    return _backend(model={**BACKEND["model"], **fields})


def _words(data: bytes) -> Make:
    return replaced("vocab.txt", data)


def tokenizers() -> Iterator[tuple[str, Folder]]:
    """tokenizer.json, vocab.txt, vocab.json and merges.txt, SentencePiece's models."""
    token = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    split = {"type": "Split", "behavior": "Removed", "invert": False}
    nested: Any = {"type": "Lowercase"}
    for _ in range(120):
        nested = {"type": "Sequence", "normalizers": [nested]}
    for what, make in (
        ("no model", _backend(model=None)),
        ("a model that nobody knows", _model(type="Backdoor")),
        ("an id of 2^32", _model(vocab={**BACKEND["model"]["vocab"], "x": 2**32})),
        ("a negative id", _model(vocab={**BACKEND["model"]["vocab"], "x": -1})),
        ("a fraction for an id", _model(vocab={**BACKEND["model"]["vocab"], "x": 0.5})),
        ("merges of what it lacks", _backend(model={"type": "BPE", "vocab": {"a": 0}, "merges": ["b c"]})),
        ("pieces without an unknown one", _backend(model={"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 7})),
        ("an expression that is none", _backend(pre_tokenizer={**split, "pattern": {"Regex": "(?<="}})),
        ("an added token without an id", _backend(added_tokens=[{**token, "content": "x"}])),
        ("a template of a token that is not there", _backend(post_processor={
            **BACKEND["post_processor"], "special_tokens": {}})),
        ("a table of characters that is none", _backend(normalizer={
            "type": "Precompiled", "precompiled_charsmap": "////"})),
        ("a normalizer of 120 levels", _backend(normalizer=nested)),
        ("100,000 levels", replaced(BERT, b'{"model": ' + DEEP + b"}")),
    ):  # fmt: skip
        yield f"{BERT}: {what}", Folder(make, encode, ANY if "template" in what else BERT)
    lines = "\n".join(VOCABULARY).encode()
    for what, make in (
        ("empty", _words(b"")),
        ("one line of 8 MB", spoilt("vocab.txt", lambda path: path.write_bytes(b"x" * (8 << 20)))),
        ("no [UNK]", _words(lines.replace(b"[UNK]", b"x"))),
        ("no UTF-8", _words(lines + b"\n\xff\xfe")),
        ("UTF-16", _words("\n".join(VOCABULARY).encode("utf-16"))),
        ("a terabyte of nothing", spoilt("vocab.txt", _of_a_terabyte)),
    ):
        yield f"vocab.txt: {what}", Folder(make, encode, "vocab.txt")
    read = Tokenizer.from_pretrained
    for what, make in (
        ("a list", replaced("vocab.json", b"[]", write_pairs)),
        ("an id of 2^32", changed("vocab.json", write_pairs, x=2**32)),
        ("a negative id", changed("vocab.json", write_pairs, x=-1)),
        ("100,000 levels", replaced("vocab.json", b'{"a": ' + DEEP + b"}", write_pairs)),
        ("a missing token", replaced("vocab.json", b'{"a": 1}', write_pairs)),
    ):
        yield f"vocab.json: {what}", Folder(make, read, "vocab.json")
    for what, data in (("a pair that is not in the vocabulary", b"x y\n"), ("a line of three", b"t h e\n")):
        yield f"merges.txt: {what}", Folder(replaced("merges.txt", data, write_pairs), read, "merges.txt")
    yield from _of_pieces()


def _of_a_terabyte(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(1 << 40)


def _of_pieces() -> Iterator[tuple[str, Folder]]:
    name = "sentencepiece.bpe.model"

    def pieces(folder: Path) -> None:
        write_json(folder / CONFIG, {"model_type": "xlm-roberta"})
        (folder / name).write_bytes(b"".join(field(1, field(1, piece)) for piece in (b"<unk>", b"<s>", b"</s>", b"a")))

    for what, data in (
        ("no pieces", field(2, b"")),
        ("a length of 2^63", b"\x0a" + b"\xff" * 9 + b"\x01"),
        ("a number without an end", b"\x80" * 20),
        ("a NaN for a score", field(1, field(1, b"a") + b"\x15" + struct.pack("<f", np.nan))),
        ("a piece that is no UTF-8", field(1, field(1, b"\xff"))),
        ("a number for a piece", field(1, 7)),
        ("byte pairs", field(1, field(1, b"a")) + field(2, field(3, 2))),
        ("a table of characters that is none", field(1, field(1, b"a")) * 4 + field(3, field(2, b"\xff\xff\xff\xff"))),
    ):
        yield f"{name}: {what}", Folder(replaced(name, data, pieces), Tokenizer.from_pretrained, name)


# Files of PyTorch and TensorFlow.


class _Code:
    def __reduce__(self) -> Any:
        return os.system, ("exit 7",)


def _every(read: Callable[[Path], Any], name: str) -> Callable[[Path], object]:
    def load(folder: Path) -> list[Any]:
        with read(folder / name) as found:
            return [found[key] for key in found]

    return load


def pickles() -> Iterator[tuple[str, Folder]]:
    """pytorch_model.bin."""
    name, floats = "pytorch_model.bin", {"0": bytes(64)}
    where, large = (by_hand.storage("Float", "0", count) for count in (16, 2**14))

    def of(value: bytes, storages: Any = floats) -> bytes:
        return by_hand.torch_zip(b"\x80\x02" + by_hand.dictionary({"weight": value}) + b".", storages)

    def bomb(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", bytes(64 << 20))

    good = of(by_hand.tensor(where, 0, (4, 4), (4, 1)))
    matrix = by_hand.tensor(large, 0, (128, 128), (128, 1))
    many = b"\x80\x02" + by_hand.dictionary({str(i): matrix for i in range(2000)}) + b"."
    spoils: dict[str, Callable[[Path], object]] = {
        what: lambda path, data=data: path.write_bytes(data)
        for what, data in {
            "a pickle of code": pickle.dumps(_Code()),
            "a pickle of code in a zip": by_hand.torch_zip(pickle.dumps({"a": _Code()}, 2), {}),
            "a call of eval": by_hand.torch_zip(b"\x80\x02cbuiltins\neval\n.", {}),
            "a storage that is cut short": of(by_hand.tensor(where, 0, (4, 4), (4, 1)), {"0": bytes(60)}),
            "a tensor that is larger than its storage": of(by_hand.tensor(where, 0, (2**40, 2**40), (0, 0))),
            "strides beyond the storage": of(by_hand.tensor(where, 0, (4, 4), (2**62, 1))),
            "a negative offset": of(by_hand.tensor(where, -8, (4,), (1,))),
            "a storage of 2^62 items": of(by_hand.tensor(by_hand.storage("Float", "0", 2**62), 0, (4,), (1,))),
            "a storage above": of(by_hand.tensor(by_hand.storage("Float", "../0", 16), 0, (4,), (1,))),
            "a hundred dimensions": of(by_hand.tensor(where, 0, (1,) * 100, (1,) * 100)),
            "a text of 4 GB": by_hand.torch_zip(b"\x80\x02X\xff\xff\xff\xff", {}),
            "100,000 marks": by_hand.torch_zip(b"\x80\x02" + b"(" * 10**5, {}),
            "a tuple of 30,000 levels": by_hand.torch_zip(b"\x80\x02)" + b"\x85" * 30_000 + b".", {}),
            "a directory that points elsewhere": good[:-6] + b"\xff\xff\xff\x7f" + good[-2:],
            "cut short": good[:-30],
            "empty": b"",
            "a storage of an old file that is too large": by_hand.torch_legacy(
                b"\x80\x02" + by_hand.dictionary({"w": by_hand.tensor(where, 0, (4,), (1,))}) + b".",
                floats,
                {"0": 2**40},
            ),
            "bytes in the other order": by_hand.torch_zip(many, floats).replace(b"little", b"bigger"),
            "a matrix that 2,000 tensors copy": by_hand.torch_zip(many, {"0": bytes(2**16)}),
            "an entry twice": by_hand.torch_zip(b"\x80\x02}.", {"0": b"", "1": b""}).replace(b"data/1", b"data/0"),
        }.items()
    }
    spoils["a zip bomb"] = bomb
    for what, spoil in spoils.items():
        load = _every(torch_pickle.read_tensors, name)
        yield f"{name}: {what}", Folder(lambda folder, spoil=spoil: spoil(folder / name), load, name)


def bundles() -> Iterator[tuple[str, Folder]]:
    """A checkpoint of TensorFlow."""
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    whole, [data] = bundle({"x": x})
    rows: dict[str, tuple[bytes, list[bytes]]] = {
        "a block that is compressed": (closed(b"", 1) + table(whole)[-48:], [data]),
        "a wrong checksum": (table(whole)[:4] + b"!" + table(whole)[5:], [data]),
        "cut short": (table(whole)[:-9], [data]),
        "a million shards": (table({**whole, b"": header(10**6)}), [data]),
        "bytes in the other order": (table({**whole, b"": header(1, 1)}), [data]),
        "a shard that is missing": (table({**whole, b"": header(2), b"x": entry(x, 1, 0)}), [data]),
        "a shard that is cut short": (table(whole), [data[:-4]]),
        "a variable with another checksum": (table(whole), [data[:-4] + b"xxxx"]),
    }
    for what, fields in {
        "a shape whose product overflows": {"shape": (2**40, 2**40)},
        "a negative shape": {"shape": (-1, 3)},
        "a variable of another size": {"size": 2**40},
        "a place out of the shard": {"start": 2**62},
        "a dtype that nobody knows": {"dtype": 99},
    }.items():
        rows[what] = table({**whole, b"x": entry(x, 0, 0, **fields)}), [data]
    for what, (index, shards) in rows.items():
        load = _every(tensorflow_bundle.read_tensors, "model.ckpt")

        def make(folder: Path, index: bytes = index, shards: list[bytes] = shards) -> None:
            write_files(folder / "model.ckpt", index, shards)

        yield f"TensorFlow: {what}", Folder(make, load, "model.ckpt")


# ELMo, translation, runs.


def elmo() -> Iterator[tuple[str, Folder]]:
    """options.json and HDF5."""
    import h5py

    small = helpers_elmo.options(filters=[[1, 2], [2, 3]], n_layers=1, dim=5, projection_dim=4)
    name = "CNN_proj/W_proj"

    def load(folder: Path) -> object:
        encoder = WordEncoder.from_pretrained(folder / "options.json", folder / "weights.hdf5")
        return encoder.embed_sentence(["The", "cat"])

    def write(folder: Path) -> None:
        helpers_elmo.write(folder, small, helpers_elmo.random_datasets(small))

    def with_option(**fields: Any) -> Make:
        return spoilt(
            "options.json",
            lambda path: path.write_text(json.dumps(helpers_elmo.options(**{**_flat(small), **fields}))),
            write,
        )

    def with_data(spoil: Callable[[Any], object]) -> Make:
        def change(path: Path) -> None:
            with h5py.File(path, "a") as file:
                del file[name]
                spoil(file)

        return spoilt("weights.hdf5", change, write)

    def chunk(data: bytes) -> Callable[[Any], object]:
        def spoil(file: Any) -> None:
            dataset = file.create_dataset(name, (5, 4), np.float32, chunks=(5, 4), compression="gzip")
            dataset.id.write_direct_chunk((0, 0), data or zlib.compress(bytes(64 << 20)))

        return spoil

    for key, value in (
        ("n_layers", 10**9), ("n_layers", -1), ("dim", 2**31 - 1), ("dim", "5"), ("projection_dim", 2**40),
        ("filters", [[1, 2]] * 10**5), ("filters", [[2**31, 3]]), ("filters", "all"), ("n_highway", 10**9),
        ("max_characters_per_token", 2**31 - 1), ("activation", "os.system"), ("cell_clip", -1.0),
    ):  # fmt: skip
        shown = str(value)[:30]
        yield f"options.json: {key} is {shown!r}", Folder(with_option(**{key: value}), load, "options.json")
    vds = h5py.VirtualLayout((5, 4), np.float32)
    vds[:] = h5py.VirtualSource("other.hdf5", "x", (5, 4))
    external = [("/etc/passwd", 0, 80)]
    for what, spoil in {
        "a dataset behind an external link": lambda file: file.__setitem__(name, h5py.ExternalLink("/etc/passwd", "x")),
        "a dataset behind a soft link": lambda file: file.__setitem__(name, h5py.SoftLink("/char_embed")),
        "a dataset in another file": lambda file: file.create_dataset(name, (5, 4), np.float32, external=external),
        "a virtual dataset": lambda file: file.create_virtual_dataset(name, vds),
        "a dataset that was never written": lambda file: file.create_dataset(name, (5, 4), np.float32),
        "a dataset of 2^60 numbers": lambda file: file.create_dataset(name, (2**30, 2**30), np.float32, chunks=(5, 4)),
        "a dataset of text": lambda file: file.create_dataset(name, data=[b"x"] * 5),
        "a group for a dataset": lambda file: file.create_group(name),
        "a missing dataset": lambda file: None,
        "an unknown dataset": lambda file: (
            file.create_dataset(name, data=np.ones((5, 4), np.float32)),
            file.create_group("x"),
        ),
        "a NaN": lambda file: file.create_dataset(name, data=np.full((5, 4), np.nan, np.float32)),
        "a chunk that inflates to 64 MB": chunk(b""),
        "a chunk that does not inflate": chunk(b"nothing"),
    }.items():
        yield f"HDF5: {what}", Folder(with_data(spoil), load, "weights.hdf5")
    for what, data in {
        "empty": b"",
        "its first bytes": b"\x89HDF\r\n\x1a\n" + bytes(90),
        "a web page": b"<html>",
    }.items():
        yield f"HDF5: {what}", Folder(replaced("weights.hdf5", data, write), load, "weights.hdf5")


def _flat(options: Any) -> dict[str, Any]:
    sizes = {key: options["lstm"][key] for key in ("n_layers", "dim", "projection_dim")}
    return {**sizes, "filters": options["char_cnn"]["filters"]}


def translation() -> Iterator[tuple[str, Folder]]:
    """A folder of MarianMT."""

    def write(folder: Path) -> None:
        write_checkpoint(folder, MARIAN, marian_tensors(MARIAN))
        write_json(folder / "generation_config.json", {})

    for key, value in (
        ("d_model", 2**31 - 1), ("d_model", 0), ("encoder_layers", 10**9), ("decoder_layers", -1),
        ("vocab_size", 2**31 - 1),
        ("max_position_embeddings", 2**31 - 1), ("decoder_ffn_dim", 2**31 - 1), ("eos_token_id", []),
        ("pad_token_id", 50),
        ("bad_words_ids", [[2**40]]), ("bad_words_ids", 7), ("scale_embedding", "yes"), ("max_length", 0),
    ):  # fmt: skip
        load = Transformer.from_pretrained
        yield f"translation: {key} is {value!r}", Folder(changed(CONFIG, write, **{key: value}), load, ANY)
    for key, value in (("max_length", 0), ("bad_words_ids", [[]]), ("eos_token_id", [2**40]), ("max_new_tokens", "9")):
        make = changed("generation_config.json", write, **{key: value})
        yield f"generation_config.json: {key} is {value!r}", Folder(make, Transformer.from_pretrained, ANY)


def states() -> Iterator[tuple[str, Folder]]:
    """The saved state of a run."""
    name = "step-00000001.safetensors"
    body = np.arange(4, dtype=np.float32)

    def write(folder: Path) -> None:
        write_state(folder, 1, {"model.x": body}, {"step": 1})

    def with_header(text: Any, data: bytes = body.tobytes()) -> Make:
        text = text if isinstance(text, bytes) else json.dumps(text).encode()
        return replaced(name, len(text).to_bytes(8, "little") + text + data, write)

    def of(values: str) -> Make:
        crc = zlib.crc32(values.encode("utf-8", "surrogatepass"))
        return with_header({"__metadata__": {"fastattn_run": values, "crc32": f"{crc:08x}"}}, b"")

    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    for what, make in (
        ("the length of its header is 2^63", replaced(name, struct.pack("<Q", 2**63), write)),
        ("cut short", spoilt(name, lambda path: path.write_bytes(path.read_bytes()[:-1]), write)),
        ("a wrong checksum", spoilt(name, lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!"), write)),
        ("another dtype", with_header({"x": {**entry, "dtype": "F64"}})),
        ("a negative shape", with_header({"x": {**entry, "shape": [-4]}})),
        ("a shape of no rows and many columns", with_header(
            {"x": {**entry, "shape": [0, 2**62], "data_offsets": [0, 0]}}, b"")),
        ("a shape whose product overflows", with_header({"x": {**entry, "shape": [2**62, 2**62]}})),
        ("a gap", with_header({"x": {**entry, "data_offsets": [4, 20]}}, bytes(20))),
        ("no metadata", with_header({"x": entry})),
        ("metadata that are a list", with_header({"__metadata__": []}, b"")),
        ("a tensor of a name that is no Unicode", with_header(
            {"\ud800": entry, "__metadata__": {"fastattn_run": "{}"}})),
        ("100,000 levels", with_header(b'{"a": ' + DEEP + b"}", b"")),
        ("values of 100,000 levels", of(DEEP.decode())),
        ("a value of 5,000 digits", of("9" * 5000)),
        ("values that are no JSON", of("{")),
        ("values that are no Unicode", of("\ud800")),
        ("a list for values", of("[]")),
    ):  # fmt: skip
        yield f"saved state: {what}", Folder(make, lambda folder: read_state(folder / name), name)


def _turned(path: Path) -> None:
    path.write_text("\n".join(reversed(path.read_text().split())))


def network_taggers() -> Iterator[tuple[str, Folder]]:
    """A tagger of LSTMs, its words and its frozen model."""
    words, layer = "vocab.txt", "features/config.json"

    def load(folder: Path) -> object:
        return Tagger.from_pretrained(folder).tag([["the", "cat"]])

    for key, value in (
        ("hidden_size", 2**31 - 1), ("hidden_size", "8"), ("vocab_size", 2**31 - 1), ("vocab_size", 2),
        ("characters", "../x"), ("char_filters", [[1, 2]] * 10**5), ("char_filters", [[2**31, 3]]),
        ("max_characters", 2**31 - 1), ("features", "os.system"), ("feature_layers", 10**9), ("feature_dim", 2**40),
        ("feature_dim", None), ("crf", "yes"), ("scheme", "IOB3"), ("id2label", {"0": "O", "1": "B-A", "2": "X"}),
        ("id2label", {str(i): f"B-{i}" if i else "O" for i in range(20_000)}), ("dropout", 2.0),
    ):  # fmt: skip
        shown = str(value)[:30]
        make = changed(CONFIG, write_network, **{key: value})
        yield f"network tagger: {key} is {shown!r}", Folder(make, load, ANY)
    for what, make, name in (
        ("other words", replaced(words, b"<S>\n</S>\n<UNK>\n", write_network), words),
        ("words in another order", spoilt(words, _turned, write_network), words),
        ("no words", replaced(words, b"", write_network), words),
        ("a frozen model of more layers", changed(layer, write_network, lstm={
            "dim": 8, "projection_dim": 4, "n_layers": 10**9}), ANY),
        ("a frozen model of another kind", changed(layer, write_network, model_type="bert"), ANY),
        ("a frozen model that is a tagger", changed(layer, write_network, model_type="sequence-tagger"), ANY),
        ("a layout that is a list", replaced("tagger.json", b"[]", write_network), "tagger.json"),
    ):  # fmt: skip
        yield f"network tagger: {what}", Folder(make, load, name)


def folders() -> Iterator[tuple[str, Folder]]:
    """All of them."""
    for some in (tokenizers, pickles, bundles, elmo, network_taggers, translation, states):
        yield from some()
