"""
Reads of an ONNX file what it says of its network, without the package onnx: names and shapes, and no weights.

And writes what is noted in one.

The format is a protocol buffer: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

_VARINT, _EIGHT_BYTES, _TEXT, _FOUR_BYTES = 0, 1, 2, 5
"""How a field is laid out."""

_FIELDS_AT_MOST = 1_000_000
"""In a whole file; a network has some thousands."""

_BLOCK = re.compile(r"(?:^|\.)(layers|stages)\.(\d+)\.(\d+)\.")
_FIRST = re.compile(r"(?:^|\.)conv_first\.weight")
_GENERATIONS = {"layers": "2025-06", "stages": "3.1"}

SIZES = {
    "2025-06": {"small": (96, (4,) * 4), "medium": (128, (6,) * 6), "large": (180, (8,) * 8)},
    "3.1": {
        "mobile": (64, (2,) * 4),
        "tiny": (64, (3,) * 3),
        "small": (96, (4,) * 4),
        "medium": (128, (6,) * 4),
        "large": (180, (8,) * 5),
        "pro": (192, (8,) * 5),
        "extreme": (256, (12,) * 5),
    },
}
"""``embed_dim`` and ``depths`` of the sizes that have a name; the networks' own tables import torch."""

_DTYPES = {1: "float32", 2: "uint8", 3: "int8", 10: "float16", 11: "float64", 16: "bfloat16"}


@dataclass(frozen=True)
class Onnx:
    """
    What an ONNX file says of its network.

    Attributes:
        metadata: what its writer noted.
        shapes: of the weights, by their names.
        dtypes: of the weights.
        scale: by how much the graph enlarges; None if it does not tell.
        opset: the version of the operators; None if it does not tell.
    """

    metadata: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: frozenset[str] = frozenset()
    scale: int | None = None
    opset: int | None = None

    @property
    def generation(self) -> str | None:
        """Of AetherNet, as ``inspect`` calls it; None if it is another network, or its weights go by other names."""
        if self.embed_dim is None:
            return None
        found = (_BLOCK.search(key) for key in self.shapes)
        return next((_GENERATIONS[match.group(1)] for match in found if match and _is_ours(match.string)), None)

    @property
    def embed_dim(self) -> int | None:
        """The number of features."""
        return next((shape[0] for key, shape in self.shapes.items() if len(shape) == 4 and _FIRST.search(key)), None)

    @property
    def depths(self) -> tuple[int, ...]:
        """The number of blocks in each stage."""
        blocks = {(int(match.group(2)), int(match.group(3))) for key in self.shapes if (match := _BLOCK.search(key))}
        stages = {stage for stage, _ in blocks}
        return tuple(sum(stage == other for other, _ in blocks) for stage in sorted(stages))

    @property
    def fused(self) -> bool:
        """Whether each block has one kernel."""
        return not any(".lk_conv." in key for key in self.shapes)

    @property
    def variant(self) -> str | None:
        """Such as ``small``, as it is noted or as the shapes tell."""
        sizes = SIZES.get(self.generation or "", {})
        noted = self.metadata.get("variant", "").removeprefix("aether_")
        by_shape = (name for name, size in sizes.items() if size == (self.embed_dim, self.depths))
        return noted if noted in sizes else next(by_shape, None)

    @property
    def dtype(self) -> str | None:
        """Of all weights, or ``mixed``; None if there are none."""
        return None if not self.dtypes else min(self.dtypes) if len(self.dtypes) == 1 else "mixed"

    @property
    def description(self) -> str:
        """One line, with an article."""
        if self.generation is None:
            noted = " ".join(self.metadata.get("architecture", "").split())[:60]
            return "an ONNX model" + (f" ({noted})" if noted else "")
        later = "" if self.generation == "2025-06" else f" {self.generation}"
        size = self.variant or f"embed_dim {self.embed_dim}, depths {self.depths}"
        scale = f", {self.scale}x" if self.scale else ""
        return f"an ONNX model, AetherNet{later} {size}{scale}, {'fused' if self.fused else 'unfused'}"


def _is_ours(key: str) -> bool:
    return ".conv.fused_conv." in key or ".conv.lk_conv." in key


class _Field(NamedTuple):
    number: int
    value: int
    content: tuple[int, int]
    """Where it lies, of one that is a text or a message."""


class _Message:
    """The fields of a message in a buffer; raises ``ValueError`` where there is none."""

    def __init__(self, buffer: mmap.mmap) -> None:
        self._buffer = buffer
        self._left = _FIELDS_AT_MOST

    def fields(self, place: tuple[int, int]) -> Iterator[_Field]:
        at, end = place
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise ValueError("too many fields")
            tag, at = self._varint(at, end)
            number, kind = tag >> 3, tag & 7
            if kind == _VARINT:
                value, at = self._varint(at, end)
                yield _Field(number, value, (0, 0))
                continue
            if kind == _TEXT:
                length, at = self._varint(at, end)
            else:
                length = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(kind, end)
            if number == 0 or at + length > end:
                raise ValueError("no protocol buffer")
            yield _Field(number, 0, (at, at + length))
            at += length

    def text(self, place: tuple[int, int]) -> str:
        return self._buffer[place[0] : min(place[1], place[0] + 10_000)].decode("utf-8", "replace")

    def integers(self, found: _Field) -> list[int]:
        """Of a repeated number, which may be packed."""
        at, end = found.content
        if not end:
            return [found.value]
        numbers = []
        while at < end:
            number, at = self._varint(at, end)
            numbers.append(number)
        return numbers

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                break
            byte = self._buffer[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise ValueError("no number")


def read_onnx(path: Path) -> Onnx | None:
    """What an ONNX file says of its network; None if it is none."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            message = _Message(mapped)
            parts = list(message.fields((0, len(mapped))))
            version = [part.value for part in parts if part.number == 1]
            graphs = [part.content for part in parts if part.number == 7 and part.content[1]]
            # What every file has, and one that begins so by chance has not: its own version, operators, and a graph.
            if len(version) != 1 or not 1 <= version[0] < 1000 or len(graphs) != 1 or parts[0].number != 1:
                return None
            metadata = dict(_entry(message, part.content) for part in parts if part.number == 14)
            opsets = (_entry_of_opset(message, part.content) for part in parts if part.number == 8)
            opset = next((version for domain, version in opsets if domain in ("", "ai.onnx")), None)
            return replace(_graph(message, graphs[0], metadata), opset=opset)
    except (OSError, ValueError):
        return None


def _entry(message: _Message, place: tuple[int, int]) -> tuple[str, str]:
    texts = {part.number: message.text(part.content) for part in message.fields(place)}
    return texts.get(1, ""), texts.get(2, "")


def _entry_of_opset(message: _Message, place: tuple[int, int]) -> tuple[str, int | None]:
    fields = list(message.fields(place))
    domain = next((message.text(part.content) for part in fields if part.number == 1), "")
    return domain, next((part.value for part in fields if part.number == 2), None)


def _graph(message: _Message, place: tuple[int, int], metadata: dict[str, str]) -> Onnx:
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes = set()
    scale = 1
    for part in message.fields(place):
        if part.number == 1:
            scale *= _enlarging(message, part.content)
        elif part.number == 5:
            name, shape, dtype = _weight(message, part.content)
            shapes[name] = shape
            if dtype in _DTYPES and len(shape) > 1:
                dtypes.add(_DTYPES[dtype])
    noted = metadata.get("scale", "")
    graph_scale = scale if scale > 1 else None
    return Onnx(metadata, shapes, frozenset(dtypes), int(noted) if noted.isdecimal() else graph_scale)


def _weight(message: _Message, place: tuple[int, int]) -> tuple[str, tuple[int, ...], int]:
    name, shape, dtype = "", [], 0
    for part in message.fields(place):
        if part.number == 1:
            shape += message.integers(part)
        elif part.number == 2:
            dtype = part.value
        elif part.number == 8:
            name = message.text(part.content)
    return name, tuple(shape), dtype


def _enlarging(message: _Message, place: tuple[int, int]) -> int:
    """By how much a node enlarges a picture; only the one that pixels are shuffled by is known to do that."""
    operator, size = "", 1
    for part in message.fields(place):
        if part.number == 4:
            operator = message.text(part.content)
        elif part.number == 5:
            fields = list(message.fields(part.content))
            if any(inner.number == 1 and message.text(inner.content) == "blocksize" for inner in fields):
                size = next((inner.value for inner in fields if inner.number == 3), 1)
    return size if operator == "DepthToSpace" else 1


def metadata_entries(metadata: Mapping[str, str]) -> bytes:
    """Returns what, at the end of an ONNX model, notes strings by key: its fields may come in any order."""
    return b"".join(_text_field(14, _text_field(1, key) + _text_field(2, value)) for key, value in metadata.items())


def _text_field(number: int, content: str | bytes) -> bytes:
    encoded = content.encode() if isinstance(content, str) else content
    return bytes([number << 3 | _TEXT]) + _encoded_varint(len(encoded)) + encoded


def _encoded_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
