"""The places inside a spandrel that matter to us, and the names that we give files there."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from ..shipped import ARCHITECTURE

KEPT_SUFFIX = ".aether-old"
"""Of an original that an installed payload keeps for its removal."""

EDITED_SUFFIX = ".aether-edited"
"""Of a file of ours that somebody edited and ``--force`` sets aside."""

NEW_SUFFIX = ".aether-new"
"""Of a file that is being written and is not in its place yet."""

UNDO_SUFFIX = ".aether-undo"
"""Of what was in a place before the running transaction."""


def kept_name(path: Path) -> Path:
    """The name under which the original of a file is kept."""
    return path.with_name(path.name + KEPT_SUFFIX)


def free_name(path: Path, suffix: str) -> Path:
    """A name beside a file, with this suffix, that nothing has yet."""
    names = (path.with_name(f"{path.name}{f'.{number}' if number > 1 else ''}{suffix}") for number in count(1))
    return next(name for name in names if not os.path.lexists(name))


@dataclass(frozen=True)
class Spandrel:
    """
    An installed spandrel, or a copy of it under another name.

    Attributes:
        package: its folder.
    """

    package: Path

    @property
    def registry(self) -> Path:
        """The module that lists the architectures."""
        return self.package / "__helpers" / "main_registry.py"

    @property
    def architectures(self) -> Path:
        """The folder of all architectures."""
        return self.package / "architectures"

    @property
    def payload(self) -> Path:
        """The folder of our architecture."""
        return self.architectures / ARCHITECTURE

    @property
    def site_packages(self) -> Path:
        """The folder that paths in a RECORD are relative to."""
        return self.package.parent

    @property
    def version(self) -> str | None:
        """The version, as ``spandrel/__init__.py`` states it."""
        try:
            source = (self.package / "__init__.py").read_bytes()
        except OSError:
            return None
        match = re.search(rb"^__version__\s*=\s*['\"]([^'\"]+)['\"]", source, re.MULTILINE)
        return match.group(1).decode("ascii", "replace") if match else None

    def path_in_record(self, path: Path) -> str:
        """How a RECORD names a file."""
        return path.relative_to(self.site_packages).as_posix()
