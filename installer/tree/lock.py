"""
One installer at a time for each spandrel, by a lock that leaves nothing in the tree.

A lock file would have to lie somewhere and be cleaned up after a crash. The operating system locks what is there
anyway: the package's folder or, on Windows, a byte far beyond the end of its ``__init__.py``.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_UNSUPPORTED = {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""What file systems answer that know no locks, some network mounts among them."""

_FAR_BYTE = 2**30


@contextmanager
def locked(package: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """
    Holds the lock of a spandrel; the operating system lets go of it however the process ends.

    Args:
        package: the spandrel package's folder.
        on_wait: called once if somebody else holds the lock, before waiting for them.
    """
    try:
        descriptor = os.open(package, os.O_RDONLY)
    except PermissionError:  # as on Windows, which opens no folders
        descriptor = os.open(package / "__init__.py", os.O_RDONLY)
    try:
        _acquire(descriptor, on_wait)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, on_wait: Callable[[], None]) -> None:
    try:
        if not _try_lock(descriptor, wait=False):
            on_wait()
            while not _try_lock(descriptor, wait=True):
                pass
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int, wait: bool) -> bool:
        os.lseek(descriptor, _FAR_BYTE, os.SEEK_SET)
        try:
            # LK_LOCK tries for ten seconds and then gives up.
            msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        except OSError as error:
            if error.errno != errno.EDEADLOCK:
                raise
            return False
        return True

else:
    import fcntl

    def _try_lock(descriptor: int, wait: bool) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
