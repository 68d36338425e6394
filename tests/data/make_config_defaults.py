"""Make config_defaults.json of tests/models/test_config_fields.py: `python tests/data/make_config_defaults.py`.

For each family of tests/helpers_families.py the defaults of transformers' configuration, in the fields that ours has,
too: what a config.json means that leaves a field out. Needs transformers; written with version 5.24.
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path

import transformers

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from helpers_families import ROWS  # noqa: E402

from fastattn.models.registry import family  # noqa: E402

OTHERS = {"num_labels", "id2label", "label2id", "layer_types", "model_type", "rope_parameters"}
found = {}
for name, row in ROWS.items():
    config = family(name).config
    theirs = getattr(transformers, f"{row.theirs}Config")().to_dict()
    shared = {field.name for field in fields(config)} - OTHERS - set(config.sizes)
    found[name] = {field: theirs[field] for field in sorted(shared & theirs.keys())}
(HERE / "config_defaults.json").write_text(json.dumps(found, indent=1) + "\n")
