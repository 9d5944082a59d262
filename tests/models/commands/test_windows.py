"""Model files on Windows: what is open or mapped into memory is never renamed, replaced or removed there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from environments import snapshot
from networks import JUNE
from safetensors.torch import load_file, save_file
from test_fuse import SMALL
from weights import weights_of
from windows import windows_rules

PROGRAM = """
import json, sys
from click.testing import CliRunner
from aether_install.cli import main
for line in sys.stdin:
    ended = CliRunner().invoke(main, json.loads(line))
    print(json.dumps([ended.exit_code, ended.stdout, ended.stderr, repr(ended.exception)]), flush=True)
"""

HOLDER = "import sys; held = open(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
PIPES: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}

Command = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def command() -> Iterator[Command]:
    """Runs commands in one process, in which an earlier one might hold what a later one replaces."""
    with subprocess.Popen([sys.executable, "-c", PROGRAM], env=windows_rules(), **PIPES) as process:

        def run(*arguments: str | Path) -> tuple[int, str]:
            print(json.dumps([*map(str, arguments)]), file=process.stdin, flush=True)
            status, _, complaint, error = json.loads(process.stdout.readline())
            assert error == "None" or error.startswith("SystemExit"), error
            return status, complaint

        yield run
        process.stdin.close()


def together(*outputs: Path) -> list[str | Path]:
    return [part for output in outputs for part in ("--output_path", output)]


def test_every_command_about_models_works_on_windows(command: Command, tmp_path: Path) -> None:
    models, out = tmp_path / "models", tmp_path / "out"
    models.mkdir()
    weights = weights_of(**SMALL)
    torch.save({"params": weights}, models / "a.pth")
    torch.save(weights, models / "b.ckpt", _use_new_zipfile_serialization=False)
    save_file(weights, models / "c.safetensors")
    for arguments in (
        ("fuse", "--model_path", models / "a.pth", "--output_path", out / "a.safetensors"),
        ("fuse", "--model_path", models / "c.safetensors", "--output_path", out / "a.safetensors", "--force"),
        ("fuse", "--model_path", models, "--output_path", out / "all"),
        ("fuse", "--model_path", models, "--output_path", out / "all", "--force"),
        ("fuse", "--model_path", models / "a.pth", "--output_path", out / "all" / "a.pth", "--force"),
        *2 * [("fuse", "--model_path", models / "a.pth", *together(out / "x.pth", out / "x.safetensors"), "--force")],
        ("fuse", "--model_path", models / "a.pth", "--output_path", out / "x.onnx"),
        ("inspect", out / "all" / "a.pth"),
        ("inspect", out / "x.onnx"),
        ("inspect", out / "all" / "c.safetensors"),
    ):
        assert command(*arguments) == (0, ""), arguments
    expected = JUNE.fuse(weights)
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*"))
    assert files == [
        *("a.safetensors", "all/a.pth", "all/b.pth", "all/c.safetensors", "x.onnx", "x.pth", "x.safetensors")
    ]
    for name in files:
        if name == "x.onnx":
            continue
        written = load_file(out / name) if name.endswith("safetensors") else torch.load(out / name)
        assert all(torch.equal(written[key], expected[key]) for key in expected)


def test_on_windows_too_what_fails_leaves_everything_as_it_was(command: Command, tmp_path: Path) -> None:
    """What was written is mapped while it is compared with the model; another program has an output open."""
    weights = weights_of(**SMALL)
    torch.save(weights, tmp_path / "model.pth")
    weights["conv_first.bias"][0] = float("nan")
    torch.save(weights, tmp_path / "unfit.pth")
    (tmp_path / "open.pth").write_bytes(b"precious")
    (tmp_path / "other.pth").write_bytes(b"precious too")
    before = snapshot(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path / "open.pth"], env=windows_rules(), **PIPES
    ) as holder:
        assert holder.stdout.readline()
        for model, outputs, complaint in (
            ("unfit.pth", ["out/a.pth"], "itself gives no finite output"),
            ("unfit.pth", ["a.safetensors"], "itself gives no finite output"),
            ("model.pth", ["open.pth"], "close the program that has it open"),
            ("model.pth", ["open.pth", "other.pth", "new.onnx"], "close the program that has it open"),
            ("unfit.pth", ["new.pth", "other.pth"], "itself gives no finite output"),
        ):
            paths = together(*(tmp_path / output for output in outputs))
            status, told = command("fuse", "--model_path", tmp_path / model, *paths, "--force")
            assert status == 1
            assert complaint in told
        holder.stdin.close()
    assert snapshot(tmp_path) == before
