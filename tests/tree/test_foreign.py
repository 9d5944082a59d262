"""An AetherNet that is not ours is told for what it is good for, and what to do about it; nothing of it is touched."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import in_process
import pytest
from environments import SUPPORTED, aether_install, make_environment, needs_torch, wheel
from imports import import_each
from others import (
    copied_by_hand,
    garbled,
    imported_only,
    of_a_fork,
    of_a_spandrel_to_come,
    raising,
    without_a_main_module,
    without_a_module,
    without_the_class,
    write,
)
from trees import Tree

from aether_install.errors import AetherInstallError
from aether_install.shipped import ARCHITECTURE
from aether_install.tree.commands import status
from aether_install.tree.foreign import Worth, foreign

CASES: dict[Callable[[Tree], None], tuple[Worth, str]] = {
    of_a_spandrel_to_come: (Worth.WORKS, ""),
    of_a_fork: (Worth.BROKEN, "imports aether_net_of_before from"),
    raising: (Worth.BROKEN, "raises an error"),
    without_a_module: (Worth.BROKEN, "aether_core"),
    without_a_main_module: (Worth.BROKEN, "there is no AetherNet/__init__.py"),
    without_the_class: (Worth.BROKEN, "AetherNetFusedArch"),
    garbled: (Worth.BROKEN, "no Python"),
    copied_by_hand: (Worth.UNREGISTERED, "does not add it"),
    imported_only: (Worth.UNREGISTERED, "does not add it"),
}


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_what_works_is_told_from_what_does_not(at: Tree, make: Callable[[Tree], None]) -> None:
    worth, fault = CASES[make]
    make(at)
    before = at.snapshot()
    found = foreign(status(at.spandrel).facts)
    assert (at.state, found.worth) == ("foreign", worth), found
    assert fault in found.fault
    told = in_process.aether_json("status", "--target", at.package)
    assert (told["state"], told["foreign"]) == ("foreign", worth.value)
    shown = in_process.aether_install("status", "--target", at.package, check=False)
    assert shown.returncode == 1
    done = in_process.aether_install("spandrel", "--target", at.package, check=False)
    if worth is Worth.WORKS:
        assert done.returncode == 0
        assert done.stdout.startswith("Nothing to do: spandrel 0.4.2 knows AetherNet by itself")
        assert "nothing to do" in shown.stdout
    else:
        assert done.returncode == 1
        (sentence,) = done.stderr.splitlines()
        for words in (sentence, shown.stdout):
            assert fault in words
            assert "use that one" not in words.lower()
            way_out = "reinstall spandrel" if make is of_a_fork else f"emove {at.payload}"
            assert way_out in words
    for force in (False, True):
        with pytest.raises(AetherInstallError, match="not ours"):
            at.uninstall(force=force)
    assert at.snapshot() == before


def test_python_says_the_same(tmp_path: Path) -> None:
    """Of each of them, whether spandrel imports and what it registers."""
    needs_torch()
    for make in CASES:
        folder = tmp_path / make.__name__
        shutil.unpack_archive(wheel(SUPPORTED[-1]), folder, "zip")
        make(Tree(folder))
    for make, answer in zip(CASES, import_each([tmp_path / make.__name__ for make in CASES]), strict=True):
        assert bool(answer.registered) == (CASES[make][0] is Worth.WORKS), make.__name__


def test_what_only_python_can_tell_is_asked_of_it(tmp_path: Path) -> None:
    needs_torch()
    environment = make_environment(tmp_path / "venv")
    at = Tree(environment.site_packages)
    of_a_spandrel_to_come(at)
    done = aether_install("spandrel", "--python", environment.python)
    assert done.stdout.startswith("Nothing to do")
    at.edit(at.payload / "__init__.py", b"import torch\n", b"import torch\nimport torch.of_the_future\n")
    failed = aether_install("spandrel", "--python", environment.python, check=False)
    assert failed.returncode == 1
    assert "not ours, and it does not work" in failed.stderr.splitlines()[0]
    assert "No module named 'torch.of_the_future'" in failed.stderr


def test_the_way_out_is_one(at: Tree) -> None:
    for make in (copied_by_hand, without_a_module):
        source = at.registry.read_bytes()
        make(at)
        shutil.rmtree(at.payload)
        write(at.registry, source)
        assert at.state == "absent"
        at.install()
        assert at.state == "installed"
        at.uninstall()


@pytest.mark.parametrize("version", SUPPORTED)
def test_no_architecture_of_spandrels_own_would_be_called_broken(tmp_path: Path, version: str) -> None:
    """Each, as if it were called AetherNet, so that one of a release to come is not either."""
    shutil.unpack_archive(wheel(version), tmp_path, "zip")
    at = Tree(tmp_path)
    source, architectures = at.registry.read_bytes(), at.package / "architectures"
    for path in sorted(architectures.glob("[A-Z]*")):
        name = path.name.encode()
        path.rename(architectures / ARCHITECTURE)
        write(at.registry, source.replace(b" %s," % name, b" AetherNet,").replace(b"(%s." % name, b"(AetherNet."))
        assert foreign(status(at.spandrel).facts).worth is Worth.WORKS, path.name
        (architectures / ARCHITECTURE).rename(path)
