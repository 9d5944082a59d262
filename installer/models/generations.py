"""The generations of AetherNet as the payload defines them; nothing else here knows their keys and arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .network import module

if TYPE_CHECKING:
    from payload.AetherNet.__arch.checkpoint import Located, StateDict
    from payload.AetherNet.__arch.generations import GENERATIONS, Generation
else:
    GENERATIONS, Generation = (getattr(module("__arch.generations"), name) for name in ("GENERATIONS", "Generation"))
    Located, StateDict = (getattr(module("__arch.checkpoint"), name) for name in ("Located", "StateDict"))

__all__ = ["GENERATIONS", "Generation", "Located", "StateDict"]
