"""The network's one definition, loaded from the payload as it will run inside spandrel."""

from __future__ import annotations

import sys
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

from .manifest import payload_folder

_NAME = "aether_install_core"


@cache
def core() -> ModuleType:
    """
    The module ``aether_core.py``, by its path: as part of its package it could be imported inside spandrel only.

    Importing it imports torch.
    """
    spec = spec_from_file_location(_NAME, payload_folder() / "__arch" / "aether_core.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[_NAME] = module
    spec.loader.exec_module(module)
    return module
