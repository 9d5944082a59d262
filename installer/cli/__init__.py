"""The command line: parses, calls one command, and has its result shown."""

from __future__ import annotations

import click

from .. import __version__
from .doctor import doctor
from .hosts import hosts
from .models import fuse, inspect
from .tree import spandrel, status, uninstall


def _same_with_underscore_or_dash(name: str) -> str:
    return name.replace("-", "_")


@click.group(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": _same_with_underscore_or_dash,
        "max_content_width": 100,
    }
)
@click.version_option(__version__, prog_name="aether-install")
def main() -> None:
    """Teach an installed spandrel to load AetherNet models, and fuse those models."""


for _command in (spandrel, uninstall, status, hosts, doctor, fuse, inspect):
    main.add_command(_command)
