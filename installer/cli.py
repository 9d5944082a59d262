"""The command line: parses, calls one command, and has its result shown. Exit statuses are decided here alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from . import __version__
from .errors import AetherInstallError, explained
from .face import Face

if TYPE_CHECKING:
    from .locate import Spandrel

Command = TypeVar("Command", bound=Callable[..., Any])


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
    """Teach an installed spandrel to load AetherNet models, and make those models fast."""


class _Place(click.Path):
    """A path that need not be there or be readable, about which the commands have better words than click."""

    def __init__(self, path_type: type[Path | str] = Path) -> None:
        super().__init__(readable=False, path_type=path_type)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the name is empty", param, ctx)
        return super().convert(value, param, ctx)


def _which_spandrel(command: Command) -> Command:
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
        type=_Place(),
        help="The spandrel in this folder: site-packages, or the spandrel package itself. Nothing in it is run.",
    )
    return python(target(command))


_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
_force = click.option(
    "--force", is_flag=True, help="Also where our files were edited; those are kept under another name."
)
_dry_run = click.option("--dry-run", is_flag=True, help="Show what would change, as a diff, and change nothing.")


class _Boundary:
    """Turns errors into one sentence on stderr and exit status 1; the one place where that is decided."""

    def __init__(self, face: Face) -> None:
        self.face = face

    def __enter__(self) -> Face:
        return self.face

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self.face.done()
        if isinstance(error, AetherInstallError):
            self.face.error(error)
        elif isinstance(error, Exception) and not isinstance(
            error, click.ClickException | click.exceptions.Exit | BrokenPipeError
        ):
            if os.environ.get("AETHER_INSTALL_DEBUG"):
                return
            self.face.error(explained(error) if isinstance(error, OSError) else _mistake(error))
        else:
            return
        sys.exit(1)


def _mistake(error: Exception) -> AetherInstallError:
    what = f"{type(error).__name__}: {error}"
    return AetherInstallError(f"a mistake in aether-install ({what}); report it with AETHER_INSTALL_DEBUG=1 set")


def _only_one(python: str | None, target: Path | None) -> None:
    if python is not None and target is not None:
        raise click.UsageError("--python and --target each name a spandrel; give one of them")


def _located(face: Face, python: str | None, target: Path | None) -> Spandrel:
    from .locate import locate

    if python is not None:
        face.progress(f"asking {python} for its spandrel")
    return locate(python, target)


@main.command()
@_which_spandrel
@_dry_run
@_force
@click.option("--no-verify", is_flag=True, help="Do not have the interpreter load an AetherNet afterwards.")
@_json
def spandrel(
    python: str | None, target: Path | None, dry_run: bool, force: bool, no_verify: bool, as_json: bool
) -> None:
    """Teach a spandrel to load AetherNet models."""
    _only_one(python, target)
    with _Boundary(Face(as_json)) as face:
        from .install import install
        from .views import install_view

        found = face.subject(_located(face, python, target))
        face.show(
            install_view(install(found, dry_run=dry_run, force=force, verify=not no_verify, progress=face.progress))
        )


@main.command()
@_which_spandrel
@_dry_run
@_force
@_json
def uninstall(python: str | None, target: Path | None, dry_run: bool, force: bool, as_json: bool) -> None:
    """Make a spandrel as if we had never been there."""
    _only_one(python, target)
    with _Boundary(Face(as_json)) as face:
        from .install import uninstall as remove
        from .views import uninstall_view

        found = face.subject(_located(face, python, target))
        face.show(uninstall_view(remove(found, dry_run=dry_run, force=force, progress=face.progress)))


@main.command(short_help="Tell whether a spandrel loads AetherNet models.")
@_which_spandrel
@_json
def status(python: str | None, target: Path | None, as_json: bool) -> None:
    """Tell whether a spandrel loads AetherNet models; exit status 0 means that it does."""
    _only_one(python, target)
    with _Boundary(Face(as_json)) as face:
        from .install import status as tell
        from .views import status_view

        outcome = tell(face.subject(_located(face, python, target)))
        face.show(status_view(outcome))
        sys.exit(0 if outcome.before.value == "installed" else 1)


@main.command(short_help="Merge the two kernels of each block: same picture, faster.")
@click.option(
    "--model_path",
    "models",
    metavar="FILE",
    required=True,
    multiple=True,
    type=_Place(),
    help="The model; given several times or for a folder of models, they are all fused.",
)
@click.option(
    "--output_path",
    "output",
    metavar="FILE",
    required=True,
    type=_Place(str),
    help="Where to write the fused model, .pth or .safetensors; for several models, a folder.",
)
@click.option(
    "--model_type",
    type=click.Choice(["aether_small", "aether_medium", "aether_large"]),
    help="What you believe the model to be; an error if it is not. It is read from the weights.",
)
@click.option("--upscale", type=int, metavar="N", help="The scale you believe the model to have, likewise.")
@click.option("--img_range", type=float, metavar="R", help="The img_range of training, if the file does not note it.")
@click.option("--device", metavar="NAME", help="Where to compare the models: cpu, cuda, ... By default a GPU if any.")
@click.option("--force", is_flag=True, help="Replace an output that is there.")
@click.option("--no-verify", is_flag=True, help="Do not compare the fused model with the unfused one.")
@_json
def fuse(models: tuple[Path, ...], output: str, no_verify: bool, as_json: bool, **settings: Any) -> None:
    """Merge the large and small kernels of a model: the same picture, faster."""
    with _Boundary(Face(as_json, about_spandrel=False)) as face:
        face.progress("starting torch")
        from . import fuse as command
        from .views import batch_view, fuse_view

        options = command.Options(verify=not no_verify, **settings)
        path = Path(output)
        if len(models) > 1 or models[0].is_dir():
            batch = command.fuse_all(models, path, options, face.progress)
            face.show(batch_view(batch))
            for _, error in batch.failed:
                face.error(error, final=False)
            sys.exit(1 if batch.failed else 0)
        if path.is_dir() or output.endswith(("/", os.sep)):
            path = command.output_in(path, models[0])
        face.show(fuse_view(command.fuse(models[0], path, options, face.progress)))


@main.command()
@click.argument("model", metavar="FILE", type=_Place())
@_json
def inspect(model: Path, as_json: bool) -> None:
    """Say what a model file is."""
    with _Boundary(Face(as_json, about_spandrel=False)) as face:
        face.progress("starting torch")
        from .inspection import inspect_model
        from .views import inspect_view

        face.show(inspect_view(inspect_model(model)))
