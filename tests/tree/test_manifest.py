"""A manifest is somebody's file, and believed only as far as it can do no harm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from environments import quietly, snapshot

from aether_install.errors import AetherInstallError
from aether_install.tree.commands import install, status, uninstall
from aether_install.tree.layout import Spandrel
from aether_install.tree.manifest import MANIFEST_NAME, Manifest, sha256, shipped_payload

ELSEWHERE = [
    "C:/Windows/x",
    "C:\\Windows\\x",
    "C:x",
    "..\\..\\x",
    "\\\\server\\share\\x",
    "\\x",
    "//server/share/x",
    "/etc/x",
    "../x",
    "a/../../x",
    "a/..",
    "..",
    ".",
    "",
    "a//b",
    "a/",
    "a:stream",
    "a\0b",
    "a\n",
    "a./b",
    "a /b",
    "~/x",
    "a\u2215b",
]


def manifest_of(path: str) -> bytes:
    content = {"installer": "aether-install", "version": "9", "files": {path: sha256(b"victim")}}
    return json.dumps(content).encode()


@pytest.mark.parametrize("path", ELSEWHERE, ids=repr)
def test_a_path_that_may_lead_elsewhere_on_any_system_is_refused_on_all(path: str) -> None:
    assert Manifest.decode(manifest_of(path)) is None


def test_nothing_elsewhere_is_removed(tree: Path) -> None:
    victim = tree / "victim"
    victim.write_bytes(b"victim")
    folder = tree / "spandrel" / "architectures" / "AetherNet"
    folder.mkdir()
    (folder / MANIFEST_NAME).write_bytes(manifest_of("../../../victim"))
    before = snapshot(tree)
    spandrel = Spandrel(tree / "spandrel")
    assert status(spandrel).before.value == "foreign"
    for command in (install, uninstall):
        with pytest.raises(AetherInstallError):
            command(spandrel, force=True, progress=quietly)
    assert snapshot(tree) == before


def test_our_own_manifest_is_read_back() -> None:
    manifest = shipped_payload().manifest
    assert Manifest.decode(manifest.encode()) == manifest


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff", b'{"files": 1, "version": 1}'],
    ids=lambda data: repr(data)[:30],
)
def test_what_is_not_a_manifest_is_not_read_as_one(data: bytes) -> None:
    assert Manifest.decode(data) is None
