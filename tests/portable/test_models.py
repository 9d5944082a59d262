"""What works on model files, by the torch of Windows: ``TORCH=1 make test-windows``."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from environments import CACHE, REPOSITORY, snapshot
from layouts import ENVIRONMENT, TORCH, Application

pytestmark = pytest.mark.skipif(not TORCH.is_dir() or os.environ.get("TORCH") != "1", reason="needs TORCH=1")

MODEL = REPOSITORY / "examples" / "models" / "2x-AetherNet-photo.pth"


def numbers(path: Path) -> list[float]:
    data = path.read_bytes()
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def test_every_command_on_models_works_and_the_picture_is_that_of_linux(comfyui: Application, tmp_path: Path) -> None:
    before = snapshot(comfyui.site_packages)
    models = comfyui.folder / "ComfyUI" / "models" / "upscale_models"
    model = Path(shutil.copy(MODEL, models))
    told = comfyui.told("spandrel")
    assert (told["state"], told.get("error")) == ("installed", None)
    comfyui.run("uninstall", check=True)
    assert "this Python runs an AetherNet with it" in comfyui.run("spandrel", check=True).stdout
    assert comfyui.told("inspect", model)["parameters"]["embed_dim"] == 32
    told = comfyui.told("doctor", model, "--host", "comfyui")
    assert told["ok"], told
    fused = models / "fused ü.pth"
    told = comfyui.told("fuse", "--model_path", model, "--output_path", fused)
    assert told["fused_layers"] == 6, told
    assert comfyui.told("inspect", fused)["fused"]

    for file in (model, fused):
        output = tmp_path / "numbers"
        command = [comfyui.python, "-s", Path(__file__).with_name("picture.py"), file, output]
        subprocess.run(command, env=ENVIRONMENT, check=True)
        expected = numbers(CACHE / "windows" / "picture-of-linux")
        assert max(abs(a - b) for a, b in zip(numbers(output), expected, strict=True)) < 1e-5
    assert comfyui.told("uninstall")["state"] == "absent"
    assert snapshot(comfyui.site_packages) == before


def test_the_engine_has_its_team_which_computes_the_same(comfyui: Application) -> None:
    assert comfyui.told("spandrel", "--no-verify")["state"] == "installed"
    command = [comfyui.python, "-s", Path(__file__).with_name("team.py"), MODEL]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    threads, difference = done.stdout.split()
    assert int(threads) >= 1, "which are not the one that asked"
    assert float(difference) < 1e-5
