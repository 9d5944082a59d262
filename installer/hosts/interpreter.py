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
        left_out: other spandrels that it would find without its flags.
        flags: what it was started with.
        has_pip, has_ensurepip: whether it has these modules.
        is_managed: whether its environment is the system's own business, so that no pip changes it.
    """

    executable: str
    version: str
    prefix: str
    spandrel: Path | None
    also: tuple[Path, ...]
    looked_in: tuple[str, ...]
    left_out: tuple[Path, ...] = ()
    flags: tuple[str, ...] = ()
    has_pip: bool = True
    has_ensurepip: bool = True
    is_managed: bool = False

    @property
    def started(self) -> tuple[str, ...]:
        """The words that start it again."""
        return (self.executable, *self.flags)


def running_interpreter() -> Interpreter:
    """The interpreter that runs this program; a current folder that only ``python -m`` put on its path is ignored."""
    path = list(sys.path)
    if getattr(sys.modules.get("__main__"), "__package__", None) and sys.path[:1] in ([""], [os.getcwd()]):
        del sys.path[0]
    try:
        return _interpreter(where_is_spandrel.answer(), own_flags())
    finally:
        sys.path[:] = path


def other_interpreter(executable: str, whose: str = "", flags: Sequence[str] = (), way_out: str = "") -> Interpreter:
    """
    Starts another interpreter and asks it.

    Args:
        flags: what its host starts it with.
        whose: the application that it was found with, unless the user named the interpreter itself.
        way_out: what to do where that one does not start.

    Raises:
        AetherInstallError: it does not start, or what starts is no Python.
    """
    told, remedy = (
        executable,
        "give --python the interpreter itself, such as venv/bin/python or python_embeded\\python.exe",
    )
    otherwise = "check that --python names a Python that works, or point --target at its site-packages folder"
    if whose:
        told = f"{executable}, the Python of {whose},"
        remedy = otherwise = way_out or f"repair {whose}, or point --target at its site-packages folder"
    try:
        child = _ask((executable, *flags), "where_is_spandrel", [], _PROBE_SECONDS)
        answer = json.loads((child.stdout.splitlines() or ["null"])[-1]) if child.returncode == 0 else None
    except subprocess.TimeoutExpired as error:
        raise AetherInstallError(f"{told} did not answer within {_PROBE_SECONDS} seconds; {otherwise}") from error
    except (OSError, ValueError) as error:
        reason = _reason(error)
        if os.path.islink(executable) and not os.path.exists(executable):
            reason, remedy = f"a link to {os.path.realpath(executable)}, which is not there", otherwise
        raise AetherInstallError(f"{told} cannot be run as a Python interpreter ({reason}); {remedy}") from error
    if not isinstance(answer, dict):
        # Imported only where something went wrong.
        from .environment import why_it_cannot_start
        from .system import this_system

        if why := why_it_cannot_start(this_system(), Path(executable)):
            raise AetherInstallError(f"{told} cannot be run as a Python interpreter (it {why}); {otherwise}")
        raise AetherInstallError(
            f"{told} does not answer as a Python interpreter does (exit status {child.returncode}); {otherwise}",
            details=child.stderr.strip(),
        )
    return _interpreter(answer, tuple(flags))


def _interpreter(answer: dict[str, Any], flags: tuple[str, ...]) -> Interpreter:
    return Interpreter(
        executable=str(answer["executable"]),
        version=str(answer["version"]),
        prefix=str(answer["prefix"]),
        spandrel=Path(answer["spandrel"]) if answer["spandrel"] else None,
        also=tuple(map(Path, answer["also"])),
        looked_in=tuple(answer["looked_in"]),
        left_out=tuple(map(Path, answer["left_out"])),
        flags=flags,
        has_pip=answer["pip"],
        has_ensurepip=answer["ensurepip"],
        is_managed=answer["managed"],
    )


def self_test(python: Sequence[str], package: Path) -> str | None:
    """
    Has an interpreter import the spandrel in a folder and run a small AetherNet of each architecture.

    Args:
        python: the words that start it.

    Returns None if it does, else what the interpreter said.
    """
    return _complaint(python, "does_aethernet_load", package)


def lists_aethernet(python: Sequence[str], package: Path) -> str | None:
    """The same of importing the spandrel in a folder, and finding an AetherNet in its list, whoever's that is."""
    return _complaint(python, "is_aethernet_listed", package)


def _complaint(python: Sequence[str], question: str, package: Path) -> str | None:
    try:
        child = _ask(python, question, [str(package)], _SELF_TEST_SECONDS)
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


def command_line(python: Sequence[str], question: str, arguments: Sequence[str], *, heard: bool = True) -> list[str]:
    """
    What runs one of our programs in an interpreter, leaving no bytecode.

    Args:
        python: the words that start it.
        heard: whether we hear what it says, and not the user.
    """
    executable, *flags = python
    source = f"{_IN_UTF8 if heard else ''}{program(question)}"
    if os.sep in executable or (os.altsep and os.altsep in executable):
        executable = os.path.abspath(executable)
    return [executable, *flags, "-B", "-c", source, *arguments]


def own_flags() -> tuple[str, ...]:
    """
    What the running interpreter was told of where to import from, which goes for another process of it.

    An embedded Python says of itself that it is isolated, however it was started, and has the user's own packages on
    its path all the same.
    """
    if sys.flags.isolated and sys.flags.no_user_site:
        return ("-I",)
    return ("-E",) * sys.flags.ignore_environment + ("-s",) * sys.flags.no_user_site


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


def _ask(
    python: Sequence[str], question: str, arguments: list[str], seconds: float
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command_line(python, question, arguments),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        stdin=subprocess.DEVNULL,
        env=environment(),
        timeout=seconds,
    )


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
