"""Reads model files: pickled by torch or in the safetensors format, weights and nothing else."""

from __future__ import annotations

import json
import stat
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import AetherInstallError
from ..formats.recognise import Recognised, few, recognise
from .skipped import ForbiddenError, is_skipped
from .unpickle import LEGACY_MAGIC, Name, Pickled, load_archive, load_legacy

PICKLE_SUFFIXES = (".pth", ".pt", ".ckpt")
SAFETENSORS_SUFFIX = ".safetensors"
SAFETENSORS_SUFFIXES = (SAFETENSORS_SUFFIX, ".sft")

UNPACKED_AT_MOST = 16
"""By how much trained weights may outgrow the file they are in; they hardly can be compressed."""


@dataclass(frozen=True)
class Checkpoint:
    """
    What a model file holds.

    Attributes:
        path: the file.
        format: ``pth`` or ``safetensors``, by content.
        content: as torch or safetensors give it.
        metadata: strings by key from a safetensors header.
        imports: what a pickle asks its reader to import, as (module, name).
        entries: the names inside a zip archive.
        skipped: how many objects of each name a pickle holds that are neither weights nor plain values.
    """

    path: Path
    format: str
    content: Mapping[Any, Any]
    metadata: Mapping[str, str] = field(default_factory=dict)
    imports: frozenset[Name] = frozenset()
    entries: tuple[str, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """What the trainer noted of the network, under ``metadata`` or ``arch_config``; empty if nothing."""
        for source in (self.metadata, self.content):
            for key in ("metadata", "arch_config"):
                noted = _mapping(source.get(key))
                if noted:
                    return noted
        return {}


def _mapping(noted: Any) -> dict[str, Any]:
    if isinstance(noted, str):
        try:
            noted = json.loads(noted)
        except (ValueError, RecursionError):
            return {}
    return {str(name): value for name, value in noted.items()} if isinstance(noted, Mapping) else {}


class NoModelError(AetherInstallError):
    """
    A file is something that cannot be read as a model.

    Attributes:
        known: what it is.
    """

    def __init__(self, path: Path, known: Recognised) -> None:
        super().__init__(f"{path} {known.sentence}")
        self.known = known


@contextmanager
def undamaged(path: Path) -> Iterator[None]:
    """
    Turns whatever a damaged file makes its readers raise into an error that says so, and keeps their warnings quiet.

    Raises:
        AetherInstallError: the file is damaged, holds something else than weights, or cannot be read at all.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except AetherInstallError:
        raise
    except ForbiddenError as error:
        known = recognise(path)
        if known:
            raise NoModelError(path, known) from error
        raise AetherInstallError(
            f"{path} holds {few([str(error)])}, which is no weights, and was not run; get a file of weights alone"
        ) from error
    except OSError as error:
        if error.errno is None:
            raise _damaged(path, error) from error
        raise AetherInstallError(f"{path} cannot be read ({error.strerror}); check the path") from error
    except MemoryError as error:
        raise AetherInstallError(
            f"{path} claims more memory than there is; get an undamaged copy of it, or close other programs"
        ) from error
    except Exception as error:  # Readers meet with bytes that nobody wrote, and fail wherever those lead them.
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> AetherInstallError:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return AetherInstallError(f"{path} is truncated or damaged ({reason[:200]}); copy or download it again")


def read_checkpoint(path: Path) -> Checkpoint:
    """
    Reads a model file. Nothing in a pickle is run, and what is neither weights nor a plain value is skipped.

    Raises:
        AetherInstallError: it is no model file, is damaged, or would have a program run by those who load it.
    """
    with undamaged(path):
        _check_regular(path)
        with open(path, "rb") as file:
            start = file.read(len(LEGACY_MAGIC))
        if not start:
            raise AetherInstallError(f"{path} is empty; copy or download it again")
        if path.suffix.lower() in SAFETENSORS_SUFFIXES and (start[:2] == b"PK" or start == LEGACY_MAGIC):
            raise AetherInstallError(f"{path} is a PyTorch file and not a safetensors file; rename it to end in .pth")
        if start[:2] == b"PK":
            entries = _check_archive(path)
            return _pickled(path, load_archive(path), entries)
        if start == LEGACY_MAGIC:
            return _pickled(path, load_legacy(path))
        # The length of the header, of eight bytes, has zeros among them, which a text has not.
        if start[8:9] == b"{" and b"\0" in start[:8]:
            return _read_safetensors(path)
    known = recognise(path)
    if known:
        raise NoModelError(path, known)
    if path.suffix.lower() == ".onnx":
        raise AetherInstallError(f"{path} is no ONNX file, or a damaged one; copy or download it again")
    raise AetherInstallError(f"{path} is neither a PyTorch nor a safetensors file; check that it is the right one")


def _check_regular(path: Path) -> None:
    """Before it is opened, since that alone waits for another process where it is a named pipe."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        known = recognise(path)
        raise NoModelError(path, known) if known else AetherInstallError(f"{path} is a folder; name a model file")
    if not stat.S_ISREG(mode):
        raise AetherInstallError(f"{path} is a pipe, socket or device, and no regular file; name a model file")


def _check_archive(path: Path) -> tuple[str, ...]:
    """Refuses archives that torch could not have written, and returns the names in any other."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    names = tuple(entry.filename for entry in entries)
    if any("/code/" in name for name in names) or not any(
        name.count("/") == 1 and "/data.pkl" in name for name in names
    ):
        known = recognise(path)
        if known:
            raise NoModelError(path, known)
    if sum(entry.file_size for entry in entries) > UNPACKED_AT_MOST * path.stat().st_size + 2**20:
        raise AetherInstallError(
            f"{path} is a compressed archive that claims to hold far more than its own size, so it holds no trained "
            "weights; get an undamaged copy of the file"
        )
    return names


def _pickled(path: Path, pickled: Pickled, entries: tuple[str, ...] = ()) -> Checkpoint:
    content = pickled.content
    if is_skipped(content):
        raise ForbiddenError(next(iter(pickled.skipped)))
    if not isinstance(content, Mapping):
        raise AetherInstallError(
            f"{path} holds a {type(content).__name__}, not the weights of a network; get the file of weights"
        )
    return Checkpoint(path, "pth", content, imports=pickled.names, entries=entries, skipped=pickled.skipped)


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise AetherInstallError(
            f"{path} cannot be read without safetensors, which {sys.executable} lacks; install it there, or name "
            "another Python with --python"
        ) from error
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    return Checkpoint(path, "safetensors", tensors, metadata)


def size_of(tensor: torch.Tensor) -> int:
    """Bytes of a tensor's values: its ``nbytes``, which torch 2.0 does not have."""
    return tensor.numel() * tensor.element_size()
