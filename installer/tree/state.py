"""
Which of the eight states the facts make.

What is ours is known by hash, from the manifest beside it or from the payload that this version ships; a name alone
proves nothing.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from . import record, registry
from .bytecode import is_compiled_with_block
from .facts import Facts
from .layout import kept_name
from .manifest import MANIFEST_NAME, sha256
from .registry import BlockState


class State(str, Enum):
    """The state of a spandrel, as ``status`` reports it."""

    ABSENT = "absent"
    INSTALLED = "installed"
    OUTDATED = "outdated"
    PARTIAL = "partial"
    MODIFIED = "modified"
    FOREIGN = "foreign"
    UNSUPPORTED = "unsupported"
    MISSING = "missing"


def state_of(facts: Facts) -> State:
    """The state that these facts make; never ``missing``, since there is a spandrel."""
    if not _is_supported(facts):
        return State.UNSUPPORTED
    if _is_foreign(facts):
        return State.FOREIGN
    if edited_files(facts):
        return State.MODIFIED
    if not has_traces(facts):
        return State.ABSENT
    if not _is_complete(facts):
        return State.PARTIAL
    is_current = _block(facts) is BlockState.CURRENT and facts.manifest == facts.shipped.manifest
    return State.INSTALLED if is_current else State.OUTDATED


def edited_files(facts: Facts) -> tuple[Path, ...]:
    """Files of ours, the registry included, that somebody changed."""
    edited = [facts.spandrel.payload / name for name in facts.files if not _is_pristine(facts, name)]
    if registry.is_edited(facts.registry or b""):
        edited.append(facts.spandrel.registry)
    return tuple(edited)


def has_traces(facts: Facts) -> bool:
    """Whether anything of ours is there, however little."""
    return bool(
        _block(facts) is not BlockState.ABSENT
        or facts.files
        or facts.kept
        or facts.leftovers
        or any(lists_us(facts, path) for path in facts.records)
        or facts.bytecode
        or any(not any(folder in path.parents for path in facts.others) for folder in facts.folders)
        or any(map(is_compiled_with_block, facts.stale_bytecode.values()))
    )


def original_registry(facts: Facts) -> bytes | None:
    """The registry without us; None if there is none, or if our part cannot be told from the rest."""
    if facts.registry is None:
        return None
    return registry.original(facts.registry, facts.kept.get(facts.spandrel.registry))


def our_rows(facts: Facts) -> frozenset[str]:
    """The paths under which a RECORD may list files of ours."""
    names = {*facts.files, *facts.shipped.installed_files, *(facts.manifest.files if facts.manifest else ())}
    places = [facts.spandrel.registry, *facts.records, *facts.kept, *facts.stale_bytecode]
    paths = [facts.spandrel.payload / name for name in names] + [kept_name(path) for path in places]
    inside = facts.spandrel.path_in_record(facts.spandrel.payload) + "/"
    others = set(map(facts.spandrel.path_in_record, facts.others))
    # A killed run of another version lists files that it did not come to write, and that only it knows of.
    listed = {row for content in facts.records.values() for row in record.rows(content) if row.startswith(inside)}
    return frozenset(map(facts.spandrel.path_in_record, paths)) | (listed - others)


def lists_us(facts: Facts, path: Path) -> bool:
    """Whether a RECORD lists any file of ours."""
    return not our_rows(facts).isdisjoint(record.rows(facts.records[path]))


def _block(facts: Facts) -> BlockState:
    return registry.block_state(facts.registry or b"")


def _is_pristine(facts: Facts, name: str) -> bool:
    if name == MANIFEST_NAME:
        return facts.manifest is not None
    known = (source.files.get(name) for source in (facts.manifest, facts.shipped.manifest) if source)
    return sha256(facts.files[name]) in known


def _is_supported(facts: Facts) -> bool:
    """An edit of our part that Python cannot read does not make spandrel another one."""
    sources = (facts.registry, original_registry(facts))
    return any(registry.is_supported(source) for source in sources if source is not None)


def _is_foreign(facts: Facts) -> bool:
    main_is_ours = "__init__.py" in facts.files and _is_pristine(facts, "__init__.py")
    block = _block(facts)
    others_code = registry.names_architecture(facts.registry or b"") and block is not BlockState.EDITED
    if facts.blocked_by or (others_code and not main_is_ours):
        return True
    is_ours = (
        facts.manifest is not None
        or block is not BlockState.ABSENT
        or any(_is_pristine(facts, name) for name in facts.files)
    )
    has_code = bool(facts.files) or any(path.suffix == ".py" for path in facts.others)
    return has_code and not is_ours


def _is_complete(facts: Facts) -> bool:
    if facts.manifest is None or _block(facts) is BlockState.ABSENT:
        return False
    digests = {name: sha256(data) for name, data in facts.files.items()}
    if any(digests.get(name) != digest for name, digest in facts.manifest.files.items()):
        return False
    if not all(map(is_compiled_with_block, facts.stale_bytecode.values())):
        return False
    files = {
        facts.spandrel.path_in_record(facts.spandrel.payload / name): facts.files[name]
        for name in (MANIFEST_NAME, *facts.manifest.files)
    }
    return all(record.lists(content, files) for content in facts.records.values())
