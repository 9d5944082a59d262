"""The steps that a plan is made of; each is done or undone as a whole by a transaction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Put:
    """Write a file, new or in place of another; a new one takes mode and owner from the file ``like``."""

    path: Path
    data: bytes
    like: Path


@dataclass(frozen=True)
class Keep:
    """Give a file a second name, in place of what has that name: it survives then being replaced under the first."""

    path: Path
    name: Path


@dataclass(frozen=True)
class PutBack:
    """Rename a kept file to its place, over what is there."""

    name: Path
    path: Path


@dataclass(frozen=True)
class Remove:
    """Remove a file."""

    path: Path


@dataclass(frozen=True)
class Discard:
    """Delete what a killed run left behind, once everything else is done."""

    path: Path


@dataclass(frozen=True)
class MakeFolder:
    """Make a folder with the mode and owner of the folder ``like``, unless it is there."""

    path: Path
    like: Path


@dataclass(frozen=True)
class RemoveFolder:
    """Remove a folder, once everything else is done, if nothing is left in it."""

    path: Path


Step = Put | Keep | PutBack | Remove | Discard | MakeFolder | RemoveFolder
