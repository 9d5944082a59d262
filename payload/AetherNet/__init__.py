"""AetherNet for spandrel: detects and loads the networks' checkpoints, put here by aether-install."""

from __future__ import annotations

from typing import Any, Dict, List

import torch
from torch import nn

from ...__helpers.model_descriptor import Architecture, ImageModelDescriptor, ModelTiling, StateDict  # type: ignore[import-not-found]
from .__arch.aether3_core import aether3
from .__arch.aether_core import aether
from .__arch.generations import JUNE, LATER, Generation

__version__ = "2.0.0"

__all__ = [
    "ARCHITECTURES",
    "AetherNet3FusedArch",
    "AetherNet3UnfusedArch",
    "AetherNetFusedArch",
    "AetherNetUnfusedArch",
    "aether",
    "aether3",
]

try:
    from .engine import infer
except Exception:  # noqa: S110 - whatever ails the engine, or where there is none, the networks compute by themselves
    pass
else:
    aether.engine = aether3.engine = infer


class _AetherNetArch(Architecture[nn.Module]):
    """A form of a generation."""

    _generation: Generation
    _form: str

    def __init__(self) -> None:
        super().__init__(id=self._generation.architecture(self._form == "fused"), detect=self._is_of_form)

    def _is_of_form(self, state_dict: StateDict) -> bool:
        return self._generation.form(state_dict) == self._form

    def load(self, state_dict: StateDict) -> ImageModelDescriptor[nn.Module]:
        """
        Loads an AetherNet; every parameter is read from the shapes.

        Raises:
            ValueError: the weights are damaged; names the first key at fault.
        """
        generation = self._generation
        weights = generation.clean(state_dict)
        model: Any = generation.prepare(weights)  # which the descriptor loads them into
        facts = generation.describe(model.hyperparameters)
        size = generation.variant(model.hyperparameters)
        scale = facts["upscale"]
        descriptor: ImageModelDescriptor[nn.Module] = ImageModelDescriptor(
            model,
            weights,
            architecture=self,
            purpose="Restoration" if scale == 1 else "SR",
            tags=[*([size] if size else []), self._form, *_tags(facts)],
            supports_half=True,
            supports_bfloat16=True,
            scale=scale,
            input_channels=facts["in_chans"],
            output_channels=facts["out_chans"],
            tiling=ModelTiling.SUPPORTED,
        )
        name = f"{generation.family} {size or '{}dim'.format(facts['embed_dim'])} {scale}x ({self._form})"
        descriptor.name = name
        return descriptor

    def sample(self) -> StateDict:
        """The weights of a small network in this form; in every form and every process those of the same network."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self._small()
            for parameter in model.parameters():
                nn.init.normal_(parameter, std=0.2)
            for name, buffer in model.named_buffers():
                if "running_" in name:
                    nn.init.uniform_(buffer, 0.5, 1.5)
        weights: StateDict = model.state_dict()
        return self._generation.fuse(weights) if self._form == "fused" else weights

    def _small(self) -> nn.Module:
        raise NotImplementedError


def _tags(facts: Dict[str, Any]) -> List[str]:
    attentions = {"use_channel_attn": "channel attention", "use_spatial_attn": "spatial attention"}
    return [
        f"{facts['embed_dim']}dim",
        f"{sum(facts['depths'])}nb",
        f"{facts['lk_kernel']}ks",
        *(tag for argument, tag in attentions.items() if facts.get(argument)),
    ]


class _JuneArch(_AetherNetArch):
    _generation = JUNE

    def _small(self) -> nn.Module:
        return aether(embed_dim=8, depths=(2,), upscale=2, num_feat=8)


class _LaterArch(_AetherNetArch):
    """
    The later generation. Tiles do not give exactly the picture, since its channel attention sees the whole of it.

    Measured on a 1024x1024 photo with a small network, trained for a short time, whose attention varies between 0 and
    1: tiles of 512 pixels that overlap by 32 differ from the whole by 2.8/255 at most and 0.14/255 on average (62 dB),
    those of 128 by 3.6/255 and 0.19/255 (60 dB), which nobody sees; so they are supported. Attention with random
    weights, far more nervous, costs up to a quarter of the output's range.
    """

    _generation = LATER

    def _small(self) -> nn.Module:
        return aether3(embed_dim=16, depths=(1, 1), scale=2, use_channel_attn=True, use_spatial_attn=True)


class AetherNetFusedArch(_JuneArch):
    """AetherNet with one kernel in each block, as ``aether-install fuse`` writes it."""

    _form = "fused"


class AetherNetUnfusedArch(_JuneArch):
    """AetherNet with a large and a small kernel in each block, as training leaves it."""

    _form = "unfused"


class AetherNet3FusedArch(_LaterArch):
    """The later generation with one kernel in each block and no running statistics, as it is released."""

    _form = "fused"


class AetherNet3UnfusedArch(_LaterArch):
    """The later generation with a large and a small kernel in each block, as training leaves it."""

    _form = "unfused"


ARCHITECTURES = (AetherNetFusedArch, AetherNetUnfusedArch, AetherNet3FusedArch, AetherNet3UnfusedArch)
"""Every class that spandrel's registry is to know, in this order."""
