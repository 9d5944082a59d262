"""
The machine as discovery sees it: which system, whose home, which drives, what runs, what lies where.

Everything that is read here may belong to anybody and be in any condition. What is damaged, huge, no regular file or
not to be read is taken for absent; nothing here raises.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from .processes import Process, running_processes

Platform = Literal["windows", "macos", "linux"]

_LARGEST_FILE = 4 << 20
"""Bytes; no configuration file that matters here comes near it."""

_MOST_ENTRIES = 2000
"""Of a folder; one with more is a store of something, not a place where somebody put an application."""


@dataclass(frozen=True)
class System:
    """
    A machine and its user.

    Attributes:
        platform: whose conventions count.
        environment: the environment variables.
        home: the user's own folder.
        drives: where people put applications besides their home, such as the roots of Windows' drives.
        processes: lists the Python processes that run.
        python: the interpreter that runs this program.
        folder: the current folder.
    """

    platform: Platform
    environment: Mapping[str, str]
    home: Path
    drives: tuple[Path, ...] = ()
    processes: Callable[[], list[Process]] = field(default=list)
    python: Path | None = None
    folder: Path | None = None

    @property
    def passed_over(self) -> Path | None:
        """The home of the user who runs this by sudo, where another one counts, most likely that of root."""
        user = self.environment.get("SUDO_USER") or self.environment.get("DOAS_USER")
        home = os.path.expanduser(f"~{user}") if user and self.platform != "windows" else "~"
        return None if home.startswith("~") or same_place(Path(home), self.home) else Path(home)

    def path(self, text: object) -> Path | None:
        """The place that a configuration file or a variable names; None if it is no absolute path."""
        if not isinstance(text, str) or not 0 < len(text) < 4096 or "\0" in text:
            return None
        try:
            os.fsencode(text)
        except UnicodeError:
            return None
        path = self.home / text[2:] if text[:2] in ("~/", "~\\") else Path(text)
        return Path(os.path.normpath(path)) if path.is_absolute() else None

    def variable(self, name: str) -> tuple[Path, ...]:
        """
        The folders that a name in braces stands for; none where this system has no such thing.

        ``appdata`` is where Electron and most others keep settings, ``data`` where the free desktops keep data.
        """
        library = self.home / "Library" / "Application Support"
        match name, self.platform:
            case "home", _:
                return (self.home,)
            case "drive", _:
                return self.drives
            case "documents", "windows":
                cloud = self.path(self.environment.get("OneDrive"))
                return (self.home / "Documents", *((cloud / "Documents",) if cloud else ()))
            case "documents", _:
                return (self.home / "Documents",)
            case "appdata", "windows":
                return (self.path(self.environment.get("APPDATA")) or self.home / "AppData" / "Roaming",)
            case "local", "windows":
                return (self.path(self.environment.get("LOCALAPPDATA")) or self.home / "AppData" / "Local",)
            case "data", "windows":
                return self.variable("appdata")
            case (("appdata" | "local" | "data"), "macos"):
                return (library,)
            case (("appdata" | "local"), _):
                return (self.path(self.environment.get("XDG_CONFIG_HOME")) or self.home / ".config",)
            case "data", _:
                return (self.path(self.environment.get("XDG_DATA_HOME")) or self.home / ".local" / "share",)
            case _:
                value = self.path(self.environment.get(name))
                return (value,) if value else ()

    def places(self, pattern: str, folder: Path | None = None) -> Iterator[Path]:
        """
        What is there under a pattern such as ``{appdata}/chaiNNer`` or ``{drive}/*/ComfyUI``.

        Args:
            pattern: a name in braces (see ``variable``) or, relative to ``folder``, a path; ``*`` within one part.
        """
        first, *parts = pattern.split("/")
        if first.startswith("{"):
            found = list(self.variable(first[1:-1]))
        else:
            found, parts = [folder] if folder else [], [first, *parts]
        for part in parts:
            if any(letter in part for letter in "*?["):
                found = [place / name for place in found for name in self.names(place) if fnmatch(name, part)]
            elif part:
                found = [place / part for place in found]
        yield from (Path(os.path.normpath(place)) for place in found if os.path.lexists(place))

    def names(self, folder: Path) -> list[str]:
        """What a folder holds, sorted; at most some thousand names."""
        names: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    names.append(entry.name)
                    if len(names) >= _MOST_ENTRIES:
                        break
        except OSError:
            pass
        return sorted(names)

    def folders(self, folder: Path) -> list[Path]:
        """The folders in a folder whose names are not hidden ones."""
        names = [name for name in self.names(folder) if name[0] not in ".$"]
        return [folder / name for name in names if os.path.isdir(folder / name)]

    def read(self, path: Path, errors: str = "strict") -> str | None:
        """The text of a configuration file; ``errors`` as in ``bytes.decode``."""
        try:
            # A pipe would have to be waited for, were it opened.
            if not stat.S_ISREG(os.stat(path).st_mode):
                return None
            with open(path, "rb") as file:
                data = file.read(_LARGEST_FILE + 1)
            return data.decode("utf-8-sig", errors) if len(data) <= _LARGEST_FILE else None
        except (OSError, ValueError):
            return None


def same_place(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same place."""
    return one == other or os.path.realpath(one) == os.path.realpath(other)


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path leads to somewhere in a folder, or to the folder."""
    return path.is_relative_to(folder) or Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def this_system() -> System:
    """The machine that this program runs on."""
    platform: Platform = {"win32": "windows", "darwin": "macos"}.get(sys.platform, "linux")  # type: ignore[assignment]
    home = Path(os.path.expanduser("~"))
    folder = None
    with suppress(OSError):
        folder = Path(os.getcwd())
    python = Path(os.path.abspath(sys.executable)) if sys.executable else None
    return System(platform, os.environ, home, tuple(_drives(platform)), running_processes, python, folder)


def _drives(platform: Platform) -> Iterator[Path]:
    if sys.platform == "win32":
        import ctypes

        # A drive of the network that is gone would be waited for, and is never asked.
        fixed_or_removable = (2, 3)
        letters = ctypes.windll.kernel32.GetLogicalDrives()
        for index in range(26):
            root = f"{chr(ord('A') + index)}:\\"
            if letters >> index & 1 and ctypes.windll.kernel32.GetDriveTypeW(root) in fixed_or_removable:
                yield Path(root)
    elif platform == "macos":
        yield Path("/Applications")
    else:
        yield from (Path("/opt"), Path("/workspace"))
