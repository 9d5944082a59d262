"""The edit of the registry is exact to reverse and indifferent to the shape of the file."""

from __future__ import annotations

import ast
import subprocess
import warnings
import zipfile
from pathlib import Path

import pytest
from environments import SUPPORTED, UNSUPPORTED, script, wheel
from hypothesis import given
from hypothesis import strategies as st

from aether_install.tree import registry
from aether_install.tree.registry import BlockState

PLAIN = b"""\
from ..architectures import SwinIR
from .registry import ArchRegistry, ArchSupport

MAIN_REGISTRY = ArchRegistry()
MAIN_REGISTRY.add(
    ArchSupport.from_architecture(SwinIR.SwinIRArch()),
)
"""

SHAPES = {
    "plain": PLAIN,
    "CRLF": PLAIN.replace(b"\n", b"\r\n"),
    "CR": PLAIN.replace(b"\n", b"\r"),
    "no final newline": PLAIN.rstrip(b"\n"),
    "CRLF, no final newline": PLAIN.replace(b"\n", b"\r\n").rstrip(b"\r\n"),
    "blank lines at the end": PLAIN + b"\n\n",
    "a comment at the end": PLAIN + b"# end",
    "a lone CR at the end": PLAIN + b"# end\r",
    "byte order mark": b"\xef\xbb\xbf" + PLAIN,
    "latin-1": b"# -*- coding: latin-1 -*-\n# \xe9\n" + PLAIN,
    "one line each": PLAIN.replace(b"(\n    ", b"(").replace(b",\n)", b")"),
}


def official(version: str) -> bytes:
    with zipfile.ZipFile(wheel(version)) as archive:
        return archive.read("spandrel/__helpers/main_registry.py")


@pytest.mark.parametrize("source", SHAPES.values(), ids=SHAPES)
def test_patching_and_unpatching_gives_back_every_byte(source: bytes) -> None:
    patched = registry.patch(source)
    ast.parse(patched)
    assert registry.is_supported(source)
    assert registry.is_supported(patched)
    assert registry.block_state(source) is BlockState.ABSENT
    assert registry.block_state(patched) is BlockState.CURRENT
    assert registry.unpatch(patched) == source
    assert registry.unpatch(source) == source


@given(st.binary())
def test_unpatching_is_exact_for_any_bytes(source: bytes) -> None:
    assert registry.unpatch(registry.patch(source)) == source


@pytest.mark.parametrize("version", SUPPORTED)
def test_every_official_registry_is_supported(version: str) -> None:
    source = official(version)
    assert registry.is_supported(source)
    assert not registry.names_architecture(source)
    assert registry.unpatch(registry.patch(source)) == source


@pytest.mark.parametrize("version", UNSUPPORTED)
def test_registries_before_0_3_are_not(version: str) -> None:
    assert not registry.is_supported(official(version))


@pytest.mark.parametrize(
    "source", [b"", b"MAIN_REGISTRY = 1\n", b"def broken(:\n", b"\0", PLAIN.replace(b".add", b".put")]
)
def test_what_is_no_registry_is_not(source: bytes) -> None:
    assert not registry.is_supported(source)


def test_the_block_survives_a_change_of_line_ends() -> None:
    patched = registry.patch(PLAIN).replace(b"\n", b"\r\n")
    assert registry.block_state(patched) is BlockState.CURRENT
    assert registry.unpatch(patched) == PLAIN.replace(b"\n", b"\r\n")


@pytest.mark.parametrize("options", [[], ["--line-length", "50"], ["--line-length", "300"]], ids=str)
def test_reformatting_is_no_edit(tmp_path: Path, options: list[str]) -> None:
    path = tmp_path / "main_registry.py"
    path.write_bytes(registry.patch(SHAPES["one line each"]))
    subprocess.run([script("ruff"), "format", "--isolated", "--quiet", *options, path], check=True)
    assert registry.block_state(path.read_bytes()) is BlockState.CURRENT
    assert not registry.names_architecture(registry.unpatch(path.read_bytes()))


def test_what_others_append_stays_and_stays_apart() -> None:
    source = PLAIN.rstrip(b"\n")
    patched = registry.patch(source) + b"x = 1\n"
    assert registry.block_state(patched) is BlockState.CURRENT
    assert registry.unpatch(patched) == source + b"\nx = 1\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"ARCHITECTURES", b"ARCHITECTURES[:1]"),
        (b"# <<< aether-install <<<\n", b""),
        (b"\n# >>> aether-install ", b"\n# >>> "),
    ],
    ids=["body", "end marker", "begin marker"],
)
def test_an_edit_of_the_block_is_noticed(old: bytes, new: bytes) -> None:
    edited = registry.patch(PLAIN).replace(old, new, 1)
    assert registry.block_state(edited) is BlockState.EDITED


def test_a_block_of_another_version_is_told_from_an_edited_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(registry, "_BODY", b"# of another version, says aether-install\n")
        patched = registry.patch(PLAIN)
    assert registry.block_state(patched) is BlockState.OTHER_VERSION
    assert registry.unpatch(patched) == PLAIN


@pytest.mark.parametrize(
    "line",
    [b"from ..architectures import AetherNet\n", b"x = AetherNet\n", b"import a.AetherNet\n", b"x = a.AetherNet.b\n"],
)
def test_an_aethernet_of_somebody_else_is_noticed(line: bytes) -> None:
    assert registry.names_architecture(line + PLAIN)
    assert registry.names_architecture(registry.patch(line + PLAIN))
    assert not registry.names_architecture(b"# AetherNet\n" + registry.patch(PLAIN))


def test_the_block_names_no_architecture_but_the_package() -> None:
    block = registry.patch(b"")
    assert b"ARCHITECTURES" in block
    assert b"Fused" not in block


def test_a_failing_payload_warns_once_and_stops_nothing() -> None:
    block = registry.patch(b"MAIN_REGISTRY = None\n")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(compile(block, "main_registry.py", "exec"), {"__name__": "a.b.main_registry", "__package__": "a.b"})
    assert len(caught) == 1
    assert "aether-install spandrel" in str(caught[0].message)
