"""Writes model files: bare state dicts, as torch and safetensors read them."""

from __future__ import annotations

import json
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import torch

from .checkpoint import SAFETENSORS_SUFFIX, size_of

_DTYPES = {
    torch.int64: ("I64", "LongStorage"),
    torch.float64: ("F64", "DoubleStorage"),
    torch.float32: ("F32", "FloatStorage"),
    torch.bfloat16: ("BF16", "BFloat16Storage"),
    torch.float16: ("F16", "HalfStorage"),
}
"""What safetensors files call them, in whose order they hold them, and torch's archives."""

_ALIGNMENT = 64
"""Bytes between whose multiples torch lays the tensors of an archive."""

_ZIP_HEADER = 30
"""Bytes of an entry's header, without its name and its extra field."""


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
        else:
            write_archive(alone, file)


def write_archive(content: Mapping[str, Any], file: IO[bytes]) -> None:
    """
    Writes what ``torch.load`` reads, without the records that newer releases add and Stable Diffusion WebUI refuses.

    Args:
        content: tensors, each alone in its storage, in dicts as deep as one likes.
        file: open for writing.

    Source: torch/serialization.py and caffe2/serialize/inline_container.cc; ``modules/safe.py`` of
    https://github.com/AUTOMATIC1111/stable-diffusion-webui lists the records that it allows.
    """
    pickled = BytesIO()
    pickler = _Pickler(pickled)
    pickler.dump(content)
    with zipfile.ZipFile(file, "w") as archive:
        _add(archive, "data.pkl", pickled.getvalue())
        _add(archive, "byteorder", sys.byteorder.encode())
        for number, tensor in enumerate(pickler.tensors):
            _add(archive, f"data/{number}", _bytes(tensor))
        _add(archive, "version", b"3\n")


def _add(archive: zipfile.ZipFile, name: str, content: Any) -> None:
    """Adds a record whose content is aligned by padding before it."""
    entry = zipfile.ZipInfo(f"archive/{name}")  # of 1980, as torch's are: the same weights give the same file
    assert archive.fp is not None
    start = archive.fp.tell() + _ZIP_HEADER + len(entry.filename) + 4
    padding = -start % _ALIGNMENT
    entry.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    archive.writestr(entry, content)


class _Pickler(pickle.Pickler):
    """Pickles tensors that are each alone in their storage, and notes them in the order in which they come."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, protocol=2)
        self.tensors: list[torch.Tensor] = []

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return NotImplemented
        kind = getattr(torch, _DTYPES[value.dtype][1])
        storage = _Reference("storage", kind, str(len(self.tensors)), "cpu", value.numel())
        self.tensors.append(value)
        hooks: OrderedDict[int, Any] = OrderedDict()
        return torch._utils._rebuild_tensor_v2, (storage, 0, tuple(value.shape), value.stride(), False, hooks)

    def persistent_id(self, value: Any) -> Any:
        return tuple(value) if isinstance(value, _Reference) else None


class _Reference(tuple[Any, ...]):
    """What stands for a storage inside a pickle."""

    def __new__(cls, *parts: Any) -> _Reference:
        return super().__new__(cls, parts)


def _write_safetensors(weights: Mapping[str, torch.Tensor], file: IO[bytes], metadata: Mapping[str, str]) -> None:
    """
    Writes what ``safetensors.torch.save`` returns.

    The library writes either to memory, which takes the size of the file once more, or to a file under a name of its
    own, which a killed process leaves behind.

    Source: https://github.com/huggingface/safetensors#format
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    order = list(_DTYPES)
    ordered = sorted(weights.items(), key=lambda item: (order.index(item[1].dtype), item[0]))
    end = 0
    for key, tensor in ordered:
        start, end = end, end + size_of(tensor)
        header[key] = {
            "dtype": _DTYPES[tensor.dtype][0],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % 8)
    file.write(len(encoded).to_bytes(8, "little") + encoded)
    for _, tensor in ordered:
        file.write(_bytes(tensor))


def _bytes(tensor: torch.Tensor) -> bytearray:
    """Its values, without numpy, which not every torch that is in use finds or gets on with."""
    content = bytearray(size_of(tensor))
    if content:
        torch.frombuffer(content, dtype=torch.uint8).copy_(tensor.reshape(-1).view(torch.uint8))
    return content


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
