"""
AetherNet, a super-resolution network of large-kernel depthwise convolutions and gated feed-forward layers.

This is the one definition of the network (June 2025 generation, the one whose keys start with ``layers.``): training
frameworks train it, spandrel loads it, and ``aether-install fuse`` runs it. It needs PyTorch 2.0 or later and nothing
else. Images are NCHW tensors with values in [0, 1].

The upper half of the file is the network, the lower half reads checkpoints: where a file keeps the weights, which
parameters they were trained with, and what is wrong with them if they are damaged.
"""

from __future__ import annotations

import _thread
import contextlib
import copy
import ctypes
import functools
import math
import os
import queue
import re
import sys
import time
from collections import Counter, deque
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Pattern,
    Sequence,
    Set,
    Tuple,
    TypeVar,
    Union,
)

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as modules

__all__ = [
    "VARIANTS",
    "AetherBlock",
    "DropPath",
    "GatedFFN",
    "ReparamLargeKernelConv",
    "Upsample",
    "aether",
    "aether_large",
    "aether_medium",
    "aether_small",
    "assumed_arguments",
    "build_aether",
    "clean_state_dict",
    "describe",
    "detect_form",
    "fold_img_range",
    "fuse_state_dict",
    "prepare_aether",
    "refusal",
    "variant_name",
]

StateDict = Dict[str, Tensor]
Network = TypeVar("Network", bound=nn.Module)
Result = TypeVar("Result")
Linear = Callable[..., Tensor]
Step = Sequence[Callable[[], object]]

if hasattr(getattr(torch, "compiler", None), "is_compiling"):
    _is_compiling = torch.compiler.is_compiling
else:  # before PyTorch 2.3; 2.1 and 2.2 have torch.compiler without it
    _is_compiling = torch._utils.is_compiling


class _Conv2d(nn.Conv2d):
    def reset_parameters(self) -> None:
        _initialise(self)


class _Linear(nn.Linear):
    def reset_parameters(self) -> None:
        _initialise(self)


class _Sequential(nn.Sequential):
    """PyTorch's own, told from those that an application puts around a layer."""


def _initialise(layer: Union[nn.Conv2d, nn.Linear]) -> None:
    """The network's own initialisation, in place of PyTorch's and not after it; none for a layer without memory."""
    if not layer.weight.is_meta:
        nn.init.trunc_normal_(layer.weight, std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


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
        return x * mask.div_(keep)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob:g}"


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


class ReparamLargeKernelConv(nn.Module):
    """
    A depthwise convolution, (B, C, H, W) -> (B, C, H, W), trained as a large and a small kernel side by side.

    ``fuse()`` turns the two into the one convolution they amount to.

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
        return _Conv2d(self.channels, self.channels, kernel, padding=kernel // 2, groups=self.channels, bias=bias)

    @property
    def fused(self) -> bool:
        """Whether the two kernels are one."""
        return hasattr(self, "fused_conv")

    @property
    def reach(self) -> int:
        """How many rows around its own the convolution looks at."""
        return (self.fused_conv if self.fused else self.lk_conv).weight.shape[-1] // 2

    def forward(self, x: Tensor) -> Tensor:
        if self.fused:
            return self.fused_conv(x)
        # The biases ride along inside the convolutions: added by themselves, each costs a pass over the whole tensor.
        large = F.conv2d(x, self.lk_conv.weight, self.lk_bias, padding=self.lk_kernel // 2, groups=self.channels)
        small = F.conv2d(x, self.sk_conv.weight, self.sk_bias, padding=self.sk_kernel // 2, groups=self.channels)
        return large.add_(small)

    def merged(self) -> Tuple[Tensor, Tensor]:
        """Returns the weight (C, 1, K, K) and bias (C) of the one convolution that this layer amounts to."""
        if self.fused:
            return self.fused_conv.weight, self.fused_conv.bias
        return merge_kernels(self.lk_conv.weight, self.lk_bias, self.sk_conv.weight, self.sk_bias)

    @torch.inference_mode(False)  # whose tensors could not be trained later
    @torch.no_grad()
    def fuse(self) -> None:
        """Merges the two kernels in place. The output stays the same; what is already fused is left alone."""
        if self.fused:
            return
        weight, bias = self.merged()
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
        self.fc1_gate = _Linear(dim, hidden)
        self.fc1_main = _Linear(dim, hidden)
        self.drop = nn.Dropout(drop_rate)
        self.fc2 = _Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.drop(F.gelu(self.fc1_gate(x)) * self.fc1_main(x)))

    def forward_(self, x: Tensor, linear: Linear) -> Tensor:
        """``forward`` for inference, of pixels, (P, C), in the way that ``faster_linear`` says."""
        hidden = linear(x, self.fc1_gate, "gelu").mul_(linear(x, self.fc1_main))
        return linear(hidden, self.fc2)


def _matrix_product(x: Tensor, layer: Union[nn.Linear, nn.Conv2d], activation: str = "none") -> Tensor:
    """A linear layer or 1x1 convolution, for inference, of pixels, (P, C) -> (P, D), then ``gelu`` or ``none``."""
    y = F.linear(x, _matrix(layer), layer.bias)
    return y if activation == "none" else F.gelu(y, out=y)


def _inner_product(x: Tensor, layer: Union[nn.Linear, nn.Conv2d], activation: str = "none") -> Tensor:
    """The same in one operation by oneDNN, which torch.compile uses as well, where float32 otherwise goes to MKL."""
    return torch.ops.mkldnn._linear_pointwise.default(x, _matrix(layer), layer.bias, activation, [], "none")


def _matrix(layer: Union[nn.Linear, nn.Conv2d]) -> Tensor:
    """The weight, (D, C); an operation only where it has to be, as small images feel each of them."""
    return layer.weight if layer.weight.dim() == 2 else layer.weight.flatten(1)


def faster_linear(dtype: torch.dtype, pixels: int, *layers: Union[nn.Linear, nn.Conv2d]) -> Linear:
    """
    In which of these two ways such layers are faster here, of so many pixels at a time.

    Either library may not know a processor: MKL was measured to be half as fast as oneDNN on one and as fast on
    another. So both are timed, once for each size, in some hundredths of a second.
    """
    # In bfloat16 a matrix product is oneDNN's already.
    if dtype != torch.float32 or _autocasts():
        return _matrix_product
    saved, about = 0.0, min(2**11, 2 ** (pixels - 1).bit_length())
    for layer in layers:
        if layer.weight.dtype != torch.float32:
            return _matrix_product
        saved += _inner_product_saves(*layer.weight.shape[:2], about, torch.get_num_threads())
    return _inner_product if saved > 0 else _matrix_product


def linear_(x: Tensor, layer: Union[nn.Linear, nn.Conv2d]) -> Tensor:
    """One layer for inference, of pixels, (P, C) -> (P, D), in the way that is faster here."""
    return faster_linear(x.dtype, len(x), layer)(x, layer)


@functools.lru_cache(maxsize=None)
def _inner_product_saves(outputs: int, inputs: int, pixels: int, threads: int) -> float:  # noqa: ARG001
    """Seconds that ``_inner_product`` takes less for such a layer on so many threads, which are those set."""
    x, layer = _made_up(outputs, inputs, pixels)
    try:
        return _saved(*(functools.partial(way, x, layer) for way in (_matrix_product, _inner_product)))
    except (AttributeError, RuntimeError):  # PyTorch without oneDNN, or 2.0, where it needs an activation
        return 0.0


def _made_up(outputs: int, inputs: int, pixels: int) -> Tuple[Tensor, nn.Linear]:
    """Pixels and a layer to measure with, for which no random numbers of the application's are used up."""
    like = {"dtype": torch.float32, "device": "cpu"}
    layer = _Linear(inputs, outputs, device="meta")
    layer.weight = nn.Parameter(torch.ones(outputs, inputs, **like))
    layer.bias = nn.Parameter(torch.ones(outputs, **like))
    return torch.ones(pixels, inputs, **like), layer


def _saved(usual: Callable[[], object], other: Callable[[], object]) -> float:
    """Seconds by which the other function is faster, after some runs of each in turns."""
    times: List[List[float]] = [[], []]
    for _ in range(5):
        for function, seconds in zip((usual, other), times):
            function()  # with what only the first run costs
            start = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - start)
        if max(map(min, times)) > 8 * min(map(min, times)):  # nothing is left to find out, and it may take long
            break
    return min(times[0]) - min(times[1])


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled


def _autocasts() -> bool:
    try:
        return torch.is_autocast_enabled("cpu")
    except TypeError:  # before PyTorch 2.4
        return torch.is_autocast_cpu_enabled()


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
        y = self.ffn(self.norm(self.conv(x).permute(0, 2, 3, 1)))
        return x + self.drop_path(y.permute(0, 3, 1, 2))

    def steps_(self, parts: Parts) -> Iterator[Step]:
        """
        ``forward`` for inference, in place, as steps for ``Team.run``.

        Pixels are independent after the convolution, so norm and feed-forward layer run over slices of them that
        stay in the processor's cache, where whole tensors of hidden units would go to memory and back four times.
        """
        linear = parts.faster_linear(self.ffn.fc1_gate, self.ffn.fc1_main, self.ffn.fc2)

        def transform(part: Part, start: int, stop: int) -> None:
            out = self.ffn.forward_(self.norm(part.convolved[start:stop]), linear)
            part.pixels[:, start:stop].add_(to_groups(out, len(part.pixels)))

        return parts.steps(self.conv.merged, transform)


class Part:
    """
    Some rows of an image whose channels are in groups.

    Args:
        x: (G, B, H, W, C/G), or for one image (G, 1, margin + H + margin, W, C/G), with zeros around.
        convolved: room for what the convolution makes of them, (B*H*W, C).
        top, bottom: the first row and the one after the last, of H.
        margin: how many rows around its own a convolution finds there; it adds zeros by itself where that is 0.

    Attributes:
        pixels: those of its own rows, (G, P, C/G).
        convolved: what the convolution has made of them, (P, C).
    """

    def __init__(self, x: Tensor, convolved: Tensor, top: int, bottom: int, margin: int) -> None:
        groups, batch, _, width, size = x.shape
        self.pixels = x[:, :, top + margin : bottom + margin].view(groups, batch * (bottom - top) * width, size)
        self._margin = margin
        self._rows = x[:, :, top : bottom + 2 * margin]
        self.convolved = convolved[batch * top * width : batch * bottom * width]

    def convolution(self, kernels: Callable[[], Sequence[Tuple[Tensor, Tensor]]]) -> Step:
        """A depthwise convolution, group by group, each with a weight (C/G, 1, K, K) and bias (C/G)."""
        groups, pixels, size = self.pixels.shape

        def convolve(group: int) -> None:
            weight, bias = kernels()[group]
            reach = weight.shape[-1] // 2
            x = self._rows[group].permute(0, 3, 1, 2)
            y = F.conv2d(x, weight, bias, padding=(reach - self._margin, reach), groups=size)
            y = y.permute(0, 2, 3, 1).reshape(-1, size)
            if groups == 1:
                self.convolved = y
            else:  # kept by several threads, each in memory of its own, results would take up more than one place
                self.convolved[:, group * size : (group + 1) * size] = y

        return [functools.partial(convolve, group) for group in range(groups if pixels else 0)]


class Parts:
    """
    A copy of an image with its channels in groups, in two parts, so that a team can begin with one of them in time.

    Args:
        x: (B, C, H, W).
        reach: how many rows around its own a convolution looks at; with 0, all rows are one part.
        hidden: units that are made of each pixel.
        team: who works on them, in G groups. For a team of one, several images or a low one, all rows are one part as
            well.

    Attributes:
        image: (G, B, H, W, C/G).
        upper: the upper part, or all rows.
    """

    def __init__(self, x: Tensor, reach: int, hidden: int, team: Team) -> None:
        groups, (batch, channels, height, width) = team.groups, x.shape
        margin = reach if batch == 1 < team.size and height >= 8 * reach else 0
        rows = x.new_zeros(groups, batch, height + 2 * margin, width, channels // groups)
        self.image = rows[:, :, margin : margin + height]
        self.image.copy_(x.permute(0, 2, 3, 1).unflatten(3, (groups, -1)).permute(3, 0, 1, 2, 4))
        middle = (height + 1) // 2 if margin else height
        convolved = x.new_empty(batch * height * width, channels)
        self.upper = Part(rows, convolved, 0, middle, margin)
        self._lower = Part(rows, convolved, middle, height, margin)
        above, below = (
            [(part, *pixels) for pixels in slices_in_cache(part.pixels, hidden, team)]
            for part in (self.upper, self._lower)
        )
        self._slice = above[0][2] - above[0][1]
        first, last = margin * width, self.upper.pixels.shape[1] - margin * width
        self._slices = (
            [each for each in above if each[2] <= last],
            [each for each in above if each[2] > last] + [each for each in below if each[1] < first],
            [each for each in below if each[1] >= first],
        )

    def faster_linear(self, *layers: Union[nn.Linear, nn.Conv2d]) -> Linear:
        """In which way such layers are faster for slices of the image."""
        return faster_linear(self.image.dtype, self._slice, *layers)

    def steps(
        self, merged: Callable[[], Tuple[Tensor, Tensor]], transform: Callable[[Part, int, int], object]
    ) -> Iterator[Step]:
        """
        A depthwise convolution and then a function of slices of pixels, in place, as steps for ``Team.run``.

        Where such steps follow one another, each has to do with those right before and after it in nothing. The
        pixels in the middle, which the convolutions of both parts look at, have a step of their own for that, between
        the others of the upper and of the lower part.
        """
        groups = len(self.image)

        @functools.lru_cache(maxsize=None)
        def kernels() -> Sequence[Tuple[Tensor, Tensor]]:
            weight, bias = merged()
            return [*zip(weight.chunk(groups), bias.chunk(groups))]

        for part in (self.upper, self._lower):
            yield part.convolution(kernels)
        for slices in self._slices:
            yield [functools.partial(transform, *each) for each in slices]


def _groups(x: Tensor, channels: int) -> int:
    """
    Into how many groups to put so many channels of an image (B, _, H, W): of up to 16 channels where they divide.

    oneDNN's depthwise convolutions of so few were measured to be two (128 channels, 11x11) to four times (180 channels,
    13x13) as fast as those of more than 64. Small images stay in one group: calls would cost more than they gain.
    """
    if _is_small(x):
        return 1
    return channels // next((size for size in range(16, 7, -1) if channels % size == 0), channels)


def _is_small(x: Tensor) -> bool:
    """Whether images, (B, _, H, W), are so small that the calls to work on them are what costs."""
    return x.shape[0] * x.shape[2] * x.shape[3] < 2**13


def slices_in_cache(x: Tensor, hidden: int, team: Team) -> List[Tuple[int, int]]:
    """
    Which pixels of a tensor (G, pixels, C/G) to work on at a time: where each slice of them starts and stops.

    Their hidden units take one megabyte for each thread, which caches hold, and no more memory than a part of ``x``
    does; but there are never so few that calls cost more than caches gain. Each member of the team gets as many slices
    as the others. Where few operations are best, they take 16 megabytes, which are some milliseconds' work.
    """
    pixels = x.shape[1]
    if not pixels:
        return []
    per_megabyte = 2**20 // (hidden * x.element_size())
    most = 16 * per_megabyte if team.coarse else min(torch.get_num_threads() * per_megabyte, pixels // 4)
    slices = max(1, pixels // max(1024, most))
    count = -(-pixels // (-(-slices // team.size) * team.size))
    return [(start, min(start + count, pixels)) for start in range(0, pixels, count)]


@functools.lru_cache(maxsize=None)
def _recycle_memory() -> None:
    """
    Has the C library keep blocks of up to 32 megabytes for the next tensor, where it would return them to the system.

    Temporaries would have to be mapped, zeroed and unmapped by the system at each use, which takes a fifth of the first
    forward in a process. Linux's C library recycles blocks as large as any that was freed before, and up to twice as
    much in all at the end of its memory, as after every application that has freed a large image. So a block is made
    and freed, which is never written to. Other libraries do not care.

    What was freed before, as when a model was loaded, goes back to the system: a thread cannot recycle what another one
    has left, and members of a team would need as much once more.

    Source: mallopt(3), the dynamic threshold for mapping; malloc_trim(3).
    """
    with contextlib.suppress(AttributeError, OSError):  # another library
        _libraries().malloc_trim(0)
    torch.UntypedStorage(2**25 - 2**14, device="cpu")


def to_groups(pixels: Tensor, groups: int) -> Tensor:
    """(P, C) -> (G, P, C/G), to be added to something: a view, or a copy where adding short rows is slow."""
    if groups == 1:
        return pixels[None]
    grouped = pixels.unflatten(1, (groups, pixels.shape[1] // groups)).transpose(0, 1)
    return grouped if pixels.dtype == torch.float32 else grouped.contiguous()


def for_each_pixel(function: Callable[[Tensor], Tensor], x: Tensor, channels: int, team: Team) -> Tensor:
    """
    Applies a function of pixels, (P, C) -> (P, D), to channels in groups, (G, B, H, W, C/G).

    Slices of them, so that no copy of the whole is made. Returns (B, D, H, W), channels-last, where D is ``channels``.
    """
    groups, batch, height, width, size = x.shape
    x = x.view(groups, -1, size)
    out = x.new_empty(x.shape[1], channels)

    def apply(start: int, stop: int) -> None:
        out[start:stop] = function(x[:, start:stop].transpose(0, 1).flatten(1))

    team.map(apply, slices_in_cache(x, groups * size, team))
    return out.view(batch, height, width, channels).permute(0, 3, 1, 2)


class Team:
    """
    Threads that share out work while PyTorch uses one thread in each, for inference on a CPU.

    PyTorch by itself shares out each operation and waits for the slowest share of it, some fifty times in each block.
    With another program on one of the cores nearly every wait is for a thread that the system has put aside, and takes
    longer than the operation. A team shares out larger pieces, and who is put aside holds up one of them.

    A context manager to be entered twice, ``with Team(x, C) as team, team:``, for an interruption may come at any call,
    and the outer end makes up for what the inner ones could not begin or finish. For the same reason threads meet in
    queues written in C: conditions, events and threads written in Python may stay locked when they are interrupted.

    The caller is a member, and the others live as long as the context. A team of one leaves everything to PyTorch.

    Args:
        x: the image, (B, _, H, W), that decides on how many there are.
        channels: that are made of it for the body of a network.

    Attributes:
        coarse: whether few large operations are best, as each waits for Python's lock. Then there is one member.
        groups: into how many to put the channels, one if they are few or operations are to be.
        size: members, if all threads are to be had.
    """

    def __init__(self, x: Tensor, channels: int) -> None:
        self.coarse = _python_is_busy(x)
        self.groups = 1 if self.coarse else _groups(x, channels)
        self.size = _team_size(x, self.groups)
        self._inference = torch.is_inference_mode_enabled()
        self._one_thread = _OneThread()
        self._others = 0
        self._entered = False
        self._shared: queue.SimpleQueue[Optional[List[_Step]]] = queue.SimpleQueue()
        self._steps: List[_Step] = []
        self._errors: List[BaseException] = []  # of the others
        self._ended: queue.SimpleQueue[None] = queue.SimpleQueue()

    def __enter__(self) -> Team:
        if self._entered:
            _at_work.add(_thread.get_ident())
            if self.size > 1:
                self._one_thread.__enter__()
                with contextlib.suppress(RuntimeError):  # no more threads are to be had
                    for _ in range(self.size - 1):
                        _thread.start_new_thread(self._help, ())
                        self._others += 1
        self._entered = True
        return self

    def __exit__(self, *_: object) -> None:
        if self.size > 1:
            self._stop()
            for _ in range(self.size - 1):  # also for one that was interrupted while it was started
                self._shared.put(None)
            self._one_thread.__exit__()
            others, self._others = self._others, 0
            for _ in range(others):
                self._ended.get()
            self._errors.clear()
        _at_work.discard(_thread.get_ident())

    def map(self, function: Callable[..., Result], arguments: Iterable[Sequence[Any]]) -> List[Result]:
        """
        Calls the function with each tuple of arguments, and returns the results in their order.

        Raises:
            BaseException: what the function raised; calls that have not begun then are left out.
        """
        results: Dict[int, Result] = {}

        def call(index: int, each: Sequence[Any]) -> None:
            results[index] = function(*each)

        self.run([[functools.partial(call, index, each) for index, each in enumerate(arguments)]])
        return [results[index] for index in range(len(results))]

    def run(self, steps: Iterable[Step]) -> None:
        """
        Makes the calls of each step, in any order, when those of all steps before the last one have returned.

        So who finds nothing left to do in a step goes on with the next, and waits for others only if they are still at
        the one before.

        Raises:
            BaseException: what a call raised; those that have not begun then are left out.
        """
        if not self._others:
            for step in steps:
                for call in step:
                    call()
            return
        self._steps = [_Step(step) for step in steps]
        for _ in range(self._others):
            self._shared.put(self._steps)
        _take_part(self._steps)
        for last in self._steps[-2:]:
            last.wait()
        if self._errors:
            raise self._errors.pop()
        self._steps = []

    def _stop(self) -> None:
        """Nobody begins anything more of what there is to do, or waits for others who do."""
        for step in self._steps:
            step.waiting.clear()
        for step in self._steps:
            step.ended.put(None)

    def _help(self) -> None:
        try:
            with _OneThread(), torch.inference_mode(self._inference), torch.no_grad():
                while self._helped():
                    pass
        finally:
            self._ended.put(None)

    def _helped(self) -> bool:
        """Takes part in the next work, unless there will be none, and holds on to nothing of it."""
        steps = self._shared.get()
        if steps is None:
            return False
        try:
            _take_part(steps)
        except BaseException as error:
            self._errors.append(error)
            self._stop()
        return True


class _Step:
    """
    Calls that several threads share out among them.

    Attributes:
        waiting: those that have not begun.
        ended: holds something when all have returned.
    """

    def __init__(self, calls: Step) -> None:
        self.waiting = deque(calls)
        self.ended: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._unfinished = [None] * len(calls)
        if not calls:
            self.ended.put(None)

    def take_part(self) -> None:
        """Makes one call after the other until none is waiting."""
        while True:
            try:
                call = self.waiting.popleft()
            except IndexError:
                return
            call()
            self._unfinished.pop()
            if not self._unfinished:
                self.ended.put(None)

    def wait(self) -> None:
        """Returns when all calls have returned."""
        self.ended.put(self.ended.get())


def _take_part(steps: Sequence[_Step]) -> None:
    for step, needed in zip(steps, [None, None, *steps]):
        if needed is not None:
            needed.wait()
        step.take_part()


def _team_size(x: Tensor, at_most: int) -> int:
    """
    How many threads to share out work on an image among, 1 where PyTorch is to do it.

    Members of a team hold Python's lock between operations, so each must have enough to do and there cannot be too many
    of them. They would pass by what is set for or looks at the caller's thread: autocast, modes, profilers.
    """
    threads = torch.get_num_threads()
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else threads
    if not 1 < threads <= min(8, at_most, cpus) or not _has_onednn():
        return 1
    if x.shape[0] * x.shape[2] * x.shape[3] < threads * 2**12:
        return 1
    if _autocasts() or torch._C._len_torch_function_stack() or torch.autograd._profiler_enabled():
        return 1
    return threads if _one_thread_works() else 1


_at_work: Set[int] = set()  # the threads that compute an image just now


def _python_is_busy(x: Tensor) -> bool:
    """
    Whether another thread runs Python code all the time, while there is an image (B, _, H, W) to work on.

    Then each operation, a view like a convolution, ends with a wait for Python's lock, which that thread keeps for five
    milliseconds. So does a sleep, time and again. Who wakes up beside another program waits as long now and then, but
    not three times: the system soon gives back what a thread has left to others. Threads that compute images as well
    need Python now and then, and are not meant.

    Source: sys.getswitchinterval.
    """
    batch, _, height, width = x.shape
    if batch * height * width < 2**8 or len(sys._current_frames()) < 2:  # not worth an answer; no other thread
        return False
    if sys.platform == "win32" and sys.version_info < (3, 11):  # where every sleep may take 16 milliseconds
        return False
    return all(_seconds_asleep() > 0.0045 and _at_work <= {_thread.get_ident()} for _ in range(3))


def _seconds_asleep() -> float:
    start = time.perf_counter()
    time.sleep(1e-4)
    return time.perf_counter() - start


class _OneThread:
    """
    PyTorch uses one thread for what the calling thread does, and as many as ever for all others: a context manager.

    That is what ``torch.set_num_threads`` cannot do: threads that first use PyTorch afterwards take over its number.

    Raises:
        AttributeError, OSError: there is no such function. Where there is one of another library than PyTorch uses,
            nothing happens; ``_one_thread_works`` finds out.

    Source: OpenMP, omp_set_num_threads, which concerns the calling task; MKL, mkl_set_num_threads_local.
    """

    def __init__(self) -> None:
        self._threads = torch.get_num_threads()  # which also gives a new thread the number that is set for all
        self._product_threads: List[int] = []

    def __enter__(self) -> None:
        # It returns the number before, which no interruption can come in time to lose.
        self._product_threads.extend(map(_product_threads_setter(), (1,)))
        _libraries().omp_set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        _libraries().omp_set_num_threads(self._threads)
        for threads in self._product_threads:
            _product_threads_setter()(threads)


def _product_threads_setter() -> Callable[[int], int]:
    return getattr(_libraries(), "MKL_Set_Num_Threads_Local", int)


@functools.lru_cache(maxsize=None)
def _libraries() -> ctypes.CDLL:
    """
    A handle through which functions of the libraries are found that PyTorch was built with.

    Not so on Windows, where each library has to be named.
    """
    return ctypes.PyDLL(torch._C.__file__)


@functools.lru_cache(maxsize=None)
def _one_thread_works() -> bool:
    """Whether ``_OneThread`` does what it says, tried in a new thread."""
    answer: queue.SimpleQueue[List[int]] = queue.SimpleQueue()

    def look() -> None:
        seen: List[int] = []
        try:
            with _OneThread():
                seen.append(torch.get_num_threads())
            seen.append(torch.get_num_threads())
        except (AttributeError, OSError):
            pass
        finally:
            answer.put(seen)

    before = torch.get_num_threads()
    try:
        _thread.start_new_thread(look, ())
    except RuntimeError:  # no more threads are to be had
        return False
    return answer.get() == [1, before] and torch.get_num_threads() == before


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
        for step in _upsample_steps(scale):
            layers += [_Conv2d(num_feat, step * step * num_feat, 3, padding=1), nn.PixelShuffle(step)]
        super().__init__(*layers)


def _upsample_steps(scale: int) -> List[int]:
    if scale == 3:
        return [3]
    if scale < 1 or scale & (scale - 1):
        raise ValueError(f"upscale must be a power of two or 3, not {scale}")
    return [2] * (scale.bit_length() - 1)


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
        ValueError: an argument is out of its range.

    Attributes:
        hyperparameters: the arguments above, as given.
    """

    _parts = frozenset(
        (
            *(AetherBlock, DropPath, GatedFFN, ReparamLargeKernelConv, Upsample, _Conv2d, _Linear, _Sequential),
            *(nn.Dropout, nn.LayerNorm, nn.LeakyReLU, nn.ModuleList, nn.PixelShuffle),
        )
    )

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
        super().__init__()
        out_chans = in_chans if out_chans is None else out_chans
        hidden = int(embed_dim * mlp_ratio)
        for name, number in (("in_chans", in_chans), ("out_chans", out_chans), ("embed_dim", embed_dim)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, not {number}")
        if not depths or min(depths) < 1:
            raise ValueError(f"depths must name at least one block for each group, not {tuple(depths)}")
        if hidden < 1:
            raise ValueError(f"mlp_ratio {mlp_ratio} leaves no hidden unit for embed_dim {embed_dim}")
        if not 1 <= sk_kernel <= lk_kernel or lk_kernel % 2 == 0 or sk_kernel % 2 == 0:
            raise ValueError(f"kernels must be odd, the small one no larger: not {lk_kernel} and {sk_kernel}")
        if not (math.isfinite(img_range) and img_range > 0):
            raise ValueError(f"img_range must be a positive number, not {img_range}")

        self.hyperparameters: Dict[str, Any] = {
            "in_chans": in_chans,
            "out_chans": out_chans,
            "embed_dim": embed_dim,
            "depths": tuple(depths),
            "mlp_ratio": mlp_ratio,
            "drop_rate": drop_rate,
            "drop_path_rate": drop_path_rate,
            "lk_kernel": lk_kernel,
            "sk_kernel": sk_kernel,
            "upscale": upscale,
            "img_range": img_range,
            "fused_init": fused_init,
            "num_feat": num_feat,
        }
        self.upscale = upscale
        self.img_range = float(img_range)
        self.mean = 0.5 if in_chans == 3 else 0.0

        self.conv_first = _Conv2d(in_chans, embed_dim, 3, padding=1)
        blocks = sum(depths)
        rates = iter([drop_path_rate * i / max(blocks - 1, 1) for i in range(blocks)])
        self.layers = nn.ModuleList(
            _Sequential(
                *(
                    AetherBlock(embed_dim, hidden, lk_kernel, sk_kernel, drop_rate, next(rates), fused_init)
                    for _ in range(depth)
                )
            )
            for depth in depths
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = _Conv2d(embed_dim, embed_dim, 3, padding=1)
        self.conv_before_upsample = _Sequential(
            _Conv2d(embed_dim, num_feat, 3, padding=1), nn.LeakyReLU(0.01, inplace=True)
        )
        self.upsample = Upsample(upscale, num_feat)
        self.conv_last = _Conv2d(num_feat, out_chans, 3, padding=1)

    @property
    def fused(self) -> bool:
        """Whether every block has one kernel instead of two."""
        return all(block.conv.fused for block in self._blocks())

    def _blocks(self) -> Iterator[Any]:
        return (block for group in self.layers for block in group)  # type: ignore[attr-defined]

    @torch.no_grad()
    def fuse_model(self) -> aether:
        """Merges the large and the small kernel of every block, in place, and returns the model itself."""
        for block in self._blocks():
            block.conv.fuse()
        self.hyperparameters["fused_init"] = True
        return self

    def forward(self, x: Tensor) -> Tensor:
        if not self._is_plain_cpu_inference(x):
            return self._restore(self._reconstruct(self._body(self._centre(x))))
        if x.dtype == self.conv_first.weight.dtype == torch.float16:
            # Processors compute half precision in software, many times slower than single.
            return _in_single_precision(self)._infer(x.float()).half()
        return self._infer(x)

    def _is_plain_cpu_inference(self, x: Tensor) -> bool:
        """Whether the in-place path may run: nothing records or looks on, and slicing for caches makes sense."""
        if torch.is_grad_enabled() or self.training or type(x) is not Tensor or x.device.type != "cpu":
            return False
        if torch.jit.is_tracing() or _is_compiling():
            return False
        if torch._C._are_functorch_transforms_active() or torch._C._len_torch_dispatch_stack():
            return False
        if forward_ad._current_level >= 0:
            return False
        # Most modules are not called there, and others are called several times, so hooks would be passed over or see
        # parts; and so would those that profilers register for every module there is.
        if modules._global_forward_hooks or modules._global_forward_pre_hooks:
            return False
        return all(module is self or self._is_as_built(module) for module in self.modules())

    def _is_as_built(self, module: nn.Module) -> bool:
        """Whether an application has neither put a module, weight or function of its own there, nor looks on."""
        return (
            type(module) in self._parts
            and "forward" not in vars(module)
            and getattr(module, "padding_mode", "zeros") == "zeros"
            and not (module._forward_hooks or module._forward_pre_hooks)
            and all(type(own) in (nn.Parameter, Tensor) for own in module._parameters.values() if own is not None)
        )

    def _infer(self, x: Tensor) -> Tensor:
        """``forward`` for inference on a CPU."""
        _recycle_memory()
        with Team(x, self.conv_first.out_channels) as team, team:
            # Only oneDNN is fast at channels-last convolutions; others, as in PyTorch for Macs, are many times slower.
            # And in place takes more operations, of which small images gain less than each may have to wait.
            in_place = _has_onednn() and len(x) > 0 and not (team.coarse and _is_small(x))
            body = functools.partial(self._body_, team=team) if in_place else self._body
            return self._restore(self._reconstruct_(body(self._centre(x)), team))

    def _centre(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.img_range

    def _restore(self, x: Tensor) -> Tensor:
        return x / self.img_range + self.mean

    def _body(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, C, H, W)."""
        shallow = self.conv_first(x)
        deep = shallow
        for group in self.layers:
            deep = group(deep)
        deep = self.norm(deep.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.conv_after_body(deep) + shallow

    def _body_(self, x: Tensor, team: Team) -> Tensor:
        """``_body`` for inference: channels-last, and in place wherever a tensor is not needed any more."""
        shallow = self.conv_first(x.contiguous(memory_format=torch.channels_last))
        reaches = {block.conv.reach for block in self._blocks()}
        hidden = max((block.ffn.fc2.in_features for block in self._blocks()), default=1)
        parts = Parts(shallow, reaches.pop() if len(reaches) == 1 else 0, hidden, team)
        team.run(step for block in self._blocks() for step in block.steps_(parts))
        deep = parts.image
        del parts
        deep = for_each_pixel(self.norm, deep, shallow.shape[1], team)
        add_convolved(self.conv_after_body, deep, shallow, team)
        return shallow

    def _reconstruct(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_chans, upscale*H, upscale*W)."""
        return self.conv_last(self.upsample(self.conv_before_upsample(x)))

    def _reconstruct_(self, x: Tensor, team: Team) -> Tensor:
        """``_reconstruct`` for inference, a strip of rows at a time, so that its wide tensors never exist whole."""
        batch, _, height, width = x.shape
        scale, last = self.upscale, self.conv_last
        out = x.new_empty(batch, last.out_channels, height * scale, width * scale)
        if joining_pays([*self.upsample, last], x):
            self._reconstruct_jointly(x, out, team)
            return out

        def reconstruct(top: int, bottom: int) -> None:
            out[:, :, top * scale : bottom * scale] = convolve_rows(self._reconstruct, 3, x, top, bottom, scale)

        team.map(reconstruct, _strips(0, height, _number_of_strips(height, last.in_channels * width * scale**2, team)))
        return out

    def _reconstruct_jointly(self, x: Tensor, out: Tensor, team: Team) -> None:
        """
        The same with the upsampler and the last convolution as one.

        Nothing comes between these but the zeros around an image that each of them adds, which only the outermost
        pixels see. Those are computed one layer after the other.
        """
        batch, _, height, width = x.shape
        weight, bias = joint_convolution(self.upsample, self.conv_last)
        outputs, inputs, scale = *weight.shape[:2], self.upscale
        shuffles = [layer for layer in self.upsample if isinstance(layer, nn.PixelShuffle)]
        layout = torch.channels_last if _has_onednn() else torch.contiguous_format
        like = {"dtype": x.dtype, "device": x.device, "memory_format": layout}
        features = torch.empty(batch, inputs, height, width, **like)

        def prepare(top: int, bottom: int) -> None:
            features[:, :, top:bottom] = convolve_rows(self.conv_before_upsample, 1, x, top, bottom)

        def joint(rows: Tensor) -> Tensor:
            return F.conv2d(rows, weight, bias, padding="same")

        def separate(rows: Tensor) -> Tensor:
            return self.conv_last(self.upsample(rows))

        def reconstruct_edge(top: int, bottom: int) -> None:
            out[:, :, top * scale : bottom * scale] = convolve_rows(separate, 2, features, top, bottom, scale)

        def reconstruct(top: int, bottom: int) -> None:
            strip = out[:, :, top * scale : bottom * scale]
            rows = convolve_rows(joint, 2, features, top, bottom)[..., 1:-1]
            for shuffle in shuffles:
                rows = shuffle(rows)
            strip[..., scale:-scale] = rows
            for near, columns in ((features[..., :3], slice(scale)), (features[..., -3:], slice(-scale, None))):
                strip[..., columns] = convolve_rows(separate, 2, near, top, bottom, scale)[..., columns]

        number = _number_of_strips(height, max(inputs, outputs) * width, team)
        team.map(prepare, _strips(0, height, number))
        calls = [functools.partial(reconstruct, *rows) for rows in _strips(1, height - 1, number)]
        edges = [functools.partial(reconstruct_edge, *rows) for rows in ((0, 1), (height - 1, height))]
        team.run([[*calls, *edges]])


def joining_pays(layers: Sequence[Any], x: Tensor) -> bool:
    """
    Whether ``joint_convolution`` takes an upsampler and a last convolution, and saves time for an image (B, _, H, W).

    A multiplication was measured to take up to twice as long there, as it has few channels on one side. Three pixels
    along each edge are computed layer by layer as well, and making the one convolution takes as long as 1,000 pixels.
    """
    batch, _, height, width = x.shape
    separate, scale = 0, 1
    for layer in layers:
        if isinstance(layer, nn.PixelShuffle):
            scale *= layer.upscale_factor
        elif isinstance(layer, _Conv2d) and layer.bias is not None:
            separate += layer.weight.numel() * scale**2
        else:
            return False  # an application has put it there
    joint = 25 * layers[0].in_channels * layers[-1].out_channels * scale**2
    edges = separate * 6 * (height + width)
    pixels = height * width
    return batch * pixels >= 2**11 and 2 * joint * pixels + edges < separate * pixels


def joint_convolution(upsample: Iterable[nn.Module], last: nn.Conv2d) -> Tuple[Tensor, Tensor]:
    """
    The one convolution that an upsampler and a 3x3 convolution after it amount to, but for the zeros around an image.

    Its results are to be shuffled as those of the upsampler are. Sums are taken in float32 or better, if autocast does
    not say otherwise, and rounded once.

    Args:
        upsample: 3x3 convolutions and pixel shuffles, F channels before the first, s the product of their factors.
        last: D channels after it.

    Returns:
        The weight (D*s*s, F, K, K) and bias (D*s*s).
    """
    dtype = last.weight.dtype
    wide = torch.promote_types(dtype, torch.float32)
    weight, bias = last.weight.to(wide), last.bias.to(wide)
    for layer in reversed([*upsample]):
        if isinstance(layer, nn.PixelShuffle):
            # A pixel becomes a square. All in it are made of that square and those around it, each by the same
            # kernel in another place.
            step, side = layer.upscale_factor, weight.shape[-1]
            before = [step - side // 2 + place for place in range(step)]
            pads = [(start, 3 * step - side - start) for start in before]
            weight = torch.stack([F.pad(weight, (*across, *down)) for down in pads for across in pads], 1)
            weight = F.pixel_unshuffle(weight.flatten(0, 1), step)
            bias = bias.repeat_interleave(step**2)
        else:
            bias = bias + weight.sum((2, 3)) @ layer.bias.to(wide)
            weight = F.conv_transpose2d(weight, layer.weight.to(wide))
    return weight.to(dtype), bias.to(dtype)


def convolve_rows(
    layer: Callable[[Tensor], Tensor], reach: int, x: Tensor, top: int, bottom: int, scale: int = 1
) -> Tensor:
    """What a layer, which looks at so many rows around one and makes ``scale`` of it, makes of some of (B, C, H, W)."""
    first = max(top - reach, 0)
    return layer(x[:, :, first : bottom + reach])[:, :, (top - first) * scale : (bottom - first) * scale]


def add_convolved(layer: nn.Conv2d, x: Tensor, out: Tensor, team: Team) -> None:
    """Adds what a 3x3 convolution makes of (B, C, H, W) to (B, D, H, W), in place."""

    def add(top: int, bottom: int) -> None:
        out[:, :, top:bottom].add_(convolve_rows(layer, 1, x, top, bottom))

    team.map(add, _strips(0, x.shape[2], team.size))


def _strips(top: int, bottom: int, number: int) -> Iterator[Tuple[int, int]]:
    """The first row and the one after the last of so many strips of about the same height."""
    edges = [top + (bottom - top) * strip // number for strip in range(number + 1)]
    return zip(edges, edges[1:])


def _number_of_strips(height: int, values: int, team: Team) -> int:
    """
    How many strips of rows to make of an image for which a layer makes so many values a row.

    Each has eight megabytes of them in float32, since memory for more than 32 would be mapped anew each time.
    """
    return -(-height // max(32, 2**21 // values)) * team.size


def _in_single_precision(module: Any) -> Any:
    """
    A module that has float32 copies of the parameters, and shares everything else with the given one.

    That one stays as it is, for other threads may be using it.
    """
    twin = copy.copy(module)
    twin._parameters = {name: None if own is None else own.float() for name, own in module._parameters.items()}
    twin._buffers = {name: own.float() if own.is_floating_point() else own for name, own in module._buffers.items()}
    twin._modules = {name: _in_single_precision(child) for name, child in module._modules.items()}
    return twin


VARIANTS: Dict[str, Dict[str, Any]] = {
    "small": {"embed_dim": 96, "depths": (4,) * 4, "mlp_ratio": 2.0, "lk_kernel": 11, "sk_kernel": 3},
    "medium": {"embed_dim": 128, "depths": (6,) * 6, "mlp_ratio": 2.0, "lk_kernel": 11, "sk_kernel": 3},
    "large": {"embed_dim": 180, "depths": (8,) * 8, "mlp_ratio": 2.5, "lk_kernel": 13, "sk_kernel": 3},
}


def aether_small(**kwargs: Any) -> aether:
    """The small variant; keyword arguments go to ``aether``."""
    return aether(**{**VARIANTS["small"], **kwargs})


def aether_medium(**kwargs: Any) -> aether:
    """The medium variant; keyword arguments go to ``aether``."""
    return aether(**{**VARIANTS["medium"], **kwargs})


def aether_large(**kwargs: Any) -> aether:
    """The large variant; keyword arguments go to ``aether``."""
    return aether(**{**VARIANTS["large"], **kwargs})


# Reading checkpoints.

# The first ones are those that spandrel unwraps by itself, in its order, so that both of us pick the same weights.
_CONTAINERS = (
    "model_state_dict",
    "state_dict",
    "params_ema",
    "params-ema",
    "params",
    "model",
    "net",
    "net_g",
    "generator",
)
_BOOKKEEPING = frozenset(("n_averaged", "step", "initted", "num_updates", "decay", "iter", "epoch"))

_PREFIX = r"(?:(?:module|_orig_mod|netG|net_g|net_g_ema|ema_model|ema|model|net|generator|params|params_ema)\.)*"
_NUMBER = r"(?:0|[1-9][0-9]*)"
_FUSED_PART = r"conv\.fused_conv\."
_UNFUSED_PART = r"conv\.(?:lk_conv\.|sk_conv\.|lk_bias$|sk_bias$)"
_FFN_PART = r"ffn\.fc1_(?:gate|main)\."
_SIGNATURE = re.compile(rf"({_PREFIX})layers\.{_NUMBER}\.{_NUMBER}\.(?:{_FUSED_PART}|{_UNFUSED_PART}|{_FFN_PART})")


def _block_key(group: str) -> Pattern[str]:
    """Matches the keys of blocks: group, block, the key inside it; then what makes it fused, or unfused, if so."""
    return re.compile(rf"{group}\.({_NUMBER})\.({_NUMBER})\.((?:({_FUSED_PART})|({_UNFUSED_PART}))?.*)$")


_BLOCK_KEY = _block_key("layers")
_SHARED_BLOCK = (
    "norm.weight",
    "norm.bias",
    *(f"ffn.{layer}.{part}" for layer in ("fc1_gate", "fc1_main", "fc2") for part in ("weight", "bias")),
)
_FUSED_BLOCK = ("conv.fused_conv.weight", "conv.fused_conv.bias", *_SHARED_BLOCK)
_UNFUSED_BLOCK = ("conv.lk_conv.weight", "conv.sk_conv.weight", "conv.lk_bias", "conv.sk_bias", *_SHARED_BLOCK)
_UPSAMPLE_KEY = re.compile(rf"upsample\.({_NUMBER})\.(?:weight|bias)$")


class LocatedWeights(NamedTuple):
    """
    The weights of one network inside a checkpoint.

    Attributes:
        container: the keys that lead to them, outermost first; empty for a bare state dict.
        prefix: what stood before every key, such as ``module.``.
        weights: the state dict, without that prefix and without bookkeeping.
    """

    container: Tuple[str, ...]
    prefix: str
    weights: StateDict


def locate_weights(checkpoint: Mapping[Any, Any]) -> Optional[LocatedWeights]:
    """
    Finds the AetherNet weights in a checkpoint: bare, under the keys that trainers use, with or without prefixes.

    Where a checkpoint holds several, averaged (EMA) weights win over raw ones, and then those that spandrel would
    unwrap. Returns None if there are none; never raises, whatever the checkpoint holds.
    """
    found = _find(checkpoint, _SIGNATURE)
    if found is None:
        return None
    weights = {key: value for key, value in found.weights.items() if not _is_bookkeeping(key, value)}
    return found._replace(weights=weights)


def _find(
    checkpoint: Mapping[Any, Any],
    signature: Pattern[str],
    container: Tuple[str, ...] = (),
    visited: Optional[Dict[int, int]] = None,
) -> Optional[LocatedWeights]:
    """
    The entries of a network, bookkeeping included, by keys which only it has; the pattern's group is a prefix.

    A mapping may be in another many times over, itself included: ``visited`` says how deep each was when last looked
    into, by identity, and only one that is found higher up, from where more can be reached, is worth another look.
    """
    matches = (signature.match(key) for key in checkpoint if isinstance(key, str))
    prefixes = {match.group(1) for match in matches if match}
    if prefixes:
        prefix = min(prefixes, key=lambda candidate: ("ema" not in candidate, len(candidate), candidate))
        entries = ((key, value) for key, value in checkpoint.items() if isinstance(key, str) and key.startswith(prefix))
        return LocatedWeights(container, prefix, {key[len(prefix) :]: value for key, value in entries})
    visited = {} if visited is None else visited
    visited[id(checkpoint)] = len(container)
    if len(container) < 4:
        for key in _inner_containers(checkpoint):
            inner = checkpoint[key]
            if visited.get(id(inner), 5) > len(container) + 1:
                found = _find(inner, signature, (*container, key), visited)
                if found:
                    return found
    return None


def _inner_containers(checkpoint: Mapping[Any, Any]) -> List[str]:
    def preference(key: str) -> Tuple[bool, int]:
        return "ema" not in key.lower(), _CONTAINERS.index(key) if key in _CONTAINERS else len(_CONTAINERS)

    return sorted((key for key, value in checkpoint.items() if _is_container(key, value)), key=preference)


def _is_container(key: Any, value: Any) -> bool:
    return isinstance(key, str) and isinstance(value, Mapping)


def _is_bookkeeping(key: str, value: Any) -> bool:
    return not isinstance(value, Tensor) or value.dim() == 0 or key.rpartition(".")[2] in _BOOKKEEPING


def refusal(checkpoint: Mapping[Any, Any]) -> Optional[str]:
    """
    Says what a checkpoint's AetherNet is if it cannot be run here although nothing is wrong with it, and what to do.

    Returns None for any other checkpoint; never raises, whatever it holds.
    """
    found = _find(checkpoint, _SIGNATURE)
    return _quantisation(found.weights) if found else None


_QUANTISED = re.compile(r"(?:^|\.)(?:zero_point|_packed_params)(?:\.|$)")
_FAKE_QUANTISED = re.compile(r"(?:^|\.)(?:\w*fake_quant\w*|activation_post_process)(?:\.|$)")


def _quantisation(entries: Mapping[str, Any]) -> Optional[str]:
    """Which kind of quantised model the entries of a network are, if they are one, and what to use instead."""
    if any(map(_FAKE_QUANTISED.search, entries)):
        return (
            "an AetherNet from quantisation-aware training (its keys hold fake_quant), which cannot be run here; "
            "use the float file that this training started from"
        )
    if any(map(_QUANTISED.search, entries)) or any(_is_quantised(key, value) for key, value in entries.items()):
        return "an int8, quantised AetherNet, which cannot be run here; use the float file it was made from"
    return None


def _is_quantised(key: str, value: Any) -> bool:
    if not isinstance(value, Tensor):
        return False
    return value.is_quantized or (key.endswith("weight") and value.dtype in (torch.int8, torch.uint8))


def clean_state_dict(checkpoint: Mapping[Any, Any]) -> StateDict:
    """
    Returns the AetherNet weights in a checkpoint under the network's own keys; see ``locate_weights``.

    Raises:
        ValueError: there are none, or they cannot be run here; see ``refusal``.
    """
    reason = refusal(checkpoint)
    if reason:
        raise ValueError(f"this is {reason}")
    located = locate_weights(checkpoint)
    if located is None:
        raise ValueError("these are no AetherNet weights: no key such as layers.0.0.conv.lk_conv.weight")
    return located.weights


def detect_form(checkpoint: Mapping[Any, Any]) -> Optional[str]:
    """
    Returns ``fused`` or ``unfused`` for a checkpoint that holds AetherNet weights, whole or damaged, else None.

    A block of each form makes it ``unfused``. None, too, for what ``refusal`` names. Never raises, so that it can be
    asked about any network's state dict.
    """
    located = None if refusal(checkpoint) else locate_weights(checkpoint)
    return _form(located.weights, _BLOCK_KEY) if located else None


def _form(weights: Iterable[str], block_key: Pattern[str]) -> Optional[str]:
    forms = {form for form, _ in _block_forms(weights, block_key)}
    if not forms:
        return None
    return "fused" if forms == {"fused"} else "unfused"


def _block_forms(weights: Iterable[str], block_key: Pattern[str]) -> List[Tuple[str, str]]:
    """The form of each convolution key, in the order of the keys: (form, key)."""
    matches = ((block_key.match(key), key) for key in weights)
    parts = ((match[4], match[5], key) for match, key in matches if match)
    return [("fused" if fused else "unfused", key) for fused, unfused, key in parts if fused or unfused]


def _the_one_form(weights: Iterable[str], block_key: Pattern[str]) -> str:
    """The form that all blocks have; weights without a key that tells count as unfused, and lack some."""
    forms = _block_forms(weights, block_key)
    for form, key in forms:
        if form != forms[0][0]:
            raise _fault(key, f"is {form} while {forms[0][1]} is {forms[0][0]}: fused and unfused blocks are mixed")
    return forms[0][0] if forms else "unfused"


def _fault(key: str, problem: str) -> ValueError:
    return ValueError(f"damaged AetherNet weights: {key} {problem}")


def _deduce_aether_params_from_state_dict(state_dict: Mapping[Any, Any]) -> Dict[str, Any]:
    """
    Reads the constructor arguments of ``aether`` off the shapes in a state dict or checkpoint.

    ``img_range`` and the drop rates leave no trace and are not returned; ``sk_kernel`` of a fused network is not
    known any more and has no effect.

    Raises:
        ValueError: the weights are damaged; names the first key at fault.
    """
    weights = clean_state_dict(state_dict)
    parameters = _read_parameters(weights)
    _check_shapes(weights, _without_weights(aether, **parameters))
    return parameters


def _read_parameters(weights: StateDict) -> Dict[str, Any]:
    """
    The parameters, provided that the weights are whole.

    Sizes that many tensors share are put to the vote, so that a damaged tensor is the one that stands out when
    ``_check_shapes`` compares them all.
    """
    fused = _the_one_form(weights, _BLOCK_KEY) == "fused"
    depths = _deduce_depths(weights, "layers", _FUSED_BLOCK if fused else _UNFUSED_BLOCK)
    blocks = [f"layers.{i}.{j}." for i, depth in enumerate(depths) for j in range(depth)]
    vote = _Votes(weights, blocks, _axes_of)
    large = "conv.fused_conv.weight" if fused else "conv.lk_conv.weight"
    embed_dim = vote.in_blocks(("norm.weight", 0), ("norm.bias", 0), (large, 0))
    hidden = vote.in_blocks(("ffn.fc1_gate.weight", 0), ("ffn.fc1_gate.bias", 0), ("ffn.fc1_main.bias", 0))
    lk_kernel = vote.in_blocks((large, 2), (large, 3))
    sk_kernel = min(3, lk_kernel) if fused else vote.in_blocks(("conv.sk_conv.weight", 2), ("conv.sk_conv.weight", 3))
    _check_kernels(blocks[0], large, lk_kernel, sk_kernel)
    num_feat = vote(("conv_before_upsample.0.weight", 0), ("conv_before_upsample.0.bias", 0), ("conv_last.weight", 1))
    return {
        "in_chans": vote(("conv_first.weight", 1)),
        "out_chans": vote(("conv_last.weight", 0), ("conv_last.bias", 0), ("conv_first.weight", 1)),
        "embed_dim": embed_dim,
        "depths": depths,
        "mlp_ratio": _deduce_mlp_ratio(embed_dim, hidden),
        "lk_kernel": lk_kernel,
        "sk_kernel": sk_kernel,
        "upscale": _deduce_upscale(weights, num_feat),
        "fused_init": fused,
        "num_feat": num_feat,
    }


def _check_kernels(block: str, large: str, lk_kernel: int, sk_kernel: int) -> None:
    for key, side, limit in ((large, lk_kernel, lk_kernel), ("conv.sk_conv.weight", sk_kernel, lk_kernel)):
        if side % 2 == 0 or side > limit:
            raise _fault(block + key, f"has a kernel of {side}, which is even or larger than the large one")


class _Votes:
    """
    What several tensors say of a size that they share: the most frequent answer.

    Args:
        weights: a clean state dict.
        blocks: what the keys of each block start with.
        axes_of: how many axes the tensor of a key has to have for its answer to count.
    """

    def __init__(self, weights: StateDict, blocks: Sequence[str], axes_of: Callable[[str], int]) -> None:
        self.weights = weights
        self.blocks = blocks
        self.axes_of = axes_of

    def __call__(self, *axes: Tuple[str, int], formula: Optional[int] = None) -> int:
        """
        Returns the size.

        Args:
            axes: the keys that tell, and along which axis.
            formula: what one more voice says, if the size also follows from others.

        Raises:
            ValueError: no tensor tells; names the first key.
        """
        present = [(key, axis) for key, axis in axes if key in self.weights and self._counts(key)]
        if not present:
            key = axes[0][0]
            problem = "is missing"
            if key in self.weights:
                problem = f"has {self.weights[key].dim()} axes instead of {self.axes_of(key)}"
            raise _fault(key, problem)
        voices = [self.weights[key].shape[axis] for key, axis in present]
        winner = Counter(voices if formula is None else [*voices, formula]).most_common(1)[0][0]
        if winner == 0:
            raise _fault(present[0][0], "is empty")
        return winner

    def in_blocks(self, *axes: Tuple[str, int], formula: Optional[int] = None) -> int:
        """Returns the size by these keys of every block."""
        return self(*((block + key, axis) for block in self.blocks for key, axis in axes), formula=formula)

    def _counts(self, key: str) -> bool:
        return self.weights[key].dim() == self.axes_of(key)


def _axes_of(key: str) -> int:
    """How many axes the tensor of a key has."""
    return 1 if key.endswith("bias") or "norm." in key else 2 if ".ffn." in key else 4


def _deduce_depths(weights: Iterable[str], name: str, block_keys: Sequence[str]) -> Tuple[int, ...]:
    """What most of a block is there of counts as a block, so that neither a lost key nor a stray one changes them."""
    matches = filter(None, map(_block_key(name).match, weights))
    found = Counter((int(match[1]), int(match[2])) for match in matches if match[3] in block_keys)
    blocks = {block for block, keys in found.items() if 2 * keys > len(block_keys)}
    if not blocks:
        raise _fault(f"{name}.0.0.{block_keys[0]}", "is missing, with most of every block")
    depths: List[int] = []
    for i in range(max(blocks)[0] + 1):
        depths.append(max((j for group, j in blocks if group == i), default=0) + 1)
        for j in range(depths[-1]):
            if (i, j) not in found:
                raise _fault(f"{name}.{i}.{j}.{block_keys[0]}", "is missing, with all of its block")
    return tuple(depths)


def _deduce_mlp_ratio(dim: int, hidden: int) -> float:
    """The ratio with the fewest decimals for which ``int(dim * ratio) == hidden``."""
    for power in (10**digits for digits in range(1, 18)):
        smallest = -(-hidden * power // dim)
        for ratio in (smallest / power, (smallest + 1) / power):
            if int(dim * ratio) == hidden:
                return ratio
    raise ValueError(f"no mlp_ratio makes {hidden} hidden units of {dim}")


def _deduce_upscale(weights: StateDict, num_feat: int) -> int:
    """The one whose keys differ least from those that are there; of equals the largest, since keys are lost easily."""
    present = {key for key in weights if key.startswith("upsample.")}

    def faults(stages: int) -> int:
        wanted = {f"upsample.{2 * i}.{part}" for i in range(stages) for part in ("weight", "bias")}
        return len(present ^ wanted)

    numbers = [int(match.group(1)) for match in map(_UPSAMPLE_KEY.match, present) if match]
    most = min(max(numbers, default=-2) // 2 + 1, len(present))
    stages = min(range(most, -1, -1), key=faults)
    if stages == 1 and any(weights[key].shape[:1] == (9 * num_feat,) for key in present):
        return 3
    return int(2**stages)


def build_aether(
    state_dict: Mapping[Any, Any],
    img_range: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> aether:
    """
    Builds the network that a state dict or checkpoint holds, in evaluation mode, with a copy of its weights.

    Args:
        state_dict: weights in any of the forms that ``locate_weights`` knows.
        img_range: see ``aether``.
        dtype: of the parameters.

    Raises:
        ValueError: the weights are damaged; names the first key at fault.
    """
    weights = clean_state_dict(state_dict)
    model = prepare_aether(weights, img_range, dtype)
    model.load_state_dict(weights)
    return model


def prepare_aether(
    weights: StateDict,
    img_range: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> aether:
    """
    Builds the network for a clean state dict, which is then to be loaded: the parameters hold nothing until then.

    So nothing is initialised in vain, and whoever loads the weights, as spandrel does, makes the only copy of them.

    Raises:
        ValueError: the weights are damaged; names the first key at fault.
    """
    model = _without_weights(aether, **_read_parameters(weights), img_range=img_range)
    _check_shapes(weights, model)
    return _with_memory(model, dtype).eval()


def _without_weights(network: Callable[..., Network], **parameters: Any) -> Network:
    """The network with tensors that have shapes and no memory."""
    with torch.device("meta"):
        return network(**parameters)


def _with_memory(model: Network, dtype: torch.dtype) -> Network:
    """The same model with memory for its tensors, which holds nothing yet."""
    # Into the modules' own dictionaries, since assigning attributes takes twice as long.
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=dtype)
                module._parameters[name] = nn.Parameter(empty, parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                own = dtype if buffer.is_floating_point() else buffer.dtype
                module._buffers[name] = torch.empty(buffer.shape, dtype=own)
    return model


def _check_shapes(weights: StateDict, model: nn.Module) -> None:
    expected = model.state_dict()
    unknown = next((key for key in weights if key not in expected), None)
    for key, placeholder in expected.items():
        shape = tuple(placeholder.shape)
        if key not in weights:
            raise _fault(key, "is missing" + (f", and {unknown} is unknown" if unknown else ""))
        if tuple(weights[key].shape) != shape:
            raise _fault(key, f"has shape {tuple(weights[key].shape)}, where the other tensors ask for {shape}")
        if weights[key].is_meta or weights[key].layout != torch.strided:
            raise _fault(key, "holds no values" if weights[key].is_meta else "is sparse")
        if placeholder.is_floating_point() and not weights[key].is_floating_point():
            raise _fault(key, f"holds {weights[key].dtype}, which is no floating-point type")
    if unknown:
        raise _fault(unknown, "does not belong to the network")


def fuse_state_dict(weights: StateDict) -> StateDict:
    """
    Returns the weights of the fused form of an unfused network, in the order of the given ones.

    Args:
        weights: a clean and complete unfused state dict, as ``clean_state_dict`` returns it and ``build_aether``
            accepts it. Dtypes are kept; see ``merge_kernels``.

    Raises:
        ValueError: a sum of finite weights is beyond their dtype; names the key.
    """
    fused: StateDict = {}
    for key, tensor in weights.items():
        block, conv, _ = key.partition(".conv.")
        if not conv:
            fused[key] = tensor
        elif f"{block}.conv.fused_conv.weight" not in fused:
            fused.update(_fused_kernels(weights, f"{block}.conv."))
    return fused


def _fused_kernels(weights: StateDict, conv: str) -> StateDict:
    """The weights of one fused convolution, by the key at which its own start."""
    parts = [weights[conv + part] for part in ("lk_conv.weight", "lk_bias", "sk_conv.weight", "sk_bias")]
    weight, bias = merge_kernels(*parts)
    fused = {f"{conv}fused_conv.weight": weight, f"{conv}fused_conv.bias": bias}
    _check_overflow(parts, fused)
    return fused


def _check_overflow(sources: Iterable[Tensor], results: StateDict) -> None:
    """Refuses results that are infinite where nothing that they were computed from is."""
    for key, result in results.items():
        if result.isinf().any() and not any(source.isinf().any() for source in sources):
            raise ValueError(f"{key} would overflow in {str(result.dtype)[6:]}; convert the file to a wider type first")


def fold_img_range(weights: StateDict, img_range: float) -> StateDict:
    """
    Returns weights that do with ``img_range`` 1 what the given ones do with the given ``img_range``.

    The first convolution takes the factor, the last one gives it back. Dtypes are kept, products are rounded once.

    Raises:
        ValueError: a weight that was neither zero nor infinite would become so in its dtype; names the key.
    """
    factors = {
        "conv_first.weight": img_range,
        "conv_last.weight": 1.0 / img_range,
        "conv_last.bias": 1.0 / img_range,
    }
    return _scaled(weights, factors, f"img_range {img_range:g}")


def _scaled(weights: StateDict, factors: Mapping[str, float], what: str) -> StateDict:
    """The weights with some of them multiplied, in float64 and rounded once; ``what`` is folded into them so."""
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


def assumed_arguments(parameters: Mapping[str, Any]) -> Dict[str, float]:  # noqa: ARG001 - the later generation's matter
    """Returns the arguments of ``build_aether`` that leave no trace in the weights, as a loader has to assume them."""
    return {"img_range": 1.0}


def describe(parameters: Mapping[str, Any]) -> Dict[str, Any]:
    """Returns what these constructor arguments say of a network, by the names that all generations share."""
    names = ("embed_dim", "depths", "upscale", "in_chans", "out_chans", "mlp_ratio", "lk_kernel", "sk_kernel")
    return {name: parameters[name] for name in names}


def variant_name(parameters: Mapping[str, Any]) -> Optional[str]:
    """Returns ``small``, ``medium`` or ``large`` if these constructor arguments are a named variant's, else None."""
    for name, variant in VARIANTS.items():
        known = dict(variant)
        if parameters.get("fused_init"):
            del known["sk_kernel"]
        if all(parameters[key] == value for key, value in known.items()):
            return name
    return None
