"""The header of a written file: what its source noted, with the arguments that were folded as they are now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .checkpoint import Checkpoint

_NESTED = 256
"""Dicts and lists of dicts and lists that are copied out of a pickle's metadata at most."""


def header_of(checkpoint: Checkpoint, now: Mapping[str, float]) -> dict[str, str]:
    """Returns the strings by key, for a safetensors file; ``now`` says which arguments are what by now."""
    header = dict(checkpoint.metadata)
    noted = checkpoint.hyperparameters
    if "metadata" in header and not noted:
        return header  # It is somebody's text.
    key = "arch_config" if "arch_config" in header and "metadata" not in header else "metadata"
    if now or (noted and key not in header):
        header[key] = json.dumps(_with(_plain(noted), now))
    return header


def _with(noted: dict[str, Any], now: Mapping[str, float]) -> dict[str, Any]:
    """Hyperparameters with some as they are now, in the place or the places where they were."""
    nested = noted.get("arch_config")
    if not isinstance(nested, dict):
        return {**noted, **now}
    nested.update({name: value for name, value in now.items() if name in nested})
    return {**noted, **{name: value for name, value in now.items() if name in noted or name not in nested}}


def _plain(value: Any, visited: set[int] | None = None) -> Any:
    """A value as JSON can hold it, whatever was pickled; what holds more than plain values is written once."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if not isinstance(value, Mapping | list | tuple):
        return str(value)
    visited = set() if visited is None else visited
    inside = value.values() if isinstance(value, Mapping) else value
    if any(isinstance(item, Mapping | list | tuple) for item in inside):
        if id(value) in visited or len(visited) >= _NESTED:
            return "..."
        visited.add(id(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item, visited) for key, item in value.items()}
    return [_plain(item, visited) for item in value]
