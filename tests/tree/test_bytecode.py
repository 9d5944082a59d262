"""Python never runs stale bytecode of the registry, neither after installing nor after uninstalling."""

from __future__ import annotations

import os
import py_compile
import sys
from importlib.util import cache_from_source
from pathlib import Path
from py_compile import PycInvalidationMode

import pytest
from environments import aether_install, aether_json, run, snapshot
from imports import import_each

MODES = list(PycInvalidationMode)


def registry_of(tree: Path) -> Path:
    return tree / "spandrel" / "__helpers" / "main_registry.py"


def compile_registry(tree: Path, mode: PycInvalidationMode) -> Path:
    path = py_compile.compile(str(registry_of(tree)), invalidation_mode=mode, doraise=True)
    assert path == cache_from_source(str(registry_of(tree)))
    return Path(path)


def set_time(path: Path, seconds: float) -> None:
    os.utime(path, (seconds, seconds))


@pytest.fixture
def second(tree: Path) -> float:
    """A time that everything in a test is given, as if it all happened within one second."""
    set_time(registry_of(tree), 1_700_000_000)
    return 1_700_000_000


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_bytecode_from_before_does_not_hide_the_patch(tree: Path, second: float, mode: PycInvalidationMode) -> None:
    compile_registry(tree, mode)
    before = snapshot(tree, bytecode=True)
    aether_install("spandrel", "--target", tree)
    set_time(registry_of(tree), second)
    assert aether_json("status", "--target", tree)["state"] == "installed"
    (answer,) = import_each([tree])
    assert answer.detects
    assert answer.clean

    aether_install("uninstall", "--target", tree)
    assert snapshot(tree, bytecode=True) == before
    (answer,) = import_each([tree])
    assert answer.clean
    assert not answer.detects
    assert not answer.warnings


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_bytecode_of_the_patch_does_not_outlive_it(tree: Path, second: float, mode: PycInvalidationMode) -> None:
    aether_install("spandrel", "--target", tree)
    set_time(registry_of(tree), second)
    compile_registry(tree, mode)
    assert aether_json("status", "--target", tree)["state"] == "installed"
    aether_install("uninstall", "--target", tree)
    (answer,) = import_each([tree])
    assert answer.clean
    assert not answer.detects
    assert not answer.warnings


@pytest.mark.parametrize("mode", [PycInvalidationMode.CHECKED_HASH, PycInvalidationMode.UNCHECKED_HASH], ids=str)
def test_bytecode_that_others_made_comes_back(tree: Path, mode: PycInvalidationMode) -> None:
    compile_registry(tree, mode)
    before = snapshot(tree, bytecode=True)
    aether_install("spandrel", "--target", tree)
    aether_install("uninstall", "--target", tree)
    assert snapshot(tree, bytecode=True) == before


def test_stale_bytecode_beside_the_patch_is_no_complete_installation(tree: Path) -> None:
    code = compile_registry(tree, PycInvalidationMode.UNCHECKED_HASH).read_bytes()
    aether_install("spandrel", "--target", tree)
    Path(cache_from_source(str(registry_of(tree)))).write_bytes(code)
    assert aether_json("status", "--target", tree)["state"] == "partial"
    aether_install("spandrel", "--target", tree)
    assert aether_json("status", "--target", tree)["state"] == "installed"
    assert import_each([tree])[0].detects


def test_no_bytecode_of_ours_is_left(tree: Path) -> None:
    before = snapshot(tree, bytecode=True)
    aether_install("spandrel", "--target", tree)
    payload = tree / "spandrel" / "architectures" / "AetherNet"
    for options in ([], ["-O"], ["-OO"]):
        run(sys.executable, *options, "-m", "compileall", "-q", payload)
    assert len(list(payload.rglob("*.pyc"))) == 3 * len(list(payload.rglob("*.py")))
    aether_install("uninstall", "--target", tree)
    assert snapshot(tree, bytecode=True) == before
