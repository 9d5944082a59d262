"""The places inside a spandrel that matter to us."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..shipped import ARCHITECTURE


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
