"""
The one module that changes a spandrel: steps that are built beside the old and swapped in, and can be undone.

No step writes into a file that is there. Whatever a step replaces or removes is saved beside its place under another
name until the transaction is committed, so undoing needs no disk space and brings back the very same file: bytes, mode,
times, symbolic link or hard links. A process killed in between leaves such names behind. They are rubbish to the next
run, which deletes them once it has succeeded; until then it leaves them alone and takes other names for its own, so
that undoing brings back the state which that run found, rubbish and all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from ..durable import sync_folder
from .files import (
    copy_owner_and_mode,
    give_second_name,
    is_same_file,
    remove_empty_folder,
    remove_file,
    rename,
    write_file,
)
from .layout import NEW_SUFFIX, UNDO_SUFFIX, free_name
from .steps import Discard, Keep, MakeFolder, Put, PutBack, Remove, RemoveFolder, Step


class UndoError(Exception):
    """Undoing a transaction failed too; ``saved`` are the originals under the names they have now."""

    def __init__(self, cause: OSError, saved: list[Path]) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.saved = saved


class Transaction:
    """
    Applies steps, each of them atomic, and then either commits or undoes them all.

    Any OSError of a step leaves the transaction to be undone by ``rollback``, which must then be called.
    """

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []
        self._saved: list[Path] = []
        self._rubbish: list[Path] = []
        self._folders_to_remove: list[Path] = []
        self._touched: set[Path] = set()

    def apply(self, steps: Iterable[Step]) -> None:
        """Carries out the steps in their order and makes them durable."""
        for step in steps:
            self._touched.add(step.path.parent)
            self._apply(step)
        self._make_durable()

    def _apply(self, step: Step) -> None:
        match step:
            case Put(path, data, like):
                new = free_name(path, NEW_SUFFIX)
                self._undo.append(lambda: remove_file(new))
                write_file(new, data, path if path.exists() else like, read_only=path.exists())
                self._save(path)
                rename(new, path)
            case Keep(path, name):
                new = free_name(name, NEW_SUFFIX)
                self._undo.append(lambda: remove_file(new))
                give_second_name(path, new)
                self._save(name)
                rename(new, name)
            case PutBack(name, path) if is_same_file(name, path):
                # Renaming a file onto itself would leave both names.
                self._undo.append(lambda: None if os.path.lexists(name) else give_second_name(path, name))
                remove_file(name)
            case PutBack(name, path):
                self._save(path)
                self._undo.append(lambda: None if os.path.lexists(name) else give_second_name(path, name))
                rename(name, path)
            case Remove(path):
                self._save(path)
                remove_file(path)
            case Discard(path):
                self._rubbish.append(path)
            case MakeFolder(path, like):
                self._make_folder(path, like)
            case RemoveFolder(path):
                self._folders_to_remove.append(path)

    def _save(self, path: Path) -> None:
        """Gives what is in a place a second name, to swap it back from."""
        if not os.path.lexists(path):
            self._undo.append(lambda: remove_file(path))
            return
        undo = free_name(path, UNDO_SUFFIX)
        self._saved.append(undo)
        self._undo.append(lambda: remove_file(undo))
        give_second_name(path, undo)
        self._undo.append(lambda: rename(undo, path))

    def _make_folder(self, path: Path, like: Path) -> None:
        if path.is_dir():
            return
        self._undo.append(lambda: remove_empty_folder(path))
        path.mkdir()
        copy_owner_and_mode(path, like)

    def commit(self) -> list[Path]:
        """
        Removes what was saved for undoing, rubbish, and the folders that nothing is left in.

        Returns what could not be removed, which harms nobody and is rubbish to the next run.
        """
        files = [path for path in (*self._rubbish, *self._saved) if os.path.lexists(path)]
        removals: list[tuple[Path, Callable[[Path], None]]] = [(path, remove_file) for path in files]
        removals += [(folder, remove_empty_folder) for folder in self._folders_to_remove]
        left: list[Path] = []
        for path, remove in removals:
            try:
                remove(path)
            except OSError:
                left.append(path)
        self._make_durable()
        return left

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
            raise UndoError(error, [undo for undo in self._saved if os.path.lexists(undo)]) from error
        finally:
            self._make_durable()

    def _make_durable(self) -> None:
        for folder in self._touched:
            sync_folder(folder)
