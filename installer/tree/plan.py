"""
What to do about the facts: the steps that install our part, and those that remove it.

Planning changes nothing, so a dry run is a plan that is shown instead of applied. The order of the steps is
what makes a kill at any instant harmless: RECORD knows of every file before it is there and after it is gone, but for
those that only an older payload had; and the registry names the payload only while it is complete. So it is made the
original again before anything in the payload is changed or removed, and patched once everything is there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path, PurePosixPath

from ..errors import AetherInstallError
from . import record, registry
from .bytecode import cache_of, compiled_from, is_compiled_with_block, source_of
from .facts import Facts
from .layout import EDITED_SUFFIX, free_name, kept_name
from .manifest import MANIFEST_NAME
from .state import edited_files, lists_us, original_registry, our_rows
from .steps import Discard, Keep, MakeFolder, Put, PutBack, Remove, RemoveFolder, Step


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


def plan_clearing(facts: Facts) -> Plan:
    """The steps that delete what a killed run left behind, and touch nothing else."""
    return _plan(map(Discard, facts.leftovers))


def plan_install(facts: Facts) -> Plan:
    """
    The steps from any state that is not refused to ``installed``.

    None of them changes what is right already, but for the registry where the payload changes.

    Raises:
        AetherInstallError: the registry was edited so that our part cannot be told from the rest.
    """
    original, restorable, set_aside = _original(facts), _restorable(facts), _set_aside(facts)
    return _plan(
        (
            *map(Discard, facts.leftovers),
            *set_aside,
            *(Remove(kept_name(path)) for path in facts.kept if path not in restorable),
            *_extend_records(facts, original, restorable),
            *_unpatch_registry(facts, original, restorable),
            *_write_payload(facts),
            *_patch_registry(facts, original, restorable),
        ),
        set_aside,
    )


def plan_uninstall(facts: Facts) -> Plan:
    """
    The steps from any state to one without us.

    Raises:
        AetherInstallError: the registry was edited so that our part cannot be told from the rest.
    """
    restorable, set_aside = _restorable(facts), _set_aside(facts)
    return _plan(
        (
            *map(Discard, facts.leftovers),
            *set_aside,
            *_restore_registry(facts, restorable),
            *_remove_payload(facts),
            *_restore_records(facts, restorable),
        ),
        set_aside,
    )


def _plan(steps: Iterable[Step], set_aside: Iterable[Keep] = ()) -> Plan:
    steps = tuple(steps)
    return Plan(steps, _changes(steps), tuple(step.name for step in set_aside))


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


def _original(facts: Facts) -> bytes:
    original = original_registry(facts)
    if original is None:
        raise AetherInstallError(
            f"{facts.spandrel.registry} was edited so that our part cannot be told from the rest; take the lines "
            "about AetherNet out by hand, or reinstall spandrel, and run this again"
        )
    return original


def _restorable(facts: Facts) -> frozenset[Path]:
    """
    The places whose kept original is that of what is there now.

    After spandrel was reinstalled, what was kept belongs to another file and must not be put over the new one.
    """
    place = facts.spandrel.registry
    registry_is_same = place in facts.kept and facts.kept[place] == original_registry(facts)
    ours = {*our_rows(facts), facts.spandrel.path_in_record(place)}

    def is_same_but_for_us(path: Path) -> bool:
        kept, now = (record.rows(content) for content in (facts.kept[path], facts.records[path]))
        return {name: row for name, row in kept.items() if name not in ours} == {
            name: row for name, row in now.items() if name not in ours
        }

    return frozenset(
        path
        for path in facts.kept
        if (path in facts.records and is_same_but_for_us(path))
        or (path.parent in (place.parent, cache_of(place)) and registry_is_same)
    )


def _set_aside(facts: Facts) -> list[Keep]:
    return [Keep(path, free_name(path, EDITED_SUFFIX)) for path in edited_files(facts)]


def _extend_records(facts: Facts, original: bytes, restorable: frozenset[Path]) -> Iterator[Step]:
    place = facts.spandrel.registry
    ours = {facts.spandrel.payload / name: data for name, data in facts.shipped.installed_files.items()}
    ours[place] = registry.patch(original)
    if place in restorable or facts.registry == original:
        ours[kept_name(place)] = original
    ours.update((kept_name(path), facts.kept[path]) for path in restorable if path.suffix == ".pyc")
    ours.update((kept_name(path), data) for path, data in _outdated_bytecode(facts))
    for path, content in facts.records.items():
        is_kept = path in restorable
        base = facts.kept[path] if is_kept else record.edited(content, without=our_rows(facts))
        # A RECORD that somebody rewrote after us is not the original, so there is none to keep.
        keeps = is_kept or not lists_us(facts, path)
        files = {**ours, kept_name(path): base} if keeps else ours
        extended = record.edited(base, files={facts.spandrel.path_in_record(p): data for p, data in files.items()})
        if extended != content:
            if keeps and not is_kept:
                yield Keep(path, kept_name(path))
            yield Put(path, extended, like=path)


def _outdated_bytecode(facts: Facts) -> list[tuple[Path, bytes]]:
    """Bytecode of the registry without us that Python would go on using beside the registry with us."""
    return [(path, code) for path, code in facts.stale_bytecode.items() if not is_compiled_with_block(code)]


def _rewrites_block(facts: Facts, original: bytes) -> bool:
    """Whether the block is not the one that we write, or has to be out while the payload changes."""
    return facts.registry != registry.patch(original) or facts.files != facts.shipped.installed_files


def _unpatch_registry(facts: Facts, original: bytes, restorable: frozenset[Path]) -> Iterator[Step]:
    place = facts.spandrel.registry
    if _rewrites_block(facts, original):
        yield from _remove_bytecode_with_block(facts)
        if facts.registry != original:
            yield Keep(kept_name(place), place) if place in restorable else Put(place, original, like=place)


def _write_payload(facts: Facts) -> Iterator[Step]:
    folder, wanted = facts.spandrel.payload, facts.shipped.installed_files
    for name, data in facts.files.items():
        if wanted.get(name) != data and name != MANIFEST_NAME:
            yield Remove(folder / name)
    yield from (Remove(path) for path in facts.bytecode if _source_name(facts, path) not in wanted)
    needed = {folder, *(parent for name in wanted for parent in (folder / name).parents)}
    yield from (RemoveFolder(inner) for inner in facts.folders if inner not in needed)
    yield MakeFolder(folder, like=facts.spandrel.architectures)
    for name, data in wanted.items():
        if facts.files.get(name) != data:
            for parent in reversed(PurePosixPath(name).parents[:-1]):
                yield MakeFolder(folder / parent, like=facts.spandrel.architectures)
            yield from map(Remove, compiled_from(folder / name))
            yield Put(folder / name, data, like=facts.spandrel.registry)


def _patch_registry(facts: Facts, original: bytes, restorable: frozenset[Path]) -> Iterator[Step]:
    place = facts.spandrel.registry
    if facts.registry == original and place not in restorable:
        # First of all: by it the next run knows that kept bytecode belongs to this registry.
        yield Keep(place, kept_name(place))
    for path, _ in _outdated_bytecode(facts):
        if path not in restorable:
            yield Keep(path, kept_name(path))
        yield Remove(path)
    if _rewrites_block(facts, original):
        yield Put(place, registry.patch(original), like=place)


def _restore_registry(facts: Facts, restorable: frozenset[Path]) -> Iterator[Step]:
    place = facts.spandrel.registry
    yield from _remove_bytecode_with_block(facts)
    for path in facts.kept:
        if path.suffix == ".pyc":
            yield PutBack(kept_name(path), path) if path in restorable else Remove(kept_name(path))
    if facts.registry is not None and facts.registry != _original(facts):
        if place in restorable:
            yield PutBack(kept_name(place), place)
            return
        yield Put(place, _original(facts), like=place)
    if place in facts.kept:
        yield PutBack(kept_name(place), place) if facts.registry is None else Remove(kept_name(place))


def _remove_bytecode_with_block(facts: Facts) -> Iterator[Step]:
    yield from (Remove(path) for path, code in facts.stale_bytecode.items() if is_compiled_with_block(code))


def _remove_payload(facts: Facts) -> Iterator[Step]:
    folder = facts.spandrel.payload
    # The manifest goes last: as long as any file is there, it tells that the file is ours.
    for name in sorted(facts.files, key=lambda name: name == MANIFEST_NAME):
        yield Remove(folder / name)
    yield from map(Remove, facts.bytecode)
    yield from map(RemoveFolder, facts.folders)


def _source_name(facts: Facts, bytecode: Path) -> str:
    return source_of(bytecode).relative_to(facts.spandrel.payload).as_posix()


def _restore_records(facts: Facts, restorable: frozenset[Path]) -> Iterator[Step]:
    for path, content in facts.records.items():
        if path in restorable and lists_us(facts, path):
            yield PutBack(kept_name(path), path)
            continue
        if lists_us(facts, path):
            place = facts.spandrel.registry
            files = {} if facts.registry is None else {facts.spandrel.path_in_record(place): _original(facts)}
            yield Put(path, record.edited(content, without=our_rows(facts), files=files), like=path)
        if path in facts.kept:
            yield Remove(kept_name(path))
    for path in facts.kept:
        if path.name == "RECORD" and path not in facts.records:
            yield Remove(kept_name(path))
