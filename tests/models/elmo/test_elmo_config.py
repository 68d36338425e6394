"""ElmoConfig: what options.json says, and what it cannot say."""

from __future__ import annotations

import numpy as np
import pytest
from helpers_elmo import options

from fastattn.models import ElmoConfig


def test_the_default_is_the_original_model():
    original = {
        "lstm": {
            "use_skip_connections": True,
            "projection_dim": 512,
            "cell_clip": 3,
            "proj_clip": 3,
            "dim": 4096,
            "n_layers": 2,
        },
        "char_cnn": {
            "activation": "relu",
            "filters": [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512], [7, 1024]],
            "n_highway": 2,
            "embedding": {"dim": 16},
            "n_characters": 262,
            "max_characters_per_token": 50,
        },
    }
    config = ElmoConfig.from_dict(original)
    assert config == ElmoConfig()
    assert config.to_options() == original
    assert (config.n_filters, config.projects_tokens, config.projects_outputs) == (2048, True, True)


def test_what_may_be_left_out():
    some = options()
    for name in ("cell_clip", "proj_clip", "use_skip_connections"):
        del some["lstm"][name]
    for name in ("activation", "n_highway", "n_characters", "max_characters_per_token"):
        del some["char_cnn"][name]
    config = ElmoConfig.from_dict({**some, "bidirectional": True, "n_tokens_vocab": 10})
    assert (config.cell_clip, config.proj_clip, config.use_skip_connections) == (None, None, False)
    assert (config.activation, config.n_highway, config.max_characters_per_token) == ("relu", 0, 50)
    assert ElmoConfig.from_dict(options(n_highway=None)).n_highway == 0


def test_both_counts_of_characters_mean_the_same():
    assert ElmoConfig.from_dict(options(n_characters=261)) == ElmoConfig.from_dict(options())


def test_rules_of_the_projections():
    assert not ElmoConfig.from_dict(options(projection_dim=12, dim=14)).projects_tokens
    assert not ElmoConfig.from_dict(options(projection_dim=10)).projects_outputs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation": "gelu"}, "activation must be one of relu, tanh, got 'gelu'"),
        ({"activation": ["relu"]}, r"activation must be one of relu, tanh, got \['relu'\]"),
        ({"dim": 0}, "dim must be a positive integer, got 0"),
        ({"n_layers": 1.5}, "n_layers must be a positive integer, got 1.5"),
        ({"projection_dim": True}, "projection_dim must be a positive integer, got True"),
        ({"projection_dim": 11}, "projection_dim must be at most dim = 10, got 11"),
        ({"n_highway": -1}, "n_highway must be an integer of at least 0, got -1"),
        ({"cell_clip": 0}, "cell_clip must be a number above 0, got 0"),
        ({"proj_clip": "3"}, "proj_clip must be a number above 0, got '3'"),
        ({"use_skip_connections": 1}, "use_skip_connections must be a bool, got 1"),
        ({"filters": []}, "filters must not be empty"),
        ({"filters": [[1, 2, 3]]}, r"filters must be pairs \(width, number\), got \[\[1, 2, 3\]\]"),
        ({"filters": 7}, r"filters must be pairs \(width, number\), got 7"),
        ({"filters": [[0, 2]]}, "filters: a (width|number) must be a positive integer, got 0"),
        ({"filters": [[7, 2]], "max_characters_per_token": 6}, "max_characters_per_token = 6, got 7"),
        (
            {"filters": [[1, 2]], "max_characters_per_token": 2},
            "max_characters_per_token must be .* of at least 3, got 2",
        ),
        ({"max_characters_per_token": 10**7}, "max_characters_per_token must be at most 1024, got 10000000"),
        ({"filters": [[1, 1]] * 1025}, "filters must be at most 1024 pairs, got 1025"),
        ({"filters": [None] * 1025}, "filters must be at most 1024 pairs, got 1025"),
        ({"embedding": {}}, r"char_cnn.embedding.dim is missing"),
        ({"embedding": {"dim": "4"}}, "char_embedding_dim must be a positive integer, got '4'"),
        ({"n_characters": 300}, "char_cnn.n_characters must be 261 or 262, got 300"),
    ],
)
def test_impossible_values_are_named(changes, message):
    with pytest.raises(ValueError, match=rf"^some.json: .*{message}"):
        ElmoConfig.from_dict(options(**changes), "some.json")


@pytest.mark.parametrize(("section", "name"), [("lstm", "dim"), ("lstm", "n_layers"), ("char_cnn", "filters")])
def test_missing_sizes_are_named(section, name):
    some = options()
    del some[section][name]
    with pytest.raises(ValueError, match=f"^ElmoConfig: {section}.{name} is missing"):
        ElmoConfig.from_dict(some)


def test_other_models_are_refused():
    with pytest.raises(ValueError, match="char_cnn is missing; models over words"):
        ElmoConfig.from_dict({"lstm": options()["lstm"]})
    with pytest.raises(ValueError, match="lstm must be an object, got None"):
        ElmoConfig.from_dict({"char_cnn": options()["char_cnn"]})
    with pytest.raises(ValueError, match="bidirectional is False"):
        ElmoConfig.from_dict({**options(), "bidirectional": False})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_output_representations": -1}, "num_output_representations must be an integer of at least 0, got -1"),
        ({"dropout": 1.0}, r"dropout must be a number in \[0, 1\), got 1.0"),
        ({"num_output_representations": True}, "num_output_representations must be an integer of at least 0, got True"),
        ({"do_layer_norm": "yes"}, "do_layer_norm must be a bool, got 'yes'"),
        ({"scalar_mix_parameters": [1.0]}, "scalar_mix_parameters must have one number for each of 4 layers, got 1"),
        ({"scalar_mix_parameters": [1, 2, 3, np.nan]}, "scalar_mix_parameters must be finite numbers, got .*nan"),
        ({"scalar_mix_parameters": "abcd"}, "scalar_mix_parameters must be finite numbers, got 'abcd'"),
    ],
)
def test_bad_options_of_mixes(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        ElmoConfig.from_dict(options()).replace(**arguments)
