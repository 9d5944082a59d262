"""
AetherNet 3.1, the later generation: the one whose keys start with ``stages.`` (July and August 2025).

It shares the large-kernel convolution with the first generation, and what reads checkpoints and runs on processors;
those are in ``aether_core.py``, and the two files together need PyTorch 2.0 or later and nothing else. Images are NCHW
tensors with values in [0, 1].

The upper half of the file is the network, the lower half reads checkpoints.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .aether_core import (
    _FUSED_PART,
    _NUMBER,
    _PREFIX,
    _UNFUSED_PART,
    DropPath,
    Linear,
    LocatedWeights,
    Part,
    Parts,
    ReparamLargeKernelConv,
    StateDict,
    Team,
    _block_key,
    _check_kernels,
    _check_overflow,
    _check_shapes,
    _Conv2d,
    _deduce_depths,
    _deduce_mlp_ratio,
    _fault,
    _find,
    _form,
    _fused_kernels,
    _is_bookkeeping,
    _quantisation,
    _scaled,
    _Sequential,
    _the_one_form,
    _upsample_steps,
    _Votes,
    _with_memory,
    _without_weights,
    add_convolved,
    aether,
    for_each_pixel,
    linear_,
    slices_in_cache,
    to_groups,
)

__all__ = [
    "VARIANTS",
    "AetherBlock3",
    "ChannelAttention",
    "DeploymentNorm",
    "GatedConvFFN",
    "SpatialAttention",
    "StageFusion",
    "Upsample3",
    "aether3",
    "aether3_variant",
    "assumed_arguments",
    "build_aether3",
    "clean_state_dict",
    "describe",
    "detect_form",
    "fold_arguments",
    "fuse_state_dict",
    "prepare_aether3",
    "refusal",
    "variant_name",
]

_EPS = 1e-4
_MOMENTUM = 0.1


class DeploymentNorm(nn.Module):
    """
    Batch normalisation by the biased variance, (B, C, H, W) -> (B, C, H, W), which ``fuse()`` turns into an affine map.

    In training it uses the batch's own statistics and moves the running ones a tenth of the way to them.

    Args:
        channels: C.
        fused_init: start as the affine map.
    """

    def __init__(self, channels: int, fused_init: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))
        if not fused_init:
            self.register_buffer("running_mean", torch.zeros(1, channels, 1, 1))
            self.register_buffer("running_var", torch.ones(1, channels, 1, 1))

    @property
    def fused(self) -> bool:
        """Whether no statistics are left."""
        return not hasattr(self, "running_var")

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not self.fused:
            variance, mean = torch.var_mean(x, (0, 2, 3), unbiased=False, keepdim=True)
            with torch.no_grad():
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), _MOMENTUM)
                self.running_var.lerp_(variance.to(self.running_var.dtype), _MOMENTUM)
            return (x - mean) * (variance + _EPS).rsqrt() * self.weight + self.bias
        if self.fused:
            return x * self.weight + self.bias
        # Apart from ``merged``, so that a merge can be checked against it.
        statistics = (self.running_mean.flatten(), self.running_var.flatten())
        return F.batch_norm(x, *statistics, self.weight.flatten(), self.bias.flatten(), False, 0.0, _EPS)

    def merged(self) -> Tuple[Tensor, Tensor]:
        """Returns the factor and the summand, (1, C, 1, 1) each, that this layer amounts to outside training."""
        if self.fused:
            return self.weight, self.bias
        return merge_statistics(self.weight, self.bias, self.running_mean, self.running_var)

    @torch.inference_mode(False)  # whose tensors could not be trained later
    @torch.no_grad()
    def fuse(self) -> None:
        """Merges the running statistics in place; what is already fused is left alone."""
        if self.fused:
            return
        weight, bias = self.merged()
        trainable = self.weight.requires_grad
        del self.running_mean, self.running_var
        self.weight = nn.Parameter(weight, requires_grad=trainable)
        self.bias = nn.Parameter(bias, requires_grad=trainable)


def merge_statistics(weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tuple[Tensor, Tensor]:
    """
    Returns the factor and the summand of the affine map that a ``DeploymentNorm`` with these tensors is.

    All have one shape. They are computed in float64, on devices that may not have it in float32, and rounded once, to
    the dtype of ``weight``.
    """
    wide = torch.float64 if weight.device.type in ("cpu", "cuda", "meta") else torch.float32
    factor = weight.to(wide) / (variance.to(wide) + _EPS).sqrt()
    summand = bias.to(wide) - mean.to(wide) * factor
    return factor.to(weight.dtype), summand.to(bias.dtype)


class PixelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel, (B, C, H, W) -> (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def of_pixels(self, x: Tensor) -> Tensor:
        """``forward`` of pixels, (P, C)."""
        return super().forward(x)

    def fuse(self) -> None:
        """Does nothing: LayerNorm depends on the pixel, and has nothing to merge."""


def _norm(norm_type: str, channels: int, fused_init: bool) -> nn.Module:
    if norm_type == "layernorm":
        return PixelNorm(channels, eps=1e-5)
    return DeploymentNorm(channels, fused_init)


class GatedConvFFN(nn.Module):
    """
    A gated feed-forward layer of 1x1 convolutions: ``conv_out(silu(temperature * conv_gate(x)) * conv_main(x))``.

    Args:
        dim: C, of input and output.
        hidden: width of the gate and of what it gates.
        drop: dropout of the hidden units in training.
    """

    def __init__(self, dim: int, hidden: int, drop: float = 0.0) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(1))
        self.conv_gate = _Conv2d(dim, hidden, 1)
        self.conv_main = _Conv2d(dim, hidden, 1)
        self.drop = nn.Dropout(drop)
        self.conv_out = _Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = F.silu(self.conv_gate(x) * self.temperature)
        return self.conv_out(self.drop(gate * self.conv_main(x)))

    def forward_(self, x: Tensor, linear: Linear) -> Tensor:
        """``forward`` for inference, of pixels, (P, C), in the way that ``faster_linear`` says."""
        hidden = F.silu(linear(x, self.conv_gate).mul_(self.temperature), inplace=True)
        return linear(hidden.mul_(linear(x, self.conv_main)), self.conv_out)


class ChannelAttention(nn.Module):
    """
    Scales each channel by what the means of all channels over the picture say, (B, C, H, W) -> (B, C, H, W).

    Args:
        dim: C.
        squeeze: width of the layer between.

    Source: Hu et al., Squeeze-and-Excitation Networks, 2018.
    """

    def __init__(self, dim: int, squeeze: int) -> None:
        super().__init__()
        self.fc = _Sequential(
            _Conv2d(dim, squeeze, 1, bias=False), nn.ReLU(inplace=True), _Conv2d(squeeze, dim, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean((2, 3), keepdim=True)).sigmoid()

    def of_means(self, means: Tensor) -> Tensor:
        """The factors, (C), for given means of the channels, (C)."""
        squeezed = F.relu(F.linear(means, self.fc[0].weight.flatten(1)))
        return F.linear(squeezed, self.fc[2].weight.flatten(1)).sigmoid()


class SpatialAttention(nn.Module):
    """
    Scales each pixel by what the maxima and means of the channels around it say, (B, C, H, W) -> (B, C, H, W).

    Source: Woo et al., CBAM: Convolutional Block Attention Module, 2018.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = _Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.of_maps(torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1))

    def of_maps(self, maps: Tensor) -> Tensor:
        """The factors, (B, 1, H, W), for given maxima and means over the channels, (B, 2, H, W)."""
        return self.conv(maps).sigmoid()


class AetherBlock3(nn.Module):
    """
    One residual block, (B, C, H, W) -> (B, C, H, W): ``x + res_scale * drop_path(attention(ffn(norm(conv(x)))))``.

    Args:
        dim: C.
        hidden: hidden width of the gated feed-forward layer.
        lk_kernel, sk_kernel, fused_init: see ``ReparamLargeKernelConv``.
        norm_type: ``deployment`` or ``layernorm``.
        squeeze: width within the channel attention; 0 for none.
        use_spatial_attn: whether there is a spatial attention, after that.
        res_scale: factor of the branch.
        drop: dropout in the feed-forward layer.
        drop_path: probability that a sample skips the block in training.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        lk_kernel: int,
        sk_kernel: int,
        norm_type: str = "deployment",
        squeeze: int = 0,
        use_spatial_attn: bool = False,
        res_scale: float = 0.1,
        drop: float = 0.0,
        drop_path: float = 0.0,
        fused_init: bool = False,
    ) -> None:
        super().__init__()
        self.res_scale = res_scale
        self.conv = ReparamLargeKernelConv(dim, lk_kernel, sk_kernel, fused_init)
        self.norm = _norm(norm_type, dim, fused_init)
        self.ffn = GatedConvFFN(dim, hidden, drop)
        self.channel_attn = ChannelAttention(dim, squeeze) if squeeze else None
        self.spatial_attn = SpatialAttention() if use_spatial_attn else None
        self.drop_path = DropPath(drop_path)

    def fuse(self) -> None:
        """Merges the two kernels, and the running statistics, in place."""
        self.conv.fuse()
        self.norm.fuse()

    def forward(self, x: Tensor) -> Tensor:
        y = self.ffn(self.norm(self.conv(x)))
        if self.channel_attn is not None:
            y = self.channel_attn(y)
        if self.spatial_attn is not None:
            y = self.spatial_attn(y)
        return x + self.drop_path(y) * self.res_scale

    def forward_(self, parts: Parts, team: Team) -> None:
        """
        ``forward`` for inference, in place, of one picture.

        Pixels are independent in the feed-forward layer, which runs over slices of them that stay in the processor's
        cache. An attention needs its result for the whole picture, though. That takes the place of the convolution's
        result, slice by slice, and is added in a second pass, or a third one if both attentions are there.
        """
        linear = parts.faster_linear(self.ffn.conv_gate, self.ffn.conv_main, self.ffn.conv_out)
        attended = self.channel_attn is not None or self.spatial_attn is not None
        totals: Dict[int, Tensor] = {}

        def transform(part: Part, start: int, stop: int) -> None:
            pixels = part.convolved[start:stop]
            if isinstance(self.norm, PixelNorm):
                pixels = self.norm.of_pixels(pixels)
            out = self.ffn.forward_(pixels, linear)
            if attended:
                part.convolved[start:stop] = out
                totals[start] = out.sum(0, dtype=torch.promote_types(out.dtype, torch.float32))
            else:
                part.pixels[:, start:stop].add_(to_groups(out, len(part.pixels)), alpha=self.res_scale)

        team.run(parts.steps(self._normalised, transform))
        if attended:
            whole, (height, width) = parts.upper, parts.image.shape[2:4]
            means = torch.stack([totals[start] for start in sorted(totals)]).sum(0) / (height * width)
            self._attend_(whole.pixels, whole.convolved, means.to(whole.pixels.dtype), height, width, team)

    def _normalised(self) -> Tuple[Tensor, Tensor]:
        """Weight (C, 1, K, K) and bias (C) of the convolution and, where it is an affine map, the norm in one."""
        weight, bias = self.conv.merged()
        if isinstance(self.norm, DeploymentNorm):
            factor, summand = (tensor.flatten() for tensor in self.norm.merged())
            weight, bias = weight * factor.view(-1, 1, 1, 1), bias * factor + summand
        return weight, bias

    def _attend_(self, x: Tensor, y: Tensor, means: Tensor, height: int, width: int, team: Team) -> None:
        """Adds y, (P, C), to x, (G, P, C/G), as the attentions weigh it; both are changed."""
        slices = slices_in_cache(x, y.shape[1], team)
        factors = means.new_ones(means.shape)
        if self.channel_attn is not None:
            factors = self.channel_attn.of_means(means)
        if self.spatial_attn is not None:
            maps = y.new_empty(2, len(y))

            def weigh(start: int, stop: int) -> None:
                pixels = y[start:stop].mul_(factors)
                maps[0, start:stop], maps[1, start:stop] = pixels.amax(1), pixels.mean(1)

            team.map(weigh, slices)
            factors = self.spatial_attn.of_maps(maps.view(1, 2, height, width)).view(-1, 1)
        factors = factors.expand_as(y)

        def add(start: int, stop: int) -> None:
            weighed = y[start:stop].mul_(factors[start:stop])
            x[:, start:stop].add_(to_groups(weighed, len(x)), alpha=self.res_scale)

        team.map(add, slices)


class StageFusion(nn.Module):
    """
    Joins what the stages have found, (B, C, H, W) -> (B, C, H, W): a 1x1 convolution and an offset for each channel.

    Args:
        channels: channels that come in; ``dim``: C, those that go out.
    """

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.error_comp = nn.Parameter(torch.zeros(1, dim, 1, 1))
        self.fusion_conv = _Conv2d(channels, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fusion_conv(x) + self.error_comp

    def of_pixels(self, x: Tensor) -> Tensor:
        """``forward`` for inference, of pixels, (P, C)."""
        return linear_(x, self.fusion_conv).add_(self.error_comp.flatten())


class Upsample3(nn.Module):
    """
    Sub-pixel upsampling, (B, C, H, W) -> (B, U, s*H, s*W), in steps of two or one of three.

    Args:
        scale: s, a power of two or 3; 1 leaves one convolution.
        dim: C.
        widths: channels after each step, the last of them U.
    """

    def __init__(self, scale: int, dim: int, widths: Sequence[int]) -> None:
        super().__init__()
        layers: List[nn.Module] = []
        for step, before, after in zip(_steps(scale), [dim, *widths], widths):
            layers.append(_Conv2d(before, step * step * after, 3, padding=1))
            if step > 1:
                layers.append(nn.PixelShuffle(step))
        self.blocks = _Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.blocks)


class aether3(nn.Module):  # noqa: N801 - beside aether, the first generation
    """
    The network, (B, in_chans, H, W) -> (B, in_chans, scale*H, scale*W), any H and W from 1.

    The arguments have the names that the published training notes under ``arch_config``.

    Args:
        in_chans: channels of the picture, before and after.
        embed_dim: width C of the body.
        depths: blocks in each stage.
        mlp_ratio: hidden width of the feed-forward layers over ``embed_dim``.
        drop: dropout in the feed-forward layers, in training.
        drop_path_rate: stochastic depth of the last block, in training; earlier ones rise to it from 0.
        lk_kernel, sk_kernel: sides of the large and the small kernel, odd.
        scale: a power of two (1 included) or 3.
        img_range: largest value of the picture. It leaves no trace in a state dict.
        fused_init: build the fused form, with one kernel where training has two and no running statistics.
        use_channel_attn, use_spatial_attn: the attentions at the end of each block.
        norm_type: ``deployment`` or ``layernorm``.
        res_scale: factor of each block's branch. It leaves no trace in a state dict.
        squeeze: width within the channel attention; an eighth of C unless given.
        stage_widths: channels that each stage hands to the fusion; C in equal parts unless given.
        upsample_widths: channels after each step of the upsampler.

    Raises:
        ValueError: an argument is out of its range.

    Attributes:
        hyperparameters: the arguments above, as given.
    """

    _parts = aether._parts | frozenset(
        (
            *(AetherBlock3, ChannelAttention, DeploymentNorm, GatedConvFFN, PixelNorm, SpatialAttention),
            *(StageFusion, Upsample3, nn.ReLU),
        )
    )

    def __init__(
        self,
        in_chans: int = 3,
        embed_dim: int = 128,
        depths: Sequence[int] = (6, 6, 6, 6),
        mlp_ratio: float = 1.5,
        drop: float = 0.0,
        drop_path_rate: float = 0.1,
        lk_kernel: int = 13,
        sk_kernel: int = 5,
        scale: int = 4,
        img_range: float = 1.0,
        fused_init: bool = False,
        use_channel_attn: bool = True,
        use_spatial_attn: bool = False,
        norm_type: str = "deployment",
        res_scale: float = 0.1,
        squeeze: Optional[int] = None,
        stage_widths: Optional[Sequence[int]] = None,
        upsample_widths: Optional[Sequence[int]] = None,
    ) -> None:
        super().__init__()
        hidden = int(embed_dim * mlp_ratio)
        if in_chans < 1:
            raise ValueError(f"in_chans must be at least 1, not {in_chans}")
        if not depths or min(depths) < 1:
            raise ValueError(f"depths must name at least one block for each stage, not {tuple(depths)}")
        if embed_dim < len(depths):
            raise ValueError(f"embed_dim must be at least the number of stages, {len(depths)}, not {embed_dim}")
        if hidden < 1:
            raise ValueError(f"mlp_ratio {mlp_ratio} leaves no hidden unit for embed_dim {embed_dim}")
        if not 1 <= sk_kernel <= lk_kernel or lk_kernel % 2 == 0 or sk_kernel % 2 == 0:
            raise ValueError(f"kernels must be odd, the small one no larger: not {lk_kernel} and {sk_kernel}")
        if norm_type not in ("deployment", "layernorm"):
            raise ValueError(f"norm_type must be deployment or layernorm, not {norm_type}")
        for name, factor in (("img_range", img_range), ("res_scale", res_scale)):
            _check_factor(name, factor)
        squeeze = embed_dim // 8 if squeeze is None else squeeze
        if use_channel_attn and squeeze < 1:
            raise ValueError(f"embed_dim must be at least 8 for a channel attention, not {embed_dim}")
        stage_widths = _stage_widths(embed_dim, len(depths)) if stage_widths is None else stage_widths
        upsample_widths = _upsample_widths(embed_dim, scale) if upsample_widths is None else upsample_widths

        self.hyperparameters: Dict[str, Any] = {
            "in_chans": in_chans,
            "embed_dim": embed_dim,
            "depths": tuple(depths),
            "mlp_ratio": mlp_ratio,
            "drop": drop,
            "drop_path_rate": drop_path_rate,
            "lk_kernel": lk_kernel,
            "sk_kernel": sk_kernel,
            "scale": scale,
            "img_range": img_range,
            "fused_init": fused_init,
            "use_channel_attn": use_channel_attn,
            "use_spatial_attn": use_spatial_attn,
            "norm_type": norm_type,
            "res_scale": res_scale,
            "squeeze": squeeze,
            "stage_widths": tuple(stage_widths),
            "upsample_widths": tuple(upsample_widths),
        }
        self.upscale = scale
        self.img_range = float(img_range)
        self.register_buffer("scale_tensor", torch.tensor(scale))
        self.register_buffer("mean", torch.full((1, in_chans, 1, 1), 0.5))

        self.conv_first = _Conv2d(in_chans, embed_dim, 3, padding=1)
        blocks = sum(depths)
        rates = iter([drop_path_rate * i / max(blocks - 1, 1) for i in range(blocks)])
        self.stages = nn.ModuleList(
            _Sequential(
                *(
                    AetherBlock3(
                        embed_dim,
                        hidden,
                        lk_kernel,
                        sk_kernel,
                        norm_type,
                        squeeze if use_channel_attn else 0,
                        use_spatial_attn,
                        res_scale,
                        drop,
                        next(rates),
                        fused_init,
                    )
                    for _ in range(depth)
                )
            )
            for depth in depths
        )
        self.fusion_convs = nn.ModuleList(_Conv2d(embed_dim, width, 1) for width in stage_widths)
        self.quant_fusion_layer = StageFusion(sum(stage_widths), embed_dim)
        self.norm = _norm(norm_type, embed_dim, fused_init)
        self.conv_after_body = _Conv2d(embed_dim, embed_dim, 3, padding=1)
        self.conv_before_upsample = _Sequential(
            _Conv2d(embed_dim, embed_dim, 3, padding=1), nn.LeakyReLU(0.01, inplace=True)
        )
        self.upsample = Upsample3(scale, embed_dim, upsample_widths)
        self.conv_last = _Conv2d(upsample_widths[-1], in_chans, 3, padding=1)

    @property
    def fused(self) -> bool:
        """Whether every block has one kernel instead of two."""
        return all(block.conv.fused for block in self._blocks())

    def _blocks(self) -> Iterator[Any]:
        return (block for stage in self.stages for block in stage)  # type: ignore[attr-defined]

    def fuse_model(self) -> aether3:
        """Merges kernels and running statistics, in place, and returns the model itself."""
        for block in self._blocks():
            block.fuse()
        self.norm.fuse()
        self.hyperparameters["fused_init"] = True
        return self

    # Which way it runs, and where, and the end of it are as in the first generation.
    forward = aether.forward
    _is_plain_cpu_inference = aether._is_plain_cpu_inference
    _is_as_built = aether._is_as_built
    _reconstruct = aether._reconstruct
    _reconstruct_ = aether._reconstruct_
    _reconstruct_jointly = aether._reconstruct_jointly

    def _infer(self, x: Tensor) -> Tensor:
        """``forward`` for inference on a CPU, of one picture after the other."""
        if len(x) > 1:
            return torch.cat([self._infer(picture) for picture in x.split(1)])
        return aether._infer(self, x)  # type: ignore[arg-type]

    def _centre(self, x: Tensor) -> Tensor:
        return x / self.img_range - self.mean

    def _restore(self, x: Tensor) -> Tensor:
        return (x + self.mean) * self.img_range

    def _body(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, C, H, W)."""
        shallow = deep = self.conv_first(x)
        features = []
        for stage, fusion_conv in zip(self.stages, self.fusion_convs):
            deep = stage(deep)
            features.append(fusion_conv(deep))
        deep = self.norm(self.quant_fusion_layer(torch.cat(features, 1))) + shallow
        return self.conv_after_body(deep) + deep

    def _body_(self, x: Tensor, team: Team) -> Tensor:
        """``_body`` for inference of one picture: channels-last, and in place wherever it can be."""
        shallow = self.conv_first(x.contiguous(memory_format=torch.channels_last))
        features = []
        hidden = max((block.ffn.conv_out.in_channels for block in self._blocks()), default=1)
        parts = Parts(shallow, 0, hidden, team)
        for stage, fusion_conv in zip(self.stages, self.fusion_convs):
            for block in stage:  # type: ignore[attr-defined]
                block.forward_(parts, team)
            fuse = functools.partial(linear_, layer=fusion_conv)
            features.append(for_each_pixel(fuse, parts.image, fusion_conv.out_channels, team))
        del parts
        joint = torch.cat([feature.permute(0, 2, 3, 1) for feature in features], 3)
        features.clear()
        joint = for_each_pixel(self._fused_pixels, joint[None], shallow.shape[1], team)
        deep = joint.add_(shallow)
        out = shallow.copy_(deep)
        add_convolved(self.conv_after_body, deep, out, team)
        return out

    def _fused_pixels(self, pixels: Tensor) -> Tensor:
        """Fusion and norm of pixels, (P, c) of all stages -> (P, C)."""
        pixels = self.quant_fusion_layer.of_pixels(pixels)
        if isinstance(self.norm, PixelNorm):
            return self.norm.of_pixels(pixels)
        factor, summand = (tensor.flatten() for tensor in self.norm.merged())
        return pixels.mul_(factor).add_(summand)


def _check_factor(name: str, factor: float) -> None:
    if not (math.isfinite(factor) and factor > 0):
        raise ValueError(f"{name} must be a positive number, not {factor}")


def _stage_widths(dim: int, stages: int) -> List[int]:
    return [dim // stages + (1 if stage < dim % stages else 0) for stage in range(stages)]


def _upsample_widths(dim: int, scale: int) -> List[int]:
    """Halved at each step, but for the last one."""
    last = max(32, (dim // max(1, scale // 2)) & ~1)
    return [*(dim >> step for step in range(1, len(_steps(scale)))), last]


def _steps(scale: int) -> List[int]:
    return _upsample_steps(scale) or [1]


def _variant(
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
        "res_scale": _assumed_res_scale(dim),
    }


def _assumed_res_scale(embed_dim: int) -> float:
    """What every named variant of this width was trained with; others are taken for the default."""
    return 0.2 if embed_dim == 64 else 0.1


VARIANTS: Dict[str, Dict[str, Any]] = {
    "mobile": _variant(64, (2,) * 4, (7, 3), 1.5, (False, False)),
    "tiny": _variant(64, (3,) * 3, (13, 5), 1.5, (True, False)),
    "small": _variant(96, (4,) * 4, (13, 5), 1.5, (True, False)),
    "medium": _variant(128, (6,) * 4, (13, 5), 1.5, (True, False)),
    "large": _variant(180, (8,) * 5, (13, 5), 1.5, (True, True)),
    "pro": _variant(192, (8,) * 5, (15, 5), 1.75, (True, True)),
    "extreme": _variant(256, (12,) * 5, (21, 5), 2.0, (True, True)),
}


def aether3_variant(name: str, **kwargs: Any) -> aether3:
    """One of ``VARIANTS``; keyword arguments go to ``aether3``."""
    return aether3(**{**VARIANTS[name], **kwargs})


# Reading checkpoints.

_SIGNATURE = re.compile(
    rf"({_PREFIX})stages\.{_NUMBER}\.{_NUMBER}\.(?:{_FUSED_PART}|{_UNFUSED_PART}|ffn\.conv_(?:gate|main)\.)"
)
_BLOCK_KEY = _block_key("stages")
_FFN_KEYS = tuple(
    f"ffn.{conv}.{part}" for conv in ("conv_gate", "conv_main", "conv_out") for part in ("weight", "bias")
)
_SHARED_BLOCK = ("norm.weight", "norm.bias", "ffn.temperature", *_FFN_KEYS)
_FUSED_BLOCK = ("conv.fused_conv.weight", "conv.fused_conv.bias", *_SHARED_BLOCK)
_UNFUSED_BLOCK = ("conv.lk_conv.weight", "conv.sk_conv.weight", "conv.lk_bias", "conv.sk_bias", *_SHARED_BLOCK)
_CHANNEL_ATTENTION = ("channel_attn.fc.0.weight", "channel_attn.fc.2.weight")
_SPATIAL_ATTENTION = ("spatial_attn.conv.weight",)
_STATISTICS = ("running_mean", "running_var")
_VERSION = (3, 1, 1)
_NOTES = ("model_version", "pt_version")


def locate_weights(checkpoint: Mapping[Any, Any]) -> Optional[LocatedWeights]:
    """
    Finds the weights of this generation in a checkpoint: bare, under the keys that trainers use, with or without
    prefixes; the version numbers that some files hold beside them are left out.

    Where a checkpoint holds several, averaged (EMA) weights win over raw ones, and then those that spandrel would
    unwrap. Returns None if there are none; never raises, whatever the checkpoint holds.
    """
    found = _find(checkpoint, _SIGNATURE)
    if found is None:
        return None
    return found._replace(weights={key: value for key, value in found.weights.items() if _is_weight(key, value)})


def _is_weight(key: str, value: Any) -> bool:
    if key == "scale_tensor":
        return isinstance(value, Tensor)
    return key not in _NOTES and not _is_bookkeeping(key, value)


def refusal(checkpoint: Mapping[Any, Any]) -> Optional[str]:
    """
    Says what a checkpoint of this generation is if it cannot be run here although nothing is wrong with it: quantised,
    or of another sub-version, which shares the keys and not the function; and what to do about it.

    Returns None for any other checkpoint; never raises, whatever it holds.
    """
    found = _find(checkpoint, _SIGNATURE)
    if found is None:
        return None
    return _quantisation(found.weights) or _other_version(found.weights)


def _other_version(entries: Mapping[str, Any]) -> Optional[str]:
    version = _noted_version(entries)
    if version and version > _VERSION:
        number = ".".join(map(str, version))
        return f"an AetherNet of a newer sub-version, {number}, another network; a newer aether-install may know it"
    temperatures = (value for key, value in entries.items() if key.endswith(".ffn.temperature"))
    fused = _form(entries, _BLOCK_KEY) == "fused"
    if (
        (version and version < _VERSION)
        or ("scale" in entries and "scale_tensor" not in entries)
        or any(isinstance(value, Tensor) and value.dim() == 0 for value in temperatures)
        or any(key.endswith((".num_batches_tracked", ".conv.lk_conv.bias")) for key in entries)
        or (fused and any(key.rpartition(".")[2] in _STATISTICS for key in entries))
    ):
        return (
            "an AetherNet of an earlier sub-version than 3.1.1, which has these keys and is another network; "
            "use the program that it was trained with, or a model trained with 3.1.1"
        )
    return None


def _noted_version(entries: Mapping[str, Any]) -> Optional[Tuple[int, ...]]:
    return _integers(entries.get("model_version")) or None


def _integers(noted: Any) -> Optional[Tuple[int, ...]]:
    """The few integers that a tensor of any type holds, None if that is not what it is."""
    if not isinstance(noted, Tensor) or noted.is_meta or noted.layout != torch.strided or noted.numel() > 8:
        return None
    if noted.is_complex() or noted.is_quantized:
        return None
    numbers = [float(number) for number in noted.flatten().tolist()]
    return tuple(map(int, numbers)) if all(number.is_integer() for number in numbers) else None


def clean_state_dict(checkpoint: Mapping[Any, Any]) -> StateDict:
    """
    Returns the weights in a checkpoint under the network's own keys; see ``locate_weights``.

    Raises:
        ValueError: there are none, or they cannot be run here; see ``refusal``.
    """
    reason = refusal(checkpoint)
    if reason:
        raise ValueError(f"this is {reason}")
    located = locate_weights(checkpoint)
    if located is None:
        raise ValueError("these are no AetherNet 3.1 weights: no key such as stages.0.0.conv.lk_conv.weight")
    return located.weights


def detect_form(checkpoint: Mapping[Any, Any]) -> Optional[str]:
    """
    Returns ``fused`` or ``unfused`` for a checkpoint that holds weights of this generation, whole or damaged, else
    None.

    A block of each form makes it ``unfused``. None, too, for what ``refusal`` names. Never raises, so that it can be
    asked about any network's state dict.
    """
    located = None if refusal(checkpoint) else locate_weights(checkpoint)
    return _form(located.weights, _BLOCK_KEY) if located else None


def _deduce_aether3_params_from_state_dict(state_dict: Mapping[Any, Any]) -> Dict[str, Any]:
    """
    Reads the constructor arguments of ``aether3`` off the shapes in a state dict or checkpoint.

    ``img_range`` and the drop rates leave no trace and are not returned; neither does ``res_scale``, which is returned
    as it has to be assumed. ``sk_kernel`` of a fused network is not known any more and has no effect.

    Raises:
        ValueError: the weights are damaged; names the first key at fault.
    """
    weights = clean_state_dict(state_dict)
    parameters = _read_parameters(weights)
    _check_shapes(weights, _without_weights(aether3, **parameters))
    return parameters


def _read_parameters(weights: StateDict) -> Dict[str, Any]:
    """
    The parameters, provided that the weights are whole.

    Sizes that many tensors share are put to the vote, so that a damaged tensor is the one that stands out when
    ``_check_shapes`` compares them all.
    """
    fused = _the_one_form(weights, _BLOCK_KEY) == "fused"
    depths = _deduce_depths(weights, "stages", _FUSED_BLOCK if fused else _UNFUSED_BLOCK)
    blocks = [f"stages.{i}.{j}." for i, depth in enumerate(depths) for j in range(depth)]
    norm_axes = _axes_of_norms(weights, blocks)

    def axes_of(key: str) -> int:
        if ".norm." in f".{key}":
            return norm_axes
        return 1 if key.endswith("bias") else 4

    vote = _Votes(weights, blocks, axes_of)
    large = "conv.fused_conv.weight" if fused else "conv.lk_conv.weight"
    embed_dim = vote.in_blocks(("ffn.conv_out.bias", 0), ("ffn.conv_out.weight", 0), (large, 0))
    hidden = vote.in_blocks(("ffn.conv_gate.weight", 0), ("ffn.conv_gate.bias", 0), ("ffn.conv_main.bias", 0))
    lk_kernel = vote.in_blocks((large, 2), (large, 3))
    sk_kernel = min(3, lk_kernel)
    if not fused:
        sk_kernel = vote.in_blocks(("conv.sk_conv.weight", 2), ("conv.sk_conv.weight", 3))
    _check_kernels(blocks[0], large, lk_kernel, sk_kernel)
    use_channel_attn = _most_have(weights, blocks, _CHANNEL_ATTENTION)
    squeeze = embed_dim // 8
    if use_channel_attn:
        squeeze = vote.in_blocks((_CHANNEL_ATTENTION[0], 0), (_CHANNEL_ATTENTION[1], 1), formula=squeeze)
    scale = _deduce_scale(weights)
    return {
        "in_chans": vote(("conv_first.weight", 1), ("mean", 1), ("conv_last.weight", 0), ("conv_last.bias", 0)),
        "embed_dim": embed_dim,
        "depths": depths,
        "mlp_ratio": _deduce_mlp_ratio(embed_dim, hidden),
        "lk_kernel": lk_kernel,
        "sk_kernel": sk_kernel,
        "scale": scale,
        "fused_init": fused,
        "use_channel_attn": use_channel_attn,
        "use_spatial_attn": _most_have(weights, blocks, _SPATIAL_ATTENTION),
        "norm_type": "layernorm" if norm_axes == 1 else "deployment",
        "res_scale": _assumed_res_scale(embed_dim),
        "squeeze": squeeze,
        "stage_widths": tuple(
            vote((f"fusion_convs.{stage}.weight", 0), (f"fusion_convs.{stage}.bias", 0), formula=width)
            for stage, width in enumerate(_stage_widths(embed_dim, len(depths)))
        ),
        "upsample_widths": _read_upsample_widths(vote, embed_dim, scale),
    }


def _axes_of_norms(weights: StateDict, blocks: Sequence[str]) -> int:
    """Four for the deployment norm, one for LayerNorm."""
    norms = [f"{place}norm.{part}" for place in ("", *blocks) for part in ("weight", "bias")]
    axes = Counter(weights[key].dim() for key in norms if key in weights)
    return 1 if axes[1] > axes[4] else 4


def _most_have(weights: StateDict, blocks: Sequence[str], keys: Sequence[str]) -> bool:
    """Whether at least half of the blocks have one of these keys."""
    having = sum(any(block + key in weights for key in keys) for block in blocks)
    return having > 0 and 2 * having >= len(blocks)


def _deduce_scale(weights: StateDict) -> int:
    """
    The scale that ``scale_tensor`` gives, if the upsampler agrees.

    Where the two differ, the one that fewest keys and shapes speak against tells which of them is at fault.
    """
    present = {key for key in weights if key.startswith("upsample.")}
    width = weights["conv_last.weight"].shape[1:2] if "conv_last.weight" in weights else ()
    noted = _integers(weights.get("scale_tensor")) or (0,)

    def wanted(scale: int) -> List[str]:
        return [f"upsample.blocks.{2 * i}.{part}" for i in range(len(_steps(scale))) for part in ("weight", "bias")]

    def faults(scale: int) -> int:
        keys = wanted(scale)
        channels = [weights[key].shape[:1] for key in keys[-2:] if key in weights]
        misshapen = sum(shape != tuple(_steps(scale)[-1] ** 2 * size for size in width) for shape in channels)
        return len(present.symmetric_difference(keys)) + misshapen + (noted[0] != scale)

    scales = [1, 3, *(2**steps for steps in range(1, len(present) + 2))]
    scale = min(scales, key=lambda candidate: (faults(candidate), noted[0] != candidate))
    if "scale_tensor" not in weights:
        raise _fault("scale_tensor", "is missing")
    if noted[0] != scale:
        lacking = [key for key in wanted(noted[0]) if key not in weights] if noted[0] in scales else []
        alternative = f"; or {lacking[0]} is missing" if lacking else ""
        raise _fault("scale_tensor", f"says {noted[0]}, where the upsampler has the scale {scale}{alternative}")
    return scale


def _read_upsample_widths(vote: _Votes, embed_dim: int, scale: int) -> Tuple[int, ...]:
    widths = []
    for i, (step, width) in enumerate(zip(_steps(scale), _upsample_widths(embed_dim, scale))):
        key = f"upsample.blocks.{2 * i}"
        channels = vote((f"{key}.weight", 0), (f"{key}.bias", 0), formula=step * step * width)
        if channels % (step * step):
            raise _fault(f"{key}.weight", f"has {channels} channels, which cannot be shuffled to {step}x")
        widths.append(channels // (step * step))
    return tuple(widths)


def build_aether3(
    state_dict: Mapping[Any, Any],
    img_range: float = 1.0,
    res_scale: Optional[float] = None,
    dtype: torch.dtype = torch.float32,
) -> aether3:
    """
    Builds the network that a state dict or checkpoint holds, in evaluation mode, with a copy of its weights.

    Args:
        state_dict: weights in any of the forms that ``locate_weights`` knows.
        img_range, res_scale: see ``aether3``; ``res_scale`` as ``assumed_arguments`` says unless given.
        dtype: of the parameters.

    Raises:
        ValueError: the weights are damaged; names the first key at fault.
    """
    weights = clean_state_dict(state_dict)
    model = prepare_aether3(weights, img_range, res_scale, dtype)
    model.load_state_dict(weights)
    return model


def prepare_aether3(
    weights: StateDict,
    img_range: float = 1.0,
    res_scale: Optional[float] = None,
    dtype: torch.dtype = torch.float32,
) -> aether3:
    """
    Builds the network for a clean state dict, which is then to be loaded: the parameters hold nothing until then.

    So nothing is initialised in vain, and whoever loads the weights, as spandrel does, makes the only copy of them.

    Raises:
        ValueError: the weights are damaged; names the first key at fault.
    """
    parameters = {**_read_parameters(weights), "img_range": img_range}
    if res_scale is not None:
        parameters["res_scale"] = res_scale
    model = _without_weights(aether3, **parameters)
    _check_shapes(weights, model)
    return _with_memory(model, dtype).eval()


def fuse_state_dict(weights: StateDict) -> StateDict:
    """
    Returns the weights of the fused form of an unfused network, in the order of the given ones.

    Args:
        weights: a clean and complete unfused state dict, as ``clean_state_dict`` returns it and ``build_aether3``
            accepts it. Dtypes are kept; see ``merge_kernels`` and ``merge_statistics``.

    Raises:
        ValueError: a result of finite weights is beyond their dtype; names the key.
    """
    fused: StateDict = {}
    for key, tensor in weights.items():
        place, dot, name = key.rpartition(".")
        place += dot
        block = _BLOCK_KEY.match(key)
        if block and block[5]:  # part of an unfused convolution
            conv = key[: block.start(3)] + "conv."
            if f"{conv}fused_conv.weight" not in fused:
                fused.update(_fused_kernels(weights, conv))
        elif f"{place}running_var" in weights and name in ("weight", "bias"):
            parts = [weights[place + part] for part in ("weight", "bias", *_STATISTICS)]
            merged = dict(zip(("weight", "bias"), merge_statistics(*parts)))
            _check_overflow(parts, {key: merged[name]})
            fused[key] = merged[name]
        elif name not in _STATISTICS:
            fused[key] = tensor
    return fused


def fold_arguments(weights: StateDict, img_range: float = 1.0, res_scale: Optional[float] = None) -> StateDict:
    """
    Returns weights that do with the arguments that a loader assumes what the given ones do with these.

    ``img_range`` goes into the first and the last convolution and ``mean``; ``res_scale`` into the last convolution of
    each feed-forward layer, and out of the attentions after it, so that they see what they saw. Dtypes are kept,
    products are rounded once.

    Args:
        weights: a clean and complete state dict, fused or not.
        img_range, res_scale: as the network was trained; what a loader assumes unless given.

    Raises:
        ValueError: an argument is no positive number, or a weight that was neither zero nor infinite would become so
            in its dtype; names the key.
    """
    _check_factor("img_range", img_range)
    folded = weights
    if img_range != 1:
        factors = {"conv_first.weight": 1 / img_range, "mean": img_range}
        factors.update({"conv_last.weight": img_range, "conv_last.bias": img_range})
        folded = _scaled(folded, factors, f"img_range {img_range:g}")
    if res_scale is not None:
        _check_factor("res_scale", res_scale)
        ratio = res_scale / _assumed_res_scale(weights["conv_first.bias"].shape[0])
        if ratio != 1:
            factors = {key: ratio for key in weights if ".ffn.conv_out." in key}
            undone = (".channel_attn.fc.0.weight", ".spatial_attn.conv.weight")
            factors.update({key: 1 / ratio for key in weights if key.endswith(undone)})
            folded = _scaled(folded, factors, f"res_scale {res_scale:g}")
    return dict(folded)


def assumed_arguments(parameters: Mapping[str, Any]) -> Dict[str, float]:
    """Returns the arguments of ``build_aether3`` that leave no trace in the weights, as a loader has to assume them."""
    return {"img_range": 1.0, "res_scale": _assumed_res_scale(parameters["embed_dim"])}


def describe(parameters: Mapping[str, Any]) -> Dict[str, Any]:
    """Returns what these constructor arguments say of a network, by the names that all generations share."""
    common = ("embed_dim", "depths", "mlp_ratio", "lk_kernel", "sk_kernel", "in_chans")
    own = ("use_channel_attn", "use_spatial_attn", "norm_type")
    return {
        **{name: parameters[name] for name in common},
        "out_chans": parameters["in_chans"],
        "upscale": parameters["scale"],
        **{name: parameters[name] for name in own},
    }


def variant_name(parameters: Mapping[str, Any]) -> Optional[str]:
    """Returns which of ``VARIANTS`` these constructor arguments are, None if they are none."""
    for name, variant in VARIANTS.items():
        known = dict(variant)
        if parameters.get("fused_init"):
            del known["sk_kernel"]
        if all(parameters[key] == value for key, value in known.items()):
            return name
    return None
