"""How an image is divided, and the layers that work on its strips of rows and slices of pixels, by public operators."""

from __future__ import annotations

import copy
from typing import Any, Callable, Iterator, NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..__arch.fusing import merge_kernels
from .eligible import DeclinedError, has_bfloat16, is_of_intel, vector_width
from .team import has_products, number_of_threads

Weights = Tuple[Tensor, Tensor]

_GROUPS = (16, 12, 8, 15, 14, 13, 11, 10, 9)
"""Channels that a depthwise convolution is fast with: oneDNN's was measured to take a quarter of the time of many."""


def in_single_precision(x: Tensor, network: Any) -> Tuple[Tensor, Any]:
    """Returns both in float32, for processors that compute in half precision by software take tenfold."""
    if x.dtype == torch.float32 or (x.dtype == torch.bfloat16 and has_bfloat16()):
        return x, network
    return x.float(), _twin(network)


def _twin(of: Any) -> Any:
    """The same in float32, a tensor or a module, which shares all else with the given one; that one may be in use."""
    if of is None or isinstance(of, Tensor):
        return of.float() if of is not None and of.is_floating_point() else of
    twin = copy.copy(of)
    for kind in ("_parameters", "_buffers", "_modules"):
        vars(twin)[kind] = {name: _twin(own) for name, own in vars(of)[kind].items()}
    return twin


class Layout:
    """
    How images, (B, _, H, W), are divided for a network.

    Attributes:
        strips: the first row of each and the one after its last; no layer reaches past those next to it.
        helpers: how many threads share them out; 0 where the calling one does it all.

    Raises:
        DeclinedError: most of the threads would have nothing to do.
    """

    def __init__(self, network: Any, x: Tensor) -> None:
        self.height, self.width = x.shape[2:]
        self.reach = network.hyperparameters["lk_kernel"] // 2
        pixels, most, threads = self.height * self.width, self.height // max(16, self.reach), number_of_threads()
        self.small, self.few = pixels < 2**12, pixels < 2**13  # for which it is calls that cost, and not what they do
        self.helpers = 0 if self.small or threads == 1 else min(threads, most, 16)
        if not self.small and threads > max(1, 2 * self.helpers - (self.helpers == 1)):
            raise DeclinedError
        number = 1 if self.small else max(1, min(most, max(2 * threads - 1, min(pixels // 2**13, self.height // 32))))
        edges = [self.height * strip // number for strip in range(number + 1)]
        self.strips = list(zip(edges, edges[1:]))

    def plane(self, channels: int, dtype: torch.dtype, memory: Optional[Tensor] = None) -> Tensor:
        """Returns room for an image, (1, C, H, W), a pixel in one piece, in given memory if that is enough."""
        size = channels * self.height * self.width
        if memory is None or memory.numel() < size:
            memory = torch.empty(size, dtype=dtype, device="cpu")
        return memory.flatten()[:size].view(1, self.height, self.width, channels).permute(0, 3, 1, 2)

    def bodies(self, channels: int, dtype: torch.dtype) -> Tuple[Body, Body]:
        """
        Returns two, in one piece of memory.

        The C library keeps twice as much as was freed in one piece for the next tensors, and else maps memory anew for
        each. That would take a third of a small image's time, whose piece is therefore larger than what it is used for.
        """
        groups = 1 if self.few else channels // next((size for size in _GROUPS if channels % size == 0), channels)
        size = (groups, self.height + 2 * self.reach, self.width, channels // groups)
        memory = torch.empty(8 if self.small else 2, *size, dtype=dtype, device="cpu")
        return Body(memory[0], self.reach), Body(memory[1], self.reach)


class Body(NamedTuple):
    """An image between blocks, (G, reach + H + reach, W, C/G): its channels in groups, zeros above and below."""

    memory: Tensor
    reach: int

    def pixels(self, top: int, bottom: int) -> Tensor:
        """Returns the pixels of some rows: (G, P, C/G)."""
        return self.memory[:, top + self.reach : bottom + self.reach].flatten(1, 2)

    def together(self, top: int, bottom: int) -> Tensor:
        """Returns the pixels of some rows with all their channels: (P, C)."""
        return self.pixels(top, bottom).transpose(0, 1).flatten(1)

    def apart(self, pixels: Tensor) -> Tensor:
        """Returns pixels (P, C) in groups, (G, P, C/G): a view, or a copy where adding short rows is slow."""
        view = pixels.unflatten(1, (len(self.memory), -1)).transpose(0, 1)
        return view if pixels.dtype == torch.float32 else view.contiguous()

    def convolved(self, weights: Weights, top: int, bottom: int) -> Tensor:
        """Returns what a depthwise convolution, (C, 1, K, K) and (C), makes of some rows: (P, C)."""
        size, rows = self.memory.shape[3], self.memory[:, top : bottom + 2 * self.reach].permute(0, 3, 1, 2)
        out = rows.new_empty((bottom - top) * rows.shape[3], len(weights[1]))
        groups = zip(out.split(size, 1), rows.split(1), *(each.split(size) for each in weights))
        for part, group, weight, bias in groups:
            made = pixels_of(F.conv2d(group, weight, bias, padding=(0, self.reach), groups=size))
            if len(rows) == 1:
                return made
            part.copy_(made)
        return out


class Branch(NamedTuple):
    """What a block adds to an image: a depthwise convolution, a norm, and a gated feed-forward layer."""

    kernels: Weights
    norm: Callable[[Tensor], Tensor]
    gate: Weights
    main: Weights
    out: Weights
    activation: Callable[[Tensor], Tensor]

    def of(self, body: Body, top: int, bottom: int) -> Iterator[Tuple[slice, Tensor]]:
        """
        Yields it for some rows, slice by slice of their pixels, (P, C).

        Pixels are independent after the convolution, and so many are worked on at a time that their hidden units take
        a megabyte and a half, as caches hold; but not so few that calls cost more than that gains.
        """
        x = body.convolved(self.kernels, top, bottom)
        widths = [len(bias) for _, bias in (self.gate, self.main, self.out)]
        number = max(1, round(len(x) / max(384, 3 * 2**19 // (widths[0] * x.element_size()))))
        size = -(-len(x) // (16 * number)) * 16
        rooms = [x.new_empty(size, width) for width in widths]
        for start in range(0, len(x), size):
            pixels = self.norm(x[start : start + size])
            hidden = self.activation(product(pixels, self.gate, rooms[0])).mul_(product(pixels, self.main, rooms[1]))
            yield slice(start, start + size), product(hidden, self.out, rooms[2])


def kernels_of(conv: Any) -> Weights:
    """Returns the one kernel (C, 1, K, K) and bias (C) of a large-kernel convolution."""
    if conv.fused:
        return conv.fused_conv.weight, conv.fused_conv.bias
    return merge_kernels(conv.lk_conv.weight, conv.lk_bias, conv.sk_conv.weight, conv.sk_bias)


def pixels_of(x: Tensor, top: int = 0, bottom: Optional[int] = None) -> Tensor:
    """Returns the pixels of some rows of an image, (1, C, H, W) -> (P, C)."""
    return x[:, :, top:bottom].permute(0, 2, 3, 1).flatten(0, 2)


def around(
    layer: Callable[[Tensor], Tensor], x: Tensor, top: int, bottom: int, reach: int = 1, scale: int = 1
) -> Tensor:
    """Returns what a layer, which reaches so many rows and makes ``scale`` of one, makes of some rows of an image."""
    first = max(top - reach, 0)
    return layer(x[:, :, first : bottom + reach])[:, :, (top - first) * scale : (bottom - first) * scale]


def product(pixels: Tensor, weights: Weights, room: Tensor) -> Tensor:
    """
    Returns what a linear layer or 1x1 convolution makes of pixels, (P, C) -> (P, D); it may write to ``room``.

    MKL's products make a forward 5 to 20 % faster than oneDNN's at 256 bits and on Intel's processors; on others of 512
    bits they are half as fast. oneDNN is asked for 16 images, as PyTorch leaves fewer to MKL where there is one thread.
    """
    number, (weight, bias) = len(pixels), weights
    if pixels.dtype == torch.float32 and (vector_width() == 256 or is_of_intel()) and has_products():
        return torch.addmm(bias, pixels, weight.flatten(1).t(), out=room[:number])
    if number % 16:
        pixels = F.pad(pixels, (0, 0, 0, -number % 16))
    images = pixels.view(16, -1, 1, pixels.shape[1]).permute(0, 3, 1, 2)
    return pixels_of(F.conv2d(images, weight.view(*weight.shape[:2], 1, 1), bias))[:number]
