"""Weights without a checkpoint: every tensor follows from its key and shape, as the golden data was made."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plain import PlainAether

GOLDEN = Path(__file__).with_name("golden")

StateDict = dict[str, torch.Tensor]

CONFIGS: dict[str, dict[str, Any]] = {
    "rgb": {"embed_dim": 12, "depths": (1, 2), "upscale": 2},
    "gray": {"in_chans": 1, "embed_dim": 8, "depths": (1,), "upscale": 4, "num_feat": 32},
    "rgba": {"in_chans": 4, "embed_dim": 10, "depths": (2,), "upscale": 3},
    "gray to rgb": {"in_chans": 1, "out_chans": 3, "embed_dim": 8, "depths": (1,), "upscale": 2},
    "rgb to gray": {"in_chans": 3, "out_chans": 1, "embed_dim": 8, "depths": (1,), "upscale": 2},
    "same size": {"embed_dim": 8, "depths": (1, 1), "upscale": 1},
    "8x": {"embed_dim": 8, "depths": (1,), "upscale": 8, "num_feat": 16},
    "odd ratio": {"embed_dim": 28, "depths": (1,), "mlp_ratio": 3.3, "upscale": 2},
    "equal kernels": {"embed_dim": 8, "depths": (1,), "lk_kernel": 5, "sk_kernel": 5, "upscale": 2},
    "tiny kernels": {"embed_dim": 8, "depths": (1,), "lk_kernel": 1, "sk_kernel": 1, "upscale": 2},
    "narrow upsampler": {"embed_dim": 8, "depths": (1,), "num_feat": 24, "upscale": 4},
    "img_range": {"embed_dim": 8, "depths": (1,), "upscale": 2, "img_range": 255.0},
    "one channel wide": {"embed_dim": 1, "depths": (1,), "mlp_ratio": 4.0, "upscale": 2},
}
"""Networks of every kind, all of them small."""


def recipe(shapes: Mapping[str, Sequence[int]]) -> StateDict:
    """Float32 tensors of the given shapes, each drawn from a generator that its key seeds."""
    weights: StateDict = {}
    for key, shape in shapes.items():
        z = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(tuple(shape))
        if not key.endswith("weight"):
            z = 0.05 * z
        elif len(shape) == 1:
            z = 1 + 0.1 * z
        else:
            z = z / np.sqrt(np.prod(shape[1:]))
        weights[key] = torch.from_numpy(np.asarray(z, dtype=np.float32))
    return weights


def shapes_of(**config: Any) -> dict[str, tuple[int, ...]]:
    """The keys and shapes of a network of these parameters, by the plain implementation."""
    with torch.device("meta"):
        return {key: tuple(tensor.shape) for key, tensor in PlainAether(**config).state_dict().items()}


def weights_of(**config: Any) -> StateDict:
    """The recipe's weights for a network of these parameters."""
    return recipe(shapes_of(**config))


def plain_output(x: torch.Tensor, weights: StateDict, **config: Any) -> torch.Tensor:
    """What the plain implementation makes of an image."""
    model = PlainAether(**config)
    model.load_state_dict(weights)
    with torch.inference_mode():
        return model(x)


@dataclass(frozen=True)
class Golden:
    """One golden case: a configuration, the recipe's weights for it, an image and the published network's output."""

    name: str
    config: dict[str, Any]
    unfused: StateDict
    fused_keys: list[str]
    fused_crc32: dict[str, int]
    x: torch.Tensor
    y: torch.Tensor


def golden(name: str) -> Golden:
    """Reads a golden case."""
    facts = json.loads((GOLDEN / f"{name}.json").read_text())
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        x, y = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])
    return Golden(
        name,
        {**facts["config"], "depths": tuple(facts["config"]["depths"])},
        recipe(facts["unfused_shapes"]),
        list(facts["fused_shapes"]),
        facts["fused_crc32"],
        x,
        y,
    )


GOLDEN_NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))
