"""How large a network is: the named variants, what arguments have to be, and the sizes that follow from them."""

from __future__ import annotations

import math
from typing import Any, Dict, Iterator, List, Sequence, Tuple

from torch import Tensor

__all__ = [
    "JUNE_SIZES",
    "LATER_SIZES",
    "assumed_res_scale",
    "check_axes",
    "check_factors",
    "check_sizes",
    "even_widths",
    "halved_widths",
    "rising_rates",
    "steps_of",
    "upsample_steps",
]


JUNE_SIZES: Dict[str, Dict[str, Any]] = {
    "small": {"embed_dim": 96, "depths": (4,) * 4, "mlp_ratio": 2.0, "lk_kernel": 11, "sk_kernel": 3},
    "medium": {"embed_dim": 128, "depths": (6,) * 6, "mlp_ratio": 2.0, "lk_kernel": 11, "sk_kernel": 3},
    "large": {"embed_dim": 180, "depths": (8,) * 8, "mlp_ratio": 2.5, "lk_kernel": 13, "sk_kernel": 3},
}


def check_sizes(
    embed_dim: int, depths: Sequence[int], mlp_ratio: float, lk_kernel: int, sk_kernel: int, **channels: int
) -> None:
    """
    Checks the arguments that say how large a network is.

    Raises:
        ValueError: one is out of its range.
    """
    for name, number in {**channels, "embed_dim": embed_dim}.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, not {number}")
    if not depths or min(depths) < 1:
        raise ValueError(f"depths must name at least one block for each group, not {tuple(depths)}")
    if int(embed_dim * mlp_ratio) < 1:
        raise ValueError(f"mlp_ratio {mlp_ratio} leaves no hidden unit for embed_dim {embed_dim}")
    if not 1 <= sk_kernel <= lk_kernel or lk_kernel % 2 == 0 or sk_kernel % 2 == 0:
        raise ValueError(f"kernels must be odd, the small one no larger: not {lk_kernel} and {sk_kernel}")


def check_factors(**factors: float) -> None:
    """Raises ``ValueError`` if one of them is no positive number."""
    for name, factor in factors.items():
        if not (math.isfinite(factor) and factor > 0):
            raise ValueError(f"{name} must be a positive number, not {factor}")


def check_axes(x: Any) -> None:
    """Raises ``ValueError`` for an image that has not got four axes; what torch.fx passes has none to be counted."""
    if isinstance(x, Tensor) and x.dim() != 4:
        raise ValueError(f"images need four axes, (B, C, H, W), not {tuple(x.shape)}")


def rising_rates(last: float, depths: Sequence[int]) -> Iterator[float]:
    """Yields the stochastic depth of each block, which rises linearly from 0 to the given one."""
    blocks = sum(depths)
    return (last * block / max(blocks - 1, 1) for block in range(blocks))


def upsample_steps(scale: int) -> List[int]:
    """
    Returns the factors of the pixel shuffles that make up a scale.

    Raises:
        ValueError: it is neither a power of two nor 3.
    """
    if scale == 3:
        return [3]
    if scale < 1 or scale & (scale - 1):
        raise ValueError(f"upscale must be a power of two or 3, not {scale}")
    return [2] * (scale.bit_length() - 1)


def steps_of(scale: int) -> List[int]:
    """Returns the factors of the upsampler's steps; a convolution is there for scale 1, too."""
    return upsample_steps(scale) or [1]


def even_widths(dim: int, stages: int) -> List[int]:
    """Returns the channels that each stage hands to the fusion: C in equal parts."""
    return [dim // stages + (1 if stage < dim % stages else 0) for stage in range(stages)]


def halved_widths(dim: int, scale: int) -> List[int]:
    """Returns the channels after each step of the upsampler: halved each time, but for the last one."""
    last = max(32, (dim // max(1, scale // 2)) & ~1)
    return [*(dim >> step for step in range(1, len(steps_of(scale)))), last]


def _later(
    dim: int, depths: Tuple[int, ...], kernels: Tuple[int, int], ratio: float, attentions: Tuple[bool, bool]
) -> Dict[str, Any]:
    return {
        "embed_dim": dim,
        "depths": depths,
        "lk_kernel": kernels[0],
        "sk_kernel": kernels[1],
        "mlp_ratio": ratio,
        "use_channel_attn": attentions[0],
        "use_spatial_attn": attentions[1],
        "res_scale": assumed_res_scale(dim),
    }


def assumed_res_scale(embed_dim: int) -> float:
    """What every named variant of this width was trained with; others are taken for the default."""
    return 0.2 if embed_dim == 64 else 0.1


LATER_SIZES: Dict[str, Dict[str, Any]] = {
    "mobile": _later(64, (2,) * 4, (7, 3), 1.5, (False, False)),
    "tiny": _later(64, (3,) * 3, (13, 5), 1.5, (True, False)),
    "small": _later(96, (4,) * 4, (13, 5), 1.5, (True, False)),
    "medium": _later(128, (6,) * 4, (13, 5), 1.5, (True, False)),
    "large": _later(180, (8,) * 5, (13, 5), 1.5, (True, True)),
    "pro": _later(192, (8,) * 5, (15, 5), 1.75, (True, True)),
    "extreme": _later(256, (12,) * 5, (21, 5), 2.0, (True, True)),
}
