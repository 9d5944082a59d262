"""The command line: what it accepts, prints and returns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import in_process
import pytest
from environments import aether_install, aether_json, needs_torch, script
from trees import Tree


def test_the_options_are_the_same_with_dashes_and_underscores(tree: Path) -> None:
    aether_install("spandrel", "--target", tree, "--dry_run", "--no_verify")
    aether_install("spandrel", "--target", tree, "--dry-run", "--no-verify")
    assert not (tree / "spandrel" / "architectures" / "AetherNet").exists()


def test_json_is_one_object_with_the_promised_keys(tree: Path) -> None:
    for command in ("status", "spandrel", "uninstall"):
        result = aether_json(command, "--target", tree)
        assert result["state"] in ("absent", "installed")
        assert result["spandrel"] == {"version": "0.4.2", "path": str(tree / "spandrel")}
        assert result["payload"]["version"]
        assert isinstance(result["changed"], list)


def test_json_is_one_object_even_when_it_fails(tmp_path: Path) -> None:
    result = aether_json("status", "--target", tmp_path)
    assert result["state"] == "missing"
    assert result["spandrel"] == {"version": None, "path": None}
    assert "error" in aether_json("inspect", tmp_path / "nothing.pth")


def test_errors_are_one_sentence_on_stderr_and_exit_status_1(tmp_path: Path) -> None:
    needs_torch()
    absent, fused = tmp_path / "nothing.pth", tmp_path / "fused.pth"
    told = [
        aether_install("status", "--target", tmp_path, check=False),
        aether_install("spandrel", "--python", tmp_path / "python", check=False),
        in_process.aether_install("inspect", absent, check=False),
        in_process.aether_install("fuse", "--model_path", absent, "--output_path", fused, check=False),
    ]
    for result in told:
        assert result.returncode == 1
        assert result.stdout == ""
        assert str(tmp_path) in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["spandrel", "--nonsense"], ["fuse"], ["nonsense"], ["status", "--python", "a", "--target", "b"]],
    ids=" ".join,
)
def test_usage_errors_exit_with_2(arguments: list[str]) -> None:
    assert aether_install(*arguments, check=False).returncode == 2


def test_nothing_light_imports_torch_or_spandrel(tree: Path) -> None:
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print(sorted({'torch', 'spandrel', 'numpy'} & set(sys.modules)), file=sys.stderr))\n"
        "from aether_install.cli import main\nmain()\n"
    )
    target = ["--target", str(tree)]
    for arguments in (["--help"], ["status", *target], ["spandrel", *target, "--dry-run"], ["spandrel", *target]):
        result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert result.stderr.splitlines()[-1] == "[]", arguments


def test_output_is_plain_without_a_terminal_or_with_no_color(tree: Path) -> None:
    shown = aether_install("status", "--target", tree, check=False, env={**os.environ, "FORCE_COLOR": "1"}).stdout
    assert "\x1b" not in shown
    assert shown.isascii()
    assert str(tree / "spandrel") in shown


def test_runs_as_a_module(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "spandrel").mkdir()
    (tmp_path / "spandrel" / "__init__.py").write_text("raise SystemExit('the current folder was imported')")
    command = [sys.executable, "-m", "aether_install", "status", "--json"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert json.loads(result.stdout)["spandrel"] == aether_json("status")["spandrel"], "not the current folder's"


def test_help_lists_every_command() -> None:
    shown = aether_install("--help").stdout
    assert all(command in shown for command in ("spandrel", "uninstall", "status", "fuse", "inspect"))
    assert aether_install("--version").stdout.split()[-1].count(".") == 2


def test_what_is_done_is_done_even_if_it_cannot_be_told(tree: Path, tmp_path: Path) -> None:
    """A Windows pipe knows few letters, and a daemon has no stdout."""
    folder = tree.rename(tmp_path / "ünï-日本")
    for command, code, state in (("spandrel", "cp1252", "installed"), ("uninstall", "ascii", "absent")):
        environment = {**os.environ, "PYTHONIOENCODING": code}
        aether_install(command, "--target", folder, env=environment, encoding=code)
        assert Tree(folder).state == state
    if os.name == "nt":
        return
    without_streams = ["sh", "-c", 'exec "$0" "$@" >&- 2>&-', script("aether-install")]
    assert subprocess.run([*without_streams, "spandrel", "--target", folder]).returncode == 0


def test_a_place_that_may_not_be_read_is_named() -> None:
    needs_torch()
    name = "x" * 5000
    told = [
        aether_install("status", "--target", name, check=False),
        in_process.aether_install("inspect", name, check=False),
        in_process.aether_install("fuse", "--model_path", name, "--output_path", "y.pth", check=False),
    ]
    for result in told:
        assert result.returncode == 1
        sentence = result.stderr.splitlines()[0]
        assert "name" in sentence or name in sentence, "which Windows says is not there"
        assert "mistake" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        *(["status", option, ""] for option in ("--target", "--host", "--python")),
        *(["doctor", option, ""] for option in ("--host", "--python")),
        *(["inspect", "x.pth", option, ""] for option in ("--host", "--python")),
        ["status", "--host", "", "--host", ""],
        ["inspect", ""],
    ],
    ids=" ".join,
)
def test_an_empty_name_means_nothing(arguments: list[str]) -> None:
    told = aether_install(*arguments, check=False)
    assert told.returncode == 2
    assert "the name is empty" in told.stderr


def test_a_spandrel_is_as_before_only_if_nothing_stays(tree: Path) -> None:
    edited = tree / "spandrel" / "architectures" / "AetherNet" / "__init__.py"
    for is_edited in (False, True):
        Tree(tree).install()
        if is_edited:
            edited.write_bytes(edited.read_bytes() + b"\n# edited\n")
        shown = aether_install("uninstall", "--force", "--target", tree).stdout
        assert ("is as it was before" in shown) != is_edited
        assert ("edited files are kept" in shown) == is_edited
        assert edited.parent.exists() == is_edited
