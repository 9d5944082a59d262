"""What Wine 8 lacks of Windows, for CPython 3.12, which loads this as it starts. Real Windows needs none of it."""

from __future__ import annotations

import _winapi
import ctypes
import errno
import msvcrt
import os
import time


def _getppid() -> int:
    """CPython calls PssCaptureSnapshot."""
    names = ("status", "environment", "affinity", "priority", "pid", "parent")
    basic = type("Basic", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_void_p) for name in names]})()
    kernel = ctypes.WinDLL("kernel32")
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    process = ctypes.c_void_p(kernel.GetCurrentProcess())
    ctypes.WinDLL("ntdll").NtQueryInformationProcess(process, 0, ctypes.byref(basic), ctypes.sizeof(basic), None)
    return basic.parent or 0


_locking = msvcrt.locking


def _locks(descriptor: int, mode: int, count: int) -> None:
    """Wine's sets no errno, and waits for ten milliseconds instead of ten seconds."""
    waits = mode in (msvcrt.LK_LOCK, msvcrt.LK_RLCK)
    for _ in range(10 if waits else 1):
        try:
            return _locking(descriptor, msvcrt.LK_NBLCK if mode == msvcrt.LK_LOCK else mode, count)
        except OSError:
            if not waits:
                raise PermissionError(errno.EACCES, "Permission denied") from None
            time.sleep(1)
    raise OSError(errno.EDEADLOCK, "Resource deadlock avoided")


_create_process = _winapi.CreateProcess
_INTERNAL_ERROR = 1359


def _starts(*arguments: object) -> object:
    """Of some thousand processes, one does not tell Wine that it has started; nothing of it has run."""
    for _ in range(3):
        try:
            return _create_process(*arguments)
        except OSError as error:
            if error.winerror != _INTERNAL_ERROR:
                raise
    return _create_process(*arguments)


# For starts.py; a process that outlives the test that started it has nobody to tell.
if os.path.isdir(os.path.dirname(_began := os.environ.get("TELLS_THAT_IT_BEGAN", ""))):
    open(_began, "w").close()

os.getppid = _getppid
_winapi.CreateProcess = _starts
msvcrt.locking = _locks
if hasattr(_winapi, "CopyFile2"):  # of shutil.copy2
    del _winapi.CopyFile2
