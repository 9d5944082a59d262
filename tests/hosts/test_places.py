"""Where hosts live on each system, told as data: a pretended Windows, macOS and Linux, whatever runs this."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from environments import wheel
from machines import COMFYUI, WEBUI, note, touch

from aether_install.hosts.discovery import Host, discover
from aether_install.hosts.environment import python_in, spandrel_of
from aether_install.hosts.kinds import KINDS
from aether_install.hosts.processes import Process, parse_ps
from aether_install.hosts.selection import resolve
from aether_install.hosts.system import System


@dataclass(frozen=True)
class Pretended(System):
    """A system whose disks are folders: ``C:\\x`` and ``/x`` in a configuration file are folders below ``disk``."""

    disk: Path = field(default=Path())

    def path(self, text: object) -> Path | None:
        if not isinstance(text, str):
            return None
        match = re.match(r"([A-Z]):[\\/](.*)", text) or re.match(r"()/(.*)", text)
        return self.disk / match.group(1) / match.group(2).replace("\\", "/") if match else None


def windows(root: Path) -> Pretended:
    """A Windows of one user and two drives."""
    variables = {
        "APPDATA": r"C:\Users\me\AppData\Roaming",
        "LOCALAPPDATA": r"C:\Users\me\AppData\Local",
        "OneDrive": r"C:\Users\me\OneDrive",
    }
    touch(root, "C/Users/me/", "D/")
    return Pretended("windows", variables, root / "C" / "Users" / "me", (root / "C", root / "D"), disk=root)


def macos(root: Path) -> Pretended:
    touch(root, "Users/me/", "Applications/")
    return Pretended("macos", {}, root / "Users" / "me", (root / "Applications",), disk=root)


def linux(root: Path) -> Pretended:
    touch(root, "home/me/")
    return Pretended("linux", {}, root / "home" / "me", disk=root)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One spandrel that all environments here link to."""
    folder = tmp_path_factory.mktemp("unpacked")
    shutil.unpack_archive(wheel("0.4.1"), folder, "zip")
    return folder / "spandrel"


def give(site_packages: Path, spandrel: Path) -> None:
    """Puts a spandrel into a folder, as a link but on Windows."""
    if os.name == "nt":
        shutil.copytree(spandrel, site_packages / "spandrel")
    else:
        (site_packages / "spandrel").symlink_to(spandrel)


def standalone_python(folder: Path, spandrel: Path) -> None:
    """A Python for Windows that is no virtual environment."""
    touch(folder, "python.exe", "Lib/site-packages/")
    give(folder / "Lib" / "site-packages", spandrel)


def embedded_python(folder: Path, spandrel: Path) -> None:
    """Python's embeddable package, as portables ship it."""
    standalone_python(folder, spandrel)
    note(folder / "python313._pth", "../ComfyUI\npython313.zip\n.\n\n# Uncomment\nimport site\n")


def windows_venv(folder: Path, spandrel: Path) -> None:
    touch(folder, "Scripts/python.exe", "Lib/site-packages/")
    note(folder / "pyvenv.cfg", "home = C:\\Python312\nversion = 3.12.1\n")
    give(folder / "Lib" / "site-packages", spandrel)


def venv(folder: Path, spandrel: Path) -> None:
    touch(folder, "bin/python", "lib/python3.12/site-packages/")
    note(folder / "pyvenv.cfg", "home = /usr/bin\nversion = 3.12.1\n")
    give(folder / "lib" / "python3.12" / "site-packages", spandrel)


def by_id(system: System, *search: Path) -> dict[str, Host]:
    return {host.id: host for host in discover(search, system).hosts}


def test_windows(tmp_path: Path, unpacked: Path) -> None:
    system = windows(tmp_path)
    home, roaming = system.home, system.home / "AppData" / "Roaming"
    portable = touch(tmp_path / "D" / "AI" / "ComfyUI_windows_portable", "run_nvidia_gpu.bat", "update/")
    touch(portable / "ComfyUI", *COMFYUI)
    embedded_python(portable / "python_embeded", unpacked)
    desktop = touch(home / "OneDrive" / "Documents" / "ComfyUI", "uv-cache/", "models/upscale_models/", "user/")
    windows_venv(desktop / ".venv", unpacked)
    note(roaming / "ComfyUI" / "config.json", {"basePath": r"C:\Users\me\OneDrive\Documents\ComfyUI"})
    second = touch(tmp_path / "D" / "far" / "away" / "from" / "all", "models/", "user/")
    windows_venv(second / ".venv", unpacked)
    section = "comfyui_desktop:\n  is_default: true\n  base_path: 'D:\\far\\away\\from\\all'\n"
    note(roaming / "ComfyUI" / "extra_models_config.yaml", f"# made by it\n{section}other:\n  base_path: C:\\\n")
    new = home / "AppData" / "Local" / "Comfy-Desktop" / "ComfyUI-Installs" / "Work"
    touch(new, "standalone-env/", "manifest.json")
    touch(new / "ComfyUI", *COMFYUI)
    windows_venv(new / "ComfyUI" / ".venv", unpacked)
    touch(new.parents[1] / "ComfyUI-Shared", "models/upscale_models/")
    adopted = touch(tmp_path / "D" / "old" / "one" / "that" / "was" / "ComfyUI", *COMFYUI)
    standalone_python(tmp_path / "D" / "conda" / "envs" / "comfy", unpacked)
    record = {"installPath": r"D:\old\one\that\was\ComfyUI", "adopted": True}
    record["adoptedPythonPath"] = r"D:\conda\envs\comfy\python.exe"
    note(roaming / "Comfy Desktop" / "installations.json", [record])
    chainner = touch(roaming / "chaiNNer")
    standalone_python(chainner / "python" / "python", unpacked)
    note(chainner / "settings.json", {"useSystemPython": False, "systemPythonLocation": None})
    forge = touch(
        home / "Downloads" / "webui_forge_cu121_torch231", "run.bat", "environment.bat", "webui/modules_forge/"
    )
    touch(forge / "webui", *WEBUI)
    standalone_python(forge / "system" / "python", unpacked)
    a1111 = touch(tmp_path / "C" / "sd.webui", "run.bat")
    touch(a1111 / "webui", *WEBUI)
    standalone_python(a1111 / "system" / "python", unpacked)
    swarm = touch(tmp_path / "D" / "SwarmUI", "src/SwarmUI.csproj", "Models/upscale_models/")
    touch(swarm / "dlbackend" / "comfy" / "ComfyUI", *COMFYUI)
    embedded_python(swarm / "dlbackend" / "comfy" / "python_embeded", unpacked)
    krita = touch(tmp_path / "D" / "krita server", "ComfyUI/", ".version", "uv/", "models/upscale_models/")
    windows_venv(krita / "venv", unpacked)
    note(roaming / "krita" / "ai_diffusion" / "settings.json", {"server_path": "D:\\krita server"})
    manga = touch(roaming / "MangaJaNaiConverterGui", "appstate2.json", "models/")
    standalone_python(manga / "python" / "python", unpacked)
    matrix = tmp_path / "D" / "Matrix" / "Data"
    note(roaming / "StabilityMatrix" / "library.json", {"LibraryPath": "D:\\Matrix\\Data"})
    note(
        matrix / "settings.json",
        {"InstalledPackages": [{"PackageName": "automatic", "LibraryPath": "Packages\\SD.Next"}, {"PackageName": 1}]},
    )
    touch(matrix / "Packages" / "SD.Next", *WEBUI, "installer.py")
    windows_venv(matrix / "Packages" / "SD.Next" / "venv", unpacked)

    hosts = by_id(system)
    assert {(host.kind.id, host.kind.name, host.folder) for host in hosts.values()} == {
        ("comfyui", "ComfyUI, portable", portable),
        ("comfyui", "ComfyUI desktop, to 0.9", desktop),
        ("comfyui", "ComfyUI desktop, to 0.9", second),
        ("comfyui", "Comfy Desktop", new),
        ("comfyui", "ComfyUI", adopted),
        ("chainner", "chaiNNer", chainner),
        ("forge", "Forge, one-click package", forge),
        ("a1111", "A1111, sd.webui.zip", a1111),
        ("swarmui", "SwarmUI", swarm),
        ("krita", "Krita AI Diffusion", krita),
        ("mangajanai", "MangaJaNai Converter", manga),
        ("sdnext", "SD.Next", matrix / "Packages" / "SD.Next"),
    }
    for host in hosts.values():
        assert host.spandrel is not None, host.folder
        assert host.spandrel.version == "0.4.1"
        assert host.state == "absent"
    pythons = {host.folder: host.python for host in hosts.values()}
    assert pythons[portable] == portable / "python_embeded" / "python.exe"
    assert pythons[desktop] == desktop / ".venv" / "Scripts" / "python.exe"
    assert pythons[adopted] == tmp_path / "D" / "conda" / "envs" / "comfy" / "python.exe"
    assert pythons[swarm] == swarm / "dlbackend" / "comfy" / "python_embeded" / "python.exe"
    models = {host.folder: host.models for host in hosts.values()}
    assert models[portable] == portable / "ComfyUI" / "models" / "upscale_models"
    assert models[forge] == forge / "webui" / "models" / "ESRGAN"
    assert models[manga] == manga / "models"


@pytest.mark.not_on_windows("a path of macOS has no drive")
def test_macos(tmp_path: Path, unpacked: Path) -> None:
    system = macos(tmp_path)
    library = system.home / "Library" / "Application Support"
    chainner = library / "chaiNNer"
    venv(chainner / "python" / "python", unpacked)
    note(chainner / "settings.json", {})
    invoke = touch(tmp_path / "Volumes" / "Big" / "invoke ai", "invokeai.yaml", "databases/")
    venv(invoke / ".venv", unpacked)
    note(library / "Invoke Community Edition" / "config.json", {"installDir": "/Volumes/Big/invoke ai"})
    comfy = touch(system.home / "Documents" / "comfy" / "ComfyUI", *COMFYUI)
    venv(comfy / ".venv", unpacked)
    note(library / "comfy-cli" / "config.ini", "[DEFAULT]\ndefault_workspace=/Users/me/Documents/comfy/ComfyUI\n")
    desktop = touch(system.home / "Documents" / "ComfyUI", "uv-cache/", "models/", "user/")
    venv(desktop / ".venv", unpacked)
    note(library / "ComfyUI" / "config.json", {"basePath": "/Users/me/Documents/ComfyUI"})
    krita = touch(library / "krita" / "ai_diffusion" / "server", ".version", "ComfyUI/", "uv/")
    venv(krita / "venv", unpacked)
    new = touch(system.home / "ComfyUI-Installs" / "Default", "manifest.json", "standalone-env/")
    touch(new / "ComfyUI", *COMFYUI)
    venv(new / "ComfyUI" / ".venv", unpacked)
    pinokio = touch(tmp_path / "Volumes" / "Big" / "pinokio" / "api" / "comfyui.git" / "app", *COMFYUI)
    venv(pinokio / "env", unpacked)
    note(system.home / ".pinokio" / "config.json", {"home": "/Volumes/Big/pinokio"})

    hosts = by_id(system)
    assert {(host.kind.name, host.folder) for host in hosts.values()} == {
        ("chaiNNer", chainner),
        ("InvokeAI", invoke),
        ("ComfyUI", comfy),
        ("ComfyUI desktop, to 0.9", desktop),
        ("Krita AI Diffusion", krita),
        ("Comfy Desktop", new),
        ("ComfyUI", pinokio),
    }
    assert all(host.spandrel and host.spandrel.version == "0.4.1" for host in hosts.values())
    assert hosts["invokeai"].python == invoke / ".venv" / "bin" / "python"


def test_variables_name_places_too(tmp_path: Path, unpacked: Path) -> None:
    system = linux(tmp_path)
    invoke = touch(tmp_path / "srv" / "invoke", "invokeai.yaml")
    venv(invoke / ".venv", unpacked)
    pinokio = touch(tmp_path / "srv" / "pinokio" / "api" / "comfy.git" / "app", *COMFYUI)
    venv(pinokio / "env", unpacked)
    chainner = tmp_path / "settings" / "chaiNNer"
    venv(tmp_path / "opt" / "own", unpacked)
    note(chainner / "settings.json", {"useSystemPython": True, "systemPythonLocation": "/opt/own/bin/python"})
    assert not by_id(system)
    variables = {"INVOKEAI_ROOT": "/srv/invoke", "PINOKIO_HOME": "/srv/pinokio", "XDG_CONFIG_HOME": "/settings"}
    hosts = by_id(Pretended("linux", variables, system.home, disk=tmp_path))
    assert {name: host.folder for name, host in hosts.items()} == {
        "invokeai": invoke,
        "comfyui": pinokio,
        "chainner": chainner,
    }
    assert hosts["chainner"].python == tmp_path / "opt" / "own" / "bin" / "python"


def test_a_python_that_is_noted_counts_wherever_one_is(tmp_path: Path, unpacked: Path) -> None:
    """Where a folder holds an environment of its own, which its application does not use."""
    system = linux(tmp_path)
    folder = touch(tmp_path / "srv" / "ComfyUI", *COMFYUI)
    for place in (folder / ".venv", tmp_path / "opt" / "own"):
        venv(place, unpacked)
    record = {"installPath": "/srv/ComfyUI", "adopted": True, "adoptedPythonPath": "/opt/own/bin/python"}
    note(system.home / ".local" / "share" / "comfyui-desktop-2" / "installations.json", [record])
    inside = folder / "models" / "upscale_models"
    for python in (None, folder / ".venv" / "bin" / "python"):
        machine = Pretended("linux", {}, system.home, python=python, folder=inside, disk=tmp_path)
        found = discover(system=machine)
        assert found.here == found.hosts[0]
        assert found.here.python == tmp_path / "opt" / "own" / "bin" / "python"


def test_what_swarmui_starts_is_found(tmp_path: Path, unpacked: Path) -> None:
    system = linux(tmp_path)
    swarm = touch(system.home / "SwarmUI", "src/SwarmUI.csproj", "dlbackend/")
    venv(swarm / "dlbackend" / "ComfyUI" / "venv", unpacked)
    own = touch(tmp_path / "very" / "far" / "ComfyUI", *COMFYUI)
    venv(own / "venv", unpacked)
    note(
        swarm / "Data" / "Backends.fds",
        "0:\n\ttype: comfyui_selfstart\n\tsettings:\n\t\tStartScript: /very/far/ComfyUI/main.py\n",
    )
    hosts = by_id(system)
    assert {name: host.folder for name, host in hosts.items()} == {"comfyui": own, "swarmui": swarm}
    assert hosts["comfyui"].found_by == str(swarm / "Data" / "Backends.fds")


def test_a_host_that_is_not_like_others_is_one_if_it_is_noted_and_has_a_python(tmp_path: Path, unpacked: Path) -> None:
    system = linux(tmp_path)
    bare = touch(tmp_path / "srv" / "comfy")
    note(system.home / ".config" / "comfy-cli" / "config.ini", "[DEFAULT]\nrecent_workspace = /srv/comfy\n")
    assert not by_id(system)
    venv(bare / ".venv", unpacked)
    assert by_id(system)["comfyui"].folder == bare


def test_every_kind_is_recognised_by_its_own_record(tmp_path: Path) -> None:
    """Each record's markers lead to that record, and its places and models to somewhere inside what it says."""
    for number, kind in enumerate(KINDS):
        for which, marker in enumerate(kind.markers):
            folder = tmp_path / f"{number}-{which}-{kind.named}"
            touch(folder, *(path.replace("*", "x") + "/" for path in marker))
            hosts = discover([folder], Pretended("linux", {}, tmp_path / "nobody", disk=tmp_path)).hosts
            assert [host.kind for host in hosts] == [kind], marker
        assert kind.restart
        assert kind.environments or kind.vendored
        assert kind.models or kind.models_by or not kind.usable
        assert kind.suffixes or not kind.usable


@pytest.mark.parametrize("platform", ["windows", "macos", "linux"])
def test_a_running_process_tells_the_python_of_its_host(tmp_path: Path, unpacked: Path, platform: str) -> None:
    """As where ComfyUI runs in conda, whose environment is somewhere else."""
    make = {"windows": windows, "macos": macos, "linux": linux}[platform]
    folder = touch(tmp_path / "elsewhere" / "ComfyUI", *COMFYUI)
    conda = tmp_path / "conda" / "envs" / "comfy"
    (standalone_python if platform == "windows" else venv)(conda, unpacked)
    python = conda / ("python.exe" if platform == "windows" else "bin/python")
    system = make(tmp_path)
    for process in (
        Process(7, python, (str(folder / "main.py"), "--listen")),
        Process(7, python, ("-s", "main.py"), folder),
        Process(7, python, ("-u", "./ComfyUI/main.py"), folder.parent, system.home),
    ):
        hosts = by_id(Pretended(system.platform, {}, system.home, processes=lambda p=process: [p], disk=tmp_path))  # type: ignore[misc]
        assert (hosts["comfyui"].folder, hosts["comfyui"].python) == (folder, python)
        assert hosts["comfyui"].running == (process,)
        assert hosts["comfyui"].spandrel is not None
    for process in (
        Process(7, python, ("-m", "http.server"), folder),
        Process(7, python, ("main.py",)),
        Process(7, python, (str(tmp_path / "main.py"),)),
        Process(7, python, (str(folder / "main.py"),), folder, Path("/home/other")),
    ):
        assert not by_id(Pretended(system.platform, {}, system.home, processes=lambda p=process: [p], disk=tmp_path))  # type: ignore[misc]


@pytest.mark.not_on_windows("a path of macOS has no drive")
def test_a_command_line_of_ps_is_taken_apart_at_the_right_spaces() -> None:
    listed = (
        "    1 /sbin/launchd\n"
        "  501 /Users/me/Library/Application Support/chaiNNer/python/python/bin/python3.11 run.py 8000\n"
        "  502 /Users/me/invokeai/.venv/bin/python /Users/me/invokeai/.venv/bin/invokeai-web --root /x\n"
        "  503 python main.py --listen\n"
        "  504 /Users/me/My Apps/ComfyUI/.venv/bin/python -s /Users/me/My Apps/ComfyUI/main.py --port 8188\n"
        "  505 /Applications/Pythonista.app/x\n"
        "    ?\n\n"
    )
    by_pid = {process.pid: process for process in parse_ps(listed)}
    assert sorted(by_pid) == [501, 502, 503, 504]
    assert str(by_pid[501].python).endswith("Application Support/chaiNNer/python/python/bin/python3.11")
    assert by_pid[502].script == Path("/Users/me/invokeai/.venv/bin/invokeai-web")
    assert by_pid[503].script is None, "it is not told in which folder"
    assert by_pid[504].script == Path("/Users/me/My Apps/ComfyUI/main.py")
    assert str(by_pid[504].python) == "/Users/me/My Apps/ComfyUI/.venv/bin/python"


@pytest.mark.not_on_windows("there are no named pipes")
def test_the_spandrel_of_an_environment_is_told_by_its_files(tmp_path: Path, unpacked: Path) -> None:
    system = linux(tmp_path)
    venv(tmp_path / "plain", unpacked)
    python = tmp_path / "plain" / "bin" / "python"
    library = tmp_path / "plain" / "lib" / "python3.12" / "site-packages"
    assert python_in(system, tmp_path / "plain") == python
    assert spandrel_of(system, python) == library / "spandrel"

    (library / "spandrel").unlink()
    assert spandrel_of(system, python) is None
    note(library / "__editable__.spandrel.pth", f"import nothing\n# {unpacked.parent}\n{unpacked.parent}\n")
    assert spandrel_of(system, python) == unpacked, "an editable installation"
    (library / "__editable__.spandrel.pth").unlink()
    os.mkfifo(library / "pipe.pth")
    note(library / "self.pth", ".\n../site-packages\n\0\n")
    assert spandrel_of(system, python) is None

    venv(tmp_path / "base", unpacked)
    (tmp_path / "base" / "pyvenv.cfg").unlink()
    note(tmp_path / "plain" / "pyvenv.cfg", "home = /base/bin\ninclude-system-site-packages = true\n")
    assert spandrel_of(system, python) == tmp_path / "base" / "lib" / "python3.12" / "site-packages" / "spandrel"
    note(tmp_path / "plain" / "pyvenv.cfg", "home = /base/bin\ninclude-system-site-packages = false\n")
    assert spandrel_of(system, python) is None

    embedded_python(tmp_path / "embedded", unpacked)
    python = tmp_path / "embedded" / "python.exe"
    assert spandrel_of(system, python) == tmp_path / "embedded" / "Lib" / "site-packages" / "spandrel"
    note(tmp_path / "embedded" / "python313._pth", "python313.zip\n.\n#import site\n")
    assert spandrel_of(system, python) is None, "site-packages are not on its path"
    note(tmp_path / "embedded" / "python313._pth", "python313.zip\nLib\\site-packages\n")
    assert spandrel_of(system, python) == tmp_path / "embedded" / "Lib" / "site-packages" / "spandrel"


def test_a_python_whose_base_is_gone_is_told_on_windows(tmp_path: Path, unpacked: Path) -> None:
    """There the environment holds no link, but a program that starts the Python which it was made with."""
    system = windows(tmp_path)
    folder = touch(system.home / "ComfyUI", *COMFYUI)
    windows_venv(folder / "venv", unpacked)
    assert by_id(system)["comfyui"].problem == "was made with the Python in C:\\Python312, which is not there"
    assert by_id(system)["comfyui"].state == "absent"
    touch(tmp_path / "C" / "Python312")
    assert by_id(system)["comfyui"].problem == "was made with the Python in C:\\Python312, which is not there"
    touch(tmp_path / "C" / "Python312", "python.exe")
    assert by_id(system)["comfyui"].problem == ""


@pytest.mark.not_on_windows("there are no named pipes, and no folders that nobody may read")
def test_a_spandrel_in_any_condition_has_a_state_or_none(tmp_path: Path, unpacked: Path) -> None:
    system = linux(tmp_path)
    folder = touch(system.home / "ComfyUI", *COMFYUI)
    venv(folder / "venv", unpacked)
    package = folder / "venv" / "lib" / "python3.12" / "site-packages" / "spandrel"
    package.unlink()
    shutil.copytree(unpacked, package)
    registry = package / "__helpers" / "main_registry.py"
    registry.unlink()
    os.mkfifo(registry)
    assert by_id(system)["comfyui"].state == "unsupported"
    registry.unlink()
    registry.symlink_to(registry)
    assert by_id(system)["comfyui"].state is None
    (package / "__init__.py").unlink()
    (package / "__init__.py").mkdir()
    assert by_id(system)["comfyui"].state == "missing"


def test_a_home_with_very_many_folders_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = linux(tmp_path)
    for number in range(50):
        touch(system.home / f"folder {number}", "x/")
    comfy = touch(tmp_path / "srv" / "ComfyUI", *COMFYUI, "venv/bin/python")
    note(system.home / ".config" / "comfy-cli" / "config.ini", "[DEFAULT]\nrecent_workspace = /srv/ComfyUI\n")
    monkeypatch.setattr("aether_install.hosts.discovery._EXPLORING_SECONDS", 0.0)
    found = discover(system=system)
    assert not found.complete
    assert [host.folder for host in found.hosts] == [comfy], "what is noted is found all the same"


def test_an_id_is_that_of_one_host_however_long_exploring_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = linux(tmp_path)
    for place in ("Documents/b/ComfyUI", "z/ComfyUI", "a/b/ComfyUI", "ComfyUI", "Desktop/c/x", "SwarmUI"):
        touch(system.home / place, *COMFYUI)
    # Noted, and a part of another that only exploring comes to.
    touch(system.home / "m" / "swarm", "src/SwarmUI.csproj", "Models/", "dlbackend/ComfyUI/venv/bin/python")
    inner = touch(system.home / "m" / "swarm" / "dlbackend" / "ComfyUI", *COMFYUI)
    note(
        system.home / ".config" / "comfy-cli" / "config.ini",
        f"[DEFAULT]\ndefault_workspace = {str(inner).removeprefix(str(tmp_path))}\n",
    )
    running = touch(tmp_path / "far" / "ComfyUI", *COMFYUI)
    other = touch(tmp_path / "other" / "ComfyUI", *COMFYUI)
    named: dict[str, Path] = {}
    numbers = set()
    for seconds in range(30):
        for folder, searched in ((None, ()), (running, ()), (other, (running,)), (running, (other,))):
            process = [Process(7, Path("/python"), (str(folder / "main.py"),))] if folder else []
            machine = Pretended("linux", {}, system.home, processes=lambda p=process: p, disk=tmp_path)  # type: ignore[misc]
            clock = itertools.count()
            with monkeypatch.context() as patch:
                patch.setattr("aether_install.hosts.discovery._EXPLORING_SECONDS", seconds)
                patch.setattr("aether_install.hosts.discovery.time.monotonic", lambda c=clock: next(c))
                found = discover(searched, machine)
            numbers.add(len(found.hosts))
            for host in found.hosts:
                assert named.setdefault(host.id, host.folder) == host.folder, (seconds, host.id)
                assert resolve(host.lasting_id, found, machine) == host
    assert max(numbers) == 8, "one is too deep"
    assert len(numbers) > 3, "it was cut short here and there"


def test_the_only_one_that_was_found_in_time_may_not_be_the_only_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = linux(tmp_path)
    at_home = touch(system.home / "z" / "ComfyUI", *COMFYUI)
    running = touch(tmp_path / "far" / "ComfyUI", *COMFYUI)
    process = Process(7, Path("/python"), (str(running / "main.py"),))
    machine = Pretended("linux", {}, system.home, processes=lambda: [process], disk=tmp_path)
    clock = itertools.count()
    monkeypatch.setattr("aether_install.hosts.discovery.time.monotonic", lambda: next(clock))
    for seconds, expected in ((0, {running}), (60, {running, at_home})):
        monkeypatch.setattr("aether_install.hosts.discovery._EXPLORING_SECONDS", seconds)
        found = discover(system=machine).hosts
        assert {host.folder for host in found} == expected
        assert all((host.id == "comfyui") == (host.folder == at_home) for host in found), "spandrel --host comfyui"


def test_the_only_one_of_its_kind_has_a_plain_name(tmp_path: Path) -> None:
    system = linux(tmp_path)
    folder, other = (touch(tmp_path / name / "ComfyUI", *COMFYUI) for name in ("one", "other"))
    assert by_id(system, folder)["comfyui"].folder == folder
    assert "comfyui" not in by_id(system, folder, other), "which of them it is would be chance"
    touch(system.home / "ComfyUI", *COMFYUI)
    assert by_id(system, folder, other)["comfyui"].folder == system.home / "ComfyUI"


def test_the_tables_of_paths_are_plain_data() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    for kind in KINDS:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z]+)*", kind.id)
        assert json.dumps(kind.suffixes)
        for path in (*kind.environments, *kind.vendored, *kind.models):
            assert "\\" not in path
