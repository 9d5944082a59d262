"""Read-only files and files that other programs have open, by Windows itself, or by Wine as far as it goes."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

from environments import snapshot
from layouts import Application
from trees import scanning


def test_a_tree_that_is_read_only_throughout_comes_back_so(comfyui: Application) -> None:
    """As ``attrib +R /S`` leaves it."""
    for path in comfyui.spandrel.parent.rglob("*"):
        if path.is_file():
            path.chmod(stat.S_IREAD)
    before = snapshot(comfyui.site_packages, bytecode=True)
    told = comfyui.told("spandrel", "--no-verify")
    assert (told["state"], told.get("error")) == ("installed", None)
    assert not comfyui.registry.stat().st_mode & stat.S_IWRITE
    for path in comfyui.payload.rglob("*"):
        assert path.is_dir() or path.stat().st_mode & stat.S_IWRITE, "of ours"
        path.chmod(stat.S_IREAD)
    told = comfyui.told("uninstall")
    assert (told["state"], told.get("error"), told.get("undeleted")) == ("absent", None, None)
    assert snapshot(comfyui.site_packages, bytecode=True) == before


def test_what_a_scanner_opens_for_a_moment_is_waited_for(comfyui: Application) -> None:
    before = snapshot(comfyui.site_packages, bytecode=True)
    for _ in range(2):
        for command, state in ((["spandrel", "--no-verify"], "installed"), (["uninstall"], "absent")):
            with scanning(comfyui.site_packages, 0.05) as held:
                told = comfyui.told(*command)
            assert (told["state"], told.get("error"), told.get("undeleted")) == (state, None, None)
            assert held() or command == ["uninstall"]
    assert snapshot(comfyui.site_packages, bytecode=True) == before


def hold(path: Path) -> subprocess.Popen[str]:
    """A program that has a file open until its stdin is closed."""
    program = "import sys; file = open(sys.argv[1], 'rb'); print('open', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    return holder


def test_what_a_program_keeps_open_is_named_and_everything_put_back(comfyui: Application) -> None:
    before = snapshot(comfyui.site_packages, bytecode=True)
    for command, state in ((["spandrel", "--no-verify"], "absent"), (["uninstall"], "installed")):
        if state == "installed":
            assert comfyui.told("spandrel", "--no-verify")["state"] == state
            before = snapshot(comfyui.site_packages, bytecode=True)
        holder = hold(comfyui.registry)
        told = comfyui.told(*command)
        holder.communicate()
        assert (told["state"], told["changed"]) == (state, []), told
        assert str(comfyui.registry) in told["error"]
        assert "everything was put back as it was" in told["error"]
        assert f"(process {holder.pid})" in told["error"] or "close the program that has the file open" in told["error"]
        assert snapshot(comfyui.site_packages, bytecode=True) == before
    assert comfyui.told("uninstall")["state"] == "absent"
