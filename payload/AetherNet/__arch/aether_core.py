"""
AetherNet, a super-resolution network of large-kernel depthwise convolutions and gated feed-forward layers.

The generation of June 2025, whose keys start with ``layers.``. Images are NCHW tensors with values in [0, 1]. Needs
PyTorch 2.0 or later and the modules beside this one.
"""

from __future__ import annotations

from typing import Any, Callable, ClassVar, Dict, List, Mapping, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import shapes
from .building import check_weights, without_memory
from .checkpoint import JUNE, StateDict, the_one_form, weights_in
from .fusing import merge_kernels
from .sizes import JUNE_SIZES, check_axes, check_factors, check_sizes, rising_rates, upsample_steps

__all__ = [
    "AetherBlock",
    "DropPath",
    "GatedFFN",
    "ReparamLargeKernelConv",
    "Upsample",
    "aether",
    "aether_large",
    "aether_medium",
    "aether_small",
    "initialise",
    "read_parameters",
]


class DropPath(nn.Module):
    """
    Stochastic depth: in training, drops a residual branch for a random part of the batch.

    Args:
        drop_prob: the probability, in [0, 1), that a sample's branch is dropped.

    Source: Huang et al., Deep Networks with Stochastic Depth, 2016.
    """

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if self.drop_prob == 0.0 or not self.training:
            return x
        keep = 1.0 - self.drop_prob
        mask = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(keep)
        return x * mask / keep

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob:g}"


class ReparamLargeKernelConv(nn.Module):
    """
    A depthwise convolution, (B, C, H, W) -> (B, C, H, W), trained as a large and a small kernel side by side.

    ``fuse()`` turns the two into the one convolution that they amount to.

    Args:
        channels: C.
        lk_kernel: side of the large kernel, odd.
        sk_kernel: side of the small kernel, odd, at most ``lk_kernel``.
        fused_init: start with the one convolution instead of the two.

    Source: Ding et al., Scaling Up Your Kernels to 31x31, 2022.
    """

    def __init__(self, channels: int, lk_kernel: int, sk_kernel: int, fused_init: bool = False) -> None:
        super().__init__()
        self.channels = channels
        self.lk_kernel = lk_kernel
        self.sk_kernel = sk_kernel
        if fused_init:
            self.fused_conv = self._depthwise(lk_kernel, bias=True)
        else:
            self.lk_conv = self._depthwise(lk_kernel, bias=False)
            self.sk_conv = self._depthwise(sk_kernel, bias=False)
            self.lk_bias = nn.Parameter(torch.zeros(channels))
            self.sk_bias = nn.Parameter(torch.zeros(channels))

    def _depthwise(self, kernel: int, bias: bool) -> nn.Conv2d:
        return nn.Conv2d(self.channels, self.channels, kernel, padding=kernel // 2, groups=self.channels, bias=bias)

    @property
    def fused(self) -> bool:
        """Whether the two kernels are one."""
        return hasattr(self, "fused_conv")

    def forward(self, x: Tensor) -> Tensor:
        if self.fused:
            return self.fused_conv(x)
        return self.lk_conv(x) + self.sk_conv(x) + (self.lk_bias + self.sk_bias).view(-1, 1, 1)

    @torch.inference_mode(False)  # whose tensors could not be trained later
    @torch.no_grad()
    def fuse(self) -> None:
        """Merges the two kernels in place. The output stays the same; what is already fused is left alone."""
        if self.fused:
            return
        weight, bias = merge_kernels(self.lk_conv.weight, self.lk_bias, self.sk_conv.weight, self.sk_bias)
        trainable = self.lk_conv.weight.requires_grad
        del self.lk_conv, self.sk_conv, self.lk_bias, self.sk_bias
        with torch.device("meta"):
            self.fused_conv = self._depthwise(self.lk_kernel, bias=True)
        self.fused_conv.weight = nn.Parameter(weight, requires_grad=trainable)
        self.fused_conv.bias = nn.Parameter(bias, requires_grad=trainable)
        self.fused_conv.train(self.training)


class GatedFFN(nn.Module):
    """
    A gated feed-forward layer over the last axis, (..., C) -> (..., C): ``fc2(gelu(fc1_gate(x)) * fc1_main(x))``.

    Args:
        dim: C.
        hidden: width of the gate and of what it gates.
        drop_rate: dropout of the hidden units in training.

    Source: Shazeer, GLU Variants Improve Transformer, 2020.
    """

    def __init__(self, dim: int, hidden: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.fc1_gate = nn.Linear(dim, hidden)
        self.fc1_main = nn.Linear(dim, hidden)
        self.drop = nn.Dropout(drop_rate)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.drop(F.gelu(self.fc1_gate(x)) * self.fc1_main(x)))


class AetherBlock(nn.Module):
    """
    One residual block, (B, C, H, W) -> (B, C, H, W): ``x + drop_path(ffn(norm(conv(x))))``.

    Args:
        dim: C.
        hidden: hidden width of the gated feed-forward layer.
        lk_kernel, sk_kernel, fused_init: see ``ReparamLargeKernelConv``.
        drop_rate: dropout in the feed-forward layer.
        drop_path: probability that a sample skips the block in training.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        lk_kernel: int = 11,
        sk_kernel: int = 3,
        drop_rate: float = 0.0,
        drop_path: float = 0.0,
        fused_init: bool = False,
    ) -> None:
        super().__init__()
        self.conv = ReparamLargeKernelConv(dim, lk_kernel, sk_kernel, fused_init)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.ffn = GatedFFN(dim, hidden, drop_rate)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).permute(0, 2, 3, 1)
        y = self.ffn(self.norm(y)).permute(0, 3, 1, 2)
        return x + self.drop_path(y)


class Upsample(nn.Sequential):
    """
    Sub-pixel upsampling, (B, F, H, W) -> (B, F, s*H, s*W), in steps of two or one of three.

    Args:
        scale: s, a power of two (1 does nothing) or 3.
        num_feat: F.

    Source: Shi et al., Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel CNN, 2016.
    """

    def __init__(self, scale: int, num_feat: int) -> None:
        layers: List[nn.Module] = []
        for step in upsample_steps(scale):
            layers += [nn.Conv2d(num_feat, step * step * num_feat, 3, padding=1), nn.PixelShuffle(step)]
        super().__init__(*layers)


def initialise(module: nn.Module) -> None:
    """Gives a convolution or linear layer the network's own initial weights; to be applied to every module."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class aether(nn.Module):  # noqa: N801 - the name that training frameworks register
    """
    The network, (B, in_chans, H, W) -> (B, out_chans, upscale*H, upscale*W), any H and W from 1.

    Args:
        in_chans: input channels; 3 are taken for RGB and centred on 0.5.
        out_chans: output channels, ``in_chans`` unless given.
        embed_dim: width C of the body.
        depths: blocks in each group of the body.
        mlp_ratio: hidden width of the feed-forward layers over ``embed_dim``.
        drop_rate: dropout in the feed-forward layers, in training.
        drop_path_rate: stochastic depth of the last block, in training; earlier ones rise to it from 0.
        lk_kernel, sk_kernel: sides of the large and the small kernel, odd.
        upscale: a power of two (1 included) or 3.
        img_range: factor between [0, 1] and the values the body works on. It leaves no trace in a state dict.
        fused_init: build the fused form, with one kernel where training has two.
        num_feat: width F of the upsampler.

    Raises:
        ValueError: an argument is out of its range, or an image has not got four axes.

    Attributes:
        hyperparameters: the arguments above, as given.
        engine: what may compute an image in the network's place, faster, where that is possible; it returns None where
            it is not. Whoever has one gives it to the class.
    """

    engine: ClassVar[Optional[Callable[[Any, Tensor], Optional[Tensor]]]] = None

    def __init__(
        self,
        in_chans: int = 3,
        out_chans: Optional[int] = None,
        embed_dim: int = 128,
        depths: Sequence[int] = (6, 6, 6, 6),
        mlp_ratio: float = 2.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        lk_kernel: int = 11,
        sk_kernel: int = 3,
        upscale: int = 4,
        img_range: float = 1.0,
        fused_init: bool = False,
        num_feat: int = 64,
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        out_chans = in_chans if out_chans is None else out_chans
        check_sizes(embed_dim, depths, mlp_ratio, lk_kernel, sk_kernel, in_chans=in_chans, out_chans=out_chans)
        check_factors(img_range=img_range)
        self.hyperparameters: Dict[str, Any] = {**arguments, "out_chans": out_chans, "depths": tuple(depths)}
        self.upscale = upscale
        self.img_range = float(img_range)
        self.mean = 0.5 if in_chans == 3 else 0.0

        self.conv_first = nn.Conv2d(in_chans, embed_dim, 3, padding=1)
        hidden, rates = int(embed_dim * mlp_ratio), rising_rates(drop_path_rate, depths)
        self.layers = nn.ModuleList(
            nn.Sequential(
                *(
                    AetherBlock(embed_dim, hidden, lk_kernel, sk_kernel, drop_rate, next(rates), fused_init)
                    for _ in range(depth)
                )
            )
            for depth in depths
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = nn.Conv2d(embed_dim, embed_dim, 3, padding=1)
        self.conv_before_upsample = nn.Sequential(
            nn.Conv2d(embed_dim, num_feat, 3, padding=1), nn.LeakyReLU(0.01, inplace=True)
        )
        self.upsample = Upsample(upscale, num_feat)
        self.conv_last = nn.Conv2d(num_feat, out_chans, 3, padding=1)
        self.apply(initialise)

    @property
    def fused(self) -> bool:
        """Whether every block has one kernel instead of two."""
        return all(module.fused for module in self.modules() if isinstance(module, ReparamLargeKernelConv))

    def fuse_model(self) -> aether:
        """Merges the large and the small kernel of every block, in place, and returns the model itself."""
        for module in self.modules():
            if isinstance(module, ReparamLargeKernelConv):
                module.fuse()
        self.hyperparameters["fused_init"] = True
        return self

    def forward(self, x: Tensor) -> Tensor:
        check_axes(x)
        y = self.engine(x) if self.engine is not None else None
        if y is not None:
            return y
        x = (x - self.mean) * self.img_range
        shallow = deep = self.conv_first(x)
        for group in self.layers:
            deep = group(deep)
        deep = self.norm(deep.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.conv_after_body(deep) + shallow
        x = self.conv_last(self.upsample(self.conv_before_upsample(x)))
        return x / self.img_range + self.mean


def aether_small(**kwargs: Any) -> aether:
    """The small variant; keyword arguments go to ``aether``."""
    return aether(**{**JUNE_SIZES["small"], **kwargs})


def aether_medium(**kwargs: Any) -> aether:
    """The medium variant; keyword arguments go to ``aether``."""
    return aether(**{**JUNE_SIZES["medium"], **kwargs})


def aether_large(**kwargs: Any) -> aether:
    """The large variant; keyword arguments go to ``aether``."""
    return aether(**{**JUNE_SIZES["large"], **kwargs})


def _deduce_aether_params_from_state_dict(state_dict: Mapping[Any, Any]) -> Dict[str, Any]:
    """
    Reads the constructor arguments of ``aether`` off the shapes in a state dict or checkpoint.

    ``img_range`` and the drop rates leave no trace and are not returned; ``sk_kernel`` of a fused network is not
    known any more and has no effect.

    Raises:
        ValueError: the weights are damaged; names the first key at fault.
    """
    weights = weights_in(state_dict, JUNE)
    parameters = read_parameters(weights)
    check_weights(weights, without_memory(aether, **parameters))
    return parameters


def read_parameters(weights: StateDict) -> Dict[str, Any]:
    """Reads the same off clean weights, provided that they are whole; ``ValueError`` where nothing tells a size."""
    fused = the_one_form(weights, JUNE) == "fused"
    depths = shapes.deduce_depths(weights, JUNE, fused)
    blocks = shapes.block_names(JUNE, depths)
    vote = shapes.Votes(
        weights, blocks, lambda key: 1 if key.endswith("bias") or "norm." in key else 2 if ".ffn." in key else 4
    )
    large = "conv.fused_conv.weight" if fused else "conv.lk_conv.weight"
    embed_dim = vote.in_blocks(("norm.weight", 0), ("norm.bias", 0), (large, 0))
    hidden = vote.in_blocks(("ffn.fc1_gate.weight", 0), ("ffn.fc1_gate.bias", 0), ("ffn.fc1_main.bias", 0))
    lk_kernel = vote.in_blocks((large, 2), (large, 3))
    sk_kernel = min(3, lk_kernel) if fused else vote.in_blocks(("conv.sk_conv.weight", 2), ("conv.sk_conv.weight", 3))
    shapes.check_kernels(blocks[0], large, lk_kernel, sk_kernel)
    num_feat = vote(("conv_before_upsample.0.weight", 0), ("conv_before_upsample.0.bias", 0), ("conv_last.weight", 1))
    return {
        "in_chans": vote(("conv_first.weight", 1)),
        "out_chans": vote(("conv_last.weight", 0), ("conv_last.bias", 0), ("conv_first.weight", 1)),
        "embed_dim": embed_dim,
        "depths": depths,
        "mlp_ratio": shapes.deduce_mlp_ratio(embed_dim, hidden),
        "lk_kernel": lk_kernel,
        "sk_kernel": sk_kernel,
        "upscale": shapes.deduce_upscale(weights, num_feat),
        "fused_init": fused,
        "num_feat": num_feat,
    }
