"""Reads and writes model files: pickled by torch or in the safetensors format, weights and nothing else."""

from __future__ import annotations

import errno
import io
import json
import pickle
import pickletools
import re
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import IO, Any

import torch

from ..errors import AetherInstallError

PICKLE_SUFFIXES = (".pth", ".pt", ".ckpt")
SAFETENSORS_SUFFIX = ".safetensors"

_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How files begin that torch wrote before 1.6, as do those it writes today on request."""

_SAFETENSORS_DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
"""Their names, in the order in which a file holds them."""


@dataclass(frozen=True)
class Checkpoint:
    """
    What a model file holds.

    Attributes:
        path: the file.
        format: ``pth`` or ``safetensors``, by content.
        content: as torch or safetensors give it.
        metadata: strings by key from a safetensors header.
    """

    path: Path
    format: str
    content: Mapping[Any, Any]
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def hyperparameters(self) -> Mapping[str, Any]:
        """What the trainer noted of the network, under ``metadata``; empty if nothing."""
        noted = self.metadata.get("metadata") or self.content.get("metadata")
        if isinstance(noted, str):
            try:
                noted = json.loads(noted)
            except ValueError:
                noted = None
        return noted if isinstance(noted, Mapping) else {}


def read_checkpoint(path: Path) -> Checkpoint:
    """
    Reads a model file. A pickle that holds anything but weights is refused, and nothing in it is run.

    Raises:
        AetherInstallError: it is no model file, is damaged, or holds something else than weights.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(len(_LEGACY_MAGIC))
    except OSError as error:
        raise AetherInstallError(f"{path} cannot be read ({error.strerror}); check the path") from error
    if not start:
        raise AetherInstallError(f"{path} is empty; copy or download it again")
    if path.suffix.lower() == SAFETENSORS_SUFFIX and (start[:2] == b"PK" or start == _LEGACY_MAGIC):
        raise AetherInstallError(f"{path} is a PyTorch file and no safetensors file; rename it to end in .pth")
    if start[:2] == b"PK":
        _check_archive(path)
        return Checkpoint(path, "pth", _unpickle(path, mmap=True))
    if start == _LEGACY_MAGIC:
        return Checkpoint(path, "pth", _unpickle(path, mmap=False))
    if start[8:9] == b"{":
        return _read_safetensors(path)
    raise AetherInstallError(f"{path} is neither a PyTorch nor a safetensors file; check that it is the right one")


def pickled_names(path: Path) -> set[tuple[str, str]]:
    """
    The (module, name) of everything that a file written by ``torch.save`` asks its reader to import; nothing is run.

    Raises:
        OSError, ValueError, KeyError: the file is damaged.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            return _names_in(io.BytesIO(archive.read(name)))
    with open(path, "rb") as file:
        # Before the object, three short pickles: a magic number, the protocol and the byte order.
        return set().union(*(_names_in(file) for _ in range(4)))


def _names_in(pickled: IO[bytes]) -> set[tuple[str, str]]:
    names: set[tuple[str, str]] = set()
    strings: list[str] = []
    for operation, argument, _ in pickletools.genops(pickled):
        if operation.name == "GLOBAL":
            module, _, name = str(argument).partition(" ")
            names.add((module, name))
        elif operation.name == "STACK_GLOBAL":
            names.add((strings[-2], strings[-1]))
        elif isinstance(argument, str):
            strings.append(argument)
    return names


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise AetherInstallError(f"{path} is truncated or damaged ({error}); copy or download it again") from error
    if any("/code/" in entry.filename for entry in entries):
        raise AetherInstallError(
            f"{path} is a TorchScript program, not a file of weights; use the checkpoint that it was made from"
        )
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size > path.stat().st_size for entry in entries):
        raise AetherInstallError(f"{path} is a compressed archive, which torch never writes; unpack the model from it")


def _unpickle(path: Path, mmap: bool) -> Mapping[Any, Any]:
    options = {"mmap": True} if mmap and "mmap" in signature(torch.load).parameters else {}  # not in torch 2.0
    try:
        content = torch.load(str(path), map_location="cpu", weights_only=True, **options)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None:
            raise AetherInstallError(
                f"{path} is pickled in a way that cannot be read without running it; load it where you trust it, and "
                "save the weights again with torch.save as it is by default"
            ) from error
        raise AetherInstallError(
            f"{path} holds {found.group(1)}, which is no weights, and was not run; get a file of weights alone"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise AetherInstallError(f"{path} is truncated or damaged ({reason}); copy or download it again") from error
    if not isinstance(content, Mapping):
        raise AetherInstallError(f"{path} holds a {type(content).__name__}, not the weights of a network")
    return content


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise AetherInstallError(
            f"{path} cannot be read without safetensors, which {sys.executable} lacks; install it there, or name "
            "another Python with --python"
        ) from error
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise AetherInstallError(f"{path} is truncated or damaged ({error}); copy or download it again") from error
    return Checkpoint(path, "safetensors", tensors, metadata)


def size_of(tensor: torch.Tensor) -> int:
    """Bytes of a tensor's values: its ``nbytes``, which torch 2.0 does not have."""
    return tensor.numel() * tensor.element_size()


def write_weights(weights: Mapping[str, torch.Tensor], path: Path, suffix: str, metadata: Mapping[str, str]) -> None:
    """
    Writes a bare state dict into a file that is there, in the format that a suffix asks for.

    Only safetensors files take metadata.

    Raises:
        OSError: the file cannot be written.
    """
    alone = _alone(weights)
    with open(path, "wb") as file:
        if suffix == SAFETENSORS_SUFFIX:
            _write_safetensors(alone, file, metadata)
            return
        try:
            torch.save(alone, file)
        except RuntimeError as error:
            # torch's way to say that the file did not take all that was written to it.
            raise OSError(errno.EIO, "the disk did not take all of it") from error


def _write_safetensors(weights: Mapping[str, torch.Tensor], file: IO[bytes], metadata: Mapping[str, str]) -> None:
    """
    Writes what ``safetensors.torch.save`` returns.

    The library writes either to memory, which takes the size of the file once more, or to a file under a name of its
    own, which a killed process leaves behind.

    Source: https://github.com/huggingface/safetensors#format
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    order = list(_SAFETENSORS_DTYPES)
    ordered = sorted(weights.items(), key=lambda item: (order.index(item[1].dtype), item[0]))
    end = 0
    for key, tensor in ordered:
        start, end = end, end + size_of(tensor)
        header[key] = {
            "dtype": _SAFETENSORS_DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % 8)
    file.write(len(encoded).to_bytes(8, "little") + encoded)
    for _, tensor in ordered:
        file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)


def _alone(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors without a gradient, contiguous, and each the only one in its storage."""
    storages: set[int] = set()
    alone: dict[str, torch.Tensor] = {}
    for key, tensor in weights.items():
        storage = tensor.untyped_storage()
        shared = storage.nbytes() != size_of(tensor) or storage.data_ptr() in storages
        alone[key] = (
            tensor.detach().clone(memory_format=torch.contiguous_format) if shared else tensor.detach().contiguous()
        )
        storages.add(storage.data_ptr())
    return alone
