"""Checkpoints of translation models in other formats: converted, they compute what their own libraries compute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import array
from helpers_foreign import TIES as MARIAN_TIES
from helpers_foreign import ForeignModel, write_marian

from fastattn.formats.hugging_face import read_state_dict
from fastattn.generation import generate
from fastattn.models import Transformer, convert_checkpoint

torch = pytest.importorskip("torch", reason="torch, the other side of the parity tests, is not installed")
transformers = pytest.importorskip(
    "transformers", reason="transformers, the other side of the parity tests, is not installed"
)

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not our errors

PARITY = 3e-5
SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 48,
    "activation_function": "swish",
    "scale_embedding": True,
    "pad_token_id": 60,
    "decoder_start_token_id": 60,
    "eos_token_id": 0,
    "forced_eos_token_id": 0,
    "init_std": 0.3,
}
TIES: dict[str, dict[str, Any]] = {
    "tied": {},
    "two tables": {"share_encoder_decoder_embeddings": False},
    "untied": {"tie_word_embeddings": False},
    "two tables, untied": {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False},
}
SOURCES = np.array([[5, 9, 33, 7, 12, 0], [4, 2, 0, 60, 60, 60], [59, 1, 8, 8, 0, 60]])
TARGETS = np.array([[60, 3, 4, 50], [60, 1, 2, 2], [60, 60, 7, 0]])


def their_model(**changes: Any) -> Any:
    """A random MarianMTModel, every one of whose tensors counts; it never chooses the padding."""
    torch.manual_seed(0)
    model = transformers.MarianMTModel(transformers.MarianConfig(**SIZES, **changes)).eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if name.endswith("bias") or "layer_norm" in name:
                tensor.add_(0.2 * torch.randn(tensor.shape))
        model.final_logits_bias.normal_()
        model.model.encoder.embed_tokens.weight[-1] = model.model.decoder.embed_tokens.weight[-1] = 0
        model.lm_head.weight[-1] = model.final_logits_bias[0, -1] = 0
    return model


def their_logits(model: Any) -> Any:
    ids, mask, targets = (torch.tensor(x) for x in (SOURCES, SOURCES != 60, TARGETS))
    with torch.no_grad():
        return model(ids, attention_mask=mask.long(), decoder_input_ids=targets).logits.numpy()


def their_tokens(model: Any) -> Any:
    ids, mask = torch.tensor(SOURCES), torch.tensor(SOURCES != 60).long()
    options = {"num_beams": 1, "do_sample": False, "max_length": 14, "bad_words_ids": [[60]]}
    return model.generate(ids, attention_mask=mask, **options).numpy()


def assert_same_as(model: Any, folder: Path) -> None:
    """Ours computes the logits and the tokens of theirs, and so does theirs from our folder."""
    ours = Transformer.from_pretrained(folder)
    logits = their_logits(model)
    got = array(ours(SOURCES, SOURCES != 60, decoder_input_ids=TARGETS).logits)
    np.testing.assert_allclose(got, logits, rtol=0, atol=PARITY)
    tokens = generate(ours, SOURCES, SOURCES != 60, num_beams=1, max_length=14, bad_words_ids=[[60]])
    np.testing.assert_array_equal(tokens, their_tokens(model))
    np.testing.assert_allclose(
        their_logits(transformers.MarianMTModel.from_pretrained(folder).eval()), logits, rtol=0, atol=PARITY
    )


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
@pytest.mark.parametrize("ties", TIES)
def test_pytorch_model_bin(tmp_path: Path, ties: str, half: bool) -> None:
    """As the folders of opus-mt have it: all names of tied tensors, and rounded positions."""
    model = their_model(**TIES[ties])
    model = model.half() if half else model
    state = model.state_dict()
    for side in ("encoder", "decoder"):
        state[f"model.{side}.embed_positions.weight"] = getattr(model.model, side).embed_positions.weight
    old = tmp_path / "old"
    old.mkdir()
    torch.save(state, old / "pytorch_model.bin", _use_new_zipfile_serialization=not half)
    fields = {**SIZES, **TIES[ties], "model_type": "marian", "architectures": ["MarianMTModel"]}
    extra = {"_num_labels": 3, "add_bias_logits": False, "normalize_before": False, "num_beams": 6, "max_length": 512}
    (old / "config.json").write_text(json.dumps({**fields, **extra, "static_position_embeddings": True}))
    done = convert_checkpoint(old, tmp_path / "new")
    assert done.model is Transformer
    with read_state_dict(tmp_path / "new") as tensors:
        names = {*tensors, *done.skipped}
    assert names == {*state}
    assert_same_as(model.float(), tmp_path / "new")


# CTranslate2, which also reads Marian's own models.

WORDS = ["</s>", "<unk>", *(f"w{i}" for i in range(2, 60)), "<pad>"]


class TheirTokenizer:
    """What their converter asks of a tokenizer."""

    bos_token, eos_token, unk_token = None, "</s>", "<unk>"

    def get_vocab(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(WORDS)}


def write_theirs(folder: Path, model: Any, quantization: str | None) -> Path:
    """What `ct2-transformers-converter` writes for a MarianMTModel."""
    pytest.importorskip("ctranslate2", reason="ctranslate2, the other side of these tests, is not installed")
    from ctranslate2.converters.transformers import MarianMTLoader

    folder.mkdir()
    with torch.no_grad():
        spec = MarianMTLoader()(model, TheirTokenizer())
    spec.validate()
    spec.optimize(quantization)
    spec.save(str(folder))
    return folder


def assert_same_scores(theirs: Path, ours: Path, sides: list[list[str]], near: float) -> None:
    """Ours gives the translations and the log-probabilities of CTranslate2, which computes them in float32."""
    import ctranslate2

    options = {"device": "cpu", "compute_type": "float32", "intra_threads": 1}
    translator = ctranslate2.Translator(str(theirs), **options)
    model = Transformer.from_pretrained(ours)
    start, (source, target) = model.config.decoder_start_token_id, sides
    end = [] if json.loads((theirs / "config.json").read_text())["add_source_eos"] else ["</s>"]
    sources, reference = [[5, 9, 33, 7, 12], [4, 2], [40]], [3, 8, 8, 20]
    words = [[*(source[i] for i in ids), *end] for ids in sources]
    found = translator.translate_batch(words, beam_size=1, max_decoding_length=12)
    scores = translator.score_batch(words, [[target[i] for i in reference]] * len(words))
    for ids, theirs_found, theirs_scores in zip(sources, found, scores, strict=True):
        tokens = generate(model, [[*ids, 0]], num_beams=1, max_new_tokens=13)[0, 1:]
        got = [target[i] for i in tokens.tolist() if i < len(target)]
        assert [*theirs_found.hypotheses[0], "</s>"][:12] == got[:12]
        logits = model([[*ids, 0]], decoder_input_ids=[[start, *reference]]).logits
        logits = np.asarray(logits, np.float64)[0, :, : len(target)]
        logits -= logits.max(axis=1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        got = logits[np.arange(5), [*reference, 0]]
        np.testing.assert_allclose(got, theirs_scores.log_probs, rtol=0, atol=near)


@pytest.mark.parametrize("ties", TIES)
def test_ctranslate2(tmp_path: Path, ties: str) -> None:
    model = their_model(**TIES[ties])
    theirs = write_theirs(tmp_path / "theirs", model, None)
    assert convert_checkpoint(theirs, tmp_path / "new").model is Transformer
    assert_same_as(model, tmp_path / "new")
    assert_same_scores(theirs, tmp_path / "new", [WORDS[:-1]] * 2, 2e-4)


@pytest.mark.parametrize("quantization", ["int8", "int8_float16", "int16", "float16", "bfloat16"])
def test_ctranslate2_of_smaller_numbers(tmp_path: Path, quantization: str) -> None:
    theirs = write_theirs(tmp_path / "theirs", their_model(), quantization)
    convert_checkpoint(theirs, tmp_path / "new")
    assert_same_scores(theirs, tmp_path / "new", [WORDS[:-1]] * 2, 2e-4)


@pytest.mark.parametrize("ties", MARIAN_TIES)
def test_marian(tmp_path: Path, ties: str) -> None:
    """Their converter reads our files as we do: the same tokens, and the same probabilities."""
    pytest.importorskip("ctranslate2", reason="ctranslate2, the other side of these tests, is not installed")
    from ctranslate2.converters import MarianConverter

    model = ForeignModel(ties)
    source = write_marian(tmp_path / "marian", model)
    names = sorted(str(path) for path in source.glob("vocab*.yml"))
    MarianConverter(str(source / "model.npz"), [names[0], names[-1]]).convert(str(tmp_path / "theirs"))
    convert_checkpoint(source, tmp_path / "new")
    sides = [model.words(0), model.words(0 if model.shared else 1)]
    assert_same_scores(tmp_path / "theirs", tmp_path / "new", sides, 2e-4)
    convert_checkpoint(tmp_path / "theirs", tmp_path / "newer")
    assert_same_scores(tmp_path / "theirs", tmp_path / "newer", sides, 2e-4)
    with read_state_dict(tmp_path / "new") as one, read_state_dict(tmp_path / "newer") as other:
        assert {*one} == {*other}
        assert all(np.array_equal(one[name], other[name]) for name in one)
