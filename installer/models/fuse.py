"""The command that merges the kernels of each block in a model file, and what else keeps hosts from using it right."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from ..errors import AetherInstallError, explained
from ..formats.recognise import recognise
from .checkpoint import (
    PICKLE_SUFFIXES,
    SAFETENSORS_SUFFIX,
    SAFETENSORS_SUFFIXES,
    Checkpoint,
    NoModelError,
    read_checkpoint,
)
from .compare import TOLERANCE, Comparison, compare
from .generations import StateDict
from .identify import Identity, Model, identify
from .inspection import forbidden_in_spandrel, is_read_by_torch, misleading_name
from .output import whole_file
from .saving import write_weights

OUTPUT_SUFFIXES = (".pth", SAFETENSORS_SUFFIX)
_MODEL_SUFFIXES = (*PICKLE_SUFFIXES, *SAFETENSORS_SUFFIXES)
_NESTED = 256
"""Dicts and lists of dicts and lists that are copied out of a pickle's metadata at most."""


@dataclass(frozen=True)
class Fused:
    """
    What was read and written.

    Attributes:
        source: the model as it was.
        output: the file written.
        arguments: those that leave no trace in the weights, as the model was trained.
        folded: which of them were folded into the weights.
        fused_layers: number of blocks whose kernels were merged; 0 if that was done before.
        obstacle: why spandrel does not load the file that it was in; None if it does.
        counts: number of weights before and after.
        sizes: bytes of the files before and after.
        comparison: None if it was skipped.
    """

    source: Identity
    output: Path
    arguments: dict[str, float]
    folded: dict[str, float]
    fused_layers: int
    obstacle: str | None
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
        for model in models:
            known = recognise(model)
            if known:
                raise NoModelError(model, known)
        raise AetherInstallError(
            f"there is no model in {', '.join(map(str, models))}; look for .pth or .safetensors files"
        )
    if (folder.exists() and not folder.is_dir()) or (not folder.exists() and folder.suffix.lower() in _MODEL_SUFFIXES):
        what = "is" if folder.exists() else "is the name of"
        raise AetherInstallError(f"{folder} {what} a file; with several models --output_path must be a folder")
    batch = Batch([], [])
    written_for: dict[str, Path] = {}
    for number, file in enumerate(files):

        def report(message: str, *, part: tuple[int, int] | None = None, number: int = number) -> None:
            progress(message, part=part or (number, len(files)))

        output = output_in(folder, file)
        try:
            _check_neighbours(output, file, files, written_for)
            batch.done.append(fuse(file, output, options, report))
            written_for[os.path.normcase(output)] = file
        except AetherInstallError as error:
            batch.failed.append((file, error))
        except OSError as error:
            batch.failed.append((file, explained(error, file)))
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
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _MODEL_SUFFIXES)


def output_in(folder: Path, model: Path) -> Path:
    """The output in a folder that goes by the model's own name."""
    if model.suffix.lower() in OUTPUT_SUFFIXES:
        return folder / model.name
    suffix = SAFETENSORS_SUFFIX if model.suffix.lower() in SAFETENSORS_SUFFIXES else ".pth"
    return folder / f"{model.stem}{suffix}"


def fuse(model: Path, output: Path, options: Options, progress: Progress) -> Fused:
    """
    Writes the fused form of an AetherNet, with what its file states folded into the weights.

    One that is fused is written only if it needs folding, or another file than the one it is in.

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
    identity = source.identity
    _check_promises(source, options)
    arguments = _agreed_arguments(identity, options.img_range)
    assumed = identity.generation.assumed(identity.parameters)
    folded = {name: value for name, value in arguments.items() if not math.isclose(value, assumed[name])}
    obstacle = forbidden_in_spandrel(source.checkpoint)
    if identity.fused and not folded and obstacle is None:
        misnamed = misleading_name(source.checkpoint)
        way_out = "; use it as it is"
        if misnamed:
            who = "few hosts load" if is_read_by_torch(source.checkpoint) else "no host loads"
            way_out = f", but {who} it: spandrel goes by the name, {misnamed}"
        raise AetherInstallError(f"{model} is fused already ({identity.description}){way_out}")
    made = _made(source, folded)
    now = {name: assumed[name] for name in folded}
    progress(f"writing {output}")
    comparison = None
    try:
        with whole_file(output, options.force) as unpublished:
            write_weights(made, unpublished, output.suffix.lower(), _metadata(source.checkpoint, now))
            size = unpublished.stat().st_size
            if options.verify:
                progress(f"comparing {output.name} with {model.name}")
                comparison = compare(source, arguments, made, unpublished, device)
    except FileExistsError as error:
        raise _exists(output) from error
    except OSError as error:
        raise AetherInstallError(f"{output} cannot be written ({error.strerror or error}); {_remedy(error)}") from error
    return Fused(
        source=identity,
        output=output,
        arguments=arguments,
        folded=folded,
        fused_layers=0 if identity.fused else sum(identity.generation.describe(identity.parameters)["depths"]),
        obstacle=obstacle,
        counts=(identity.count, sum(tensor.numel() for tensor in made.values())),
        sizes=(model.stat().st_size, size),
        comparison=comparison,
    )


def _made(source: Model, folded: Mapping[str, float]) -> StateDict:
    generation, weights = source.identity.generation, source.weights
    try:
        if folded:
            weights = generation.fold(weights, **folded)
        return weights if source.identity.fused else generation.fuse(weights)
    except ValueError as error:
        raise AetherInstallError(f"{source.identity.path}: {error}") from error


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


def _check_promises(source: Model, options: Options) -> None:
    identity, path = source.identity, source.identity.path
    for key, tensor in source.weights.items():
        if tensor.is_floating_point() and tensor.dtype not in TOLERANCE:
            raise AetherInstallError(
                f"{path} holds {key} as {str(tensor.dtype)[6:]}, which is not fused; use the float16 or "
                "float32 file of the same model"
            )
    if options.model_type is not None and options.model_type != f"aether_{identity.variant}":
        raise AetherInstallError(
            f"{path} is not {options.model_type} but {identity.description}; leave out --model_type or correct it"
        )
    scale = identity.generation.describe(identity.parameters)["upscale"]
    if options.upscale is not None and options.upscale != scale:
        raise AetherInstallError(
            f"{path} does not upscale {options.upscale}x: it is {identity.description}; leave out --upscale or "
            "correct it"
        )


def _agreed_arguments(identity: Identity, promised: float | None) -> dict[str, float]:
    """The arguments that leave no trace in the weights, as the file states them or, failing that, the caller."""
    noted = identity.noted.get("img_range")
    if promised is not None and noted is not None and promised != noted:
        raise AetherInstallError(
            f"{identity.path} states img_range {noted:g} in its metadata and --img_range says {promised:g}; "
            "leave out the flag to go by the file"
        )
    if promised is not None and not 0 < promised < float("inf"):
        raise AetherInstallError(f"--img_range {promised:g} is not a positive number; correct it")
    given = {} if promised is None else {"img_range": promised}
    return {**identity.generation.assumed(identity.parameters), **given, **identity.noted}


def _metadata(checkpoint: Checkpoint, now: Mapping[str, float]) -> dict[str, str]:
    """The header of the written file: the source's, with the arguments that were folded as they are now."""
    header = dict(checkpoint.metadata)
    noted = checkpoint.hyperparameters
    if "metadata" in header and not noted:
        return header  # It is somebody's text.
    key = "arch_config" if "arch_config" in header and "metadata" not in header else "metadata"
    if now or (noted and key not in header):
        header[key] = json.dumps(_with(_plain(noted), now))
    return header


def _with(noted: dict[str, Any], now: Mapping[str, float]) -> dict[str, Any]:
    """Hyperparameters with some as they are now, in the place or the places where they were."""
    nested = noted.get("arch_config")
    if not isinstance(nested, dict):
        return {**noted, **now}
    nested.update({name: value for name, value in now.items() if name in nested})
    return {**noted, **{name: value for name, value in now.items() if name in noted or name not in nested}}


def _plain(value: Any, visited: set[int] | None = None) -> Any:
    """A value as JSON can hold it, whatever was pickled; what holds more than plain values is written once."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if not isinstance(value, Mapping | list | tuple):
        return str(value)
    visited = set() if visited is None else visited
    inside = value.values() if isinstance(value, Mapping) else value
    if any(isinstance(item, Mapping | list | tuple) for item in inside):
        if id(value) in visited or len(visited) >= _NESTED:
            return "..."
        visited.add(id(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item, visited) for key, item in value.items()}
    return [_plain(item, visited) for item in value]
