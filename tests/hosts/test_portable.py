"""ComfyUI portable, whose Python is started with -s, beside a second spandrel that a plain start would import."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from built import one_file
from environments import REPOSITORY, Environment, borrowing, needs_torch, run, wheel
from machines import COMFYUI, standalone_python, touch
from trees import Tree

from aether_install.hosts.discovery import discover, host_of
from aether_install.hosts.environment import spandrel_of
from aether_install.hosts.processes import Process
from aether_install.hosts.system import System

BAT = ".\\python_embeded\\python.exe -s ComfyUI\\main.py --windows-standalone-build\r\npause\r\n"


class Portable:
    """A portable deep in a tree, and a home whose own packages hold a spandrel of another version."""

    def __init__(self, root: Path) -> None:
        self.home = touch(root / "home")
        self.folder = touch(root / "disk" / "a" / "b" / "c" / "ComfyUI_windows_portable", "update/")
        touch(self.folder / "ComfyUI", *COMFYUI)
        self.bat = self.folder / "run_nvidia_gpu.bat"
        self.bat.write_bytes(BAT.encode())
        self.environment = standalone_python(self.folder / "python_embeded")
        self.own = self.environment.site_packages
        shutil.unpack_archive(wheel("0.4.2"), self.own, "zip")
        self.users = self.home / ".local" / "lib" / Path(sysconfig.get_path("stdlib")).name / "site-packages"
        shutil.unpack_archive(wheel("0.4.0"), self.users, "zip")
        for folder in (self.own, self.users):
            (folder / "borrowed.pth").write_text(borrowing())
        shutil.copy(one_file(), self.folder)

    @property
    def variables(self) -> dict[str, str]:
        return {"HOME": str(self.home), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}

    @property
    def system(self) -> System:
        return System("linux", self.variables, self.home)

    def type(self, line: str, *more: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Types a line for this portable at its prompt."""
        words = shlex.split(line.replace("python_embeded\\python.exe", "python_embeded/bin/python"))
        return run(*words, *more, check=check, cwd=self.folder, env=self.variables)

    def imported(self, *flags: str) -> Path:
        """The folder of which a start of the Python imports spandrel."""
        code = "import importlib.util; print(importlib.util.find_spec('spandrel').origin)"
        command = (self.environment.python, *flags, "-B", "-c", code)
        return Path(run(*command, cwd=self.folder, env=self.variables).stdout.strip()).parents[1]


ISOLATED = pytest.mark.not_on_windows("there a ._pth keeps the Python of a portable from the user's own packages")


@pytest.fixture
def portable(tmp_path: Path) -> Portable:
    return Portable(tmp_path)


def lines_of_readme() -> list[str]:
    """What README says to type for the portable."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    return [line for line in re.findall(r"```bat\n(.*?)```", text, re.DOTALL)[0].splitlines() if "spandrel" in line]


@ISOLATED
def test_the_line_of_the_readme_teaches_the_spandrel_that_comfyui_imports(portable: Portable) -> None:
    needs_torch()
    assert (portable.imported(), portable.imported("-s")) == (portable.users, portable.own)
    own, users = Tree(portable.own), Tree(portable.users)
    (line,) = lines_of_readme()
    told = portable.type(line).stdout
    assert "loads AetherNet models" in told
    assert "Not verified" not in told, "it has loaded one"
    assert (own.state, users.state) == ("installed", "absent")
    assert str(portable.own / "spandrel") in told
    assert str(portable.users / "spandrel") in told, "the other one is named"
    assert "no application" not in told, "it is the portable's, however deep that lies"
    well = portable.type(line.replace(" spandrel", " doctor")).stdout
    assert str(portable.own / "spandrel") in well
    assert str(portable.users / "spandrel") in well
    found = portable.type(line.replace(" spandrel", " hosts")).stdout
    assert f"ComfyUI, portable in {portable.folder}" in found
    assert f"and not that in {portable.users / 'spandrel'}" in found
    portable.type(line.replace(" spandrel", " uninstall"))
    assert own.state == "absent"


@ISOLATED
def test_by_whatever_name_it_is_the_spandrel_that_comfyui_imports(portable: Portable) -> None:
    line = "python_embeded\\python.exe aether-install.pyz status --json"
    ways: list[tuple[Any, ...]] = [
        (),
        ("--host", portable.folder),
        ("--host", "comfyui"),
        ("--python", portable.environment.python),
    ]
    own, users = str(portable.own / "spandrel"), str(portable.users / "spandrel")
    for way in ways:
        told = json.loads(portable.type(line, *way, check=False).stdout)
        assert (told["spandrel"]["path"], told["not_used"]) == (own, [users]), way
    portable.bat.write_bytes(BAT.replace(" -s", "").encode())
    for way in ways:
        told = json.loads(portable.type(line, *way, check=False).stdout)
        assert (told["spandrel"]["path"], told["not_used"]) == (users, [own]), "its .bat was edited"
    portable.bat.unlink()
    for way in ways:
        assert f'"path": "{own}"' in portable.type(line, *way, check=False).stdout, "as portables do"


@ISOLATED
def test_a_running_process_is_believed_before_the_files_that_start_one(portable: Portable) -> None:
    main = str(portable.folder / "ComfyUI" / "main.py")
    for arguments, expected in (((main,), portable.users), (("-u", "-s", main), portable.own)):
        process = Process(7, portable.environment.python, arguments)
        system = System("linux", portable.variables, portable.home, processes=lambda p=process: [p])  # type: ignore[misc]
        (host,) = discover([portable.folder], system).hosts
        assert host.spandrel is not None
        assert host.spandrel.package == expected / "spandrel"
        known = host_of(system, portable.environment.python)
        assert known is not None
        assert known.flags == host.flags


LINES = {
    BAT: "-s",
    '@echo off\n"%~dp0python_embeded\\python.exe" -X utf8 -su "ComfyUI\\main.py" %*\n': "-s",
    "rem python.exe -s main.py\npython.exe -u main.py\n": "",
    "set PYTHONNOUSERSITE=1\n%PYTHON% main.py\n": "-s",
    "set PYTHONNOUSERSITE=\n%PYTHON% main.py\n": "",
    'export PYTHONNOUSERSITE=1\nexec "${python_cmd}" -u main.py\n': "-s",
    "python.exe -I main.py\n": "-I",
    "python.exe update.py\n": "-s",
    "python.exe -m pip install x\n": "-s",
    "\0\xff python": "-s",
}


@pytest.mark.parametrize("text", LINES, ids=range(len(LINES)))
def test_the_flags_are_those_of_the_line_that_starts_the_host(tmp_path: Path, text: str) -> None:
    folder = touch(tmp_path / "portable", "python_embeded/", "update.bat")
    touch(folder / "ComfyUI", *COMFYUI)
    (folder / "run.bat").write_bytes(text.encode("latin-1"))
    (host,) = discover([folder], System("linux", {}, tmp_path / "nobody")).hosts
    assert " ".join(host.flags) == LINES[text]


def test_what_is_started_with_is_told_from_what_follows_it() -> None:
    for words, flags, script in (
        (("-s", "main.py"), ("-s",), "main.py"),
        (("-sE", "-B", "main.py", "-I"), ("-E", "-s"), "main.py"),
        (("-X", "utf8", "-W", "ignore", "main.py"), (), "main.py"),
        (("-Xutf8", "-c", "main.py"), (), None),
        (("-sm", "comfy"), ("-s",), None),
        ((), (), None),
    ):
        process = Process(7, Path("/python"), words, Path("/"))
        assert process.flags == flags
        assert process.script == (Path("/") / script if script else None)
    assert Process(7, Path("/python"), ("main.py",), Path("/"), uses_user_site=False).flags == ("-s",)


@ISOLATED
def test_a_spandrel_of_the_user_is_found_where_python_looks_for_it(tmp_path: Path) -> None:
    """As Python itself says."""
    environment: Environment = standalone_python(tmp_path / "python")
    code = "import site; print(site.getusersitepackages())"
    for variables in ({}, {"PYTHONUSERBASE": str(tmp_path / "base")}):
        around = {"HOME": str(tmp_path / "home"), **variables}
        folder = Path(run(environment.python, "-c", code, env=around).stdout.strip())
        touch(folder, "spandrel/__init__.py")
        system = System("linux", around, tmp_path / "home")
        assert spandrel_of(system, environment.python) == folder / "spandrel"
        assert spandrel_of(system, environment.python, ["-s"]) is None
