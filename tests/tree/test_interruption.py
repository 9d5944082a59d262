"""Whatever interrupts an installer, and whenever: spandrel imports, and the next run of either command gets there."""

from __future__ import annotations

import compileall
import errno
import hashlib
import os
import py_compile
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from environments import Snapshot, copy_spandrel, quietly, snapshot
from faults import REFUSED, SUCCEEDED_ANYWAY, at_every_step, failing_with, kill
from imports import import_each

from aether_install.tree.commands import install, status, uninstall
from aether_install.tree.layout import Spandrel
from aether_install.tree.manifest import Payload, shipped_payload
from aether_install.tree.state import State


def do_install(site_packages: Path) -> None:
    install(Spandrel(site_packages / "spandrel"), progress=quietly)


def do_uninstall(site_packages: Path) -> None:
    uninstall(Spandrel(site_packages / "spandrel"), progress=quietly)


def state_of(site_packages: Path) -> State:
    return status(Spandrel(site_packages / "spandrel")).before


def link_tree(source: Path, target: Path) -> Path:
    """A copy whose files are hard links, as uv makes them: it takes no time, and whoever writes in place shows."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=os.link, symlinks=True)
    return target


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of architectures of an untouched spandrel."""
    return copy_spandrel(tmp_path_factory.mktemp("others")) / "architectures"


def link_to_others(tree: Path, others: Path) -> None:
    """Other architectures are most of the files; as links, none of them is copied many times."""
    for path in others.iterdir():
        if path.is_dir():
            link = tree / "spandrel" / "architectures" / path.name
            shutil.rmtree(link)
            link.symlink_to(path)


def content(facts: Snapshot) -> tuple[object, ...]:
    """A snapshot without modes, times and links."""
    return tuple((name, fact[:2]) for name, fact in facts.items())


WORK = {"install": do_install, "uninstall": do_uninstall, "update": do_install}


@pytest.fixture
def start(tree: Path, others: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tree in the state from which the work named by the parameter sets out."""
    link_to_others(tree, others)
    py_compile.compile(str(registry_of(tree)), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    if request.param == "uninstall":
        do_install(tree)
    if request.param == "update":
        older = {name: b"# older\n" + data for name, data in shipped_payload().files.items()}
        with monkeypatch.context() as patch:
            older |= {"__arch/gone.py": b"", "gone/__init__.py": b""}
            patch.setattr("aether_install.tree.commands.shipped_payload", lambda: Payload(older))
            do_install(tree)
        assert state_of(tree) is State.OUTDATED
    compileall.compile_dir(tree / "spandrel" / "architectures" / "AetherNet", quiet=1)  # as by being used
    return tree


class Aftermath:
    """
    Checks each tree that an interruption left, and keeps those that differ for the import test at the end.

    Args:
        clean: the tree without us.
        folder: where to work.
        left: where trees of earlier tests and of this one are kept, named by the content of their modules.
    """

    def __init__(self, clean: Path, folder: Path, left: Path) -> None:
        self.folder = folder
        self.absent = links_apart(snapshot(clean))
        self.bytecode = bytecode_of_registry(clean)
        self.left = left
        self.checked: set[tuple[object, ...]] = set()

    def check(self, number: int, tree: Path) -> None:
        facts = snapshot(tree)
        if content(facts) in self.checked:
            return
        self.checked.add(content(facts))
        modules = content({name: fact for name, fact in facts.items() if name.endswith(".py")})
        kept = self.left / hashlib.sha256(repr(modules).encode()).hexdigest()
        if not kept.exists():
            link_tree(tree, kept)

        removed = link_tree(tree, self.folder / "removed")
        do_uninstall(removed)
        self.assert_absent(removed, f"uninstall after step {number}")

        completed = link_tree(tree, self.folder / "completed")
        do_install(completed)
        assert state_of(completed) is State.INSTALLED, f"install after step {number}"
        do_uninstall(completed)
        self.assert_absent(completed, f"both after step {number}")

    def assert_absent(self, tree: Path, when: str) -> None:
        assert links_apart(snapshot(tree)) == self.absent, when
        assert bytecode_of_registry(tree) == self.bytecode, when
        assert not (tree / "spandrel" / "architectures" / "AetherNet").exists(), when


def registry_of(tree: Path) -> Path:
    return tree / "spandrel" / "__helpers" / "main_registry.py"


def bytecode_of_registry(tree: Path) -> dict[str, bytes]:
    """A distributor's, which Python uses whatever the registry says, and which belongs to the tree."""
    return {path.name: path.read_bytes() for path in (registry_of(tree).parent / "__pycache__").iterdir()}


def links_apart(facts: Snapshot) -> Snapshot:
    """A snapshot without the number of hard links, which the copies made by the test itself change."""
    return {name: fact[:4] for name, fact in facts.items()}


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("left")


@pytest.fixture
def aftermath(tmp_path: Path, start: Path, left: Path) -> Aftermath:
    clean = link_tree(start, tmp_path / "clean")
    do_uninstall(clean)
    return Aftermath(clean, tmp_path, left)


each_work = pytest.mark.parametrize(("start", "work"), list(WORK.items()), indirect=["start"], ids=WORK)


@each_work
def test_killed_at_any_step(start: Path, aftermath: Aftermath, tmp_path: Path, work: Callable[[Path], None]) -> None:
    victim = tmp_path / "victim"
    before = links_apart(snapshot(start))

    def prepare() -> Callable[[], None]:
        link_tree(start, victim)
        return lambda: work(victim)

    steps = 0
    for steps, ended in at_every_step(prepare, kill):
        assert os.WIFSIGNALED(ended)
        assert os.WTERMSIG(ended) == signal.SIGKILL
        aftermath.check(steps, victim)
    assert steps > 25
    assert links_apart(snapshot(start)) == before


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES], ids=["disk full", "no permission"])
@each_work
def test_failing_at_any_step(
    start: Path, aftermath: Aftermath, tmp_path: Path, work: Callable[[Path], None], code: int
) -> None:
    victim = tmp_path / "victim"
    before = links_apart(snapshot(start))

    def prepare() -> Callable[[], None]:
        link_tree(start, victim)
        return lambda: work(victim)

    steps = undone = 0
    for steps, ended in at_every_step(prepare, failing_with(code)):
        assert os.waitstatus_to_exitcode(ended) in (REFUSED, SUCCEEDED_ANYWAY), f"a traceback at step {steps}"
        undone += links_apart(snapshot(victim)) == before
        aftermath.check(steps, victim)
    assert steps > 25
    assert undone > 15
    assert links_apart(snapshot(start)) == before


def test_spandrel_imports_whatever_was_left_behind(left: Path) -> None:
    """Runs after the tests above, on all the different trees that they came upon."""
    trees = list(left.iterdir())
    assert len(trees) > 8
    for folder, answer in zip(trees, import_each(trees), strict=True):
        assert answer.clean, (folder, answer)
