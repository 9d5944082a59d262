"""The payload's parts, as the installer imports them: the networks have no engine until one is given to them."""

from __future__ import annotations

from typing import Any

from aether_install.models.generations import GENERATIONS
from aether_install.models.network import module

aether_core = module("__arch.aether_core")
aether3_core = module("__arch.aether3_core")
sizes = module("__arch.sizes")

JUNE, LATER = GENERATIONS

try:
    engine: Any = module("engine")
except ImportError:  # which may be deleted
    engine = None
