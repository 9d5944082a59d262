"""Runs a command line of ours in another Python, which has the torch that the running one may lack."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any
from zipimport import zipimporter

from ..errors import AetherInstallError
from .interpreter import command_line, environment, other_interpreter
from .listen import exit_reason

_OLDEST = (3, 10)

_REGULAR = (0, 1, 2)
"""The exit statuses of a command that could still say what it had to say: done, failed, not understood."""

_PACKAGES = (
    "aether_install",
    "aether_install.payload",
    "click",
    "colorama",
    "markdown_it",
    "mdurl",
    "pygments",
    "rich",
)
"""What is imported there from where it lies for the running Python."""


def run_elsewhere(
    python: Sequence[str],
    function: Callable[[], None],
    arguments: Sequence[str],
    ready: Callable[[], None],
    whose: str = "",
) -> int:
    """
    Calls a function of ours in another Python, on this terminal; nothing is installed or written there.

    Args:
        python: the words that start the other Python.
        function: what to call, by the name of its module and its own.
        arguments: what it finds in ``sys.argv[1:]``.
        ready: called before the other Python takes over the terminal.
        whose: the application that it was found with, unless the user named the interpreter itself.

    Returns:
        The exit status.

    Raises:
        AetherInstallError: it does not start, is no Python, is too old to run aether-install, or died on the way.
    """
    executable, *flags = python
    version = other_interpreter(executable, whose, flags).version
    if tuple(map(int, version.split(".")[:2])) < _OLDEST:
        raise AetherInstallError(
            f"{executable} is Python {version}, and work on model files needs 3.10 or later; name another Python that "
            "has torch with --python"
        )
    what = {"module": function.__module__, "function": function.__name__, **_where()}
    command = command_line(python, "run_elsewhere", [json.dumps(what), *arguments], heard=False)
    ready()
    with subprocess.Popen(command, env=environment()) as child:
        status = _ended(child)
    if status not in _REGULAR:
        raise AetherInstallError(
            f"{executable} did not finish this: {exit_reason(status)}; check that its torch works and that memory is "
            "left, or name another Python that has torch with --python"
        )
    return status


def _ended(child: subprocess.Popen[bytes]) -> int:
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue  # It was told as well, and ends in its own way.


def _where() -> dict[str, Any]:
    """Where the packages lie, for the program that imports them from there."""
    found = {name: spec for name in _PACKAGES if (spec := find_spec(name)) is not None and spec.origin}
    loader = found["aether_install"].loader
    archive = os.path.abspath(loader.archive) if isinstance(loader, zipimporter) else None
    packages = {
        name: (os.path.abspath(spec.origin or ""), [*map(os.path.abspath, spec.submodule_search_locations or ())])
        for name, spec in found.items()
    }
    return {"archive": archive, "packages": packages}
