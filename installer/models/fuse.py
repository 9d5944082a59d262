"""The command that merges the two kernels of each block in a model file: the same picture, faster."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from ..errors import AetherInstallError
from .checkpoint import PICKLE_SUFFIXES, SAFETENSORS_SUFFIX, read_checkpoint
from .identify import Identity, identify
from .network import core
from .output import whole_file
from .saving import write_weights

OUTPUT_SUFFIXES = (".pth", SAFETENSORS_SUFFIX)

TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 3e-2, torch.bfloat16: 3e-2}
"""Largest difference that passes for each dtype, relative to the range of the unfused model's output."""

_TEST_SIZE = 48
"""Side of the image, in pixels, on which the two models are compared."""

_TIMED_RUNS = 5


@dataclass(frozen=True)
class Comparison:
    """
    The fused model beside the unfused one, on the same input.

    Attributes:
        side: of the square image, in pixels.
        max_abs_diff: largest difference of any output value.
        output_range: largest minus smallest output value of the unfused model.
        seconds_unfused, seconds_fused: median time of one run of each, in turns.
    """

    side: int
    max_abs_diff: float
    output_range: float
    seconds_unfused: float
    seconds_fused: float

    @property
    def speed_up(self) -> float:
        """How many times as fast the fused model is."""
        return self.seconds_unfused / self.seconds_fused


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


@dataclass(frozen=True)
class Batch:
    """What became of several models: those fused, and those that could not be, with the reason."""

    done: list[Fused]
    failed: list[tuple[Path, AetherInstallError]]


@dataclass(frozen=True)
class Options:
    """
    How to fuse.

    Attributes:
        model_type, upscale, img_range: what the caller knows of the model; an error if the file says otherwise.
        device: where the models are compared; a GPU if there is one.
        force: replace an output that is there.
        verify: compare the written file with the unfused model, and keep it only if they agree.
    """

    model_type: str | None = None
    upscale: int | None = None
    img_range: float | None = None
    device: str | None = None
    force: bool = False
    verify: bool = True


class Progress(Protocol):
    """Told what is going on and, where there are several models, how many of them are done."""

    def __call__(self, message: str, *, part: tuple[int, int] | None = None) -> None: ...


def fuse_all(models: Sequence[Path], folder: Path, options: Options, progress: Progress) -> Batch:
    """
    Fuses several models into a folder, each under its own name; one that cannot be fused does not stop the others.

    Args:
        models: files, or folders whose model files are meant.
        folder: made if it is not there.
        options: for all of them.
        progress: told about each.

    Raises:
        AetherInstallError: there is nothing to fuse, or the folder is a file.
    """
    files = [file for model in models for file in (_models_in(model) if model.is_dir() else [model])]
    if not files:
        raise AetherInstallError(
            f"there is no model in {', '.join(map(str, models))}; look for .pth or .safetensors files"
        )
    if folder.exists() and not folder.is_dir():
        raise AetherInstallError(f"{folder} is a file; with several models --output_path must be a folder")
    batch = Batch([], [])
    written_for: dict[str, Path] = {}
    for number, file in enumerate(files):

        def report(message: str, *, part: tuple[int, int] | None = None, number: int = number) -> None:
            progress(message, part=part or (number, len(files)))

        output = output_in(folder, file)
        try:
            _check_neighbours(output, file, files, written_for)
            written_for[os.path.normcase(output)] = file
            batch.done.append(fuse(file, output, options, report))
        except AetherInstallError as error:
            batch.failed.append((file, error))
    return batch


def _check_neighbours(output: Path, model: Path, models: Sequence[Path], written_for: Mapping[str, Path]) -> None:
    """Refuses to write over another of the models, or over what was just written for another one."""
    if output.exists() and any(
        os.path.samefile(output, other) for other in models if other != model and other.exists()
    ):
        raise AetherInstallError(
            f"{model} would become {output}, which is another of the models and is not overwritten; name another folder"
        )
    other = written_for.get(os.path.normcase(output))
    if other is not None:
        raise AetherInstallError(
            f"{model} would become {output}, as {other} did, and was left out; fuse it into another folder"
        )


def _models_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in (*PICKLE_SUFFIXES, SAFETENSORS_SUFFIX))


def output_in(folder: Path, model: Path) -> Path:
    """The output in a folder that goes by the model's own name."""
    return folder / (model.name if model.suffix.lower() in OUTPUT_SUFFIXES else f"{model.stem}.pth")


def fuse(model: Path, output: Path, options: Options, progress: Progress) -> Fused:
    """
    Writes the fused form of an unfused AetherNet.

    Args:
        model: any file that ``identify`` finds an AetherNet in.
        output: a .pth or .safetensors file; it appears whole or not at all.
        options: how.
        progress: told about every step.

    Raises:
        AetherInstallError: it is refused or fails, and nothing is written.
    """
    _check_paths(model, output, options.force)
    device = _device(options.device)
    progress(f"reading {model}")
    source = identify(read_checkpoint(model))
    _check_promises(source, options)
    factor = _agreed_img_range(source, options.img_range)
    try:
        folded = core().fold_img_range(source.weights, factor) if factor != 1 else source.weights
        fused = core().fuse_state_dict(folded)
    except ValueError as error:
        raise AetherInstallError(f"{model}: {error}") from error
    progress(f"writing {output}")
    comparison = None
    try:
        with whole_file(output, options.force) as unpublished:
            write_weights(fused, unpublished, output.suffix.lower(), _metadata(source, factor))
            size = unpublished.stat().st_size
            if options.verify:
                progress(f"comparing {output.name} with the unfused model")
                comparison = _compare(source, factor, unpublished, device, output)
    except FileExistsError as error:
        raise _exists(output) from error
    except OSError as error:
        raise AetherInstallError(f"{output} cannot be written ({error.strerror or error}); {_remedy(error)}") from error
    return Fused(
        source=source,
        output=output,
        img_range=factor,
        fused_layers=sum(source.parameters["depths"]),
        counts=(_count(source.weights), _count(fused)),
        sizes=(model.stat().st_size, size),
        comparison=comparison,
    )


def _remedy(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "choose another place, or close the program that has it open"
    return "choose another place or make room"


def _check_paths(model: Path, output: Path, force: bool) -> None:
    if output.suffix.lower() not in OUTPUT_SUFFIXES:
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
        torch.ones(1, device=device).add(1).item()
    except Exception as error:  # Each backend has its own way to say that it is not there.
        reason = str(error).strip().partition("\n")[0]
        raise AetherInstallError(f"device {name} cannot be used here ({reason}); try --device cpu") from error
    return device


def _check_promises(source: Identity, options: Options) -> None:
    path = source.checkpoint.path
    if source.fused:
        raise AetherInstallError(f"{path} is fused already ({source.description}); use it as it is")
    for key, tensor in source.weights.items():
        if tensor.dtype not in TOLERANCE:
            raise AetherInstallError(
                f"{path} holds {key} as {str(tensor.dtype)[6:]}, which is not fused; convert the file to float32 first"
            )
    if options.model_type is not None and options.model_type != f"aether_{source.variant}":
        raise AetherInstallError(
            f"{path} is no {options.model_type} but {source.description}; leave out --model_type or mend it"
        )
    if options.upscale is not None and options.upscale != source.parameters["upscale"]:
        raise AetherInstallError(
            f"{path} does not upscale {options.upscale}x: it is {source.description}; leave out --upscale or mend it"
        )


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
    noted = {str(name): value for name, value in source.checkpoint.hyperparameters.items()}
    readable = noted or "metadata" not in header
    if factor != 1 and readable:
        header["metadata"] = json.dumps({**noted, "img_range": 1.0}, default=str)
    elif noted and "metadata" not in header:
        header["metadata"] = json.dumps(noted, default=str)
    return header


def _count(weights: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in weights.values())


def _compare(source: Identity, factor: float, written: Path, device: torch.device, output: Path) -> Comparison:
    dtype = source.weights["conv_first.weight"].dtype
    # In half precision two right models differ by a step of their last digit, which is more than the weights differ by.
    computed = torch.promote_types(dtype, torch.float32)
    read_back = identify(read_checkpoint(written))
    chans = source.parameters["in_chans"]
    image = torch.rand(1, chans, _TEST_SIZE, _TEST_SIZE, generator=torch.Generator().manual_seed(0))
    image = image.to(dtype).to(device, computed)
    unfused, fused = (
        core().build_aether(weights, img_range=img_range, dtype=computed).to(device)
        for weights, img_range in ((source.weights, factor), (read_back.weights, 1.0))
    )
    with torch.enable_grad():
        # Where gradients are enabled, the network runs its two kernels apart; inference would merge them as fuse did.
        expected = unfused.requires_grad_(False)(image)
    with torch.inference_mode():
        got = fused(image)
        if not expected.isfinite().all():
            raise AetherInstallError(
                f"{source.checkpoint.path} itself gives no finite output for a test image, so nothing can "
                " be compared and nothing was written; use --no-verify if that is as it should be"
            )
        difference = (got - expected).abs().max().item()
        output_range = (expected.max() - expected.min()).item()
        if not difference <= TOLERANCE[dtype] * output_range:
            raise AetherInstallError(
                f"the fused model differs from {source.checkpoint.path} by {difference:.2g} where outputs span "
                f"{output_range:.2g}, so {output} was not written; please report this with the model"
            )
        seconds = [(_time(unfused, image), _time(fused, image)) for _ in range(_TIMED_RUNS)]
    medians = (statistics.median(times) for times in zip(*seconds, strict=True))
    return Comparison(_TEST_SIZE, difference, output_range, *medians)


def _time(model: torch.nn.Module, image: torch.Tensor) -> float:
    start = time.perf_counter()
    model(image)
    if image.device.type == "cuda":
        torch.cuda.synchronize(image.device)
    return time.perf_counter() - start
