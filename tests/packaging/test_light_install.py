"""Without torch: what works on model files runs in the Python that --python names."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from built import WHEELS, built, one_file, python_of
from environments import REPOSITORY, UV_CACHE, Environment, borrowed, make_environment, run, script, snapshot


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What a package manager makes of the wheel, in a Python that is not the host's where there is another one."""
    root = tmp_path_factory.mktemp("light") / "venv"
    python = next(filter(None, map(python_of, ("3.13", "3.12", "3.10"))), sys.executable)
    environment = {**os.environ, "UV_NO_CONFIG": "1", "UV_CACHE_DIR": str(UV_CACHE)}
    run(script("uv"), "venv", "--quiet", "--python", python, root, env=environment)
    made = Environment(root)
    made.uv("install", "--no-index", "--find-links", WHEELS, *built().glob("*.whl"))
    return made


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The Python of a ComfyUI, with torch and a click that is not ours."""
    folder = tmp_path_factory.mktemp("home") / "ComfyUI"
    made = make_environment(folder / "venv", console=False)
    (made.site_packages / "click.py").write_text("raise ImportError('the application has its own click')\n")
    (made.site_packages / "torch").symlink_to(borrowed(console=False) / "torch")
    for name in ("comfy", "comfy_extras", "models/upscale_models"):
        (folder / name).mkdir(parents=True)
    for name in ("main.py", "folder_paths.py", "nodes.py", "extra_model_paths.yaml.example"):
        (folder / name).touch()
    return made


@pytest.fixture
def home(host: Environment) -> dict[str, str]:
    """The environment of somebody whose home holds that ComfyUI."""
    return {**os.environ, "HOME": str(host.root.parents[1])}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copy(REPOSITORY / "examples" / "models" / "2x-AetherNet-photo.pth", tmp_path / "model ü.pth"))


def command(light: Environment) -> Path:
    return light.root / "bin" / "aether-install"


def test_click_and_rich_are_all_that_is_installed(light: Environment) -> None:
    listed = {entry["name"] for entry in json.loads(light.uv("list", "--format", "json").stdout)}
    assert listed == {"aether-install", "click", "rich", "pygments", "markdown-it-py", "mdurl"}


def test_fuse_runs_in_the_python_that_is_named(
    light: Environment, host: Environment, model: Path, tmp_path: Path
) -> None:
    """With the same progress, JSON and exit status, and nothing is written there."""
    (tmp_path / "json.py").write_text("raise SystemExit('the current folder was imported')")
    before = snapshot(host.root, bytecode=True)
    arguments = ("fuse", "--model_path", model.name, "--output_path", "fused.pth", "--python", host.python, "--json")
    terminal, end = pty.openpty()
    with subprocess.Popen([command(light), *arguments], stdout=subprocess.PIPE, stderr=end, cwd=tmp_path) as process:
        os.close(end)
        shown = b""
        while part := _read(terminal):
            shown += part
        told = json.loads(process.communicate()[0])
    assert process.returncode == 0
    assert (told["fused_layers"], told["output_path"]) == (6, "fused.pth")
    assert told["max_abs_diff"] < 1e-4
    assert b"starting torch" in shown
    assert b"comparing fused.pth" in shown
    assert snapshot(host.root, bytecode=True) == before


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # how a terminal ends
        return b""


def test_the_one_file_runs_in_the_python_of_an_application(
    light: Environment, model: Path, home: dict[str, str]
) -> None:
    arguments = ("inspect", model, "--host", "comfyui", "--json")
    told = json.loads(run(light.python, one_file(), *arguments, env=home).stdout)
    assert (told["generation"], told["fused"]) == ("2025-06", False)
    both = run(light.python, one_file(), *arguments, "--python", sys.executable, check=False, env=home)
    assert both.returncode == 2


def test_without_torch_the_way_out_is_told(light: Environment, model: Path, home: dict[str, str]) -> None:
    bare = python_of("3.10") or Path(sys.executable)
    for arguments, executable in ((("inspect", model), light.python), (("inspect", model, "--python", bare), bare)):
        result = run(command(light), *arguments, "--json", check=False, env=home)
        assert result.returncode == 1
        assert json.loads(result.stdout)["error"] in result.stderr
        assert all(part in result.stderr for part in (str(executable), "has no torch", "--python", "--host comfyui"))
        assert len(result.stderr.splitlines()) == 1


def test_a_python_that_is_too_old_is_named(light: Environment, model: Path) -> None:
    old = python_of("3.8") or python_of("3.9")
    if old is None:
        pytest.skip("there is no Python 3.8 or 3.9 here")
    result = run(command(light), "inspect", model, "--python", old, "--json", check=False)
    assert result.returncode == 1
    assert str(old) in json.loads(result.stdout)["error"]
    assert len(result.stderr.splitlines()) == 1
