"""
What several layers amount to in one: kernels side by side, a norm and its statistics, a factor and the layer after it.

Sums and products are taken in float32 or better and rounded once.
"""

from __future__ import annotations

from typing import Iterable, Mapping, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .checkpoint import StateDict

__all__ = ["EPS", "fuse_state_dict", "merge_kernels", "merge_statistics", "scaled"]

EPS = 1e-4
"""Of the deployment norm, added to variances."""


def merge_kernels(lk_weight: Tensor, lk_bias: Tensor, sk_weight: Tensor, sk_bias: Tensor) -> Tuple[Tensor, Tensor]:
    """
    Returns the weight (C, 1, K, K) and bias (C) of the one convolution that does what two parallel ones do.

    The sums are taken in float32 or better and rounded once, to the dtype of the large kernel.

    Args:
        lk_weight: large kernel, (C, 1, K, K); ``lk_bias``: (C).
        sk_weight: small kernel, (C, 1, k, k), k <= K, both odd; ``sk_bias``: (C).
    """
    pad = (lk_weight.shape[-1] - sk_weight.shape[-1]) // 2
    dtype = lk_weight.dtype
    wide = torch.promote_types(dtype, torch.float32)
    weight = lk_weight.to(wide) + F.pad(sk_weight.to(wide), [pad] * 4)
    bias = lk_bias.to(wide) + sk_bias.to(wide)
    return weight.to(dtype), bias.to(dtype)


def merge_statistics(weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tuple[Tensor, Tensor]:
    """
    Returns the factor and the summand of the affine map that a ``DeploymentNorm`` with these tensors is.

    All have one shape. They are computed in float64, on devices that may not have it in float32, and rounded once, to
    the dtype of ``weight``.
    """
    wide = torch.float64 if weight.device.type in ("cpu", "cuda", "meta") else torch.float32
    factor = weight.to(wide) / (variance.to(wide) + EPS).sqrt()
    summand = bias.to(wide) - mean.to(wide) * factor
    return factor.to(weight.dtype), summand.to(bias.dtype)


def fuse_state_dict(weights: StateDict) -> StateDict:
    """
    Returns the weights of the fused form of an unfused network, of either generation, in the order of the given ones.

    Args:
        weights: a clean and complete unfused state dict, as ``weights_in`` returns it and a network accepts it. Dtypes
            are kept; see ``merge_kernels`` and ``merge_statistics``. Tensors that do not change are those given.

    Raises:
        ValueError: a result of finite weights is beyond their dtype; names the key.
    """
    fused: StateDict = {}
    for key, tensor in weights.items():
        place, _, _ = key.rpartition(".")
        block, conv, _ = key.partition(".conv.")
        if conv and f"{block}.conv.lk_conv.weight" in weights:
            if f"{block}.conv.fused_conv.weight" not in fused:
                fused.update(_fused_kernels(weights, f"{block}.conv."))
        elif f"{place}.running_var" not in weights:
            fused[key] = tensor
        elif f"{place}.weight" not in fused:
            fused.update(_fused_norm(weights, f"{place}."))
    return fused


def _fused_kernels(weights: StateDict, conv: str) -> StateDict:
    """The weights of one fused convolution, by the key at which its own start."""
    parts = [weights[conv + part] for part in ("lk_conv.weight", "lk_bias", "sk_conv.weight", "sk_bias")]
    weight, bias = merge_kernels(*parts)
    return _without_overflow({f"{conv}fused_conv.weight": weight, f"{conv}fused_conv.bias": bias}, parts)


def _fused_norm(weights: StateDict, norm: str) -> StateDict:
    parts = [weights[norm + part] for part in ("weight", "bias", "running_mean", "running_var")]
    weight, bias = merge_statistics(*parts)
    return _without_overflow({f"{norm}weight": weight, f"{norm}bias": bias}, parts)


def _without_overflow(results: StateDict, sources: Iterable[Tensor]) -> StateDict:
    """Refuses results that are infinite where nothing that they were computed from is."""
    for key, result in results.items():
        if result.isinf().any() and not any(source.isinf().any() for source in sources):
            raise ValueError(f"{key} would overflow in {str(result.dtype)[6:]}; convert the file to a wider type first")
    return results


def scaled(weights: StateDict, factors: Mapping[str, float], what: str) -> StateDict:
    """
    Returns the weights with some of them multiplied, in float64 and rounded once; ``what`` is folded into them so.

    Raises:
        ValueError: a weight that was neither zero nor infinite would become so in its dtype; names the key.
    """
    folded = dict(weights)
    for key, factor in factors.items():
        before = weights[key]
        wider = "float64" if before.dtype == torch.float32 else "float32"
        after = (before.double() * factor).to(before.dtype)
        for lost, how in (((after == 0) & (before != 0), "vanish"), (after.isinf() & ~before.isinf(), "overflow")):
            if lost.any():
                raise ValueError(
                    f"{what} cannot be folded into {key}: {int(lost.sum())} of its weights would "
                    f"{how} in {str(before.dtype)[6:]}; convert the file to {wider} first"
                )
        folded[key] = after
    return folded
