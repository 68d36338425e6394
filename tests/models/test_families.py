"""Every family of encoders: folders, the same bits in any company, training, freezing, pickling, bad input.

A family needs nothing but its row in `helpers_families`.
"""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import array, assert_same_bits
from helpers_checkpoints import write_torch
from helpers_families import HEADS, ROWS, draw_fields, make_call, new_model

import fastattn
from fastattn import Tensor, models, no_grad, ragged
from fastattn.models import AlbertForPreTraining, heads
from fastattn.models.convert import convert_checkpoint
from fastattn.models.encoder import EncoderFamily
from fastattn.models.registry import FAMILIES, family, load_encoder, load_head
from fastattn.training import Adam

DROPPING = (heads.TokenClassification, heads.QuestionAnswering, heads.SummaryModel, AlbertForPreTraining)
"""The heads that take dropout."""


def call_of(model: Any, kind: str, name: str, seed: int = 0) -> dict[str, Any]:
    return make_call(kind, model.config, ROWS[name].pair_label, np.random.default_rng(seed))


def arrays_of(output: Any) -> list[Any]:
    """What an output holds, without the loss."""
    found = []
    for name in output.keys():  # noqa: SIM118  # the names of the fields
        value = getattr(output, name)
        found += [*value] if isinstance(value, tuple) else [value] if name != "loss" else []
    return found


def test_every_family_has_a_row() -> None:
    tokens = {name for name in FAMILIES if family(name).encoder and issubclass(family(name).encoder, EncoderFamily)}  # type: ignore[arg-type]  # an encoder
    assert tokens == set(ROWS)
    for name in ROWS:
        found = family(name)
        for model in (found.config, found.encoder, *found.heads.values()):
            assert getattr(models, model.__name__) is model  # type: ignore[union-attr]  # each row has an encoder


@pytest.mark.parametrize(("name", "kind"), HEADS)
class TestHeads:
    def test_a_folder(self, tmp_path: Path, name: str, kind: str) -> None:
        model = new_model(name, kind)
        call = call_of(model, kind, name)
        model.save_pretrained(tmp_path)
        again = load_head(tmp_path, kind, new_head="refuse")
        assert again.config == model.config
        assert type(again) is type(model)
        before, after = model(**call), again(**call)
        for a, b in zip(arrays_of(before), arrays_of(after), strict=True):
            assert_same_bits(array(a), array(b))
        state = model.state_dict()
        assert set(again.state_dict()) == set(state)
        encoder = load_encoder(tmp_path)
        assert encoder.frozen
        for own, values in encoder.state_dict().items():
            assert_same_bits(values, state[model.prefix + own])
        fields = json.loads((tmp_path / "config.json").read_text())
        assert fields["model_type"] == name
        assert fields["architectures"] == [f"{ROWS[name].theirs}For{kind}"]

    def test_a_head_over_an_encoder_alone(self, tmp_path: Path, name: str, kind: str) -> None:
        encoder = new_model(name)
        encoder.save_pretrained(tmp_path)
        with pytest.warns(UserWarning, match=rf"For{kind}: .* drawn at random"):
            model = load_head(tmp_path, kind)
        own, given = model.base_model.state_dict(), encoder.state_dict()
        assert all(name.startswith("pooler") for name in own.keys() ^ given.keys())
        for name in own.keys() & given.keys():
            assert_same_bits(own[name], given[name])
        with pytest.raises(ValueError, match=rf"not a \w+For{kind}, .* (are|is) missing"):
            load_head(tmp_path, kind, new_head="refuse")

    def test_trainable_and_frozen(self, name: str, kind: str) -> None:
        """The same bits, as Tensors and as arrays, recorded or not; hidden states and attentions too."""
        model = new_model(name, kind)
        call = {**call_of(model, kind, name), "output_hidden_states": True, "output_attentions": True}
        output = model(**call)
        assert all(isinstance(value, Tensor) for value in arrays_of(output))
        recorded, loss = [array(value).copy() for value in arrays_of(output)], float(output.loss)
        with no_grad():
            plain = model(**call)
        frozen = copy.deepcopy(model).freeze()(**call)
        assert all(isinstance(value, np.ndarray) for value in arrays_of(frozen))
        for other in (plain, frozen):
            assert float(other.loss) == loss
            for a, b in zip(recorded, arrays_of(other), strict=True):
                assert_same_bits(a, array(b))

    def test_dropout_of_the_head(self, name: str, kind: str) -> None:
        """It acts while training where the head names its rate, and nowhere else."""
        head: Any = family(name).heads[kind]
        rates = dict.fromkeys(head.dropouts if issubclass(head, DROPPING) else (), 0.5)
        model = new_model(name, kind, **rates)
        call = call_of(model, kind, name)
        quiet = [array(value).copy() for value in arrays_of(model(**call))]
        model.train()
        model.base_model.eval()
        loud = [array(value) for value in arrays_of(model(**call))]
        assert any(not np.array_equal(a, b) for a, b in zip(quiet, loud, strict=True)) == bool(rates)

    def test_it_trains(self, name: str, kind: str) -> None:
        """Every parameter of the loss gets a gradient, and the loss falls. Checkpointing changes no bits."""
        model = new_model(name, kind)
        call = call_of(model, kind, name)
        model(**call).loss.backward()
        before = {own: p.grad for own, p in model.named_parameters()}
        without = [own for own, gradient in before.items() if gradient is None]
        assert all(own.endswith("predictions.bias") or own == "lm_head.bias" for own in without)  # of untied scores
        model.zero_grad()
        model.gradient_checkpointing_enable()
        model(**call).loss.backward()
        for own, parameter in model.named_parameters():
            if parameter.grad is not None:
                assert_same_bits(parameter.grad, before[own])
        optimizer, losses = Adam(model.parameters(), lr=3e-3), []
        for _ in range(8):
            optimizer.zero_grad()
            loss = model(**call).loss
            loss.backward()
            optimizer.step()
            losses.append(float(loss))
        assert losses[-1] < losses[0]

    def test_converted(self, tmp_path: Path, name: str, kind: str) -> None:
        """A folder with a pytorch_model.bin, the constants of old versions among its tensors."""
        model = new_model(name, kind)
        model.save_pretrained(tmp_path / "old")
        (tmp_path / "old" / "model.safetensors").unlink()
        buffers = {own: np.zeros(3, np.float32) for own in model.passed_over}
        write_torch(tmp_path / "old" / "pytorch_model.bin", {**model.state_dict(), **buffers})
        assert convert_checkpoint(tmp_path / "old", tmp_path / "new").model is type(model)
        again = load_head(tmp_path / "new", kind, new_head="refuse").state_dict()
        for own, values in model.state_dict().items():
            assert_same_bits(again[own], values)

    def test_pickled(self, tmp_path: Path, name: str, kind: str) -> None:
        model = new_model(name, kind)
        call = call_of(model, kind, name)
        again = pickle.loads(pickle.dumps(model))
        model.save_pretrained(tmp_path)
        frozen = load_head(tmp_path, kind, trainable=False)
        small = pickle.dumps(frozen)
        assert len(small) < 2000
        wanted = arrays_of(model(**call))
        for other in (again, frozen, pickle.loads(small)):
            for a, b in zip(wanted, arrays_of(other(**call)), strict=True):
                assert_same_bits(array(a), array(b))

    def test_ragged_and_padded(self, name: str, kind: str) -> None:
        if kind == "MultipleChoice":
            return  # its batches are padded
        model = new_model(name, kind).freeze()
        call = call_of(model, kind, name)
        mask = call["attention_mask"] = np.sort(call["attention_mask"])[:, ::-1]  # padding on the right
        tokens = {"input_ids", "token_type_ids"}
        padded = model(**{key: call[key] for key in call if key in tokens | {"attention_mask"}})
        offsets = ragged.cu_seqlens(mask.sum(axis=1))
        flat = model.forward_ragged(cu_seqlens=offsets, **{key: call[key][mask == 1] for key in call if key in tokens})
        for a, b in zip(arrays_of(padded), arrays_of(flat), strict=True):
            assert_same_bits(a[mask == 1] if a.shape[:2] == mask.shape else a, b)


@pytest.mark.parametrize("name", ROWS)
class TestEncoders:
    def sentences(self, model: Any) -> list[Any]:
        rng = np.random.default_rng(1)
        longest = model.config.max_tokens
        return [rng.integers(0, model.config.vocab_size, size) for size in (3, 1, longest, 7, 2, longest // 2)]

    def encode(self, model: Any, sentences: list[Any]) -> list[Any]:
        offsets = ragged.cu_seqlens([len(sentence) for sentence in sentences])
        output = model.forward_ragged(np.concatenate(sentences), offsets)
        return np.split(output.last_hidden_state, offsets[1:-1])

    def test_only_what_is_asked_for(self, name: str) -> None:
        model = new_model(name).freeze()
        for output in (model([[4, 5]]), model.forward_ragged([4, 5], [0, 2]), model.encode(model.pack([[4, 5]]))):
            assert output.attentions is output.hidden_states is None

    def test_the_company_changes_no_bits(self, name: str, isa: str, restore_runtime: None) -> None:
        model = new_model(name).freeze()
        sentences = self.sentences(model)
        fastattn.set_num_threads(1)
        alone = [self.encode(model, [sentence])[0] for sentence in sentences]
        for threads in (1, 2):
            fastattn.set_num_threads(threads)
            for order in (range(6), (5, 0, 3, 1), (2, 4)):
                found = self.encode(model, [sentences[i] for i in order])
                for i, rows in zip(order, found, strict=True):
                    assert_same_bits(rows, alone[i])

    def test_nothing_is_left_on_a_module(self, name: str) -> None:
        def tree(model: Any) -> list[Any]:
            return [(key, id(value)) for part in model.modules() for key, value in vars(part).items()]

        model = new_model(name)
        before = tree(model)
        output = model(**call_of(model, "", name), output_hidden_states=True, output_attentions=True)
        output.last_hidden_state.backward(np.ones_like(output.last_hidden_state.data))
        assert tree(model) == before

    def test_positions_beyond_the_table(self, name: str) -> None:
        model = new_model(name)
        config = model.config
        ids = np.full((1, config.max_tokens + 1), config.vocab_size - 1)
        assert model(ids[:, :-1]).last_hidden_state.shape == (1, config.max_tokens, config.hidden_size)
        limit = config.max_position_embeddings
        message = rf"has a token at position {limit} in sequence 0, but max_position_embeddings is {limit}"
        with pytest.raises(ValueError, match=message):
            model(ids)
        with pytest.raises(ValueError, match=message):
            model.forward_ragged(ids[0], [0, ids.size])

    def test_ids_and_token_types_outside_their_tables(self, name: str) -> None:
        model = new_model(name)
        owner, words, types = type(model).__name__, model.config.vocab_size, model.config.type_vocab_size
        with pytest.raises(ValueError, match=rf"{owner}: input_ids must be in \[0, {words}\), got {words} at \(0, 1\)"):
            model([[4, words]])
        message = rf"{owner}: token_type_ids must be in \[0, {max(types, 1)}\), got 9 at \(0, 1\)"
        with pytest.raises(ValueError, match=message):
            model([[4, 5]], token_type_ids=[[0, 9]])
        assert_same_bits(
            array(model([[4, 5]]).last_hidden_state), array(model([[4, 5]], None, [[0, 0]]).last_hidden_state)
        )

    def test_fewer_layers(self, tmp_path: Path, name: str) -> None:
        model = new_model(name, seed=3)
        model.save_pretrained(tmp_path)
        for field in model.layer_names:
            again = type(model).from_pretrained(tmp_path, **{field: 1})
            assert set(again.state_dict()) <= set(model.state_dict())
            with pytest.raises(ValueError, match=rf"safetensors: {field} is 7, but there are tensors of \d layers?"):
                type(model).from_pretrained(tmp_path, **{field: 7})

    def test_a_missing_and_an_unknown_tensor(self, tmp_path: Path, name: str) -> None:
        model = new_model(name)
        state = model.state_dict()
        first = next(iter(state))
        with pytest.raises(ValueError, match=f"tensor '{first}' is missing"):
            type(model)(model.config, {key: state[key] for key in state if key != first})
        unknown = f"{model.whole[-1]}adapter.weight"
        with pytest.raises(ValueError, match=f"tensor '{unknown}' is not known"):
            type(model)(model.config, {**state, unknown: np.zeros(3, np.float32)})

    def test_a_decoder_is_refused(self, name: str) -> None:
        fields = draw_fields(name, 0)
        with pytest.raises(ValueError, match=r"^x: is_decoder is True; \w+Model is an encoder$"):
            family(name).config.from_dict({**fields, "is_decoder": True}, "x")


def test_positions_count_from_pad_id() -> None:
    """Source: `create_position_ids_from_input_ids` of transformers: what is no padding is counted."""
    model = new_model("roberta", pad_token_id=1, vocab_size=50)
    batch = model.pack([[5, 6, 1, 7], [1, 1, 5, 6]], [[1, 1, 1, 1], [0, 0, 1, 1]])
    assert batch.position_ids.tolist() == [2, 3, 1, 4, 2, 3]
    ragged_batch = model.check_ragged([5, 6, 1, 7, 5, 6], [0, 4, 4, 6])
    assert ragged_batch.position_ids.tolist() == [2, 3, 1, 4, 2, 3]
    assert model.config.max_tokens == model.config.max_position_embeddings - 2
    with pytest.raises(ValueError, match=r"max_position_embeddings must be more than pad_token_id \+ 1 = 2, got 2"):
        model.config.replace(max_position_embeddings=2)


def test_layers_of_a_group_share_their_weights() -> None:
    changes = {"num_hidden_layers": 5, "num_hidden_groups": 2, "inner_group_num": 2}
    model = new_model("albert", **changes)
    blocks = model.blocks()
    assert [blocks.index(block) for block in blocks] == [0, 1] * 3 + [6, 7] * 2
    with pytest.raises(ValueError, match="num_hidden_layers must be from 1 to 1024, got 1025"):
        model.config.replace(num_hidden_layers=1025)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("summary_type", "last", "summary_type must be one of first, got 'last'"),
        ("summary_activation", "tanh", "summary_activation must be one of gelu, got 'tanh'"),
        ("summary_use_proj", False, "summary_use_proj must be true, got false"),
    ],
)
def test_a_summary_that_is_not_here(tmp_path: Path, field: str, value: Any, message: str) -> None:
    """It only matters to the head that has it."""
    new_model("electra", "MultipleChoice").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(ValueError, match=message):
        load_head(tmp_path, "MultipleChoice")
    assert load_encoder(tmp_path).config.summary_type == "first"


def test_code_of_its_own_is_never_run(tmp_path: Path) -> None:
    model = new_model("roberta")
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    fields = {**json.loads(path.read_text()), "auto_map": {"AutoModel": "code--model.Model"}}
    (tmp_path / "model.py").write_text("raise SystemExit")
    path.write_text(json.dumps(fields))
    load_encoder(tmp_path)  # it has the network that its model_type says
    path.write_text(json.dumps({**fields, "num_hidden_layers": 9}))
    code = "; its auto_map asks for code of its own, which is never run$"
    with pytest.raises(ValueError, match=f"num_hidden_layers is 9, but there are tensors of .*{code}"):
        load_encoder(tmp_path)
    path.write_text(json.dumps({**fields, "model_type": "new_bert"}))
    with pytest.raises(
        ValueError, match=f"config.json: model_type is 'new_bert'; known are albert, awd-lstm, bert, .*{code}"
    ):
        load_encoder(tmp_path)


@pytest.mark.parametrize("name", ["roberta", "electra", "distilbert"])
def test_other_labels_keep_the_layer_before_them(tmp_path: Path, name: str) -> None:
    model = new_model(name, "SequenceClassification")
    model.save_pretrained(tmp_path)
    again = load_head(tmp_path, "SequenceClassification", num_labels=4, new_head="draw")
    assert_same_bits(again.dense.weight.data, model.dense.weight.data)
    assert again.classifier.weight.shape == (4, model.config.hidden_size)
    with pytest.raises(ValueError, match=r"belongs to \w+ForSequenceClassification, not to \w+ForTokenClassification"):
        load_head(tmp_path, "TokenClassification")
