"""What a spandrel holds of us: read once, plain values. What they mean is told by ``state``."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..shipped import ARCHITECTURE
from . import record
from .bytecode import cache_of, compiled_from, is_hash_based, source_of
from .files import read_file
from .layout import KEPT_SUFFIX, NEW_SUFFIX, UNDO_SUFFIX, Spandrel, kept_name
from .manifest import MANIFEST_NAME, Manifest, Payload


@dataclass(frozen=True)
class Facts:
    """
    The facts about one spandrel.

    Attributes:
        spandrel: where it is.
        shipped: the payload that this version of the installer ships.
        registry: the registry's content; None if there is no such file.
        files: content of the files in our folder that we may have put there, by path inside it.
        manifest: the manifest found there; None if there is none or it cannot be read.
        others: other files in our folder, bytecode apart.
        records: content of each RECORD that lists the registry.
        kept: content of each original that is kept, by the place it belongs to.
        stale_bytecode: bytecode of the registry that Python would use whatever the registry says.
        leftovers: files that a killed run left behind, or that one could not delete.
        bytecode: compiled files in our folder that no other file there is the source of.
        folders: our folder and those inside it, if they are there, the innermost first.
        blocked_by: something else in our folder's place.
    """

    spandrel: Spandrel
    shipped: Payload
    registry: bytes | None
    files: Mapping[str, bytes]
    manifest: Manifest | None
    others: tuple[Path, ...]
    records: Mapping[Path, bytes]
    kept: Mapping[Path, bytes]
    stale_bytecode: Mapping[Path, bytes]
    leftovers: tuple[Path, ...]
    bytecode: tuple[Path, ...]
    folders: tuple[Path, ...]
    blocked_by: Path | None


def read_facts(spandrel: Spandrel, shipped: Payload) -> Facts:
    """
    Reads the facts about a spandrel; writes and imports nothing.

    Raises:
        OSError: something is there but cannot be read.
    """
    folder = spandrel.payload
    manifest_data = _read(folder / MANIFEST_NAME)
    manifest = Manifest.decode(manifest_data) if manifest_data is not None else None
    names = {*shipped.installed_files, *(manifest.files if manifest else ())}
    files = {name: data for name in sorted(names) if (data := _read(folder / name)) is not None}

    row = spandrel.path_in_record(spandrel.registry)
    dist_infos = list(spandrel.site_packages.glob(f"{spandrel.package.name}-*.dist-info"))
    all_records = {path: data for info in dist_infos if (data := _read(path := info / "RECORD")) is not None}
    records = {path: data for path, data in all_records.items() if row in record.rows(data)}

    of_registry = {path: read_file(path) for path in compiled_from(spandrel.registry)}
    places = [
        spandrel.registry,
        *(info / "RECORD" for info in dist_infos),
        *(path.with_suffix("") for path in compiled_from(spandrel.registry, KEPT_SUFFIX)),
    ]
    inside = sorted(folder.rglob("*"))
    folders = [path for path in (folder, *inside) if path.is_dir() and not path.is_symlink()]
    searched = [spandrel.registry.parent, cache_of(spandrel.registry), *folders, *dist_infos]
    patterns = [f"*{NEW_SUFFIX}", f"*{UNDO_SUFFIX}"]
    leftovers = {path for place in searched for pattern in patterns for path in place.glob(pattern)}
    others = [
        path
        for path in inside
        if path.is_file()
        and path.suffix != ".pyc"
        and path not in leftovers
        and path.relative_to(folder).as_posix() not in names
    ]
    return Facts(
        spandrel=spandrel,
        shipped=shipped,
        registry=_read(spandrel.registry),
        files=files,
        manifest=manifest,
        others=tuple(others),
        records=records,
        kept={place: data for place in places if (data := _read(kept_name(place))) is not None},
        stale_bytecode={path: data for path, data in of_registry.items() if is_hash_based(data)},
        leftovers=tuple(sorted(leftovers)),
        bytecode=tuple(path for path in inside if path.suffix == ".pyc" and source_of(path) not in others),
        folders=tuple(sorted(folders, key=lambda path: len(path.parts), reverse=True)),
        blocked_by=_blocker(spandrel, names),
    )


def _read(path: Path) -> bytes | None:
    try:
        # A pipe would be waited for.
        return read_file(path) if stat.S_ISREG(path.stat().st_mode) else None
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _blocker(spandrel: Spandrel, names: set[str]) -> Path | None:
    """What stands where our folder or one inside it should be: a module of that name, a file, a link elsewhere."""
    module = spandrel.architectures / f"{ARCHITECTURE}.py"
    folders = {spandrel.payload, *((spandrel.payload / name).parent for name in names)}
    in_the_way = [path for path in folders if path.is_symlink() or (path.exists() and not path.is_dir())]
    return next(iter(([module] if module.exists() else []) + sorted(in_the_way)), None)
