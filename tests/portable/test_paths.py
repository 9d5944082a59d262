"""Where only Windows puts files: long names, verbatim ones, shares, mapped drives, OneDrive; and their attributes."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from environments import snapshot, wheel
from layouts import ENVIRONMENT, Application, portable


@pytest.mark.parametrize("prefix", ["", "\\\\?\\"], ids=["plain", "verbatim"])
@pytest.mark.parametrize("length", [100, 300])
def test_a_folder_is_taught_whatever_the_length_of_its_name(
    comfyui: Application, tmp_path: Path, prefix: str, length: int
) -> None:
    folder = tmp_path / ("a" * 50)
    while len(str(folder)) < length:
        folder /= "b" * 40
    verbatim = Path(f"\\\\?\\{folder}")
    try:
        shutil.unpack_archive(wheel("0.4.2"), verbatim, "zip")
    except OSError:
        pytest.skip("this Windows has no such names")
    before = snapshot(verbatim)
    told = comfyui.told("spandrel", "--target", f"{prefix}{folder}")
    if told["state"] == "missing":
        assert (length, prefix) == (300, ""), told
        assert "there is no spandrel in" in told["error"]
    else:
        assert told["state"] == "installed", told
        assert comfyui.told("uninstall", "--target", f"{prefix}{folder}")["state"] == "absent"
    assert snapshot(verbatim) == before


def on_mapped_drive() -> bool:
    """Whether ``M:`` is ``C:``, which here it is made to be if nothing has."""
    if not Path("M:\\").exists():
        subprocess.run(["subst", "M:", "C:\\"], check=False)
    return Path("M:\\").exists()


@pytest.mark.parametrize("root", ["\\\\localhost\\C$", "M:"], ids=["share", "mapped drive"])
def test_a_share_or_a_mapped_drive_is_a_folder_like_any_other(comfyui: Application, root: str) -> None:
    """For what is taught as for the Python that teaches."""
    paths = (comfyui.folder, comfyui.python, comfyui.site_packages)
    there = Application(*(Path(f"{root}\\", *path.parts[1:]) for path in paths))
    if not (there.folder.is_dir() if root != "M:" else on_mapped_drive()):
        pytest.skip("this machine has no such share")
    before = snapshot(comfyui.folder, bytecode=True)
    ways: list[tuple[Application, tuple[str | Path, ...]]] = [
        (comfyui, ("--target", f"{there.site_packages}\\")),
        (comfyui, ("--host", there.folder)),
    ]
    if root == "M:":  # Wine starts no Python that lies on a share.
        ways += [(there, ("--target", comfyui.site_packages)), (there, ())]
    for by, where in ways:
        told = by.told("spandrel", *where, *(["--no-verify"] if "--target" not in where else []))
        assert (told["state"], told.get("error")) == ("installed", None), told
        assert comfyui.told("status", "--target", comfyui.site_packages)["state"] == "installed"
        assert by.told("uninstall", *where)["state"] == "absent"
        assert snapshot(comfyui.folder, bytecode=True) == before


def test_a_portable_in_the_documents_that_onedrive_keeps_is_found(tmp_path: Path) -> None:
    cloud = tmp_path / "OneDrive - Jürgen & Söhne"
    comfyui = portable(cloud / "Documents")
    environment = {**ENVIRONMENT, "USERPROFILE": str(tmp_path / "profile"), "OneDrive": str(cloud)}
    python = portable(tmp_path / "another")
    found = [host["folder"] for host in python.told("hosts", env=environment)["hosts"]]
    assert str(comfyui.folder) in found
    told = python.told("spandrel", "--host", comfyui.folder, "--no-verify", env=environment)
    assert (told["state"], told["spandrel"]["path"]) == ("installed", str(comfyui.spandrel))
    assert python.told("uninstall", "--host", comfyui.folder, env=environment)["state"] == "absent"


HIDDEN, SYSTEM, OFFLINE, PINNED = 0x2, 0x4, 0x1000, 0x80000


def test_attributes_come_back(comfyui: Application) -> None:
    """Those of synchronised folders as well, as far as this Windows keeps them."""
    kernel = ctypes.WinDLL("kernel32")
    paths = (comfyui.registry, next(comfyui.site_packages.glob("*.dist-info")) / "RECORD")

    def attributes() -> list[int]:
        return [os.stat(path).st_file_attributes for path in paths]

    for path in paths:
        assert kernel.SetFileAttributesW(str(path), HIDDEN | SYSTEM | OFFLINE | PINNED)
    before, files = attributes(), snapshot(comfyui.site_packages, bytecode=True)
    assert all(each & HIDDEN for each in before)
    told = comfyui.told("spandrel", "--no-verify")
    assert (told["state"], told.get("error")) == ("installed", None)
    assert comfyui.told("uninstall")["state"] == "absent"
    assert attributes() == before
    assert snapshot(comfyui.site_packages, bytecode=True) == files
