"""Which kinds of hosts take a model file, as far as its name and how it was written decide that."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from .kinds import KINDS, Kind

_GIVEN = 3
"""How many channels a host gives to every model, unless it adapts."""


def accepting(suffix: str, entries: Sequence[str], refused: Mapping[str, bool], channels: int) -> dict[str, bool]:
    """
    Whether each kind of host that can be given models takes a file, by the id of the kind.

    Args:
        suffix: the file's, in lower case.
        entries: the names inside it, if it is a zip archive.
        refused: whether a reader, as ``Kind.reader`` names it, refuses the file.
        channels: how many the model takes.
    """
    taken: dict[str, bool] = {}
    for kind in KINDS:
        if kind.usable:
            fits = suffix in kind.suffixes and not refused[kind.reader] and _accepts(kind, entries)
            fits = fits and (kind.adapts or channels == _GIVEN)
            taken[kind.id] = taken.get(kind.id, False) or fits
    return taken


def name_of(kind_id: str) -> str:
    """What a kind is called, whatever layout it comes in."""
    return next(kind.name for kind in KINDS if kind.id == kind_id).partition(",")[0]


def _accepts(kind: Kind, entries: Sequence[str]) -> bool:
    return not kind.archive_rule or all(re.fullmatch(kind.archive_rule, name) for name in entries)
