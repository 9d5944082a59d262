"""The Python processes that run on this machine, as far as their owner may see them; asked in milliseconds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PS_SECONDS = 1.0


@dataclass(frozen=True)
class Process:
    """
    A process that runs Python.

    Attributes:
        pid: its number.
        python: the interpreter as it was started: inside a virtual environment the one there.
        arguments: what came after it on the command line.
        folder: the current folder, where the system tells it.
        home: the home of the user who runs it, likewise.
        uses_user_site: whether its environment variables leave it the packages that the user has installed apart.
    """

    pid: int
    python: Path
    arguments: tuple[str, ...]
    folder: Path | None = None
    home: Path | None = None
    uses_user_site: bool = True

    @property
    def flags(self) -> tuple[str, ...]:
        """Those of its interpreter's options that decide what is imported; see ``taken_apart``."""
        flags, _ = taken_apart(self.arguments)
        return flags if self.uses_user_site or "-I" in flags else tuple(dict.fromkeys((*flags, "-s")))

    @property
    def script(self) -> Path | None:
        """The program that it runs, if that is a file that can be told."""
        _, program = taken_apart(self.arguments)
        if program is None or (not Path(program).is_absolute() and self.folder is None):
            return None
        return Path(os.path.normpath((self.folder or Path()) / program))


def named(processes: Sequence[Process]) -> str:
    """Processes by their numbers, as a part of a sentence."""
    *most, last = [str(process.pid) for process in processes] or ["unknown"]
    return f"processes {', '.join(most)} and {last}" if most else f"process {last}"


def taken_apart(arguments: Sequence[str]) -> tuple[tuple[str, ...], str | None]:
    """
    What follows an interpreter on a command line, as far as its program.

    Returns:
        Those of its options that decide what is imported (``-s``, ``-E``, ``-I``), and the program, if it is a file.
    """
    found: list[str] = []
    words = iter(arguments)
    for word in words:
        if not word.startswith("-"):
            return tuple(sorted(set(found))), word
        if word.startswith("--"):
            continue
        for position, letter in enumerate(word[1:], 2):
            if letter in "cm":
                return tuple(sorted(set(found))), None
            if letter in "sEI":
                found.append(f"-{letter}")
            elif letter in "WX":
                if position == len(word):
                    next(words, None)
                break
    return tuple(sorted(set(found))), None


def running_processes() -> list[Process]:
    """Python processes, without this one, those that started it and others of aether-install."""
    found: list[Process] = []
    with suppress(OSError, ValueError, subprocess.SubprocessError):
        if sys.platform == "win32":
            found = list(_of_windows())
        elif os.path.isdir("/proc/self"):
            found = list(_of_proc())
        else:
            found = list(_of_ps())
    ours = {os.getpid(), os.getppid()}
    return [
        process
        for process in found
        if process.pid not in ours and process.python.is_absolute() and not _is_aether_install(process)
    ]


def _is_aether_install(process: Process) -> bool:
    return any("aether-install" in word or "aether_install" in word for word in process.arguments[:2])


def _of_proc() -> Iterator[Process]:
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        # It may have ended, or be another user's.
        with suppress(OSError):
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = [os.fsdecode(word) for word in file.read(1 << 16).split(b"\0")]
            if not words[0] or "python" not in os.path.basename(words[0]).lower():
                continue
            folder = None
            with suppress(OSError):
                folder = Path(os.readlink(f"/proc/{name}/cwd"))
            variables = _variables(name)
            python = _started_as(name, words[0], folder, variables.get("PATH", ""))
            home = variables.get("HOME", "")
            uses_user_site = not variables.get("PYTHONNOUSERSITE")
            yield Process(int(name), python, tuple(words[1:-1]), folder, Path(home) if home else None, uses_user_site)


def _variables(pid: str) -> dict[str, str]:
    data = b""
    with suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
        data = file.read(1 << 20)
    return dict(os.fsdecode(entry).partition("=")[::2] for entry in data.split(b"\0"))


def _started_as(pid: str, word: str, folder: Path | None, path: str) -> Path:
    """The interpreter by the name that it was started by; the executable itself is that of the base installation."""
    if os.sep in word:
        return Path(os.path.normpath((folder or Path("/")) / word))
    for place in path.split(os.pathsep):
        if os.path.isabs(place) and os.path.isfile(os.path.join(place, word)):
            return Path(place, word)
    with suppress(OSError):
        return Path(os.readlink(f"/proc/{pid}/exe"))
    return Path(word)


def _of_ps() -> Iterator[Process]:
    listed = subprocess.run(
        ["/bin/ps", "-axww", "-o", "pid=,command="],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        stdin=subprocess.DEVNULL,
        timeout=_PS_SECONDS,
    )
    yield from parse_ps(listed.stdout)


def parse_ps(listed: str) -> Iterator[Process]:
    """
    Processes as ``ps -o pid=,command=`` lists them.

    The words of a command line are joined by spaces there, and a folder such as ``Application Support`` holds one: a
    word that does not begin like a path or an option is taken for more of the word before it.
    """
    for line in listed.splitlines():
        pid, _, command = line.strip().partition(" ")
        words: list[str] = []
        for word in command.split(" "):
            starts_anew = not words or word.startswith(("/", "-", ".")) or _is_complete(words)
            if starts_anew:
                words.append(word)
            else:
                words[-1] += f" {word}"
        name = os.path.basename(words[0]).lower() if words else ""
        if pid.isdigit() and name.startswith("python"):
            yield Process(int(pid), Path(words[0]), tuple(words[1:]))


def _is_complete(words: list[str]) -> bool:
    """Whether the last word can end here: an interpreter, a program, an option or anything after a program."""
    last = os.path.basename(words[-1]).lower()
    if len(words) == 1:
        return last.startswith("python")
    return not words[-1].startswith("/") or last.endswith(".py") or "." in last or last.startswith("invokeai")


def _of_windows() -> Iterator[Process]:
    if sys.platform != "win32":
        return
    import ctypes
    from ctypes import wintypes

    kernel, ntdll = ctypes.WinDLL("kernel32", use_last_error=True), ctypes.WinDLL("ntdll")
    kernel.OpenProcess.restype = wintypes.HANDLE
    kernel.OpenProcess.argtypes = (wintypes.DWORD, wintypes.BOOL, wintypes.DWORD)
    kernel.CloseHandle.argtypes = (wintypes.HANDLE,)
    kernel.QueryFullProcessImageNameW.argtypes = (
        wintypes.HANDLE,
        wintypes.DWORD,
        wintypes.LPWSTR,
        ctypes.POINTER(wintypes.DWORD),
    )
    ntdll.NtQueryInformationProcess.argtypes = (
        wintypes.HANDLE,
        ctypes.c_int,
        ctypes.c_void_p,
        wintypes.ULONG,
        ctypes.POINTER(wintypes.ULONG),
    )
    shell = ctypes.WinDLL("shell32")
    shell.CommandLineToArgvW.restype = ctypes.POINTER(wintypes.LPWSTR)
    shell.CommandLineToArgvW.argtypes = (wintypes.LPCWSTR, ctypes.POINTER(ctypes.c_int))
    kernel.LocalFree.argtypes = (ctypes.c_void_p,)

    class UnicodeString(ctypes.Structure):
        _fields_ = (
            ("length", wintypes.USHORT),
            ("maximum", wintypes.USHORT),
            ("buffer", ctypes.c_void_p),
        )

    query_limited_information, command_line_information = 0x1000, 60
    pids, used = (wintypes.DWORD * 16384)(), wintypes.DWORD()
    kernel.K32EnumProcesses(pids, ctypes.sizeof(pids), ctypes.byref(used))
    for pid in pids[: used.value // ctypes.sizeof(wintypes.DWORD)]:
        handle = kernel.OpenProcess(query_limited_information, False, pid)
        if not handle:
            continue
        try:
            name, size = ctypes.create_unicode_buffer(32768), wintypes.DWORD(32768)
            if not kernel.QueryFullProcessImageNameW(handle, 0, name, ctypes.byref(size)):
                continue
            image = Path(name.value)
            if not image.name.lower().startswith("python"):
                continue
            words = [str(image)]
            answer = ctypes.create_string_buffer(1 << 17)
            if (
                ntdll.NtQueryInformationProcess(handle, command_line_information, answer, len(answer), None) == 0
                and (text := UnicodeString.from_buffer(answer)).buffer
            ):
                line = ctypes.wstring_at(text.buffer, text.length // 2)
                count = ctypes.c_int()
                array = shell.CommandLineToArgvW(line, ctypes.byref(count))
                if array:
                    words = [array[index] or "" for index in range(count.value)]
                    kernel.LocalFree(array)
            # Inside a virtual environment the image is that of the base installation, the first word the one there.
            named = Path(words[0])
            yield Process(int(pid), named if named.is_absolute() and named.is_file() else image, tuple(words[1:]))
        finally:
            kernel.CloseHandle(handle)
