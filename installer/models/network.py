"""The networks' one definition, imported from the payload as it will run inside spandrel."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

from ..shipped import payload_folder

_PACKAGE = "aether_install_payload"


def module(name: str) -> ModuleType:
    """
    A module of the payload, in a package of its own, without its ``__init__``, which works inside spandrel only.

    Importing it imports torch. The networks get no engine: they compute as they are written.
    """
    if _PACKAGE not in sys.modules:
        package = ModuleType(_PACKAGE)
        package.__path__ = [payload_folder()]
        sys.modules[_PACKAGE] = package
    return import_module(f"{_PACKAGE}.{name}")
