"""Tells what network a checkpoint holds: an AetherNet, whole or damaged, the later generation, or another one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import AetherInstallError
from .checkpoint import Checkpoint, size_of
from .network import core

GENERATION = "2025-06"
"""The generation that this project knows, by the month in which it was published."""

LATER_GENERATION = "later"
"""The one whose keys start with ``stages.`` in place of ``layers.``."""

_LATER_KEY = re.compile(r"(?:\w+\.)*?stages\.\d+\.")
_LATER_PART = re.compile(r"\bffn\.conv_gate\b|\bscale_tensor$|\bstages\.\d+\.\d+\.conv\.(?:lk|sk|fused)_")
"""Other networks have stages too; with one of these it is this one's."""


@dataclass(frozen=True)
class Identity:
    """
    An AetherNet in a checkpoint.

    Attributes:
        checkpoint: where it came from.
        weights: the clean state dict.
        container: the keys that led to it, joined by dots, or ``bare``.
        prefix: what stood before every key.
        parameters: constructor arguments as the shapes tell them, without ``img_range``.
        noted_img_range: ``img_range`` as the file's metadata states it; None if it does not.
    """

    checkpoint: Checkpoint
    weights: dict[str, torch.Tensor]
    container: str
    prefix: str
    parameters: dict[str, Any]
    noted_img_range: float | None

    @property
    def fused(self) -> bool:
        """Whether each block has one kernel."""
        return bool(self.parameters["fused_init"])

    @property
    def variant(self) -> str | None:
        """``small``, ``medium`` or ``large``; None for a size of its own."""
        name: str | None = core().variant_name(self.parameters)
        return name

    @property
    def dtype(self) -> str:
        """The dtype of all weights, or ``mixed``."""
        names = {str(tensor.dtype).removeprefix("torch.") for tensor in self.weights.values()}
        return names.pop() if len(names) == 1 else "mixed"

    @property
    def whereabouts(self) -> str:
        """Where in the file the weights were, in words."""
        place = "a bare state dict" if self.container == "bare" else self.container
        if self.container.endswith("params_ema") and "params" in self.checkpoint.content:
            place += ", the average, and not params"
        return place + (f", without the prefix {self.prefix}" if self.prefix else "")

    @property
    def description(self) -> str:
        """One line about the network."""
        size = self.variant or f"embed_dim {self.parameters['embed_dim']}, depths {self.parameters['depths']}"
        form = "fused" if self.fused else "unfused"
        return f"AetherNet {size}, {self.parameters['upscale']}x, {form}"


def identify(checkpoint: Checkpoint) -> Identity:
    """
    Finds the AetherNet in a checkpoint.

    Raises:
        AetherInstallError: there is none, with what the file looks like instead; or it is damaged.
    """
    located = core().locate_weights(checkpoint.content)
    if located is None:
        raise AetherInstallError(f"{checkpoint.path} is {looks_like(checkpoint)}, which this program cannot work with")
    if _claims_too_much(located.weights, checkpoint.path.stat().st_size):
        raise AetherInstallError(
            f"{checkpoint.path} holds fewer bytes than its tensors claim, so they are no trained weights; "
            "get an undamaged copy of the file"
        )
    try:
        parameters = core()._deduce_aether_params_from_state_dict(located.weights)
    except ValueError as error:
        raise AetherInstallError(f"{checkpoint.path} holds {error}; get an undamaged copy of the file") from error
    return Identity(
        checkpoint,
        located.weights,
        ".".join(located.container) or "bare",
        located.prefix,
        parameters,
        _noted_img_range(checkpoint),
    )


def _claims_too_much(weights: Mapping[str, torch.Tensor], size: int) -> bool:
    """
    Whether the tensors are so much larger than the file that it can only mean to fill our memory.

    A file may well be smaller than its tensors, which may share what is in it.
    """
    return sum(size_of(tensor) for tensor in weights.values()) > 16 * size + 2**26


def _noted_img_range(checkpoint: Checkpoint) -> float | None:
    noted = checkpoint.hyperparameters.get("img_range")
    if noted is None:
        return None
    try:
        factor = float(noted)
    except (TypeError, ValueError):
        factor = math.nan
    if not 0 < factor < math.inf:
        raise AetherInstallError(
            f"{checkpoint.path} notes an img_range of {noted!r}, which is no positive number; give the right one with "
            "--img_range after removing that entry"
        )
    return factor


def is_later_generation(checkpoint: Checkpoint) -> bool:
    """Whether these are weights of the later AetherNet generation."""
    keys = _tensor_keys(checkpoint.content)
    return any(_LATER_KEY.match(key) for key in keys) and any(_LATER_PART.search(key) for key in keys)


def looks_like(checkpoint: Checkpoint) -> str:
    """A phrase for what a checkpoint holds that is no AetherNet of this generation."""
    if is_later_generation(checkpoint):
        return "an AetherNet of the later generation (its keys start with stages.), another network"
    name = _spandrel_name(checkpoint.content)
    return f"a {name} model" if name else "no network known here"


def _spandrel_name(content: Mapping[Any, Any]) -> str | None:
    """What the spandrel at hand takes the weights for; it has seen far more networks than we have."""
    try:
        import spandrel

        weights = spandrel.canonicalize_state_dict(dict(content))
        for support in spandrel.MAIN_REGISTRY.architectures("detection"):
            if support.detect(weights):
                return str(support.architecture.name)
    except Exception:  # Whatever ails somebody else's detection or installation, here it only costs us a name.
        return None
    return None


def _tensor_keys(content: Mapping[Any, Any], depth: int = 0) -> list[str]:
    keys = [str(key) for key, value in content.items() if isinstance(value, torch.Tensor)]
    inner = [value for value in content.values() if isinstance(value, Mapping)] if depth < 4 else []
    return keys + [key for value in inner for key in _tensor_keys(value, depth + 1)]
