"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from hashlib import sha256
from pathlib import Path

from ..busy import patiently
from ..durable import sync_folder


class Together:
    """
    Files that get their real names together: as a context, it takes back those that have, if another cannot.

    Only a process that is killed between two of them leaves some, each of them whole.
    """

    def __init__(self) -> None:
        self._published: list[tuple[Path, Path | None]] = []
        self.folders: list[Path] = []
        """Which were made for files, innermost first."""

    def __enter__(self) -> Together:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for path, before in reversed(self._published):
            with suppress(OSError):
                if kind is None:
                    if before is not None:
                        before.unlink()
                elif before is None:
                    path.unlink()
                else:
                    patiently(lambda path=path, before=before: os.replace(before, path))  # type: ignore[misc]
        for folder in self.folders if kind else ():
            with suppress(OSError):
                folder.rmdir()

    @contextmanager
    def publishing(self, path: Path) -> Iterator[None]:
        """Around what gives a file its real name: keeps what had it before until all have theirs."""
        before = None
        if os.path.lexists(path):
            before = _beside(path, "before")
            before.unlink(missing_ok=True)
            _keep(path, before)
        try:
            yield
        except BaseException:
            if before is not None:
                before.unlink(missing_ok=True)
            raise
        self._published.append((path, before))


@contextmanager
def whole_file(path: Path, overwrite: bool, together: Together | None = None) -> Iterator[Path]:
    """
    Yields a name to write a file under, which gets its real name if the block ends well and vanishes if it does not.

    What ``together`` holds gets its name, or none of it does.

    The block has to let go of the file, open or mapped, before it ends: Windows neither renames nor removes what is
    held. What an error that leaves the block still refers to is let go of here.

    Where the system can (Linux), the file has no name at all until it is complete, so that not even a killed process
    leaves a trace. A missing folder is made.

    Raises:
        FileExistsError: the file is there, or came to be in the meantime, and ``overwrite`` is not set.
        OSError: it cannot be written.
    """
    if path.parent.exists() and not path.parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{path.parent} is no folder")
    if not overwrite and os.path.lexists(path):
        raise FileExistsError(f"{path} exists")
    missing = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    if together:
        together.folders += missing
    temporary = _beside(path, "new")
    publishing = together.publishing(path) if together else nullcontext()
    try:
        temporary.unlink(missing_ok=True)
        descriptor = _open_nameless(path.parent)
        with (
            _named(path, temporary, overwrite, publishing)
            if descriptor is None
            else _nameless(path, temporary, overwrite, publishing, descriptor) as source
        ):
            yield source
        sync_folder(path.parent)
    except BaseException as error:
        _let_go(error)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
        raise


@contextmanager
def _named(path: Path, temporary: Path, overwrite: bool, publishing: AbstractContextManager[None]) -> Iterator[Path]:
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    yield temporary
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    if not overwrite and os.path.lexists(path):
        raise FileExistsError(f"{path} exists")
    with publishing:
        patiently(lambda: os.replace(temporary, path))


@contextmanager
def _nameless(
    path: Path, temporary: Path, overwrite: bool, publishing: AbstractContextManager[None], descriptor: int
) -> Iterator[Path]:
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
        os.fsync(descriptor)
        if not overwrite and os.path.lexists(path):
            raise FileExistsError(f"{path} exists")
        with publishing:
            if os.path.lexists(path):
                _link(descriptor, temporary)
                os.replace(temporary, path)
            else:
                _link(descriptor, path)
    finally:
        os.close(descriptor)


def _keep(path: Path, name: Path) -> None:
    """Gives a file another name or, where a link would be as locked as the file is (Windows), a copy."""
    if os.link in os.supports_follow_symlinks:
        with suppress(OSError):  # Not every file system has links.
            return os.link(path, name, follow_symlinks=False)
    shutil.copy2(path, name, follow_symlinks=False)
    return None


def _beside(path: Path, what: str) -> Path:
    """A name as short as any, for the file's own may be as long as names can be."""
    return path.with_name(f".{sha256(os.fsencode(path.name)).hexdigest()[:16]}.aether-{what}")


def _open_nameless(folder: Path) -> int | None:
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None or not os.path.isdir("/proc/self/fd"):
        return None
    try:
        return os.open(folder, flag | os.O_RDWR, 0o666)
    except OSError:
        return None  # Not every file system can; any other trouble comes up again with the named file.


def _link(descriptor: int, path: Path) -> None:
    # Given a folder's descriptor, which the absolute source makes irrelevant, Python follows the link under /proc.
    os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)


def _let_go(error: BaseException | None) -> None:
    """Clears the variables of the functions that an error ended, and those that led to it: they may hold the file."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
