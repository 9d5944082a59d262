"""Real environments to install into: virtual environments with real spandrel wheels, which borrow this one's torch."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from work import quietly

from aether_install.tree.commands import install
from aether_install.tree.layout import Spandrel

REPOSITORY = Path(__file__).parents[1]
CACHE = REPOSITORY / ".cache"
UV_CACHE = CACHE / "uv" / os.environ.get("PYTEST_XDIST_WORKER", os.environ.get("TEST_SHARE", ""))
"""Each test process has its own: environments that share a cache see each other come and go in the number of links."""

SITE_PACKAGES = Path(sysconfig.get_path("purelib"))

SUPPORTED = ("0.3.0", "0.3.1", "0.3.2", "0.3.3", "0.3.4", "0.4.0", "0.4.1", "0.4.2")
UNSUPPORTED = ("0.1.8", "0.2.2")

CONSOLE_PACKAGES = ("click", "colorama", "markdown_it", "mdurl", "pygments", "rich")

Snapshot = dict[str, tuple[object, ...]]


def run(*command: str | Path, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a program, captures what it says, and shows it if it fails."""
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if check and result.returncode != 0:
        raise AssertionError(f"{command} exited with {result.returncode}\n{result.stdout}\n{result.stderr}")
    return result


def script(name: str) -> Path:
    """A console script of this environment."""
    return Path(sysconfig.get_path("scripts"), name)


def aether_install(*arguments: str | Path, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs the real command."""
    return run(script("aether-install"), *arguments, check=check, **options)


def aether_json(*arguments: str | Path, **options: Any) -> dict[str, Any]:
    """Runs the real command with --json, whatever its exit status."""
    result: dict[str, Any] = json.loads(aether_install(*arguments, "--json", check=False, **options).stdout)
    return result


def words_of(command: str) -> list[str]:
    """The words of a command as it is shown."""
    return shlex.split(command.replace("\\", "\\\\") if os.name == "nt" else command)


def needs_torch() -> None:
    """Skips a test where there is no torch."""
    if find_spec("torch") is None:
        pytest.skip("needs torch")


def _one_at_a_time() -> FileLock:
    """What every test process shares is made by one of them."""
    CACHE.mkdir(exist_ok=True)
    return FileLock(CACHE / "lock")


def wheel(version: str) -> Path:
    """The spandrel wheel of a version, from PyPI, downloaded once."""
    folder = CACHE / "wheels"
    path = folder / f"spandrel-{version}-py3-none-any.whl"
    with _one_at_a_time():
        if not path.exists():
            run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", f"spandrel=={version}", "--dest", folder)
    return path


@dataclass(frozen=True)
class Environment:
    """A virtual environment."""

    root: Path

    @property
    def python(self) -> Path:
        return self.root / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def site_packages(self) -> Path:
        if os.name == "nt":
            return self.root / "Lib" / "site-packages"
        return next((self.root / "lib").glob("python3*/site-packages"))

    @property
    def spandrel(self) -> Path:
        return self.site_packages / "spandrel"

    @property
    def registry(self) -> Path:
        return self.spandrel / "__helpers" / "main_registry.py"

    @property
    def payload(self) -> Path:
        return self.spandrel / "architectures" / "AetherNet"

    @property
    def record(self) -> Path:
        return next(self.site_packages.glob("spandrel-*.dist-info")) / "RECORD"

    def uv(self, *arguments: str | Path, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Runs ``uv pip`` on this environment."""
        command, *rest = arguments
        environment = {**os.environ, "UV_CACHE_DIR": str(cache or UV_CACHE), "UV_NO_CONFIG": "1"}
        return run(script("uv"), "pip", command, "--quiet", "--python", self.python, *rest, env=environment)

    def pip(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Runs this environment's pip, or ours on it."""
        return run(sys.executable, "-m", "pip", "--python", self.python, "--quiet", *arguments)

    def imports_spandrel(self, code: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Imports spandrel here and runs some code after it, leaving no bytecode."""
        needs_torch()
        return run(self.python, "-B", "-c", f"import spandrel\n{code}", check=check, cwd=self.root)


def borrowed(console: bool = True) -> Path:
    """
    A folder through which other environments find torch and the rest that is installed here, but not spandrel.

    Without ``console`` it lacks what draws on terminals too.
    """
    folder = CACHE / ("borrowed" if console else "borrowed-torch")
    private: tuple[str, ...] = ("spandrel", "aether_install", "__", "pip", "uv")
    if not console:
        private += CONSOLE_PACKAGES
    with _one_at_a_time():
        folder.mkdir(exist_ok=True)
        theirs = {path.name for path in folder.iterdir()}
        for path in SITE_PACKAGES.iterdir():
            if not path.name.startswith(private) and path.suffix != ".pth" and path.name not in theirs:
                (folder / path.name).symlink_to(path)
    return folder


def borrowing(console: bool = True) -> str:
    """What a ``.pth`` has to say to borrow this."""
    if os.name != "nt":
        return f"{borrowed(console)}\n"
    # Few may make links there. Torch, which alone is large, is in a folder of its own if it is there.
    torch, copies = find_spec("torch"), Path(tempfile.gettempdir(), "borrowed")
    if console and not copies.exists():
        for pattern in (*CONSOLE_PACKAGES, "setuptools*", "_distutils_hack"):
            for path in SITE_PACKAGES.glob(pattern):
                shutil.copytree(path, copies / path.name)
    folders = [Path(torch.origin).parents[1]] if torch and torch.origin else []
    return "".join(f"{folder}\n" for folder in [*folders, *[copies] * console])


def make_environment(
    root: Path, version: str | None = "0.4.2", *, borrow: bool = True, console: bool = True
) -> Environment:
    """
    Makes a virtual environment with a spandrel from PyPI.

    Args:
        borrow: let it import torch and the rest from this environment, after its own packages.
        console: borrow click, rich and what they need as well.
    """
    environment = {**os.environ, "UV_NO_CONFIG": "1", "UV_CACHE_DIR": str(UV_CACHE)}
    run(script("uv"), "venv", "--quiet", "--python", sys.executable, root, env=environment)
    made = Environment(root)
    if borrow:
        (made.site_packages / "borrowed.pth").write_text(borrowing(console))
    if version is not None:
        made.uv("install", "--no-deps", wheel(version))
    return made


def copy_spandrel(folder: Path) -> Path:
    """Unpacks the newest spandrel into a folder, and returns the package in it."""
    shutil.unpack_archive(wheel(SUPPORTED[-1]), folder, "zip")
    return folder / "spandrel"


def taught_spandrel() -> Path:
    """A temporary site-packages folder with a spandrel that knows AetherNet."""
    folder = Path(tempfile.mkdtemp(prefix="spandrel-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    install(Spandrel(copy_spandrel(folder)), progress=quietly)
    return folder


def snapshot(root: Path, *, bytecode: bool = False) -> Snapshot:
    """
    Everything about a tree that must come back: path, bytes, mode, time, hard links, target of a symbolic link.

    Times of folders are left out and so, unless asked for, is bytecode.
    """
    facts: Snapshot = {}
    folders = [""]
    for folder in folders:
        with os.scandir(root / folder) as entries:
            for entry in entries:
                if entry.name == "__pycache__" and not bytecode:
                    continue
                name, status = f"{folder}{entry.name}", os.lstat(entry.path)
                if entry.is_symlink():
                    facts[name] = ("link", os.readlink(entry.path), status.st_mtime_ns)
                elif entry.is_dir():
                    facts[name] = ("folder", status.st_mode)
                    folders.append(f"{name}/")
                else:
                    digest = hashlib.sha256(Path(entry.path).read_bytes()).hexdigest()
                    facts[name] = ("file", digest, status.st_mode, status.st_mtime_ns, status.st_nlink)
    return dict(sorted(facts.items()))
