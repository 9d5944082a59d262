"""
Python starts with this under ``windows_rules()``: from here on files behave as on Windows.

- What any process under these rules has open or mapped into memory is not renamed, replaced or removed, nor is a folder
  that holds it; what is mapped is not cut short.
- A file without the permission to write is neither removed nor replaced.
- ``os.rename`` does not replace; folders cannot be opened; ``os.fsync`` wants a file open for writing.
- Names do not differ in case alone, nor hold letters that Windows keeps for itself.
- ``os`` has no O_TMPFILE, owners, ``dir_fd`` or ``follow_symlinks``, but for those of ``os.stat``.

Replacing and removing by hand of a C library goes unseen; neither torch nor safetensors does that.

Source: https://learn.microsoft.com/en-us/windows/win32/fileio/creating-and-opening-files and naming-a-file beside it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from _thread import _local
from contextlib import suppress

ACCESS_DENIED, SHARING_VIOLATION = 5, 32
HELD = "The process cannot access the file because it is being used by another process"

_stat, _listdir, _readlink, _open = os.stat, os.listdir, os.readlink, open
_checking = _local()


def _identity(path):
    try:
        status = _stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _processes():
    """The ids of this process and of those that go by the rules as well."""
    for name in _listdir("/proc"):
        if name == str(os.getpid()):
            yield name
        elif name.isdigit():
            try:
                with _open(f"/proc/{name}/environ", "rb") as file:
                    if b"\0WINDOWS_RULES=1\0" in b"\0" + file.read():
                        yield name
            except OSError:
                pass  # somebody else's, or gone


def _opened(process):
    """The path, and a name for it that leads to the very file, of each file that a process has open."""
    folder = f"/proc/{process}/fd"
    for name in _listdir(folder):
        link = f"{folder}/{name}"
        with suppress(OSError):
            yield _readlink(link), link


def _mapped(process):
    with _open(f"/proc/{process}/maps") as file:
        paths = {line.split(None, 5)[5].rstrip("\n") for line in file if line.count("/")}
    return [(path, path) for path in paths]


def _is_held(path, kinds):
    """Whether some process holds this file, or one in this folder."""
    wanted = _identity(path)
    if wanted is None:
        return False
    inside = os.path.realpath(path) + os.sep if os.path.isdir(path) else None
    for process in _processes():
        for kind in kinds:
            try:
                held = list(kind(process))
            except OSError:
                continue
            for name, link in held:
                if name.startswith(inside) if inside else name[:1] == "/" and _identity(link) == wanted:
                    return True
    return False


def _refuse(code, why, *paths, winerror=None):
    error = OSError(code, why, paths[0], None, *paths[1:])
    error.winerror = winerror  # by which programs know there what happened
    raise error


def _check_not_held(path, kinds=(_opened, _mapped)):
    if not os.path.islink(path) and _is_held(path, kinds):
        _refuse(errno.EACCES, HELD, path, winerror=SHARING_VIOLATION)


def _check_removable(path):
    _check_not_held(path)
    if os.path.isfile(path) and not os.path.islink(path) and not _stat(path).st_mode & 0o200:
        _refuse(errno.EACCES, "Access is denied", path, winerror=ACCESS_DENIED)


def _check_name(path):
    """Of something about to be made."""
    path = os.path.abspath(os.fsdecode(path))
    if path.startswith("/proc/") or os.path.lexists(path):
        return
    folder, name = os.path.split(path)
    if set(name) & set('<>:"|?*\\') or name.endswith((" ", ".")):
        _refuse(errno.EINVAL, "The filename, directory name, or volume label syntax is incorrect", path)
    if os.path.isdir(folder) and any(name.lower() == other.lower() for other in _listdir(folder)):
        _refuse(errno.EEXIST, "Names differ in case alone", path)


def _on_open(path, mode, flags):
    if not isinstance(path, (str, bytes)):
        return
    if mode is None and os.path.isdir(path):  # by os.open; the other one refuses folders everywhere
        _refuse(errno.EACCES, "Permission denied", path)
    if flags & os.O_CREAT:
        _check_name(path)
    if flags & os.O_TRUNC and os.path.exists(path):
        _check_not_held(path, (_mapped,))


def _on_rename(source, target, *_):
    _check_not_held(source)
    _check_removable(target)
    if os.path.realpath(source).lower() != os.path.realpath(target).lower():
        _check_name(target)


_EVENTS = {
    "open": _on_open,
    "os.rename": _on_rename,
    "os.remove": lambda path, *_: _check_removable(path),
    "os.rmdir": lambda path, *_: _check_not_held(path),
    "os.mkdir": lambda path, *_: _check_name(path),
    "os.link": lambda _, target, *__: _check_name(target),
    "os.symlink": lambda _, target, *__: _check_name(target),
}


def _hook(event, arguments):
    happens = _EVENTS.get(event)
    if happens is None or hasattr(_checking, "now"):
        return
    _checking.now = True  # The checks open files themselves.
    try:
        happens(*arguments)
    finally:
        del _checking.now


def _without(function, *absent):
    """A function of ``os`` that takes some arguments at their defaults only."""

    def limited(*positional, **named):
        for name in absent:
            if named.get(name) not in (None, True):
                raise NotImplementedError(f"{function.__name__}: {name} unavailable on this platform")
        return function(*positional, **{name: value for name, value in named.items() if name not in absent})

    limited.__name__ = function.__name__
    return limited


def _rename(source, target):
    if os.path.lexists(target) and not os.path.samefile(source, target):
        _refuse(errno.EEXIST, "Cannot create a file when that file already exists", source, target)
    return os.replace(source, target)


def _fsync(file):
    descriptor = file if isinstance(file, int) else file.fileno()
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        _refuse(errno.EBADF, os.strerror(errno.EBADF), None)
    return _original_fsync(file)


_original_fsync = os.fsync
os.rename = _rename
os.fsync = _fsync
for _name in ("chown", "fchown", "lchown", "geteuid", "getuid", "getegid", "getgid", "O_TMPFILE", "O_DIRECTORY",
              "O_NOFOLLOW", "O_CLOEXEC", "mkfifo", "fdatasync", "posix_fallocate"):  # fmt: skip
    if hasattr(os, _name):
        delattr(os, _name)
for _name in ("link", "chmod", "utime"):
    setattr(os, _name, _without(getattr(os, _name), "follow_symlinks", "dir_fd", "src_dir_fd", "dst_dir_fd"))
for _name in ("open", "mkdir", "rmdir", "unlink", "remove", "replace", "symlink", "readlink", "access"):
    setattr(os, _name, _without(getattr(os, _name), "dir_fd", "src_dir_fd", "dst_dir_fd"))
os.supports_dir_fd = set()
os.supports_fd = {os.stat, os.truncate}
os.supports_follow_symlinks = {os.stat}
sys.addaudithook(_hook)
