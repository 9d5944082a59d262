"""The command that says what a model file is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .checkpoint import PICKLE_SUFFIXES, SAFETENSORS_SUFFIX, Checkpoint, read_checkpoint
from .identify import GENERATION, LATER_GENERATION, Identity, identify, is_later_generation, looks_like
from .network import core

_ALLOWED_BY_SPANDREL = {
    ("collections", "OrderedDict"),
    ("typing", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch", "BFloat16Storage"),
    ("torch", "FloatStorage"),
    ("torch", "HalfStorage"),
    ("torch", "IntStorage"),
    ("torch", "LongStorage"),
    ("torch", "DoubleStorage"),
}
"""What spandrel's own unpickler imports, in every release from 0.3.0 to 0.4.2 (``spandrel/__helpers/unpickler.py``)."""


@dataclass(frozen=True)
class InSpandrel:
    """
    How a taught spandrel takes a file.

    Attributes:
        architecture: the id of the architecture that loads it.
        obstacle: why it does not; None if it does.
    """

    architecture: str
    obstacle: str | None

    @property
    def sentence(self) -> str:
        """The same in words."""
        return f"does not load: {self.obstacle}" if self.obstacle else f"loads as {self.architecture}, once taught"


@dataclass(frozen=True)
class Inspection:
    """
    What a model file is.

    Attributes:
        checkpoint: the file.
        size: its size in bytes.
        identity: the AetherNet in it; None if it holds none of this generation.
        generation: of AetherNet; None for another network.
        looks_like: for a file without an AetherNet of this generation, what it holds instead.
        spandrel: how spandrel takes an AetherNet of this generation.
    """

    checkpoint: Checkpoint
    size: int
    identity: Identity | None
    generation: str | None
    looks_like: str | None = None
    spandrel: InSpandrel | None = None

    @property
    def warnings(self) -> list[str]:
        """What a user should know before loading the file."""
        noted = self.identity.noted_img_range if self.identity else None
        if self.identity is None or noted in (None, 1.0):
            return []
        way_out = "fuse the unfused file again" if self.identity.fused else "`aether-install fuse` folds it in"
        warning = (
            f"the metadata states img_range {noted:g}, which no host ever sees, so every host renders this wrongly"
        )
        return [f"{warning}; {way_out}"]


def inspect_model(path: Path) -> Inspection:
    """
    Reads a model file and says what it is.

    Raises:
        AetherInstallError: it cannot be read, or holds a damaged AetherNet.
    """
    checkpoint = read_checkpoint(path)
    size = path.stat().st_size
    if core().locate_weights(checkpoint.content) is not None:
        identity = identify(checkpoint)
        architecture = "AetherNet-Fused" if identity.fused else "AetherNet-Unfused"
        return Inspection(
            checkpoint, size, identity, GENERATION, spandrel=InSpandrel(architecture, _obstacle(checkpoint))
        )
    generation = LATER_GENERATION if is_later_generation(checkpoint) else None
    return Inspection(checkpoint, size, None, generation, looks_like(checkpoint))


def _obstacle(checkpoint: Checkpoint) -> str | None:
    suffix = checkpoint.path.suffix.lower()
    suffixes = PICKLE_SUFFIXES if checkpoint.format == "pth" else (SAFETENSORS_SUFFIX,)
    if suffix not in suffixes:
        return f"it goes by the name, which should end in {' or '.join(suffixes)}"
    if checkpoint.format == "pth":
        forbidden = sorted(checkpoint.imports - _ALLOWED_BY_SPANDREL)
        if forbidden:
            names = ", ".join(".".join(name) for name in forbidden)
            return (
                f"its unpickler refuses {names}, which the file holds; `aether-install fuse` writes one that it takes"
            )
    return None
