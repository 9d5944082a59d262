"""AetherNets that somebody else put into a spandrel, as they are met: whole, in part, and not registered."""

from __future__ import annotations

from pathlib import Path

from trees import Tree

from aether_install.tree.manifest import shipped_payload

ADDED = (
    b"    ArchSupport.from_architecture(AetherNet.AetherNetFusedArch()),\n"
    b"    ArchSupport.from_architecture(AetherNet.AetherNetUnfusedArch()),\n"
)


def write(path: Path, data: bytes) -> None:
    """A file of its own, whatever had links to the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def copied_by_hand(at: Tree) -> None:
    """The files that somebody has from the author, in the folder where they belong."""
    for name, data in shipped_payload().files.items():
        write(at.payload / name, data + b"\n# by hand\n")


def register(at: Tree) -> None:
    source = at.registry.read_bytes()
    first = b"    ArchSupport.from_architecture(Compact.CompactArch()),\n"
    assert first in source
    source = source.replace(first, first + ADDED).replace(b"    ATD,\n", b"    ATD,\n    AetherNet,\n")
    write(at.registry, source)


def of_a_spandrel_to_come(at: Tree) -> None:
    copied_by_hand(at)
    register(at)


def of_a_fork(at: Tree) -> None:
    """Whose package asks a module for a name that it does not have."""
    of_a_spandrel_to_come(at)
    at.edit(at.payload / "__init__.py", b"import aether\n", b"import aether, aether_net_of_before\n")
    record = next(at.site_packages.glob("*.dist-info")) / "RECORD"
    rows = [f"spandrel/architectures/AetherNet/{name},,\n" for name in shipped_payload().files]
    write(record, record.read_bytes() + "".join(rows).encode())


def raising(at: Tree) -> None:
    of_a_spandrel_to_come(at)
    at.edit(at.payload / "__init__.py", b"import torch\n", b"raise ImportError('no more')\n")


def without_a_module(at: Tree) -> None:
    of_a_spandrel_to_come(at)
    (at.payload / "__arch" / "aether_core.py").unlink()


def without_a_main_module(at: Tree) -> None:
    of_a_spandrel_to_come(at)
    (at.payload / "__init__.py").unlink()


def without_the_class(at: Tree) -> None:
    of_a_spandrel_to_come(at)
    at.edit(at.payload / "__init__.py", b"class AetherNetFusedArch", b"class AetherNetArch")


def garbled(at: Tree) -> None:
    of_a_spandrel_to_come(at)
    write(at.payload / "__init__.py", b"def broken(:\n")


def imported_only(at: Tree) -> None:
    of_a_spandrel_to_come(at)
    at.edit(at.registry, ADDED, b"")
