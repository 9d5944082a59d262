"""Other interpreters: asked without side effects, trusted only after they loaded a model, and told what is wrong."""

from __future__ import annotations

import os
import pty
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from environments import (
    SUPPORTED,
    Environment,
    aether_install,
    aether_json,
    make_environment,
    quietly,
    run,
    script,
    snapshot,
    wheel,
)
from imports import import_each

from aether_install.errors import AetherInstallError
from aether_install.hosts.locate import locate
from aether_install.tree.commands import install
from aether_install.tree.manifest import Payload, shipped_payload


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return make_environment(tmp_path_factory.mktemp("host") / "venv", "0.3.4")


@pytest.fixture(autouse=True)
def comes_back(environment: Environment) -> Iterator[None]:
    """Every test here leaves the environment as it found it."""
    before = snapshot(environment.root)
    yield
    aether_install("uninstall", "--target", environment.site_packages, "--force")
    assert snapshot(environment.root) == before


def test_every_version_loads_models_of_both_forms(tmp_path: Path) -> None:
    folders = []
    for version in SUPPORTED:
        folders.append(tmp_path / version)
        shutil.unpack_archive(wheel(version), folders[-1], "zip")
    before = [snapshot(folder) for folder in folders]
    for folder in folders:
        aether_install("spandrel", "--target", folder)
    for version, answer in zip(SUPPORTED, import_each(folders), strict=True):
        assert answer.clean, (version, answer)
        assert answer.detects, version
        assert not answer.warnings, version
    for folder in folders:
        aether_install("uninstall", "--target", folder)
    assert [snapshot(folder) for folder in folders] == before


def test_the_interpreter_loads_a_model_before_it_is_believed(environment: Environment) -> None:
    shown = aether_install("spandrel", "--python", environment.python).stdout
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
        program, *arguments = shlex.split(command)
        assert program == "aether-install"
        aether_install(*arguments)
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


@pytest.mark.parametrize(
    ("forward", "complaint"),
    [
        ("_forward(self, x).no_such_attribute", "no_such_attribute"),
        ("_forward(self, x) / 0", "not finite"),
        ("_forward(self, x) * (1 + 1e-3 * self.fused)", "make different pictures"),
    ],
    ids=["raises", "not finite", "forms differ"],
)
def test_what_loads_but_runs_wrongly_is_put_back(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, forward: str, complaint: str
) -> None:
    """Such as torch 2.1 and 2.2, with which every forward of the first release's payload raised."""
    before = snapshot(environment.root)
    files = dict(shipped_payload().files)
    files["__init__.py"] += f"_forward = aether.forward\naether.forward = lambda self, x: {forward}\n".encode()
    monkeypatch.setattr("aether_install.tree.commands.shipped_payload", lambda: Payload(files))
    found = locate(str(environment.python))
    with pytest.raises(AetherInstallError, match="put back") as caught:
        install(found.spandrel, check=found.check, progress=quietly)
    assert complaint in caught.value.details
    assert snapshot(environment.root) == before


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
        folder = tmp_path / name
        shutil.unpack_archive(wheel("0.4.2"), folder, "zip")
        aether_install("spandrel", "--target", folder)
        damage(folder / "spandrel" / "architectures" / "AetherNet")
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
        result = aether_json(
            "spandrel", "--python", environment.python, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}
        )
        assert result["state"] == "installed"
        assert result["spandrel"]["path"] == str(environment.spandrel)


def test_no_module_in_the_current_folder_is_run(environment: Environment, tmp_path: Path) -> None:
    for name in ("importlib", "json", "os", "platform", "typing"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} came from the current folder')")
    result = aether_json("spandrel", "--python", environment.python, cwd=tmp_path)
    assert result["state"] == "installed"


def test_an_interpreter_given_by_a_relative_path_is_found(environment: Environment) -> None:
    result = aether_json("status", "--python", "venv/bin/python", cwd=environment.root.parent)
    assert result["spandrel"]["version"] == "0.3.4"


def test_a_slow_interpreter_is_seen_to_be_asked(environment: Environment, tmp_path: Path) -> None:
    slow = tmp_path / "python"
    slow.write_text(f'#!/bin/sh\nsleep 1\nexec {environment.python} "$@"\n')
    slow.chmod(0o755)
    ours, theirs = pty.openpty()
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


@pytest.mark.parametrize(
    "program",
    ["#!/bin/sh\nexit 3\n", "#!/bin/sh\necho hello\n", "#!/no/such/interpreter\n", "not a program"],
    ids=["fails", "talks", "dangles", "garbage"],
)
def test_an_interpreter_that_does_not_start_is_named(tmp_path: Path, program: str) -> None:
    fake = tmp_path / "python"
    fake.write_text(program)
    fake.chmod(0o755)
    for name in (fake, tmp_path / "nothing", tmp_path):
        result = aether_install("spandrel", "--python", name, check=False)
        assert result.returncode == 1
        assert str(name) in result.stderr.splitlines()[0]
        assert "Traceback" not in result.stderr


def test_an_interpreter_without_spandrel_is_told_how_to_get_it(tmp_path: Path) -> None:
    bare = make_environment(tmp_path / "bare", None, borrow=False)
    result = aether_install("spandrel", "--python", bare.python, check=False)
    assert result.returncode == 1
    assert f"{bare.python} -m pip install spandrel" in result.stderr
    assert str(bare.site_packages) in result.stderr, "where it looked"
    assert aether_json("status", "--python", bare.python)["state"] == "missing"


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may write anywhere")
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


def test_two_at_once_take_turns(tree: Path) -> None:
    before = snapshot(tree)
    commands = [["spandrel", "--target", str(tree)], ["uninstall", "--target", str(tree)]] * 4
    for _ in range(3):
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
        state = aether_json("status", "--target", tree)["state"]
        assert state in ("installed", "absent")
        if state == "absent":
            assert snapshot(tree) == before
    aether_install("uninstall", "--target", tree)
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


def other_pythons() -> list[Path]:
    """Interpreters of other versions on this machine, newest last."""
    places = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep)]
    places += sorted(Path.home().glob(".pyenv/versions/*/bin"))
    found: dict[str, Path] = {}
    for version in ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13"):
        for place in places:
            python = place / f"python{version}"
            if python.is_file() and subprocess.run([python, "-c", ""], capture_output=True).returncode == 0:
                found[version] = python
                break
    return list(found.values())


@pytest.mark.parametrize("python", other_pythons(), ids=lambda python: python.name)
def test_other_pythons_run_the_installer_and_compile_the_payload(tmp_path: Path, tree: Path, python: Path) -> None:
    repository = Path(__file__).parents[2]
    payload = shutil.copytree(repository / "payload" / "AetherNet", tmp_path / "payload")
    run(python, "-m", "compileall", "-q", payload, repository / "installer" / "hosts" / "programs")
    if python.name in ("python3.8", "python3.9"):
        return
    library = tmp_path / "library"
    library.mkdir()
    for name in ("click", "rich", "markdown_it", "mdurl", "pygments"):
        (library / name).symlink_to(Path(sys.modules["pytest"].__file__ or "").parents[1] / name)
    (library / "aether_install").mkdir()
    for path in (repository / "installer").iterdir():
        if path.name != "__pycache__":
            (library / "aether_install" / path.name).symlink_to(path)
    (library / "aether_install" / "payload").symlink_to(repository / "payload")
    before = snapshot(tree)
    environment = {**os.environ, "PYTHONPATH": str(library), "PYTHONDONTWRITEBYTECODE": "1"}
    for command, status in (("status", 1), ("spandrel", 0), ("status", 0), ("uninstall", 0)):
        result = run(python, "-m", "aether_install", command, "--target", tree, env=environment, check=False)
        assert result.returncode == status, result.stderr
    assert snapshot(tree) == before
