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

from ..tree.layout import Spandrel
from .configuration import LAUNCHER_PLACES, LAUNCHERS, Configuration, Lead, Sure
from .environment import python_in, site_packages_in, spandrel_of, why_it_cannot_start
from .host import Host
from .kinds import KINDS, Kind
from .processes import Process
from .starting import starting_flags
from .system import System, is_inside, same_place, this_system

_EXPLORING_SECONDS = 0.7
"""How long folders are looked through, so that a slow disk makes the answer shorter and not later."""

_DEPTH = 2

_LEVELS_TO_PYTHON = 7
"""How far an interpreter lies below the folder of its host, at most."""

_MARKERS = [
    (kind, {path.partition("/")[0].lower() for path in marker}, marker) for kind in KINDS for marker in kind.markers
]
"""With what a look at the names in a folder can rule out; only what follows the first part of a path has wildcards."""


@dataclass(frozen=True)
class Discovery:
    """
    What was found.

    Attributes:
        hosts: in a fixed order.
        complete: whether there was time to look into every folder that was to be looked into.
        of_others: hosts that somebody else runs, and that nothing else told of.
        here: the host that the current folder is a part of.
        passed_over: the home of the user who runs this by sudo, in which nothing was looked for.
    """

    hosts: tuple[Host, ...]
    complete: bool = True
    of_others: tuple[Host, ...] = ()
    here: Host | None = None
    passed_over: Path | None = None

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
        *usual.leads(_roots(system), "its folder, where people put such", Sure.EXPLORED),
        *_of_processes(system, [process for process in processes if _is_ours(system, process)]),
        *_at_hand(system),
        *asked_for.leads([Path(os.path.abspath(folder)) for folder in search], "--search", Sure.NAMED),
    ]
    hosts = [_with_processes(system, host, processes) for host in _each_once(list(_followed(system, leads)))]
    of_others = _of_processes(system, [process for process in processes if not _is_ours(system, process)])
    known = {os.path.realpath(host.folder) for host in hosts}
    others = [host for host in _each_once(list(_followed(system, of_others))) if not _is_known(host, known)]
    is_complete = usual.in_time and asked_for.in_time
    numbered = tuple(_numbered(hosts, is_complete))
    here = (host for host in numbered if system.folder and is_inside(system.folder, host.folder))
    return Discovery(
        numbered,
        is_complete,
        tuple(_with_processes(system, host, processes) for host in others),
        next(here, None),
        system.passed_over,
    )


def host_of(system: System, python: Path) -> Host | None:
    """The host that an interpreter belongs to, by where it lies or by a process that runs; with its lasting id."""
    processes = system.processes()
    leads = [*map(Lead, python.parents[:_LEVELS_TO_PYTHON]), *_of_processes(system, processes)]
    for host in filter(None, (follow(system, lead) for lead in leads)):
        if host.runs_on(python):
            return _with_processes(system, replace(host, id=host.lasting_id), processes)
    return None


def _followed(system: System, leads: Iterable[Lead]) -> Iterator[Host]:
    """
    The hosts that leads lead to, those that they are parts of, and those that their own files tell of.

    What is around a host is looked at each time, lest the part is shown in a run that had no time to find the whole.
    """
    for lead in leads:
        host = follow(system, lead)
        if host is not None:
            # By whichever Python a process runs a part of it, its own is where it is noted.
            sure = Sure.AT_HAND if lead.sure is Sure.RUNNING else lead.sure
            outer = (Lead(folder, found_by=lead.found_by, sure=sure) for folder in lead.folder.parents[:3])
            for found in (host, *filter(None, (follow(system, around_it) for around_it in outer))):
                yield found
                for noted in _noted_inside(system, found):
                    if inner := follow(system, replace(noted, sure=lead.sure)):
                        yield inner


def _is_known(host: Host, known: set[str]) -> bool:
    return os.path.realpath(host.folder) in known


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
    flags = starting_flags(system, kind, lead.folder)
    vendored = [path for pattern in kind.vendored for path in system.places(pattern, lead.folder)]
    package = next((path for path in vendored if os.path.isdir(path)), None)
    host = Host(
        id=kind.id,
        kind=kind,
        folder=lead.folder,
        python=python,
        spandrel=Spandrel(package) if package else None,
        models=lead.models or _models_folder(system, kind, lead.folder),
        found_by=lead.found_by,
        sure=lead.sure,
        flags=flags,
        problem=why_it_cannot_start(system, python) if python else "",
    )
    return host if package else _importing(system, host)


def _importing(system: System, host: Host) -> Host:
    """A host with the spandrel that its interpreter imports, and the one that other flags would have that import."""
    if host.python is None:
        return host
    package = spandrel_of(system, host.python, host.flags)
    others = (spandrel_of(system, host.python, flags) for flags in ((), ("-s",)))
    not_used = next((other for other in others if other and package and not same_place(other, package)), None)
    return replace(host, spandrel=Spandrel(package) if package else None, not_used=not_used)


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
    leads = _Explorer(system).leads([folder], "--host", Sure.NAMED)
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

    def leads(self, roots: Iterable[Path], found_by: str, sure: Sure) -> Iterator[Lead]:
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
                    yield Lead(folder, found_by=found_by, sure=sure)
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
        if kind.called:
            yield from (
                Lead(place, found_by="its usual name")
                for root in _roots(system)
                for place in system.places(kind.called, root)
                if os.path.isdir(place)
            )
    for pattern in LAUNCHER_PLACES:
        yield from (Lead(place, found_by="its launcher's usual place") for place in system.places(pattern))


def _of_processes(system: System, processes: list[Process]) -> Iterator[Lead]:
    scripts = {name for kind in KINDS for name in kind.scripts}
    for process in processes:
        script = process.script
        if script is None or script.name.lower() not in scripts:
            continue
        for folder in (*script.parents[:4], *((process.folder,) if process.folder else ())):
            host = follow(system, Lead(folder))
            if host is None or script.name.lower() not in host.kind.scripts:
                continue
            if folder == script.parent or host.runs_on(process.python) or not host.python:
                yield Lead(folder, python=process.python, found_by=f"process {process.pid}", sure=Sure.RUNNING)


def _is_ours(system: System, process: Process) -> bool:
    """Whether a process is this user's; another's is theirs to teach."""
    return process.home is None or same_place(process.home, system.home)


def _at_hand(system: System) -> Iterator[Lead]:
    """The host that the running Python belongs to, and the one that the current folder is a part of."""
    for folder in system.python.parents[:_LEVELS_TO_PYTHON] if system.python else ():
        host = follow(system, Lead(folder))
        if host and system.python and host.runs_on(system.python):
            yield Lead(folder, found_by="the Python that runs this", sure=Sure.AT_HAND)
    here = around(system, system.folder) if system.folder else None
    if here is not None:
        yield Lead(here.folder, found_by="the current folder", sure=Sure.AT_HAND)


def _with_processes(system: System, host: Host, processes: list[Process]) -> Host:
    """A host with its processes; what one of them was started with counts, whatever others are started with."""
    running = tuple(process for process in processes if _runs(host, process))
    flags = next((p.flags for p in running if p.script and p.script.name.lower() in host.kind.scripts), host.flags)
    if flags != host.flags and not host.kind.vendored:
        host = _importing(system, replace(host, flags=flags))
    return replace(host, running=running)


def _runs(host: Host, process: Process) -> bool:
    """Whether a process is the host's: by an interpreter or a program of its own, or by its program in its folder."""
    if host.python and is_inside(host.python.parent, host.folder) and host.runs_on(process.python):
        return True
    script = process.script
    if script is not None and script.name.lower() in host.kind.scripts:
        return is_inside(script, host.folder) or (process.folder is not None and is_inside(process.folder, host.folder))
    return bool(host.kind.vendored) and script is not None and is_inside(script, host.folder)


def _each_once(hosts: list[Host]) -> list[Host]:
    """
    Each host once, however many things told of it.

    A part of a host that has the same spandrel or Python, or none, is that host. A Python that was seen at work is the
    right one.
    """
    by_folder: dict[str, Host] = {}
    for host in hosts:
        place = os.path.realpath(host.folder)
        known = by_folder.setdefault(place, host)
        is_without = not known.python or bool(known.problem)
        if host.python and not host.problem and (is_without or (host.sure is Sure.RUNNING and host.spandrel)):
            by_folder[place] = replace(
                known, python=host.python, spandrel=host.spandrel, not_used=host.not_used, problem=""
            )
    kept: dict[str, Host] = {}
    for place, host in sorted(by_folder.items(), key=lambda item: len(Path(item[0]).parts)):
        around_it = [outer for folder, outer in kept.items() if is_inside(Path(place), Path(folder))]
        if not any(_is_one(host, outer) for outer in around_it):
            kept[place] = host
    return [kept[place] for place in by_folder if place in kept]


def _is_one(part: Host, outer: Host) -> bool:
    """Whether a host inside another is nothing but a part of that."""
    if part.spandrel is None or (outer.spandrel and part.uses(outer.spandrel.package)):
        return True
    return part.python is not None and outer.runs_on(part.python)


def _numbered(hosts: list[Host], is_complete: bool) -> Iterator[Host]:
    """
    The hosts in a fixed order and with their ids.

    First those that every run finds, by their folders, then those that exploring comes to, in its order: when it is cut
    short, what it did come to has the same numbers. Where others are found is nothing that another run can count on, so
    their ids follow from their folders, but for the only host of its kind.
    """
    order = list(dict.fromkeys(kind.id for kind in KINDS))
    count: dict[str, int] = {}

    def place(host: Host) -> tuple[int, Sure, str]:
        has_a_place = host.sure is Sure.EXPLORED
        return order.index(host.kind.id), host.sure, "" if has_a_place else str(host.folder).lower()

    of_kind = [host.kind.id for host in hosts]
    for host in sorted(hosts, key=place):
        count[host.kind.id] = number = count.get(host.kind.id, 0) + 1
        is_only_one = is_complete and of_kind.count(host.kind.id) == 1
        if host.sure > Sure.EXPLORED and not is_only_one:
            yield replace(host, id=host.lasting_id)
        else:
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
