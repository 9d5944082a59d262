"""Fuses several models into a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import AetherInstallError, explained
from ..formats.recognise import recognise
from .checkpoint import PICKLE_SUFFIXES, SAFETENSORS_SUFFIX, SAFETENSORS_SUFFIXES, NoModelError
from .forms import OUTPUT_SUFFIXES
from .fuse import Fused, Options, Progress, fuse

_MODEL_SUFFIXES = (*PICKLE_SUFFIXES, *SAFETENSORS_SUFFIXES)
_FILE_SUFFIXES = {*_MODEL_SUFFIXES, *OUTPUT_SUFFIXES}


@dataclass(frozen=True)
class Batch:
    """What became of several models: those fused, and those that could not be, with the reason."""

    done: list[Fused]
    failed: list[tuple[Path, AetherInstallError]]


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
    if (folder.exists() and not folder.is_dir()) or (not folder.exists() and folder.suffix.lower() in _FILE_SUFFIXES):
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
            batch.done.append(fuse(file, [output], options, report))
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
