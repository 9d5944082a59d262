"""An application on this machine, and what follows from what is known of it."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path

from ..prompt import typed
from ..tree.commands import status
from ..tree.foreign import Worth, foreign
from ..tree.layout import Spandrel
from ..tree.state import State
from .configuration import Sure
from .kinds import Kind
from .processes import Process
from .started import started_before
from .system import same_place


@dataclass(frozen=True)
class Host:
    """
    An application on this machine that uses spandrel.

    Attributes:
        id: a short name, which means no other host as long as none of its kind comes or goes.
        kind: what is known of its kind.
        folder: where it lives.
        python: its interpreter; None if it has none of its own or it could not be told.
        spandrel: the spandrel that it imports, if there is one.
        models: where its upscale models go, if that is a folder.
        running: its processes.
        found_by: what told of it.
        sure: see ``Lead``.
        flags: what it starts its interpreter with, as far as that decides what is imported.
        not_used: another spandrel, which it would import if it started its interpreter otherwise.
        problem: what keeps its interpreter from starting, in words that follow the name of that; empty if nothing is
            known to.
    """

    id: str
    kind: Kind
    folder: Path
    python: Path | None
    spandrel: Spandrel | None
    models: Path | None
    running: tuple[Process, ...] = ()
    found_by: str = ""
    sure: Sure = Sure.NOTED
    flags: tuple[str, ...] = ()
    not_used: Path | None = None
    problem: str = ""

    @property
    def way_out(self) -> str:
        """What to do where its interpreter does not start, as a part of a sentence."""
        repair = f"repair {self.kind.name}"
        if self.spandrel is None:
            return repair
        if self.state == "installed":
            return f"{repair}; the spandrel of it is taught already"
        target = typed(["--target", str(self.spandrel.site_packages)])
        return f"{repair}, or teach its spandrel with `aether-install spandrel {target}`"

    @property
    def is_named_only(self) -> bool:
        """Whether it is found because the user said where to look."""
        return self.sure is Sure.NAMED

    @property
    def lasting_id(self) -> str:
        """An id that follows from its folder alone, by which it is known as well."""
        place = os.fsencode(os.path.normcase(os.path.realpath(self.folder)))
        return f"{self.kind.id}-{10000 + zlib.crc32(place) % 90000}"

    @property
    def state(self) -> str | None:
        """The state of its spandrel; None if that cannot be read."""
        if self.spandrel is None:
            return "missing"
        try:
            return status(self.spandrel).before.value
        except Exception:
            # Whatever is the matter with one spandrel, the other hosts are to be told of.
            return None

    @property
    def knows_by_itself(self) -> bool:
        """Whether its spandrel came with an AetherNet that works, or got one some other way."""
        try:
            found = status(self.spandrel) if self.spandrel else None
        except Exception:
            return False
        return bool(found and found.before is State.FOREIGN and foreign(found.facts).worth is Worth.WORKS)

    @property
    def to_restart(self) -> tuple[Process, ...]:
        """Its processes that know its spandrel as that was before it was taught, or before it was taught anew."""
        spandrel = self.spandrel
        if spandrel is None or not os.path.isdir(spandrel.payload):
            return ()
        return tuple(process for process in self.running if started_before(process.pid, spandrel))

    def runs_on(self, python: Path) -> bool:
        """Whether an interpreter, under any of its names, is its own."""
        return self.python is not None and same_place(self.python.parent, python.parent)

    def uses(self, package: Path) -> bool:
        """Whether its spandrel is the one in a folder."""
        return self.spandrel is not None and same_place(self.spandrel.package, package)
