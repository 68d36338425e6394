"""Models of Marian and CTranslate2 become folders of MarianMT, or are refused by file, name and value."""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import helpers_foreign as foreign
import numpy as np
import pytest
from helpers import array, assert_same_bits
from helpers_foreign import TIES, ForeignModel, write_ctranslate2, write_marian

from fastattn.formats.hugging_face import read_state_dict
from fastattn.models import Transformer, convert_checkpoint
from fastattn.tasks import Translator

SOURCES = np.array([[5, 9, 33, 7, 12, 0], [4, 2, 0, 3, 3, 3]])
ONES = np.ones((2, 24), np.float32)
FUSED = "encoder/layer_0/self_attention/linear_0/weight"
TARGETS = np.array([[3, 4, 40], [1, 2, 2]])


def assert_converted(folder: Path, model: ForeignModel, **changes: Any) -> Transformer:
    """The folder has the tensors of a model, bit for bit, and its config."""
    config, tensors = model.expected()
    with read_state_dict(folder) as found:
        assert {*found} == {*tensors}
        for name in found:
            assert_same_bits(found[name], tensors[name])
    ours = Transformer.from_pretrained(folder)
    assert ours.config == config.replace(**changes)
    options = {"attention_mask": SOURCES != 3, "decoder_input_ids": TARGETS}
    assert_same_bits(
        array(ours(SOURCES, **options).logits),
        array(Transformer(config, tensors, trainable=False)(SOURCES, **options).logits),
    )
    return ours


def assert_words(folder: Path, model: ForeignModel) -> None:
    """The vocabularies have Marian's words, and `<pad>` behind them."""
    names = ["vocab.json"] if model.shared else ["vocab.json", "target_vocab.json"]
    for side, name in enumerate(names):
        words = {word: i for i, word in enumerate([*model.words(side), "<pad>"])}
        assert json.loads((folder / name).read_text()) == words
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["separate_vocabs"] is (len(names) > 1)
    assert {key: config[key] for key in ("unk_token", "eos_token", "pad_token")} == {
        "unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>"
    }  # fmt: skip


class TestMarian:
    @pytest.mark.parametrize("ties", TIES)
    def test_a_folder(self, tmp_path: Path, ties: str) -> None:
        model = ForeignModel(ties)
        source = write_marian(tmp_path / "marian", model)
        done = convert_checkpoint(source, tmp_path / "new")
        assert (done.source, done.model, done.skipped) == (source / "model.npz", Transformer, ())
        assert not done.tokenizer
        assert_converted(tmp_path / "new", model, max_position_embeddings=1024, max_length=512)
        assert_words(tmp_path / "new", model)
        generation = json.loads((tmp_path / "new" / "generation_config.json").read_text())
        start = model.rows[1]
        assert (generation["num_beams"], round(generation["length_penalty"], 6)) == (6, 0.6)
        assert (generation["decoder_start_token_id"], generation["bad_words_ids"]) == (start, [[start]])

    def test_what_numpy_writes(self, tmp_path: Path) -> None:
        """Models are changed with NumPy, too: other axes, float16, an output that is not transposed, no bias."""
        model = ForeignModel("two tables, untied")
        source = write_marian(tmp_path / "marian", model)
        arrays = foreign.marian_arrays(model)
        for name in ("encoder_l1_self_bq", "decoder_l2_ffn_ffn_ln_scale"):
            arrays[name] = arrays[name][0]
        arrays["decoder_ff_logit_out_Wt"] = arrays.pop("decoder_ff_logit_out_W").T
        arrays["encoder_Wemb"] = arrays["encoder_Wemb"].astype(np.float16)
        model.tensors["model.encoder.embed_tokens.weight"] = arrays["encoder_Wemb"].astype(np.float32)
        del arrays["decoder_ff_logit_out_b"]
        options = np.frombuffer(foreign.marian_options(model).encode(), np.uint8)
        np.savez(source / "model.npz", **{"special:model.yml": options}, **arrays)
        convert_checkpoint(source, tmp_path / "new")
        _, tensors = model.expected()
        del tensors["final_logits_bias"]
        with read_state_dict(tmp_path / "new") as found:
            assert {*found} == {*tensors}
            for name in found:
                assert_same_bits(found[name], tensors[name])

    def test_the_path_of_a_file(self, tmp_path: Path) -> None:
        model = ForeignModel()
        source = write_marian(tmp_path / "marian", model)
        (source / "model.npz").rename(source / "best.npz")
        with pytest.raises(FileNotFoundError, match=r"decoder.yml: names '/home/author/model.npz' in models, which is"):
            convert_checkpoint(source, tmp_path / "new")
        convert_checkpoint(source / "best.npz", tmp_path / "new")
        (source / "decoder.yml").rename(source / "best.npz.decoder.yml")
        convert_checkpoint(source / "best.npz", tmp_path / "newer")
        (source / "best.npz.decoder.yml").unlink()
        with pytest.raises(FileNotFoundError, match=r"decoder.yml: no such file; a model of Marian needs it"):
            convert_checkpoint(source / "best.npz", tmp_path / "newest")

    @pytest.mark.parametrize("kind", ["json", "yml of json", "txt"])
    def test_vocabularies_of_other_kinds(self, tmp_path: Path, kind: str) -> None:
        model = ForeignModel()
        source = write_marian(tmp_path / "marian", model)
        words = model.words(0)
        name = f"vocab.{kind.split()[0]}"
        text = "\n".join(words) + "\n" if kind == "txt" else json.dumps({word: i for i, word in enumerate(words)})
        (source / "vocab.yml").unlink()
        (source / name).write_text(text, encoding="utf-8")
        decoder = source / "decoder.yml"
        decoder.write_text(decoder.read_text().replace("vocab.yml", name))
        convert_checkpoint(source, tmp_path / "new")
        assert_words(tmp_path / "new", model)

    def test_words_without_a_row_are_left_out(self, tmp_path: Path) -> None:
        """And the first of two equal ones counts, as in Marian."""
        model = ForeignModel()
        source = write_marian(tmp_path / "marian", model)
        with (source / "vocab.yml").open("a") as file:
            file.write("</s>: 48\nlast: 49\n? very long\n: 50\n")
        convert_checkpoint(source, tmp_path / "new")
        assert_words(tmp_path / "new", model)

    def test_readme_and_license_are_kept(self, tmp_path: Path) -> None:
        source = write_marian(tmp_path / "marian", ForeignModel())
        (source / "LICENSE").write_text("CC-BY 4.0")
        convert_checkpoint(source, tmp_path / "new")
        assert (tmp_path / "new" / "LICENSE").read_text() == "CC-BY 4.0"

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"type": "s2s"}, "type is 's2s'; only 'transformer' is read"),
            ({"type": None}, "type is None"),
            ({"transformer-decoder-autoreg": "rnn"}, "transformer-decoder-autoreg is 'rnn'; only 'self-attention' is"),
            ({"transformer-no-projection": "true"}, "transformer-no-projection is 'true'; only 'false'"),
            ({"transformer-train-position-embeddings": "true"}, "transformer-train-position-embeddings is 'true'"),
            ({"transformer-postprocess-emb": "nd"}, "transformer-postprocess-emb is 'nd'; only '' or 'd'"),
            ({"transformer-postprocess": "dhn"}, "transformer-postprocess is 'dhn', transformer-postprocess-top is ''"),
            ({"transformer-preprocess": "n"}, "transformer-preprocess is 'n', transformer-postprocess is 'dan'"),
            ({"transformer-ffn-activation": "tanh"}, "transformer-ffn-activation is 'tanh'; only swish, relu, gelu"),
            ({"transformer-ffn-depth": 3}, "transformer-ffn-depth is '3'"),
            ({"transformer-tied-layers": [1, 1]}, r"transformer-tied-layers is \['1', '1'\]"),
            ({"input-types": ["class", "sequence"]}, "input-types is"),
            ({"right-left": "true"}, "right-left is 'true'"),
            ({"transformer-pool": "true"}, "transformer-pool is 'true'"),
            ({"lemma-dim-emb": 64}, "lemma-dim-emb is '64'"),
            ({"transformer-heads": 5}, "must be divisible by encoder_attention_heads|encoder_attention_heads"),
            ({"transformer-heads": "many"}, "transformer-heads must be an integer from 1 to 65536, got 'many'"),
            ({"enc-depth": 3}, "tensors are missing: encoder_l3_"),
            ({"enc-depth": 1}, "tensors are not known: encoder_l2_"),
            ({"enc-depth": 999999999}, "enc-depth must be an integer from 1 to"),
            ({"tied-embeddings-all": "perhaps"}, "tied-embeddings-all must be true or false, got 'perhaps'"),
            (
                {"tied-embeddings-all": "false"},
                "tensors are missing: decoder_Wemb, decoder_ff_logit_out_Wt, encoder_Wemb",
            ),
            ({"version": "{a: b}"}, r"line \d+ is not read: only keys with a word or a list of words are"),
        ],
    )
    def test_other_networks(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        source = write_marian(tmp_path / "marian", ForeignModel(), **changes)
        with pytest.raises(ValueError, match=rf"^{source}/model\.npz: .*({message})"):
            convert_checkpoint(source, tmp_path / "new")
        assert os.listdir(tmp_path) == ["marian"]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"none_QuantMultA": np.ones((1, 1), np.float32)}, "tensors are not known: none_QuantMultA"),
            ({"Wpos": np.ones((9, 24), np.float32)}, "tensors are not known: Wpos"),
            ({"decoder_l1_context_Wk": None}, "tensors are missing: decoder_l1_context_Wk"),
            ({"encoder_l1_self_Wq": np.zeros((24, 23), np.float32)}, r"q_proj.weight.* must have shape \(24, 24\)"),
            ({"encoder_l1_self_Wq": np.zeros(24, np.float32)}, "must be a matrix, got shape"),
            ({"encoder_l1_ffn_W1": np.zeros((), np.float32)}, "must be a matrix, got shape"),
            ({"encoder_l1_self_bq": np.zeros((2, 24), np.float32)}, "must be a vector, got shape"),
            ({"encoder_l1_self_Wq": np.zeros((24, 24), np.int8)}, "is int8; only floating point is read"),
            ({"encoder_l1_self_Wq": np.full((24, 24), np.nan, np.float32)}, "has nan at"),
            ({"Wemb": np.full((49, 24), 1e300)}, "'Wemb' has inf at"),
            ({"Wemb": np.zeros((49, 0), np.float32)}, "d_model must be"),
            ({"special:model.yml": None}, "has no special:model.yml"),
            ({"special:model.yml": np.frombuffer(b"\xff\xfe", np.int8)}, "special:model.yml: not UTF-8"),
        ],
    )
    def test_other_tensors(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        model = ForeignModel()
        source = write_marian(tmp_path / "marian", model)
        arrays = {"special:model.yml": np.frombuffer(foreign.marian_options(model).encode(), np.int8)}
        arrays = {**arrays, **foreign.marian_arrays(model), **change}
        entries = {name: foreign.npy(x) for name, x in arrays.items() if x is not None}
        (source / "model.npz").write_bytes(foreign.npz(entries))
        with pytest.raises(ValueError, match=rf"^{source}/model\.npz: .*{message}"):
            convert_checkpoint(source, tmp_path / "new")
        assert os.listdir(tmp_path) == ["marian"]

    @pytest.mark.parametrize(
        ("file", "old", "new", "message"),
        [
            ("decoder.yml", "/home/author/model.npz", "..", "names '..' in models"),
            ("decoder.yml", "models:\n", "models:\n  - a.npz\n", "models must name 1 of the files beside it, got"),
            ("decoder.yml", "vocabs:\n", "vocabs:\n  - vocab.yml\n", "vocabs must name 1 or 2 of the files"),
            ("decoder.yml", "  - vocab.yml\n", "  - x/y.yml\n", "names 'x/y.yml' in vocabs, which is not beside it"),
            ("decoder.yml", "beam-size: 6", "beam-size: 6\nbeam-size: 7", "'beam-size' is there twice"),
            ("decoder.yml", "beam-size: 6", "beam-size: -6", "beam-size must be an integer from 1 to 65536, got '-6'"),
            ("decoder.yml", "normalize: 0.6", "normalize: 1e999", "normalize must be a number, got '1e999"),
            ("decoder.yml", "mini-batch: 1", "mini-batch:\n  a:\n    b", r"line \d+ is not read"),
            ("vocab.yml", "</s>: 0\n", "", r"the eos_token '</s>' is not in the vocabulary"),
            ("vocab.yml", "w1: ", "<pad>: ", "has '<pad>', 15, which a folder of MarianMT needs for itself"),
            ("vocab.yml", "w1: 15", "w1: 14", "'w0' and 'w1' have the same number 14"),
            ("vocab.yml", "w1: 15", "w1: -15", "the number of 'w1' must be an integer, got '-15'"),
            ("vocab.yml", "w1: 15", "w1: [1]", "the number of 'w1' must be an integer, got"),
            ("vocab.yml", "w1: 15", "w1", r"line 16 is no key with a value: 'w1'"),
            ("vocab.yml", "w1: 15", '"w1: 15', r"line 16 has a quote that does not end"),
            ("vocab.yml", "w1: 15", r'"\q": 15', r"line 16 has the escape"),
            ("vocab.yml", "w1: 15", r'"\ud800": 15', r"line 16 has no character"),
        ],
    )  # fmt: skip
    def test_other_texts(self, tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
        source = write_marian(tmp_path / "marian", ForeignModel())
        text = (source / file).read_text()
        assert old in text
        (source / file).write_text(text.replace(old, new))
        with pytest.raises((ValueError, FileNotFoundError), match=rf"^{source}/{re.escape(file)}: .*{message}"):
            convert_checkpoint(source, tmp_path / "new")
        assert os.listdir(tmp_path) == ["marian"]

    def test_a_vocabulary_of_factors(self, tmp_path: Path) -> None:
        source = write_marian(tmp_path / "marian", ForeignModel())
        (source / "vocab.yml").rename(source / "vocab.fsv")
        decoder = source / "decoder.yml"
        decoder.write_text(decoder.read_text().replace("vocab.yml", "vocab.fsv"))
        with pytest.raises(ValueError, match=r"vocab\.fsv: a vocabulary of factors; models with factors are not read"):
            convert_checkpoint(source, tmp_path / "new")

    def test_a_word_penalty_is_skipped_by_name(self, tmp_path: Path) -> None:
        source = write_marian(tmp_path / "marian", ForeignModel())
        decoder = source / "decoder.yml"
        decoder.write_text(decoder.read_text().replace("word-penalty: 0", "word-penalty: 0.5"))
        assert convert_checkpoint(source, tmp_path / "new").skipped == ("word-penalty of decoder.yml",)

    def test_settings_of_early_versions(self, tmp_path: Path) -> None:
        source = write_marian(tmp_path / "marian", ForeignModel())
        (source / "decoder.yml").write_text("models: [model.npz]\nvocabs:\n- vocab.yml\nnormalize: true\n")
        convert_checkpoint(source, tmp_path / "new")
        generation = json.loads((tmp_path / "new" / "generation_config.json").read_text())
        assert (generation["num_beams"], generation["length_penalty"]) == (12, 1.0)

    def test_a_compressed_file(self, tmp_path: Path) -> None:
        """It could become a thousand times as large."""
        source = write_marian(tmp_path / "marian", ForeignModel())
        entries = {"Wemb": foreign.npy(np.zeros((1000, 1000), np.float32))}
        (source / "model.npz").write_bytes(foreign.npz(entries, zipfile.ZIP_DEFLATED))
        with pytest.raises(
            ValueError, match=r"model\.npz: entry 'Wemb\.npy' is compressed; only entries that are stored"
        ):
            convert_checkpoint(source, tmp_path / "new")


class TestCTranslate2:
    @pytest.mark.parametrize("ties", TIES)
    def test_a_folder(self, tmp_path: Path, ties: str) -> None:
        model = ForeignModel(ties)
        source = write_ctranslate2(tmp_path / "ct2", model)
        done = convert_checkpoint(source, tmp_path / "new")
        assert (done.source, done.model) == (source / "model.bin", Transformer)
        assert done.skipped == ("model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight")
        assert_converted(tmp_path / "new", model)
        assert_words(tmp_path / "new", model)

    def test_texts_for_vocabularies_and_the_path_of_a_file(self, tmp_path: Path) -> None:
        """As CTranslate2 wrote them until version 3, without a config.json."""
        model = ForeignModel("two sizes")
        source = write_ctranslate2(tmp_path / "ct2", model)
        for side, name in enumerate(("source", "target")):
            (source / f"{name}_vocabulary.json").unlink()
            (source / f"{name}_vocabulary.txt").write_text("".join(f"{word}\n" for word in model.words(side)))
        (source / "config.json").unlink()
        convert_checkpoint(source / "model.bin", tmp_path / "new")
        assert_converted(tmp_path / "new", model)
        assert_words(tmp_path / "new", model)

    @pytest.mark.parametrize(
        ("dtype", "near"), [("float16", 2e-3), ("bfloat16", 1e-2), ("int8", 1e-2), ("int16", 2e-3)]
    )
    def test_smaller_numbers(self, tmp_path: Path, dtype: str, near: float) -> None:
        model = ForeignModel("untied")
        variables = foreign.quantized(foreign.ctranslate2_variables(model), dtype)
        convert_checkpoint(write_ctranslate2(tmp_path / "ct2", model, dtype), tmp_path / "new")
        _, tensors = model.expected()
        with read_state_dict(tmp_path / "new") as found:
            for name, wanted in tensors.items():
                np.testing.assert_allclose(found[name], wanted, rtol=near, atol=near)
            got, old = (
                found["model.encoder.layers.1.self_attn.k_proj.weight"],
                "encoder/layer_1/self_attention/linear_0/weight",
            )
            stored = ("model.encoder.embed_positions.weight" in found) == ("float" in dtype)
        exact = variables[old]
        if dtype == "bfloat16":
            exact = (exact.astype(np.uint32) << 16).view(np.float32)
        elif dtype.startswith("int"):
            scale = variables[f"{old}_scale"]
            exact = exact.astype(np.float32) / (scale[:, None] if scale.ndim else scale)
        assert_same_bits(got, exact[24:48].astype(np.float32))
        assert stored, "positions that are rounded are kept"
        assert Transformer.from_pretrained(tmp_path / "new").config.d_model == 24

    def test_another_epsilon(self, tmp_path: Path) -> None:
        convert_checkpoint(
            write_ctranslate2(tmp_path / "ct2", ForeignModel(), layer_norm_epsilon=1e-6), tmp_path / "new"
        )
        assert Transformer.from_pretrained(tmp_path / "new").config.layer_norm_eps == 1e-6

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"decoder/start_from_zero_embedding": np.int8(0)}, "start_from_zero_embedding is 0; only 1 is read"),
            ({"decoder/alibi": np.int8(1)}, "decoder/alibi is 1; only 0 is read"),
            ({"encoder/multi_query_attention": np.int8(1)}, "encoder/multi_query_attention is 1"),
            ({"encoder/activation": np.int8(4)}, "encoder/activation is 4; only 0 .relu."),
            ({"encoder/activation": np.int8(0)}, "got 'relu' in the encoder and 'swish' in the dec"),
            ({"encoder/scale_embeddings": np.float32(3)}, "encoder/scale_embeddings is 3; only 1 and 4.89"),
            ({"encoder/num_heads": np.int16(5)}, "encoder_attention_heads"),
            ({"encoder/num_heads": None}, "variable 'encoder/num_heads' is missing"),
            ({"encoder/num_heads": np.float32(np.nan)}, "variable 'encoder/num_heads' is nan"),
            ({"encoder/num_heads": np.ones(2, np.int16)}, "variable 'encoder/num_heads' must be a number, got"),
            ({"encoder/layer_1/ffn/linear_0/bias": None}, "tensors are missing: encoder/layer_1/ffn/linear_0/bias"),
            ({"encoder/layer_0/ffn/linear_0/weight": None}, "'encoder/layer_0/ffn/linear_0/weight' is missing"),
            ({"encoder/layer_0/ffn/linear_0_noact/weight": ONES}, "not known: encoder/layer_0/ffn/linear_0_noact/weig"),
            (
                {"encoder/layernorm_embedding/gamma": ONES[0]},
                "tensors are not known: encoder/layernorm_embedding/gamma",
            ),
            ({"encoder/layer_9/x": ONES}, "tensors are missing: encoder/layer_2"),
            (
                {"encoder/position_encodings/encodings": ONES.T},
                "as wide as the embeddings, .49, 24., got shape .24, 2.",
            ),
            ({"encoder/position_encodings/encodings": ONES}, "max_position_embeddings must be .*, got 2 in the"),
            ({FUSED: np.zeros((71, 24), np.float32)}, "must have 2 axes and rows"),
            ({FUSED: np.zeros((72, 24), np.int8)}, "is int8 and needs a scale"),
            ({FUSED: np.zeros((72, 24), np.int32)}, "is int32, which is not read"),
            ({FUSED: np.full((72, 24), np.inf, np.float32)}, "has inf at"),
            ({FUSED: np.zeros((36, 24), np.float32)}, "must have shape"),
        ],
    )
    def test_other_networks(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        model = ForeignModel()
        source = write_ctranslate2(tmp_path / "ct2", model)
        variables = {**foreign.ctranslate2_variables(model), **change}
        kept = {name: value for name, value in variables.items() if value is not None}
        (source / "model.bin").write_bytes(foreign.ctranslate2_binary(kept))
        with pytest.raises(ValueError, match=rf"^{source}/model\.bin: .*{message}"):
            convert_checkpoint(source, tmp_path / "new")
        assert os.listdir(tmp_path) == ["ct2"]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"version": 7}, "no model of CTranslate2 that is known: the version is 7; 4 to 6 are read"),
            ({"spec": "WhisperSpec"}, "is 'WhisperSpec', revision 7; only TransformerSpec, revisions 5 to 7, is read"),
            ({"revision": 8}, "is 'TransformerSpec', revision 8"),
        ],
    )
    def test_other_versions(self, tmp_path: Path, options: dict[str, Any], message: str) -> None:
        source = write_ctranslate2(tmp_path / "ct2", ForeignModel())
        variables = foreign.ctranslate2_variables(ForeignModel())
        (source / "model.bin").write_bytes(foreign.ctranslate2_binary(variables, **options))
        with pytest.raises(ValueError, match=rf"^{source}/model\.bin: {message}"):
            convert_checkpoint(source, tmp_path / "new")

    @pytest.mark.parametrize(
        ("file", "text", "message"),
        [
            ("shared_vocabulary.json", '["</s>", "<unk>"]', "2 words, but the embeddings of model.bin have 49 rows"),
            ("shared_vocabulary.json", json.dumps([1] * 49), "word 0 must be a str, got 1"),
            ("shared_vocabulary.json", json.dumps(["a"] * 49), "the unk_token '<unk>' is not in the vocabulary"),
            ("shared_vocabulary.json", "{}", "must hold a JSON array"),
            ("config.json", '{"add_source_bos": true}', "add_source_bos is True; only False is read"),
            ("config.json", '{"eos_token": 3}', "eos_token must be a str, got 3"),
            ("config.json", '{"layer_norm_epsilon": 0}', "layer_norm_epsilon must be a number in"),
        ],
    )
    def test_other_texts(self, tmp_path: Path, file: str, text: str, message: str) -> None:
        source = write_ctranslate2(tmp_path / "ct2", ForeignModel())
        (source / file).write_text(text)
        with pytest.raises(ValueError, match=rf"^{source}/{re.escape(file)}: {message}"):
            convert_checkpoint(source, tmp_path / "new")

    def test_no_vocabulary(self, tmp_path: Path) -> None:
        source = write_ctranslate2(tmp_path / "ct2", ForeignModel())
        (source / "shared_vocabulary.json").unlink()
        with pytest.raises(
            FileNotFoundError, match=r"shared_vocabulary\.json: no such file, and no source_vocabulary\.js"
        ):
            convert_checkpoint(source, tmp_path / "new")


def test_do_lower_case_is_not_for_them(tmp_path: Path) -> None:
    source = write_ctranslate2(tmp_path / "ct2", ForeignModel())
    with pytest.raises(ValueError, match="do_lower_case is for a checkpoint of TensorFlow"):
        convert_checkpoint(source, tmp_path / "new", do_lower_case=True)


@pytest.fixture(scope="module")
def pieces() -> bytes:
    """A SentencePiece model as Marian trains it."""
    library = pytest.importorskip("sentencepiece", reason="needs the sentencepiece library")
    file = io.BytesIO()
    texts = ["the cat sat on the mat", "a test of the tokenizer", "the rat ate a hat", "that is it"] * 3
    options = {"vocab_size": 25, "eos_id": 0, "unk_id": 1, "bos_id": -1, "pad_id": -1, "minloglevel": 2}
    library.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=file, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["marian", "ctranslate2"])
def test_a_translator(tmp_path: Path, pieces: bytes, kind: str) -> None:
    """The SentencePiece model may be Marian's vocabulary; CTranslate2 has it beside one."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=pieces)
    words = [processor.id_to_piece(i) for i in range(25)]
    model = ForeignModel(vocab_size=25, decoder_vocab_size=25)
    if kind == "marian":
        source = write_marian(tmp_path / "old", model)
        decoder = source / "decoder.yml"
        decoder.write_text(decoder.read_text().replace("vocab.yml", "vocab.spm"))
        (source / "vocab.spm").write_bytes(pieces)
    else:
        source = write_ctranslate2(tmp_path / "old", model)
        (source / "shared_vocabulary.json").write_text(json.dumps(words))
        for name in ("source.spm", "target.spm"):
            (source / name).write_bytes(pieces)
    assert convert_checkpoint(source, tmp_path / "new").tokenizer
    translator = Translator.from_pretrained(tmp_path / "new")
    found = translator.tokenizer.source.encode(["the cat", ""])
    assert found.ids.tolist() == [*processor.encode("the cat"), 0, 0]
    assert (translator.tokenizer.target.pad_token_id, translator.model.config.decoder_start_token_id) == (25, 25)
    assert len(translator.translate(["the cat", "a hat"])) == 2
    assert json.loads((tmp_path / "new" / "vocab.json").read_text()) == {
        word: i for i, word in enumerate([*words, "<pad>"])
    }


@pytest.mark.parametrize("write", [write_marian, write_ctranslate2])
def test_a_tokenizer_that_is_damaged(tmp_path: Path, write: Any) -> None:
    source = write(tmp_path / "old", ForeignModel())
    for name in ("source.spm", "target.spm"):
        (source / name).write_bytes(b"\x0a\xff")
    with pytest.raises(ValueError, match=rf"^{source}/source\.spm: not a SentencePiece model"):
        convert_checkpoint(source, tmp_path / "new")
    assert os.listdir(tmp_path) == ["old"]


@pytest.mark.parametrize("write", [write_marian, write_ctranslate2])
def test_a_folder_without_safetensors_says_what_to_do(tmp_path: Path, write: Any) -> None:
    source = write(tmp_path / "old", ForeignModel())
    (source / "config.json").write_text(json.dumps({"model_type": "marian"}))
    with pytest.raises(FileNotFoundError, match=r"is not read: run `fastattn convert` first"):
        Transformer.from_pretrained(source)


def test_a_folder_that_also_has_a_file_of_torch(tmp_path: Path) -> None:
    """That one is read: it needs no other vocabulary."""
    source = write_marian(tmp_path / "old", ForeignModel())
    (source / "pytorch_model.bin").write_bytes(b"")
    (source / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: the file is empty"):
        convert_checkpoint(source, tmp_path / "new")
