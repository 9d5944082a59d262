"""
What an AetherNet that is not ours is good for, told by its files alone: nothing of it is run.

Whether its imports lead anywhere inside spandrel can be read; what else it needs, such as torch, is taken to be there.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path

from ..shipped import ARCHITECTURE
from . import record, registry
from .facts import Facts
from .layout import Spandrel

REINSTALL = "reinstall spandrel as it is released"
TRIES_IT = "`aether-install doctor` tries it"


class Worth(Enum):
    """What it is good for."""

    WORKS = "works"
    UNREGISTERED = "unregistered"
    BROKEN = "broken"


@dataclass(frozen=True)
class Foreign:
    """
    An AetherNet that is not ours.

    Attributes:
        worth: what it is good for.
        place: where it is.
        fault: what is wrong with it, as a part of a sentence; empty if it works.
        came_with_spandrel: whether spandrel's RECORD lists it.
    """

    worth: Worth
    place: Path
    fault: str
    came_with_spandrel: bool

    @property
    def told(self) -> str:
        """What it is, as a sentence without its end."""
        if self.worth is Worth.WORKS:
            return f"{self.place} is an AetherNet that is not ours, listed among this spandrel's architectures"
        return f"{self.place} is an AetherNet that is not ours, and it does not work: {self.fault}"

    @property
    def way_out(self) -> str:
        """What to do about it, likewise."""
        if self.worth is Worth.WORKS:
            return f"there is nothing to do: this spandrel knows AetherNet by itself; {TRIES_IT}"
        if self.came_with_spandrel:
            return f"it came with this spandrel, a fork of it: {REINSTALL}, and run this again"
        return f"remove {self.place}, and lines about it in main_registry.py if there are any, and run this again"


def foreign(facts: Facts) -> Foreign:
    """Of an AetherNet that ``state_of`` calls foreign, what it is good for."""
    spandrel = facts.spandrel
    module = _Module.at(spandrel, spandrel.payload)
    place = facts.blocked_by or spandrel.payload
    listed = {row for content in facts.records.values() for row in record.rows(content)}
    inside = spandrel.path_in_record(spandrel.payload)
    is_listed = any(row.startswith((f"{inside}/", f"{inside}.py")) for row in listed) and not facts.manifest
    uses = [*_uses(registry.unpatch(facts.registry or b""))]
    if module is None:
        return Foreign(Worth.BROKEN, place, f"there is no {ARCHITECTURE}/__init__.py", is_listed)
    if fault := next(_faults(module, set()), "") or next(_lacking(module, uses), ""):
        return Foreign(Worth.BROKEN, place, fault, is_listed)
    if not uses:
        fault = f"{spandrel.registry} does not add it to the list of architectures"
        return Foreign(Worth.UNREGISTERED, place, fault, is_listed)
    return Foreign(Worth.WORKS, place, "", is_listed)


@dataclass(frozen=True)
class _Module:
    """A module of a spandrel, as its source reads."""

    spandrel: Spandrel
    path: Path

    @classmethod
    def at(cls, spandrel: Spandrel, place: Path) -> _Module | None:
        """The module or the package of a name, if it is there."""
        sources = (place / "__init__.py", place.with_name(f"{place.name}.py"))
        return next((cls(spandrel, path) for path in sources if path.is_file()), None)

    @cached_property
    def tree(self) -> ast.Module | None:
        """Its source; None if this Python cannot read it."""
        try:
            return ast.parse(self.path.read_bytes())
        except (OSError, SyntaxError, ValueError, RecursionError):
            return None

    @cached_property
    def names(self) -> frozenset[str] | None:
        """What it defines; None if that cannot be told, as it defines names in ways of its own."""
        names: set[str] = set()
        for node in _outside_functions(self.tree) if self.tree else ():
            if isinstance(node, ast.Import | ast.ImportFrom):
                if any(alias.name == "*" for alias in node.names):
                    return None
                names.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.Name) and node.id in ("globals", "exec"):
                return None
        return None if "__getattr__" in names else frozenset(names)

    def has(self, name: str) -> bool:
        """Whether a name can be imported from it, as far as that can be told."""
        is_package = self.path.name == "__init__.py"
        below = self.path.parent / name
        return self.names is None or name in self.names or (is_package and (below.is_dir() or _is_module(below)))

    def imported(self, node: ast.ImportFrom) -> Path | None:
        """Where in its spandrel something is imported from; None if that is elsewhere."""
        parts = node.module.split(".") if node.module else []
        if node.level == 0:
            is_inside = parts[:1] == [self.spandrel.package.name]
            return self.spandrel.package.joinpath(*parts[1:]) if is_inside else None
        folders = [self.path.parent, *self.path.parent.parents]
        base = folders[node.level - 1] if node.level <= len(folders) else None
        is_inside = base is not None and base.is_relative_to(self.spandrel.package)
        return base.joinpath(*parts) if base is not None and is_inside else None


def _is_module(place: Path) -> bool:
    return place.with_name(f"{place.name}.py").is_file()


def _outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    """All that runs, or may run, when a module is imported."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _outside_functions(node)


def _surely_run(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements whose failure is the module's: in no function, in no ``try``, under no condition."""
    for node in body:
        if isinstance(node, ast.With):
            yield from _surely_run(node.body)
        else:
            yield node


def _faults(module: _Module, seen: set[Path]) -> Iterator[str]:
    """Imports, of a module and of those below AetherNet's folder that it imports, that lead nowhere."""
    seen.add(module.path)
    if module.tree is None:
        yield f"{module.path} is no Python that can be read"
        return
    for node in _surely_run(module.tree.body):
        if isinstance(node, ast.Raise):
            yield f"line {node.lineno} of {module.path} raises an error"
        place = module.imported(node) if isinstance(node, ast.ImportFrom) else None
        if place is None or not isinstance(node, ast.ImportFrom):
            continue
        found = _Module.at(module.spandrel, place)
        where = f"line {node.lineno} of {module.path}"
        if found is None and not place.is_dir():
            yield f"{where} imports from {place}, which is not there"
            continue
        for alias in node.names:
            below = _Module.at(module.spandrel, place / alias.name)
            is_there = place.joinpath(alias.name).is_dir() if found is None else found.has(alias.name)
            if alias.name != "*" and below is None and not is_there:
                yield f"{where} imports {alias.name} from {place}, which has none"
            elif below and below.path not in seen and below.path.is_relative_to(module.spandrel.payload):
                yield from _faults(below, seen)
        if found and found.path not in seen and found.path.is_relative_to(module.spandrel.payload):
            yield from _faults(found, seen)


def _uses(source: bytes) -> Iterator[str]:
    """
    What a registry's code takes from AetherNet, beyond importing it.

    Yields:
        Names that AetherNet has to define; ``""`` where its package is taken as a whole.
    """
    try:
        nodes = [*ast.walk(ast.parse(source))]
    except (SyntaxError, ValueError):
        return
    packages: set[str] = set()
    names: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            is_inside = (node.module or "").split(".")[-1] == ARCHITECTURE
            for alias in node.names:
                if is_inside:
                    names[alias.asname or alias.name] = alias.name
                elif alias.name == ARCHITECTURE:
                    packages.add(alias.asname or alias.name)
    attributes = {id(node.value): node.attr for node in nodes if isinstance(node, ast.Attribute)}
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            if node.id in names:
                yield names[node.id]
            elif node.id in packages:
                yield attributes.get(id(node), "")


def _lacking(module: _Module, uses: list[str]) -> Iterator[str]:
    """What a registry takes from AetherNet that this does not have."""
    for name in uses:
        if name and not module.has(name):
            yield f"the list of architectures asks for its {name}, which {module.path} does not define"
