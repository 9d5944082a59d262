"""Which command installs a package for an interpreter: not every environment has a pip, or lets one work."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ..prompt import typed

if TYPE_CHECKING:
    from .interpreter import Interpreter


def installing(interpreter: Interpreter, package: str, *, upgrade: bool = False, again: bool = False) -> str:
    """
    The commands, in backquotes and as a part of a sentence, that install a package where an interpreter finds it.

    Args:
        upgrade: even if another version of it is there.
        again: even if the same version of it is there, of which nothing is to stay.
    """
    options = [*(["--upgrade"] if upgrade else []), *(["--force-reinstall", "--no-deps"] if again else [])]
    python = interpreter.executable
    if interpreter.is_managed:
        inside = os.path.join("FOLDER", "Scripts" if sys.platform == "win32" else "bin", "python")
        made = _commands([python, "-m", "venv", "FOLDER"], [inside, "-m", "pip", "install", package])
        return f"{made} (the environment of {python} is managed by the system, which lets no pip change it)"
    with_pip = [python, "-m", "pip", "install", *options, package]
    if interpreter.has_pip:
        return _commands(with_pip)
    with_uv = ["uv", "pip", "install", *options, package, "--python", python]
    if shutil.which("uv"):
        return _commands(with_uv)
    if find_spec("pip") is not None and sys.executable and sys.executable != python:
        return _commands([sys.executable, "-m", "pip", "--python", python, "install", *options, package])
    if interpreter.has_ensurepip:
        return _commands([python, "-m", "ensurepip"], with_pip)
    return f"uv (https://docs.astral.sh/uv): {_commands(with_uv)}"


def _commands(*commands: list[str]) -> str:
    return " and ".join(f"`{typed(words)}`" for words in commands)
