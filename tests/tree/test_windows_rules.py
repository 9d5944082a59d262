"""Every command about a spandrel goes by the rules of Windows' file systems."""

from __future__ import annotations

import shutil
from pathlib import Path

from environments import aether_install, aether_json, snapshot, wheel
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
