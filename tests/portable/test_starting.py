"""What Wine fails to start is tried again, and nothing else: a program of ours that ends without a word is a fault."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from environments import script

starts = pytest.importorskip("starts", reason="a plugin for Wine")


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The exit statuses of all that is tried from here on."""
    seen: list[int] = []
    once = starts._run

    def run(*command: object, **options: object) -> object:
        result = once(*command, **options)
        seen.append(result.returncode)
        return result

    monkeypatch.setattr(starts, "_run", run)
    return seen


def test_what_began_is_run_once(tries: list[int]) -> None:
    subprocess.run([sys.executable, "-c", "raise SystemExit(1)"], capture_output=True)
    assert tries == [1]


def test_a_launcher_without_its_program_is_tried_again(tries: list[int], tmp_path: Path) -> None:
    launcher = tmp_path / "launcher.exe"
    program = Path(sys.executable)
    whole = script("aether-install.exe").read_bytes()
    launcher.write_bytes(whole.replace(str(program).encode(), str(program.with_name("no-more.exe")).encode()))
    subprocess.run([launcher], capture_output=True)
    assert tries == [1] * starts.MOST_TRIES
