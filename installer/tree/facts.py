"""
What a spandrel holds of us, and which of the eight states that makes.

Facts are read once, by ``survey``; the state follows from the facts alone. What is ours is known by hash, from the
manifest beside it or from the payload that this version ships; a name alone proves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..shipped import ARCHITECTURE
from . import record, registry
from .layout import Spandrel
from .manifest import MANIFEST_NAME, Manifest, Payload, sha256
from .registry import BlockState
from .state import State
from .transaction import NEW_SUFFIX, UNDO_SUFFIX

KEPT_SUFFIX = ".aether-old"
"""Of an original that an installed payload keeps for its removal."""


def kept_name(path: Path) -> Path:
    """The name under which the original of a file is kept."""
    return path.with_name(path.name + KEPT_SUFFIX)


def source_of(bytecode: Path) -> Path:
    """The module that a file in a ``__pycache__`` was compiled from."""
    return bytecode.parent.parent / f"{bytecode.name.partition('.')[0]}.py"


@dataclass(frozen=True)
class Survey:
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
        leftovers: files that a killed run left behind.
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

    @cached_property
    def block(self) -> BlockState:
        """What the registry holds of us."""
        return registry.block_state(self.registry or b"")

    @cached_property
    def wanted(self) -> Mapping[str, bytes]:
        """What our folder should hold, in the order in which it is written: the manifest first."""
        return {MANIFEST_NAME: self.shipped.manifest.encode(), **self.shipped.files}

    @cached_property
    def edited(self) -> tuple[Path, ...]:
        """Files of ours, the registry included, that somebody changed."""
        folder = self.spandrel.payload
        edited = [folder / name for name, data in self.files.items() if not self._is_pristine(name, data)]
        if self.block is BlockState.EDITED or self._names_us_elsewhere:
            edited.append(self.spandrel.registry)
        return tuple(edited)

    @cached_property
    def state(self) -> State:
        """The state that these facts make; never ``missing``, since there is a spandrel."""
        if not self._is_supported:
            return State.UNSUPPORTED
        if self._is_foreign:
            return State.FOREIGN
        if self.edited:
            return State.MODIFIED
        if not self.has_traces:
            return State.ABSENT
        if not self._is_complete:
            return State.PARTIAL
        current = self.block is BlockState.CURRENT and self.manifest == self.shipped.manifest
        return State.INSTALLED if current else State.OUTDATED

    @property
    def installed_version(self) -> str | None:
        """The version of the payload that is there, whole or in part."""
        return self.manifest.version if self.manifest else None

    @cached_property
    def original(self) -> bytes | None:
        """The registry without us; None if it was edited so that our part cannot be told from the rest."""
        if self.registry is None:
            return None
        original = registry.unpatch(self.registry)
        if self.block is BlockState.EDITED or self._names_us_elsewhere:
            if registry.block_state(original) is BlockState.ABSENT and not registry.names_architecture(original):
                return original
            # The marker lines are damaged. What was kept will do if it is still the beginning of the file.
            kept = self.kept.get(self.spandrel.registry)
            return kept if kept is not None and self.registry.startswith(kept) else None
        return original

    @cached_property
    def restorable(self) -> frozenset[Path]:
        """
        The places whose kept original is that of what is there now.

        After spandrel was reinstalled, what was kept belongs to another file and must not be put over the new one.
        """
        place = self.spandrel.registry
        registry_is_same = place in self.kept and self.kept[place] == self.original
        return frozenset(
            path
            for path, kept in self.kept.items()
            if (path in self.records and self._rows_of_others(kept) == self._rows_of_others(self.records[path]))
            or (path.parent in (place.parent, place.parent / "__pycache__") and registry_is_same)
        )

    def lists_us(self, path: Path) -> bool:
        """Whether a RECORD lists any file of ours."""
        return not self.our_rows.isdisjoint(record.rows(self.records[path]))

    def path_in_record(self, path: Path) -> str:
        """How a RECORD names a file."""
        return path.relative_to(self.spandrel.site_packages).as_posix()

    @cached_property
    def our_rows(self) -> frozenset[str]:
        """The paths under which a RECORD may list files of ours."""
        names = {*self.files, *self.wanted, *(self.manifest.files if self.manifest else ())}
        places = [self.spandrel.registry, *self.records, *self.kept, *self.stale_bytecode]
        paths = [self.spandrel.payload / name for name in names] + [kept_name(path) for path in places]
        return frozenset(self.path_in_record(path) for path in paths)

    def _rows_of_others(self, content: bytes) -> dict[str, bytes]:
        ours = {*self.our_rows, self.path_in_record(self.spandrel.registry)}
        return {path: row for path, row in record.rows(content).items() if path not in ours}

    def _is_pristine(self, name: str, data: bytes) -> bool:
        if name == MANIFEST_NAME:
            return self.manifest is not None
        known = (source.files.get(name) for source in (self.manifest, self.shipped.manifest) if source)
        return sha256(data) in known

    @property
    def _is_supported(self) -> bool:
        """An edit of our part that Python cannot read does not make spandrel another one."""
        return any(registry.is_supported(source) for source in (self.registry, self.original) if source is not None)

    @property
    def _names_us_elsewhere(self) -> bool:
        return registry.names_architecture(self.registry or b"")

    @property
    def _is_foreign(self) -> bool:
        main = self.files.get("__init__.py")
        main_is_ours = main is not None and self._is_pristine("__init__.py", main)
        others_code = self._names_us_elsewhere and self.block is not BlockState.EDITED
        if self.blocked_by or (others_code and not main_is_ours):
            return True
        is_ours = (
            self.manifest is not None
            or self.block is not BlockState.ABSENT
            or any(self._is_pristine(name, data) for name, data in self.files.items())
        )
        has_code = bool(self.files) or any(path.suffix == ".py" for path in self.others)
        return has_code and not is_ours

    @property
    def has_traces(self) -> bool:
        """Whether anything of ours is there, however little."""
        return bool(
            self.block is not BlockState.ABSENT
            or self.files
            or self.kept
            or self.leftovers
            or any(map(self.lists_us, self.records))
            or self.bytecode
            or any(not any(folder in path.parents for path in self.others) for folder in self.folders)
            or any(map(registry.is_compiled_with_block, self.stale_bytecode.values()))
        )

    @property
    def _is_complete(self) -> bool:
        if self.manifest is None or self.block is BlockState.ABSENT or self.leftovers:
            return False
        if any(sha256(self.files.get(name, b"")) != digest for name, digest in self.manifest.files.items()):
            return False
        if not all(map(registry.is_compiled_with_block, self.stale_bytecode.values())):
            return False
        rows = {
            self.path_in_record(self.spandrel.payload / name): self.files[name]
            for name in (MANIFEST_NAME, *self.manifest.files)
        }
        return all(
            record.rows(content).get(path) == record.row(path, data)
            for content in self.records.values()
            for path, data in rows.items()
        )


def survey(spandrel: Spandrel, shipped: Payload) -> Survey:
    """
    Reads the facts about a spandrel; writes and imports nothing.

    Raises:
        OSError: something is there but cannot be read.
    """
    folder = spandrel.payload
    manifest_data = _read(folder / MANIFEST_NAME)
    manifest = Manifest.decode(manifest_data) if manifest_data is not None else None
    names = {MANIFEST_NAME, *shipped.files, *(manifest.files if manifest else ())}
    files = {name: data for name in sorted(names) if (data := _read(folder / name)) is not None}

    row = spandrel.registry.relative_to(spandrel.site_packages).as_posix()
    dist_infos = list(spandrel.site_packages.glob(f"{spandrel.package.name}-*.dist-info"))
    all_records = {path: data for info in dist_infos if (data := _read(path := info / "RECORD")) is not None}
    records = {path: data for path, data in all_records.items() if row in record.rows(data)}

    cache = spandrel.registry.parent / "__pycache__"
    bytecode = {path: path.read_bytes() for path in sorted(cache.glob(f"{spandrel.registry.stem}.*.pyc"))}
    places = [
        spandrel.registry,
        *(info / "RECORD" for info in dist_infos),
        *(path.with_suffix("") for path in cache.glob(f"{spandrel.registry.stem}.*.pyc{KEPT_SUFFIX}")),
    ]
    inside = sorted(folder.rglob("*"))
    folders = [path for path in (folder, *inside) if path.is_dir() and not path.is_symlink()]
    searched = [spandrel.registry.parent, cache, *folders, *dist_infos]
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
    return Survey(
        spandrel=spandrel,
        shipped=shipped,
        registry=_read(spandrel.registry),
        files=files,
        manifest=manifest,
        others=tuple(others),
        records=records,
        kept={place: data for place in places if (data := _read(kept_name(place))) is not None},
        stale_bytecode={path: data for path, data in bytecode.items() if registry.is_hash_based(data)},
        leftovers=tuple(sorted(leftovers)),
        bytecode=tuple(path for path in inside if path.suffix == ".pyc" and source_of(path) not in others),
        folders=tuple(sorted(folders, key=lambda path: len(path.parts), reverse=True)),
        blocked_by=_blocker(spandrel, names),
    )


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _blocker(spandrel: Spandrel, names: set[str]) -> Path | None:
    """What stands where our folder or one inside it should be: a module of that name, a file, a link elsewhere."""
    module = spandrel.architectures / f"{ARCHITECTURE}.py"
    folders = {spandrel.payload, *((spandrel.payload / name).parent for name in names)}
    in_the_way = [path for path in folders if path.is_symlink() or (path.exists() and not path.is_dir())]
    return next(iter(([module] if module.exists() else []) + sorted(in_the_way)), None)
