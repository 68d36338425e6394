"""Lazy packages: a name is imported on first use (PEP 562)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

CORE = "fastattn._core"
NOT_COMPILED = (
    "{} is the source of fastattn, which is not compiled there; start Python in another folder, where it finds the "
    "fastattn that is installed, or compile the source with `make build`"
)


def lazy(package: str, homes: Mapping[str, str], modules: str = "") -> Callable[[str], Any]:
    """Make the `__getattr__` of a package. `homes` maps a module to the names in it; `modules` lists submodules."""
    places = {name: module for module, names in homes.items() for name in names.split()}

    def get(name: str) -> Any:
        if name not in places and name not in modules.split():
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            found = import_module(f".{places.get(name, name)}", package)
        except ModuleNotFoundError as error:
            if error.name == CORE:  # in a checkout, for example
                raise ImportError(NOT_COMPILED.format(os.path.dirname(__file__))) from None
            raise
        if name in places:
            found = getattr(found, name)
        setattr(sys.modules[package], name, found)  # looked up once
        return found

    return get
