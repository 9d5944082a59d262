"""A patched spandrel loads AetherNet models from their files alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spandrel
import torch
from model_files import CONTAINERS
from networks import JUNE
from safetensors.torch import save_file
from weights import GOLDEN_NAMES, StateDict, golden, plain_output, weights_of

SMALL = {"embed_dim": 8, "depths": (1, 2), "upscale": 2}


def load(path: Path) -> spandrel.ImageModelDescriptor[Any]:
    descriptor = spandrel.ModelLoader().load_from_file(path)
    assert isinstance(descriptor, spandrel.ImageModelDescriptor)
    return descriptor


@pytest.mark.parametrize("name", GOLDEN_NAMES)
@pytest.mark.parametrize("form", ["fused", "unfused"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".pt", ".ckpt"])
def test_loads_every_golden_model(tmp_path: Path, name: str, form: str, suffix: str) -> None:
    case = golden(name)
    weights = case.unfused if form == "unfused" else JUNE.fuse(case.unfused)
    path = tmp_path / f"model{suffix}"
    if suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    descriptor = load(path)
    assert descriptor.architecture.id == f"AetherNet-{form.title()}"
    assert descriptor.scale == case.config["upscale"]
    assert descriptor.input_channels == descriptor.output_channels == case.config["in_chans"]
    assert form in descriptor.tags
    with torch.inference_mode():
        torch.testing.assert_close(descriptor.model(case.x), case.y, rtol=0, atol=1e-5)
    torch.testing.assert_close(descriptor(case.x), case.y.clamp(0, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("form", ["fused", "unfused"])
def test_loads_from_every_container(tmp_path: Path, container: Callable[[StateDict], Any], form: str) -> None:
    weights = weights_of(**SMALL)
    if form == "fused":
        weights = JUNE.fuse(weights)
    torch.save(container(weights), tmp_path / "model.pth")
    descriptor = load(tmp_path / "model.pth")
    assert descriptor.architecture.id == f"AetherNet-{form.title()}"
    loaded = descriptor.model.state_dict()
    assert list(loaded) == list(weights)
    assert all(torch.equal(loaded[key], weights[key]) for key in weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_loads_every_dtype_as_float32_like_any_other_model(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = {key: tensor.to(dtype) for key, tensor in weights_of(**SMALL).items()}
    save_file(weights, tmp_path / "model.safetensors")
    descriptor = load(tmp_path / "model.safetensors")
    assert descriptor.dtype == torch.float32
    x = torch.rand(1, 3, 9, 7)
    expected = plain_output(x, {key: tensor.float() for key, tensor in weights.items()}, **SMALL)
    with torch.inference_mode():
        torch.testing.assert_close(descriptor.model(x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_runs_in_half_precision(dtype: torch.dtype) -> None:
    case = golden("tiny_x2")
    descriptor = spandrel.ModelLoader().load_from_state_dict(case.unfused).to(dtype)
    y = descriptor(case.x.to(dtype))
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), case.y.clamp(0, 1), rtol=0, atol=0.05)


def test_the_readme_snippet_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model_path = tmp_path / "model.pth"
    torch.save(golden("small_x2").unfused, model_path)
    model_descriptor = spandrel.ModelLoader().load_from_file(model_path)
    print(f"Loaded AetherNet model: {model_descriptor.name}")
    print(f"Upscale factor: {model_descriptor.scale}")
    print(f"Tags: {model_descriptor.tags}")
    shown = capsys.readouterr().out
    assert "Loaded AetherNet model: AetherNet small 2x (unfused)" in shown
    assert "Upscale factor: 2" in shown
    assert "'small'" in shown


@pytest.mark.parametrize("upscale", [1, 2])
def test_is_a_descriptor_in_every_respect(upscale: int) -> None:
    weights = weights_of(**{**SMALL, "upscale": upscale})
    descriptor = spandrel.ModelLoader(device="cpu").load_from_state_dict(weights)
    assert descriptor.purpose == ("SR" if upscale > 1 else "Restoration")
    assert descriptor.tiling == spandrel.ModelTiling.SUPPORTED
    assert descriptor.supports_half
    assert descriptor.supports_bfloat16
    assert not descriptor.model.training
    assert descriptor.size_requirements.check(1, 1)
    assert descriptor(torch.rand(1, 3, 5, 3)).shape == (1, 3, 5 * upscale, 3 * upscale)


def test_imports_from_the_architecture() -> None:
    from spandrel.architectures.AetherNet import AetherNetFusedArch, AetherNetUnfusedArch, aether

    for architecture, fused in ((AetherNetFusedArch(), True), (AetherNetUnfusedArch(), False)):
        model = aether(embed_dim=8, depths=(1,), fused_init=fused)
        assert architecture.detect(model.state_dict())
        loaded = architecture.load(model.state_dict())
        assert loaded.model.hyperparameters == model.hyperparameters


def test_a_loaded_model_has_nothing_to_do_with_its_file_any_more(tmp_path: Path) -> None:
    """Trainers write over the file of a model that a host has loaded."""
    weights = weights_of(**SMALL)
    for path in (tmp_path / "model.safetensors", tmp_path / "model.pth"):
        save_file(weights, path) if path.suffix == ".safetensors" else torch.save(weights, path)
        model = load(path).model
        path.write_bytes(bytes(path.stat().st_size))
        for key, tensor in model.state_dict().items():
            assert torch.equal(tensor, weights[key])


def test_models_of_one_state_dict_are_apart() -> None:
    weights = weights_of(**SMALL)
    first, second = (spandrel.ModelLoader().load_from_state_dict(dict(weights)) for _ in range(2))
    with torch.no_grad():
        for parameter in first.model.parameters():
            parameter.zero_()
    for key, tensor in second.model.state_dict().items():
        assert torch.equal(tensor, weights[key])
