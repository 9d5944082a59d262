"""What ``make dist`` builds, made once from the sources as they are, and Pythons of several versions to run it."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from environments import CACHE, REPOSITORY, run, script
from filelock import FileLock

WHEELS = CACHE / "wheels"


def build(sources: Path, folder: Path) -> None:
    """Builds the wheel and the one file, as the Makefile says."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "315532800"}
    run(script("uv"), "build", "--quiet", "--wheel", "--out-dir", folder, sources, env=environment)
    program = sources / "installer" / "onefile" / "build.py"
    run(sys.executable, program, *folder.glob("*.whl"), WHEELS, folder / "aether-install.pyz")


def copy_sources(folder: Path) -> None:
    """Copies what a build reads."""
    for name in ("installer", "payload"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder)


@cache
def built() -> Path:
    """A folder with the wheel and ``aether-install.pyz``."""
    digest = hashlib.sha256()
    for name in ("setup.cfg", "installer", "payload"):
        for path in sorted([REPOSITORY / name, *(REPOSITORY / name).rglob("*")], key=lambda path: path.as_posix()):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(path.name.encode() + path.read_bytes())
    CACHE.mkdir(exist_ok=True)
    folder = CACHE / "built" / digest.hexdigest()[:16]
    with FileLock(CACHE / "built.lock"):
        if not folder.exists():
            shutil.rmtree(folder.parent, ignore_errors=True)
            sources = folder.parent / "sources"
            sources.mkdir(parents=True)
            copy_sources(sources)
            build(sources, folder.with_name("new"))
            folder.with_name("new").rename(folder)
    return folder


def one_file() -> Path:
    """The archive that any Python runs."""
    return built() / "aether-install.pyz"


def our_wheel() -> Path:
    """The wheel."""
    return next(built().glob("*.whl"))


@cache
def python_of(version: str) -> Path | None:
    """A Python of a version, such as ``3.12``, without packages; None if there is none here."""
    for path in _candidates(version):
        if path.exists():
            found = run(path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])", check=False)
            if found.stdout.strip() == version:
                return path
    return None


def _candidates(version: str) -> Iterator[Path]:
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        yield Path(getattr(sys, "_base_executable", sys.executable))
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from pyenv.glob(f"versions/{version}*/bin/python")
    for folder in os.get_exec_path():
        yield Path(folder, f"python{version}")
