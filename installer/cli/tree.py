"""The commands about a spandrel: spandrel, uninstall, status."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ..ui.console import Console
from . import options
from .boundary import Boundary
from .where import Where, on_each

if TYPE_CHECKING:
    from ..hosts.locate import Located
    from ..ui.view import View


@click.command()
@options.which_spandrel
@options.dry_run
@options.force
@click.option("--no-verify", is_flag=True, help="Do not have the interpreter run an AetherNet afterwards.")
@options.verbose
@options.as_json
def spandrel(where: Where, dry_run: bool, force: bool, no_verify: bool, verbose: bool, as_json: bool) -> None:
    """Teach a spandrel to load AetherNet models."""
    with Boundary(Console(as_json, verbose=verbose)) as console:
        from ..tree.commands import install
        from ..tree.foreign import foreign
        from ..tree.state import State
        from ..ui.tree import install_view

        def teach(found: Located) -> View:
            def check() -> None:
                asked = found.interpreter.executable if found.interpreter else ""
                console.progress(f"asking {asked} to run an AetherNet")
                found.check()

            verify = found.interpreter is not None and not no_verify
            outcome = install(
                found.spandrel,
                dry_run=dry_run,
                force=force,
                check=check if verify else None,
                progress=console.progress,
            )
            if verify and outcome.before is State.FOREIGN:
                console.progress("asking whether the AetherNet that is there can be imported")
                found.check_others(foreign(outcome.facts))
            return install_view(found, outcome)

        on_each(console, where, teach, teaches=True)


@click.command()
@options.which_spandrel
@options.dry_run
@options.force
@options.verbose
@options.as_json
def uninstall(where: Where, dry_run: bool, force: bool, verbose: bool, as_json: bool) -> None:
    """Remove AetherNet from a spandrel, which is then as it was before."""
    with Boundary(Console(as_json, verbose=verbose)) as console:
        from ..tree.commands import uninstall as remove
        from ..ui.tree import uninstall_view

        def clear(found: Located) -> View:
            outcome = remove(found.spandrel, dry_run=dry_run, force=force, progress=console.progress)
            return uninstall_view(found, outcome)

        on_each(console, where, clear)


@click.command(short_help="Tell whether a spandrel loads AetherNet models.")
@options.which_spandrel
@options.as_json
def status(where: Where, as_json: bool) -> None:
    """Tell whether a spandrel loads AetherNet models; exit status 0 means that it does."""
    with Boundary(Console(as_json)) as console:
        from ..tree.commands import status as tell
        from ..ui.tree import status_view

        def show(found: Located) -> View:
            return status_view(found, tell(found.spandrel))

        are_installed = on_each(console, where, show, changes=False)
        sys.exit(0 if are_installed else 1)
