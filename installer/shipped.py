"""What this package ships beside its code: the payload, and programs for other Pythons; from a zip archive as well."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.abc import Traversable

ARCHITECTURE = "AetherNet"
"""Name of the shipped architecture, and of its folder in ``spandrel/architectures``."""


def payload_files() -> dict[str, bytes]:
    """Content of each file of the architecture by its path inside its folder, with forward slashes, sorted."""
    return dict(sorted(_python_files(_payload_folder())))


def payload_folder() -> str:
    """The architecture's folder, perhaps inside an archive, from which its modules can be imported."""
    return str(_payload_folder()).rstrip("/")


def program(name: str) -> str:
    """The source of a program for other Pythons, by its name in ``hosts/programs``."""
    return files("aether_install.hosts.programs").joinpath(f"{name}.py").read_text(encoding="utf-8")


def _payload_folder() -> Traversable:
    return files("aether_install.payload").joinpath(ARCHITECTURE)


def _python_files(folder: Traversable, inside: str = "") -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _python_files(entry, f"{inside}{entry.name}/")
        elif entry.name.endswith(".py"):
            yield inside + entry.name, entry.read_bytes()
