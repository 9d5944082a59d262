"""Other interpreters: asked without side effects, trusted only after they loaded a model, and told what is wrong."""

from __future__ import annotations

import importlib
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from built import python_of
from environments import (
    REPOSITORY,
    SITE_PACKAGES,
    Environment,
    aether_install,
    aether_json,
    make_environment,
    quietly,
    run,
    script,
    snapshot,
    wheel,
    words_of,
)
from imports import import_each, spandrel_of

from aether_install.tree.commands import install, status, uninstall
from aether_install.tree.layout import Spandrel
from aether_install.tree.state import State


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return make_environment(tmp_path_factory.mktemp("host") / "venv", "0.3.4")


@pytest.fixture(autouse=True)
def comes_back(environment: Environment) -> Iterator[None]:
    """Every test here leaves the environment as it found it."""
    before = snapshot(environment.root)
    yield
    uninstall(Spandrel(environment.spandrel), force=True, progress=quietly)
    assert snapshot(environment.root) == before


def taught(folder: Path, version: str) -> Spandrel:
    """A spandrel of a version that knows AetherNet, in a site-packages folder."""
    shutil.unpack_archive(wheel(version), folder, "zip")
    install(Spandrel(folder / "spandrel"), progress=quietly)
    return Spandrel(folder / "spandrel")


def in_the_way(folder: Path) -> Path:
    """A current folder with modules that must not be imported from there."""
    for name in ("importlib", "json", "os", "platform", "spandrel", "torch", "typing"):
        (folder / f"{name}.py").write_text(f"raise SystemExit('{name} came from the current folder')")
    return folder


def test_the_interpreter_loads_a_model_before_it_is_believed(environment: Environment, tmp_path: Path) -> None:
    """Whatever lies in the current folder, which this PYTHONPATH would have everybody import from but for ``-I``."""
    ours = ["-m", "aether_install"] if os.name == "nt" else [script("aether-install")]
    command = [sys.executable, "-I", *ours, "spandrel", "--python", environment.python]
    shown = run(*command, cwd=in_the_way(tmp_path), env={**os.environ, "PYTHONPATH": os.pathsep}).stdout
    assert "Not verified" not in shown
    assert f"0.3.4 in {environment.spandrel}" in shown
    assert str(environment.root) in shown
    assert not list(environment.spandrel.rglob("*.pyc")), "asking writes no bytecode"


def test_the_advice_of_status_is_about_the_same_spandrel(environment: Environment, tmp_path: Path) -> None:
    folder = tmp_path / "with a space"
    shutil.unpack_archive(wheel("0.4.0"), folder, "zip")
    for options in (("--python", environment.python), ("--target", folder)):
        advice = aether_install("status", *options, check=False).stdout.splitlines()[-1]
        _, command, _ = advice.split("`")
        program, *arguments = words_of(command)
        assert program == "aether-install"
        aether_install(*arguments, "--no-verify")
        assert aether_json("status", *options)["state"] == "installed"
        assert "aether-install" not in aether_install("status", *options).stdout.splitlines()[-1]


def test_what_does_not_load_is_put_back_and_explained(environment: Environment) -> None:
    before = snapshot(environment.root)
    (environment.site_packages / "aaa.pth").write_text("import sys; sys.modules['torch'] = None\n")
    broken = snapshot(environment.root)
    result = aether_install("spandrel", "--python", environment.python, check=False)
    assert result.returncode == 1
    assert "put back" in result.stderr.splitlines()[0]
    assert "torch" in "".join(result.stderr.splitlines()[1:]), "the child's own words"
    assert aether_json("spandrel", "--python", environment.python)["state"] == "absent"
    assert snapshot(environment.root) == broken
    assert "installed" in aether_install("spandrel", "--python", environment.python, "--no-verify").stdout
    aether_install("uninstall", "--python", environment.python)
    (environment.site_packages / "aaa.pth").unlink()
    assert snapshot(environment.root) == before


WRONG: dict[str, Callable[[Any], Any]] = {
    "no attribute 'no_such": lambda model: model.no_such,
    "not finite": lambda _: float("inf"),
    "AetherNet3?-Fused and AetherNet3?-Unfused are .* different pictures": lambda model: 1 + 1e-3 * model.fused,
    "(AetherNet3?-Fused) and \\1 are .* different pictures": lambda _: 1 + 1e-3 * torch.is_grad_enabled(),
}
"""What the pictures of a network are multiplied by, by what is said of it."""


def test_what_loads_but_runs_wrongly_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Such as torch 2.1 and 2.2, with which every forward of the first release's payload raised.

    The program that the interpreter runs, in this process, with a spandrel whose networks change once it is imported.
    """
    program = str(REPOSITORY / "installer" / "hosts" / "programs" / "does_aethernet_load.py")
    monkeypatch.setattr(sys, "argv", ["-c", str(taught(tmp_path, "0.3.4").package)])
    with spandrel_of(tmp_path):
        payload = importlib.import_module("spandrel.architectures.AetherNet")
        runpy.run_path(program, run_name="__main__")
        for network in (payload.aether, payload.aether3):
            forward = network.forward
            for complaint, factor in WRONG.items():
                with monkeypatch.context() as patch:
                    patch.setattr(network, "forward", lambda self, x, f=factor, right=forward: right(self, x) * f(self))
                    with pytest.raises((SystemExit, AttributeError), match=complaint):
                        runpy.run_path(program, run_name="__main__")


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_a_broken_payload_costs_a_warning_and_nothing_else(tmp_path: Path) -> None:
    for name, damage in {
        "syntax": lambda payload: (payload / "__init__.py").write_text("def broken(:\n"),
        "import": lambda payload: (payload / "__init__.py").write_text("import torch_of_the_future\n"),
        "core gone": lambda payload: (payload / "__arch" / "aether_core.py").unlink(),
        "all gone": shutil.rmtree,
        "half": lambda payload: (payload / "__init__.py").unlink(),
        "last one": lambda payload: append(payload / "__init__.py", "ARCHITECTURES += (None,)\n"),
    }.items():
        damage(taught(tmp_path / name, "0.4.2").payload)
    for answer in import_each(sorted(tmp_path.iterdir())):
        assert answer.clean
        assert not answer.registered, "all of them or none"
        (warning,) = answer.warnings
        assert "aether-install spandrel --python" in warning
        assert "uninstall" in warning


def test_the_current_folder_is_on_nobodys_path(environment: Environment, tmp_path: Path) -> None:
    for name in ("spandrel", "torch"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} came from the current folder')")
    for path in ("", os.pathsep, "relative"):
        around: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": path}}
        result = aether_json("spandrel", "--python", environment.python, "--no-verify", **around)
        assert result["state"] == "installed"
        assert result["spandrel"]["path"] == str(environment.spandrel)


def test_no_module_in_the_current_folder_is_run(environment: Environment, tmp_path: Path) -> None:
    result = aether_json("spandrel", "--python", environment.python, "--no-verify", cwd=in_the_way(tmp_path))
    assert result["state"] == "installed"


def test_an_interpreter_given_by_a_relative_path_is_found(environment: Environment) -> None:
    folder = environment.root.parent
    result = aether_json("status", "--python", environment.python.relative_to(folder), cwd=folder)
    assert result["spandrel"]["version"] == "0.3.4"


@pytest.mark.not_on_windows("a shell script is no interpreter")
def test_a_slow_interpreter_is_seen_to_be_asked(environment: Environment, tmp_path: Path) -> None:
    slow = tmp_path / "python"
    slow.write_text(f'#!/bin/sh\nsleep 1\nexec {environment.python} "$@"\n')
    slow.chmod(0o755)
    ours, theirs = os.openpty()
    shell = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
    subprocess.run(
        [script("aether-install"), "status", "--python", slow], stdout=subprocess.PIPE, stderr=theirs, env=shell
    )
    os.close(theirs)
    assert b"asking" in os.read(ours, 4096)
    os.close(ours)


def test_pythonpath_counts_as_it_would_for_the_interpreter(environment: Environment, tmp_path: Path) -> None:
    shutil.unpack_archive(wheel("0.4.0"), tmp_path / "other", "zip")
    result = aether_json(
        "status", "--python", environment.python, env={**os.environ, "PYTHONPATH": "other"}, cwd=tmp_path
    )
    assert result["spandrel"] == {"version": "0.4.0", "path": str(tmp_path / "other" / "spandrel")}


def test_several_on_the_path_are_all_named(environment: Environment, tmp_path: Path) -> None:
    shutil.unpack_archive(wheel("0.4.0"), tmp_path, "zip")
    shown = aether_install(
        "status", "--python", environment.python, check=False, env={**os.environ, "PYTHONPATH": str(tmp_path)}
    ).stdout
    assert f"0.4.0 in {tmp_path / 'spandrel'}" in shown
    assert f"not used: {environment.spandrel}" in shown


def assert_named(python: Path) -> None:
    result = aether_install("spandrel", "--python", python, check=False)
    assert result.returncode == 1
    assert str(python) in result.stderr.splitlines()[0]
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "program",
    ["#!/bin/sh\nexit 3\n", "#!/bin/sh\necho hello\n", "#!/no/such/interpreter\n", "not a program"],
    ids=["fails", "talks", "dangles", "garbage"],
)
def test_an_interpreter_that_does_not_start_is_named(tmp_path: Path, program: str) -> None:
    fake = tmp_path / "python"
    fake.write_text(program)
    fake.chmod(0o755)
    assert_named(fake)


def test_an_interpreter_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        assert_named(path)


def test_an_interpreter_without_spandrel_is_told_where_it_looked(tmp_path: Path) -> None:
    bare = make_environment(tmp_path / "bare", None, borrow=False)
    result = aether_install("spandrel", "--python", bare.python, check=False)
    assert result.returncode == 1
    assert str(bare.site_packages) in result.stderr, "where it looked"
    assert aether_json("status", "--python", bare.python)["state"] == "missing"


@pytest.mark.not_on_windows("no mode keeps a folder from being written to")
@pytest.mark.skipif(
    os.name == "posix" and os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may write anywhere"
)
def test_no_permission_is_explained_and_changes_nothing(tree: Path) -> None:
    for path in [tree, *tree.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    before = snapshot(tree)
    # Still the owner, who may enter the folder that this clone is in, but no longer above all modes.
    powerless = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []
    result = run(*powerless, script("aether-install"), "spandrel", "--target", tree, check=False)
    assert result.returncode == 1, result.stdout
    assert "Permission denied" in result.stderr
    assert "run this as the user who owns" in result.stderr
    assert snapshot(tree) == before


def at_once(commands: list[list[str]]) -> None:
    """Runs the real command as often as there are commands, all at the same time."""
    children = [
        subprocess.Popen(
            [script("aether-install"), *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for command in commands
    ]
    for child in children:
        _, errors = child.communicate()
        assert child.returncode == 0, errors
        assert errors == "" or "waiting for another" in errors


def forked_at_once(works: list[Callable[[], object]]) -> None:
    """The same without the time that a Python takes to start, in which one might be done before the next begins."""
    children = []
    for work in works:
        child = os.fork()
        if child == 0:
            try:
                work()
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(works)


def test_two_at_once_take_turns(tree: Path) -> None:
    before = snapshot(tree)
    spandrel = Spandrel(tree / "spandrel")
    commands = [["spandrel", "--target", str(tree)], ["uninstall", "--target", str(tree)]] * 4
    works = [partial(install, spandrel, progress=quietly), partial(uninstall, spandrel, progress=quietly)] * 4
    for run_all in (partial(at_once, commands), *[partial(forked_at_once, works)] * (2 * hasattr(os, "fork"))):
        run_all()
        state = status(spandrel).state
        assert state in (State.INSTALLED, State.ABSENT)
        if state is State.ABSENT:
            assert snapshot(tree) == before
    uninstall(spandrel, progress=quietly)
    assert snapshot(tree) == before


def test_an_installer_waits_for_another_and_says_so(tree: Path) -> None:
    hold = (
        "import sys, time\nfrom pathlib import Path\nfrom aether_install.tree.lock import locked\n"
        "with locked(Path(sys.argv[1]), lambda: None):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(tree / "spandrel")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    waiting = subprocess.Popen(
        [script("aether-install"), "spandrel", "--target", tree],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiting.stderr is not None
    assert "waiting for another" in waiting.stderr.readline()
    assert aether_json("status", "--target", tree)["state"] == "absent"
    holder.kill()
    assert waiting.wait(30) == 0
    assert aether_json("status", "--target", tree)["state"] == "installed"
    holder.wait()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with this aether-install and what it needs, where every Python may leave its bytecode."""
    folder = tmp_path_factory.mktemp("library")
    no_bytecode = shutil.ignore_patterns("__pycache__")
    for name in ("click", "rich", "markdown_it", "mdurl", "pygments"):
        shutil.copytree(SITE_PACKAGES / name, folder / name, ignore=no_bytecode)
    shutil.copytree(REPOSITORY / "installer", folder / "aether_install", ignore=no_bytecode)
    shutil.copytree(REPOSITORY / "payload", folder / "aether_install" / "payload", ignore=no_bytecode)
    return folder


@pytest.mark.not_on_windows("the embeddable Python heeds no PYTHONPATH")
@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13"])
def test_other_pythons_run_the_installer_and_compile_the_payload(library: Path, tree: Path, version: str) -> None:
    python = python_of(version) or pytest.skip(f"there is no Python {version} here")
    package = library / "aether_install"
    run(python, "-m", "compileall", "-q", package / "payload" / "AetherNet", package / "hosts" / "programs")
    if version in ("3.8", "3.9"):
        return
    before = snapshot(tree)
    environment = {**os.environ, "PYTHONPATH": str(library)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    for command, ended in (("status", 1), ("spandrel", 0), ("status", 0), ("uninstall", 0)):
        result = run(python, "-m", "aether_install", command, "--target", tree, env=environment, check=False)
        assert result.returncode == ended, result.stderr
    assert snapshot(tree) == before
