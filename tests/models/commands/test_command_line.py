"""The command line about models, end to end: what it accepts, prints and returns."""

from __future__ import annotations

from pathlib import Path

import in_process
import pytest
import torch
from environments import Environment, aether_install, aether_json, make_environment, snapshot
from weights import golden


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return make_environment(tmp_path_factory.mktemp("commands") / "venv")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.pth"
    torch.save({"params_ema": golden("tiny_x2").unfused}, path)
    return path


def test_the_main_job_end_to_end(environment: Environment, model: Path, tmp_path: Path) -> None:
    before = snapshot(environment.site_packages)
    python = ("--python", environment.python)
    assert aether_install("status", *python, check=False).returncode == 1

    installed = aether_json("spandrel", *python, "--no-verify")
    assert installed["state"] == "installed"
    assert installed["spandrel"] == {"version": "0.4.2", "path": str(environment.spandrel)}
    assert str(environment.registry) in installed["changed"]
    assert aether_install("status", *python).returncode == 0

    fused = tmp_path / "fused.safetensors"
    assert str(fused) in aether_install("fuse", "--model_path", model, "--output_path", fused).stdout
    loaded = environment.imports_spandrel(
        f"for path in {[str(model), str(fused)]}:\n"
        "    d = spandrel.ModelLoader().load_from_file(path); print(d.name, d.scale, d.tags)"
    ).stdout
    assert [line.partition(" [")[0] for line in loaded.splitlines()] == [
        "AetherNet 16dim 2x (unfused) 2",
        "AetherNet 16dim 2x (fused) 2",
    ]

    assert aether_json("uninstall", *python)["state"] == "absent"
    assert snapshot(environment.site_packages) == before


def test_the_options_are_the_same_with_dashes_and_underscores(model: Path, tmp_path: Path) -> None:
    paths = tmp_path / "a.pth", tmp_path / "b.pth"
    in_process.aether_install("fuse", "--model-path", model, "--output-path", paths[0], "--no_verify", "--upscale", "2")
    in_process.aether_install(
        "fuse", "--model_path", model, "--output_path", paths[1], "--img-range", "1", "--no-verify"
    )
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_json_is_one_object_with_the_promised_keys(model: Path, tmp_path: Path) -> None:
    fused = in_process.aether_json("fuse", "--model_path", model, "--output_path", tmp_path / "out.pth")
    assert fused["fused_layers"] == 3
    assert fused["max_abs_diff"] < 1e-4
    assert fused["output_path"] == str(tmp_path / "out.pth")
    inspected = in_process.aether_json("inspect", model)
    assert inspected["parameters"] == fused["parameters"]
    assert inspected["parameters"] == {
        "embed_dim": 16,
        "depths": [2, 1],
        "upscale": 2,
        "in_chans": 3,
        "out_chans": 3,
        "mlp_ratio": 2.0,
        "lk_kernel": 11,
        "sk_kernel": 3,
        "num_feat": 64,
        "img_range": 1.0,
    }
    assert (inspected["fused"], inspected["variant"], inspected["dtype"]) == (False, None, "float32")
    assert (inspected["container"], inspected["generation"]) == ("params_ema", "2025-06")
