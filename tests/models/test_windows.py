"""Model files on Windows: what is open or mapped into memory is never renamed, replaced or removed there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from environments import run, snapshot
from safetensors.torch import load_file, save_file
from test_fuse import SMALL
from weights import weights_of
from windows import windows_rules

from aether_install.models.network import core

PROGRAM = """
import json, sys
from aether_install.cli import main
statuses = []
for arguments in json.load(sys.stdin):
    try:
        main(arguments)
    except SystemExit as end:
        statuses.append(end.code)
print("statuses", *statuses)
"""

HOLDER = "import sys; held = open(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
PIPES: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}


def test_every_command_about_models_works_on_windows(tmp_path: Path) -> None:
    """In one process, in which an earlier command might hold what a later one replaces."""
    models, out = tmp_path / "models", tmp_path / "out"
    models.mkdir()
    weights = weights_of(**SMALL)
    torch.save({"params": weights}, models / "a.pth")
    torch.save(weights, models / "b.ckpt", _use_new_zipfile_serialization=False)
    save_file(weights, models / "c.safetensors")
    commands = [
        ["fuse", "--model_path", str(models / "a.pth"), "--output_path", str(out / "a.safetensors")],
        ["fuse", "--model_path", str(models / "c.safetensors"), "--output_path", str(out / "a.safetensors"), "--force"],
        ["fuse", "--model_path", str(models), "--output_path", str(out / "all")],
        ["fuse", "--model_path", str(models), "--output_path", str(out / "all"), "--force"],
        ["fuse", "--model_path", str(models / "a.pth"), "--output_path", str(out / "all" / "a.pth"), "--force"],
        ["inspect", str(out / "all" / "a.pth")],
        ["inspect", str(out / "all" / "c.safetensors")],
    ]
    told = run(sys.executable, "-c", PROGRAM, input=json.dumps(commands), env=windows_rules())
    assert told.stdout.splitlines()[-1] == "statuses" + " 0" * len(commands), told.stdout + told.stderr
    assert told.stderr == ""
    expected = core().fuse_state_dict(weights)
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*"))
    assert files == ["a.safetensors", "all/a.pth", "all/b.pth", "all/c.safetensors"]
    for name in files:
        written = load_file(out / name) if name.endswith("safetensors") else torch.load(out / name)
        assert all(torch.equal(written[key], expected[key]) for key in expected)


def test_on_windows_too_what_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    """What was written is mapped while it is compared with the model; another program has an output open."""
    weights = weights_of(**SMALL)
    torch.save(weights, tmp_path / "model.pth")
    weights["conv_first.bias"][0] = float("nan")
    torch.save(weights, tmp_path / "unfit.pth")
    (tmp_path / "open.pth").write_bytes(b"precious")
    before = snapshot(tmp_path)
    commands = [
        ["fuse", "--model_path", str(tmp_path / model), "--output_path", str(tmp_path / output), "--force"]
        for model, output in (("unfit.pth", "out/a.pth"), ("unfit.pth", "a.safetensors"), ("model.pth", "open.pth"))
    ]
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path / "open.pth"], env=windows_rules(), **PIPES
    ) as holder:
        assert holder.stdout.readline()
        told = run(sys.executable, "-c", PROGRAM, input=json.dumps(commands), env=windows_rules())
        holder.stdin.close()
    assert told.stdout.splitlines()[-1] == "statuses 1 1 1"
    assert told.stderr.count("itself gives no finite output") == 2
    assert "close the program that has it open" in told.stderr
    assert snapshot(tmp_path) == before
