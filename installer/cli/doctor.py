"""The command that says what a host does with a model file: doctor."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..ui.console import Console
from . import options
from .boundary import Boundary


@click.command(short_help="Tell what a host does with a model file, and what to do if it fails.")
@click.argument("model", metavar="[FILE]", required=False, type=options.Place())
@click.option(
    "--python",
    metavar="EXE",
    type=options.Place(str),
    help="The host whose Python this is. The default is the running one.",
)
@click.option("--target", metavar="DIR", type=options.Place(), help="The host whose spandrel is in this folder.")
@click.option(
    "--host",
    metavar="HOST",
    type=options.Place(str),
    help="A host, by the id that `hosts` shows or by the folder that it lives in.",
)
@options.as_json
def doctor(model: Path | None, python: str | None, target: Path | None, host: str | None, as_json: bool) -> None:
    """
    Do with a model file what a host does with it, in the host's own Python, and tell of every step.

    Without FILE, a small model made for this tells whether the host is well. Exit status 0 means that all is.
    """
    if sum(option is not None for option in (python, target, host)) > 1:
        raise click.UsageError("--python, --target and --host each name a host; give one of them")
    with Boundary(Console(as_json, about_spandrel=False)) as console:
        from ..hosts.doctor import examine, patient_of_host, patient_of_python, patient_of_target
        from ..hosts.locate import interpreter_of
        from ..ui.doctor import doctor_view

        if host is not None:
            from ..hosts.selection import resolve

            console.progress("looking for applications")
            patient = patient_of_host(resolve(host), host)
        elif target is not None:
            patient = patient_of_target(target)
        else:
            patient = patient_of_python(interpreter_of(python) if python is not None else None)
        diagnosis = examine(patient, model, console.progress)
        console.show(doctor_view(diagnosis))
        sys.exit(0 if diagnosis.ok else 1)
