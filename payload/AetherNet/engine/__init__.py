"""
Inference on a CPU: computes images in a network's place, to the same result in a fraction of the time.

The networks work without it and know nothing of it: delete this folder, or set ``AETHERNET_ENGINE=0``. ``eligible``
says whether it may run. ``programs``, and ``upsampler`` for the end, take a network apart into steps, each of which
makes some rows of an image of what the step before has made, by ``layers``; ``team`` has threads share out the rows.
"""

from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor

from .eligible import MISTAKES, DeclinedError, is_compiling, may_run, python_is_busy
from .layers import Layout, in_single_precision
from .programs import steps_of
from .team import do_all


def infer(network: Any, x: Tensor) -> Optional[Tensor]:
    """
    Computes what an ``aether`` or ``aether3`` makes of images, (B, in_chans, H, W) -> (B, out_chans, s*H, s*W).

    Returns None where the network is to do it: if there is any doubt or an error. What interrupts a program, or is
    thrown at its thread from outside, passes through.
    """
    if torch.is_grad_enabled() or is_compiling() or not may_run(network, x):
        return None
    try:
        images, single = in_single_precision(x, network)
        if single is not network:  # which asks anew, and computes where the engine does not
            return single.forward(images).to(x.dtype)
        if python_is_busy():
            return None
        layout, scale = Layout(network, x), network.upscale
        size = (network.conv_last.out_channels, x.shape[2] * scale, x.shape[3] * scale)
        y = torch.empty(len(x), *size, dtype=x.dtype, device="cpu")
        for image, made in zip(x.split(1), y.split(1)):
            do_all(steps_of(network, image, made, layout), layout.strips, layout.helpers)
    except (DeclinedError, *MISTAKES):
        return None
    return y
