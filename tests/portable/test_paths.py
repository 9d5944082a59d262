"""Names of folders that only Windows has: long ones, verbatim ones, shares."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from environments import snapshot, wheel
from layouts import Application


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


def test_a_share_is_a_folder_like_any_other(comfyui: Application) -> None:
    share = Path("\\\\localhost\\C$", *comfyui.site_packages.parts[1:])
    if not share.is_dir():
        pytest.skip("this machine has no such share")
    assert comfyui.told("spandrel", "--target", share)["state"] == "installed"
    assert comfyui.told("status", "--target", comfyui.site_packages)["state"] == "installed"
    assert comfyui.told("uninstall", "--target", share)["state"] == "absent"
