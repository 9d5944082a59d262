"""Whatever interrupts an installer, and whenever: spandrel imports, and the next run of either command gets there."""

from __future__ import annotations

import compileall
import errno
import os
import py_compile
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from environments import Snapshot, snapshot
from faults import (
    KILLED,
    REFUSED,
    SUCCEEDED_ANYWAY,
    at_every_step,
    at_step,
    failing_with,
    kill,
    one_of_each_kind,
    slim_process,
    steps_of,
)
from imports import import_each
from trees import linked_spandrel
from work import do_install, do_install_in_vain, do_uninstall, says_no

from aether_install.tree.commands import status
from aether_install.tree.layout import Spandrel
from aether_install.tree.manifest import Payload, shipped_payload
from aether_install.tree.state import State


def state_of(site_packages: Path) -> State:
    return status(Spandrel(site_packages / "spandrel")).before


def registry_of(tree: Path) -> Path:
    return tree / "spandrel" / "__helpers" / "main_registry.py"


def link_tree(source: Path, target: Path) -> Path:
    """A copy whose files are hard links, as uv makes them: it takes no time, and whoever writes in place shows."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=os.link, symlinks=True)
    return target


def content(facts: Snapshot) -> tuple[object, ...]:
    """A snapshot without modes, times and links."""
    return tuple((name, fact[:2]) for name, fact in facts.items())


def links_apart(facts: Snapshot) -> Snapshot:
    """A snapshot without the number of hard links, which the copies made by the test itself change."""
    return {name: fact[:4] for name, fact in facts.items()}


WORK = {"install": do_install, "uninstall": do_uninstall, "update": do_install, "undone update": do_install_in_vain}
each_work = pytest.mark.parametrize("work", WORK)
PATIENT = hasattr(os, "fork")
"""
Whether everything is done at every step. Where each kill has to start a process and each tree takes a second, what a
kill leaves is copied from one run, at every step, and kills prove that for one step of each kind; every fourth of these
trees is worked on; and faults happen before one step of each kind.
"""


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spandrel without us, and with bytecode of its registry that Python uses whatever the registry says."""
    tree = linked_spandrel("0.4.2", tmp_path_factory.mktemp("clean"))
    py_compile.compile(str(registry_of(tree)), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    return tree


def older_payload() -> Payload:
    files = {name: b"# older\n" + data for name, data in shipped_payload().files.items()}
    return Payload(files | {"__arch/gone.py": b"", "gone/__init__.py": b""})


@pytest.fixture(scope="module")
def starts(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tree from which each work sets out."""
    folder = tmp_path_factory.mktemp("starts")
    trees = {work: link_tree(clean, folder / work) for work in WORK}
    do_install(trees["uninstall"])
    for work in ("update", "undone update"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("aether_install.tree.commands.shipped_payload", older_payload)
            do_install(trees[work])
        assert state_of(trees[work]) is State.OUTDATED
    for tree in trees.values():
        compileall.compile_dir(tree / "spandrel" / "architectures" / "AetherNet", quiet=1)  # as by being used
    return trees


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[ProcessPoolExecutor]:
    with slim_process() as process:
        yield process


@pytest.fixture(scope="module")
def killed(
    starts: dict[str, Path], elsewhere: ProcessPoolExecutor, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[Path]]:
    """The different trees that each work leaves behind if it is killed, at any step."""
    left: dict[str, list[Path]] = {}
    for work, start in starts.items():
        folder = tmp_path_factory.mktemp(work)
        before = links_apart(snapshot(start))
        if PATIENT:
            first = step_after_the_check(start, folder) if work == "undone update" else 1
            ends = dict(elsewhere.submit(interrupted, start, work, kill, folder, first).result())
            assert set(ends.values()) == {KILLED}
            left[work] = list(ends)
        else:
            left[work] = copied(start, work, folder)
        assert links_apart(snapshot(start)) == before, "the files that others share"
        assert len(left[work]) > 15
    return left


def step_after_the_check(start: Path, folder: Path) -> int:
    """The first step of an undone update that is none of an update's."""
    steps, asked = [0], []

    def ask() -> None:
        asked.append(steps[-1])
        says_no()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("work.says_no", ask)
        steps_of(partial(do_install_in_vain, link_tree(start, folder / "victim")), steps.append)
    return asked[0] + 1


def interrupted(
    start: Path, work: str, happen: Callable[[], None], folder: Path, first: int = 1
) -> list[tuple[Path, int]]:
    """
    Has something happen at the steps of some work, from the first of them on.

    Returns each different tree that this leaves, and the exit status.
    """
    left: dict[tuple[object, ...], tuple[Path, int]] = {}
    victim = folder / "victim"

    def prepare() -> Callable[[], None]:
        link_tree(start, victim)
        return partial(WORK[work], victim)

    # What is parsed here need not be parsed in every fork.
    names = steps_of(prepare(), lambda _: None)
    assert len(names) > 25
    for number, ended in at_every_step(prepare, happen, count(first) if PATIENT else one_of_each_kind(names)):
        facts = (ended, *content(snapshot(victim, bytecode=True)))
        if facts not in left:
            left[facts] = victim.rename(folder / f"step-{number}"), ended
    return list(left.values())


def copied(start: Path, work: str, folder: Path) -> list[Path]:
    """The different trees that a kill before any step of some work would leave."""
    left: dict[tuple[object, ...], Path] = {}
    found: list[tuple[object, ...]] = []
    victim = link_tree(start, folder / "victim")
    theirs = {path.lstat().st_ino for path in start.rglob("*")}

    seen: list[tuple[str, int, int]] = []

    def copy_as_it_is(number: int) -> None:
        nonlocal seen
        last, seen = seen, list(entries(victim))
        found.append(found[-1] if seen == last else content(snapshot(victim, bytecode=True)))
        if found[-1] not in left:
            left[found[-1]] = copy_tree(victim, folder / f"step-{number}", theirs)

    names = steps_of(partial(WORK[work], victim), copy_as_it_is)
    for number in one_of_each_kind(names):
        link_tree(start, victim)
        assert at_step(number, partial(WORK[work], victim), kill) == KILLED
        assert content(snapshot(victim, bytecode=True)) == found[number - 1], names[number - 1]
    return list(left.values())


def entries(folder: Path | str) -> Iterator[tuple[str, int, int]]:
    """What changes whenever a file does; a third of the work of reading it. What a listing tells may be of before."""
    with os.scandir(folder) as listed:
        for entry in listed:
            status = os.lstat(entry.path)
            yield entry.path, status.st_size, status.st_mtime_ns
            if entry.is_dir(follow_symlinks=False):
                yield from entries(entry.path)


def copy_tree(source: Path, target: Path, unchanged: set[int]) -> Path:
    """A copy in which the same files have several names; those that nobody changes are linked."""
    copies: dict[int, str] = {}

    def copy(file: str, new: str) -> None:
        inode = os.lstat(file).st_ino
        if inode in unchanged or inode in copies:
            os.link(copies.get(inode, file), new)
        else:
            shutil.copy2(file, new)
            copies[inode] = new

    return Path(shutil.copytree(source, target, copy_function=copy, symlinks=True))


def enough(trees: list[Path]) -> list[Path]:
    return trees if PATIENT else trees[::4]


def assert_absent(tree: Path, clean: Path) -> None:
    assert links_apart(snapshot(tree)) == links_apart(snapshot(clean)), tree
    cache = registry_of(clean).parent / "__pycache__"
    for code in cache.iterdir():
        assert (registry_of(tree).parent / "__pycache__" / code.name).read_bytes() == code.read_bytes()
    assert not (tree / "spandrel" / "architectures" / "AetherNet").exists(), tree


def assert_either_command_gets_there(tree: Path, clean: Path, folder: Path) -> None:
    removed = link_tree(tree, folder / "removed")
    do_uninstall(removed)
    assert_absent(removed, clean)

    completed = link_tree(tree, folder / "completed")
    do_install(completed)
    assert state_of(completed) is State.INSTALLED, tree
    assert not list(completed.rglob("*.aether-new")) + list(completed.rglob("*.aether-undo"))
    do_uninstall(completed)
    assert_absent(completed, clean)


@each_work
def test_after_a_kill_at_any_step_either_command_gets_there(
    killed: dict[str, list[Path]], clean: Path, tmp_path: Path, work: str
) -> None:
    for tree in enough(killed[work]):
        assert_either_command_gets_there(tree, clean, tmp_path)


@pytest.mark.parametrize("work", ["install", "uninstall", "update"])
def test_what_fails_after_a_kill_at_any_step_is_put_back_as_that_run_found_it(
    killed: dict[str, list[Path]], tmp_path: Path, work: str
) -> None:
    """
    What a killed run left behind is not touched before everything else has succeeded, so it comes back as well.

    And from there either command gets there, as from the same tree above.
    """
    failed = 0
    trees = enough(killed[work])
    for tree in trees:
        victim = link_tree(tree, tmp_path / "victim")
        found = snapshot(victim, bytecode=True)
        if state_of(victim) is not State.INSTALLED:
            do_install_in_vain(victim)
            failed += 1
        assert snapshot(victim, bytecode=True) == found, tree
    assert failed > len(trees) / 2


@pytest.mark.parametrize(
    ("work", "code"),
    [
        ("install", errno.ENOSPC),
        ("uninstall", errno.ENOSPC),
        ("update", errno.ENOSPC),
        ("update", errno.EACCES),
    ],
    ids=lambda value: value if isinstance(value, str) else errno.errorcode[value],
)
def test_what_fails_at_any_step_is_put_back_or_finished_by_the_next_run(
    starts: dict[str, Path], elsewhere: ProcessPoolExecutor, clean: Path, tmp_path: Path, work: str, code: int
) -> None:
    before = links_apart(snapshot(starts[work], bytecode=True))
    ends = []
    left = elsewhere.submit(interrupted, starts[work], work, failing_with(code), tmp_path).result()
    for tree, ended in left:
        ends.append(ended)
        if ends[-1] == REFUSED:
            assert links_apart(snapshot(tree, bytecode=True)) == before, tree
        assert_either_command_gets_there(tree, clean, tmp_path)
    assert set(ends) == {REFUSED, SUCCEEDED_ANYWAY}, "and no traceback"
    assert links_apart(snapshot(starts[work], bytecode=True)) == before, "the files that others share"


def what_is_imported(tree: Path) -> tuple[object, ...]:
    """The registry, its bytecode and, where it names them, our files: what decides how spandrel imports."""
    registry = registry_of(tree)
    files = [registry, *sorted((registry.parent / "__pycache__").iterdir())]
    if b"AetherNet" in registry.read_bytes():
        files += sorted((tree / "spandrel" / "architectures" / "AetherNet").rglob("*.py"))
    return tuple((path.relative_to(tree), path.read_bytes()) for path in files)


@pytest.mark.not_on_windows("the other architectures are symbolic links")
def test_spandrel_imports_whatever_a_kill_left_behind(killed: dict[str, list[Path]]) -> None:
    """And never warns: where the registry names a payload, all of it is there."""
    trees = {what_is_imported(tree): tree for left in killed.values() for tree in left}
    assert len(trees) > 4
    for folder, answer in zip(trees.values(), import_each(trees.values()), strict=True):
        assert answer.clean, (folder, answer)
        assert not answer.warnings, (folder, answer)


def test_the_registry_names_a_payload_only_while_all_of_one_version_is_there(killed: dict[str, list[Path]]) -> None:
    whole = (shipped_payload().files, older_payload().files)
    for tree in (tree for left in killed.values() for tree in left):
        if b"AetherNet" in registry_of(tree).read_bytes():
            payload = tree / "spandrel" / "architectures" / "AetherNet"
            there = {path.relative_to(payload).as_posix(): path.read_bytes() for path in payload.rglob("*.py")}
            assert there in whole, (tree, there.keys())
