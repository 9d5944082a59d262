"""What the disk refuses is explained by file and remedy, and undone as far as the disk allows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from environments import aether_json, snapshot
from imports import import_each

_PROGRAM = """
import errno, os, sys
tree, event_name, code, first = sys.argv.pop(1), sys.argv.pop(1), getattr(errno, sys.argv.pop(1)), int(sys.argv.pop(1))
calls = 0
def refuse(event, arguments):
    global calls
    if event == event_name and any(str(argument).startswith(tree) for argument in arguments):
        calls += 1
        if calls >= first > 0 or calls == -first:
            raise OSError(code, os.strerror(code), *[str(a) for a in arguments[:1]])
sys.addaudithook(refuse)
from aether_install.cli import main
main()
"""


def run_with(tree: Path, event: str, code: str, call: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """
    Runs a command while the system refuses a kind of call in a tree.

    Args:
        call: the number of the call from which on it is refused; negative to refuse that one alone.
    """
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tree), event, code, str(call), *arguments, "--target", str(tree)],
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("event", "code", "reason", "remedy"),
    [
        ("os.rename", "EROFS", "Read-only file system", "work on a copy"),
        ("os.link", "ENOSPC", "No space left", "free some space"),
        ("os.mkdir", "ENOSPC", "No space left", "free some space"),
        ("os.rename", "EACCES", "Permission denied", "close the program that has the file open"),
        ("os.mkdir", "EIO", "Input/output error", "mend that"),
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
        assert aether_json("status", "--target", tree)["state"] == ("installed" if step == "spandrel" else "absent")
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
    assert aether_json("status", "--target", tree)["state"] == "partial"
    assert aether_json("uninstall", "--target", tree)["state"] == "absent"
    assert snapshot(tree) == before


def test_rubbish_that_cannot_be_deleted_is_deleted_by_the_next_run(tree: Path) -> None:
    result = run_with(tree, "os.remove", "EACCES", 1, "spandrel")
    assert result.returncode == 1
    assert "Permission denied" in result.stderr
    assert import_each([tree])[0].clean
    assert aether_json("spandrel", "--target", tree)["state"] == "installed"
    assert not list(tree.rglob("*.aether-undo"))
