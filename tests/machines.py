"""A machine with applications as their installers lay them out: real virtual environments, real spandrels."""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest
from environments import Environment, make_environment, wheel


def touch(folder: Path, *names: str) -> Path:
    """Makes empty files, or folders where a name ends with a slash, and the folders around them."""
    for name in names:
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return folder


def note(path: Path, content: object) -> None:
    """Writes a configuration file: text as it is, anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def at_home_in(home: Path) -> dict[str, str | None]:
    """How environment variables differ where a folder is home, and nobody's settings but those in it count."""
    others = (name for name in os.environ if name.startswith(("XDG_", "INVOKEAI", "PINOKIO", "ONEDRIVE")))
    application_data = {"APPDATA": str(home / "AppData" / "Roaming"), "LOCALAPPDATA": str(home / "AppData" / "Local")}
    ours = {"USERPROFILE": str(home), **application_data} if os.name == "nt" else {"HOME": str(home)}
    return {**dict.fromkeys(others), **ours}


def live_in(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a folder be home to this process for a while."""
    for name, value in at_home_in(home).items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)


def environment_in(home: Path) -> dict[str, str]:
    """All environment variables of a program for which a folder is home."""
    return {name: value for name, value in {**os.environ, **at_home_in(home)}.items() if value is not None}


def standalone_python(root: Path) -> Environment:
    """A Python that is no virtual environment, such as portables ship, and imports the user's own packages too."""
    home = Path(sys.base_prefix)
    library = Path(sysconfig.get_path("stdlib"))
    made = touch(root / "lib" / library.name, "site-packages/")
    for path in library.iterdir():
        if path.name != "site-packages":
            (made / path.name).symlink_to(path)
    (root / "bin").mkdir()
    shutil.copy(home / "bin" / library.name, root / "bin" / "python")
    return Environment(root)


COMFYUI = ("main.py", "nodes.py", "comfy/", "comfy_extras/", "comfy_api/", "models/upscale_models/")
WEBUI = ("webui.py", "launch.py", "modules/launch_utils.py", "webui-user.sh", "models/ESRGAN/")


@dataclass
class Machine:
    """
    Applications in a home of their own, of which there are none on a system but those that live on Linux too.

    Attributes:
        root: holds the home, and a disk besides.
        versions: the version of spandrel in each application, by its id.
        folders: where each lives, by its id.
    """

    root: Path
    versions: dict[str, str]
    folders: dict[str, Path]

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def variables(self) -> dict[str, str | None]:
        """How environment variables differ where this machine's applications are found, and no others' settings."""
        return at_home_in(self.home)

    @property
    def environment(self) -> dict[str, str]:
        """All environment variables of a program that finds this machine's applications."""
        return environment_in(self.home)

    def spandrel(self, host: str) -> Path:
        """The folder of an application's spandrel."""
        folder = self.folders[host]
        return next(path.parent for path in sorted(folder.rglob("spandrel/__init__.py")))

    def python(self, host: str) -> Path:
        """The interpreter of an application."""
        return Environment(self.spandrel(host).parents[2 if os.name == "nt" else 3]).python


def machine_with_fourteen_hosts(root: Path) -> Machine:
    """All kinds that live on Linux, as their installers, launchers and users put them there."""
    home, disk = root / "home", root / "disk"
    settings, data = home / ".config", home / ".local" / "share"
    if os.name == "nt":
        settings = data = home / "AppData" / "Roaming"
    local = home / "AppData" / "Local" if os.name == "nt" else settings
    machine = Machine(root, {}, {})

    def host(name: str, folder: Path, version: str, environment: str, *names: str) -> None:
        touch(folder, *names)
        make_environment(folder / environment, version)
        machine.versions[name], machine.folders[name] = version, folder

    host("comfyui-4", home / "ComfyUI", "0.4.2", "venv", *COMFYUI)
    host("comfyui-5", home / "ComfyUI-Installs" / "main", "0.4.2", "ComfyUI/.venv", "manifest.json", "standalone-env/")
    touch(machine.folders["comfyui-5"] / "ComfyUI", *COMFYUI)
    touch(home / "ComfyUI-Shared", "models/upscale_models/")
    note(data / "comfyui-desktop-2" / "installations.json", [{"installPath": str(machine.folders["comfyui-5"])}])
    host("comfyui", disk / "Matrix" / "Packages" / "ComfyUI", "0.4.1", "venv", *COMFYUI)
    touch(disk / "Matrix", "Models/ESRGAN/")
    note(settings / "StabilityMatrix" / "library.json", {"LibraryPath": str(disk / "Matrix")})
    packages = [("ComfyUI", "ComfyUI"), ("reforge", "reForge")]
    note(
        disk / "Matrix" / "settings.json",
        {"InstalledPackages": [{"PackageName": n, "LibraryPath": f"Packages\\{f}"} for n, f in packages]},
    )
    host("comfyui-2", disk / "pinokio" / "api" / "comfy.git" / "app", "0.4.2", "env", *COMFYUI)
    note(home / ".pinokio" / "config.json", {"home": str(disk / "pinokio")})
    host("comfyui-3", disk / "work" / "space here" / "ComfyUI", "0.4.2", ".venv", *COMFYUI)
    note(
        local / "comfy-cli" / "config.ini",
        f"[DEFAULT]\ndefault_workspace = {machine.folders['comfyui-3']}\nrecent_workspace = {disk / 'gone'}\n",
    )
    host("chainner", settings / "chaiNNer", "0.4.1", "python/python")
    note(machine.folders["chainner"] / "settings.json", {"useSystemPython": False})
    host("forge", home / "apps" / "forge", "0.3.4", "venv", *WEBUI, "modules_forge/")
    host("reforge", disk / "Matrix" / "Packages" / "reForge", "0.4.1", "venv", *WEBUI, "modules_forge/")
    host("sdnext", home / "Documents" / "sdnext", "0.4.2", "venv", *WEBUI, "installer.py")
    host("a1111", home / "stable-diffusion-webui", "0.3.4", "venv", *WEBUI)
    host("invokeai", disk / "invoke", "0.4.2", ".venv", "invokeai.yaml", "databases/")
    note(settings / "Invoke Community Edition" / "config.json", {"installDir": str(machine.folders["invokeai"])})
    host(
        "krita",
        data / "krita" / "ai_diffusion" / "server",
        "0.4.2",
        "venv",
        ".version",
        "uv/",
        "models/upscale_models/",
    )
    touch(machine.folders["krita"] / "ComfyUI", *COMFYUI)
    host("swarmui", home / "SwarmUI", "0.4.2", "dlbackend/ComfyUI/venv", "src/SwarmUI.csproj", "Models/upscale_models/")
    touch(machine.folders["swarmui"] / "dlbackend" / "ComfyUI", *COMFYUI)
    vendored = touch(home / "vapoursynth", "vsspandrel/spandrel/libs/spandrel/")
    shutil.unpack_archive(wheel("0.4.2"), vendored / "vsspandrel/spandrel/libs/spandrel", "zip")
    machine.versions["vs-spandrel"], machine.folders["vs-spandrel"] = "0.4.2", vendored
    return machine
