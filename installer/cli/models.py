"""The commands about model files: fuse, inspect."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from ..errors import AetherInstallError
from ..ui.console import Console
from . import options
from .boundary import Boundary

DTYPES = ("float32", "float16", "bfloat16")
VARIANTS = ("mobile", "tiny", "small", "medium", "large", "pro", "extreme")
"""The names of sizes of any generation, which are the networks' own and repeated here lest --help import torch."""


@click.command(short_help="Merge the two kernels of each block into one; write ONNX, half precision.")
@click.option(
    "--model_path",
    "models",
    metavar="FILE",
    required=True,
    multiple=True,
    type=options.Place(),
    help="The model; given several times or for a folder of models, they are all fused.",
)
@click.option(
    "--output_path",
    "outputs",
    metavar="FILE",
    required=True,
    multiple=True,
    type=options.Place(str),
    help="Where to write the fused model: .pth, .safetensors or .onnx; given several times, all are written. For "
    "several models, a folder.",
)
@click.option(
    "--dtype",
    "dtypes",
    multiple=True,
    type=click.Choice(DTYPES),
    metavar="DTYPE",
    help="float32, float16 or bfloat16; the model's own if left out. Once for all outputs, or once for each, in order.",
)
@click.option(
    "--model_type",
    type=click.Choice([f"aether_{name}" for name in VARIANTS]),
    metavar="NAME",
    help="What you believe the model to be, such as aether_small; an error if it is not. It is read from the weights.",
)
@click.option("--upscale", type=int, metavar="N", help="The scale you believe the model to have, likewise.")
@click.option("--img_range", type=float, metavar="R", help="The img_range of training, if the file does not note it.")
@click.option("--device", metavar="NAME", help="Where to compare the models: cpu, cuda, ... By default a GPU if any.")
@click.option("--force", is_flag=True, help="Replace an output that is there.")
@click.option("--no-verify", is_flag=True, help="Do not read the result back and compare it with the model.")
@options.whose_torch
@options.as_json
def fuse(
    models: tuple[Path, ...],
    outputs: tuple[str, ...],
    no_verify: bool,
    python: str | None,
    host: str | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """
    Merge the large and the small kernel of each block of a model.

    The result makes the same picture from one kernel where training had two: a smaller file, in the form that every
    loader takes. On a CPU that saves next to no time, since the network merges its kernels there by itself; on GPUs it
    has not been measured.

    What the file states and no application can see (img_range, res_scale) is folded into the weights, and whatever is
    no weights is left out. A model that is fused already is written only if it needs that, or in another form than it
    has.

    ONNX (.onnx, float32 or float16) takes any batch, height and width, and is compared with the model in ONNX Runtime,
    where that is installed. A whole release in one go: --output_path 2x.pth --dtype float32 --output_path 2x_fp16.onnx
    --dtype float16.
    """
    with Boundary(Console(as_json, about_spandrel=False)) as console:
        _start_torch(console, python, host)
        from ..models.batch import fuse_all, output_in
        from ..models.fuse import Options
        from ..models.fuse import fuse as fuse_one
        from ..ui.models import batch_view, fuse_view

        how = Options(verify=not no_verify, **settings)
        paths = [Path(output) for output in outputs]
        if len(models) > 1 or models[0].is_dir():
            if len(paths) > 1 or len(how.dtypes) > 1:
                raise click.UsageError("several models are written into one folder, in one form: name one of each")
            batch = fuse_all(models, paths[0], how, console.progress)
            console.show(batch_view(batch))
            for _, error in batch.failed:
                console.error(error, final=False)
            sys.exit(1 if batch.failed else 0)
        if len(how.dtypes) not in (0, 1, len(paths)):
            raise click.UsageError(
                f"--dtype is given {len(how.dtypes)} times for {len(paths)} outputs: give it once for all or once for "
                "each, in their order"
            )
        files = [
            output_in(path, models[0]) if path.is_dir() or output.endswith(("/", os.sep)) else path
            for path, output in zip(paths, outputs, strict=True)
        ]
        console.show(fuse_view(fuse_one(models[0], files, how, console.progress)))


@click.command()
@click.argument("model", metavar="FILE", type=options.Place())
@options.whose_torch
@options.as_json
def inspect(model: Path, python: str | None, host: str | None, as_json: bool) -> None:
    """Say what a model file is."""
    with Boundary(Console(as_json, about_spandrel=False)) as console:
        _start_torch(console, python, host)
        from ..models.inspection import inspect_model
        from ..ui.models import inspect_view

        console.show(inspect_view(inspect_model(model)))


def in_named_python() -> None:
    """The command line, run in the Python that ``--python`` named by the one in which that was said."""
    from . import main

    main(prog_name="aether-install", obj=_HERE)


_HERE = object()


def _start_torch(console: Console, python: str | None, host: str | None) -> None:
    """Imports torch, or has the Python that was named run the command line, and ends with its exit status."""
    if python is not None and host is not None:
        raise click.UsageError("--python and --host each name a Python; give one of them")
    is_here, whose = click.get_current_context().obj is _HERE, ""
    if host is not None and not is_here:
        from ..hosts.selection import executable_of, resolve

        console.progress("looking for applications")
        found = resolve(host)
        python, whose = executable_of(found), f"{found.kind.name} in {found.folder}"
    if python is not None and not is_here:
        from ..hosts.elsewhere import run_elsewhere
        from ..hosts.locate import flags_of, interpreter_of

        python = interpreter_of(python)
        console.progress(f"starting {python}")
        started = (python, *flags_of(python))
        sys.exit(run_elsewhere(started, in_named_python, sys.argv[1:], console.done, whose))
    console.progress("starting torch")
    from ..models.available import import_torch

    try:
        import_torch()
    except AetherInstallError as error:
        from ..hosts.selection import hosts_with_torch

        others = " or ".join(f"`--host {host.id}`" for host in hosts_with_torch())
        if others:
            complaint, _, _ = error.message.partition("; ")
            error.message = f"{complaint}; add {others}, or name another Python that has one with --python"
        raise
