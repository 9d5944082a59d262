"""The one file runs all commands in Pythons of other people, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from built import build, copy_sources, one_file, python_of
from environments import REPOSITORY, Environment, borrowed, make_environment, run, snapshot
from windows import windows_rules

VERSIONS = ("3.10", "3.11", "3.12", "3.13")

MODEL = REPOSITORY / "examples" / "models" / "2x-AetherNet-photo.pth"

# As on a user's machine, whatever the one that runs the tests has set.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file, in a folder that may not be written to."""
    folder = tmp_path_factory.mktemp("one") / "my télécharge ments"
    folder.mkdir()
    path = Path(shutil.copy(one_file(), folder))
    folder.chmod(0o555)
    return path


def python_or_skip(version: str) -> Path:
    python = python_of(version)
    return python or pytest.skip(f"there is no Python {version} here")


def answer(*command: str | Path, **options: Any) -> tuple[int, dict[str, Any]]:
    """Exit status and JSON of a command."""
    result = run(*command, "--json", check=False, env={**ENVIRONMENT, **options.pop("env", {})}, **options)
    return result.returncode, json.loads(result.stdout)


def test_it_is_small_and_has_the_licences_of_what_is_inside(pyz: Path) -> None:
    assert pyz.stat().st_size < 3e6
    assert os.access(pyz, os.X_OK)
    with zipfile.ZipFile(pyz) as archive:
        names = archive.namelist()
    for package in ("aether_install", "click", "rich", "pygments", "markdown_it_py", "mdurl", "colorama"):
        assert any(name.startswith(f"licenses/{package}-") for name in names), package


def test_the_same_sources_give_the_same_bytes(tmp_path: Path) -> None:
    sources = tmp_path / "elsewhere"
    sources.mkdir()
    copy_sources(sources)
    for path in sources.rglob("*"):
        os.utime(path, (1e9, 1e9))
        path.chmod(0o700)
    build(sources, tmp_path / "built")
    assert (tmp_path / "built" / "aether-install.pyz").read_bytes() == one_file().read_bytes()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_python_that_has_nothing_patches_a_folder(version: str, pyz: Path, tree: Path, tmp_path: Path) -> None:
    command = (python_or_skip(version), pyz)
    target = ("--target", tree)
    home = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
    for folder in home.values():
        Path(folder).mkdir()
    before, beside = snapshot(tree, bytecode=True), snapshot(pyz.parent, bytecode=True)
    for arguments, status, state in (
        (("spandrel", *target), 0, "installed"),
        (("status", *target), 0, "installed"),
        (("uninstall", *target), 0, "absent"),
    ):
        code, told = answer(*command, *arguments, env=home)
        assert (code, told["state"]) == (status, state)
    assert snapshot(tree, bytecode=True) == before
    assert snapshot(pyz.parent, bytecode=True) == beside
    assert not any(any(Path(folder).iterdir()) for folder in home.values())
    code, told = answer(*command, "inspect", MODEL)
    assert code == 1
    assert "torch" in told["error"]


def test_it_patches_under_the_rules_of_windows(pyz: Path, tree: Path) -> None:
    before = snapshot(tree)
    for command, state in (("spandrel", "installed"), ("uninstall", "absent")):
        code, told = answer(sys.executable, pyz, command, "--target", tree, env=windows_rules())
        assert (code, told["state"]) == (0, state)
    assert snapshot(tree) == before


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with torch and spandrel, and with a click and a rich of its own that its spandrel needs."""
    made = make_environment(tmp_path_factory.mktemp("host") / "venv", console=False)
    for name in ("click", "rich"):
        (made.site_packages / f"{name}.py").write_text("version = 'of the application'\n")
    (made.site_packages / "sitecustomize.py").write_text("import click, rich\n")
    package = made.spandrel / "__init__.py"
    text = f"{package.read_text()}\nimport click, rich\nassert click.version == rich.version\n"
    package.unlink()  # uv's cache has another name for the same file.
    package.write_text(text)
    return made


def embedded(host: Environment, folder: Path) -> Path:
    """
    A Python like those that come with portable applications: a ._pth file beside the executable names what it imports.

    Those before 3.11 read such a file on Windows alone.
    """
    if sys.version_info < (3, 11):
        return host.python
    standard = Path(os.__file__).parent
    folder.mkdir()
    python = Path(shutil.copy(Path(sys.executable).resolve(), folder / "python"))
    ours = (host.site_packages, borrowed(console=False))
    paths = ("../ComfyUI", standard, standard / "lib-dynload", ".", *ours, "import site")
    (folder / "python._pth").write_text("".join(f"{path}\n" for path in paths))
    return python


def test_the_python_that_runs_it_is_the_host(pyz: Path, host: Environment, tmp_path: Path) -> None:
    """Its click and rich are for what it runs; ours are for us, although it has imported its own by then."""
    python = embedded(host, tmp_path / "python_embeded")
    run(python, "-c", "", env=ENVIRONMENT)  # makes the bytecode of what it imports as it starts
    before = {folder: snapshot(folder, bytecode=True) for folder in (tmp_path, host.root)}
    # As ComfyUI's own scripts start it, from the folder above.
    command = (os.path.relpath(python, tmp_path), "-s", pyz)
    output = tmp_path / "fused ü.safetensors"

    code, told = answer(*command, "spandrel", cwd=tmp_path)
    assert (code, told["state"]) == (0, "installed"), told
    assert told["spandrel"]["path"] == str(host.spandrel)
    assert answer(*command, "status", cwd=tmp_path)[0] == 0
    code, told = answer(*command, "fuse", "--model_path", MODEL, "--output_path", output, cwd=tmp_path)
    assert (code, told["fused_layers"]) == (0, 6), told
    assert told["max_abs_diff"] < 1e-4
    code, told = answer(*command, "uninstall", cwd=tmp_path)
    assert (code, told["state"]) == (0, "absent")

    output.unlink()
    for folder, facts in before.items():
        assert snapshot(folder, bytecode=True) == facts


def test_what_to_do_next_is_told_as_it_is_to_be_typed(pyz: Path, tree: Path) -> None:
    shown = run(python_or_skip("3.12"), pyz.name, "status", "--target", tree, check=False, cwd=pyz.parent).stdout
    assert f"`{python_of('3.12')} {pyz.name} spandrel --target" in shown


@pytest.mark.parametrize("flags", [["-I"], ["-s", "-E"], ["-S"], ["-O"]], ids=" ".join)
def test_flags_of_the_interpreter_do_no_harm(flags: list[str], pyz: Path, tree: Path) -> None:
    code, told = answer(python_or_skip("3.10"), *flags, pyz, "status", "--target", tree)
    assert (code, told["state"]) == (1, "absent")


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.8", "3.9"])
def test_a_python_that_is_too_old_is_told_in_one_sentence(version: str, pyz: Path) -> None:
    python = python_or_skip(version)
    result = run(python, pyz, "spandrel", check=False, env=ENVIRONMENT)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert all(part in result.stderr for part in (str(python), version, "3.10", "--python"))
