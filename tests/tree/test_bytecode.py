"""Python never runs stale bytecode of the registry, neither after installing nor after uninstalling."""

from __future__ import annotations

import compileall
import os
import py_compile
from importlib.util import cache_from_source
from pathlib import Path
from py_compile import PycInvalidationMode

import pytest
from imports import import_each
from trees import Tree

MODES = list(PycInvalidationMode)


def compile_registry(at: Tree, mode: PycInvalidationMode) -> Path:
    path = py_compile.compile(str(at.registry), invalidation_mode=mode, doraise=True)
    assert path == cache_from_source(str(at.registry))
    return Path(path)


def set_time(path: Path, seconds: float) -> None:
    os.utime(path, (seconds, seconds))


@pytest.fixture
def second(at: Tree) -> float:
    """A time that everything in a test is given, as if it all happened within one second."""
    set_time(at.registry, 1_700_000_000)
    return 1_700_000_000


def assert_imports_without_us(at: Tree) -> None:
    (answer,) = import_each([at.site_packages])
    assert answer.clean
    assert not answer.detects
    assert not answer.warnings


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_bytecode_from_before_does_not_hide_the_patch(at: Tree, second: float, mode: PycInvalidationMode) -> None:
    compile_registry(at, mode)
    before = at.snapshot(bytecode=True)
    at.install()
    set_time(at.registry, second)
    assert at.state == "installed"
    (answer,) = import_each([at.site_packages])
    assert answer.detects
    assert answer.clean

    at.uninstall()
    assert at.snapshot(bytecode=True) == before
    assert_imports_without_us(at)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_bytecode_of_the_patch_does_not_outlive_it(at: Tree, second: float, mode: PycInvalidationMode) -> None:
    at.install()
    set_time(at.registry, second)
    compile_registry(at, mode)
    assert at.state == "installed"
    at.uninstall()
    assert_imports_without_us(at)


@pytest.mark.parametrize("mode", [PycInvalidationMode.CHECKED_HASH, PycInvalidationMode.UNCHECKED_HASH], ids=str)
def test_bytecode_that_others_made_comes_back(at: Tree, mode: PycInvalidationMode) -> None:
    compile_registry(at, mode)
    before = at.snapshot(bytecode=True)
    at.install()
    at.uninstall()
    assert at.snapshot(bytecode=True) == before


def test_stale_bytecode_beside_the_patch_is_no_complete_installation(at: Tree) -> None:
    code = compile_registry(at, PycInvalidationMode.UNCHECKED_HASH).read_bytes()
    at.install()
    Path(cache_from_source(str(at.registry))).write_bytes(code)
    assert at.state == "partial"
    at.install()
    assert at.state == "installed"
    assert import_each([at.site_packages])[0].detects


def test_no_bytecode_of_ours_is_left(at: Tree) -> None:
    before = at.snapshot(bytecode=True)
    at.install()
    compileall.compile_dir(at.payload, quiet=1, optimize=[0, 1, 2])
    assert len(list(at.payload.rglob("*.pyc"))) == 3 * len(list(at.payload.rglob("*.py")))
    at.uninstall()
    assert at.snapshot(bytecode=True) == before
