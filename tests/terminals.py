"""
Programs on terminals of their own: a pseudoterminal, or a pseudoconsole where the system is Windows.

As a program, this hands a console on to the command that it is given.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Thread


def on_terminal(command: list[str | Path], environment: Mapping[str, str]) -> tuple[int, str]:
    """
    Runs a program on a terminal of 120 columns.

    Returns its exit status and what was shown there, control sequences and all.
    """
    return _on_console(command, environment) if os.name == "nt" else _on_pseudoterminal(command, environment)


def _on_pseudoterminal(command: list[str | Path], environment: Mapping[str, str]) -> tuple[int, str]:
    terminal, end = os.openpty()
    with subprocess.Popen(command, stdout=end, stderr=end, env=environment) as process:
        os.close(end)
        shown = _read(terminal)
    os.close(terminal)
    return process.returncode, shown.decode()


def _read(terminal: int) -> bytearray:
    shown = bytearray()
    with suppress(OSError):  # how a terminal ends
        while part := os.read(terminal, 4096):
            shown += part
    return shown


class _StartupInfo(ctypes.Structure):
    """STARTUPINFOEXW; of what is between the first and the last, all but the flags may be nothing."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("_1", ctypes.c_byte * 56),
        ("flags", ctypes.c_uint32),
        ("_2", ctypes.c_byte * 40),
        ("attributes", ctypes.c_void_p),
    )


class _ProcessInformation(ctypes.Structure):
    _fields_ = (("process", ctypes.c_void_p), ("thread", ctypes.c_void_p), ("ids", ctypes.c_uint32 * 2))


_COLUMNS, _ROWS = 120, 60
_PSEUDOCONSOLE, _USES_HANDLES, _EXTENDED, _UNICODE, _FOREVER = 0x20016, 0x100, 0x80000, 0x400, -1


def _on_console(command: list[str | Path], environment: Mapping[str, str]) -> tuple[int, str]:
    import msvcrt

    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    theirs, ours = os.pipe(), os.pipe()
    console, size = ctypes.c_void_p(), ctypes.c_size_t()
    handles = [ctypes.c_void_p(msvcrt.get_osfhandle(end)) for end in (theirs[0], ours[1])]
    assert kernel.CreatePseudoConsole(_ROWS << 16 | _COLUMNS, *handles, 0, ctypes.byref(console)) == 0

    kernel.InitializeProcThreadAttributeList(None, 1, 0, ctypes.byref(size))
    attributes = ctypes.create_string_buffer(size.value)
    kernel.InitializeProcThreadAttributeList(attributes, 1, 0, ctypes.byref(size))
    pointer = ctypes.c_size_t(ctypes.sizeof(console))
    kind = ctypes.c_size_t(_PSEUDOCONSOLE)
    kernel.UpdateProcThreadAttribute(attributes, 0, kind, console, pointer, None, None)
    # No handles of this process, whose standard streams are pipes.
    start = _StartupInfo(size=ctypes.sizeof(_StartupInfo), flags=_USES_HANDLES)
    start.attributes = ctypes.addressof(attributes)
    made = _ProcessInformation()
    line = subprocess.list2cmdline(map(str, [sys.executable, __file__, *command]))
    block = ctypes.create_unicode_buffer("".join(f"{name}={value}\0" for name, value in environment.items()) + "\0")
    flags = _EXTENDED | _UNICODE
    assert kernel.CreateProcessW(
        *(None, ctypes.create_unicode_buffer(line), None, None, False, flags, block, None),
        *(ctypes.byref(start), ctypes.byref(made)),
    ), ctypes.get_last_error()

    shown = bytearray()
    reader = Thread(target=lambda: shown.extend(_read(ours[0])))
    reader.start()
    status = ctypes.c_uint32()
    kernel.WaitForSingleObject(ctypes.c_void_p(made.process), _FOREVER)
    kernel.GetExitCodeProcess(ctypes.c_void_p(made.process), ctypes.byref(status))
    kernel.ClosePseudoConsole(console)
    for end in (*theirs, ours[1]):
        os.close(end)
    reader.join()
    os.close(ours[0])
    return status.value, shown.decode()


def _hand_on(command: list[str]) -> int:
    """Gives a program the console of this process, which Wine gives to none by itself."""
    import _winapi
    import msvcrt

    read_write, shared, existing = 0xC0000000, 3, 3
    ends = [
        msvcrt.open_osfhandle(_winapi.CreateFile(name, read_write, shared, 0, existing, 0, 0), os.O_RDWR)
        for name in ("CONIN$", "CONOUT$")
    ]
    return subprocess.call(command, stdin=ends[0], stdout=ends[1], stderr=ends[1])


if __name__ == "__main__":
    sys.exit(_hand_on(sys.argv[1:]))
