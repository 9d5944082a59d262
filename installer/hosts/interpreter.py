"""Asks Python interpreters about their spandrel: the running one directly, any other in a child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import AetherInstallError
from ..shipped import program
from .programs import where_is_spandrel

_PROBE_SECONDS = 120
_SELF_TEST_SECONDS = 900
"""Importing torch from a cold network drive has been seen to take minutes."""


@dataclass(frozen=True)
class Interpreter:
    """
    A Python interpreter and what it said of spandrel.

    Attributes:
        executable: how to run it.
        version, prefix: as it reports them.
        spandrel: the folder of the spandrel it would import, if any.
        also: other spandrels on its path, which that one hides.
        looked_in: its path.
    """

    executable: str
    version: str
    prefix: str
    spandrel: Path | None
    also: tuple[Path, ...]
    looked_in: tuple[str, ...]


def running_interpreter() -> Interpreter:
    """The interpreter that runs this program; a current folder that only ``python -m`` put on its path is ignored."""
    path = list(sys.path)
    if getattr(sys.modules.get("__main__"), "__package__", None) and sys.path[:1] in ([""], [os.getcwd()]):
        del sys.path[0]
    try:
        return _interpreter(where_is_spandrel.answer())
    finally:
        sys.path[:] = path


def other_interpreter(executable: str, whose: str = "") -> Interpreter:
    """
    Starts another interpreter and asks it.

    Args:
        whose: the application that it was found with, unless the user named the interpreter itself.

    Raises:
        AetherInstallError: it does not start, or what starts is no Python.
    """
    told, check = executable, "check that --python names a Python that works"
    remedy = "give --python the interpreter itself, such as venv/bin/python or python_embeded\\python.exe"
    if whose:
        told, check = f"{executable}, the Python of {whose},", f"repair {whose}"
        remedy = f"{check}, or point --target at its site-packages folder"
    try:
        child = _ask(executable, "where_is_spandrel", [], _PROBE_SECONDS)
        answer = json.loads((child.stdout.splitlines() or ["null"])[-1]) if child.returncode == 0 else None
    except subprocess.TimeoutExpired as error:
        raise AetherInstallError(
            f"{told} did not answer within {_PROBE_SECONDS} seconds; {check}, or point --target at its site-packages "
            "folder"
        ) from error
    except (OSError, ValueError) as error:
        raise AetherInstallError(
            f"{told} cannot be run as a Python interpreter ({_reason(error)}); {remedy}"
        ) from error
    if not isinstance(answer, dict):
        raise AetherInstallError(
            f"{told} does not answer as a Python interpreter does (exit status {child.returncode}); {check}, or point "
            "--target at its site-packages folder",
            details=child.stderr.strip(),
        )
    return _interpreter(answer)


def _interpreter(answer: dict[str, Any]) -> Interpreter:
    return Interpreter(
        executable=str(answer["executable"]),
        version=str(answer["version"]),
        prefix=str(answer["prefix"]),
        spandrel=Path(answer["spandrel"]) if answer["spandrel"] else None,
        also=tuple(map(Path, answer["also"])),
        looked_in=tuple(answer["looked_in"]),
    )


def self_test(executable: str, package: Path) -> str | None:
    """
    Has an interpreter import the spandrel in a folder and run a small AetherNet of each architecture.

    Returns None if it does, else what the interpreter said.
    """
    try:
        child = _ask(executable, "does_aethernet_load", [str(package)], _SELF_TEST_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return _reason(error)
    if child.returncode == 0 and child.stdout.split()[-1:] == ["yes"]:
        return None
    return (child.stderr or child.stdout).strip() or f"exit status {child.returncode}, without a word"


_IN_UTF8 = """
import sys
for _stream in (sys.stdout, sys.stderr):
    if hasattr(_stream, "reconfigure"):
        _stream.reconfigure(encoding="utf-8")
"""
"""An isolated Python, such as an embedded one, heeds no variable that says so."""


def command_line(executable: str, question: str, arguments: Sequence[str], *, heard: bool = True) -> list[str]:
    """
    What runs one of our programs in an interpreter, leaving no bytecode.

    Args:
        heard: whether we hear what it says, and not the user.
    """
    source = f"{_IN_UTF8 if heard else ''}{program(question)}"
    if os.sep in executable or (os.altsep and os.altsep in executable):
        executable = os.path.abspath(executable)
    return [executable, *_own_flags(executable), "-B", "-c", source, *arguments]


def _own_flags(executable: str) -> list[str]:
    """What the running interpreter was told of where to import from goes for another process of it."""
    if executable != sys.executable:
        return []
    if sys.flags.isolated:
        return ["-I"]
    return [*["-E"] * sys.flags.ignore_environment, *["-s"] * sys.flags.no_user_site]


def environment() -> dict[str, str]:
    """
    The environment variables for a program of ours.

    An empty entry of PYTHONPATH means the current folder, where anything might lie; so the programs themselves drop the
    one that -c adds. Other entries are the user's own choice and stay.
    """
    path = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    if not path:
        del variables["PYTHONPATH"]
    return variables


def _ask(executable: str, question: str, arguments: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command_line(executable, question, arguments),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        stdin=subprocess.DEVNULL,
        env=environment(),
        timeout=seconds,
    )


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
