"""Finds the spandrel that a command is about."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import AetherInstallError, explained
from ..tree.foreign import Foreign, Worth
from ..tree.layout import Spandrel
from .installing import installing
from .interpreter import Interpreter, lists_aethernet, other_interpreter, own_flags, running_interpreter, self_test

if TYPE_CHECKING:
    from .host import Host


@dataclass(frozen=True)
class Located:
    """
    A spandrel, and how it was found.

    Attributes:
        spandrel: where it is.
        interpreter: the Python that imports it, unless it was named by its folder.
        named_by: the options that name it on the command line.
    """

    spandrel: Spandrel
    interpreter: Interpreter | None = None
    named_by: tuple[str, ...] = ()

    def check(self) -> None:
        """
        Has the interpreter, if there is one, run a small AetherNet of each architecture with this spandrel.

        Raises:
            AetherInstallError: it cannot, with its own words as the details.
        """
        if self.interpreter is None:
            return
        complaint = self_test(self.interpreter.started, self.spandrel.package)
        if complaint:
            raise AetherInstallError(
                f"{self.interpreter.executable} cannot run AetherNet from {self.spandrel.package}; fix what it says "
                "below, or skip this check with --no-verify",
                details=complaint,
            )

    def check_others(self, theirs: Foreign) -> None:
        """
        Has the interpreter, if there is one, import an AetherNet that is not ours and whose files are all there.

        Raises:
            AetherInstallError: it cannot, with its own words as the details.
        """
        complaint = lists_aethernet(self.interpreter.started, self.spandrel.package) if self.interpreter else None
        if complaint and self.interpreter:
            fault = f"{self.interpreter.executable} says what is below"
            broken = replace(theirs, worth=Worth.BROKEN, fault=fault)
            message = f"{broken.told}; nothing was touched; {broken.way_out}"
            raise AetherInstallError(message, details=complaint)


def _is_standard_library(folder: str) -> bool:
    return os.path.basename(folder) == "lib-dynload" or os.path.isfile(os.path.join(folder, "os.py"))


class NoSpandrelError(AetherInstallError):
    """
    An interpreter has no spandrel.

    Attributes:
        complaint: the message without the way out.
    """

    def __init__(self, interpreter: Interpreter) -> None:
        executable = interpreter.executable
        # Neither archives nor the standard library are where anybody would install a spandrel.
        folders = [path for path in interpreter.looked_in if os.path.isdir(path) and not _is_standard_library(path)]
        looked_in = ", ".join(folders or interpreter.looked_in)
        self.complaint = f"{executable} (Python {interpreter.version}) has no spandrel, having looked in {looked_in}"
        super().__init__(
            f"{self.complaint}; install it with {installing(interpreter, 'spandrel')}, or name another interpreter "
            "with --python",
            state="missing",
        )


def locate(python: str | None = None, target: Path | None = None) -> Located:
    """
    Finds the spandrel that an interpreter would import or that lies in a folder; neither is imported.

    Args:
        python: an interpreter other than the running one, or a folder that it is the Python of.
        target: a site-packages folder that holds ``spandrel/``, or the package's own folder.

    Raises:
        NoSpandrelError: the interpreter has none.
        AetherInstallError: there is none in the folder, with ``state`` ``missing``, or the interpreter does not start.
    """
    if target is not None:
        try:
            return Located(Spandrel(_package_in(target)), named_by=("--target", str(target)))
        except OSError as error:
            raise explained(error, target) from error
    interpreter = _asked(interpreter_of(python) if python is not None else None)
    if interpreter.spandrel is None:
        raise NoSpandrelError(interpreter)
    return Located(Spandrel(interpreter.spandrel), interpreter, ("--python", python) if python is not None else ())


def _asked(executable: str | None) -> Interpreter:
    """What an interpreter, the running one by default, says when it is started as its host starts it."""
    host = host_with(executable or sys.executable)
    flags = _flags_of(host, executable or sys.executable)
    if executable is None and flags == own_flags():
        return running_interpreter()
    if executable is not None and host is not None and host.problem:
        return other_interpreter(executable, f"{host.kind.name} in {host.folder}", flags, host.way_out)
    return other_interpreter(executable or sys.executable, flags=flags)


def flags_of(executable: str) -> tuple[str, ...]:
    """What the host of an interpreter starts it with; of one without a host, how the running one was if it is that."""
    return _flags_of(host_with(executable), executable)


def _flags_of(host: Host | None, executable: str) -> tuple[str, ...]:
    if host is not None:
        return host.flags
    return own_flags() if executable == sys.executable else ()


def host_with(executable: str) -> Host | None:
    """The host that an interpreter belongs to."""
    # Imported only where an interpreter is to be started, like those below.
    from .discovery import host_of
    from .system import this_system

    # A link to a Python that is gone still tells whose it was.
    found = shutil.which(executable) or (executable if os.path.islink(executable) else None)
    return host_of(this_system(), Path(os.path.abspath(found))) if found else None


def interpreter_of(python: str) -> str:
    """
    The interpreter that a user means, who may have named the folder of a venv or of an application instead.

    Raises:
        AetherInstallError: it is a folder without one.
    """
    if not os.path.isdir(python):
        return python
    # Imported only where a folder has to be understood, like those below.
    from .configuration import Lead
    from .discovery import follow, pythons_around
    from .environment import python_in
    from .system import this_system

    system, folder = this_system(), Path(os.path.abspath(python))
    host = follow(system, Lead(folder))
    found = python_in(system, folder) or (host.python if host else None)
    if found is not None:
        return str(found)
    others = pythons_around(system, folder)
    hint = "give --python the interpreter itself, such as venv/bin/python or python_embeded\\python.exe"
    if others:
        hint = "did you mean --python " + " or --python ".join(map(str, others)) + "?"
    raise AetherInstallError(f"{python} is a folder and no environment of Python; {hint}")


def _package_in(target: Path) -> Path:
    if (target / "spandrel" / "__init__.py").is_file():
        return _where_installed(target / "spandrel")
    if (target / "__init__.py").is_file() and ((target / "__helpers").is_dir() or (target / "architectures").is_dir()):
        return _where_installed(target)
    from .discovery import packages_around
    from .system import this_system

    nested = packages_around(this_system(), target)
    hint = "point --target at the site-packages folder that holds spandrel, or at the spandrel folder itself"
    if nested:
        hint = "did you mean --target " + " or --target ".join(str(package) for package in nested) + "?"
    raise AetherInstallError(
        f"there is no spandrel in {target}, neither as {target / 'spandrel'} nor as that folder itself; {hint}",
        state="missing",
    )


def _where_installed(package: Path) -> Path:
    """The package under the name by which a RECORD would list it, however it was named by the user."""
    named = package.resolve() if ".." in package.parts else package.absolute()
    has_record = any(named.parent.glob(f"{named.name}-*.dist-info"))
    return named if has_record else named.resolve()
