"""Weights of the later generation: golden files that the published network wrote, and made-up ones of any size."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plain3 import PlainAether3
from safetensors.torch import load_file

GOLDEN3 = Path(__file__).with_name("golden3")
GOLDEN3_NAMES = sorted(path.stem for path in GOLDEN3.glob("*.json"))
FORMS = ("fused", "unfused")

RELEASE = GOLDEN3 / "optimized_fp32.pth"
"""A release of the published training, whose metadata holds an object that neither spandrel nor torch reads."""

StateDict = dict[str, torch.Tensor]

TINY = {"embed_dim": 16, "depths": (1, 2), "lk_kernel": 7, "sk_kernel": 3, "scale": 2}
BOTH = {**TINY, "use_spatial_attn": True}
CONFIGS3: dict[str, dict[str, Any]] = {
    "channel attention": TINY,
    "both attentions": BOTH,
    "spatial attention": {**BOTH, "use_channel_attn": False},
    "no attention": {**TINY, "use_channel_attn": False},
    "layernorm": {**TINY, "norm_type": "layernorm"},
    "gray, 4x": {**TINY, "in_chans": 1, "scale": 4},
    "rgba, 3x": {**TINY, "in_chans": 4, "scale": 3},
    "same size": {**TINY, "scale": 1},
    "8x": {**TINY, "scale": 8},
    "wide, 4x": {**TINY, "embed_dim": 70, "scale": 4},
    "three stages of unequal width": {**TINY, "embed_dim": 17, "depths": (1, 1, 1)},
    "odd ratio": {**TINY, "embed_dim": 28, "mlp_ratio": 3.3},
    "equal kernels": {**TINY, "lk_kernel": 5, "sk_kernel": 5},
    "tiny kernels": {**TINY, "lk_kernel": 1, "sk_kernel": 1},
    "img_range": {**TINY, "img_range": 255.0},
    "res_scale": {**BOTH, "res_scale": 1.0},
    "as narrow as can be": {**TINY, "embed_dim": 1, "depths": (1,), "mlp_ratio": 4.0, "use_channel_attn": False},
}


def weights3_of(**config: Any) -> StateDict:
    """Weights for a network of this configuration under which every part of it shows in the picture."""
    weights: StateDict = {}
    generator = torch.Generator().manual_seed(0)
    for key, tensor in PlainAether3(**config).state_dict().items():
        z = torch.randn(tensor.shape, generator=generator)
        if key in ("scale_tensor", "mean"):
            weights[key] = tensor
        elif key.endswith("running_var"):
            weights[key] = 0.1 + z.square()
        elif key.endswith(("norm.weight", "temperature")):
            weights[key] = 1 + 0.1 * z
        elif key.endswith("weight"):
            weights[key] = z / tensor[0].numel() ** 0.5
        else:
            weights[key] = 0.2 * z
    return weights


def plain3_output(x: torch.Tensor, weights: StateDict, **config: Any) -> torch.Tensor:
    """What the plain implementation makes of a picture."""
    model = PlainAether3(**config)
    model.load_state_dict(weights)
    with torch.inference_mode():
        return model(x)


@dataclass(frozen=True)
class Golden3:
    """
    One golden case: its files, the arguments of the network, a picture, and what the published network makes of it.

    ``y`` is in float64; ``span`` is its range.
    """

    name: str
    config: dict[str, Any]
    x: torch.Tensor
    y: torch.Tensor

    def path(self, form: str) -> Path:
        return GOLDEN3 / f"{self.name}.{form}.safetensors"

    def weights(self, form: str) -> StateDict:
        return load_file(self.path(form))

    @property
    def noted(self) -> dict[str, float]:
        """The arguments that leave no trace in the weights."""
        return {name: self.config[name] for name in ("img_range", "res_scale")}

    @property
    def span(self) -> float:
        return (self.y.max() - self.y.min()).item()


def golden3(name: str) -> Golden3:
    """Reads a golden case."""
    config = json.loads((GOLDEN3 / f"{name}.json").read_text())["config"]
    with np.load(GOLDEN3 / f"{name}.io.npz") as arrays:
        x, y = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y_unfused_f64"])
    return Golden3(name, config, x, y)


def read_release() -> dict[str, Any]:
    """The release, as a reader gives it that knows the object in its metadata."""
    with torch.serialization.safe_globals([torch.torch_version.TorchVersion]):
        release: dict[str, Any] = torch.load(RELEASE, weights_only=True)
    return release


def release_io() -> tuple[torch.Tensor, torch.Tensor]:
    """A picture, and what the published network makes of it with the release."""
    with np.load(RELEASE.with_suffix(".io.npz")) as arrays:
        return torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y_saved_model"])
