"""Every command about a spandrel goes by the rules of Windows' file systems, imposed where others hold."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

from environments import aether_install, aether_json, snapshot, wheel
from trees import scanning
from windows import windows_rules


def test_every_command_works_under_the_rules_of_windows(tree: Path) -> None:
    before = snapshot(tree)
    payload = tree / "spandrel" / "architectures" / "AetherNet" / "__init__.py"
    rules = windows_rules()
    for command, state in (("spandrel", "installed"), ("status", "installed"), ("spandrel", "installed")):
        result = aether_json(command, "--target", tree, env=rules)
        assert (result["state"], result.get("error")) == (state, None)
    with payload.open("a") as file:
        file.write("# edited\n")
    aether_install("spandrel", "--target", tree, "--force", env=rules)
    for kept in payload.parent.glob("*.aether-edited"):
        kept.unlink()
    (tree / "spandrel/__helpers/main_registry.py.aether-undo").write_text("what a killed run left")
    assert aether_json("uninstall", "--target", tree, "--dry-run", env=rules)["would_change"]
    assert aether_json("uninstall", "--target", tree, env=rules)["state"] == "absent"
    assert snapshot(tree) == before


def test_the_first_release_is_updated_under_the_rules_of_windows(tmp_path: Path) -> None:
    shutil.unpack_archive(wheel("0.4.2"), tmp_path, "zip")
    before = snapshot(tmp_path)
    for path in (tmp_path / "spandrel/__helpers/main_registry.py", next(tmp_path.glob("*.dist-info")) / "RECORD"):
        path.rename(path.with_name(path.name + ".aether-old"))
    shutil.unpack_archive(Path(__file__).with_name("release-0.1.0.zip"), tmp_path)
    assert aether_json("spandrel", "--target", tmp_path, env=windows_rules())["state"] == "installed"
    assert aether_json("uninstall", "--target", tmp_path, env=windows_rules())["state"] == "absent"
    assert snapshot(tmp_path) == before


def test_read_only_files_are_changed_and_come_back_read_only(tree: Path) -> None:
    registry = tree / "spandrel/__helpers/main_registry.py"
    cache = tree.with_name("cache.py")
    cache.hardlink_to(registry)
    for path in (registry, next(tree.glob("*.dist-info")) / "RECORD"):
        path.chmod(0o444)
    before = snapshot(tree)
    told = aether_json("spandrel", "--target", tree, env=windows_rules())
    assert (told["state"], told.get("error")) == ("installed", None)
    assert stat.S_IMODE(registry.stat().st_mode) == 0o444
    assert stat.S_IMODE(cache.stat().st_mode) == 0o444, "of another environment, which it is a link to"
    for path in (tree / "spandrel/architectures/AetherNet").rglob("*"):
        assert path.stat().st_mode & stat.S_IWUSR, "of ours, which somebody has to remove some day"
        path.chmod(path.stat().st_mode & ~0o222)
    told = aether_json("uninstall", "--target", tree, env=windows_rules())
    assert (told["state"], told.get("error")) == ("absent", None)
    assert snapshot(tree) == before


def test_what_a_scanner_opens_for_a_moment_is_waited_for(tree: Path) -> None:
    before = snapshot(tree)
    for _ in range(3):
        for command, state in (("spandrel", "installed"), ("uninstall", "absent")):
            with scanning(tree, 0.05, env=windows_rules()) as held:
                told = aether_json(command, "--target", tree, env=windows_rules())
            assert (told["state"], told.get("error"), told.get("undeleted")) == (state, None, None)
            assert held() or command == "uninstall"
    assert snapshot(tree) == before
