"""The command that says what a model file is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..formats.onnx import Onnx
from ..formats.recognise import few
from .checkpoint import (
    PICKLE_SUFFIXES,
    SAFETENSORS_SUFFIX,
    SAFETENSORS_SUFFIXES,
    Checkpoint,
    NoModelError,
    read_checkpoint,
)
from .identify import Identity, UnsupportedError, identify
from .unpickle import STORAGE_CLASSES

_ALLOWED_BY_SPANDREL = {
    ("collections", "OrderedDict"),
    ("typing", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    *STORAGE_CLASSES,
}
"""
What spandrel's own unpickler imports, in every release from 0.3.0 to 0.4.2 (``spandrel/__helpers/unpickler.py``).

It lists six storage classes, and is never asked for them nor for the others.
"""

_REFUSED_BY_TORCH = {("typing", "OrderedDict"), ("torch.torch_version", "TorchVersion")}
"""Of what is read here, what ``torch.load`` with ``weights_only`` refuses."""

_OTHER_FILE = "use the float16 or float32 file of the same model"


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
        spandrel: how spandrel's own loader takes the AetherNet.
        by_torch: whether ``torch.load`` with ``weights_only``, or safetensors, reads the file by its name.
        entries: the names inside it, if it is a zip archive.
        onnx: what is known of the network in an ONNX file.
        skipped: how many objects of each name the file holds that are no weights.
    """

    path: Path
    format: str
    size: int
    identity: Identity | None
    looks_like: str | None = None
    spandrel: InSpandrel | None = None
    by_torch: bool = False
    entries: tuple[str, ...] = ()
    onnx: Onnx | None = None
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_fp8(self) -> bool:
        """Whether the weights have a few bits each."""
        return self.identity is not None and self.identity.dtype.startswith("float8")

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
        if self.is_fp8:
            warnings.append(
                f"the weights are fp8, rounded to a few bits, and not every torch reads them; {_OTHER_FILE}"
            )
        return warnings


def inspect_model(path: Path) -> Inspection:
    """
    Reads a model file and says what it is.

    Raises:
        AetherInstallError: it cannot be read, or holds a damaged AetherNet.
    """
    size = path.stat().st_size if path.is_file() else 0
    try:
        checkpoint = read_checkpoint(path)
    except NoModelError as error:
        if error.known.onnx is None:
            raise
        what = f"{error.known.what}; {error.known.remedy}"
        return Inspection(path, "onnx", size, None, what, onnx=error.known.onnx)
    try:
        identity = identify(checkpoint).identity
    except UnsupportedError as error:
        return Inspection(path, checkpoint.format, size, None, error.looks_like)
    architecture = identity.generation.architecture(identity.fused)
    misnamed, forbidden = misleading_name(checkpoint), forbidden_in_spandrel(checkpoint)
    obstacle = f"it goes by the name, {misnamed}" if misnamed else None
    if forbidden and not misnamed:
        is_fp8 = identity.dtype.startswith("float8")
        obstacle = f"{forbidden}; {_OTHER_FILE if is_fp8 else '`aether-install fuse` writes a file that it takes'}"
    in_spandrel = InSpandrel(architecture, obstacle)
    by_torch = is_read_by_torch(checkpoint)
    return Inspection(
        path=path,
        format=checkpoint.format,
        size=size,
        identity=identity,
        spandrel=in_spandrel,
        by_torch=by_torch,
        entries=checkpoint.entries,
        skipped=checkpoint.skipped,
    )


def misleading_name(checkpoint: Checkpoint) -> str | None:
    """What is wrong with a name that spandrel takes for that of another format, or of none; None if nothing is."""
    suffixes = PICKLE_SUFFIXES if checkpoint.format == "pth" else (SAFETENSORS_SUFFIX,)
    if checkpoint.path.suffix.lower() in suffixes:
        return None
    return f"which should end in {' or '.join(suffixes)}; rename the file"


def is_read_by_torch(checkpoint: Checkpoint) -> bool:
    """Whether hosts that read files themselves, as ComfyUI does, read this one, if they list its name."""
    if checkpoint.format == "safetensors":
        return checkpoint.path.suffix.lower() in SAFETENSORS_SUFFIXES
    # Not even torch reads types without a storage class from a file in the format of before 1.6.
    refused = _REFUSED_BY_TORCH if checkpoint.entries else {*_REFUSED_BY_TORCH, ("torch._utils", "_rebuild_tensor_v3")}
    is_named_well = checkpoint.path.suffix.lower() not in SAFETENSORS_SUFFIXES
    return is_named_well and not checkpoint.skipped and not checkpoint.imports & refused


def forbidden_in_spandrel(checkpoint: Checkpoint) -> str | None:
    """Why spandrel's unpickler refuses a file that is read here; None if it does not."""
    forbidden = sorted(".".join(name) for name in checkpoint.imports - _ALLOWED_BY_SPANDREL)
    if not forbidden:
        return None
    return f"its unpickler refuses {few(forbidden)}, which the file holds"
