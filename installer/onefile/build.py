"""
Builds the one file that any Python runs, from the package's wheel and the pinned wheels of what it requires.

It is an application archive of the standard library (``zipapp``), from which modules are imported in place. Files of
shiv and pex unpack themselves into the user's home folder first. The same wheels give the same bytes, whenever and
wherever it is built.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

_HERE = Path(__file__).parent
_SHEBANG = b"#!/usr/bin/env python3\n"
_EARLIEST = (1980, 1, 1, 0, 0, 0)


def build(wheel: Path, cache: Path, output: Path) -> None:
    """
    Writes the archive.

    Args:
        wheel: of aether-install.
        cache: the folder that keeps what was downloaded.
        output: the file to write.

    Raises:
        CalledProcessError: a wheel is not to be had, or is not the one whose hash is pinned.
    """
    content = {"__main__.py": (_HERE / "__main__.py").read_bytes()}
    for source in (wheel, *_downloaded(_HERE / "requirements.txt", cache)):
        content.update(_content(source))
    with open(output, "wb") as file:
        file.write(_SHEBANG)
        with ZipFile(file, "w", ZIP_DEFLATED, compresslevel=9) as archive:
            for name, data in sorted(content.items()):
                entry = ZipInfo(name, _EARLIEST)
                entry.compress_type = ZIP_DEFLATED
                entry.create_system = 3  # Unix, for the mode that follows, on every system.
                entry.external_attr = 0o100644 << 16
                archive.writestr(entry, data)
    output.chmod(0o755)


def _downloaded(requirements: Path, cache: Path) -> list[Path]:
    """The wheels that a file pins, each with the hash that it gives."""
    names = [line.partition(" ")[0] for line in requirements.read_text().splitlines() if "==" in line]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    download = [*pip, "download", "--require-hashes", "--no-deps", "--only-binary", ":all:", "--dest", str(cache)]
    from_cache = [*download, "--no-index", "--find-links", str(cache), "--requirement", str(requirements)]
    if subprocess.run(from_cache, capture_output=True, check=False).returncode != 0:
        subprocess.run([*download, "--requirement", str(requirements)], check=True)
    return [_wheel_of(name, cache) for name in names]


def _wheel_of(requirement: str, cache: Path) -> Path:
    name, _, version = requirement.partition("==")
    (path,) = cache.glob(f"{name.replace('-', '_')}-{version}-*.whl")
    return path


def _content(wheel: Path) -> Iterator[tuple[str, bytes]]:
    """
    Modules and licences of a wheel, by name.

    Not the folder that tells package managers of it: it would be found by whatever asks for what is installed, as torch
    does.
    """
    with ZipFile(wheel) as archive:
        for name in archive.namelist():
            folder, _, inside = name.partition("/")
            package = folder.removesuffix(".dist-info")
            if package == folder:
                yield name, archive.read(name)
            elif "LICEN" in inside.upper():
                yield f"licenses/{package}/{inside.rpartition('/')[2]}", archive.read(name)


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
