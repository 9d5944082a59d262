"""
Files that another program has open, which Windows lets nobody link, rename, replace or remove.

Virus scanners, indexers and programs that synchronise open for a moment whatever is new, so what they are in the way of
is tried again for a while before it fails. Who is in the way for longer is told where Windows knows.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

_SECONDS = 2.0

_BUSY = {
    5,  # access denied: also that to a file which is going to vanish as soon as the last program closes it
    32,  # sharing violation
    33,  # lock violation
    1224,  # mapped into memory
}
"""
Error codes of Windows.

Source: https://learn.microsoft.com/en-us/windows/win32/debug/system-error-codes
"""


def patiently(work: Callable[[], Result]) -> Result:
    """
    Does something with a file, again and again for two seconds while another program is in the way.

    Raises:
        OSError: it is still in the way, or something else is the matter.
    """
    end, pause = time.monotonic() + _SECONDS, 0.01
    while True:
        try:
            return work()
        except OSError as error:
            if not is_busy(error) or time.monotonic() >= end:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 0.1)


def is_busy(error: OSError) -> bool:
    """Whether another program may be what an operation failed for."""
    if sys.platform == "win32" and error.winerror is None:
        return isinstance(error, PermissionError)  # by ``open``, which goes through C's library
    return getattr(error, "winerror", None) in _BUSY


def holders(path: str | Path) -> list[str]:
    """The programs that have a file open, as sentences name them; none where the system cannot tell."""
    with suppress(OSError, AttributeError, ValueError):
        return _asked_of_restart_manager(str(path))
    return []


def _asked_of_restart_manager(path: str) -> list[str]:
    """Source: https://learn.microsoft.com/en-us/windows/win32/rstmgr/restart-manager-portal"""
    if sys.platform != "win32":
        return []
    import ctypes
    from ctypes import wintypes

    class ProcessInfo(ctypes.Structure):
        """RM_PROCESS_INFO."""

        _fields_ = (
            ("pid", wintypes.DWORD),
            ("started", wintypes.FILETIME),
            ("name", wintypes.WCHAR * 256),
            ("service", wintypes.WCHAR * 64),
            ("kind", ctypes.c_int),
            ("status", wintypes.ULONG),
            ("session", wintypes.DWORD),
            ("restartable", wintypes.BOOL),
        )

    manager = ctypes.WinDLL("rstrtmgr")
    session, key = wintypes.DWORD(), ctypes.create_unicode_buffer(33)
    if manager.RmStartSession(ctypes.byref(session), 0, key) != 0:
        return []
    try:
        files = (wintypes.LPCWSTR * 1)(path)
        if manager.RmRegisterResources(session, 1, files, 0, None, 0, None) != 0:
            return []
        found = (ProcessInfo * 10)()
        needed, count, reasons = wintypes.UINT(), wintypes.UINT(len(found)), wintypes.DWORD()
        told = manager.RmGetList(session, ctypes.byref(needed), ctypes.byref(count), found, ctypes.byref(reasons))
        return [f"{info.name} (process {info.pid})" for info in found[: count.value]] if told == 0 else []
    finally:
        manager.RmEndSession(session)
