"""The commands about a spandrel: spandrel, uninstall, status."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..ui.console import Console
from . import options
from .boundary import Boundary

if TYPE_CHECKING:
    from ..hosts.locate import Located


def _only_one(python: str | None, target: Path | None) -> None:
    if python is not None and target is not None:
        raise click.UsageError("--python and --target each name a spandrel; give one of them")


def _located(console: Console, python: str | None, target: Path | None) -> Located:
    from ..hosts.locate import locate

    if python is not None:
        console.progress(f"asking {python} for its spandrel")
    found = locate(python, target)
    console.subject(found.spandrel)
    return found


@click.command()
@options.which_spandrel
@options.dry_run
@options.force
@click.option("--no-verify", is_flag=True, help="Do not have the interpreter load an AetherNet afterwards.")
@options.as_json
def spandrel(
    python: str | None, target: Path | None, dry_run: bool, force: bool, no_verify: bool, as_json: bool
) -> None:
    """Teach a spandrel to load AetherNet models."""
    _only_one(python, target)
    with Boundary(Console(as_json)) as console:
        from ..tree.commands import install
        from ..ui.tree import install_view

        found = _located(console, python, target)

        def check() -> None:
            console.progress(f"asking {found.interpreter.executable} to load an AetherNet" if found.interpreter else "")
            found.check()

        verify = found.interpreter is not None and not no_verify
        outcome = install(
            found.spandrel,
            dry_run=dry_run,
            force=force,
            check=check if verify else None,
            progress=console.progress,
        )
        console.show(install_view(found, outcome))


@click.command()
@options.which_spandrel
@options.dry_run
@options.force
@options.as_json
def uninstall(python: str | None, target: Path | None, dry_run: bool, force: bool, as_json: bool) -> None:
    """Make a spandrel as if we had never been there."""
    _only_one(python, target)
    with Boundary(Console(as_json)) as console:
        from ..tree.commands import uninstall as remove
        from ..ui.tree import uninstall_view

        found = _located(console, python, target)
        outcome = remove(found.spandrel, dry_run=dry_run, force=force, progress=console.progress)
        console.show(uninstall_view(found, outcome))


@click.command(short_help="Tell whether a spandrel loads AetherNet models.")
@options.which_spandrel
@options.as_json
def status(python: str | None, target: Path | None, as_json: bool) -> None:
    """Tell whether a spandrel loads AetherNet models; exit status 0 means that it does."""
    _only_one(python, target)
    with Boundary(Console(as_json)) as console:
        from ..tree.commands import status as tell
        from ..ui.tree import status_view

        found = _located(console, python, target)
        outcome = tell(found.spandrel)
        console.show(status_view(found, outcome))
        sys.exit(0 if outcome.before.value == "installed" else 1)
