"""The command line: parses, calls one command, and has its result shown."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from .. import __version__
from ..ui.console import is_unheard
from .doctor import doctor
from .hosts import hosts
from .models import fuse, inspect
from .tree import spandrel, status, uninstall


def _same_with_underscore_or_dash(name: str) -> str:
    return name.replace("-", "_")


class _Commands(click.Group):
    """Commands whose help is no failure where nobody reads it, as click sees to on systems other than Windows."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Parses the command line and calls a command."""
        try:
            return super().main(*arguments, **options)
        except OSError as error:
            if not is_unheard(error):
                raise
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
            sys.exit(1)


@click.group(
    cls=_Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": _same_with_underscore_or_dash,
        "max_content_width": 100,
    },
)
@click.version_option(__version__, prog_name="aether-install")
def main() -> None:
    """Teach an installed spandrel to load AetherNet models, and fuse those models."""


for _command in (spandrel, uninstall, status, hosts, doctor, fuse, inspect):
    main.add_command(_command)
