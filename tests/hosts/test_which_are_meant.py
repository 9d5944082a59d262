"""What becomes of the applications that ``--host`` and ``--all`` mean: the exit status, the JSON and the words."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import in_process
import pytest
from environments import Environment, aether_install, make_environment, run, script
from machines import COMFYUI, at_home_in, environment_in, touch


def in_home(home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command, where a folder is home."""
    return in_process.aether_install(*arguments, check=False, env=at_home_in(home))


def handed_on(home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The real command, which hands its own arguments on to another Python."""
    return aether_install(*arguments, check=False, env=environment_in(home), cwd=home)


def in_json(home: Path, *arguments: str | Path) -> Any:
    return json.loads(in_home(home, *arguments, "--json").stdout)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a ComfyUI that has a spandrel."""
    folder = touch(tmp_path / "ComfyUI", *COMFYUI)
    make_environment(folder / "venv", borrow=False)
    return tmp_path


def test_all_are_installed_only_if_each_is(home: Path) -> None:
    assert in_home(home, "spandrel", "--all", "--no-verify").returncode == 0
    assert in_home(home, "status", "--all").returncode == 0
    touch(home / "sdnext", "webui.py", "installer.py", "venv/bin/python")
    told = in_home(home, "status", "--all")
    assert (told.returncode, told.stdout.splitlines()[0]) == (1, "AetherNet is installed in 1 of 2 applications")
    assert in_home(home, "spandrel", "--all", "--no-verify").returncode == 0, "the other can use no model anyhow"


def test_teaching_none_is_no_success(tmp_path: Path) -> None:
    touch(tmp_path / "sdnext", "webui.py", "installer.py", "venv/bin/python")
    told = in_home(tmp_path, "spandrel", "--all")
    assert (told.returncode, len(told.stderr.splitlines())) == (1, 1)
    assert "--host" in told.stderr


def dying_of(venv: Path, name: str) -> Path:
    """An environment in which importing torch is the end of the process, by a signal."""
    make_environment(venv)
    package = next(venv.glob("lib/*/site-packages")) / "torch"
    touch(package, "__init__.py")
    (package / "__init__.py").write_text(f"import os, signal; os.kill(os.getpid(), signal.{name})")
    return venv / "bin" / "python"


@pytest.mark.not_on_windows("processes do not die of signals")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV"])
def test_a_python_that_dies_at_work_is_told_of(tmp_path: Path, name: str) -> None:
    python = dying_of(tmp_path / "venv", name)
    model = touch(tmp_path, "model.pth") / "model.pth"
    for command in (("inspect", model), ("fuse", "--model_path", model, "--output_path", tmp_path / "fused.pth")):
        told = handed_on(tmp_path, *command, "--python", python, "--json")
        assert told.returncode == 1
        (sentence,) = told.stderr.splitlines()
        assert str(python) in sentence
        assert name in sentence
        assert json.loads(told.stdout)["error"] in sentence


def test_a_folder_stands_for_its_python_everywhere(home: Path) -> None:
    model = touch(home, "model.pth") / "model.pth"
    for folder in (home / "ComfyUI", home / "ComfyUI" / "venv"):
        looked = in_json(home, "doctor", "--python", folder)
        assert looked["python"] == str(Environment(home / "ComfyUI" / "venv").python)
        for command in (("inspect", model), ("fuse", "--model_path", model, "--output_path", home / "fused.pth")):
            told = handed_on(home, *command, "--python", folder)
            assert f"{Environment(home / 'ComfyUI' / 'venv').python} has no torch" in told.stderr, "it was started"
    nothing = touch(home, "nothing/") / "nothing"
    for command in (("doctor",), ("inspect", model)):
        assert "no environment of Python" in in_home(home, *command, "--python", nothing).stderr


@pytest.mark.not_on_windows("no mode keeps a folder from being read")
@pytest.mark.skipif(
    os.name == "posix" and os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may read anything"
)
def test_a_spandrel_that_may_not_be_read_is_not_called_missing(home: Path) -> None:
    (package,) = home.glob("ComfyUI/venv/lib/*/site-packages/spandrel")
    # Still the owner, but no longer above all modes.
    powerless = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []

    def told(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [*powerless, script("aether-install"), *arguments]
        return run(*command, check=False, env=environment_in(home), cwd=home)

    package.chmod(0)
    try:
        for where in (("--host", "comfyui"), ("--python", home / "ComfyUI" / "venv"), ("--all",)):
            status = told("status", *where)
            assert (status.returncode, len(status.stderr.splitlines())) == (1, 1)
            assert f"{package}" in status.stderr
            assert "Permission denied" in status.stderr
        shown = told("hosts").stdout
        assert "cannot be read" in shown
        assert "All that" not in shown
        (host,) = json.loads(told("hosts", "--json").stdout)["hosts"]
        assert (host["state"], host["spandrel"]["path"]) == (None, str(package))
    finally:
        package.chmod(0o755)


@pytest.mark.not_on_windows("a shell script is no interpreter")
def test_the_state_is_told_of_what_failed_too(home: Path) -> None:
    python = home / "ComfyUI" / "venv" / "bin" / "python"
    in_home(home, "spandrel", "--all", "--no-verify")
    python.unlink()
    python.write_text("#!/bin/sh\nexit 3\n")
    python.chmod(0o755)
    alone = in_json(home, "spandrel", "--host", "comfyui")
    (among_all,) = in_json(home, "spandrel", "--all")["results"]
    model = json.loads(
        handed_on(home, "inspect", touch(home, "model.pth") / "model.pth", "--host", "comfyui", "--json").stdout
    )
    assert f"the Python of ComfyUI in {home / 'ComfyUI'}" in model["error"]
    for result in (alone, among_all):
        assert "exit status 3" in result["error"]
        assert f"the Python of ComfyUI in {home / 'ComfyUI'}" in result["error"]
        assert "--python" not in result["error"], "which nobody gave"
        assert (result["host"], result["state"]) == ("comfyui", "installed")
        assert result["spandrel"]["version"] == "0.4.2"
        assert result["payload"]["installed"] == result["payload"]["version"]


def test_a_host_whose_python_was_left_behind_is_taught_by_its_folder(home: Path) -> None:
    """As where a folder was moved to another disk, and the Python that its environment was made with was not."""
    venv = Environment(home / "ComfyUI" / "venv")
    if os.name == "nt":
        (venv.root / "pyvenv.cfg").write_text("home = C:\\gone\\Python310\n")
        problem = "made with the Python in C:\\gone\\Python310, which is not there"
    else:
        for link in venv.python.parent.glob("python*"):
            link.unlink()
            link.symlink_to("/gone/Python310/bin/python3.10")
        problem = "a link to /gone/Python310/bin/python3.10, which is not there"
    (host,) = in_json(home, "hosts")["hosts"]
    assert (host["python"], host["state"]) == (str(venv.python), "absent")
    assert problem in host["problem"]
    shown = in_home(home, "hosts").stdout
    assert "start them once" not in shown
    assert "--all" not in shown, "which could not work"
    told = {
        "hosts": shown,
        "by id": in_home(home, "spandrel", "--host", "comfyui").stderr,
        "all": in_home(home, "spandrel", "--all").stderr,
        "by environment": in_home(home, "spandrel", "--python", home / "ComfyUI" / "venv").stderr,
        "by interpreter": in_home(home, "status", "--python", venv.python).stderr,
        "doctor": in_home(home, "doctor", "--host", "comfyui").stdout,
        "doctor by interpreter": in_home(home, "doctor", "--python", venv.python).stdout,
        "inspect": handed_on(home, "inspect", touch(home, "m.pth") / "m.pth", "--host", "comfyui").stderr,
    }
    for where, words in told.items():
        assert problem in words, where
        assert "--target" in words, where
    assert in_json(home, "spandrel", "--all")["results"][0]["state"] == "absent"
    for name in ("hosts", "by id", "by interpreter", "doctor", "doctor by interpreter"):
        words = told[name]
        program, *command = next(part for part in words.split("`") if "--target" in part).split()
        assert program == "aether-install"
        assert in_home(home, *command).returncode == 0
        assert in_json(home, "hosts")["hosts"][0]["state"] == "installed"
        shown = in_home(home, "hosts").stdout
        assert "spandrel --target" not in shown, "it is taught"
        assert "spandrel of it is taught already" in shown
        in_home(home, "uninstall", *command[1:])
    make_environment(touch(home / "other" / "ComfyUI", *COMFYUI) / "venv", "0.4.1")
    in_home(home, "spandrel", "--host", home / "other" / "ComfyUI", "--no-verify")
    last = in_home(home, "hosts").stdout.splitlines()[-1]
    assert last == "All whose Python starts, that have a spandrel and can use AetherNet models, load them."


def test_a_host_that_is_named_twice_is_one(home: Path) -> None:
    assert in_json(home, "status", "--host", "comfyui", "--host", "comfyui")["host"] == "comfyui"
    by_any_name = ("comfyui", home / "ComfyUI", home / "ComfyUI" / "venv", "nothing", "nothing")
    results = in_json(home, "status", *(f"--host={name}" for name in by_any_name))["results"]
    assert [result["host"] for result in results] == ["comfyui", "nothing"]
