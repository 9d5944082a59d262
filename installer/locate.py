"""Finds the spandrel that a command is about, and the places inside it that matter to us."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .errors import AetherInstallError, explained
from .interpreter import Interpreter, other_interpreter, running_interpreter
from .manifest import ARCHITECTURE


@dataclass(frozen=True)
class Spandrel:
    """
    An installed spandrel, or a copy of it under another name.

    Attributes:
        package: its folder.
        interpreter: the Python that imports it, unless it was named by its folder.
        named_by: the options that name it on the command line.
    """

    package: Path
    interpreter: Interpreter | None = None
    named_by: tuple[str, ...] = ()

    @property
    def registry(self) -> Path:
        """The module that lists the architectures."""
        return self.package / "__helpers" / "main_registry.py"

    @property
    def architectures(self) -> Path:
        """The folder of all architectures."""
        return self.package / "architectures"

    @property
    def payload(self) -> Path:
        """The folder of our architecture."""
        return self.architectures / ARCHITECTURE

    @property
    def site_packages(self) -> Path:
        """The folder that paths in a RECORD are relative to."""
        return self.package.parent

    @property
    def version(self) -> str | None:
        """The version, as ``spandrel/__init__.py`` states it."""
        try:
            source = (self.package / "__init__.py").read_bytes()
        except OSError:
            return None
        match = re.search(rb"^__version__\s*=\s*['\"]([^'\"]+)['\"]", source, re.MULTILINE)
        return match.group(1).decode("ascii", "replace") if match else None


def locate(python: str | None = None, target: Path | None = None) -> Spandrel:
    """
    Finds the spandrel that an interpreter would import or that lies in a folder; neither is imported.

    Args:
        python: an interpreter other than the running one.
        target: a site-packages folder that holds ``spandrel/``, or the package's own folder.

    Raises:
        AetherInstallError: there is none, with ``state`` ``missing``, or the interpreter does not start.
    """
    if target is not None:
        try:
            return Spandrel(_package_in(target), named_by=("--target", str(target)))
        except OSError as error:
            raise explained(error, target) from error
    interpreter = running_interpreter() if python is None else other_interpreter(python)
    if interpreter.spandrel is None:
        looked_in = ", ".join(interpreter.looked_in)
        raise AetherInstallError(
            f"{interpreter.executable} (Python {interpreter.version}) has no spandrel, having looked in {looked_in}; "
            f"install it with `{interpreter.executable} -m pip install spandrel`, or name another interpreter with "
            "--python",
            state="missing",
        )
    return Spandrel(interpreter.spandrel, interpreter, ("--python", python) if python is not None else ())


_NESTED = ("", "python_embeded/", "python/", "venv/", ".venv/", "*/python_embeded/")
_SITE_PACKAGES = ("Lib/site-packages", "lib/python3*/site-packages", "lib64/python3*/site-packages")


def _package_in(target: Path) -> Path:
    if (target / "spandrel" / "__init__.py").is_file():
        return _where_installed(target / "spandrel")
    if (target / "__init__.py").is_file() and ((target / "__helpers").is_dir() or (target / "architectures").is_dir()):
        return _where_installed(target)
    patterns = [f"{root}{site_packages}/spandrel/__init__.py" for root in _NESTED for site_packages in _SITE_PACKAGES]
    nested = sorted({path.parent for pattern in patterns for path in target.glob(pattern)})
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
