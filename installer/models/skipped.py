"""What stands for the objects in a pickle that are no weights, and which names no honest pickle has."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar


class ForbiddenError(Exception):
    """A pickle asks for something that is no weights; ``args[0]`` says what."""


class Skipped:
    """Stands for an object that is no weights: it takes whatever its pickle gives to it, and holds nothing."""

    name: ClassVar[str]
    count: ClassVar[Counter[str]]

    def __new__(cls, *arguments: Any, **_: Any) -> Skipped:
        kinds = [each for each in arguments if isinstance(each, type) and issubclass(each, Skipped)]
        cls.count.update(dict.fromkeys((each.name for each in (cls, *kinds)), 0))
        made = kinds[0] if kinds and cls.name == "copyreg._reconstructor" else cls
        cls.count[made.name] += 1
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> Skipped:
        return self

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def _ignore(self, *_: Any) -> None:
        pass

    __setitem__ = append = extend = add = update = _ignore


def is_skipped(value: Any) -> bool:
    """Whether something stands for a skipped object, or for a class or function that was named as a value."""
    return isinstance(value, Skipped) or (isinstance(value, type) and issubclass(value, Skipped))


def stand_in(name: str, count: Counter[str]) -> type[Skipped]:
    """
    Returns what stands for a class or function, and counts the objects that are made by it.

    Raises:
        ForbiddenError: it would run something, by itself or as a part of what follows.
    """
    if _runs(name):
        raise ForbiddenError(name)
    return type("Skipped", (Skipped,), {"name": name, "count": count})


_MODULES = {
    *("_io", "_pickle", "_posixsubprocess", "asyncio", "bdb", "cProfile", "cloudpickle", "code", "ctypes", "dill"),
    *("ensurepip", "importlib", "io", "marshal", "multiprocessing", "nt", "os", "pdb", "pickle", "pip", "popen2"),
    *("posix", "profile", "pty", "pydoc", "runpy", "shutil", "socket", "subprocess", "sys", "timeit", "urllib"),
    "webbrowser",
}
"""Whose functions no training leaves in a file, and whoever wants programs run by those who load it does."""

_PARTS = ("numpy.distutils.", "numpy.f2py.", "torch.hub.", "torch.package.", "torch.utils.cpp_extension.")

_NAMES = {
    *(f"builtins.{name}" for name in ("__import__", "compile", "eval", "exec", "execfile", "open")),
    *("codecs.open", "types.CodeType", "types.FunctionType", "torch.load", "torch.serialization.load"),
    *("torch.jit.load", "torch.jit._serialization.load"),
    *(f"numpy.{part}memmap" for part in ("", "core.memmap.", "_core.memmap.")),
}


def _runs(name: str) -> bool:
    first, *others = name.split(".")
    # Of a module's attributes one may be another module. The folders of packages may well be called so.
    attributes = others if first in ("builtins", "torch", "numpy") else others[-2:]
    return (
        first in _MODULES
        or name in _NAMES
        or name.startswith(_PARTS)
        or any(each.strip("_") in ("os", "posix", "nt", "subprocess", "sys", "shutil") for each in attributes)
    )
