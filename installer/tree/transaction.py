"""
The one module that writes to a spandrel: steps that are built beside the old and swapped in, and can be undone.

No step writes into a file that is there. Whatever a step replaces or removes stays beside its place under another name
until the transaction is committed, so undoing needs no disk space and brings back the very same file: bytes, mode,
times, symbolic link or hard links. A process killed in between leaves such names behind; the next run removes them.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..durable import sync_folder

NEW_SUFFIX = ".aether-new"
"""Of a file that is being written and is not in its place yet."""

UNDO_SUFFIX = ".aether-undo"
"""Of what was in a place before the running transaction."""

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}
"""What file systems answer that know no hard links, or may not make this one."""


@dataclass(frozen=True)
class Put:
    """Write a file, new or in place of another; a new one takes mode and owner from the file ``like``."""

    path: Path
    data: bytes
    like: Path


@dataclass(frozen=True)
class Keep:
    """Give a file a second name, so that it survives being replaced."""

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


class UndoError(Exception):
    """Undoing a transaction failed too; ``kept`` are the originals under the names they have now."""

    def __init__(self, cause: OSError, kept: list[Path]) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.kept = kept


class Transaction:
    """
    Applies steps, each of them atomic, and then either commits or undoes them all.

    Any OSError of a step leaves the transaction to be undone by ``rollback``, which must then be called.
    """

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []
        self._rubbish: list[Path] = []
        self._folders_to_remove: list[Path] = []
        self._touched: set[Path] = set()

    def apply(self, steps: Iterable[Step]) -> None:
        """Carries out the steps in their order and makes them durable."""
        for step in steps:
            self._apply(step)
        self._make_durable()

    def _apply(self, step: Step) -> None:
        match step:
            case Put(path, data, like):
                new = path.with_name(path.name + NEW_SUFFIX)
                self._undo.append(lambda: new.unlink(missing_ok=True))
                _write(new, data, path if path.exists() else like)
                self._set_aside(path)
                os.replace(new, path)
            case Keep(path, name):
                self._undo.append(lambda: name.unlink(missing_ok=True))
                _give_second_name(path, name)
            case PutBack(name, path) if _is_same_file(name, path):
                # Renaming a file onto itself would leave both names.
                self._undo.append(lambda: _give_second_name(path, name))
                name.unlink()
            case PutBack(name, path):
                self._set_aside(path)
                self._undo.append(lambda: None if os.path.lexists(name) else _give_second_name(path, name))
                os.replace(name, path)
            case Remove(path):
                self._set_aside(path)
                path.unlink()
            case Discard(path):
                self._rubbish.append(path)
            case MakeFolder(path, like):
                self._make_folder(path, like)
            case RemoveFolder(path):
                self._folders_to_remove.append(path)
        self._touched.add(step.path.parent)

    def _set_aside(self, path: Path) -> None:
        """Gives what is in a place a second name, to swap it back from."""
        undo = path.with_name(path.name + UNDO_SUFFIX)
        if undo in self._rubbish:
            return  # By an earlier step, whose undoing comes last and settles the matter.
        undo.unlink(missing_ok=True)
        self._rubbish.append(undo)
        if os.path.lexists(path):
            self._undo.append(lambda: _swap_back(undo, path))
            _give_second_name(path, undo)
        else:
            self._undo.append(lambda: path.unlink(missing_ok=True))

    def _make_folder(self, path: Path, like: Path) -> None:
        if path.is_dir():
            return
        self._undo.append(lambda: _remove_empty_folder(path))
        path.mkdir()
        _copy_owner_and_mode(path, like)

    def commit(self) -> None:
        """
        Removes what was kept for undoing, and the folders that nothing is left in.

        Raises:
            OSError: something could not be removed; everything else was.
        """
        failure: OSError | None = None
        for path in self._rubbish:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                failure = failure or error
        for folder in self._folders_to_remove:
            try:
                _remove_empty_folder(folder)
            except OSError as error:
                failure = failure or error
        self._make_durable()
        if failure:
            raise failure

    def rollback(self) -> None:
        """
        Undoes every step, the newest first.

        Raises:
            UndoError: one could not be undone. Those before it are left as they are, so that things stand as if the
                process had been killed on its way, from where the next run knows how to go on.
        """
        try:
            while self._undo:
                self._undo.pop()()
        except OSError as error:
            raise UndoError(error, [path for path in self._rubbish if os.path.lexists(path)]) from error
        finally:
            self._make_durable()

    def _make_durable(self) -> None:
        for folder in self._touched:
            sync_folder(folder)


def _write(path: Path, data: bytes, like: Path) -> None:
    path.unlink(missing_ok=True)
    try:
        with open(path, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    _copy_owner_and_mode(path, like)


def _copy_owner_and_mode(path: Path, like: Path) -> None:
    model = os.stat(like)
    made = os.stat(path)
    if hasattr(os, "chown") and (made.st_uid, made.st_gid) != (model.st_uid, model.st_gid):
        # Whoever may write here but not give files away keeps them as their own.
        with suppress(PermissionError):
            os.chown(path, model.st_uid, model.st_gid)
    os.chmod(path, stat.S_IMODE(model.st_mode))


def _give_second_name(path: Path, name: Path) -> None:
    name.unlink(missing_ok=True)
    try:
        if os.link in os.supports_follow_symlinks:
            os.link(path, name, follow_symlinks=False)
            return
        if not path.is_symlink():
            os.link(path, name)
            return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    _copy(path, name)


def _copy(path: Path, name: Path) -> None:
    """Stands in for a hard link: same bytes, mode and times, and a symbolic link for a symbolic link."""
    shutil.copy2(path, name, follow_symlinks=False)
    if not name.is_symlink():
        descriptor = os.open(name, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _is_same_file(name: Path, path: Path) -> bool:
    return os.path.lexists(path) and os.path.samestat(os.lstat(name), os.lstat(path))


def _swap_back(undo: Path, path: Path) -> None:
    if os.path.lexists(undo) and _is_same_file(undo, path):
        undo.unlink()
    elif os.path.lexists(undo):
        os.replace(undo, path)


def _remove_empty_folder(path: Path) -> None:
    try:
        path.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
