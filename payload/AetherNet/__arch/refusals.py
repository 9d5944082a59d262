"""What looks like an AetherNet, and is whole, and cannot be run here: quantised models and other sub-versions."""

from __future__ import annotations

import re
from typing import Any, Mapping, Optional, Tuple

import torch
from torch import Tensor

__all__ = ["integers", "is_another_version", "quantisation"]

_QUANTISED = re.compile(r"(?:^|\.)(?:zero_point|_packed_params)(?:\.|$)")
_FAKE_QUANTISED = re.compile(r"(?:^|\.)(?:\w*fake_quant\w*|activation_post_process)(?:\.|$)")
_VERSION = (3, 1, 1)


def quantisation(entries: Mapping[str, Any]) -> Optional[str]:
    """Which kind of quantised model the entries of a network are, if they are one, and what to use instead."""
    if any(map(_FAKE_QUANTISED.search, entries)):
        return (
            "an AetherNet from quantisation-aware training (its keys hold fake_quant), which cannot be run here; "
            "use the float file that this training started from"
        )
    if any(map(_QUANTISED.search, entries)) or any(_is_quantised(key, value) for key, value in entries.items()):
        return "an int8, quantised AetherNet, which cannot be run here; use the float file it was made from"
    return None


def _is_quantised(key: str, value: Any) -> bool:
    if not isinstance(value, Tensor):
        return False
    return value.is_quantized or (key.endswith("weight") and value.dtype in (torch.int8, torch.uint8))


def is_another_version(entries: Mapping[str, Any], fused: bool) -> Optional[str]:
    """
    Which other sub-version than 3.1.1 the entries of a network of the later generation are, and what to do, if so.

    Args:
        entries: by the network's own keys.
        fused: whether its blocks are.
    """
    version = integers(entries.get("model_version"))
    if version and version > _VERSION:
        number = ".".join(map(str, version))
        return f"an AetherNet of a newer sub-version, {number}, another network; a newer aether-install may know it"
    temperatures = (value for key, value in entries.items() if key.endswith(".ffn.temperature"))
    if (
        (version and version < _VERSION)
        or ("scale" in entries and "scale_tensor" not in entries)
        or any(isinstance(value, Tensor) and value.dim() == 0 for value in temperatures)
        or any(key.endswith((".num_batches_tracked", ".conv.lk_conv.bias")) for key in entries)
        or (fused and any(key.endswith((".running_mean", ".running_var")) for key in entries))
    ):
        return (
            "an AetherNet of an earlier sub-version than 3.1.1, which has these keys and is another network; "
            "use the program that it was trained with, or a model trained with 3.1.1"
        )
    return None


def integers(noted: Any) -> Optional[Tuple[int, ...]]:
    """The few integers that a tensor of any type holds, None if that is not what it is."""
    if not isinstance(noted, Tensor) or noted.is_meta or noted.layout != torch.strided or noted.numel() > 8:
        return None
    if noted.is_complex() or noted.is_quantized:
        return None
    numbers = [float(number) for number in noted.flatten().tolist()]
    return tuple(map(int, numbers)) if all(number.is_integer() for number in numbers) else None
