"""AetherNet for spandrel: detects and loads the network's checkpoints, put here by aether-install."""

from __future__ import annotations

from typing import Any, Dict, List

import torch

from ...__helpers.model_descriptor import Architecture, ImageModelDescriptor, StateDict
from .__arch.aether_core import (
    aether,
    clean_state_dict,
    detect_form,
    prepare_aether,
    variant_name,
)

__version__ = "1.1.0"

__all__ = ["ARCHITECTURES", "AetherNetFusedArch", "AetherNetUnfusedArch", "aether"]


class _AetherNetArch(Architecture[aether]):
    _form: str

    def __init__(self) -> None:
        super().__init__(id=f"AetherNet-{self._form.title()}", detect=self._is_of_form)

    def _is_of_form(self, state_dict: StateDict) -> bool:
        return detect_form(state_dict) == self._form

    def load(self, state_dict: StateDict) -> ImageModelDescriptor[aether]:
        """
        Loads an AetherNet; every parameter is read from the shapes.

        Raises:
            ValueError: the weights are damaged; names the first key at fault.
        """
        weights = clean_state_dict(state_dict)
        model = prepare_aether(weights)  # which the descriptor loads them into
        parameters = model.hyperparameters
        scale = parameters["upscale"]
        descriptor: ImageModelDescriptor[aether] = ImageModelDescriptor(
            model,
            weights,
            architecture=self,
            purpose="Restoration" if scale == 1 else "SR",
            tags=_tags(parameters),
            supports_half=True,
            supports_bfloat16=True,
            scale=scale,
            input_channels=parameters["in_chans"],
            output_channels=parameters["out_chans"],
        )
        descriptor.name = _name(parameters)  # type: ignore[attr-defined]
        return descriptor

    def sample(self) -> StateDict:
        """The weights of a small network in this form; in every form and every process those of the same network."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = aether(embed_dim=8, depths=(2,), upscale=2, num_feat=8)
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, std=0.2)
        return (model.fuse_model() if self._form == "fused" else model).state_dict()


class AetherNetFusedArch(_AetherNetArch):
    """AetherNet with one kernel in each block, as ``aether-install fuse`` writes it."""

    _form = "fused"


class AetherNetUnfusedArch(_AetherNetArch):
    """AetherNet with a large and a small kernel in each block, as training leaves it."""

    _form = "unfused"


ARCHITECTURES = (AetherNetFusedArch, AetherNetUnfusedArch)
"""Every class that spandrel's registry is to know."""


def _tags(parameters: Dict[str, Any]) -> List[str]:
    variant = variant_name(parameters)
    return [
        *([variant] if variant else []),
        "fused" if parameters["fused_init"] else "unfused",
        f"{parameters['embed_dim']}dim",
        f"{sum(parameters['depths'])}nb",
        f"{parameters['lk_kernel']}ks",
    ]


def _name(parameters: Dict[str, Any]) -> str:
    variant = variant_name(parameters) or f"{parameters['embed_dim']}dim"
    form = "fused" if parameters["fused_init"] else "unfused"
    return f"AetherNet {variant} {parameters['upscale']}x ({form})"
