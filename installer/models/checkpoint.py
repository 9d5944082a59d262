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
from .unpickle import LEGACY_MAGIC, ForbiddenError, Name, load_archive, load_legacy

PICKLE_SUFFIXES = (".pth", ".pt", ".ckpt")
SAFETENSORS_SUFFIX = ".safetensors"


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
    """

    path: Path
    format: str
    content: Mapping[Any, Any]
    metadata: Mapping[str, str] = field(default_factory=dict)
    imports: frozenset[Name] = frozenset()

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
        raise AetherInstallError(
            f"{path} holds {error}, which is no weights, and was not run; get a file of weights alone"
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
    Reads a model file. A pickle that holds anything but weights is refused, and nothing in it is run.

    Raises:
        AetherInstallError: it is no model file, is damaged, or holds something else than weights.
    """
    with undamaged(path):
        _check_regular(path)
        with open(path, "rb") as file:
            start = file.read(len(LEGACY_MAGIC))
        if not start:
            raise AetherInstallError(f"{path} is empty; copy or download it again")
        if path.suffix.lower() == SAFETENSORS_SUFFIX and (start[:2] == b"PK" or start == LEGACY_MAGIC):
            raise AetherInstallError(f"{path} is a PyTorch file and not a safetensors file; rename it to end in .pth")
        if start[:2] == b"PK":
            _check_archive(path)
            return _pickled(path, *load_archive(path))
        if start == LEGACY_MAGIC:
            return _pickled(path, *load_legacy(path))
        if start[8:9] == b"{":
            return _read_safetensors(path)
    raise AetherInstallError(f"{path} is neither a PyTorch nor a safetensors file; check that it is the right one")


def _check_regular(path: Path) -> None:
    """Before it is opened, since that alone waits for another process where it is a named pipe."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device, and no regular file"
        raise AetherInstallError(f"{path} is {what}; name a model file")


def _check_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any("/code/" in entry.filename for entry in entries):
        raise AetherInstallError(
            f"{path} is a TorchScript program, not a file of weights; use the checkpoint that it was made from"
        )
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size > path.stat().st_size for entry in entries):
        raise AetherInstallError(f"{path} is a compressed archive, which torch never writes; unpack the model from it")


def _pickled(path: Path, content: Any, names: set[Name]) -> Checkpoint:
    if not isinstance(content, Mapping):
        raise AetherInstallError(f"{path} holds a {type(content).__name__}, not the weights of a network")
    return Checkpoint(path, "pth", content, imports=frozenset(names))


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
