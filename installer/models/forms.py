"""The forms in which a model is released: containers by the ending of a file's name, and types of its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import AetherInstallError
from .checkpoint import SAFETENSORS_SUFFIX, Checkpoint
from .generations import StateDict

ONNX_SUFFIX = ".onnx"
OUTPUT_SUFFIXES = (".pth", SAFETENSORS_SUFFIX, ONNX_SUFFIX)

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_LARGEST = torch.finfo(torch.bfloat16).max
_IN_ONNX = ("float32", "float16")
"""Those that the programs which run ONNX compute in; few know the others."""


@dataclass(frozen=True)
class Form:
    """
    A file to be written.

    Attributes:
        path: its ending says the container.
        dtype: of the numbers; None for those that the model has.
    """

    path: Path
    dtype: torch.dtype | None

    @property
    def suffix(self) -> str:
        """The ending, in small letters."""
        return self.path.suffix.lower()

    def changes(self, checkpoint: Checkpoint, dtype: str) -> bool:
        """Whether it has another container or dtype than the file, of the given dtype, that it is made from."""
        container = checkpoint.format if checkpoint.format == "safetensors" else "pth"
        return self.suffix != f".{container}" or (self.dtype is not None and str(self.dtype)[6:] != dtype)


def forms_of(outputs: Sequence[Path], dtypes: Sequence[str], own: str) -> list[Form]:
    """
    Returns what is to be written.

    Args:
        outputs: the files.
        dtypes: none, one for all of them, or one for each.
        own: of the model, or ``mixed``.

    Raises:
        AetherInstallError: a form does not exist.
    """
    each: Sequence[str | None] = dtypes if len(dtypes) > 1 else [*dtypes, None][:1] * len(outputs)
    return [_form(path, name, own) for path, name in zip(outputs, each, strict=True)]


def _form(path: Path, name: str | None, own: str) -> Form:
    if path.suffix.lower() == ONNX_SUFFIX:
        name = name or (own if own in _IN_ONNX else "float32")
        if name not in _IN_ONNX:
            raise AetherInstallError(f"{path} cannot hold {name}; ONNX files are written in {' or '.join(_IN_ONNX)}")
    return Form(path, None if name is None else _DTYPES[name])


def widened(weights: StateDict, dtype: torch.dtype | None) -> StateDict:
    """Returns weights that hold at least what a dtype holds, so that sums of them are rounded to that one alone."""
    if dtype is None:
        return weights
    return {
        key: tensor.to(torch.promote_types(tensor.dtype, dtype)) if tensor.is_floating_point() else tensor
        for key, tensor in weights.items()
    }


def converted(weights: StateDict, dtype: torch.dtype | None, path: Path) -> tuple[StateDict, dict[str, int]]:
    """
    Returns weights in another dtype, and for each key how many of them are so small that they became zero.

    Raises:
        AetherInstallError: a weight is too large; names the first such key.
    """
    if dtype is None:
        return weights, {}
    made, vanished = {}, {}
    for key, before in weights.items():
        after = made[key] = before.to(dtype) if before.is_floating_point() else before
        if after.dtype == before.dtype:
            continue
        if (after.isinf() & ~before.isinf()).any():
            finite = before[before.isfinite()].abs().max().item()
            way_out = "write bfloat16 or float32" if finite < _LARGEST else "leave out --dtype"
            raise AetherInstallError(
                f"{path} holds {finite:.3g} in {key}, more than {str(dtype)[6:]} can hold "
                f"({torch.finfo(dtype).max:.3g}); {way_out}"
            )
        lost = int(((after == 0) & (before != 0)).sum())
        if lost:
            vanished[key] = lost
    return made, vanished
