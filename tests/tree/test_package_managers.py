"""pip and uv stay in charge of spandrel, and no cache or other environment ever sees what we do to one."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from built import built
from environments import (
    REPOSITORY,
    Environment,
    aether_install,
    aether_json,
    make_environment,
    run,
    snapshot,
    wheel,
)
from imports import import_each
from trees import Tree

Manager = Callable[..., object]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return make_environment(tmp_path / "venv", None)


def managers() -> dict[str, Callable[[Environment], Manager]]:
    return {"pip": lambda environment: environment.pip, "uv": lambda environment: environment.uv}


@pytest.fixture(params=[pytest.param(of, id=name) for name, of in managers().items()])
def manager(environment: Environment, request: pytest.FixtureRequest) -> Manager:
    manager: Manager = request.param(environment)
    return manager


def install_spandrel(manager: Manager, version: str, *options: str) -> None:
    manager("install", "--no-deps", *options, wheel(version))


@pytest.fixture
def at(environment: Environment) -> Tree:
    return Tree(environment.site_packages)


def test_a_record_of_absolute_paths_lists_us_too(environment: Environment, at: Tree) -> None:
    """As some installers write them; pip removes what they list, and uv nothing at all."""
    install_spandrel(environment.pip, "0.4.2")
    content = environment.record.read_text()
    absolute = "".join(f"{environment.site_packages}/{line}" for line in content.splitlines(keepends=True))
    environment.record.write_text(absolute)
    before = at.snapshot()
    for _ in range(2):
        aether_install("spandrel", "--target", environment.site_packages)
        assert at.state == "installed"
        listed = {Path(row[0]) for row in csv.reader(environment.record.read_text().splitlines())}
        assert listed >= {path for path in environment.payload.rglob("*") if path.is_file() and path.suffix != ".pyc"}
        aether_install("uninstall", "--target", environment.site_packages)
        assert at.snapshot() == before
    aether_install("spandrel", "--target", environment.site_packages)
    environment.pip("uninstall", "--yes", "spandrel")
    assert not environment.spandrel.exists()


def finds_spandrel(environment: Environment) -> bool:
    code = "import sys, importlib.util; sys.exit(importlib.util.find_spec('spandrel') is None)"
    return run(environment.python, "-B", "-c", code, check=False, cwd=environment.root).returncode == 0


def ours(environment: Environment) -> list[Path]:
    return sorted(path for path in environment.site_packages.rglob("*") if "aether" in path.name.lower())


def assert_record_is_true(environment: Environment) -> None:
    listed = {}
    with environment.record.open(newline="") as file:
        for name, digest, size in csv.reader(file):
            path = environment.site_packages / name
            if digest:
                kind, _, encoded = digest.partition("=")
                actual = urlsafe_b64encode(hashlib.new(kind, path.read_bytes()).digest()).rstrip(b"=").decode()
                assert (actual, str(path.stat().st_size)) == (encoded, size), name
            listed[path] = digest
    for path in ours(environment):
        assert path.is_dir() or path in listed, f"{path} is not listed"


def test_record_lists_what_is_there_with_right_hashes(environment: Environment, manager: Manager, at: Tree) -> None:
    install_spandrel(manager, "0.4.2")
    assert_record_is_true(environment)
    at.install()
    assert_record_is_true(environment)
    at.uninstall()
    assert_record_is_true(environment)


def test_uninstalling_spandrel_leaves_nothing_of_ours(environment: Environment, manager: Manager, at: Tree) -> None:
    install_spandrel(manager, "0.4.2")
    at.install()
    assert finds_spandrel(environment)
    run(environment.python, "-m", "compileall", "-q", environment.payload, environment.registry.parent)
    manager("uninstall", *(["--yes"] if manager == environment.pip else []), "spandrel")
    assert not ours(environment)
    assert not environment.spandrel.exists()
    assert not finds_spandrel(environment)
    assert aether_json("status", "--target", environment.site_packages)["state"] == "missing"


def test_replacing_spandrel_takes_us_away_and_we_come_again(
    environment: Environment, manager: Manager, at: Tree
) -> None:
    """By a newer one, an older one, and the same again."""
    install_spandrel(manager, "0.4.1")
    for version in ("0.4.2", "0.3.4", "0.3.4"):
        at.install()
        install_spandrel(manager, version, "--force-reinstall")
        assert at.spandrel.version == version
        assert at.state == "absent"
        assert not ours(environment)
        fresh = at.snapshot()

        at.install()
        assert at.state == "installed"
        (answer,) = import_each([environment.site_packages])
        assert answer.clean, (version, answer)
        assert answer.detects, version
        at.uninstall()
        assert at.snapshot() == fresh


def test_unpacking_another_version_over_it_is_seen_and_mended(tmp_path: Path) -> None:
    """``pip install --ignore-installed`` writes over what is there, and knows nothing of us."""
    environment = make_environment(tmp_path / "venv", "0.4.1")
    at = Tree(environment.site_packages)
    at.install()
    install_spandrel(environment.pip, "0.4.2", "--ignore-installed")
    assert at.state == "partial"
    for command, result in ((at.install, "installed"), (at.uninstall, "absent")):
        command()
        assert at.state == result
    assert not ours(environment)
    assert "FDAT" in environment.registry.read_text()
    assert import_each([environment.site_packages])[0].clean


@pytest.mark.parametrize(
    "mode", ["hardlink", pytest.param("symlink", marks=pytest.mark.not_on_windows("Wine makes no symbolic links"))]
)
def test_no_cache_and_no_other_environment_sees_the_patch(tmp_path: Path, mode: str) -> None:
    cache = tmp_path / "cache"
    first, second = (make_environment(tmp_path / name, None) for name in ("first", "second"))
    for environment in (first, second):
        environment.uv("install", "--no-deps", "--link-mode", mode, wheel("0.4.2"), cache=cache)
    linked = first.registry.is_symlink() if mode == "symlink" else first.registry.stat().st_nlink > 2
    assert linked, "the environments share their files"
    before = {folder: snapshot(folder) for folder in (first.site_packages, second.site_packages, cache)}

    Tree(first.site_packages).install()
    assert not first.registry.is_symlink()
    assert b"AetherNet" in first.registry.read_bytes()
    assert snapshot(second.site_packages) == before[second.site_packages]
    assert snapshot(cache) == before[cache]
    Tree(first.site_packages).uninstall()
    assert {folder: snapshot(folder) for folder in before} == before


def test_an_editable_spandrel_needs_no_record(environment: Environment, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.unpack_archive(wheel("0.4.2"), source, "zip")
    shutil.rmtree(next(source.glob("*.dist-info")))
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "spandrel"\nversion = "0.4.2"\n[tool.setuptools]\npackages = ["spandrel"]\n'
    )
    environment.uv("install", "--no-deps", "--no-build-isolation", "--editable", source)
    before = snapshot(source / "spandrel")
    result = aether_json("spandrel", "--python", environment.python, "--no-verify")
    assert result["state"] == "installed"
    assert result["spandrel"]["path"] == str(source / "spandrel")
    assert import_each([source])[0].detects
    aether_install("uninstall", "--python", environment.python)
    assert snapshot(source / "spandrel") == before


def test_the_wheel_holds_one_package_with_the_payload_inside(tmp_path: Path) -> None:
    environment = make_environment(tmp_path / "venv")
    environment.uv("install", "--no-deps", *built().glob("*.whl"))
    installed = {path.name for path in environment.site_packages.iterdir()}
    assert {name for name in installed if "aether" in name and "dist-info" not in name} == {"aether_install"}
    payload = environment.site_packages / "aether_install" / "payload" / "AetherNet"
    for name in ("__init__.py", "__arch/aether_core.py"):
        assert (payload / name).read_bytes() == (REPOSITORY / "payload" / "AetherNet" / name).read_bytes()
    command = environment.python.with_name("aether-install")
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    before = snapshot(environment.spandrel)
    told = json.loads(run(command, "spandrel", "--no-verify", "--json", env=clean, cwd=tmp_path).stdout)
    assert told["spandrel"]["path"] == str(environment.spandrel)
    assert Tree(environment.site_packages).state == "installed"
    run(command, "uninstall", env=clean, cwd=tmp_path)
    assert snapshot(environment.spandrel) == before
