"""
Finds the hosts on this machine: by what they and their launchers note, by what runs, in known places.

No disk is scanned and nothing of theirs is run. What cannot be read is not there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..tree.commands import status
from ..tree.layout import Spandrel
from .configuration import LAUNCHER_PLACES, LAUNCHERS, Configuration, Lead
from .environment import python_in, site_packages_in, spandrel_of
from .kinds import KINDS, Kind
from .processes import Process
from .system import System, this_system

_EXPLORING_SECONDS = 0.7
"""How long folders are looked through, so that a slow disk makes the answer shorter and not later."""

_DEPTH = 2


_MARKERS = [
    (kind, {path.partition("/")[0].lower() for path in marker}, marker) for kind in KINDS for marker in kind.markers
]
"""With what a look at the names in a folder can rule out; only what follows the first part of a path has wildcards."""


@dataclass(frozen=True)
class Host:
    """
    An application on this machine that uses spandrel.

    Attributes:
        id: a short name, the same as long as no host of its kind comes or goes.
        kind: what is known of its kind.
        folder: where it lives.
        python: its interpreter; None if it has none of its own or it could not be told.
        spandrel: the spandrel that it imports, if there is one.
        models: where its upscale models go, if that is a folder.
        running: its processes.
        found_by: what told of it.
        rank: see ``Lead``.
    """

    id: str
    kind: Kind
    folder: Path
    python: Path | None
    spandrel: Spandrel | None
    models: Path | None
    running: tuple[Process, ...] = ()
    found_by: str = ""
    rank: int = 0

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

    def uses(self, package: Path) -> bool:
        """Whether its spandrel is the one in a folder."""
        return self.spandrel is not None and _same(self.spandrel.package, package)


@dataclass(frozen=True)
class Discovery:
    """
    What was found.

    Attributes:
        hosts: in a fixed order.
        complete: whether there was time to look into every folder that was to be looked into.
    """

    hosts: tuple[Host, ...]
    complete: bool = True

    def using(self, package: Path) -> list[Host]:
        """The hosts that import the spandrel in a folder."""
        return [host for host in self.hosts if host.uses(package)]


def discover(search: Iterable[Path] = (), system: System | None = None) -> Discovery:
    """
    Finds the hosts of this machine.

    Args:
        search: folders to look into besides.
        system: another machine than this one.
    """
    system = system or this_system()
    processes = system.processes()
    usual = _Explorer(system)
    asked_for = _Explorer(system)
    leads = [
        *_noted(system),
        *_in_known_places(system),
        *usual.leads(_roots(system), "its folder, where people put such"),
        *_of_processes(system, processes),
        *_around_running(system),
        *asked_for.leads([Path(os.path.abspath(folder)) for folder in search], "--search", 2),
    ]
    found: list[Host] = []
    for lead in leads:
        host = follow(system, lead)
        if host is not None:
            found.append(host)
            found += (inner for noted in _noted_inside(system, host) if (inner := follow(system, noted)))
    hosts = [_with_processes(host, processes) for host in _each_once(found)]
    return Discovery(tuple(_numbered(hosts)), usual.in_time and asked_for.in_time)


def recognise(system: System, folder: Path) -> Kind | None:
    """The kind of host that a folder is one of, as its files tell."""
    names = {name.lower() for name in system.names(folder)}
    for kind, first_parts, marker in _MARKERS:
        if (
            names.issuperset(first_parts)
            and (kind.named in folder.name.lower())
            and all(any(True for _ in system.places(path, folder)) for path in marker)
        ):
            return kind
    return None


def follow(system: System, lead: Lead) -> Host | None:
    """The host in a folder, if there is one."""
    if not os.path.isdir(lead.folder):
        return None
    wanted = [kind for kind in KINDS if lead.kind in (kind.id, kind.name)]
    kind = recognise(system, lead.folder)
    if wanted and (kind is None or kind.id != wanted[0].id):
        # It is somewhat unlike others of its kind; with a Python where one of them has it, it is one all the same.
        there = (candidate for candidate in wanted if lead.python or python_of(system, candidate, lead.folder))
        kind = next(there, kind)
    if kind is None:
        return None
    python = lead.python if lead.python and os.path.isfile(lead.python) else python_of(system, kind, lead.folder)
    vendored = [path for pattern in kind.vendored for path in system.places(pattern, lead.folder)]
    package = next((path for path in vendored if os.path.isdir(path)), None)
    if package is None and python is not None:
        package = spandrel_of(system, python)
    return Host(
        id=kind.id,
        kind=kind,
        folder=lead.folder,
        python=python,
        spandrel=Spandrel(package) if package else None,
        models=lead.models or _models_folder(system, kind, lead.folder),
        found_by=lead.found_by,
        rank=lead.rank,
    )


def python_of(system: System, kind: Kind, folder: Path) -> Path | None:
    """The interpreter of a host of some kind, if it is where such hosts have it."""
    environments = (place for pattern in kind.environments for place in system.places(pattern, folder))
    return next((python for place in environments if (python := python_in(system, place))), None)


def around(system: System, folder: Path) -> Host | None:
    """The host that lives in a folder or, if that is a part of one, the host around it."""
    hosts = [host for place in (folder, *folder.parents[:3]) if (host := follow(system, Lead(place)))]
    inner = hosts[0] if hosts else None
    if inner is None or inner.python or inner.kind.vendored:
        return inner
    return next((host for host in hosts if host.python), inner)


def below(system: System, folder: Path) -> list[Host]:
    """The hosts in a folder and at most two folders deeper."""
    leads = _Explorer(system).leads([folder], "--host", 2)
    return _each_once([host for lead in leads if (host := follow(system, lead))])


def pythons_around(system: System, folder: Path) -> list[Path]:
    """The interpreters that the name of a folder may stand for: of an environment, of a host there, of its parts."""
    if python := python_in(system, folder):
        return [python]
    host = around(system, folder)
    hosts = [host] if host and host.python else below(system, folder)
    if found := [host.python for host in hosts if host.python]:
        return found
    usual = (python_of(system, kind, folder) for kind in KINDS)
    return list(dict.fromkeys(python for python in usual if python))


def packages_around(system: System, folder: Path) -> list[Path]:
    """The spandrels that the name of a folder may stand for: of an environment, of a host there, of its parts."""
    patterns = dict.fromkeys(pattern for kind in KINDS for pattern in kind.environments)
    parts = (folder, *system.folders(folder))
    environments = [
        folder,
        *(place for part in parts for pattern in patterns for place in system.places(pattern, part)),
    ]
    inside = (path / "spandrel" for place in environments for path in site_packages_in(system, place))
    packages = [package for package in inside if os.path.isfile(package / "__init__.py")]
    packages += [host.spandrel.package for host in below(system, folder) if host.spandrel]
    return list({os.path.realpath(package): package for package in packages}.values())


class _Explorer:
    """Looks through folders, not deep and not for long."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._been_in: set[tuple[int, int] | str] = set()
        self.in_time = True

    def leads(self, roots: Iterable[Path], found_by: str, rank: int = 0) -> Iterator[Lead]:
        """The folders among and below some others that are hosts; what is inside a host is left to it."""
        deadline = time.monotonic() + _EXPLORING_SECONDS
        level = [folder for folder in roots if os.path.isdir(folder)]
        for depth in range(_DEPTH + 1):
            deeper: list[Path] = []
            for folder in level:
                place = _identity(folder)
                if place in self._been_in:
                    continue
                if time.monotonic() > deadline:
                    self.in_time = False
                    return
                self._been_in.add(place)
                if recognise(self._system, folder):
                    yield Lead(folder, found_by=found_by, rank=rank)
                elif depth < _DEPTH:
                    deeper += self._system.folders(folder)
            level = deeper


def _roots(system: System) -> list[Path]:
    documents = system.variable("documents")
    return [*documents, system.home / "Desktop", system.home / "Downloads", system.home, *system.drives]


def _noted(system: System) -> Iterator[Lead]:
    for kind in KINDS:
        for configuration in kind.configurations:
            for lead in _read(system, configuration, None):
                yield replace(lead, kind=lead.kind or kind.name)
    for configuration in LAUNCHERS:
        yield from _read(system, configuration, None)


def _noted_inside(system: System, host: Host) -> Iterator[Lead]:
    for configuration in host.kind.configurations:
        yield from _read(system, configuration, host.folder)


def _read(system: System, configuration: Configuration, folder: Path | None) -> Iterator[Lead]:
    for pattern in configuration.places:
        if pattern.startswith("{") == (folder is None):
            for path in system.places(pattern, folder):
                text = system.read(path)
                if text is not None:
                    for lead in configuration.read(system, text, path):
                        yield replace(lead, found_by=str(path))


def _in_known_places(system: System) -> Iterator[Lead]:
    for kind in KINDS:
        for pattern in kind.places:
            for place in system.places(pattern):
                yield Lead(place, kind.name, found_by="its usual place")
    for pattern in LAUNCHER_PLACES:
        yield from (Lead(place, found_by="its launcher's usual place") for place in system.places(pattern))


def _of_processes(system: System, processes: list[Process]) -> Iterator[Lead]:
    scripts = {name for kind in KINDS for name in kind.scripts}
    for process in processes:
        script = process.script
        if script is None or script.name.lower() not in scripts:
            continue
        if process.home is not None and not _same(process.home, system.home):
            continue  # another user's, and theirs to teach
        for folder in (*script.parents[:4], *((process.folder,) if process.folder else ())):
            host = follow(system, Lead(folder))
            if host is None or script.name.lower() not in host.kind.scripts:
                continue
            is_its_own = folder == script.parent or (host.python and _same(host.python.parent, process.python.parent))
            if is_its_own or not host.python:
                yield Lead(folder, python=process.python, found_by=f"process {process.pid}", rank=1)


def _around_running(system: System) -> Iterator[Lead]:
    """The host whose Python runs this, wherever it lies."""
    python = system.running
    if python is None:
        return
    for folder in python.parents[:5]:
        host = follow(system, Lead(folder))
        if host is not None and host.python and _same(host.python.parent, python.parent):
            yield Lead(folder, found_by="its Python, which runs this", rank=1)
            return


def _with_processes(host: Host, processes: list[Process]) -> Host:
    return replace(host, running=tuple(process for process in processes if _runs(host, process)))


def _runs(host: Host, process: Process) -> bool:
    """Whether a process is the host's: by an interpreter or a program of its own, or by its program in its folder."""
    if host.python and _is_inside(host.python.parent, host.folder) and _same(process.python.parent, host.python.parent):
        return True
    script = process.script
    if script is not None and script.name.lower() in host.kind.scripts:
        return _is_inside(script, host.folder) or (
            process.folder is not None and _is_inside(process.folder, host.folder)
        )
    return bool(host.kind.vendored) and script is not None and _is_inside(script, host.folder)


def _each_once(hosts: list[Host]) -> list[Host]:
    """
    Each host once, however many things told of it.

    A part of a host that has the same spandrel, or none, is that host. A Python that was seen at work is the right one.
    """
    by_folder: dict[str, Host] = {}
    for host in hosts:
        place = os.path.realpath(host.folder)
        known = by_folder.setdefault(place, host)
        if host.python and (not known.python or (host.rank == 1 and host.spandrel)):
            by_folder[place] = replace(known, python=host.python, spandrel=host.spandrel)
    outermost = sorted(by_folder.items(), key=lambda item: len(Path(item[0]).parts))
    kept: list[tuple[str, Host]] = []
    for place, host in outermost:
        around_it = [outer for folder, outer in kept if _is_inside(Path(place), Path(folder))]
        if any(not host.spandrel or (outer.spandrel and host.uses(outer.spandrel.package)) for outer in around_it):
            continue
        kept.append((place, host))
    return [host for _, host in kept]


def _numbered(hosts: list[Host]) -> Iterator[Host]:
    """
    The hosts in a fixed order and with their ids.

    Those that are not found at every time come after the others, whose ids then stay the same.
    """
    order = list(dict.fromkeys(kind.id for kind in KINDS))
    count: dict[str, int] = {}
    for host in sorted(hosts, key=lambda host: (order.index(host.kind.id), host.rank, str(host.folder).lower())):
        count[host.kind.id] = number = count.get(host.kind.id, 0) + 1
        yield replace(host, id=host.kind.id if number == 1 else f"{host.kind.id}-{number}")


def _models_folder(system: System, kind: Kind, folder: Path) -> Path | None:
    there = (place for pattern in kind.models for place in system.places(pattern, folder) if os.path.isdir(place))
    usual = (folder / path for path in kind.models if not path.startswith(".."))
    return next(there, None) or next(usual, None)


def _identity(folder: Path) -> tuple[int, int] | str:
    """What tells a folder from others, by whatever name it was reached."""
    try:
        status = os.stat(folder)
    except OSError:
        return str(folder)
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(folder)


def _same(one: Path, other: Path) -> bool:
    return one == other or os.path.realpath(one) == os.path.realpath(other)


def _is_inside(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder) or Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
