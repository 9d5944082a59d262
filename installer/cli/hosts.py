"""The command hosts."""

from __future__ import annotations

from pathlib import Path

import click

from ..ui.console import Console
from . import options
from .boundary import Boundary


@click.command(short_help="Find the applications here that use spandrel.")
@click.option(
    "--search",
    metavar="DIR",
    multiple=True,
    type=options.Place(),
    help="Look into this folder and two deeper, too; may be repeated.",
)
@options.as_json
def hosts(search: tuple[Path, ...], as_json: bool) -> None:
    """
    Find the applications on this machine that use spandrel, and tell whether they load AetherNet models.

    Nothing of theirs is run and no disk is scanned: it reads what they and their launchers note of themselves, sees
    what is running, and looks into the folders where people put them.
    """
    with Boundary(Console(as_json, about_spandrel=False)) as console:
        from ..hosts.discovery import discover
        from ..ui.hosts import hosts_view

        console.progress("looking for applications")
        console.show(hosts_view(discover(search), search))
