"""A spandrel that is no environment's, and what the commands make of it, without a process for each of them."""

from __future__ import annotations

from pathlib import Path

from environments import Snapshot, quietly, snapshot

from aether_install.tree.commands import Outcome, install, status, uninstall
from aether_install.tree.layout import Spandrel


class Tree:
    """A site-packages folder, and what the commands make of the spandrel in it."""

    def __init__(self, site_packages: Path) -> None:
        self.site_packages = site_packages
        self.package = site_packages / "spandrel"
        self.registry = self.package / "__helpers" / "main_registry.py"
        self.payload = self.package / "architectures" / "AetherNet"
        self.spandrel = Spandrel(self.package)

    def install(self, **options: bool) -> Outcome:
        return install(self.spandrel, progress=quietly, **options)

    def uninstall(self, **options: bool) -> Outcome:
        return uninstall(self.spandrel, progress=quietly, **options)

    @property
    def state(self) -> str:
        return status(self.spandrel).before.value

    def snapshot(self, *, bytecode: bool = False) -> Snapshot:
        return snapshot(self.site_packages, bytecode=bytecode)

    def edit(self, path: Path, old: bytes, new: bytes) -> None:
        """Edits a file as an editor does that keeps it in its place."""
        data = path.read_bytes()
        assert old in data
        path.write_bytes(data.replace(old, new))
