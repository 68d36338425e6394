"""What a call costs: how many kernels run, which weights are packed and what is allocated. Not how long it takes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from helpers import normal
from helpers_marian import random_transformer

from fastattn import Tensor, kernels, nn
from fastattn import functional as F
from fastattn.generation import generate
from fastattn.kernels import PackedMatrix
from fastattn.models import (
    BertConfig,
    BertForTokenClassification,
    BertModel,
    Elmo,
    ElmoConfig,
    Transformer,
    TransformerConfig,
)
from fastattn.models.elmo.network import ElmoNetwork
from fastattn.nn import stacks
from fastattn.nn.parameter import Parameter
from fastattn.tasks import WordEncoder
from fastattn.text import ParallelText

ENDS = np.array([0, 1, 4], np.int32)


@contextmanager
def recorded(owner: Any, name: str) -> Iterator[list[mock._Call]]:
    """The calls of a function, which does what it always does."""
    calls: list[mock._Call] = []
    function = getattr(owner, name)

    def call(*arguments: Any, **options: Any) -> Any:
        calls.append(mock.call(*arguments, **options))
        return function(*arguments, **options)

    with mock.patch.object(owner, name, call):
        yield calls


def plain_weights(calls: list[mock._Call]) -> list[tuple[int, ...]]:
    """The shapes of the weights that `kernels.linear` had to pack."""
    weights = [call.args[1] for call in calls]
    return [weight.shape for weight in weights if not isinstance(weight, PackedMatrix)]


# Gradients


def layers() -> dict[str, tuple[str, Callable[..., Any], dict[str, tuple[int, ...]]]]:
    """The kernel of the backward pass, a function of parameters, and the parameters whose gradients it adds to."""
    x, ids, words = normal(np.random.default_rng(0), 4, 3), np.array([0, 2, 1, 0]), np.zeros((4, 6), np.int64)
    rows = {"weight": (3, 3), "position_weight": (3, 3), "token_type_weight": (3, 3)}
    lstm = {"weight_ih": (8, 3), "weight_hh": (8, 2), "weight_hr": (2, 2)}
    gru = {"weight_ih": (6, 3), "weight_hh": (6, 2), "bias_ih": (6,), "bias_hh": (6,)}
    return {
        "linear": ("linear_backward", lambda **p: F.linear(x, **p), {"weight": (5, 3), "bias": (5,)}),
        "layer_norm": ("layer_norm_backward", lambda **p: F.layer_norm(x, (3,), **p), {"weight": (3,), "bias": (3,)}),
        "embedding": ("embedding_backward", lambda **p: F.embedding(ids, **p), {"weight": (3, 3)}),
        "embedding_sum": (
            "embedding_backward",
            lambda **p: F.embedding_sum(ids, position_ids=ids, token_type_ids=ids, **p),
            rows,
        ),
        "char_cnn": (
            "char_cnn_backward",
            lambda embedding, a, b, bias_a, bias_b: F.char_cnn(words, embedding, [a, b], [bias_a, bias_b]),
            {"embedding": (3, 2), "a": (4, 1, 2), "b": (4, 3, 2), "bias_a": (4,), "bias_b": (4,)},
        ),
        "highway": ("highway_backward", lambda **p: F.highway(x, **p), {"weight": (6, 3), "bias": (6,)}),
        "lstm": (
            "lstm_backward",
            lambda weight_ih, weight_hh, weight_hr: F.lstm(
                x, ENDS, [(weight_ih, weight_hh, None, None, weight_hr)], reverse=(False,)
            )[0],
            lstm,
        ),
        "gru": ("gru_backward", lambda **p: F.gru(x, ENDS, [tuple(p.values())], reverse=(False,))[0], gru),
        "sampled_softmax_loss": (
            "embedding_backward",
            lambda weight: F.sampled_softmax_loss(x, ids, weight, np.zeros(9, np.float32), 3),
            {"weight": (9, 3)},
        ),
    }


@pytest.mark.parametrize("name", layers())
def test_kernels_add_to_the_gradients_that_are_there(name: str) -> None:
    """A second backward pass makes no array of a parameter's size: its kernel gets `grad` itself."""
    kernel, function, shapes = layers()[name]
    rng = np.random.default_rng(1)
    parameters = {key: Tensor(normal(rng, *shape), requires_grad=True) for key, shape in shapes.items()}
    for parameter in parameters.values():
        parameter.grad = np.ones(parameter.shape, np.float32)
    with recorded(kernels, kernel) as calls:
        function(**parameters).sum().backward()
    given = [id(array) for call in calls for array in arrays_in([call.args, list(call.kwargs.values())])]
    assert [key for key, parameter in parameters.items() if id(parameter.grad) not in given] == []


def arrays_in(value: Any) -> list[Any]:
    """The arrays in lists and tuples."""
    if isinstance(value, list | tuple):
        return [array for item in value for array in arrays_in(item)]
    return [value] if isinstance(value, np.ndarray) else []


# What is computed again instead of kept


@pytest.mark.parametrize(("kind", "kernel"), [(nn.LSTM, "lstm"), (nn.GRU, "gru")])
def test_recurrent_layers_that_compute_their_gates_again(kind: Any, kernel: str) -> None:
    for recompute in (False, True):
        with recorded(kernels, kernel) as calls:
            kind(3, 4, 2, recompute=recompute)(np.ones((4, 3), np.float32), cu_seqlens=ENDS)
        assert [call.kwargs["recompute"] for call in calls] == [recompute] * 2


def test_an_encoder_that_computes_its_layers_again() -> None:
    model = bert(trainable=True)
    for computes in (False, True):
        getattr(model, f"gradient_checkpointing_{'enable' if computes else 'disable'}")()
        loss = model.forward_ragged(np.array([1, 2, 3, 4]), ENDS).last_hidden_state.sum()
        with recorded(kernels, "linear") as calls:
            loss.backward()
        assert len(calls) == (4 * 3 if computes else 0)


# Weights


def bert(trainable: bool = False) -> BertModel:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    model = BertModel(BertConfig(vocab_size=9, max_position_embeddings=8, **sizes)).eval()
    return model if trainable else model.freeze()


def test_a_frozen_encoder_packs_nothing() -> None:
    model = bert()
    with recorded(kernels, "linear") as calls:
        model.forward_ragged(np.array([1, 2, 3, 4]), ENDS)
    assert (len(calls), plain_weights(calls)) == (4 * 3 + 1, [])


def test_an_encoder_allocates_its_buffers_once() -> None:
    model = bert()
    with recorded(stacks, "Workspace") as calls:
        model.forward_ragged(np.array([1, 2, 3, 4]), ENDS)
    assert len(calls) == 1


def kernels_of(model: Transformer, sequences: int, new_tokens: int) -> tuple[int, list[Any], int]:
    """The products of `generate`, those whose weight it packed, and how many parameters were packed."""
    model.config = model.config.replace(bad_words_ids=((0,),))  # no sequence ends before the last token
    ids = np.full((sequences, 3), 5)
    with recorded(kernels, "linear") as products, recorded(Parameter, "_freeze") as packed:
        found = generate(model, ids, max_new_tokens=new_tokens)
    assert found.shape == (sequences, 1 + new_tokens)
    return len(products), plain_weights(products), len(packed)


@pytest.mark.parametrize("trainable", [False, True])
def test_decoding_packs_each_weight_once(trainable: bool) -> None:
    """Also the table of embeddings that is the matrix of the scores, which a model does not pack."""
    model = random_transformer(trainable=True).eval()
    model = model if trainable else model.freeze()
    few, many = kernels_of(model, 1, 3), kernels_of(model, 1, 9)
    assert (few[1], many[1]) == ([], [])
    assert few[2] == many[2]
    assert (few[2] > 0) == trainable


def test_a_step_computes_all_sequences_at_once() -> None:
    model = random_transformer(trainable=True).eval().freeze()
    assert kernels_of(model, 1, 5)[0] == kernels_of(model, 7, 5)[0]


def calls_in_a_step(layers: int) -> tuple[int, int]:
    """The Python functions that a step of a decoder calls, and the kernels."""
    sizes = {"d_model": 8, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_layers": 1}
    model = Transformer(TransformerConfig(vocab_size=9, decoder_layers=layers, **sizes)).eval().freeze()
    decoder, found = model.begin(np.array([[5, 6]]), max_length=9), []
    for _ in range(2):
        decoder.step(np.array([5]))

    def count(frame: Any, event: str, _: Any) -> None:
        if event == "call":
            found.append(frame.f_globals["__name__"])

    sys.setprofile(count)
    decoder.step(np.array([5]))
    sys.setprofile(None)
    return len(found), sum(name.startswith("fastattn.kernels.") for name in found)


def test_python_of_a_step() -> None:
    """A layer has 12 kernels, of which Python calls each through one or two functions, once."""
    few, many = calls_in_a_step(2), calls_in_a_step(6)
    assert (many[1] - few[1]) / 4 == 12
    assert few[1] == 2 * 12 + 2  # and the embeddings and the scores
    assert (many[0] - few[0]) / 4 <= 28
    assert few[0] - 2 * 28 <= 40


def test_a_step_allocates_its_buffers_once() -> None:
    model = random_transformer(trainable=True).eval().freeze()
    decoder = model.begin(np.full((3, 4), 5), max_length=30)
    with recorded(stacks, "Workspace") as made:
        for length in range(20):
            if length == 10:
                decoder.keep(np.array([0, 2]))
            decoder.step(np.full(len(decoder.sources), 5))
    assert len(made) == 2  # one for three rows, one for two


# Batches


def test_sentences_are_read_together(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="needs the tokenizers library")
    from helpers_sentences import write_bert

    from fastattn.tasks import SentenceEncoder

    encoder = SentenceEncoder(write_bert(tmp_path))
    for options, passes in (({}, 1), ({"batch_size": 8}, 3), ({"batch_size": 1}, 20)):
        with recorded(BertModel, "forward_ragged") as calls:
            encoder.encode(["the cat", "sat"] * 10, **options)
        assert len(calls) == passes
        with recorded(BertModel, "forward_ragged") as calls:
            list(encoder.encode_stream([["the cat", "sat"] * 10], **options))
        assert len(calls) == passes


def test_words_are_labelled_together(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="needs the tokenizers library")
    from helpers_sentences import write_bert

    from fastattn.tasks import Tagger
    from fastattn.text import ConlluSentence

    tagger = Tagger.for_training(write_bert(tmp_path), [ConlluSentence.from_words(["the", "cat"], ["DET", "NOUN"])])
    tagger.model.eval()
    with recorded(BertForTokenClassification, "forward_ragged") as calls:
        tagger.tag([["the", "cat"], ["sat"]] * 10)
    assert len(calls) == 1


def test_texts_are_translated_together() -> None:
    from helpers_translator import make

    translator = make()
    with recorded(Transformer, "begin") as calls:
        translator.translate(["ab", "hgfed", "c"] * 7)
    assert len(calls) == 1
    with recorded(Transformer, "begin") as calls:
        translator.translate(["abcd"] * 6, batch_tokens=10)  # of five tokens each
    assert len(calls) == 3
    with recorded(Transformer, "loss_ragged") as calls:
        translator.cross_entropy(ParallelText(("ab",) * 6, ("AB",) * 6), batch_tokens=12)  # of three tokens each
    assert len(calls) == 3


def test_a_text_is_measured_together() -> None:
    from helpers_language_model import SENTENCES, VOCABULARY, characters, make

    from fastattn.tasks.streams.loss import perplexities
    from fastattn.text import Sentences, sentence_batches

    model = make()
    with recorded(ElmoNetwork, "lstm") as calls:
        perplexities(model, sentence_batches(Sentences.from_words(SENTENCES * 5), VOCABULARY, characters))
    assert len(calls) == 1


def test_sentences_of_words_are_read_together() -> None:
    model = Elmo(ElmoConfig(filters=((1, 4),), dim=8, projection_dim=4, num_output_representations=1)).eval().freeze()
    encoder = WordEncoder(model)
    with recorded(ElmoNetwork, "tokens") as vectors, recorded(kernels, "lstm") as layers:
        encoder([["a", "cat"], ["cat"], []] * 20)
    assert (len(vectors), len(vectors[0].args[1]), len(layers)) == (1, 4, 2)  # <S>, </S> and two words
