"""The command that merges the two kernels of each block in a model file: the same picture, faster."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .checkpoint import PICKLE_SUFFIXES, SAFETENSORS_SUFFIX, read_checkpoint, write_weights
from .errors import AetherInstallError
from .identify import Identity, identify
from .network import core
from .output import whole_file

TOLERANCE = {torch.float32: 1e-4, torch.float16: 3e-2, torch.bfloat16: 3e-2}
"""Largest difference that passes, relative to the range of the unfused model's output."""

_TEST_SIZE = 48
"""Side of the image, in pixels, on which the two models are compared."""


@dataclass(frozen=True)
class Comparison:
    """
    The fused model beside the unfused one, on the same input.

    Attributes:
        max_abs_diff: largest difference of any output value.
        output_range: largest minus smallest output value of the unfused model.
        seconds_unfused, seconds_fused: time of one run of each.
    """

    max_abs_diff: float
    output_range: float
    seconds_unfused: float
    seconds_fused: float


@dataclass(frozen=True)
class Fused:
    """
    What was read and written.

    Attributes:
        source: the unfused model.
        output: the file written.
        img_range: the factor that was folded into the weights; 1 if none had to be.
        fused_layers: number of blocks whose kernels were merged.
        counts: number of weights before and after.
        sizes: bytes of the files before and after.
        comparison: None if it was skipped.
    """

    source: Identity
    output: Path
    img_range: float
    fused_layers: int
    counts: tuple[int, int]
    sizes: tuple[int, int]
    comparison: Comparison | None


def fuse(
    model: Path,
    output: Path,
    *,
    model_type: str | None = None,
    upscale: int | None = None,
    img_range: float | None = None,
    device: str | None = None,
    force: bool = False,
    verify: bool = True,
    progress: Callable[[str], None],
) -> Fused:
    """
    Writes the fused form of an unfused AetherNet.

    Args:
        model: any file that ``identify`` finds an AetherNet in.
        output: a .pth or .safetensors file; it appears whole or not at all.
        model_type, upscale, img_range: what the caller knows of the model; an error if the file says otherwise.
        device: where the models are compared; a GPU if there is one.
        force: replace an output that is there.
        verify: compare the written file with the unfused model, and keep it only if they agree.

    Raises:
        AetherInstallError: it is refused or fails, and nothing is written.
    """
    _check_paths(model, output, force)
    where = _device(device)
    progress(f"reading {model}")
    source = identify(read_checkpoint(model))
    _check_promises(source, model_type, upscale)
    factor = _agreed_img_range(source, img_range)
    try:
        folded = core().fold_img_range(source.weights, factor) if factor != 1 else source.weights
    except ValueError as error:
        raise AetherInstallError(f"{model}: {error}") from error
    fused = core().fuse_state_dict(folded)
    progress(f"writing {output}")
    comparison = None
    try:
        with whole_file(output, force) as unnamed:
            write_weights(fused, unnamed, output.suffix.lower(), _metadata(source, factor))
            size = unnamed.stat().st_size
            if verify:
                progress("comparing the written file with the unfused model")
                comparison = _compare(source, factor, unnamed, where, output)
    except FileExistsError as error:
        raise _exists(output) from error
    except OSError as error:
        raise AetherInstallError(
            f"{output} cannot be written ({error.strerror or error}); choose another place or make room"
        ) from error
    return Fused(
        source=source,
        output=output,
        img_range=factor,
        fused_layers=sum(source.parameters["depths"]),
        counts=(_count(source.weights), _count(fused)),
        sizes=(model.stat().st_size, size),
        comparison=comparison,
    )


def _check_paths(model: Path, output: Path, force: bool) -> None:
    if output.suffix.lower() not in (PICKLE_SUFFIXES[0], SAFETENSORS_SUFFIX):
        raise AetherInstallError(f"{output} must end in .pth or .safetensors, which decides the format")
    if output.exists() and model.exists() and os.path.samefile(model, output):
        raise AetherInstallError(f"{output} is the model itself, which is never overwritten; name another output")
    if os.path.lexists(output) and not force:
        raise _exists(output)
    if output.is_dir():
        raise AetherInstallError(f"{output} is a folder; name a file in it")


def _exists(output: Path) -> AetherInstallError:
    return AetherInstallError(f"{output} is there already; name another output, or add --force to replace it")


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise AetherInstallError(f"device {name} cannot be used here ({reason}); try --device cpu") from error
    return device


def _check_promises(source: Identity, model_type: str | None, upscale: int | None) -> None:
    path = source.checkpoint.path
    if source.fused:
        raise AetherInstallError(f"{path} is fused already ({source.description}); use it as it is")
    if model_type is not None and model_type != f"aether_{source.variant}":
        raise AetherInstallError(
            f"{path} is no {model_type} but {source.description}; leave out --model_type or mend it"
        )
    if upscale is not None and upscale != source.parameters["upscale"]:
        raise AetherInstallError(f"{path} does not upscale {upscale}x, it is {source.description}; mend --upscale")


def _agreed_img_range(source: Identity, promised: float | None) -> float:
    noted = source.noted_img_range
    if promised is not None and noted is not None and promised != noted:
        raise AetherInstallError(
            f"{source.checkpoint.path} states img_range {noted:g} in its metadata and --img_range says {promised:g}; "
            "leave out the flag to go by the file"
        )
    factor = promised if promised is not None else noted if noted is not None else 1.0
    if not 0 < factor < float("inf"):
        raise AetherInstallError(f"img_range {factor:g} of {source.checkpoint.path} is no positive number; mend it")
    return factor


def _metadata(source: Identity, factor: float) -> dict[str, str]:
    """The header of the fused file: the source's, with ``img_range`` as it is now."""
    header = dict(source.checkpoint.metadata)
    noted = dict(source.checkpoint.hyperparameters)
    if "img_range" in noted or factor != 1:
        noted["img_range"] = 1.0
    if noted:
        header["metadata"] = json.dumps(noted, default=str)
    return header


def _count(weights: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in weights.values())


def _compare(source: Identity, factor: float, written: Path, device: torch.device, output: Path) -> Comparison:
    dtype = source.weights["conv_first.weight"].dtype
    read_back = identify(read_checkpoint(written))
    chans = source.parameters["in_chans"]
    image = torch.rand(1, chans, _TEST_SIZE, _TEST_SIZE, generator=torch.Generator().manual_seed(0))
    image = image.to(device, dtype)
    expected, seconds_unfused = _run(source.weights, factor, image)
    got, seconds_fused = _run(read_back.weights, 1.0, image)
    difference = (got - expected).abs().max().item()
    output_range = (expected.max() - expected.min()).item()
    if not difference <= TOLERANCE.get(dtype, 1e-4) * output_range:
        raise AetherInstallError(
            f"the fused model differs from {source.checkpoint.path} by {difference:.2g} where outputs span "
            f"{output_range:.2g}, so {output} was not kept; please report this with the model"
        )
    return Comparison(difference, output_range, seconds_unfused, seconds_fused)


def _run(weights: Mapping[str, Any], img_range: float, image: torch.Tensor) -> tuple[torch.Tensor, float]:
    model = core().build_aether(weights, img_range=img_range, dtype=image.dtype).to(image.device)
    with torch.inference_mode():
        model(image[..., :8, :8])
        _wait(image.device)
        start = time.perf_counter()
        result = model(image)
        _wait(image.device)
        return result.float(), time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
