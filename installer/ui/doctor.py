"""What doctor shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..prompt import as_options, typed
from .tree import state_advice
from .view import View

if TYPE_CHECKING:
    from ..hosts.doctor import Diagnosis, Step

_MARKS = {True: "ok", False: "failed", None: "not reached"}


def doctor_view(diagnosis: Diagnosis) -> View:
    """What became of a model file in a host."""
    patient, failed = diagnosis.patient, diagnosis.failed
    what = diagnosis.file.name if diagnosis.file else "a small model made for this"
    where = f"with {patient.name}" if patient.host else "with this spandrel"
    if failed is None:
        view = View(f"{what} loads and runs {where}")
    else:
        view = View(f"{what} does not work {where}: {failed.name} fails", "bad")
    view.columns = ["", "", ""]
    view.rows = [(step.name, _MARKS[step.ok], step.detail) for step in diagnosis.steps]
    view.advice = [sentence for step in diagnosis.steps if step.cause for sentence in _advice(step, diagnosis)]
    if patient.host:
        notes = (patient.host.kind.afterwards, patient.host.kind.note)
        view.advice += [f"Of {patient.name}: {note}." for note in notes if note]
    view.advice = [sentence.replace("*", "") for sentence in view.advice]
    if diagnosis.others:
        ids = " or ".join(f"--host {host.id}" for host in diagnosis.others)
        view.advice.append(f"Found here: {', '.join(host.kind.name for host in diagnosis.others)}; add {ids}.")
    view.described = {
        "ok": diagnosis.ok,
        "steps": [{"step": step.name, "ok": step.ok, "detail": step.detail} for step in diagnosis.steps],
        "advice": view.advice,
        "host": patient.host.id if patient.host else None,
        "python": patient.executable,
        "file": str(diagnosis.file) if diagnosis.file else None,
    }
    return view


_SENTENCES = {
    "no python": "Name with --python the interpreter that the application itself runs; `aether-install hosts` lists "
    "what it finds.",
    "no torch": "This is hardly the Python that an application runs its models with: name that one with --python, or "
    "the application with --host; `aether-install hosts` lists what it finds. Or install torch: `{python} -m pip "
    "install torch`.",
    "old torch": "Update the application, or torch alone: `{python} -m pip install --upgrade torch`.",
    "no spandrel": "Install it with `{python} -m pip install spandrel`, and teach it: `aether-install "
    "spandrel{options}`.",
    "old spandrel": "Upgrade it with `{python} -m pip install --upgrade spandrel`, and teach it: `aether-install "
    "spandrel{options}`.",
    "no file": "Check the path.",
    "empty": "Copy or download it again.",
    "no choice": "Use another application: `aether-install hosts` lists those that are here.",
    "suffix": "Ask for the model as {listed}; of an unfused one, `aether-install fuse` writes a .pth or a "
    ".safetensors, as its --output_path says.",
    "archive": "Run `aether-install fuse` on the unfused model, which writes what every host accepts; or ask for it as "
    "an older torch writes it.",
    "parameters": "Ask for a file without nn.Parameter objects (a state dict, as `model.state_dict()` returns it), or "
    "run `aether-install fuse`, which writes one.",
    "plain": "Ask for a file of weights alone (a state dict, or .safetensors), or run `aether-install fuse`, which "
    "writes one.",
    "pickle": "Ask for a file of weights alone (a state dict, or .safetensors); what this one asks for is no weights.",
    "no weights": "Ask for a file that holds the weights of a network.",
    "int8": "This is an int8, quantised model, which no host runs: use the float file that it was made from.",
    "damaged": "The file is truncated or damaged: copy or download it again.",
    "unknown": "Check that this is a model for upscaling; if it is one of a newer architecture, upgrade spandrel with "
    "`{python} -m pip install --upgrade spandrel`.",
    "no image model": "Use a model for upscaling.",
    "unheeded": "Warning: the file states what no host ever sees, so every host renders it wrongly; run "
    "`aether-install fuse` on it, which folds that into the weights.",
    "not finite": "The weights are damaged, or training went wrong: get another copy, or an earlier checkpoint.",
    "half overflows": "Switch half precision (FP16) off in {name}.",
    "wrong size": "Report this to aether-install, with the file's `aether-install inspect`.",
    "differs": "This torch computes it wrongly: update torch, and report this to aether-install if that does not help.",
    "memory": "Close programs that use much memory, {name} among them, and run this again.",
    "ended": "Run this again after closing programs that use much memory; if it ends again, reinstall torch in that "
    "Python, for its own code makes the process end.",
    "raised": "Mend what the words above name; if it is a module that is missing, install it: `{python} -m pip install "
    "NAME`.",
}


def _advice(step: Step, diagnosis: Diagnosis) -> Iterator[str]:
    patient = diagnosis.patient
    if step.cause in ("untaught", "broken"):
        yield state_advice(diagnosis.state or "absent", patient.named_by)
    elif step.cause == "unknown" and diagnosis.state == "outdated":
        # This version may know a generation that the one there does not.
        yield state_advice("outdated", patient.named_by)
    elif step.cause == "restart":
        for host in diagnosis.to_restart:
            yield f"Restart {host.kind.name}, which was started before: {host.kind.restart}."
    elif step.cause.startswith("rename to "):
        yield f"R{step.cause[1:]}: its name is to end so."
    elif step.cause == "refused":
        _, _, way_out = step.detail.rpartition("; ")
        yield f"{way_out[:1].upper()}{way_out[1:]}."
    else:
        suffixes = patient.host.kind.suffixes[:3] if patient.host else (".pth", ".safetensors")
        yield _SENTENCES[step.cause].format(
            python=typed([patient.executable or ""]),
            options=as_options(patient.named_by),
            name=patient.name,
            listed=" or ".join(suffixes),
        )
