"""
The later generation's network written down literally, formula by formula: the oracle for results and the baseline for
speed.

Nothing in here is clever, and nothing is shared with the payload but the names of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from plain import PlainConv
from torch import Tensor, nn

EPS = 1e-4


class PlainDeploymentNorm(nn.Module):
    def __init__(self, dim: int, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.weight = nn.Parameter(torch.ones(1, dim, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, dim, 1, 1))
        if not fused:
            self.register_buffer("running_mean", torch.zeros(1, dim, 1, 1))
            self.register_buffer("running_var", torch.ones(1, dim, 1, 1))

    def forward(self, t: Tensor) -> Tensor:
        if self.fused:
            return t * self.weight + self.bias
        return (t - self.running_mean) / (self.running_var + EPS).sqrt() * self.weight + self.bias


class PlainLayerNorm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, t: Tensor) -> Tensor:
        mean = t.mean(1, keepdim=True)
        variance = ((t - mean) ** 2).mean(1, keepdim=True)
        t = (t - mean) / (variance + 1e-5).sqrt()
        return t * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


def plain_norm(dim: int, norm_type: str, fused: bool) -> nn.Module:
    return PlainLayerNorm(dim) if norm_type == "layernorm" else PlainDeploymentNorm(dim, fused)


class PlainGatedConvFFN(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(1))
        self.conv_gate = nn.Conv2d(dim, hidden, 1)
        self.conv_main = nn.Conv2d(dim, hidden, 1)
        self.conv_out = nn.Conv2d(hidden, dim, 1)

    def forward(self, t: Tensor) -> Tensor:
        return self.conv_out(F.silu(self.temperature * self.conv_gate(t)) * self.conv_main(t))


class PlainChannelAttention(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Conv2d(dim, dim // 8, 1, bias=False), nn.ReLU(), nn.Conv2d(dim // 8, dim, 1, bias=False)
        )

    def forward(self, t: Tensor) -> Tensor:
        return t * torch.sigmoid(self.fc(t.mean((2, 3), keepdim=True)))


class PlainSpatialAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, t: Tensor) -> Tensor:
        maps = torch.cat([t.amax(1, keepdim=True), t.mean(1, keepdim=True)], 1)
        return t * torch.sigmoid(self.conv(maps))


class PlainBlock3(nn.Module):
    def __init__(
        self,
        dim: int,
        hidden: int,
        lk_kernel: int,
        sk_kernel: int,
        norm_type: str,
        channel: bool,
        spatial: bool,
        fused: bool,
    ) -> None:
        super().__init__()
        self.conv = PlainConv(dim, lk_kernel, sk_kernel, fused)
        self.norm = plain_norm(dim, norm_type, fused)
        self.ffn = PlainGatedConvFFN(dim, hidden)
        if channel:
            self.channel_attn = PlainChannelAttention(dim)
        if spatial:
            self.spatial_attn = PlainSpatialAttention()

    def forward(self, h: Tensor) -> Tensor:
        t = self.ffn(self.norm(self.conv(h)))
        if hasattr(self, "channel_attn"):
            t = self.channel_attn(t)
        if hasattr(self, "spatial_attn"):
            t = self.spatial_attn(t)
        return t


class PlainFusion(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fusion_conv = nn.Conv2d(dim, dim, 1)
        self.error_comp = nn.Parameter(torch.zeros(1, dim, 1, 1))

    def forward(self, f: Tensor) -> Tensor:
        return self.fusion_conv(f) + self.error_comp


class PlainUpsample3(nn.Module):
    def __init__(self, dim: int, feat: int, scale: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        if scale == 1:
            blocks = [nn.Conv2d(dim, feat, 3, padding=1)]
        elif scale == 3:
            blocks = [nn.Conv2d(dim, 9 * feat, 3, padding=1), nn.PixelShuffle(3)]
        else:
            while scale > 1:
                scale //= 2
                after = feat if scale == 1 else dim // 2
                blocks += [nn.Conv2d(dim, 4 * after, 3, padding=1), nn.PixelShuffle(2)]
                dim = after
        self.blocks = nn.Sequential(*blocks)

    def forward(self, u: Tensor) -> Tensor:
        return self.blocks(u)


class PlainAether3(nn.Module):
    def __init__(
        self,
        in_chans: int = 3,
        embed_dim: int = 128,
        depths: Sequence[int] = (6, 6, 6, 6),
        mlp_ratio: float = 1.5,
        lk_kernel: int = 13,
        sk_kernel: int = 5,
        scale: int = 2,
        img_range: float = 1.0,
        fused_init: bool = False,
        use_channel_attn: bool = True,
        use_spatial_attn: bool = False,
        norm_type: str = "deployment",
        res_scale: float = 0.1,
    ) -> None:
        super().__init__()
        dim, stages = embed_dim, len(depths)
        hidden = int(dim * mlp_ratio)
        feat = max(32, (dim // max(1, scale // 2)) & ~1)
        self.img_range = img_range
        self.res_scale = res_scale
        self.register_buffer("scale_tensor", torch.tensor(scale))
        self.register_buffer("mean", torch.full((1, in_chans, 1, 1), 0.5))
        self.conv_first = nn.Conv2d(in_chans, dim, 3, padding=1)
        attentions = use_channel_attn, use_spatial_attn
        self.stages = nn.ModuleList(
            nn.ModuleList(
                PlainBlock3(dim, hidden, lk_kernel, sk_kernel, norm_type, *attentions, fused_init) for _ in range(depth)
            )
            for depth in depths
        )
        widths = [dim // stages + (1 if stage < dim % stages else 0) for stage in range(stages)]
        self.fusion_convs = nn.ModuleList(nn.Conv2d(dim, width, 1) for width in widths)
        self.quant_fusion_layer = PlainFusion(dim)
        self.norm = plain_norm(dim, norm_type, fused_init)
        self.conv_after_body = nn.Conv2d(dim, dim, 3, padding=1)
        self.conv_before_upsample = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), nn.LeakyReLU(0.01))
        self.upsample = PlainUpsample3(dim, feat, scale)
        self.conv_last = nn.Conv2d(feat, in_chans, 3, padding=1)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        z = x / self.img_range - self.mean
        h = h0 = self.conv_first(z)
        features = []
        for stage, fusion_conv in zip(self.stages, self.fusion_convs, strict=True):
            for block in stage:
                h = h + self.res_scale * block(h)
            features.append(fusion_conv(h))
        f = self.quant_fusion_layer(torch.cat(features, 1))
        u = self.norm(f) + h0
        u = self.conv_after_body(u) + u
        u = self.conv_before_upsample(u)
        return (self.conv_last(self.upsample(u)) + self.mean) * self.img_range
