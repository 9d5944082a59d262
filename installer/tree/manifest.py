"""
What we ship, and how we know it again in somebody's tree.

The installed folder carries a manifest of the files that were put there, so that any version of the installer, earlier
or later, can tell by hash what is ours and untouched.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from ..shipped import payload_files

MANIFEST_NAME = "aether-install.json"
"""File name of the manifest inside that folder."""

_PLAIN_PATH = re.compile(r"(?:\w+/)*\w+(?:\.\w+)*", re.ASCII)
"""
Paths that every system reads as leading downwards: no drive, share, root, ``..``, backslash, colon, device or blank.
"""


def sha256(data: bytes) -> str:
    """The SHA-256 of some bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Manifest:
    """
    The record of one installed payload.

    Attributes:
        version: of the payload.
        files: SHA-256 of each file by its path inside the architecture's folder, with forward slashes.
    """

    version: str
    files: Mapping[str, str]

    def encode(self) -> bytes:
        """The manifest as it is written."""
        content = {"installer": "aether-install", "version": self.version, "files": dict(self.files)}
        return json.dumps(content, indent=2).encode() + b"\n"

    @staticmethod
    def decode(data: bytes) -> Manifest | None:
        """Reads a manifest; None if it is not one of ours, or was edited beyond recognition."""
        try:
            content = json.loads(data)
            files = {str(path): str(digest) for path, digest in content["files"].items()}
            version = str(content["version"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        is_ours = content.get("installer") == "aether-install" and all(map(_PLAIN_PATH.fullmatch, files))
        return Manifest(version, files) if is_ours else None


@dataclass(frozen=True)
class Payload:
    """
    The files of an architecture as this version of the installer ships them.

    Attributes:
        files: content of each file by its path inside the architecture's folder, with forward slashes.
    """

    files: Mapping[str, bytes]

    @cached_property
    def version(self) -> str:
        """The payload's own version, which changes only when the files do."""
        match = re.search(rb'^__version__ = "([^"]+)"', self.files["__init__.py"], re.MULTILINE)
        return match.group(1).decode() if match else "unknown"

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest that belongs beside these files."""
        return Manifest(self.version, {path: sha256(data) for path, data in self.files.items()})

    @cached_property
    def installed_files(self) -> Mapping[str, bytes]:
        """What the architecture's folder holds once installed, in the order in which it is written: manifest first."""
        return {MANIFEST_NAME: self.manifest.encode(), **self.files}


def shipped_payload() -> Payload:
    """Reads the payload that this version of the installer ships."""
    return Payload(payload_files())
