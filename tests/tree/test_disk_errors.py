"""What the disk refuses is explained by file and remedy, and undone as far as the disk allows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from environments import Snapshot, aether_json, snapshot
from imports import import_each
from trees import Tree

_PROGRAM = """
import errno, os, sys
tree, event_name, code, first, suffix = sys.argv[1:6]
del sys.argv[1:6]
code, first = getattr(errno, code), int(first)
calls = 0
def refuse(event, arguments):
    global calls
    if event == event_name and any(str(name).startswith(tree) and str(name).endswith(suffix) for name in arguments):
        calls += 1
        if calls >= first > 0 or calls == -first:
            raise OSError(code, os.strerror(code), *[str(a) for a in arguments[:1]])
sys.addaudithook(refuse)
from aether_install.cli import main
main()
"""


def run_with(
    tree: Path, event: str, code: str, call: int, *arguments: str, suffix: str = ""
) -> subprocess.CompletedProcess[str]:
    """
    Runs a command while the system refuses a kind of call in a tree.

    Args:
        call: the number of the call from which on it is refused; negative to refuse that one alone.
        suffix: of the files that it is refused for.
    """
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tree), event, code, str(call), suffix, *arguments, "--target", str(tree)],
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("event", "code", "reason", "remedy"),
    [
        ("os.rename", "EROFS", "Read-only file system", "work on a copy"),
        ("os.link", "ENOSPC", "No space left", "free some space"),
        ("os.mkdir", "ENOSPC", "No space left", "free some space"),
        pytest.param(
            *("os.rename", "EACCES", "Permission denied", "close the program that has the file open"),
            marks=pytest.mark.not_on_windows("it is tried again there"),
        ),
        ("os.mkdir", "EIO", "Input/output error", "fix that"),
    ],
)
def test_it_names_the_file_and_the_way_out(tree: Path, event: str, code: str, reason: str, remedy: str) -> None:
    before = snapshot(tree)
    result = run_with(tree, event, code, -1, "spandrel")
    assert result.returncode == 1
    (sentence,) = result.stderr.splitlines()
    assert str(tree) in sentence
    assert reason in sentence
    assert remedy in sentence
    assert snapshot(tree) == before


@pytest.mark.not_on_windows("Wine does not follow symbolic links, which Windows grants to few")
@pytest.mark.parametrize("command", ["spandrel", "uninstall"])
def test_without_hard_links_files_are_copied_instead(tree: Path, command: str) -> None:
    registry = tree / "spandrel" / "__helpers" / "main_registry.py"
    original = registry.with_name("real_registry")
    registry.rename(original)
    registry.symlink_to(original.name)
    before = {name: fact[:4] for name, fact in snapshot(tree).items()}
    for step in ("spandrel", "uninstall"):
        result = run_with(tree, "os.link" if step == command else "none", "EPERM", 1, step)
        assert result.returncode == 0, result.stderr
        assert Tree(tree).state == ("installed" if step == "spandrel" else "absent")
    assert {name: fact[:4] for name, fact in snapshot(tree).items()} == before


def test_where_undoing_fails_too_the_originals_are_kept_and_named(tree: Path) -> None:
    before = snapshot(tree)
    result = run_with(tree, "os.rename", "EACCES", 5, "spandrel")
    assert result.returncode == 1
    assert "not everything could be put back" in result.stderr
    assert "Traceback" not in result.stderr
    named = [part.strip(",;") for part in result.stderr.split() if part.strip(",;").endswith(".aether-undo")]
    assert named
    assert all(Path(name).exists() for name in named)
    assert import_each([tree])[0].clean
    assert Tree(tree).state == "partial"
    assert aether_json("uninstall", "--target", tree)["state"] == "absent"
    assert snapshot(tree) == before


def files_that_differ(before: Snapshot, after: Snapshot, tree: Path) -> set[str]:
    """By bytes, mode and time; the number of names of a file counts for nothing."""
    names = {name for name in {*before, *after} if (before.get(name) or ())[:4] != (after.get(name) or ())[:4]}
    return {str(tree / name) for name in names if "folder" not in (*before.get(name, ()), *after.get(name, ()))}


@pytest.mark.parametrize(
    ("event", "code", "call", "state"),
    [
        ("os.rename", "EROFS", -1, "absent"),
        ("os.link", "ENOSPC", -2, "absent"),
        ("open", "EIO", -2, "absent"),
        ("os.rename", "EACCES", 5, "partial"),
    ],
    ids=["first file", "second name", "while writing", "undoing fails too"],
)
def test_json_after_a_failure_tells_what_the_tree_is_now(
    tree: Path, event: str, code: str, call: int, state: str
) -> None:
    before = snapshot(tree)
    suffix = ".aether-new" if event == "open" else ""
    result = run_with(tree, event, code, call, "spandrel", "--json", suffix=suffix)
    assert result.returncode == 1
    described = json.loads(result.stdout)
    assert described["error"] in result.stderr
    assert described["state"] == state == Tree(tree).state
    assert set(described["changed"]) == files_that_differ(before, snapshot(tree), tree)
    assert bool(described["changed"]) == (state == "partial")
    assert ("everything was put back" in result.stderr) == (state == "absent")


def test_json_of_a_refusal_tells_the_state(tree: Path) -> None:
    Tree(tree).install()
    with (tree / "spandrel/architectures/AetherNet/__init__.py").open("a") as file:
        file.write("# edited\n")
    for command in ("spandrel", "uninstall"):
        described = aether_json(command, "--target", tree)
        assert (described["state"], described["changed"]) == ("modified", [])
        assert described["payload"]["installed"]


@pytest.mark.parametrize("command", ["spandrel", "uninstall"])
def test_rubbish_that_cannot_be_deleted_is_no_failure_and_deleted_by_the_next_run(tree: Path, command: str) -> None:
    at = Tree(tree)
    before = snapshot(tree)
    if command == "uninstall":
        at.install()
    result = run_with(tree, "os.remove", "EACCES", 1, command, "--json", suffix=".aether-undo")
    assert result.returncode == 0, result.stderr
    described = json.loads(result.stdout)
    left = {str(path) for path in tree.rglob("*.aether-undo")}
    assert left
    assert left == set(described["undeleted"])
    assert left <= set(described["changed"])
    assert described["state"] == ("installed" if command == "spandrel" else "partial")
    assert described["state"] == at.state

    again = run_with(tree, "os.remove", "EACCES", 1, command, suffix=".aether-undo")
    assert again.returncode == 0
    warned = [line for line in again.stdout.splitlines() if line.startswith("Warning: ")]
    assert all(any(name in line for line in warned) for name in left)

    at.install() if command == "spandrel" else at.uninstall()
    assert not list(tree.rglob("*.aether-undo"))
    at.uninstall()
    assert snapshot(tree) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("code", ["EINVAL", "EPERM", "ENOSYS"])
def test_an_owner_that_cannot_be_given_does_not_matter(tree: Path, code: str) -> None:
    """As in a container whose user namespace does not map the owner."""
    for path in (tree, *tree.rglob("*")):
        os.chown(path, 65534, 65534)
    result = run_with(tree, "os.chown", code, 1, "spandrel")
    assert result.returncode == 0, result.stderr
    assert Tree(tree).state == "installed"
