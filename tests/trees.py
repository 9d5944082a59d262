"""A spandrel that is no environment's, and what the commands make of it, without a process for each of them."""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from environments import Snapshot, quietly, snapshot, wheel

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


def linked_spandrel(version: str, folder: Path) -> Path:
    """
    Makes a site-packages folder that costs little to copy, to list and to import.

    All architectures are links to compiled ones, and no row of RECORD is about them. On Windows there are none.
    """
    tree, others = folder / "site-packages", folder / "others"
    shutil.unpack_archive(wheel(version), tree, "zip")
    (tree / "spandrel" / "architectures").rename(others)
    (tree / "spandrel" / "architectures").mkdir()
    for path in list(others.iterdir()):
        if path.is_dir():
            compileall.compile_dir(path, quiet=1)
        if os.name != "nt":
            (tree / "spandrel" / "architectures" / path.name).symlink_to(path)
    record = next(tree.glob("*.dist-info")) / "RECORD"
    rows = record.read_bytes().splitlines(keepends=True)
    record.write_bytes(b"".join(row for row in rows if not row.startswith(b"spandrel/architectures/")))
    return tree


@contextmanager
def scanning(site_packages: Path, seconds: float, **options: Any) -> Iterator[Callable[[], int]]:
    """Has a program open each new file beside those that an installer writes, and tell afterwards how many it held."""
    package = site_packages / "spandrel"
    payload = package / "architectures" / "AetherNet"
    folders = [package / "__helpers", payload, payload / "__arch", *site_packages.glob("*.dist-info")]
    command = [sys.executable, Path(__file__).with_name("scanner.py"), str(seconds), *folders]
    told: list[int] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options) as scanner:
        assert scanner.stdout is not None
        assert scanner.stdout.readline() == "ready\n"
        try:
            yield lambda: told[0]
        finally:
            told.append(int(scanner.communicate()[0]))
