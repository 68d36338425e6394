"""The files that fuzzing changes, by name: who writes the folder, who reads it, and what is done with the result."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import helpers_elmo
import helpers_fuzz_text
import numpy as np
from helpers_bundles import SIZES, google_variables, write_google
from helpers_checkpoints import write_torch, write_torch_legacy
from helpers_families import ROWS, new_model
from helpers_foreign import ForeignModel, write_ctranslate2, write_marian
from helpers_fuzz import Target
from helpers_marian import MARIAN, marian_tensors
from helpers_mutations import (
    as_bytes,
    as_ctranslate2,
    as_index,
    as_json,
    as_lines,
    as_npz,
    as_safetensors,
    as_state,
    as_torch,
)
from helpers_network_tagger import write_network
from helpers_sentences import (
    HIDDEN,
    VOCABULARY,
    dense,
    layer_norm,
    normalize,
    pattern,
    write_bert,
    write_json,
    write_model,
)
from safetensors.numpy import load_file, save_file

from fastattn.formats import tensorflow_bundle, torch_pickle
from fastattn.formats.hugging_face import write_checkpoint
from fastattn.generation import generate
from fastattn.models import (
    AwdLstmConfig,
    AwdLstmForLanguageModel,
    AwdLstmForSequenceClassification,
    BertConfig,
    BertForPreTraining,
    BidirectionalLanguageModel,
    Elmo,
    ElmoConfig,
    Transformer,
    convert_checkpoint,
)
from fastattn.models.registry import load_encoder
from fastattn.tasks import BiLM, Classifier, CrossEncoder, LanguageModel, SentenceEncoder, Tagger, WordEncoder
from fastattn.tasks.description import describe
from fastattn.training.run_state import read_state, write_state

sys.path.insert(0, str(Path(__file__).parent / "training"))

from tiny_run import Run

# Folders.


def _sentences(folder: Path) -> None:
    layers = [
        layer_norm("2_LayerNorm", 2 * HIDDEN),
        dense("3_Dense", 2 * HIDDEN, 6, use_residual=True),
        normalize("4_Normalize"),
    ]
    options = {
        "prompts": {"query": "the "},
        "default_prompt_name": "query",
        "similarity_fn_name": "dot",
        "truncate_dim": 5,
    }
    write_model(folder, "mean", "cls", layers=layers, config_sentence_transformers=options)
    write_json(folder / "4_Normalize" / "config.json", {"module_input_name": "sentence_embedding"})


def _sharded(folder: Path) -> None:
    write_bert(folder)
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    shards = {f"model-{i}-of-2.safetensors": names[i::2] for i in range(2)}
    for shard, some in shards.items():
        save_file({name: tensors[name] for name in some}, folder / shard)
    (folder / "model.safetensors").unlink()
    weight_map = {name: shard for shard, some in shards.items() for name in some}
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": 0}, "weight_map": weight_map})


def _halves(folder: Path) -> None:
    write_bert(folder)
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {f"bert.{name}": tensor.astype(np.float16) for name, tensor in tensors.items()}, folder / "model.safetensors"
    )


def _classifier(folder: Path, kind: str, labels: Sequence[str], **fields: Any) -> None:
    """A BERT with a linear head."""
    write_bert(folder)
    tensors = {f"bert.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    for name in ("weight", "bias"):
        tensors[f"bert.pooler.dense.{name}"] = pattern(*(HIDDEN, HIDDEN)[: 1 + (name == "weight")], salt=3)
    count = len(labels)
    tensors |= {"classifier.weight": pattern(count, HIDDEN, salt=1), "classifier.bias": pattern(count, salt=2)}
    config = json.loads((folder / "config.json").read_text())
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    config |= {"architectures": [f"BertFor{kind}Classification"], **names, "classifier_dropout": 0.1, **fields}
    write_checkpoint(folder, config, tensors)


def _tagger(folder: Path) -> None:
    _classifier(folder, "Token", ("O", "B-PER", "I-PER"))
    layout = {"format": "conll", "word_column": "0", "tag_column": "-1", "scheme": "IOB2"}
    write_json(folder / "tagger.json", layout)


def _reranker(folder: Path) -> None:
    activation = "torch.nn.modules.activation.Sigmoid"
    more = {"sentence_transformers": {"activation_fn": activation, "version": "5"}, "problem_type": "regression"}
    _classifier(folder, "Sequence", ("LABEL_0",), **more, sbert_ce_default_activation_function=activation)


def _pickled(folder: Path) -> None:
    write_bert(folder)
    write_torch(folder / "pytorch_model.bin", load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()


def _bilm(folder: Path) -> None:
    sizes: dict[str, Any] = {"filters": ((1, 4),), "dim": 5, "projection_dim": 4, "n_layers": 1, "n_highway": 1}
    config = ElmoConfig(**sizes, vocabulary_size=5, num_sampled=2)
    BidirectionalLanguageModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("<S>\n</S>\n<UNK>\nthe\ncat\n")


def _language_model(folder: Path) -> None:
    config = AwdLstmConfig(vocabulary_size=5, embedding_dim=3, dim=4, n_layers=2)
    AwdLstmForLanguageModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("<S>\n</S>\n<UNK>\nthe\ncat\n")


def _word_classifier(folder: Path) -> None:
    config = AwdLstmConfig(vocabulary_size=5, embedding_dim=3, dim=4, n_layers=2, direction="both")
    AwdLstmForSequenceClassification(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("<S>\n</S>\n<UNK>\nthe\ncat\n")


def _family(name: str, folder: Path) -> None:
    sizes = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 20}
    new_model(name, seed=5, **sizes).save_pretrained(folder)


def _marian(folder: Path) -> None:
    write_checkpoint(folder, MARIAN, marian_tensors(MARIAN))
    settings = {"max_length": 6, "bad_words_ids": [[49]], "eos_token_id": 0, "forced_eos_token_id": 0}
    write_json(folder / "generation_config.json", {**settings, "decoder_start_token_id": 49, "pad_token_id": 49})


def _foreign(write: Callable[..., Path], changes: dict[str, Any], folder: Path) -> None:
    write(folder, ForeignModel(**changes))


def _elmo(folder: Path) -> None:
    options = helpers_elmo.options(filters=[[1, 2], [2, 3]], n_layers=2, dim=5, projection_dim=4)
    helpers_elmo.write(folder, options, helpers_elmo.random_datasets(options))


def _elmo_config(folder: Path) -> None:
    _elmo(folder)
    Elmo.from_pretrained(folder / "options.json", folder / "weights.hdf5").save_pretrained(folder)


def _google(folder: Path) -> None:
    sizes = {**SIZES, "num_hidden_layers": 1}
    model = BertForPreTraining(BertConfig(**sizes))  # type: ignore[arg-type]  # by name
    write_google(folder, google_variables(model.state_dict()), split={"bert/embeddings/word_embeddings": (0, 2)})
    write_json(folder / "bert_config.json", sizes)


def _torch(write: Callable[..., Any], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    tensors = {"a.weight": pattern(3, 4, salt=0), "b": np.arange(5), "c": pattern(2, 2, salt=1).astype(np.float16)}
    write(folder / "pytorch_model.bin", tensors)


def _state(folder: Path) -> None:
    values = {
        "step": 3,
        "options": {"epochs": 2},
        "evaluations": [{"step": 3, "metrics": {"error": 0.5}}],
        "seeds": [1, 2],
    }
    write_state(folder, 3, {"model.scale": pattern(4, salt=0), "carried.mean": np.zeros((2, 0), np.float32)}, values)


_SAVED = "states/step-00000099.safetensors"


def _run(folder: Path) -> Run:
    """A run of a tiny model, with whatever a state can hold."""
    found = []
    options: dict[str, Any] = {
        "carry": True,
        "averages": True,
        "higher_is_better": False,
        "metric": "error",
        "patience": 9,
    }
    found.append(Run(folder, epochs=2, evaluate=lambda: found[0].metrics(), **options))
    return found[0]


def _trained(folder: Path) -> None:
    _run(folder).trainer.train()
    state = max((folder / "states").iterdir())
    state.rename(folder / _SAVED)


def _resumed(folder: Path) -> Run:
    run = _run(folder)
    run.trainer.resume()
    return run


def _go_on(run: Run) -> None:
    run.trainer.load_best()
    assert run.trainer.finished is not None


# Models in use.


def _embed(model: Any) -> Any:
    return model.encode(["the cat sat.", ""])


def _one_token(model: Any) -> Any:
    return model(np.array([[0]])).last_hidden_state


def _tag(tagger: Any) -> Any:
    return tagger.tag([["the", "cat"]])


def _score(encoder: Any) -> Any:
    return encoder.predict([("the cat", "a"), ("", "zz")])


def _perplexity(model: Any) -> Any:
    return model([["the", "cat", "sat"], ["dog"]])


def _translate(model: Any) -> Any:
    return generate(model, np.array([[1, 2, 0]]), max_length=8)


def _tensors(read: Callable[[Path], Any], name: str, folder: Path) -> Any:
    with read(folder / name) as found:
        return [found[key] for key in found if found.dtype(key) in tensorflow_bundle.DTYPES]


def _converted(folder: Path) -> Any:
    out = folder.with_name(f"{folder.name}.converted")
    return convert_checkpoint(folder, out, overwrite=True)


def _words(folder: Path) -> Any:
    return WordEncoder.from_pretrained(folder / "options.json", folder / "weights.hdf5")


def _embed_words(encoder: Any) -> Any:
    return encoder.embed_sentence(["The", "cat"])


def _described(read: Callable[[Path], Any], folder: Path) -> Any:
    """`fastattn info` says what is wrong with a folder, and never fails."""
    assert describe(folder)["folder"] == str(folder)
    return read(folder)


def _sentence_encoder(folder: Path) -> Any:
    return SentenceEncoder(folder)


def _targets() -> Iterator[tuple[str, Target]]:
    tokens = ("tokenizers",)
    weights = partial(Target, name="model.safetensors", mutate=as_safetensors)
    yield "safetensors", weights(write_bert, read=partial(_described, load_encoder), use=_one_token, needs=tokens)
    yield "safetensors f16", weights(_halves, read=load_encoder, use=_one_token)
    index = "model.safetensors.index.json"
    yield "safetensors index", Target(_sharded, index, load_encoder, as_json, _one_token)
    for name in ROWS:
        yield f"config {name}", Target(partial(_family, name), "config.json", load_encoder, as_json, _one_token)
    yield "config tagger", Target(_tagger, "config.json", Tagger.from_pretrained, as_json, _tag, tokens)
    yield "tagger layout", Target(_tagger, "tagger.json", Tagger.from_pretrained, as_json, _tag, tokens)
    network = partial(Target, write_network, read=Tagger.from_pretrained, use=_tag, needs=tokens)
    for name, mutate in (("config.json", as_json), ("vocab.txt", as_lines), ("features/config.json", as_json)):
        yield f"network tagger {name}", network(name, mutate=mutate)
    rerank = Target(_reranker, "config.json", CrossEncoder.from_pretrained, as_json, _score, tokens)
    yield "config reranker", rerank
    for name, mutate in (("config.json", as_json), ("vocab.txt", as_lines)):
        yield f"bilm {name}", Target(_bilm, name, BiLM.from_pretrained, mutate, _perplexity)
    language_model = partial(Target, _language_model, read=LanguageModel.from_pretrained, use=_perplexity)
    yield "language-model config.json", language_model("config.json", mutate=as_json)
    words = partial(Target, _word_classifier, read=Classifier.from_pretrained, use=lambda made: made(["the cat"]))
    for name, mutate in (("config.json", as_json), ("vocab.txt", as_lines)):
        yield f"ulmfit {name}", words(name, mutate=mutate)
    for name in ("config.json", "generation_config.json"):
        kind = name.partition(".")[0]
        yield f"{kind} marian", Target(_marian, name, Transformer.from_pretrained, as_json, _translate)
    yield "elmo options", Target(_elmo, "options.json", _words, as_json, _embed_words, ("h5py",))
    yield "elmo hdf5", Target(_elmo, "weights.hdf5", _words, as_bytes, _embed_words, ("h5py",))
    elmo = partial(Target, _elmo_config, read=WordEncoder.from_pretrained, use=_embed_words, needs=("h5py",))
    yield "config elmo", elmo("config.json", mutate=as_json)
    for name in (
        "modules.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
        *(f"{module}/config.json" for module in ("1_Pooling", "2_LayerNorm", "3_Dense", "4_Normalize")),
    ):
        kind = name.removesuffix("/config.json").removesuffix(".json")
        yield (
            f"sentences {kind}",
            Target(_sentences, name, partial(_described, _sentence_encoder), as_json, _embed, tokens),
        )
    yield (
        "sentences weights",
        Target(_sentences, "3_Dense/model.safetensors", _sentence_encoder, as_safetensors, _embed, tokens),
    )
    for kind, writer in (("zip", write_torch), ("legacy", write_torch_legacy)):
        yield f"torch {kind}", Target(
            partial(_torch, writer), "pytorch_model.bin",
            partial(_tensors, torch_pickle.read_tensors, "pytorch_model.bin"), as_torch if kind == "zip" else as_bytes,
        )  # fmt: skip
    tensorflow = partial(_tensors, tensorflow_bundle.read_tensors, "bert_model.ckpt")
    yield "tensorflow index", Target(_google, "bert_model.ckpt.index", tensorflow, as_index)
    yield "tensorflow data", Target(_google, "bert_model.ckpt.data-00000-of-00001", tensorflow, as_bytes)
    for name, mutate in (("bert_config.json", as_json), ("vocab.txt", as_lines), ("bert_model.ckpt.index", as_index)):
        yield f"convert {name}", Target(_google, name, _converted, mutate)
    for name, mutate in (("pytorch_model.bin", as_torch), ("config.json", as_json)):
        yield f"convert pickled {name}", Target(_pickled, name, _converted, mutate)
    smallest = {"encoder_layers": 1, "decoder_layers": 1}
    for write, files in (
        (write_marian, {"model.npz": as_npz, "decoder.yml": as_lines, "vocab.yml": as_lines}),
        (write_ctranslate2, {"model.bin": as_ctranslate2, "shared_vocabulary.json": as_json, "config.json": as_json}),
    ):
        for name, mutate in files.items():
            kind = write.__name__.removeprefix("write_")
            make = partial(_foreign, write, smallest)
            yield f"convert {kind} {name}", Target(make, name, _converted, mutate)
    state = "step-00000003.safetensors"
    yield "state", Target(_state, state, lambda folder: read_state(folder / state), as_state)
    yield "resumed run", Target(_trained, _SAVED, _resumed, as_state, _go_on)


TARGETS: dict[str, Target] = {**dict(_targets()), **dict(helpers_fuzz_text.targets())}
