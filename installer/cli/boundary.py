"""The one place where errors become a sentence on stderr and an exit status."""

from __future__ import annotations

import os
import sys

import click

from ..errors import AetherInstallError, explained
from ..ui.console import Console


class Boundary:
    """Turns errors into one sentence on stderr and exit status 1; the one place where that is decided."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def __enter__(self) -> Console:
        return self.console

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self.console.done()
        if isinstance(error, AetherInstallError):
            self.console.error(error)
        elif isinstance(error, Exception) and not isinstance(
            error, click.ClickException | click.exceptions.Exit | BrokenPipeError
        ):
            if os.environ.get("AETHER_INSTALL_DEBUG"):
                return
            self.console.error(told(error))
        else:
            return
        sys.exit(1)


def told(error: Exception) -> AetherInstallError:
    """Any error as the sentence that the user is told."""
    if isinstance(error, AetherInstallError):
        return error
    if isinstance(error, OSError):
        return explained(error)
    from .report import write_report

    what = f"{type(error).__name__}: {error}"
    try:
        way_out = f"please report it with {write_report(error)}, which says where"
    except OSError:
        way_out = "please report it with what is shown after AETHER_INSTALL_DEBUG=1 was set"
    return AetherInstallError(f"a mistake in aether-install ({what}); {way_out}")
