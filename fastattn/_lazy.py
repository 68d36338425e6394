"""Lazy packages: a name is imported on first use (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(package: str, homes: Mapping[str, str], modules: str = "") -> Callable[[str], Any]:
    """Make the `__getattr__` of a package. `homes` maps a module to the names in it; `modules` lists submodules."""
    places = {name: module for module, names in homes.items() for name in names.split()}

    def get(name: str) -> Any:
        if name in places:
            found = getattr(import_module(f".{places[name]}", package), name)
        elif name in modules.split():
            found = import_module(f".{name}", package)
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, found)  # looked up once
        return found

    return get
