"""
The network written down literally, step by step as it is specified: the oracle for results and the baseline for speed.

Nothing in here is clever, and nothing is shared with the payload but the names of the weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainConv(nn.Module):
    def __init__(self, dim: int, lk_kernel: int, sk_kernel: int, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        if fused:
            self.fused_conv = nn.Conv2d(dim, dim, lk_kernel, padding=lk_kernel // 2, groups=dim)
        else:
            self.lk_conv = nn.Conv2d(dim, dim, lk_kernel, padding=lk_kernel // 2, groups=dim, bias=False)
            self.sk_conv = nn.Conv2d(dim, dim, sk_kernel, padding=sk_kernel // 2, groups=dim, bias=False)
            self.lk_bias = nn.Parameter(torch.zeros(dim))
            self.sk_bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        if self.fused:
            return self.fused_conv(x)
        large = self.lk_conv(x) + self.lk_bias.view(1, -1, 1, 1)
        small = self.sk_conv(x) + self.sk_bias.view(1, -1, 1, 1)
        return large + small


class PlainFFN(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1_gate = nn.Linear(dim, hidden)
        self.fc1_main = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1_gate(x)) * self.fc1_main(x))


class PlainBlock(nn.Module):
    def __init__(self, dim: int, hidden: int, lk_kernel: int, sk_kernel: int, fused: bool) -> None:
        super().__init__()
        self.conv = PlainConv(dim, lk_kernel, sk_kernel, fused)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.ffn = PlainFFN(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).permute(0, 2, 3, 1)
        y = self.ffn(self.norm(y))
        return x + y.permute(0, 3, 1, 2)


class PlainAether(nn.Module):
    def __init__(
        self,
        in_chans: int = 3,
        out_chans: int | None = None,
        embed_dim: int = 128,
        depths: tuple[int, ...] = (6, 6, 6, 6),
        mlp_ratio: float = 2.0,
        lk_kernel: int = 11,
        sk_kernel: int = 3,
        upscale: int = 4,
        img_range: float = 1.0,
        fused_init: bool = False,
        num_feat: int = 64,
    ) -> None:
        super().__init__()
        out_chans = in_chans if out_chans is None else out_chans
        hidden = int(embed_dim * mlp_ratio)
        self.img_range = img_range
        self.mean = 0.5 if in_chans == 3 else 0.0
        self.conv_first = nn.Conv2d(in_chans, embed_dim, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(*(PlainBlock(embed_dim, hidden, lk_kernel, sk_kernel, fused_init) for _ in range(depth)))
            for depth in depths
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = nn.Conv2d(embed_dim, embed_dim, 3, padding=1)
        self.conv_before_upsample = nn.Sequential(nn.Conv2d(embed_dim, num_feat, 3, padding=1), nn.LeakyReLU(0.01))
        stages: list[nn.Module] = []
        if upscale == 3:
            stages = [nn.Conv2d(num_feat, 9 * num_feat, 3, padding=1), nn.PixelShuffle(3)]
        else:
            while upscale > 1:
                stages += [nn.Conv2d(num_feat, 4 * num_feat, 3, padding=1), nn.PixelShuffle(2)]
                upscale //= 2
        self.upsample = nn.Sequential(*stages)
        self.conv_last = nn.Conv2d(num_feat, out_chans, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) * self.img_range
        first = self.conv_first(x)
        x = first
        for group in self.layers:
            x = group(x)
        x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.conv_after_body(x) + first
        x = self.conv_last(self.upsample(self.conv_before_upsample(x)))
        return x / self.img_range + self.mean
