"""
AetherNet 3.1, the generation of July and August 2025, whose keys start with ``stages.``.

It shares the large-kernel convolution with the first one. Images are NCHW tensors with values in [0, 1]. Needs PyTorch
2.0 or later and the modules beside this one.
"""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any, Callable, ClassVar, Dict, List, Mapping, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import shapes, sizes
from .aether_core import DropPath, ReparamLargeKernelConv, initialise
from .building import check_weights, without_memory
from .checkpoint import LATER, StateDict, the_one_form, weights_in
from .fusing import EPS, merge_statistics

__all__ = [
    "AetherBlock3",
    "ChannelAttention",
    "DeploymentNorm",
    "GatedConvFFN",
    "PixelNorm",
    "SpatialAttention",
    "StageFusion",
    "Upsample3",
    "aether3",
    "read_parameters",
]


class DeploymentNorm(nn.Module):
    """
    Batch normalisation by the biased variance, (B, C, H, W) -> (B, C, H, W), which ``fuse()`` turns into an affine map.

    In training it uses the batch's own statistics and moves the running ones a tenth of the way to them.

    Args:
        channels: C.
        fused_init: start as the affine map.
    """

    running_mean: Tensor
    running_var: Tensor

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
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), 0.1)
                self.running_var.lerp_(variance.to(self.running_var.dtype), 0.1)
            return (x - mean) * (variance + EPS).rsqrt() * self.weight + self.bias
        if self.fused:
            return x * self.weight + self.bias
        statistics = (self.running_mean.flatten(), self.running_var.flatten())
        return F.batch_norm(x, *statistics, self.weight.flatten(), self.bias.flatten(), False, 0.0, EPS)

    @torch.inference_mode(False)  # whose tensors could not be trained later
    @torch.no_grad()
    def fuse(self) -> None:
        """Merges the running statistics in place; what is already fused is left alone."""
        if self.fused:
            return
        weight, bias = merge_statistics(self.weight, self.bias, self.running_mean, self.running_var)
        trainable = self.weight.requires_grad
        del self.running_mean, self.running_var
        self.weight = nn.Parameter(weight, requires_grad=trainable)
        self.bias = nn.Parameter(bias, requires_grad=trainable)


class PixelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel, (B, C, H, W) -> (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


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
        self.conv_gate = nn.Conv2d(dim, hidden, 1)
        self.conv_main = nn.Conv2d(dim, hidden, 1)
        self.drop = nn.Dropout(drop)
        self.conv_out = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = F.silu(self.conv_gate(x) * self.temperature)
        return self.conv_out(self.drop(gate * self.conv_main(x)))


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
        self.fc = nn.Sequential(
            nn.Conv2d(dim, squeeze, 1, bias=False), nn.ReLU(inplace=True), nn.Conv2d(squeeze, dim, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean((2, 3), keepdim=True)).sigmoid()


class SpatialAttention(nn.Module):
    """
    Scales each pixel by what the maxima and means of the channels around it say, (B, C, H, W) -> (B, C, H, W).

    Source: Woo et al., CBAM: Convolutional Block Attention Module, 2018.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        return x * self.conv(maps).sigmoid()


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

    def forward(self, x: Tensor) -> Tensor:
        y = self.ffn(self.norm(self.conv(x)))
        if self.channel_attn is not None:
            y = self.channel_attn(y)
        if self.spatial_attn is not None:
            y = self.spatial_attn(y)
        return x + self.drop_path(y) * self.res_scale


class StageFusion(nn.Module):
    """
    Joins what the stages have found, (B, C, H, W) -> (B, C, H, W): a 1x1 convolution and an offset for each channel.

    Args:
        channels: channels that come in; ``dim``: C, those that go out.
    """

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.error_comp = nn.Parameter(torch.zeros(1, dim, 1, 1))
        self.fusion_conv = nn.Conv2d(channels, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fusion_conv(x) + self.error_comp


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
        for step, before, after in zip(sizes.steps_of(scale), [dim, *widths], widths):
            layers.append(nn.Conv2d(before, step * step * after, 3, padding=1))
            if step > 1:
                layers.append(nn.PixelShuffle(step))
        self.blocks = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


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

    engine: ClassVar[Optional[Callable[[Any, Tensor], Optional[Tensor]]]] = None
    mean: Tensor

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
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        sizes.check_sizes(embed_dim, depths, mlp_ratio, lk_kernel, sk_kernel, in_chans=in_chans)
        sizes.check_factors(img_range=img_range, res_scale=res_scale)
        if embed_dim < len(depths):
            raise ValueError(f"embed_dim must be at least the number of stages, {len(depths)}, not {embed_dim}")
        if norm_type not in ("deployment", "layernorm"):
            raise ValueError(f"norm_type must be deployment or layernorm, not {norm_type}")
        squeeze = embed_dim // 8 if squeeze is None else squeeze
        if use_channel_attn and squeeze < 1:
            raise ValueError(f"embed_dim must be at least 8 for a channel attention, not {embed_dim}")
        stage_widths = tuple(stage_widths or sizes.even_widths(embed_dim, len(depths)))
        upsample_widths = tuple(upsample_widths or sizes.halved_widths(embed_dim, scale))
        widths = {"squeeze": squeeze, "stage_widths": stage_widths, "upsample_widths": upsample_widths}
        self.hyperparameters: Dict[str, Any] = {**arguments, "depths": tuple(depths), **widths}
        self.upscale = scale
        self.img_range = float(img_range)
        self.register_buffer("scale_tensor", torch.tensor(scale))
        self.register_buffer("mean", torch.full((1, in_chans, 1, 1), 0.5))

        self.conv_first = nn.Conv2d(in_chans, embed_dim, 3, padding=1)
        block = functools.partial(
            AetherBlock3,
            embed_dim,
            int(embed_dim * mlp_ratio),
            lk_kernel,
            sk_kernel,
            norm_type=norm_type,
            squeeze=squeeze if use_channel_attn else 0,
            use_spatial_attn=use_spatial_attn,
            res_scale=res_scale,
            drop=drop,
            fused_init=fused_init,
        )
        rates = sizes.rising_rates(drop_path_rate, depths)
        self.stages = nn.ModuleList(
            nn.Sequential(*(block(drop_path=next(rates)) for _ in range(depth))) for depth in depths
        )
        self.fusion_convs = nn.ModuleList(nn.Conv2d(embed_dim, width, 1) for width in stage_widths)
        self.quant_fusion_layer = StageFusion(sum(stage_widths), embed_dim)
        self.norm = _norm(norm_type, embed_dim, fused_init)
        self.conv_after_body = nn.Conv2d(embed_dim, embed_dim, 3, padding=1)
        self.conv_before_upsample = nn.Sequential(
            nn.Conv2d(embed_dim, embed_dim, 3, padding=1), nn.LeakyReLU(0.01, inplace=True)
        )
        self.upsample = Upsample3(scale, embed_dim, upsample_widths)
        self.conv_last = nn.Conv2d(upsample_widths[-1], in_chans, 3, padding=1)
        self.apply(initialise)

    @property
    def fused(self) -> bool:
        """Whether every block has one kernel instead of two."""
        return all(module.fused for module in self.modules() if isinstance(module, ReparamLargeKernelConv))

    def fuse_model(self) -> aether3:
        """Merges kernels and running statistics, in place, and returns the model itself."""
        for module in self.modules():
            if isinstance(module, (ReparamLargeKernelConv, DeploymentNorm)):
                module.fuse()
        self.hyperparameters["fused_init"] = True
        return self

    def forward(self, x: Tensor) -> Tensor:
        sizes.check_axes(x)
        y = self.engine(x) if self.engine is not None else None
        if y is not None:
            return y
        shallow = deep = self.conv_first(x / self.img_range - self.mean)
        features = []
        for stage, fusion_conv in zip(self.stages, self.fusion_convs):
            deep = stage(deep)
            features.append(fusion_conv(deep))
        deep = self.norm(self.quant_fusion_layer(torch.cat(features, 1))) + shallow
        deep = self.conv_after_body(deep) + deep
        y = self.conv_last(self.upsample(self.conv_before_upsample(deep)))
        return (y + self.mean) * self.img_range


def _deduce_aether3_params_from_state_dict(state_dict: Mapping[Any, Any]) -> Dict[str, Any]:
    """
    Reads the constructor arguments of ``aether3`` off the shapes in a state dict or checkpoint.

    ``img_range`` and the drop rates leave no trace and are not returned; neither does ``res_scale``, which is returned
    as it has to be assumed. ``sk_kernel`` of a fused network is not known any more and has no effect.

    Raises:
        ValueError: the weights are damaged; names the first key at fault.
    """
    weights = weights_in(state_dict, LATER)
    parameters = read_parameters(weights)
    check_weights(weights, without_memory(aether3, **parameters))
    return parameters


def read_parameters(weights: StateDict) -> Dict[str, Any]:
    """Reads the same off clean weights, provided that they are whole; ``ValueError`` where nothing tells a size."""
    fused = the_one_form(weights, LATER) == "fused"
    depths = shapes.deduce_depths(weights, LATER, fused)
    blocks = shapes.block_names(LATER, depths)
    norms = Counter(weights[key].dim() for key in (f"{place}norm.weight" for place in ("", *blocks)) if key in weights)
    norm_axes = 1 if norms[1] > norms[4] else 4
    attention = ("channel_attn.fc.0.weight", "channel_attn.fc.2.weight")

    def axes_of(key: str) -> int:
        if ".norm." in f".{key}":
            return norm_axes
        return 1 if key.endswith("bias") else 4

    vote = shapes.Votes(weights, blocks, axes_of)
    large = "conv.fused_conv.weight" if fused else "conv.lk_conv.weight"
    embed_dim = vote.in_blocks(("ffn.conv_out.bias", 0), ("ffn.conv_out.weight", 0), (large, 0))
    hidden = vote.in_blocks(("ffn.conv_gate.weight", 0), ("ffn.conv_gate.bias", 0), ("ffn.conv_main.bias", 0))
    lk_kernel = vote.in_blocks((large, 2), (large, 3))
    sk_kernel = min(3, lk_kernel) if fused else vote.in_blocks(("conv.sk_conv.weight", 2), ("conv.sk_conv.weight", 3))
    shapes.check_kernels(blocks[0], large, lk_kernel, sk_kernel)
    squeeze, attends = embed_dim // 8, shapes.most_have(weights, blocks, attention)
    if attends:
        squeeze = vote.in_blocks((attention[0], 0), (attention[1], 1), formula=squeeze)
    scale = shapes.deduce_noted_scale(weights)
    return {
        "in_chans": vote(("conv_first.weight", 1), ("mean", 1), ("conv_last.weight", 0), ("conv_last.bias", 0)),
        "embed_dim": embed_dim,
        "depths": depths,
        "mlp_ratio": shapes.deduce_mlp_ratio(embed_dim, hidden),
        "lk_kernel": lk_kernel,
        "sk_kernel": sk_kernel,
        "scale": scale,
        "fused_init": fused,
        "use_channel_attn": attends,
        "use_spatial_attn": shapes.most_have(weights, blocks, ["spatial_attn.conv.weight"]),
        "norm_type": "layernorm" if norm_axes == 1 else "deployment",
        "res_scale": sizes.assumed_res_scale(embed_dim),
        "squeeze": squeeze,
        "stage_widths": tuple(
            vote((f"fusion_convs.{stage}.weight", 0), (f"fusion_convs.{stage}.bias", 0), formula=width)
            for stage, width in enumerate(sizes.even_widths(embed_dim, len(depths)))
        ),
        "upsample_widths": tuple(
            shapes.deduce_width(vote, f"upsample.blocks.{2 * i}", step, width)
            for i, (step, width) in enumerate(zip(sizes.steps_of(scale), sizes.halved_widths(embed_dim, scale)))
        ),
    }
