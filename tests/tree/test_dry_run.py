"""A dry run shows what would change, exactly, and changes nothing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from environments import aether_install, aether_json, snapshot
from trees import Tree


def test_it_writes_nothing(tree: Path) -> None:
    before = snapshot(tree, bytecode=True)
    times = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    aether_install("spandrel", "--target", tree, "--dry-run")
    aether_install("uninstall", "--target", tree, "--dry-run")
    assert snapshot(tree, bytecode=True) == before
    assert {path: path.stat().st_mtime_ns for path in tree.rglob("*")} == times


def test_it_names_the_files_that_the_real_run_changes(tree: Path) -> None:
    for command in ("spandrel", "uninstall"):
        planned = aether_json(command, "--target", tree, "--dry-run")
        assert planned["changed"] == []
        before = snapshot(tree)
        done = aether_json(command, "--target", tree)
        after = snapshot(tree)
        assert planned["would_change"] == done["changed"]
        files = {name for name in {*before, *after} if before.get(name) != after.get(name)}
        files = {name for name in files if (before.get(name) or after[name])[0] != "folder"}
        assert {Path(path).relative_to(tree).as_posix() for path in done["changed"]} == files


@pytest.mark.skipif(not shutil.which("patch"), reason="needs patch")
def test_its_diff_is_what_patch_needs_to_do_the_same(tree: Path, tmp_path: Path) -> None:
    diff = aether_json("spandrel", "--target", tree, "--dry-run")["diff"]
    copy = shutil.copytree(tree, tmp_path / "copy")
    subprocess.run(
        ["patch", "--silent", "--binary", "-p0", "--directory", tmp_path],
        input=diff.replace(str(tree), "copy").encode(),
        check=True,
    )
    Tree(tree).install()
    for name in ("spandrel/__helpers/main_registry.py", "spandrel-0.4.2.dist-info/RECORD"):
        assert (copy / name).read_bytes() == (tree / name).read_bytes()


def test_it_shows_the_diff_to_people(tree: Path) -> None:
    shown = aether_install("spandrel", "--target", tree, "--dry-run").stdout
    assert "+    from ..architectures import AetherNet as _AetherNet" in shown
    assert "would be added: spandrel/architectures/AetherNet/__arch/aether_core.py" in shown
    assert "would be changed: spandrel/__helpers/main_registry.py" in shown
    assert "nothing was changed" in shown
    Tree(tree).install()
    shown = aether_install("uninstall", "--target", tree, "--dry-run").stdout
    assert "-    from ..architectures import AetherNet as _AetherNet" in shown


def test_it_refuses_what_the_real_run_refuses(tree: Path) -> None:
    Tree(tree).install()
    with (tree / "spandrel/architectures/AetherNet/__init__.py").open("a") as file:
        file.write("# edited\n")
    for command in ("spandrel", "uninstall"):
        result = aether_install(command, "--target", tree, "--dry-run", check=False)
        assert result.returncode == 1
        assert "--force" in result.stderr


def test_a_block_that_is_out_only_while_the_payload_changes_is_no_difference(tree: Path) -> None:
    at = Tree(tree)
    at.install()
    at.edit(at.registry, b"MAIN_REGISTRY = ArchRegistry()\n", b"MAIN_REGISTRY = ArchRegistry()  # edited\n")
    (at.payload / "__init__.py").unlink()
    diff = aether_json("spandrel", "--target", tree, "--dry-run")["diff"]
    assert "main_registry.py\n" not in diff
