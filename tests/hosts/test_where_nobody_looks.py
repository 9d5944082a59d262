"""Without a word of where, the Python that runs aether-install is meant; it is told if no application uses that."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from environments import REPOSITORY, SITE_PACKAGES, Environment, make_environment, needs_torch
from machines import COMFYUI, environment_in, touch


def with_aether_install(environment: Environment) -> Environment:
    """Puts this aether-install and what it needs into an environment, as links but on Windows."""
    if os.name == "nt":
        for name in ("aether_install", "click", "colorama", "rich", "markdown_it", "mdurl", "pygments"):
            shutil.copytree(SITE_PACKAGES / name, environment.site_packages / name)
        return environment
    package = environment.site_packages / "aether_install"
    package.mkdir()
    for path in (REPOSITORY / "installer").iterdir():
        if path.name != "__pycache__":
            (package / path.name).symlink_to(path)
    (package / "payload").symlink_to(REPOSITORY / "payload")
    for name in ("click", "rich", "markdown_it", "mdurl", "pygments"):
        (environment.site_packages / name).symlink_to(SITE_PACKAGES / name)
    return environment


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with ComfyUI, and with aether-install in a tool's environment and in ComfyUI's."""
    home = tmp_path_factory.mktemp("home")
    folder = touch(home / "ComfyUI", *COMFYUI)
    with_aether_install(make_environment(folder / "venv", "0.4.1", borrow=False))
    return home


def run(home: Path, environment: Environment, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [environment.python, "-B", "-m", "aether_install", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment_in(home), cwd=home)


def test_a_spandrel_that_no_application_uses_is_no_success(home: Path, tmp_path: Path) -> None:
    environment = with_aether_install(make_environment(tmp_path / "tools" / "aether-install", borrow=False))
    for receipt, tool in (("uv-receipt.toml", "uv"), ("pipx_metadata.json", "pipx")):
        (environment.root / receipt).touch()
        told = run(home, environment, "spandrel", "--no-verify")
        (environment.root / receipt).unlink()
        assert told.returncode == 0, "it was asked for"
        assert environment.payload.is_dir()
        headline = told.stdout.splitlines()[0]
        assert "loads AetherNet models" not in headline
        assert f"no application uses, since {tool} made it for a tool" in headline
        assert "Found on this machine: ComfyUI; teach it with `aether-install spandrel --all`" in told.stdout
    again = json.loads(run(home, environment, "spandrel", "--no-verify", "--json").stdout)
    assert (again["state"], again["changed"], again["used_by"]) == ("installed", [], [])
    nowhere = run(tmp_path, environment, "spandrel", "--no-verify").stdout
    assert "no application found here uses" in nowhere.splitlines()[0]
    assert "No application that uses spandrel was found; name the folder of yours with --host" in nowhere


def test_without_a_spandrel_it_says_which_applications_have_one(home: Path, tmp_path: Path) -> None:
    environment = with_aether_install(make_environment(tmp_path / "tool", None, borrow=False))
    for command in ("spandrel", "status"):
        told = run(home, environment, command)
        assert told.returncode == 1
        (sentence,) = told.stderr.splitlines()
        assert "has no spandrel" in sentence
        assert str(environment.site_packages) in sentence, "where it looked"
        assert "found on this machine: ComfyUI" in sentence
        assert "`aether-install spandrel --all`" in sentence
        assert "pip install" not in sentence, "which would help none of them"
    assert json.loads(run(home, environment, "spandrel", "--json").stdout)["state"] == "missing"
    assert "pip install spandrel" in run(tmp_path, environment, "spandrel").stderr, "nobody else has one"
    (environment.root / "uv-receipt.toml").touch()
    told = run(tmp_path, environment, "spandrel").stderr
    assert "pip install" not in told, "no application would use it"
    assert "name the folder of yours with --host" in told


def test_in_the_folder_of_an_application_its_own_spandrel_is_named(tmp_path: Path) -> None:
    """However deep that lies, and whichever part of it one is in."""
    tool = with_aether_install(make_environment(tmp_path / "tool", None, borrow=False))
    folder = touch(tmp_path / "1" / "2" / "3" / "4" / "ComfyUI", *COMFYUI)
    make_environment(folder / "venv", "0.4.1", borrow=False)
    variables = {**os.environ, "HOME": str(touch(tmp_path / "home"))}
    for place in (folder, folder / "models" / "upscale_models"):

        def typed(*words: str, place: Path = place) -> subprocess.CompletedProcess[str]:
            line = [tool.python, "-B", "-m", "aether_install", *words]
            return subprocess.run(line, capture_output=True, text=True, env=variables, cwd=place)

        told = typed("spandrel")
        assert told.returncode == 1, "the default is the Python that runs this"
        assert "ComfyUI, in whose folder this is, has one: spandrel 0.4.1, absent" in told.stderr
        state = typed("status")
        assert (state.returncode, state.stderr) == (1, "")
        assert f"host: ComfyUI in {folder}" in state.stdout
        words = told.stderr.split("`")[-2].split()
        assert typed("spandrel", *words, "--no-verify").returncode == 0
        state = typed("status", "--json")
        assert (state.returncode, json.loads(state.stdout)["state"]) == (0, "installed")
        assert json.loads(state.stdout)["spandrel"]["version"] == "0.4.1"
        assert typed("uninstall", *words).returncode == 0


def test_a_spandrel_that_no_application_uses_is_not_taken_for_theirs(home: Path, tmp_path: Path) -> None:
    """As where aether-install[models] brought one, and one is in the folder of an application that is taught."""
    tool = with_aether_install(make_environment(tmp_path / "tool", console=False))
    run(home, tool, "spandrel", "--host", "comfyui", "--no-verify")
    line, folder = [tool.python, "-B", "-m", "aether_install"], home / "ComfyUI"
    options = {"capture_output": True, "text": True, "env": environment_in(home)}
    told = subprocess.run([*line, "status"], cwd=folder, **options)  # type: ignore[call-overload]
    assert (
        told.stdout.splitlines()[0] == "absent: this spandrel, which no application found here uses, does not load "
        "AetherNet models"
    )
    assert told.stdout.splitlines()[-1] == (
        f"ComfyUI, in whose folder this is, has one: spandrel 0.4.1, installed; for that one add `--host {folder}`."
    )
    assert "aether-install spandrel`" not in told.stdout
    told = subprocess.run([*line, "status"], cwd=tmp_path, **options)  # type: ignore[call-overload]
    assert "Found on this machine: ComfyUI, which loads AetherNet models already" in told.stdout
    run(home, tool, "uninstall", "--host", "comfyui")
    assert "no application found here uses" not in run(tmp_path, tool, "status").stdout, "there is none"


def test_doctor_says_that_no_application_uses_a_spandrel(home: Path, tmp_path: Path) -> None:
    needs_torch()
    tool, folder = with_aether_install(make_environment(tmp_path / "tool", console=False)), home / "ComfyUI"
    line = [tool.python, "-B", "-m", "aether_install"]
    told = subprocess.run(
        [*line, "doctor"], cwd=folder, capture_output=True, text=True, env=environment_in(home), check=False
    )
    assert (
        told.stdout.splitlines()[-1]
        == f"No application uses this spandrel. Found here: ComfyUI in {folder}; add --host comfyui."
    )


def test_what_can_use_no_model_is_not_offered(tmp_path: Path) -> None:
    environment = with_aether_install(make_environment(tmp_path / "tool", None, borrow=False))
    make_environment(touch(tmp_path / "sdnext", "webui.py", "installer.py") / "venv", borrow=False)
    told = run(tmp_path, environment, "spandrel").stderr
    assert "SD.Next" not in told
    assert "no application that can use AetherNet models was found" in told
    shown = run(tmp_path, environment, "hosts").stdout.splitlines()
    assert shown[-1] == "No application that can use AetherNet models was found."
    assert not any("spandrel --all" in line for line in shown)


def test_of_none_nothing_is_claimed_of_all(tmp_path: Path) -> None:
    environment = with_aether_install(make_environment(tmp_path / "tool", None, borrow=False))
    touch(tmp_path / "ComfyUI", *COMFYUI)
    assert "has a spandrel yet" in run(tmp_path, environment, "hosts").stdout.splitlines()[-1]
    make_environment(tmp_path / "ComfyUI" / "venv", borrow=False)
    assert "`aether-install spandrel --all`" in run(tmp_path, environment, "hosts").stdout.splitlines()[-1]
    run(tmp_path, environment, "spandrel", "--all", "--no-verify")
    assert "load them" in run(tmp_path, environment, "hosts").stdout.splitlines()[-1]


def test_in_an_applications_own_python_it_is_a_success(home: Path) -> None:
    environment = Environment(home / "ComfyUI" / "venv")
    told = run(home, environment, "spandrel", "--no-verify")
    assert "installed: spandrel 0.4.1 loads AetherNet models" in told.stdout.splitlines()[0]
    assert json.loads(run(home, environment, "spandrel", "--json").stdout)["used_by"] == ["comfyui"]
    run(home, environment, "uninstall")


@pytest.mark.not_on_windows("there is no sudo")
@pytest.mark.parametrize("command", ["hosts", "spandrel --all", "status", "spandrel"])
def test_with_sudo_it_says_whose_home_was_looked_in(tmp_path: Path, command: str) -> None:
    """Which is that of root, where nobody has an application."""
    tool = with_aether_install(make_environment(tmp_path / "tool", None, borrow=False))
    line = [tool.python, "-B", "-m", "aether_install", *command.split()]
    for user, home, is_told in (
        ("root", tmp_path, True),
        ("root", Path(os.path.expanduser("~root")), False),
        ("", tmp_path, False),
    ):
        variables = {**environment_in(home), "SUDO_USER": user}
        told = subprocess.run(line, capture_output=True, text=True, env=variables, cwd=tmp_path)
        where = f"un this without sudo to find what is in {os.path.expanduser('~root')}, the home of "
        assert (where in told.stdout + told.stderr) is is_told, told
