"""
RECORD, the list of an installed distribution's files by which pip and uv uninstall it, edited as bytes.

Rows that are none of our business keep every byte. Source of the format:
https://packaging.python.org/en/latest/specifications/recording-installed-packages/
"""

from __future__ import annotations

import csv
import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath, PureWindowsPath

_REGISTRY = b"/__helpers/main_registry.py"
"""Below spandrel's package; how its row names it, all are named."""


def row(path: str, data: bytes) -> bytes:
    """The row, without a line end, for a file of this content; ``path`` as that RECORD has them."""
    digest = urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    if "," in path or '"' in path:
        path = '"' + path.replace('"', '""') + '"'
    return f"{path},sha256={digest},{len(data)}".encode("utf-8", "surrogateescape")


def rows(record: bytes) -> dict[str, bytes]:
    """The rows by path relative to site-packages, without their line ends."""
    lines, root = (line.rstrip(b"\r\n") for line in record.splitlines(keepends=True)), _root_of(record)
    return {_path_of(line).removeprefix(root): line for line in lines if line}


def lists(record: bytes, files: Mapping[str, bytes]) -> bool:
    """Whether a RECORD has the rows for files of these contents, by their paths relative to site-packages."""
    listed, root = rows(record), _root_of(record)
    return all(listed.get(path) == row(root + path, data) for path, data in files.items())


def edited(record: bytes, *, without: Collection[str] = (), files: Mapping[str, bytes] | None = None) -> bytes:
    """
    Returns a RECORD with rows taken out and others put in.

    Args:
        without: paths whose rows go, relative to site-packages like those of ``files``.
        files: contents by the path whose row is replaced where it stands, or else appended.
    """
    root = _root_of(record)
    without = {root + path for path in without}
    lines = [line for line in record.splitlines(keepends=True) if _path_of(line.rstrip(b"\r\n")) not in without]
    newline = b"\r\n" if record.partition(b"\n")[0].endswith(b"\r") else b"\n"
    missing = {root + path: row(root + path, data) for path, data in (files or {}).items()}
    result: list[bytes] = []
    for line in lines:
        content = line.rstrip(b"\r\n")
        replacement = missing.pop(_path_of(content), None) if content else None
        result.append(line if replacement is None else replacement + line[len(content) :])
    if missing and result and not result[-1].endswith((b"\n", b"\r")):
        result[-1] += newline
    result += [added + newline for added in missing.values()]
    return b"".join(result)


def _root_of(record: bytes) -> str:
    """What stands before every path, where they are absolute ones: some installers write site-packages there."""
    for line in record.splitlines():
        if _REGISTRY in line.replace(b"\\", b"/"):
            path = _path_of(line)
            root = path.rpartition(_REGISTRY.decode())[0].rpartition("/")[0]
            if PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute():
                return f"{root}/"
    return ""


def _path_of(line: bytes) -> str:
    text = line.decode("utf-8", "surrogateescape")
    path = text.partition(",")[0]
    if text.startswith('"'):
        try:
            path = next(csv.reader([text]))[0]
        except csv.Error:  # a damaged row, which is nobody's
            return ""
    return path.replace("\\", "/")
