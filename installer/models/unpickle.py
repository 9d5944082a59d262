"""
Reads what ``torch.save`` wrote, weights and plain values only; nothing that a file names is imported or run.

Any other object, as training leaves beside the weights, is skipped: something that holds nothing is in its place.

``torch.load`` with ``weights_only`` is as careful, but refuses more (version numbers that some trainers note), warns of
what only newer releases of torch know, and fails in many ways on damaged files.

Source: torch/serialization.py; https://docs.pytorch.org/docs/stable/notes/serialization.html
"""

from __future__ import annotations

import _compat_pickle
import io
import mmap
import pickle
import sys
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple

import torch

from .skipped import ForbiddenError, Skipped, is_skipped, stand_in

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How files begin that torch wrote before 1.6, as do those it writes today on request."""

Name = tuple[str, str]
"""The module and the name of something that a pickle asks its reader to import."""

_HEADERS_BEFORE_THE_CONTENT = 3
"""Of a legacy file, each a pickle: the magic number, the protocol, and facts about the machine that wrote it."""

_ZIP_HEADER = 30
"""Bytes of a zip entry's own header without name and extra field, whose lengths are its last two numbers."""


class Pickled(NamedTuple):
    """
    What a file holds.

    Attributes:
        content: its values, with a ``Skipped`` in the place of each that is none of weights and plain values.
        names: what it asks its reader to import.
        skipped: how many objects of each name were skipped.
    """

    content: Any
    names: frozenset[Name]
    skipped: Mapping[str, int]


class Quantised(NamedTuple):
    """Stands for a tensor of a type that cannot be worked with: quantised, or newer than the torch at hand."""

    dtype: str


class _Text(str):
    """A string of a class of its own, such as torch's version; an instance takes whatever attributes it had."""


class _Storage(NamedTuple):
    """One-dimensional; ``values`` is None for a quantised type."""

    values: torch.Tensor | None
    dtype: str


class _Dtype(NamedTuple):
    """What a storage class stands for; ``dtype`` is None for a quantised type, ``width`` is in bytes."""

    name: str
    dtype: torch.dtype | None
    width: int = 0


_STORAGES = {
    **{
        f"{name}Storage": _Dtype(str(dtype)[6:], dtype, torch.empty(0, dtype=dtype).element_size())
        for name, dtype in {
            "Double": torch.float64,
            "Float": torch.float32,
            "Half": torch.float16,
            "BFloat16": torch.bfloat16,
            "Long": torch.int64,
            "Int": torch.int32,
            "Short": torch.int16,
            "Char": torch.int8,
            "Byte": torch.uint8,
            "Bool": torch.bool,
            "ComplexFloat": torch.complex64,
            "ComplexDouble": torch.complex128,
            "Untyped": torch.uint8,
        }.items()
    },
    **{f"{name}Storage": _Dtype(name.lower(), None) for name in ("QInt8", "QUInt8", "QInt32", "QUInt4x2", "QUInt2x4")},
}

STORAGE_CLASSES = frozenset(("torch", name) for name in _STORAGES if name != "UntypedStorage")
"""Of a type that they name: torch itself turns these into that type, before any unpickler is asked for them."""

_LATER_DTYPES = (
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
    *("uint16", "uint32", "uint64"),
)
"""Types that have no storage class, and that older releases of torch do not know."""

_QSCHEMES = ("per_tensor_affine", "per_channel_affine", "per_tensor_symmetric", "per_channel_symmetric")


def _rebuild_tensor(storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Any:
    return Quantised(storage.dtype) if storage.values is None else storage.values.as_strided(size, stride, offset)


def _rebuild_tensor_of(
    storage: _Storage,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    _: Any,
    __: Any,
    dtype: Any,
    *___: Any,
) -> Any:
    """From bytes, a tensor of a type that has no storage class."""
    if not isinstance(dtype, torch.dtype) or storage.values is None:
        return Quantised(str(dtype))
    return storage.values.view(dtype).as_strided(size, stride, offset)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


def _rebuild_subclass(function: Callable[..., Any], _: Any, arguments: tuple[Any, ...], *__: Any) -> Any:
    return function(*arguments)


_NODES_AT_MOST = 10_000
"""Of tuples in a key; hashing looks at each as often as it is reached, which may be without end."""


def _check_keys(keys: Iterable[Any]) -> None:
    for key in keys:
        left, nodes = _NODES_AT_MOST, [key]
        while nodes:
            node = nodes.pop()
            left -= 1
            if left < 0:
                raise pickle.UnpicklingError("a key of too many parts")
            if isinstance(node, tuple | frozenset):
                nodes += node


def _ordered_dict(pairs: Iterable[tuple[Any, Any]] = ()) -> OrderedDict[Any, Any]:
    pairs = list(pairs)
    _check_keys(key for key, _ in pairs)
    return OrderedDict(pairs)


def _encode(text: str, encoding: str) -> bytes:
    """How bytes are written since Python 3; other encodings take long, or more memory than the file."""
    if encoding not in ("latin1", "latin-1"):
        raise ForbiddenError("codecs.encode")
    return text.encode(encoding)


_ALLOWED: dict[Name, Any] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("typing", "OrderedDict"): _ordered_dict,
    ("collections", "Counter"): lambda counts=(): _ordered_dict(dict(counts).items()),
    ("_codecs", "encode"): _encode,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): lambda *parts: _Text(":".join(map(str, parts))),
    ("torch", "Tensor"): "Tensor",
    ("torch.nn.parameter", "Parameter"): "Parameter",
    ("torch.torch_version", "TorchVersion"): _Text,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_tensor_of,
    ("torch._utils", "_rebuild_qtensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_subclass,
    **{("torch", name): dtype for name, dtype in _STORAGES.items()},
    ("torch.storage", "UntypedStorage"): _STORAGES["UntypedStorage"],
    **{("torch", name): name for name in _QSCHEMES},
    **{("torch", storage.name): storage.name for storage in _STORAGES.values()},
    **{("torch", name): getattr(torch, name, name) for name in _LATER_DTYPES},
}


def _today(module: str, name: str) -> Name:
    """What a module and a name of Python 2 are called today; torch's pickles have those, whatever wrote them."""
    module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
    return _compat_pickle.IMPORT_MAPPING.get(module, module), name


_KEYS = {
    pickle.SETITEM: slice(-2, -1),
    pickle.SETITEMS: slice(None, None, 2),
    pickle.DICT: slice(None, None, 2),
    pickle.ADDITEMS: slice(None),
    pickle.FROZENSET: slice(None),
}
"""Where on the stack what an opcode hashes is."""


def _checking_keys(opcode: bytes, keys: slice) -> Callable[[Any], None]:
    load: Any = pickle._Unpickler.dispatch[opcode[0]]

    def checked(unpickler: Any) -> None:
        _check_keys(unpickler.stack[keys])
        load(unpickler)

    return checked


class _Unpickler(pickle._Unpickler):  # in Python: the one in C takes memory for whatever number a memo is given
    """Reads one pickle, and notes what it asks for."""

    def __init__(self, file: IO[bytes], storage: Callable[..., _Storage] | None = None) -> None:
        super().__init__(file)
        self._names: set[Name] = set()
        self._skipped: dict[str, type[Skipped]] = {}
        self._count = Counter[str]()
        self._storage = storage

    def read(self) -> Pickled:
        """Returns what it holds."""
        content = self.load()
        counts = {name: self._count.get(name, 1) for name in self._skipped}
        return Pickled(content, frozenset(self._names), {name: count for name, count in counts.items() if count})

    def find_class(self, module: str, name: str) -> Any:
        self._names.add((module, name))
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        module, name = _today(module, name)
        if (module, name) == ("builtins", "getattr"):
            return self._attribute
        return self._stand_in(f"{module}.{name}")

    def persistent_load(self, reference: Any) -> Any:
        if reference[0] == "module" and is_skipped(reference[1]):
            return reference[1]  # a class, with the text of its program
        kind, dtype, key, _, count, *view = reference
        if kind != "storage" or self._storage is None or not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError(f"unknown reference to {kind!r}")
        return self._storage(dtype, key, count, *view)

    def _attribute(self, owner: Any, name: str, *_: Any) -> Any:
        """What stands for an attribute: a class inside another, or the method of an object, for which that stands."""
        if isinstance(owner, type) and issubclass(owner, Skipped):
            self._count[owner.name] += 0
            return self._stand_in(f"{owner.name}.{name}")
        return owner if isinstance(owner, Skipped) else self._stand_in(f"builtins.getattr.{name}")

    def _stand_in(self, name: str) -> type[Skipped]:
        if name not in self._skipped:
            self._skipped[name] = stand_in(name, self._count)
        return self._skipped[name]

    # Weights have no state: it would be put into whatever the pickle names, our own functions included.
    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.BUILD[0]: lambda unpickler: unpickler.stack.pop(),
        **{opcode[0]: _checking_keys(opcode, keys) for opcode, keys in _KEYS.items()},
    }


def load_archive(path: Path) -> Pickled:
    """
    Reads a file in the zip format that torch writes since 1.6.

    The tensors are mapped: the file stays in use for as long as one of them is there.

    Raises:
        ForbiddenError: it asks for a program to be run.
        Exception: of many kinds, where it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        records = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        pickled = archive.read(records["data.pkl"])
        order = archive.read(records["byteorder"]).decode() if "byteorder" in records else "little"
    if order != sys.byteorder:
        raise ValueError(f"its numbers are {order}-endian, unlike those of this machine")
    with open(path, "rb") as file:
        # Private, since torch takes no read-only memory; nothing is ever written to it.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    storages: dict[str, _Storage] = {}

    def storage(dtype: _Dtype, key: str, count: int) -> _Storage:
        if key not in storages:
            entry = records[f"data/{key}"]
            is_plain = entry.compress_type == zipfile.ZIP_STORED
            buffer, start = (mapped, _start(mapped, entry)) if is_plain else (_unpacked(path, entry), 0)
            storages[key] = _storage_at(buffer, start, entry.file_size, dtype, count)
        return storages[key]

    return _Unpickler(io.BytesIO(pickled), storage).read()


def _start(mapped: mmap.mmap, entry: zipfile.ZipInfo) -> int:
    """Where the content of an entry begins."""
    header = mapped[entry.header_offset : entry.header_offset + _ZIP_HEADER]
    if header[:4] != b"PK\3\4":
        raise zipfile.BadZipFile(f"no header of {entry.filename}")
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return entry.header_offset + _ZIP_HEADER + lengths


def _unpacked(path: Path, entry: zipfile.ZipInfo) -> bytearray:
    """The content of an entry that somebody compressed, which torch never does, but reads."""
    with zipfile.ZipFile(path) as archive:
        return bytearray(archive.read(entry))


def _storage_at(buffer: Any, start: int, size: int, dtype: _Dtype, count: int) -> _Storage:
    if dtype.dtype is None or count == 0:
        return _Storage(None if dtype.dtype is None else torch.empty(0, dtype=dtype.dtype), dtype.name)
    length = count * dtype.width
    if not 0 < length <= min(size, len(buffer) - start):
        raise ValueError(f"{size} bytes where {count} numbers of {dtype.width} bytes should be")
    if start % dtype.width:
        buffer, start = bytearray(buffer[start : start + length]), 0
    return _Storage(torch.frombuffer(buffer, dtype=dtype.dtype, count=count, offset=start), dtype.name)


def load_legacy(path: Path) -> Pickled:
    """
    Reads a file in the format that torch wrote before 1.6.

    Raises:
        ForbiddenError: it asks for a program to be run.
        Exception: of many kinds, where it is damaged.
    """
    size = path.stat().st_size
    storages: dict[str, _Storage] = {}

    def storage(dtype: _Dtype, key: str, count: int, view: tuple[Any, int, int] | None = None) -> _Storage:
        if key not in storages:
            if dtype.dtype is None:
                storages[key] = _Storage(None, dtype.name)
            elif not 0 <= count * dtype.width <= size:
                raise ValueError(f"{count} numbers in a file of {size} bytes")
            else:
                storages[key] = _Storage(torch.empty(count, dtype=dtype.dtype), dtype.name)
        values = storages[key].values
        if view is None or values is None:
            return storages[key]
        _, offset, length = view
        return _Storage(values[offset : offset + length], dtype.name)

    with open(path, "rb") as file:
        for _ in range(_HEADERS_BEFORE_THE_CONTENT):
            _Unpickler(file).load()
        pickled = _Unpickler(file, storage).read()
        for key in _Unpickler(file).load():
            values = storages[key].values
            if values is None:
                break  # The content is of no use any more.
            count = int.from_bytes(file.read(8), "little")
            if count != values.numel():
                raise ValueError(f"{count} numbers where {values.numel()} should be")
            content = bytearray(values.numel() * values.element_size())
            if file.readinto(content) != len(content):
                raise EOFError("it ends too early")
            if content:
                values.view(torch.uint8).copy_(torch.frombuffer(content, dtype=torch.uint8))
    return pickled
