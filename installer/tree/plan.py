"""
What to do about a survey: the steps that install our part, and those that remove it.

Planning changes nothing, so a dry run is a plan that is shown instead of applied. The order of the steps is
what makes a kill at any instant harmless: RECORD knows of every file before it is there and after it is gone, and the
registry names the payload only while the payload is complete.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from pathlib import Path, PurePosixPath

from ..errors import AetherInstallError
from . import record, registry
from .facts import Survey, kept_name, source_of
from .manifest import MANIFEST_NAME
from .transaction import Discard, Keep, MakeFolder, Put, PutBack, Remove, RemoveFolder, Step

EDITED_SUFFIX = ".aether-edited"
"""Of a file of ours that somebody edited and ``--force`` moves out of the way."""


class Change(Enum):
    """What becomes of a file."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"


@dataclass(frozen=True)
class Plan:
    """
    Steps, in their order.

    Attributes:
        steps: for the writer.
        changes: what the steps make of each file.
        set_aside: edited files by the new place they are kept in.
    """

    steps: tuple[Step, ...] = ()
    changes: Mapping[Path, Change] = field(default_factory=dict[Path, Change])
    set_aside: tuple[Path, ...] = ()


def plan_install(facts: Survey) -> Plan:
    """
    The steps from any state that is not refused to ``installed``; none of them changes what is right already.

    Raises:
        AetherInstallError: the registry was edited so that our part cannot be told from the rest.
    """
    original = _original(facts)
    steps = (
        *map(Discard, facts.leftovers),
        *_set_edited_aside(facts),
        *(Remove(kept_name(path)) for path in facts.kept if path not in facts.restorable),
        *_extend_records(facts, original),
        *_write_payload(facts),
        *_patch_registry(facts, original),
    )
    return Plan(steps, _changes(steps), tuple(map(_name_aside, facts.edited)))


def plan_uninstall(facts: Survey) -> Plan:
    """
    The steps from any state to one without us.

    Raises:
        AetherInstallError: the registry was edited so that our part cannot be told from the rest.
    """
    steps = (
        *map(Discard, facts.leftovers),
        *_set_edited_aside(facts),
        *_restore_registry(facts),
        *_remove_payload(facts),
        *_restore_records(facts),
    )
    return Plan(steps, _changes(steps), tuple(map(_name_aside, facts.edited)))


def _changes(steps: Iterable[Step]) -> dict[Path, Change]:
    """Seen from the files as they are now, before any step is taken."""
    after: dict[Path, bool] = {}
    for step in steps:
        match step:
            case Put(path):
                after[path] = True
            case Keep(_, name):
                after[name] = True
            case PutBack(name, path):
                after.update({path: True, name: False})
            case Remove(path) | Discard(path):
                after[path] = False
    kinds = {(False, True): Change.ADDED, (True, True): Change.CHANGED, (True, False): Change.REMOVED}
    fates = {path: (os.path.lexists(path), there) for path, there in after.items()}
    return {path: kinds[fate] for path, fate in fates.items() if fate in kinds}


def _original(facts: Survey) -> bytes:
    if facts.original is None:
        raise AetherInstallError(
            f"{facts.spandrel.registry} was edited so that our part cannot be told from the rest; take the lines "
            "about AetherNet out by hand, or reinstall spandrel, and run this again",
            state=facts.state.value,
        )
    return facts.original


def _set_edited_aside(facts: Survey) -> Iterator[Step]:
    for path in facts.edited:
        yield Keep(path, _name_aside(path))


def _name_aside(path: Path) -> Path:
    names = (path.with_name(path.name + EDITED_SUFFIX + (f"-{i}" if i > 1 else "")) for i in count(1))
    return next(name for name in names if not os.path.lexists(name))


def _extend_records(facts: Survey, original: bytes) -> Iterator[Step]:
    place = facts.spandrel.registry
    ours = {facts.spandrel.payload / name: data for name, data in facts.wanted.items()}
    ours[place] = registry.patch(original)
    if place in facts.restorable or facts.registry == original:
        ours[kept_name(place)] = original
    ours.update((kept_name(path), facts.kept[path]) for path in facts.restorable if path.suffix == ".pyc")
    ours.update((kept_name(path), data) for path, data in _outdated_bytecode(facts))
    for path, content in facts.records.items():
        is_kept = path in facts.restorable
        base = facts.kept[path] if is_kept else record.without_rows(content, facts.our_rows)
        # A RECORD that somebody rewrote after us is not the original, so there is none to keep.
        keeps = is_kept or not facts.lists_us(path)
        files = {**ours, kept_name(path): base} if keeps else ours
        rows = {name: record.row(name, data) for name, data in ((facts.path_in_record(p), d) for p, d in files.items())}
        extended = record.with_rows(base, rows)
        if extended != content:
            if keeps and not is_kept:
                yield Keep(path, kept_name(path))
            yield Put(path, extended, like=path)


def _outdated_bytecode(facts: Survey) -> list[tuple[Path, bytes]]:
    """Bytecode of the registry without us that Python would go on using beside the registry with us."""
    return [(path, code) for path, code in facts.stale_bytecode.items() if not registry.is_compiled_with_block(code)]


def _write_payload(facts: Survey) -> Iterator[Step]:
    folder = facts.spandrel.payload
    for name, data in facts.files.items():
        if facts.wanted.get(name) != data and name != MANIFEST_NAME:
            yield Remove(folder / name)
    yield from (Remove(path) for path in facts.bytecode if _source_name(facts, path) not in facts.wanted)
    needed = {folder, *(parent for name in facts.wanted for parent in (folder / name).parents)}
    yield from (RemoveFolder(inner) for inner in facts.folders if inner not in needed)
    yield MakeFolder(folder, like=facts.spandrel.architectures)
    for name, data in facts.wanted.items():
        if facts.files.get(name) != data:
            for parent in reversed(PurePosixPath(name).parents[:-1]):
                yield MakeFolder(folder / parent, like=facts.spandrel.architectures)
            yield from _remove_bytecode(folder / name)
            yield Put(folder / name, data, like=facts.spandrel.registry)


def _patch_registry(facts: Survey, original: bytes) -> Iterator[Step]:
    place = facts.spandrel.registry
    patched = registry.patch(original)
    if facts.registry == original and place not in facts.restorable:
        # First of all: by it the next run knows that kept bytecode belongs to this registry.
        yield Keep(place, kept_name(place))
    for path, _ in _outdated_bytecode(facts):
        if path not in facts.restorable:
            yield Keep(path, kept_name(path))
        yield Remove(path)
    if facts.registry != patched:
        yield from _remove_bytecode_with_block(facts)
        yield Put(place, patched, like=place)


def _restore_registry(facts: Survey) -> Iterator[Step]:
    place = facts.spandrel.registry
    yield from _remove_bytecode_with_block(facts)
    for path in facts.kept:
        if path.suffix == ".pyc":
            yield PutBack(kept_name(path), path) if path in facts.restorable else Remove(kept_name(path))
    if facts.registry is not None and facts.registry != _original(facts):
        if place in facts.restorable:
            yield PutBack(kept_name(place), place)
            return
        yield Put(place, _original(facts), like=place)
    if place in facts.kept:
        yield PutBack(kept_name(place), place) if facts.registry is None else Remove(kept_name(place))


def _remove_bytecode_with_block(facts: Survey) -> Iterator[Step]:
    outdated = dict(_outdated_bytecode(facts))
    yield from (Remove(path) for path in facts.stale_bytecode if path not in outdated)


def _remove_payload(facts: Survey) -> Iterator[Step]:
    folder = facts.spandrel.payload
    # The manifest goes last: as long as any file is there, it tells that the file is ours.
    for name in sorted(facts.files, key=lambda name: name == MANIFEST_NAME):
        yield Remove(folder / name)
    yield from map(Remove, facts.bytecode)
    yield from map(RemoveFolder, facts.folders)


def _source_name(facts: Survey, bytecode: Path) -> str:
    return source_of(bytecode).relative_to(facts.spandrel.payload).as_posix()


def _remove_bytecode(source: Path) -> Iterator[Step]:
    yield from map(Remove, sorted((source.parent / "__pycache__").glob(f"{source.stem}.*.pyc")))


def _restore_records(facts: Survey) -> Iterator[Step]:
    for path, content in facts.records.items():
        if path in facts.restorable and facts.lists_us(path):
            yield PutBack(kept_name(path), path)
            continue
        if facts.lists_us(path):
            registry_row = {}
            if facts.registry is not None:
                name = facts.path_in_record(facts.spandrel.registry)
                registry_row = {name: record.row(name, _original(facts))}
            yield Put(path, record.with_rows(record.without_rows(content, facts.our_rows), registry_row), like=path)
        if path in facts.kept:
            yield Remove(kept_name(path))
    for path in facts.kept:
        if path.name == "RECORD" and path not in facts.records:
            yield Remove(kept_name(path))
