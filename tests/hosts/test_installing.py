"""What is advised to install spandrel with works where it is advised: every command is run as it is printed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from environments import (
    UV_CACHE,
    Environment,
    aether_install,
    aether_json,
    make_environment,
    run,
    script,
    wheel,
    words_of,
)
from machines import COMFYUI, standalone_python, touch
from others import of_a_fork, of_a_spandrel_to_come
from trees import Tree

from aether_install.prompt import typed


def with_pip(folder: Path) -> Environment:
    run(sys.executable, "-m", "venv", folder)
    return Environment(folder)


def without_pip(folder: Path) -> Environment:
    """As uv makes them."""
    return make_environment(folder, None, borrow=False)


def managed_by_the_system(folder: Path) -> Environment:
    """As Debian's, whose pip refuses (PEP 668)."""
    made = standalone_python(folder)
    run(made.python, "-m", "ensurepip")
    library = made.root / "lib" / Path(sysconfig.get_path("stdlib")).name
    (library / "EXTERNALLY-MANAGED").write_text("[externally-managed]\nError=Use apt.\n")
    return made


def advised(words: str) -> list[list[str]]:
    """The commands that a sentence gives, each as words."""
    return [words_of(part) for part in words.split("`")[1::2] if "aether-install" not in part]


EMBEDDED = pytest.mark.not_on_windows("the embeddable Python, which portables carry, has neither venv nor ensurepip")


@pytest.mark.parametrize(
    "make", [pytest.param(with_pip, marks=EMBEDDED), without_pip, pytest.param(managed_by_the_system, marks=EMBEDDED)]
)
def test_the_commands_that_are_advised_work(tmp_path: Path, make: Callable[[Path], Environment]) -> None:
    """With uv and, once what that installed is gone again, without."""
    bare = make(tmp_path / "a b")
    path = os.environ["SYSTEMROOT"] if os.name == "nt" else "/usr/bin:/bin"
    assert_what_is_advised_works(bare, tmp_path / "with uv", f"{script('uv').parent}{os.pathsep}{path}")
    for installed in bare.site_packages.glob("spandrel*"):
        shutil.rmtree(installed)
    assert_what_is_advised_works(bare, tmp_path / "without uv", path)


def assert_what_is_advised_works(bare: Environment, folder: Path, path: str) -> None:
    around = {
        **{name: value for name, value in os.environ.items() if not name.startswith("UV_")},
        "PATH": path,
        "UV_CACHE_DIR": str(UV_CACHE),
    }
    told = aether_install("spandrel", "--python", bare.python, check=False, env=around)
    assert told.returncode == 1
    commands = advised(told.stderr)
    assert commands
    python = bare.python
    for command in commands:
        words = [word.replace("FOLDER", str(folder)) for word in command]
        # Without what spandrel itself needs, which is gigabytes.
        words += ["--no-deps"] if "install" in words else []
        words[0] = shutil.which(words[0], path=path) or words[0]  # which Windows looks for elsewhere
        done = subprocess.run(words, env=around, capture_output=True, text=True)
        assert done.returncode == 0, (words, done.stderr)
        python = Path(words[0]) if str(folder) in words[0] else python
    assert aether_json("status", "--python", python)["state"] == "absent", "it is there, and untaught"


@pytest.mark.not_on_windows("asks with a PATH of POSIX")
@pytest.mark.parametrize("make", [with_pip, without_pip])
def test_a_fork_that_does_not_work_is_replaced_by_the_advice_alone(
    tmp_path: Path, make: Callable[[Path], Environment]
) -> None:
    folder = touch(tmp_path / "ComfyUI", *COMFYUI)
    made = make(folder / "venv")
    made.uv("install", "--no-deps", wheel("0.4.1"))
    of_a_fork(Tree(made.site_packages))
    around = {**os.environ, "HOME": str(tmp_path), "PATH": f"{script('uv').parent}:/usr/bin:/bin"}
    around["UV_CACHE_DIR"] = str(UV_CACHE)
    ways = (["status", "--host", "comfyui"], ["spandrel", "--host", folder], ["uninstall", "--python", made.python])
    told = [aether_install(*words, check=False, env=around) for words in ways]
    ((command,),) = {tuple(map(tuple, advised(shown.stdout + shown.stderr))) for shown in told}
    run(*command, env=around)
    assert aether_json("status", "--host", folder, env=around)["state"] == "absent"


def test_one_that_works_is_tried_by_the_command_that_is_shown(tmp_path: Path) -> None:
    made = make_environment(tmp_path / "venv", borrow=False)
    of_a_spandrel_to_come(Tree(made.site_packages))
    for command in ("status", "spandrel --no-verify", "uninstall"):
        for way in ("--python", str(made.python)), ("--target", str(made.site_packages)):
            shown = aether_install(*command.split(), *way, check=False)
            assert f"`aether-install doctor {typed(way)}` tries it" in shown.stdout + shown.stderr


@EMBEDDED
def test_a_host_without_spandrel_is_advised_what_works_there(tmp_path: Path) -> None:
    folder = touch(tmp_path / "ComfyUI", *COMFYUI)
    without_pip(folder / "venv")
    around = {**os.environ, "HOME": str(tmp_path)}
    told = aether_install("spandrel", "--host", folder, check=False, env=around).stderr
    assert "start it once" in told
    assert f"{folder}/venv/bin/python -m pip" not in told
    assert advised(told)
    (folder / "venv").rename(tmp_path / "elsewhere")
    managed_by_the_system(folder / "venv")
    told = aether_install("spandrel", "--host", folder, check=False, env=around).stderr
    assert "start it once" in told
    assert "pip" not in told
