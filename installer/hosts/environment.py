"""Where a folder's Python is and which spandrel it would import, told from the files alone; nothing is run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .system import System

_PYTHONS = ("bin/python", "bin/python3", "bin/python3.*", "Scripts/python.exe", "python.exe")
_SITE_PACKAGES = (
    "Lib/site-packages",
    "lib/python3*/site-packages",
    "lib64/python3*/site-packages",
    "local/lib/python3*/dist-packages",
    "lib/python3/dist-packages",
)
_VERSION = re.compile(r"python3\.(\d+)")
_EMBEDDED = re.compile(r"python3(\d+)\.(?:_pth|dll)")


def python_in(system: System, folder: Path) -> Path | None:
    """
    The interpreter of an environment: a venv, a conda environment, an embedded or a standalone Python.

    One that is a link to nothing is told too, if there is no other; see ``why_it_cannot_start``.
    """
    candidates = [path for pattern in _PYTHONS for path in system.places(pattern, folder) if "config" not in path.name]
    dangling = (path for path in candidates if os.path.islink(path) and not os.path.exists(path))
    return next(filter(os.path.isfile, candidates), None) or next(dangling, None)


def why_it_cannot_start(system: System, python: Path) -> str:
    """What keeps an interpreter from starting, in words that follow its name; empty if its files tell of nothing."""
    if _is_gone(python):
        target = os.path.realpath(python)
        return f"is a link to {target}, which is not there" if os.path.islink(python) else "is not there"
    # Elsewhere it is a link to the Python that it was made with. Here it is a program that starts that one.
    if system.platform == "windows" and python.parent.name == "Scripts":
        home = _settings(system.read(python.parent.parent / "pyvenv.cfg") or "").get("home", "")
        base = system.path(home)
        if base and _is_gone(base / "python.exe"):
            return f"was made with the Python in {home}, which is not there"
    return ""


def _is_gone(path: Path) -> bool:
    """Whether nothing is there; what may not be looked at, such as a Python of Windows' store, is there."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def spandrel_of(system: System, python: Path, flags: Sequence[str] = ()) -> Path | None:
    """
    The folder of the spandrel that an interpreter would import, as its files have it, be it unreadable.

    Args:
        flags: what it is started with.
    """
    packages = [entry / "spandrel" for entry in _search_path(system, python, flags)]
    readable = (package for package in packages if os.path.isfile(package / "__init__.py"))
    return next(readable, None) or next(filter(_is_closed, packages), None)


def _is_closed(package: Path) -> bool:
    """Whether a package is there and may not be looked into."""
    try:
        os.stat(package / "__init__.py")
    except PermissionError:
        return os.path.isdir(package)
    except OSError:
        pass
    return False


def site_packages_in(system: System, folder: Path) -> list[Path]:
    """The site-packages folders of an environment, of a newer Python first."""
    found = [path for pattern in _SITE_PACKAGES for path in system.places(pattern, folder)]
    # `lib` and `Lib` are one folder on some systems, and `lib64` is often a link.
    unique = {os.path.realpath(path): path for path in reversed(found) if os.path.isdir(path)}
    return sorted(unique.values(), key=lambda path: -_minor_version(path))


def _search_path(system: System, python: Path, flags: Sequence[str]) -> Iterator[Path]:
    """What a Python looks in, after its standard library; the user's own packages come before those of no venv."""
    beside = python.parent
    root = beside.parent if beside.name in ("bin", "Scripts") else beside
    settings = next((text for folder in (root, beside) if (text := system.read(folder / "pyvenv.cfg"))), None)
    paths = [path for path in system.places("*._pth", beside) if path.stem.lower().startswith("python")]
    if paths and settings is None:
        # An embedded Python: what is in this file, and nothing else unless it says so.
        lines = [line.strip() for line in (system.read(paths[0]) or "").splitlines()]
        for line in lines:
            if line and not line.startswith(("#", "import ")):
                yield Path(os.path.normpath(beside / line.replace("\\", "/")))
        if "import site" not in lines:
            return
    elif settings is None:
        # Not an environment: an installation, perhaps known by a link elsewhere.
        resolved = Path(os.path.realpath(python))
        root = resolved.parent.parent if resolved.parent.name == "bin" else root
    own = site_packages_in(system, root)
    users = [] if {"-s", "-I"}.intersection(flags) else [*_user_sites(system, python, own)]
    if settings is None:
        yield from _with_path_files(system, [*users, *own])
        return
    yield from _with_path_files(system, own)
    values = _settings(settings)
    base = system.path(values.get("home"))
    if base and values.get("include-system-site-packages", "").lower() == "true":
        below = site_packages_in(system, base.parent if base.name == "bin" else base)
        yield from _with_path_files(system, [*users, *below])


def _settings(text: str) -> dict[str, str]:
    """What ``pyvenv.cfg`` says, names in lower case."""
    values = dict(line.partition("=")[::2] for line in text.splitlines())
    return {name.strip().lower(): value.strip() for name, value in values.items()}


def _user_sites(system: System, python: Path, site_packages: Iterable[Path]) -> Iterator[Path]:
    """Where the user may have packages of their own for an interpreter; those of another version do not count."""
    of_itself = _VERSION.search(Path(os.path.realpath(python)).name)
    named = (_EMBEDDED.fullmatch(name.lower()) for name in system.names(python.parent))
    versions = [of_itself.group(1)] if of_itself else [match.group(1) for match in named if match]
    versions = versions or [str(_minor_version(path)) for path in site_packages if _minor_version(path)]
    base = next(iter(system.variable("PYTHONUSERBASE")), None)
    for minor in dict.fromkeys(versions):
        if system.platform == "windows":
            roaming = base or system.variable("appdata")[0] / "Python"
            yield roaming / f"Python3{minor}" / "site-packages"
            continue
        yield (base or system.home / ".local") / "lib" / f"python3.{minor}" / "site-packages"
        if system.platform == "macos" and base is None:
            yield system.home / "Library" / "Python" / f"3.{minor}" / "lib" / "python" / "site-packages"


def _with_path_files(system: System, folders: Iterable[Path]) -> Iterator[Path]:
    for site_packages in folders:
        yield site_packages
        for path_file in system.places("*.pth", site_packages):
            for line in (system.read(path_file) or "").splitlines()[:100]:
                entry = line.strip()
                if entry and not entry.startswith(("#", "import ", "import\t")) and "\0" not in entry:
                    yield Path(os.path.normpath(site_packages / entry))


def _minor_version(path: Path) -> int:
    version = _VERSION.search(str(path))
    return int(version.group(1)) if version else 0
