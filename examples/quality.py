"""Photographs as tensors, and how close a restored one is to the original."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image


def read_photo(path: Path, longest: int | None = None) -> torch.Tensor:
    """A photo as (3, H, W) in [0, 1], shrunk to so many pixels where a side is longer, which hides JPEG's blocks."""
    photo = Image.open(path).convert("RGB")
    if longest is not None and max(photo.size) > longest:
        photo.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    pixels = np.asarray(photo, dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def to_image(photo: torch.Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] as a picture of 8 bits."""
    return Image.fromarray(photo.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy())


def shrink(photos: torch.Tensor, factor: int) -> torch.Tensor:
    """(B, 3, H, W) -> (B, 3, H/factor, W/factor), bicubic with antialiasing, in the 256 levels of an image file."""
    small = F.interpolate(photos, scale_factor=1 / factor, mode="bicubic", antialias=True)
    return small.clamp(0, 1).mul(255).round().div(255)


def enlarge(photos: torch.Tensor, factor: int) -> torch.Tensor:
    """(B, 3, H, W) -> (B, 3, factor H, factor W), bicubic: what any viewer can do."""
    return F.interpolate(photos, scale_factor=factor, mode="bicubic").clamp(0, 1)


def trimmed(photo: torch.Tensor, factor: int) -> torch.Tensor:
    """(3, H, W) -> (1, 3, H, W) with sides that the factor divides."""
    height, width = (side - side % factor for side in photo.shape[1:])
    return photo[None, :, :height, :width]


def psnr_y(restored: torch.Tensor, original: torch.Tensor, border: int = 4) -> float:
    """PSNR in dB of the luma (ITU-R BT.601) of two (B, 3, H, W), rounded to 8 bits, without a border in pixels."""
    weights = torch.tensor([65.481, 128.553, 24.966]).view(1, 3, 1, 1) / 255
    difference = ((restored.clamp(0, 1).mul(255).round().div(255) - original) * weights).sum(dim=1)
    return -10 * math.log10(difference[:, border:-border, border:-border].square().mean().item())
