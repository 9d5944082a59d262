"""Options that several commands share."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from .where import Where

Command = TypeVar("Command", bound=Callable[..., Any])


class Place(click.Path):
    """
    A path, or a name that may be one, that is not empty.

    It need not be there or be readable, about which the commands have better words than click.
    """

    def __init__(self, path_type: type[Path | str] = Path) -> None:
        super().__init__(readable=False, path_type=path_type)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the name is empty", param, ctx)
        if sys.platform == "win32" and isinstance(value, str) and '"' in value:
            value = self._cut(value, param, ctx)
        return super().convert(value, param, ctx)

    def _cut(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """
        A name on Windows up to the quotation mark that was meant to end it: a backslash before makes it a part of it.

        Source: https://learn.microsoft.com/en-us/cpp/c-language/parsing-c-command-line-arguments
        """
        name, _, rest = value.partition('"')
        if rest.strip():
            self.fail(
                f"after a backslash, the quotation mark after {name} is a part of the name, and so is {rest.strip()}; "
                f'type "{name}"',
                param,
                ctx,
            )
        return name


def which_spandrel(command: Command) -> Command:
    """The options that say which spandrel a command is about; it gets them as one ``where``."""

    @functools.wraps(command)
    def with_where(
        python: str | None, target: Path | None, hosts: tuple[str, ...], all_hosts: bool, **others: Any
    ) -> Any:
        named = {"--python": python, "--target": target, "--host": hosts, "--all": all_hosts}
        given = [option for option, value in named.items() if value]
        if len(given) > 1:
            raise click.UsageError(f"{' and '.join(given)} each name a spandrel; give one of them")
        return command(where=Where(python, target, tuple(dict.fromkeys(hosts)), all_hosts), **others)

    python = click.option(
        "--python",
        metavar="EXE",
        type=Place(str),
        help="The spandrel that this interpreter would import: of a venv, of conda, of ComfyUI's embedded Python. "
        "The default is the interpreter that runs aether-install.",
    )
    target = click.option(
        "--target",
        metavar="DIR",
        type=Place(),
        help="The spandrel in this folder: site-packages, or the spandrel package itself. Nothing in it is run.",
    )
    host = click.option(
        "--host",
        "hosts",
        metavar="HOST",
        type=Place(str),
        multiple=True,
        help="The spandrel of this application: its id as `aether-install hosts` shows it, or the folder that it "
        "lives in. May be repeated.",
    )
    every_host = click.option(
        "--all", "all_hosts", is_flag=True, help="The spandrel of every application that `aether-install hosts` finds."
    )
    return python(target(host(every_host(cast(Command, with_where)))))


def whose_torch(command: Command) -> Command:
    """The options that say whose torch works on a model file."""
    python = click.option(
        "--python",
        metavar="EXE",
        type=Place(str),
        help="Work in this interpreter, with its torch. The default is the interpreter that runs aether-install.",
    )
    host = click.option(
        "--host",
        metavar="HOST",
        type=Place(str),
        help="Work in the Python of this application: its id as `aether-install hosts` shows it, or its folder.",
    )
    return python(host(command))


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
force = click.option(
    "--force", is_flag=True, help="Also where installed files were edited; the edited ones are kept under another name."
)
verbose = click.option("--verbose", is_flag=True, help="Name every file that was changed.")
dry_run = click.option("--dry-run", is_flag=True, help="Show what would change, as a diff, and change nothing.")
