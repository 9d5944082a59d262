"""The steps in which the network of each generation computes an image."""

from __future__ import annotations

import functools
import itertools
from typing import Any, Callable, Dict, List, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..__arch.aether_core import aether
from ..__arch.fusing import merge_statistics
from .layers import Body, Branch, Layout, around, kernels_of, pixels_of
from .team import Step
from .upsampler import last_steps


def steps_of(network: Any, x: Tensor, y: Tensor, layout: Layout) -> List[Step]:
    """Returns the steps that make an image, (1, out_chans, s*H, s*W), of another, (1, in_chans, H, W)."""
    return (_june if type(network) is aether else _later)(network, x, y, layout)


def _june(network: Any, x: Tensor, y: Tensor, layout: Layout) -> List[Step]:
    first, shallow, source, target = _begin(network, x, lambda x: (x - network.mean) * network.img_range, layout)
    steps = [first]
    for block in itertools.chain.from_iterable(network.layers):
        steps.append(_block(functools.partial(_june_branch, block), source, target))
        source, target = target, source
    deep = layout.plane(network.conv_first.out_channels, x.dtype, target.memory)

    def finish(top: int, bottom: int) -> None:
        pixels_of(deep, top, bottom).copy_(network.norm(source.together(top, bottom)))

    def join(top: int, bottom: int) -> None:
        shallow[:, :, top:bottom] += around(network.conv_after_body, deep, top, bottom)

    def restore(colours: Tensor) -> Tensor:
        return colours / network.img_range + network.mean

    return [*steps, Step(finish, True), Step(join), *last_steps(network, shallow, source.memory, restore, y, layout)]


def _later(network: Any, x: Tensor, y: Tensor, layout: Layout) -> List[Step]:
    first, shallow, source, target = _begin(network, x, lambda x: x / network.img_range - network.mean, layout)
    steps, fusion, start = [first], network.quant_fusion_layer, 0
    deep = layout.plane(network.conv_first.out_channels, x.dtype, target.memory)
    found = layout.plane(fusion.fusion_conv.in_channels, x.dtype)

    def find(conv: Any, source: Body, start: int, top: int, bottom: int) -> None:
        pixels = F.linear(source.together(top, bottom), conv.weight.flatten(1), conv.bias)
        pixels_of(found, top, bottom)[:, start : start + conv.out_channels] = pixels

    for stage, conv in zip(network.stages, network.fusion_convs):
        for block in stage:
            if block.channel_attn is None and block.spatial_attn is None:
                steps.append(_block(functools.partial(_later_branch, block), source, target, block.res_scale))
                source, target = target, source
            else:
                steps += _attending_block(block, source, deep)
        steps.append(Step(functools.partial(find, conv, source, start)))
        start += conv.out_channels
    deep = layout.plane(network.conv_first.out_channels, x.dtype, target.memory)

    def finish(top: int, bottom: int) -> None:
        rows = (..., slice(top, bottom), slice(None))
        torch.add(network.norm(fusion(found[rows])), shallow[rows], out=deep[rows])

    def join(top: int, bottom: int) -> None:
        rows = (..., slice(top, bottom), slice(None))
        torch.add(around(network.conv_after_body, deep, top, bottom), deep[rows], out=shallow[rows])

    def restore(colours: Tensor) -> Tensor:
        return (colours + network.mean) * network.img_range

    return [*steps, Step(finish, True), Step(join), *last_steps(network, shallow, source.memory, restore, y, layout)]


def _begin(
    network: Any, x: Tensor, centre: Callable[[Tensor], Tensor], layout: Layout
) -> Tuple[Step, Tensor, Body, Body]:
    """The first step, what it makes, that again for the body, and another body for blocks to take turns with."""
    channels, reach = network.conv_first.out_channels, layout.reach
    shallow, (source, target) = layout.plane(channels, x.dtype), layout.bodies(channels, x.dtype)

    def first(rows: Tensor) -> Tensor:
        return network.conv_first(centre(rows).contiguous(memory_format=torch.channels_last))

    def begin(top: int, bottom: int) -> None:
        shallow[:, :, top:bottom] = around(first, x, top, bottom)
        source.pixels(top, bottom).copy_(source.apart(pixels_of(shallow, top, bottom)))
        for body in (source, target):  # zeros above the first strip, and below the last one
            body.memory[:, top:reach].zero_()
            body.memory[:, layout.height + reach : bottom + 2 * reach].zero_()

    return Step(begin), shallow, source, target


def _june_branch(block: Any) -> Branch:
    gate, main, out = ((layer.weight, layer.bias) for layer in (block.ffn.fc1_gate, block.ffn.fc1_main, block.ffn.fc2))
    return Branch(kernels_of(block.conv), block.norm, gate, main, out, F.gelu)


def _later_branch(block: Any) -> Branch:
    kernels, ffn, affine = kernels_of(block.conv), block.ffn, (block.norm.weight, block.norm.bias)
    norm: Callable[[Tensor], Tensor] = functools.partial(nn.LayerNorm.forward, block.norm)
    if not isinstance(block.norm, nn.LayerNorm):  # but a factor and a summand, which go into the kernels
        if not block.norm.fused:
            affine = merge_statistics(*affine, block.norm.running_mean, block.norm.running_var)
        factor, summand = (each.flatten() for each in affine)
        kernels, norm = (kernels[0] * factor.view(-1, 1, 1, 1), kernels[1] * factor + summand), lambda pixels: pixels
    gate = (ffn.conv_gate.weight * ffn.temperature, ffn.conv_gate.bias * ffn.temperature)
    main, out = ((layer.weight, layer.bias) for layer in (ffn.conv_main, ffn.conv_out))
    return Branch(kernels, norm, gate, main, out, F.silu)


def _block(make: Callable[[], Branch], source: Body, target: Body, res_scale: float = 1.0) -> Step:
    branch = functools.lru_cache(maxsize=None)(make)  # once for all strips

    def run(top: int, bottom: int) -> None:
        before, after = source.pixels(top, bottom), target.pixels(top, bottom)
        for part, y in branch().of(source, top, bottom):
            torch.add(before[:, part], target.apart(y), alpha=res_scale, out=after[:, part])

    return Step(run)


def _attending_block(block: Any, source: Body, made: Tensor) -> List[Step]:
    """An attention needs what is made of the whole image; then that is added to the source itself."""
    branch = functools.lru_cache(maxsize=None)(functools.partial(_later_branch, block))
    sums: Dict[int, Tensor] = {}

    @functools.lru_cache(maxsize=None)
    def factors() -> Tensor:
        means = torch.stack([sums[top] for top in sorted(sums)]).sum(0) / made[0, 0].numel()
        return block.channel_attn.fc(means.to(made.dtype).view(1, -1, 1, 1)).sigmoid()

    def compute(top: int, bottom: int) -> None:
        kept = pixels_of(made, top, bottom)
        for part, y in branch().of(source, top, bottom):
            kept[part] = y
        sums[top] = kept.sum(0, dtype=torch.float32)

    def attend(x: Tensor) -> Tensor:
        x = x if block.channel_attn is None else x * factors()
        return x if block.spatial_attn is None else block.spatial_attn(x)

    def add(top: int, bottom: int) -> None:
        y = around(attend, made, top, bottom, 0 if block.spatial_attn is None else 3)
        source.pixels(top, bottom).add_(source.apart(pixels_of(y)), alpha=block.res_scale)

    return [Step(compute), Step(add, after_all=True)]
