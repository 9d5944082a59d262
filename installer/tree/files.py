"""Single operations on files, by the rules of every system: nothing that is open is renamed, replaced or removed."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}
"""What file systems answer that know no hard links, or may not make this one."""


def write_file(path: Path, data: bytes, like: Path) -> None:
    """Writes a new file, durably, with the mode and owner of another."""
    try:
        with open(path, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    copy_owner_and_mode(path, like)


def copy_owner_and_mode(path: Path, like: Path) -> None:
    """Gives a new file or folder the mode of another and, if that is allowed, its owner."""
    model = os.stat(like)
    made = os.stat(path)
    if hasattr(os, "chown") and (made.st_uid, made.st_gid) != (model.st_uid, model.st_gid):
        # Whoever may write here but not give files away keeps them: no privilege, an owner that a container does not
        # map, a file system without owners.
        with suppress(OSError):
            os.chown(path, model.st_uid, model.st_gid)
    if stat.S_IMODE(made.st_mode) != stat.S_IMODE(model.st_mode):
        os.chmod(path, stat.S_IMODE(model.st_mode))


def give_second_name(path: Path, name: Path) -> None:
    """Makes a hard link, also to a symbolic link; where there are none, a copy with the same bytes, mode and times."""
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


def remove_empty_folder(path: Path) -> None:
    """Removes a folder unless something is in it or it is not there."""
    try:
        path.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def fingerprint(path: Path) -> tuple[object, ...]:
    """What tells whether a file is as it was: bytes or target of a link, mode, time; or why it cannot be read."""
    try:
        status = os.lstat(path)
        content = os.readlink(path) if stat.S_ISLNK(status.st_mode) else path.read_bytes()
    except OSError as error:
        return (error.errno,)
    return (content, status.st_mode, status.st_mtime_ns)
