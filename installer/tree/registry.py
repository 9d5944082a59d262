"""
The edit of spandrel's registry, ``spandrel/__helpers/main_registry.py``, as functions from bytes to bytes.

Our part is a block at the end of the file, between two marker lines. The first marker carries a digest of the block, so
that a block which any version of the installer wrote, reformatted or not, can be told from one that somebody edited.
The newline before the block belongs to it, which makes taking it out exact whether or not the file ended in one.
"""

from __future__ import annotations

import ast
import hashlib
import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from ..shipped import ARCHITECTURE

_BODY = b"""\
try:
    from ..architectures import AetherNet as _AetherNet

    MAIN_REGISTRY.add(*(ArchSupport.from_architecture(architecture()) for architecture in _AetherNet.ARCHITECTURES))
except Exception as _error:
    import sys as _sys
    import warnings as _warnings

    _warnings.warn(
        "; ".join(
            (
                f"AetherNet models cannot be loaded ({type(_error).__name__}: {_error})",
                "all other models can",
                f"to repair this, run: aether-install spandrel --python {_sys.executable}",
                "to remove AetherNet, run the same with uninstall for spandrel",
            )
        ),
        RuntimeWarning,
    )
"""

_NEWLINE = rb"(?:\r\n|\n|\r)"
_BEGIN = re.compile(rb"(?:(?<=[\r\n])|\A)# >>> aether-install (?P<digest>\w*)[^\r\n]*(?P<newline>" + _NEWLINE + rb")")
_END = re.compile(rb"(?<=[\r\n])# <<< aether-install <<<(?:" + _NEWLINE + rb"|\Z)")
TRACE = b"run: aether-install spandrel --python "
"""Occurs in our block, and so in the bytecode compiled from it, and in no registry without it."""

_TRACES = re.compile(rb"# (?:>>>|<<<) aether-install|" + re.escape(TRACE))


class BlockState(Enum):
    """What a registry holds of us."""

    ABSENT = "absent"
    CURRENT = "current"
    OTHER_VERSION = "other version"
    EDITED = "edited"


@dataclass(frozen=True)
class _Block:
    start: int
    body_start: int
    body_end: int
    end: int
    digest: bytes


def _digest(body: bytes) -> bytes:
    # Formatters move line ends, commas, parentheses and quotes about, which is no edit.
    essence = re.sub(rb"[\s,()'\"]+", b"", body)
    return hashlib.sha256(essence).hexdigest()[:16].encode()


def _with_newlines(text: bytes, newline: bytes) -> bytes:
    return re.sub(_NEWLINE, lambda _: newline, text)


def _find_block(source: bytes) -> _Block | None:
    begin = _BEGIN.search(source)
    if begin is None:
        return None
    end = _END.search(source, begin.end())
    if end is None:
        return None
    # The line end before the block is the one that came with it, even where the file goes on with other ones.
    before = source[: begin.start()]
    start = len(before.removesuffix(begin["newline"]))
    return _Block(start, begin.end(), end.start(), end.end(), begin["digest"])


def block_state(source: bytes) -> BlockState:
    """Tells whether a registry holds our block, by its digest and whatever its line ends."""
    block = _find_block(source)
    if block is None:
        return BlockState.EDITED if _TRACES.search(source) else BlockState.ABSENT
    body = source[block.body_start : block.body_end]
    if _digest(body) != block.digest or _TRACES.search(source[: block.start] + source[block.end :]):
        return BlockState.EDITED
    return BlockState.CURRENT if block.digest == _digest(_BODY) else BlockState.OTHER_VERSION


def patch(source: bytes) -> bytes:
    """Returns a registry that holds no block of ours with the block at its end, in the file's own line ends."""
    block = b"\n# >>> aether-install %s, so that AetherNet models load >>>\n%s# <<< aether-install <<<\n"
    return source + _with_newlines(block % (_digest(_BODY), _BODY), _newline_of(source))


def unpatch(source: bytes) -> bytes:
    """Returns a registry without our block, exactly as before ``patch``; one without a block comes back as it is."""
    block = _find_block(source)
    if block is None:
        return source
    before, after = source[: block.start], source[block.end :]
    # Whoever appended to the file after us relied on the line end that came with our block.
    joint = _newline_of(source) if after and before and not before.endswith((b"\n", b"\r")) else b""
    return before + joint + after


def original(source: bytes, kept: bytes | None) -> bytes | None:
    """
    Returns a registry without us; None if it was edited so that our part cannot be told from the rest.

    Args:
        kept: the original that was kept when the block was put in, if any.
    """
    rest = unpatch(source)
    if not is_edited(source) or (block_state(rest) is BlockState.ABSENT and not names_architecture(rest)):
        return rest
    # The marker lines are damaged. What was kept will do if it is still the beginning of the file.
    return kept if kept is not None and source.startswith(kept) else None


def is_edited(source: bytes) -> bool:
    """Tells whether somebody edited our block, or uses something called AetherNet outside it."""
    return block_state(source) is BlockState.EDITED or names_architecture(source)


def _newline_of(source: bytes) -> bytes:
    match = re.search(_NEWLINE, source)
    return match.group() if match else b"\n"


@lru_cache(maxsize=16)
def is_supported(source: bytes) -> bool:
    """Tells whether this is a registry of the 0.3+ kind: it adds ``ArchSupport.from_architecture(...)`` entries."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return False
    adds = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "add"
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "MAIN_REGISTRY"
    ]
    return any(
        isinstance(node, ast.Attribute)
        and node.attr == "from_architecture"
        and isinstance(node.value, ast.Name)
        and node.value.id == "ArchSupport"
        for add in adds
        for node in ast.walk(add)
    )


@lru_cache(maxsize=16)
def names_architecture(source: bytes) -> bool:
    """Tells whether a registry's code, our block apart, imports or uses something called AetherNet."""
    try:
        tree = ast.parse(unpatch(source))
    except (SyntaxError, ValueError):
        return False
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update(alias.name.rpartition(".")[2] for alias in node.names)
            names.update((getattr(node, "module", None) or "").split("."))
        elif isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
    return ARCHITECTURE in names
