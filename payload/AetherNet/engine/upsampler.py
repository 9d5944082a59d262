"""The last steps of both generations: upsampler and last convolution, as one convolution where that saves time."""

from __future__ import annotations

import functools
from typing import Any, Callable, List, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Layout, around
from .team import Step


def last_steps(
    network: Any, x: Tensor, memory: Tensor, restore: Callable[[Tensor], Tensor], y: Tensor, layout: Layout
) -> List[Step]:
    """
    Returns what makes an image of a body's result.

    Args:
        x: the body's result, (1, C, H, W); ``memory`` is what nobody needs after the body.
        restore: turns colours into those of the image.
        y: the image, (1, out_chans, s*H, s*W), is written to.
    """
    scale = network.upscale
    features = layout.plane(network.conv_before_upsample[0].out_channels, x.dtype, memory)
    shuffles = [layer for layer in network.upsample.modules() if isinstance(layer, nn.PixelShuffle)]
    joint = functools.lru_cache(maxsize=None)(functools.partial(_joint, network.upsample, network.conv_last))

    def prepare(top: int, bottom: int) -> None:
        features[:, :, top:bottom] = around(network.conv_before_upsample, x, top, bottom)

    def layer_by_layer(rows: Tensor) -> Tensor:
        return network.conv_last(network.upsample(rows))

    def at_once(rows: Tensor) -> Tensor:
        x = F.conv2d(rows, *joint(), padding="same")
        return functools.reduce(lambda x, shuffle: shuffle(x), shuffles, x)

    def write(layer: Any, top: int, bottom: int, near: slice = slice(None), columns: slice = slice(None)) -> None:
        made = around(layer, features[..., near], top, bottom, 2, scale)[..., columns]
        y[:, :, top * scale : bottom * scale, columns] = restore(made)

    def finish(top: int, bottom: int) -> None:
        """In pieces, so that the widest tensor takes some megabytes."""
        step = max(8, 2**21 // (network.conv_last.in_channels * scale**2 * layout.width))
        for first in range(top, bottom, step):
            write(layer_by_layer, first, min(first + step, bottom))

    def finish_at_once(top: int, bottom: int) -> None:
        """Nothing comes between the layers but the zeros that each adds around; only the outermost pixels see those."""
        write(at_once, top, bottom)
        write(layer_by_layer, top, bottom, slice(3), slice(scale))
        write(layer_by_layer, top, bottom, slice(-3, None), slice(-scale, None))
        for edge in {0, layout.height - 1} & set(range(top, bottom)):
            write(layer_by_layer, edge, edge + 1)

    # A multiplication was measured to take up to twice as long there, as it has few channels on one side. What making
    # the convolution and the outermost pixels cost, small images do not save.
    colours, channels = network.conv_last.weight.shape[:2]
    pays = scale > 1 and 75 * colours < 9 * (channels + colours) and min(layout.height, layout.width) >= 32
    return [Step(prepare, after_all=True), Step(finish_at_once if pays else finish)]


def _joint(upsampler: Any, last: Any) -> Tuple[Tensor, Tensor]:
    """
    The one convolution that an upsampler and the last convolution amount to, whose results are shuffled alike.

    Returns the weight (D*s*s, F, 5, 5) and bias (D*s*s), for F channels before, D after, and s times as many rows.
    """
    weight, bias = last.weight.float(), last.bias.float()
    for layer in reversed([each for each in upsampler.modules() if not list(each.children())]):
        if isinstance(layer, nn.PixelShuffle):
            # A pixel becomes a square. All in it are made of that square and those around it, each by the same
            # kernel in another place.
            step, side = layer.upscale_factor, weight.shape[-1]
            pads = [(step - side // 2 + place, 2 * step - side + side // 2 - place) for place in range(step)]
            weight = torch.stack([F.pad(weight, (*across, *down)) for down in pads for across in pads], 1)
            weight, bias = F.pixel_unshuffle(weight.flatten(0, 1), step), bias.repeat_interleave(step**2)
        else:
            bias = bias + weight.sum((2, 3)) @ layer.bias.float()
            weight = F.conv_transpose2d(weight, layer.weight.float())
    return weight.to(last.weight.dtype), bias.to(last.weight.dtype)
