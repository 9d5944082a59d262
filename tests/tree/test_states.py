"""The eight states are told apart by what is there, and each is met with the right answer."""

from __future__ import annotations

import compileall
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from environments import SUPPORTED, UNSUPPORTED, aether_install, aether_json, snapshot, wheel
from imports import import_each
from trees import Tree

from aether_install.errors import AetherInstallError
from aether_install.tree import registry
from aether_install.tree.manifest import Payload, shipped_payload
from aether_install.tree.state import State


def older_payload() -> Payload:
    files = {name: data + b"\n# an earlier version\n" for name, data in shipped_payload().files.items()}
    files["__init__.py"] = files["__init__.py"].replace(b'__version__ = "', b'__version__ = "0.')
    files["__arch/gone_since.py"] = files["gone_too/__init__.py"] = b"# a file that later versions do not have\n"
    return Payload(files)


def install_older(at: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("aether_install.tree.commands.shipped_payload", older_payload)
        at.install()


def reinstall_over(at: Tree, original: Path) -> None:
    """What unpacking spandrel over an installed payload does: its own files are fresh, ours are still there."""
    for path in original.rglob("*"):
        if path.is_file():
            target = at.site_packages / path.relative_to(original)
            target.unlink(missing_ok=True)
            shutil.copy(path, target)


def test_absent_becomes_installed_and_absent_again(at: Tree) -> None:
    before = at.snapshot()
    assert at.state == "absent"
    assert at.install().state is State.INSTALLED
    assert at.state == "installed"
    assert at.uninstall().state is State.ABSENT
    assert at.snapshot() == before


def test_installed_is_left_alone_down_to_the_times(at: Tree) -> None:
    at.install()
    before = at.snapshot()
    folders = {path: path.stat().st_mtime_ns for path in at.site_packages.rglob("*") if path.is_dir()}
    outcome = at.install()
    assert not outcome.changed
    assert at.snapshot() == before
    assert {path: path.stat().st_mtime_ns for path in folders} == folders


def test_absent_has_nothing_to_uninstall(at: Tree) -> None:
    before = at.snapshot()
    assert not at.uninstall().changed
    assert at.snapshot() == before


def test_outdated_is_brought_up_to_date(at: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    before = at.snapshot()
    install_older(at, monkeypatch)
    assert at.state == "outdated"
    at.install()
    assert at.state == "installed"
    assert not (at.payload / "__arch" / "gone_since.py").exists()
    at.uninstall()
    assert at.snapshot() == before


RELEASE_0_1_0 = Path(__file__).with_name("release-0.1.0.zip")
"""The files that the first release wrote into spandrel 0.4.2, each as it wrote it."""


@pytest.fixture
def at_first_release(tmp_path: Path) -> Tree:
    """What that release made of spandrel 0.4.2."""
    folder = tmp_path / "first-release"
    shutil.unpack_archive(wheel("0.4.2"), folder, "zip")
    at = Tree(folder)
    for path in (at.registry, next(folder.glob("*.dist-info")) / "RECORD"):
        path.rename(path.with_name(path.name + ".aether-old"))
    shutil.unpack_archive(RELEASE_0_1_0, folder)
    return at


@pytest.mark.parametrize("block", ["its block", "the current block"])
def test_what_the_first_release_installed_is_updated_and_uninstalled(
    at_first_release: Tree, tmp_path: Path, block: str
) -> None:
    at = at_first_release
    if block == "the current block":
        at.registry.write_bytes(registry.patch(registry.unpatch(at.registry.read_bytes())))
    clean = tmp_path / "clean"
    shutil.unpack_archive(wheel("0.4.2"), clean, "zip")
    first = Tree(shutil.copytree(at.site_packages, tmp_path / "copy"))
    assert at.state == "outdated"
    assert at.install().state is State.INSTALLED
    for tree in (at, first):
        tree.uninstall()
        assert contents(tree.site_packages) == contents(clean)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_outdated_is_uninstalled_by_another_version(at: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    before = at.snapshot()
    install_older(at, monkeypatch)
    at.uninstall()
    assert at.snapshot() == before


@pytest.mark.parametrize(
    "missing",
    [
        "architectures/AetherNet/__init__.py",
        "architectures/AetherNet/__arch/aether_core.py",
        "architectures/AetherNet/aether-install.json",
        "architectures/AetherNet/__arch",
        "architectures/AetherNet",
    ],
)
def test_partial_is_repaired_or_removed(at: Tree, missing: str) -> None:
    before = at.snapshot()
    for command in (at.install, at.uninstall):
        at.install()
        path = at.package / missing
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert at.state == "partial"
        command()
        assert at.state == ("installed" if command == at.install else "absent")
    assert at.snapshot() == before


@pytest.mark.parametrize("command", ["install", "uninstall"])
@pytest.mark.parametrize("with_record", [True, False])
def test_spandrel_reinstalled_over_the_payload_is_partial(
    at: Tree, tmp_path: Path, command: str, with_record: bool
) -> None:
    original = shutil.copytree(at.site_packages, tmp_path / "original")
    if not with_record:
        shutil.rmtree(next(original.glob("*.dist-info")))
    at.edit(at.registry, b"FDAT,", b"FDAT, ")
    at.install()
    reinstall_over(at, original)
    fresh = at.registry.read_bytes()
    fresh_time = at.registry.stat().st_mtime_ns
    assert at.state == "partial"
    getattr(at, command)()
    if command == "install":
        assert at.state == "installed"
        at.uninstall()
    assert at.state == "absent"
    assert at.registry.read_bytes() == fresh == (original / "spandrel/__helpers/main_registry.py").read_bytes()
    assert at.registry.stat().st_mtime_ns == fresh_time
    assert not list(at.site_packages.rglob("*aether*"))
    assert not at.payload.exists()


def test_an_older_payload_under_a_fresh_spandrel_is_known_as_ours(
    at: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = shutil.copytree(at.site_packages, tmp_path / "original")
    install_older(at, monkeypatch)
    reinstall_over(at, original)
    assert at.state == "partial"
    at.install()
    assert at.state == "installed"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("architectures/AetherNet/__init__.py", b"AetherNet", b"OtherNet"),
        ("architectures/AetherNet/__arch/aether_core.py", b"1e-6", b"1e-5"),
        ("architectures/AetherNet/aether-install.json", b"{", b"["),
        ("__helpers/main_registry.py", b"_AetherNet.ARCHITECTURES", b"_AetherNet.ARCHITECTURES[:1]"),
        ("__helpers/main_registry.py", b"# <<< aether-install <<<", b"#"),
        ("__helpers/main_registry.py", b"# >>> aether-install ", b"# "),
    ],
)
def test_modified_is_refused_without_force(at: Tree, name: str, old: bytes, new: bytes) -> None:
    before = at.snapshot()
    for command in (at.install, at.uninstall):
        at.install()
        path = at.package / name
        at.edit(path, old, new)
        edited = at.snapshot()
        content = path.read_bytes()
        assert at.state == "modified"
        for refused in (at.install, at.uninstall):
            with pytest.raises(AetherInstallError, match="--force") as caught:
                refused()
            assert str(path) in caught.value.message
            assert at.snapshot() == edited
        outcome = command(force=True)
        assert at.state == ("installed" if command == at.install else "absent")
        (aside,) = outcome.plan.set_aside
        assert aside.read_bytes() == content
        aside.unlink()
        at.uninstall()
    shutil.rmtree(at.payload, ignore_errors=True)
    assert at.snapshot() == before


def test_each_edited_version_is_kept_under_a_name_of_its_own(at: Tree) -> None:
    kept = []
    for number in range(3):
        at.install()
        at.edit(at.payload / "__init__.py", b"Net", b"Net%d" % number)
        kept += at.install(force=True).plan.set_aside
    assert len({path.read_bytes() for path in kept}) == 3


def test_edits_elsewhere_in_the_registry_are_not_ours_to_mind(at: Tree) -> None:
    at.install()
    at.edit(at.registry, b"MAIN_REGISTRY = ArchRegistry()\n", b"MAIN_REGISTRY = ArchRegistry()  # edited\n")
    assert at.state == "installed"
    at.uninstall()
    assert at.state == "absent"
    assert b"# edited" in at.registry.read_bytes()
    assert b"AetherNet" not in at.registry.read_bytes()


def foreign_folder(at: Tree) -> None:
    at.payload.mkdir()
    (at.payload / "__init__.py").write_text("# an AetherNet of somebody else\n")


def foreign_module(at: Tree) -> None:
    at.payload.with_suffix(".py").write_text("# an AetherNet of somebody else\n")


def foreign_link(at: Tree) -> None:
    shutil.copytree(at.package / "architectures" / "Compact", at.site_packages.parent / "elsewhere")
    at.payload.symlink_to(at.site_packages.parent / "elsewhere")


def foreign_registry(at: Tree) -> None:
    foreign_folder(at)
    at.edit(at.registry, b"    ATD,\n", b"    ATD,\n    AetherNet,\n")


def foreign_over_ours(at: Tree) -> None:
    """What a release of spandrel with an AetherNet of its own looks like, unpacked over our payload."""
    fresh = at.registry.read_bytes()
    at.install()
    at.registry.unlink()
    at.registry.write_bytes(fresh.replace(b"    ATD,\n", b"    ATD,\n    AetherNet,\n"))
    (at.payload / "__init__.py").unlink()
    (at.payload / "__init__.py").write_text("# spandrel's own\n")


@pytest.mark.parametrize(
    "make",
    [
        foreign_folder,
        foreign_module,
        pytest.param(foreign_link, marks=pytest.mark.not_on_windows("Wine does not follow symbolic links")),
        foreign_registry,
        foreign_over_ours,
    ],
    ids=lambda f: f.__name__,
)
def test_foreign_is_refused_always(at: Tree, make: Callable[[Tree], None]) -> None:
    make(at)
    before = at.snapshot()
    assert at.state == "foreign"
    for command in (at.install, at.uninstall):
        for force in (False, True):
            with pytest.raises(AetherInstallError, match="not ours"):
                command(force=force)
    assert at.snapshot() == before


@pytest.mark.parametrize("version", UNSUPPORTED)
def test_unsupported_is_refused_always(tmp_path: Path, version: str) -> None:
    shutil.unpack_archive(wheel(version), tmp_path, "zip")
    at = Tree(tmp_path)
    before = at.snapshot()
    assert at.state == "unsupported"
    for force in (False, True):
        with pytest.raises(AetherInstallError, match=r"0\.3\.0 or later") as caught:
            at.install(force=force)
        assert version in caught.value.message
    assert not at.uninstall().changed
    assert at.snapshot() == before


def test_missing_says_where_it_looked_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "spandrel" / "__pycache__").mkdir(parents=True)
    result = aether_install("spandrel", "--target", tmp_path, check=False)
    assert result.returncode == 1
    assert str(tmp_path / "spandrel") in result.stderr
    assert aether_json("status", "--target", tmp_path)["state"] == "missing"


def test_a_folder_above_site_packages_is_pointed_further(at: Tree, tmp_path: Path) -> None:
    nested = tmp_path / "portable" / "python_embeded" / "Lib" / "site-packages"
    nested.parent.mkdir(parents=True)
    shutil.copytree(at.site_packages, nested)
    result = aether_install("status", "--target", tmp_path / "portable", check=False)
    assert result.returncode == 1
    assert str(nested / "spandrel") in result.stderr


def test_the_package_itself_is_a_target_too(at: Tree) -> None:
    assert aether_json("spandrel", "--target", at.package)["state"] == "installed"
    assert at.state == "installed"


def test_a_copy_under_another_name_works_and_needs_no_record(at: Tree, tmp_path: Path) -> None:
    vendored = tmp_path / "application" / "vendored_spandrel"
    shutil.copytree(at.package, vendored)
    for path in vendored.rglob("*.py"):
        path.write_bytes(path.read_bytes().replace(b"from spandrel.", b"from vendored_spandrel."))
    before = snapshot(vendored)
    aether_install("spandrel", "--target", vendored)
    (answer,) = import_each([vendored.parent], "vendored_spandrel")
    assert answer.clean
    assert answer.detects
    aether_install("uninstall", "--target", vendored)
    assert snapshot(vendored) == before


@pytest.mark.parametrize("version", SUPPORTED)
@pytest.mark.parametrize("shape", ["as it is", "CRLF", "no final newline", "read-only"])
def test_every_version_and_shape_comes_back_exactly(tmp_path: Path, version: str, shape: str) -> None:
    shutil.unpack_archive(wheel(version), tmp_path, "zip")
    at = Tree(tmp_path)
    record = next(tmp_path.glob("*.dist-info")) / "RECORD"
    if shape == "CRLF":
        for path in (at.registry, record):
            path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    elif shape == "no final newline":
        for path in (at.registry, record):
            path.write_bytes(path.read_bytes().rstrip(b"\n"))
    elif shape == "read-only":
        for path in (at.registry, record):
            path.chmod(0o444)
    os.utime(at.registry, ns=(1, 1_234_567_891_234_567_891))
    before = at.snapshot()
    at.install()
    assert at.state == "installed"
    assert at.registry.stat().st_mode == before["spandrel/__helpers/main_registry.py"][2]
    at.uninstall()
    assert at.snapshot() == before


def test_without_a_record_it_works_all_the_same(at: Tree) -> None:
    shutil.rmtree(next(at.site_packages.glob("*.dist-info")))
    before = at.snapshot()
    at.install()
    assert at.state == "installed"
    at.uninstall()
    assert at.snapshot() == before


def test_files_of_others_in_our_folder_stay(at: Tree) -> None:
    at.install()
    note = at.payload / "notes.txt"
    note.write_text("mine")
    assert at.state == "installed"
    at.uninstall()
    assert note.read_text() == "mine"
    assert [path.name for path in at.payload.iterdir()] == ["notes.txt"]
    assert at.state == "absent"
    at.install()
    assert at.state == "installed"
    assert note.read_text() == "mine"


def test_status_explains_every_state_and_what_to_do(at: Tree) -> None:
    shown = aether_install("status", "--target", at.package, check=False)
    assert shown.returncode == 1
    assert "aether-install spandrel" in shown.stdout
    at.install()
    shown = aether_install("status", "--target", at.package)
    assert "loads AetherNet models" in shown.stdout
    at.edit(at.payload / "__init__.py", b"Net", b"Ned")
    shown = aether_install("status", "--target", at.package, check=False)
    assert "modified" in shown.stdout
    assert "--force" in shown.stdout


def test_files_and_bytecode_of_earlier_versions_do_not_outlive_an_update(
    at: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = at.snapshot()
    install_older(at, monkeypatch)
    compileall.compile_dir(at.payload, quiet=1)
    assert at.state == "outdated"
    at.install()
    assert at.state == "installed"
    assert not list(at.payload.rglob("*gone*"))
    compileall.compile_dir(at.payload, quiet=1)
    at.uninstall()
    assert not at.payload.exists()
    assert at.snapshot() == before


def test_bytecode_that_lost_its_source_is_cleared_away(at: Tree) -> None:
    cache = at.payload / "__pycache__"
    cache.mkdir(parents=True)
    (cache / "__init__.cpython-311.pyc").write_bytes(b"what an older aether-install left")
    assert at.state == "partial"
    at.uninstall()
    assert at.state == "absent"
    assert not at.payload.exists()


def test_bytecode_of_somebody_elses_module_stays(at: Tree) -> None:
    at.install()
    (at.payload / "notes.py").write_text("mine = 1")
    compileall.compile_dir(at.payload, quiet=1)
    at.uninstall()
    left = {path.relative_to(at.payload).parts[0] for path in at.payload.rglob("*")}
    assert left == {"notes.py", "__pycache__"}
    assert [path.name.partition(".")[0] for path in (at.payload / "__pycache__").iterdir()] == ["notes"]


def test_an_edit_that_python_cannot_read_is_an_edit(at: Tree) -> None:
    before = at.snapshot()
    at.install()
    os.truncate(at.registry, at.registry.stat().st_size - 120)
    assert at.state == "modified"
    with pytest.raises(AetherInstallError, match="--force"):
        at.uninstall()
    kept = at.uninstall(force=True).plan.set_aside
    for path in kept:
        path.unlink()
    assert at.snapshot() == before


def test_a_registry_that_vanished_is_put_back_from_what_was_kept(at: Tree) -> None:
    before = at.snapshot()
    at.install()
    at.registry.unlink()
    at.uninstall()
    assert at.snapshot() == before


def test_our_name_in_somebodys_comment_is_no_trace(at: Tree) -> None:
    at.registry.write_bytes(at.registry.read_bytes() + b"# see also aether-install\n")
    before = at.snapshot()
    assert at.state == "absent"
    at.install()
    assert at.state == "installed"
    at.uninstall()
    assert at.snapshot() == before


@pytest.mark.not_on_windows("Wine does not follow symbolic links, which Windows grants to few")
def test_a_package_named_in_a_roundabout_way_is_the_same_package(at: Tree, tmp_path: Path) -> None:
    before = at.snapshot()
    link = tmp_path / "link"
    link.symlink_to(at.package)
    for target, folder in ((link, tmp_path), (at.package / "__helpers" / "..", tmp_path), ("..", at.registry.parent)):
        result = aether_json("spandrel", "--target", target, cwd=folder)
        assert result["spandrel"]["path"] == str(at.package)
        assert at.state == "installed", "RECORD and all"
        aether_install("uninstall", "--target", target, cwd=folder)
        assert at.snapshot() == before
