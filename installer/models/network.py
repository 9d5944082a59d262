"""The networks' one definition, imported from the payload as it will run inside spandrel."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

from ..shipped import arch_folder

_PACKAGE = "aether_install_arch"


def module(name: str) -> ModuleType:
    """
    A module of the payload that defines a network, in a package of its own: the payload's works inside spandrel only.

    Importing it imports torch.
    """
    if _PACKAGE not in sys.modules:
        package = ModuleType(_PACKAGE)
        package.__path__ = [arch_folder()]
        sys.modules[_PACKAGE] = package
    return import_module(f"{_PACKAGE}.{name}")


def core() -> ModuleType:
    """The module of the first generation, on which the others build."""
    return module("aether_core")
