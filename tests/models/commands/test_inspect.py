"""Inspect says what a file is, in words that a person understands and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from networks import JUNE
from safetensors.torch import save_file
from test_fuse import SMALL, trainner_file, write_malicious, write_mixed, write_swinir
from weights import golden, weights_of

from aether_install.cli import main
from aether_install.errors import AetherInstallError
from aether_install.models.inspection import inspect_model
from aether_install.ui.models import inspect_view


def described(path: Path) -> dict[str, Any]:
    return inspect_view(inspect_model(path)).described


def shown_of(path: Path) -> str:
    """What the command prints, run in this process."""
    done = CliRunner().invoke(main, ["inspect", str(path)])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("fused", [False, True])
def test_everything_about_a_model_is_told(tmp_path: Path, fused: bool) -> None:
    weights = golden("small_x2").unfused
    weights = JUNE.fuse(weights) if fused else weights
    path = tmp_path / "model.pth"
    torch.save({"params": weights, "params_ema": {f"module.{key}": value for key, value in weights.items()}}, path)
    told = described(path)
    assert (told["generation"], told["variant"], told["fused"]) == ("2025-06", "small", fused)
    assert told["parameters"] == {
        "embed_dim": 96,
        "depths": (4, 4, 4, 4),
        "upscale": 2,
        "in_chans": 3,
        "out_chans": 3,
        "mlp_ratio": 2.0,
        "lk_kernel": 11,
        "sk_kernel": None if fused else 3,
        "num_feat": 64,
        "img_range": 1.0,
    }
    assert (told["dtype"], told["container"], told["prefix"]) == ("float32", "params_ema", "module.")
    assert (told["format"], told["bytes"]) == ("pth", path.stat().st_size)
    assert told["spandrel"] == {
        "loads": True,
        "architecture": "AetherNet-Fused" if fused else "AetherNet-Unfused",
        "obstacle": None,
    }
    shown = shown_of(path)
    for words in (
        "variant: small",
        "embed_dim: 96",
        "depths: 4 4 4 4",
        "float32",
        "params_ema, the average",
        "module.",
    ):
        assert words in shown


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed"])
def test_the_dtype_is_told(tmp_path: Path, dtype: str) -> None:
    weights = weights_of(**SMALL)
    half = torch.bfloat16 if dtype == "bfloat16" else torch.float16
    kept = "norm" if dtype == "mixed" else "nothing"
    weights = {key: tensor if kept in key else tensor.to(half) for key, tensor in weights.items()}
    save_file(weights, tmp_path / "model.safetensors")
    assert described(tmp_path / "model.safetensors")["dtype"] == dtype


@pytest.mark.parametrize(("img_range", "warned"), [(255.0, True), (1.0, False)])
def test_a_file_that_hosts_would_render_wrongly_is_warned_of(tmp_path: Path, img_range: float, warned: bool) -> None:
    told = described(trainner_file(tmp_path, img_range=img_range))
    assert told["parameters"]["img_range"] == img_range
    assert bool(told["warnings"]) == warned
    shown = shown_of(tmp_path / "trained.safetensors")
    assert ("wrongly" in shown) == warned


def test_other_networks_are_named(tmp_path: Path) -> None:
    write_swinir(tmp_path / "swinir.pth")
    torch.save({"a": torch.zeros(2)}, tmp_path / "unknown.pth")
    assert described(tmp_path / "swinir.pth")["looks_like"] == "a SwinIR model"
    assert described(tmp_path / "swinir.pth")["generation"] is None
    assert described(tmp_path / "unknown.pth")["looks_like"] == "no network known here"
    assert "a SwinIR model" in shown_of(tmp_path / "swinir.pth")


def test_a_damaged_or_hostile_file_is_refused_by_what_is_wrong_with_it(tmp_path: Path) -> None:
    write_mixed(tmp_path / "mixed.pth")
    with pytest.raises(AetherInstallError, match=r"layers\.1\.0"):
        inspect_model(tmp_path / "mixed.pth")
    write_malicious(tmp_path / "hostile.pth")
    with pytest.raises(AetherInstallError, match=r"posix\.system"):
        inspect_model(tmp_path / "hostile.pth")
    assert not (tmp_path / "ran").exists()


def test_a_name_that_spandrel_goes_by_wrongly_is_an_obstacle(tmp_path: Path) -> None:
    save_file(weights_of(**SMALL), tmp_path / "model.pth")
    obstacle = described(tmp_path / "model.pth")["spandrel"]["obstacle"]
    assert ".safetensors" in obstacle
    torch.save(weights_of(**SMALL), tmp_path / "model.safetensors")
    with pytest.raises(AetherInstallError, match=r"rename it to end in \.pth"):
        inspect_model(tmp_path / "model.safetensors")


def test_a_pickle_of_dicts_within_themselves_is_told_of_at_once(tmp_path: Path) -> None:
    itself: dict[str, Any] = {}
    itself.update({f"key{number}": itself for number in range(300)})
    pairs: tuple[Any, ...] = ()
    for _ in range(60):
        pairs = (pairs, pairs)
    torch.save(itself, tmp_path / "cyclic.pth")
    assert described(tmp_path / "cyclic.pth")["looks_like"] == "no network known here"
    torch.save({"params": weights_of(**SMALL), "itself": itself, "pairs": pairs}, tmp_path / "model.pth")
    assert described(tmp_path / "model.pth")["container"] == "params"
    torch.save({"params": weights_of(**SMALL), "metadata": {"img_range": pairs}}, tmp_path / "pairs.pth")
    with pytest.raises(AetherInstallError, match=r"img_range as \(\("):
        inspect_model(tmp_path / "pairs.pth")
