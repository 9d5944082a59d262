"""The command that says what a model file is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .checkpoint import PICKLE_SUFFIXES, SAFETENSORS_SUFFIX, Checkpoint, read_checkpoint
from .identify import Identity, UnsupportedError, identify

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
        path: the file.
        format: ``pth`` or ``safetensors``, by content.
        size: in bytes.
        identity: the AetherNet in it; None if it holds none, or one that cannot be run here.
        looks_like: where there is no identity, what it holds instead.
        spandrel: how spandrel takes the AetherNet.
    """

    path: Path
    format: str
    size: int
    identity: Identity | None
    looks_like: str | None = None
    spandrel: InSpandrel | None = None

    @property
    def warnings(self) -> list[str]:
        """What a user should know before loading the file."""
        warnings = []
        if self.identity and self.identity.unheeded:
            stated = " and ".join(f"{name} {value:g}" for name, value in self.identity.unheeded.items())
            warnings.append(
                f"the file states {stated}, which no host ever sees, so every host renders this wrongly; "
                "`aether-install fuse` folds that into the weights"
            )
        if self.spandrel and self.spandrel.obstacle:
            warnings.append(f"no host loads this file: {self.spandrel.obstacle}")
        return warnings


def inspect_model(path: Path) -> Inspection:
    """
    Reads a model file and says what it is.

    Raises:
        AetherInstallError: it cannot be read, or holds a damaged AetherNet.
    """
    checkpoint = read_checkpoint(path)
    size = path.stat().st_size
    try:
        identity = identify(checkpoint).identity
    except UnsupportedError as error:
        return Inspection(path, checkpoint.format, size, None, error.looks_like)
    architecture = identity.generation.architecture(identity.fused)
    obstacle = misleading_name(checkpoint)
    forbidden = forbidden_in_spandrel(checkpoint)
    if forbidden and not obstacle:
        obstacle = f"{forbidden}; `aether-install fuse` writes a file that it takes"
    return Inspection(path, checkpoint.format, size, identity, spandrel=InSpandrel(architecture, obstacle))


def misleading_name(checkpoint: Checkpoint) -> str | None:
    """Why spandrel takes a file for one of another format; None if it does not."""
    suffixes = PICKLE_SUFFIXES if checkpoint.format == "pth" else (SAFETENSORS_SUFFIX,)
    if checkpoint.path.suffix.lower() in suffixes:
        return None
    return f"it goes by the name, which should end in {' or '.join(suffixes)}; rename the file"


def forbidden_in_spandrel(checkpoint: Checkpoint) -> str | None:
    """Why spandrel's unpickler refuses a file that is read here; None if it does not."""
    forbidden = sorted(".".join(name) for name in checkpoint.imports - _ALLOWED_BY_SPANDREL)
    if not forbidden:
        return None
    return f"its unpickler refuses {', '.join(forbidden)}, which the file holds"
