"""
Files in which applications and their launchers note where they were put, and how to read each.

They are anybody's: a reader takes what it understands and passes over the rest. What they name need not be there.
"""

from __future__ import annotations

import configparser
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from .system import System


class Sure(IntEnum):
    """
    How surely something is found again on the same machine, the surest first.

    ``NOTED`` in a file or a known place, ``EXPLORED`` as far as there was time to, ``RUNNING`` for as long as its
    process does, ``AT_HAND`` where this program was started, ``NAMED`` by the user.
    """

    NOTED = 0
    EXPLORED = 1
    RUNNING = 2
    AT_HAND = 3
    NAMED = 4


@dataclass(frozen=True)
class Lead:
    """
    A folder in which a host may live.

    Attributes:
        folder: that folder.
        kind: the id or the name of the kind of host, where it is known.
        python: its interpreter, where that is not in its usual place.
        models: where its upscale models go, likewise.
        found_by: what led here.
        sure: how surely another run is led here.
    """

    folder: Path
    kind: str | None = None
    python: Path | None = None
    models: Path | None = None
    found_by: str = ""
    sure: Sure = Sure.NOTED


@dataclass(frozen=True)
class Configuration:
    """
    A file that tells where hosts are.

    Attributes:
        places: where it is, as ``System.places`` takes them; a relative one is in the host's own folder.
        read: what its text leads to; also given the file's path.
    """

    places: tuple[str, ...]
    read: Callable[[System, str, Path], Iterator[Lead]]


def as_json(text: str) -> Any:
    """What a JSON file holds; None if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _entry(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _list(value: Any) -> list[Any]:
    return value[:1000] if isinstance(value, list) else []


def _comfy_desktop(system: System, text: str, _: Path) -> Iterator[Lead]:
    records = as_json(text)
    for record in _list(_entry(records, "installations") if isinstance(records, dict) else records):
        folder = system.path(_entry(record, "installPath"))
        python = system.path(_entry(record, "adoptedPythonPath"))
        if folder:
            yield Lead(folder, python=python if _entry(record, "adopted") else None)


def _comfyui_desktop_1(system: System, text: str, path: Path) -> Iterator[Lead]:
    if path.suffix == ".json":
        noted = [_entry(as_json(text), "basePath")]
    else:
        # YAML, of which one value is wanted: `comfyui_desktop:` or `comfyui:`, and indented below it `base_path:`.
        noted, section = [], ""
        for line in text.splitlines():
            name, _, value = line.partition(":")
            if line[:1] not in (" ", "\t", "#"):
                section = name.strip()
            elif name.strip() == "base_path" and section in ("comfyui_desktop", "comfyui"):
                noted.append(value.strip().strip("'\""))
    yield from (Lead(folder) for base in noted if (folder := system.path(base)))


def _invokeai(system: System, text: str, _: Path) -> Iterator[Lead]:
    if folder := system.path(_entry(as_json(text), "installDir")):
        yield Lead(folder)


def _chainner(system: System, text: str, path: Path) -> Iterator[Lead]:
    settings = as_json(text)
    python = system.path(_entry(settings, "systemPythonLocation")) if _entry(settings, "useSystemPython") else None
    yield Lead(path.parent, python=python)


def _krita(system: System, text: str, _: Path) -> Iterator[Lead]:
    if folder := system.path(_entry(as_json(text), "server_path")):
        yield Lead(folder)


def _swarmui_backends(system: System, text: str, path: Path) -> Iterator[Lead]:
    for line in text.splitlines():
        name, _, value = line.strip().partition(":")
        if name == "StartScript":
            value = value.strip().replace("\\", "/")
            script = system.path(value) or path.parents[1] / value
            yield Lead(Path(script).parent, "comfyui")


def _stability_matrix_library(system: System, text: str, _: Path) -> Iterator[Lead]:
    if library := system.path(_entry(as_json(text), "LibraryPath")):
        yield from _stability_matrix_settings(system, system.read(library / "settings.json") or "", library / "-")


_STABILITY_MATRIX_PACKAGES = {
    "comfyui": "comfyui",
    "comfyui-zluda": "comfyui",
    "stable-diffusion-webui": "a1111",
    "stable-diffusion-webui-forge": "forge",
    "forge-classic": "forge",
    "forge-neo": "forge",
    "reforge": "reforge",
    "automatic": "sdnext",
    "invokeai": "invokeai",
}


def _stability_matrix_settings(system: System, text: str, path: Path) -> Iterator[Lead]:
    library = path.parent
    for package in _list(_entry(as_json(text), "InstalledPackages")):
        place = _entry(package, "LibraryPath")
        name = str(_entry(package, "PackageName")).lower()
        if isinstance(place, str) and "\0" not in place:
            folder = system.path(place) or library / place.replace("\\", "/").lstrip("/")
            kind = _STABILITY_MATRIX_PACKAGES.get(name)
            shared = library / "Models" / "ESRGAN"
            uses_folders = kind in ("comfyui", "a1111", "forge", "reforge")
            yield Lead(folder, kind, models=shared if uses_folders else None)


def _pinokio(system: System, text: str, _: Path) -> Iterator[Lead]:
    if home := system.path(_entry(as_json(text), "home")):
        for folder in system.places("api/*/app", home):
            yield Lead(folder, "comfyui" if "comfy" in folder.parent.name.lower() else None)


def _comfy_cli(system: System, text: str, _: Path) -> Iterator[Lead]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return
    for name in ("default_workspace", "recent_workspace"):
        if folder := system.path(parser.defaults().get(name)):
            yield Lead(folder, "comfyui")


COMFY_DESKTOP = Configuration(
    ("{appdata}/Comfy Desktop/installations.json", "{data}/comfyui-desktop-2/installations.json"), _comfy_desktop
)
COMFYUI_DESKTOP_1 = Configuration(
    ("{appdata}/ComfyUI/config.json", "{appdata}/ComfyUI/extra_models_config.yaml"), _comfyui_desktop_1
)
INVOKEAI_LAUNCHER = Configuration(("{appdata}/Invoke Community Edition/config.json",), _invokeai)
CHAINNER = Configuration(("{appdata}/chaiNNer/settings.json", "settings.json"), _chainner)
KRITA = Configuration(
    ("{data}/krita/ai_diffusion/settings.json", "{data}/krita-ai-diffusion/settings.json"),
    _krita,
)
SWARMUI_BACKENDS = Configuration(("Data/Backends.fds",), _swarmui_backends)

LAUNCHERS = (
    Configuration(("{appdata}/StabilityMatrix/library.json",), _stability_matrix_library),
    Configuration(
        ("{home}/StabilityMatrix/Data/settings.json", "{home}/StabilityMatrix/settings.json"),
        _stability_matrix_settings,
    ),
    Configuration(("{home}/.pinokio/config.json",), _pinokio),
    Configuration(("{local}/comfy-cli/config.ini",), _comfy_cli),
)
"""Files of programs that install applications of several kinds."""

LAUNCHER_PLACES = (
    "{PINOKIO_HOME}/api/*/app",
    "{home}/pinokio/api/*/app",
    "{appdata}/StabilityMatrix/Packages/*",
    "{home}/StabilityMatrix/Data/Packages/*",
)
"""Where such programs put them if nothing else was chosen."""
