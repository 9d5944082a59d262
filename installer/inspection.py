"""The command that says what a model file is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .checkpoint import Checkpoint, read_checkpoint
from .identify import GENERATION, LATER_GENERATION, Identity, identify, is_later_generation, looks_like
from .network import core


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
    """

    checkpoint: Checkpoint
    size: int
    identity: Identity | None
    generation: str | None
    looks_like: str | None

    @property
    def warnings(self) -> list[str]:
        """What a user should know before loading the file."""
        noted = self.identity.noted_img_range if self.identity else None
        if self.identity is None or noted in (None, 1.0):
            return []
        way_out = "get the unfused file and fuse it again" if self.identity.fused else "fuse it, which folds it in"
        return [
            f"its metadata states img_range {noted:g}, which no host ever sees, so every host would render it wrongly; "
            + way_out
        ]


def inspect_model(path: Path) -> Inspection:
    """
    Reads a model file and says what it is.

    Raises:
        AetherInstallError: it cannot be read, or holds a damaged AetherNet.
    """
    checkpoint = read_checkpoint(path)
    size = path.stat().st_size
    if core().locate_weights(checkpoint.content) is not None:
        return Inspection(checkpoint, size, identify(checkpoint), GENERATION, None)
    generation = LATER_GENERATION if is_later_generation(checkpoint) else None
    return Inspection(checkpoint, size, None, generation, looks_like(checkpoint))
