"""
Imports many copies of spandrel in one process, one after the other, so that torch is imported only once.

The process, one for each that runs tests, starts when it is first needed and ends with that one.
"""

from __future__ import annotations

import atexit
import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from environments import needs_torch, quietly, wheel

from aether_install.tree.commands import install
from aether_install.tree.layout import Spandrel

_PROGRAM = """
import importlib, json, sys, traceback, warnings
import torch, torchvision, einops
shapes = {"body.0.weight": (8, 3, 3, 3), "body.0.bias": (8,), "body.1.weight": (8,)}
shapes.update({"body.2.weight": (12, 8, 3, 3), "body.2.bias": (12,)})
compact = {key: torch.zeros(shape) for key, shape in shapes.items()}
for line in sys.stdin:
    folder, package = json.loads(line)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("spandrel", package)]:
        del sys.modules[name]
    importlib.invalidate_caches()
    sys.path.insert(0, folder)
    answer = {"imports": False, "registered": [], "loads_others": False, "warnings": [], "error": ""}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            spandrel = importlib.import_module(package)
            own = {name for name in ("spandrel", package) if name in sys.modules} == {package}
            answer["imports"] = own and spandrel.__file__.startswith(folder)
            ids = [str(support.architecture.id) for support in spandrel.MAIN_REGISTRY]
            answer["registered"] = [name for name in ids if name.startswith("AetherNet")]
            other = spandrel.ModelLoader().load_from_state_dict(compact)
            answer["loads_others"] = other.architecture.id == "Compact"
            for name in answer["registered"]:
                weights = spandrel.MAIN_REGISTRY[name].architecture.sample()
                loaded = spandrel.ModelLoader().load_from_state_dict(weights)
                assert loaded.architecture.id == name
                assert loaded(torch.rand(1, 3, 5, 4)).shape[2:] == (5 * loaded.scale, 4 * loaded.scale)
        except BaseException:
            answer["error"] = traceback.format_exc()
    sys.path.remove(folder)
    answer["warnings"] = [str(w.message) for w in caught if "AetherNet" in str(w.message)]
    print(json.dumps(answer), flush=True)
"""


@dataclass(frozen=True)
class Import:
    """
    How importing a spandrel went: does it import, load other models, and what does it say.

    Attributes:
        registered: ids of the architectures of ours that it knows.
    """

    imports: bool
    registered: list[str]
    loads_others: bool
    warnings: list[str]
    error: str

    @property
    def detects(self) -> bool:
        return {"AetherNet-Fused", "AetherNet-Unfused"} <= set(self.registered)

    @property
    def clean(self) -> bool:
        return self.imports and self.loads_others and not self.error


@cache
def _importer() -> subprocess.Popen[str]:
    command = [sys.executable, "-B", "-c", _PROGRAM]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(process.communicate)
    return process


def import_each(folders: Iterable[Path], package: str = "spandrel") -> list[Import]:
    """
    Imports the spandrel in each site-packages folder, and loads models of several architectures with it.

    Args:
        package: the name under which it is there.
    """
    needs_torch()
    process = _importer()
    assert process.stdin
    assert process.stdout
    imports = []
    for folder in folders:
        print(json.dumps([str(folder), package]), file=process.stdin, flush=True)
        answer = process.stdout.readline()
        assert answer, f"importing the spandrel in {folder} ended the process, as said on stderr"
        imports.append(Import(**json.loads(answer)))
    return imports


@contextmanager
def spandrel_of(folder: Path) -> Iterator[None]:
    """For a while, the spandrel that this process imports is the one in a site-packages folder."""
    own = _imported_spandrel()
    for name in own:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in _imported_spandrel():
            del sys.modules[name]
        sys.modules.update(own)


def _imported_spandrel() -> dict[str, ModuleType]:
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "spandrel"}


def taught_spandrels(make_folder: Callable[[str], Path]) -> Callable[[str], Any]:
    """Returns what imports a taught spandrel of some version into this process, from a folder made for it."""

    @cache
    def spandrel(version: str) -> Any:
        folder = make_folder(version)
        shutil.unpack_archive(wheel(version), folder, "zip")
        install(Spandrel(folder / "spandrel"), progress=quietly)
        with spandrel_of(folder):
            found = importlib.import_module("spandrel")
        assert found.__version__ == version
        return found

    return spandrel
