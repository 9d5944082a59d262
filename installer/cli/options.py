"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


class Place(click.Path):
    """A path that need not be there or be readable, about which the commands have better words than click."""

    def __init__(self, path_type: type[Path | str] = Path) -> None:
        super().__init__(readable=False, path_type=path_type)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the name is empty", param, ctx)
        return super().convert(value, param, ctx)


def which_spandrel(command: Command) -> Command:
    """The options that say which spandrel a command is about."""
    python = click.option(
        "--python",
        metavar="EXE",
        help="The spandrel that this interpreter would import: of a venv, of conda, of ComfyUI's embedded Python. "
        "The default is the interpreter that runs aether-install.",
    )
    target = click.option(
        "--target",
        metavar="DIR",
        type=Place(),
        help="The spandrel in this folder: site-packages, or the spandrel package itself. Nothing in it is run.",
    )
    return python(target(command))


def whose_torch(command: Command) -> Command:
    """The options that say whose torch works on a model file."""
    return click.option(
        "--python",
        metavar="EXE",
        help="Work in this interpreter, with its torch. The default is the interpreter that runs aether-install.",
    )(command)


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
force = click.option(
    "--force", is_flag=True, help="Also where our files were edited; those are kept under another name."
)
dry_run = click.option("--dry-run", is_flag=True, help="Show what would change, as a diff, and change nothing.")
