"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from ..durable import sync_folder


@contextmanager
def whole_file(path: Path, overwrite: bool) -> Iterator[Path]:
    """
    Yields a name to write a file under, which gets its real name if the block ends well and vanishes if it does not.

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
    try:
        with _in_place(path, overwrite) as source:
            yield source
    except BaseException:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
        raise


@contextmanager
def _in_place(path: Path, overwrite: bool) -> Iterator[Path]:
    # As short as any name, for the file's own may be as long as names can be.
    temporary = path.with_name(f".{sha256(os.fsencode(path.name)).hexdigest()[:16]}.aether-new")
    temporary.unlink(missing_ok=True)
    descriptor = _open_nameless(path.parent)
    nameless = descriptor is not None
    if descriptor is None:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        source = Path(f"/proc/self/fd/{descriptor}") if nameless else temporary
        yield source
        os.fsync(descriptor)
        if nameless and not os.path.lexists(path):
            _link(descriptor, path)
        elif not overwrite and os.path.lexists(path):
            raise FileExistsError(f"{path} exists")
        else:
            if nameless:
                _link(descriptor, temporary)
            os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        os.close(descriptor)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


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
