"""What Python compiled: whose it is, and whether it may run whatever the source says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from . import registry


def cache_of(module: Path) -> Path:
    """The folder that Python keeps a module's bytecode in."""
    return module.parent / "__pycache__"


def compiled_from(module: Path, suffix: str = "") -> Iterator[Path]:
    """The bytecode of a module, by every Python and optimisation level, under its own name or with a suffix."""
    return iter(sorted(cache_of(module).glob(f"{module.stem}.*.pyc{suffix}")))


def source_of(bytecode: Path) -> Path:
    """The module that a file in a ``__pycache__`` was compiled from."""
    return bytecode.parent.parent / f"{bytecode.name.partition('.')[0]}.py"


def is_hash_based(bytecode: bytes) -> bool:
    """
    Tells whether a .pyc may be used without a look at its source's time and size (PEP 552).

    Source: https://peps.python.org/pep-0552/; bit 0 of the little-endian flags in bytes 4 to 8.
    """
    return len(bytecode) >= 8 and bool(bytecode[4] & 1)


def is_compiled_with_block(bytecode: bytes) -> bool:
    """Tells whether a .pyc of the registry was compiled from one that held a block of ours."""
    return registry.TRACE in bytecode
