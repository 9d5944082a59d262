"""Model files as trainers write them, and their fusion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from weights import StateDict

from aether_install.models import fuse as command

CONTAINERS: dict[str, Callable[[StateDict], dict[str, Any]]] = {
    "bare": lambda sd: sd,
    "params": lambda sd: {"params": sd},
    "params_ema": lambda sd: {"params_ema": sd},
    "both, of which the average counts": lambda sd: {"params": {k: v + 1 for k, v in sd.items()}, "params_ema": sd},
    "net_g": lambda sd: {"net_g": sd},
    "net_g with a counter": lambda sd: {"net_g": sd, "iter": 5000},
    "net_g and its average": lambda sd: {"net_g": {k: v + 1 for k, v in sd.items()}, "net_g_ema": sd, "iter": 1},
    "state_dict": lambda sd: {"state_dict": sd, "epoch": 3},
    "model": lambda sd: {"model": sd},
    "with metadata": lambda sd: {"metadata": {"img_range": 1.0, "scale": 2}, "params": sd},
    "some other key": lambda sd: {"weights_of_the_generator": sd, "iter": 1},
    "module.": lambda sd: {f"module.{k}": v for k, v in sd.items()},
    "_orig_mod.": lambda sd: {f"_orig_mod.{k}": v for k, v in sd.items()},
    "module._orig_mod.": lambda sd: {f"module._orig_mod.{k}": v for k, v in sd.items()},
    "params with _orig_mod.": lambda sd: {"params": {f"_orig_mod.{k}": v for k, v in sd.items()}},
    "averaged model": lambda sd: {"n_averaged": torch.tensor(7), **{f"module.{k}": v for k, v in sd.items()}},
    "ema of another kind": lambda sd: {
        "step": torch.tensor(7),
        **{f"online_model.{k}": v + 1 for k, v in sd.items()},
        **{f"ema_model.{k}": v for k, v in sd.items()},
    },
    "with a profiler's counters": lambda sd: {
        **sd,
        **{f"{k.rpartition('.')[0]}.{name}": torch.zeros(1) for k in sd for name in ("total_ops", "total_params")},
    },
    "stray entries": lambda sd: {**sd, "n_averaged": torch.tensor(7), "step": 3, "initted": torch.ones(1)},
    "a state dict of lightning": lambda sd: {"state_dict": {f"net_g.{k}": v for k, v in sd.items()}, "epoch": 1},
}


def quietly(message: str, *, part: tuple[int, int] | None = None) -> None:
    pass


def fuse(model: Path, output: Path, **options: Any) -> command.Fused:
    return command.fuse(model, [output], command.Options(**options), quietly)
