"""The trained model that comes with the repository: random weights would hide what only a real picture shows."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from environments import REPOSITORY
from model_files import fuse
from PIL import Image
from quality import enlarge, psnr_y, read_photo, shrink, to_image, trimmed
from spandrel import ImageModelDescriptor, ModelLoader

EXAMPLES = REPOSITORY / "examples"
MODEL = EXAMPLES / "models" / "2x-AetherNet-photo.pth"

Model = ImageModelDescriptor[torch.nn.Module]


def load(path: Path) -> Model:
    model = ModelLoader().load_from_file(path)
    assert isinstance(model, ImageModelDescriptor)
    return model


@pytest.fixture(scope="module")
def unfused() -> Model:
    return load(MODEL)


@pytest.fixture(params=["chelsea"])
def original(request: pytest.FixtureRequest) -> torch.Tensor:
    """A photo that training never saw, (1, 3, H, W)."""
    return trimmed(read_photo(EXAMPLES / "photos" / f"{request.param}.png"), 2)


@pytest.mark.parametrize("original", ["astronaut", "chelsea"], indirect=True)
def test_it_restores_unseen_photos_far_better_than_bicubic(unfused: Model, original: torch.Tensor) -> None:
    small = shrink(original, 2)
    gain = psnr_y(unfused(small), original) - psnr_y(enlarge(small, 2), original)
    assert gain > 0.5


def test_fused_it_makes_the_same_picture(original: torch.Tensor, tmp_path: Path) -> None:
    fuse(MODEL, tmp_path / "fused.safetensors")
    fused = load(tmp_path / "fused.safetensors")
    assert fused.architecture.id == "AetherNet-Fused"
    small = shrink(original, 2)
    apart = in_every_layer(load(MODEL).model, small).clamp(0, 1)  # two kernels, which inference merges by itself
    assert (fused(small) - apart).abs().max() < 1e-5


@pytest.mark.parametrize(("dtype", "largest"), [(torch.float16, 0.5 / 255), (torch.bfloat16, 4 / 255)])
def test_half_precision_makes_the_same_picture(
    unfused: Model, original: torch.Tensor, dtype: torch.dtype, largest: float
) -> None:
    """What ``supports_half`` and ``supports_bfloat16`` rest on; the README gives the figures."""
    assert unfused.supports_half
    assert unfused.supports_bfloat16
    small = shrink(original, 2)
    expected, got = unfused(small), load(MODEL).to(dtype=dtype)(small.to(dtype)).float()
    assert (got - expected).abs().max() < largest
    assert abs(psnr_y(got, original) - psnr_y(expected, original)) < 0.05


def test_no_value_inside_comes_near_the_limit_of_float16(original: torch.Tensor) -> None:
    """A GPU keeps what is between the layers in float16, which ends at 65504."""
    network = load(MODEL).model
    largest = []
    for layer in network.modules():
        layer.register_forward_hook(lambda _, __, output: largest.append(output.abs().max().item()))
    in_every_layer(network, shrink(original, 2))
    assert len(largest) > 40
    assert max(largest) < 65504 / 100


@pytest.mark.parametrize(("dtype", "largest"), [(torch.float16, 0.5 / 255), (torch.bfloat16, 4 / 255)])
def test_every_layer_may_work_in_half_precision(original: torch.Tensor, dtype: torch.dtype, largest: float) -> None:
    """As on a GPU. A part of the photo will do, for processors compute half precision slowly."""
    small = shrink(original, 2)[..., 40:168, 40:168]
    expected, got = (in_every_layer(load(MODEL).model.to(d), small.to(d)).float() for d in (torch.float32, dtype))
    assert (got - expected).abs().max() < largest


def in_every_layer(network: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Calls layer after layer in the dtype of the image: gradients forbid the shortcuts of inference."""
    return network.requires_grad_()(images).detach()


def test_tile_by_tile_it_makes_the_same_picture(
    unfused: Model, original: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example with smaller tiles than it has, of which a part of the photo takes several in both directions."""
    program = (EXAMPLES / "upscale.py").read_text()
    assert "TILE, OVERLAP = 512, 48" in program
    original = original[..., :240, :256]
    to_image(original[0]).save(tmp_path / "photo.png")
    monkeypatch.setattr(sys, "argv", ["upscale.py", *map(str, (MODEL, tmp_path / "photo.png", tmp_path / "out.png"))])
    exec(program.replace("TILE, OVERLAP = 512, 48", "TILE, OVERLAP = 160, 48"), {})
    tiled = np.asarray(Image.open(tmp_path / "out.png"), dtype=np.int16)
    whole = np.asarray(to_image(unfused(original)[0]), dtype=np.int16)
    assert np.abs(tiled - whole).max() <= 1
