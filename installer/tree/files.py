"""Single operations on files, by the rules of every system: nothing that is open is renamed, replaced or removed."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path

from ..busy import patiently

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}
"""What file systems answer that know no hard links, or may not make this one."""


def read_file(path: Path) -> bytes:
    """The content of a file, also of one that another program has to itself for a moment."""
    return patiently(path.read_bytes)


def write_file(path: Path, data: bytes, like: Path, *, read_only: bool) -> None:
    """
    Writes a new file, durably, with the mode and owner of another.

    Args:
        read_only: whether it is to be read-only if the other is.
    """
    try:
        with open(path, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    copy_owner_and_mode(path, like, read_only=read_only)


def copy_owner_and_mode(path: Path, like: Path, *, read_only: bool = False) -> None:
    """
    Gives a new file or folder the mode of another and, if that is allowed, its owner.

    Args:
        read_only: whether it is to be read-only if the other is.
    """
    model, made = os.stat(like), os.stat(path)
    mode = stat.S_IMODE(model.st_mode) | (0 if read_only else stat.S_IWUSR)
    if hasattr(os, "chown") and (made.st_uid, made.st_gid) != (model.st_uid, model.st_gid):
        # Whoever may write here but not give files away keeps them: no privilege, an owner that a container does not
        # map, a file system without owners.
        with suppress(OSError):
            os.chown(path, model.st_uid, model.st_gid)
    if stat.S_IMODE(made.st_mode) != mode:
        os.chmod(path, mode)


def give_second_name(path: Path, name: Path) -> None:
    """Makes a hard link, also to a symbolic link; where there are none, a copy with the same bytes, mode and times."""
    _wait_until_free(path)
    try:
        if os.link in os.supports_follow_symlinks:
            os.link(path, name, follow_symlinks=False)
            return
        if not path.is_symlink():
            patiently(lambda: os.link(path, name))
            return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    _copy(path, name)


def _wait_until_free(path: Path) -> None:
    """
    Waits until no program has a file open that would not let it be renamed.

    A hard link to such a file could no more be removed than the file, and would be left behind. On Windows a file may
    be renamed to what it is called already, which does nothing, but asks for the same permission.
    """
    if os.name == "nt":
        patiently(lambda: os.rename(path, path))


def _copy(path: Path, name: Path) -> None:
    if path.is_symlink():
        shutil.copy2(path, name, follow_symlinks=False)
        return
    with open(path, "rb") as source, open(name, "xb") as copy:
        shutil.copyfileobj(source, copy)
        copy.flush()
        os.fsync(copy.fileno())
    shutil.copystat(path, name)


def is_same_file(first: Path, second: Path) -> bool:
    """Whether two names, symbolic links not followed, are those of one file."""
    both_there = os.path.lexists(first) and os.path.lexists(second)
    return both_there and os.path.samestat(os.lstat(first), os.lstat(second))


def rename(name: Path, path: Path) -> None:
    """Renames a file to a place, over what is there, be that read-only."""
    if is_same_file(name, path):
        remove_file(name)  # Renaming a file onto itself would leave both names.
    else:
        _though_read_only(path, lambda: os.replace(name, path))


def remove_file(path: Path) -> None:
    """Removes a file, be it read-only, if it is there."""
    with suppress(FileNotFoundError):
        _though_read_only(path, path.unlink)


def remove_empty_folder(path: Path) -> None:
    """Removes a folder unless something is in it or it is not there."""
    try:
        _though_read_only(path, path.rmdir)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _though_read_only(path: Path, work: Callable[[], None]) -> None:
    """
    Replaces or removes what has a name, be it read-only, which Windows refuses to do.

    That attribute is the file's and not the name's, so it is taken away for that moment, and given back to the file if
    it is left under this name or another one in this folder.
    """
    if not _is_read_only(path):
        return patiently(work)
    was = os.lstat(path)
    try:
        return work()
    except PermissionError:
        with suppress(OSError):
            os.chmod(path, was.st_mode | stat.S_IWUSR)
    try:
        return patiently(work)
    finally:
        same = (name for name in path.parent.iterdir() if os.path.samestat(os.lstat(name), was))
        for name in islice(same, 1):
            os.chmod(name, stat.S_IMODE(was.st_mode))


def _is_read_only(path: Path) -> bool:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISLNK(mode) and not mode & stat.S_IWUSR


def fingerprint(path: Path) -> tuple[object, ...]:
    """What tells whether a file is as it was: bytes or target of a link, mode, time; or why it cannot be read."""
    try:
        status = os.lstat(path)
        content = os.readlink(path) if stat.S_ISLNK(status.st_mode) else read_file(path)
    except OSError as error:
        return (error.errno,)
    return (content, status.st_mode, status.st_mtime_ns)
