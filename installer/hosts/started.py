"""When a process was started, by the system's clock, and whether that was before its spandrel became what it is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import suppress

from ..tree.layout import Spandrel
from ..tree.manifest import MANIFEST_NAME

_PS_SECONDS = 1.0


def started_before(pid: int, spandrel: Spandrel) -> bool:
    """Whether a process runs since before a spandrel was taught what it knows; False where that cannot be told."""
    times = []
    for path in (spandrel.registry, spandrel.payload / MANIFEST_NAME):
        with suppress(OSError):
            times.append(os.stat(path).st_mtime)
    since = started(pid) if times else None
    return since is not None and since < max(times)


def started(pid: int) -> float | None:
    """Seconds since the epoch, as ``time.time`` counts them; None if the process is gone or this cannot be told."""
    with suppress(OSError, ValueError, IndexError, subprocess.SubprocessError):
        if sys.platform == "win32":
            return _of_windows(pid)
        age = _age_of_proc(pid) if os.path.isfile("/proc/uptime") else _age_of_ps(pid)
        return time.time() - age
    return None


def _age_of_proc(pid: int) -> float:
    with open("/proc/uptime") as file:
        uptime = float(file.read().split()[0])
    with open(f"/proc/{pid}/stat", "rb") as file:
        # What stands before is the program's name in parentheses, which may hold anything.
        fields = file.read().rpartition(b")")[2].split()
    return uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _age_of_ps(pid: int) -> float:
    listed = subprocess.run(
        ["/bin/ps", "-o", "etime=", "-p", str(pid)], capture_output=True, text=True, timeout=_PS_SECONDS
    )
    return parse_elapsed(listed.stdout)


def parse_elapsed(text: str) -> float:
    """
    Seconds in the words of ``ps -o etime``: ``[[days-]hours:]minutes:seconds``.

    Raises:
        ValueError: they are others.
    """
    match = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", text.strip())
    if match is None:
        raise ValueError(text)
    days, hours, minutes, seconds = (int(number or 0) for number in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _of_windows(pid: int) -> float | None:
    if sys.platform != "win32":
        return None
    import ctypes
    from ctypes import wintypes

    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.OpenProcess.restype = wintypes.HANDLE
    kernel.OpenProcess.argtypes = (wintypes.DWORD, wintypes.BOOL, wintypes.DWORD)
    kernel.GetProcessTimes.argtypes = (wintypes.HANDLE, *(ctypes.POINTER(wintypes.FILETIME),) * 4)
    kernel.CloseHandle.argtypes = (wintypes.HANDLE,)
    query_limited_information = 0x1000
    handle = kernel.OpenProcess(query_limited_information, False, pid)
    if not handle:
        return None
    try:
        created, *others = (wintypes.FILETIME() for _ in range(4))
        if not kernel.GetProcessTimes(handle, created, *others):
            return None
        # In units of 100 ns since 1601.
        return float((created.dwHighDateTime << 32 | created.dwLowDateTime) / 1e7 - 11644473600)
    finally:
        kernel.CloseHandle(handle)
