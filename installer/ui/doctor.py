"""What doctor shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..prompt import as_options, typed
from .tree import state_advice
from .view import View, without_marks

if TYPE_CHECKING:
    from ..hosts.doctor import Diagnosis, Step

_MARKS = {True: "ok", False: "failed", None: "not reached"}


def doctor_view(diagnosis: Diagnosis) -> View:
    """What became of a model file in a host."""
    patient, failed = diagnosis.patient, diagnosis.failed
    what = diagnosis.file.name if diagnosis.file else "a small model made for this"
    where = f"with {patient.name}" if patient.host else "with this spandrel"
    if any(step.cause == "elsewhere" for step in diagnosis.steps) and failed is None:
        view = View(f"{what} loads and runs {where}, once it lies in a folder that {patient.name} lists")
    elif failed is None:
        view = View(f"{what} loads and runs {where}")
    elif diagnosis.others and failed.cause != "untaught":
        view = View(f"an application has to be asked, and {failed.detail}; add {_ids(diagnosis)}", "bad")
    else:
        subject = f"{what} does not work" if diagnosis.file else "no AetherNet works"
        view = View(f"{subject} {where}: {_wrong(failed, diagnosis)}", "bad")
    view.columns = ["", "", ""]
    view.rows = [(step.name, _MARKS[step.ok], step.detail) for step in diagnosis.steps]
    # Where a model that fails is to lie is told once it works.
    causes = [step for step in diagnosis.steps if step.cause and (failed is None or step.cause != "elsewhere")]
    view.advice = [sentence for step in causes for sentence in _advice(step, diagnosis)]
    if patient.host:
        notes = (patient.host.kind.afterwards, patient.host.kind.note)
        view.advice += [f"Of {patient.name}: {note}." for note in notes if note]
    view.advice = [without_marks(sentence) for sentence in view.advice]
    if diagnosis.others:
        names = ", ".join(f"{host.kind.in_lists} in {host.folder}" for host in diagnosis.others)
        found = f"Found here: {names}; add {_ids(diagnosis)}."
        is_whole = failed is not None and failed.cause == "untaught"
        view.advice = [*view.advice, f"No application uses this spandrel. {found}"] if is_whole else [found]
    view.described = {
        "ok": diagnosis.ok,
        "steps": [{"step": step.name, "ok": step.ok, "detail": step.detail} for step in diagnosis.steps],
        "advice": view.advice,
        "host": patient.host.id if patient.host else None,
        "python": patient.executable,
        "file": str(diagnosis.file) if diagnosis.file else None,
    }
    return view


_WRONG = {
    "untaught": "{spandrel} does not know AetherNet",
    "broken": "AetherNet is in {spandrel} and cannot be imported",
    "restart": "it was started before its spandrel was taught",
    "no choice": "{detail}",
    "damaged": "it is truncated or damaged",
    "unknown": "{spandrel} has no architecture for this network",
    "ended": "its Python ended while {doing}",
    "memory": "memory ran out while {doing}",
    "raised": "{doing} failed with {detail}",
}
"""What is wrong, where that is not best told by what was seen."""

_SENTENCES = {
    "no python": "Name with --python the interpreter that the application itself runs; `aether-install hosts` lists "
    "what it finds.",
    "no torch": "This is hardly the Python that an application runs its models with: name that one with --python, or "
    "the application with --host; `aether-install hosts` lists what it finds. Or install torch: {torch}.",
    "old torch": "Update the application, or torch alone: {newer_torch}.",
    "no spandrel": "Install it with {spandrel}, and teach it: `aether-install spandrel{options}`.",
    "old spandrel": "Upgrade it with {newer_spandrel}, and teach it: `aether-install spandrel{options}`.",
    "no file": "Check the path.",
    "no sample": "Name a model file, with which to try it.",
    "empty": "Copy or download it again.",
    "no choice": "Use another application: `aether-install hosts` lists those that are here.",
    "suffix": "Ask for the model as {listed}; of an unfused one, {fuse} writes a .pth or a "
    ".safetensors, as its --output_path says.",
    "archive": "Run {fuse} on the unfused model, which writes what every host accepts; or ask for it as "
    "an older torch writes it.",
    "parameters": "Ask for a file without nn.Parameter objects (a state dict, as `model.state_dict()` returns it), or "
    "run {fuse}, which writes one.",
    "plain": "Ask for a file of weights alone (a state dict, or .safetensors), or run {fuse}, which writes one.",
    "pickle": "Ask for a file of weights alone (a state dict, or .safetensors); what this one asks for is no weights.",
    "no weights": "Ask for a file that holds the weights of a network.",
    "int8": "This is an int8, quantised model, which no host runs: use the float file that it was made from.",
    "fp8": "Its weights are of a type that spandrel's own reader does not know, fp8 most likely: use the float16 or "
    "float32 file of the same model.",
    "damaged": "Copy or download it again; it is truncated or damaged.",
    "unknown": "Check that this is a model for upscaling; if it is one of a newer architecture, upgrade spandrel with "
    "{newer_spandrel}.",
    "no image model": "Use a model for upscaling.",
    "unheeded": "Warning: the file states what no host ever sees, so every host renders it wrongly; run "
    "{fuse} on it, which folds that into the weights.",
    "elsewhere": "Put it into {models}, where {name} looks for it.",
    "channels": "Use it in an application that gives a model what it takes, such as chaiNNer; or ask for the model of "
    "three channels.",
    "not finite": "The weights are damaged, or training went wrong: get another copy, or an earlier checkpoint.",
    "half overflows": "Switch half precision (FP16) off in {name}.",
    "wrong size": "Report this to aether-install, with the file's `aether-install inspect`.",
    "differs": "This torch computes it wrongly: update torch, and report this to aether-install if that does not help.",
    "memory": "Close programs that use much memory, {name} among them, and run this again.",
    "ended": "Run this again after closing programs that use much memory; if it ends again, reinstall torch in that "
    "Python, for its own code makes the process end.",
    "raised": "Mend what that names; if it is a module that is missing, install it: {name_of_module}.",
}


def _ids(diagnosis: Diagnosis) -> str:
    return " or ".join(f"--host {host.id}" for host in diagnosis.others)


def _wrong(step: Step, diagnosis: Diagnosis) -> str:
    """What is wrong and what to do or to type, with which the advice begins."""
    host = diagnosis.patient.host
    wrong = _WRONG.get(step.cause, "{detail}").format(
        spandrel="its spandrel" if host else "it", detail=step.detail, doing=diagnosis.doing
    )
    if step.cause == "refused":
        return wrong  # which says what to do
    first = next(_advice(step, diagnosis), "").partition("; ")[0].rstrip(".")
    return f"{wrong}; {first[:1].lower()}{without_marks(first[1:])}" if first else wrong


def _advice(step: Step, diagnosis: Diagnosis) -> Iterator[str]:
    patient = diagnosis.patient
    found = diagnosis.found
    if step.cause in ("untaught", "broken", "foreign") and found:
        yield state_advice(found, patient.named_by, diagnosis.interpreter)
    elif step.cause in ("untaught", "broken"):
        yield f"Run `aether-install spandrel{as_options(patient.named_by)}` to teach it."
    elif step.cause == "unknown" and found and found.before.value == "outdated":
        # This version may know a generation that the one there does not.
        yield state_advice(found, patient.named_by)
    elif step.cause == "restart":
        for host in diagnosis.to_restart:
            yield f"Restart {host.kind.name}, which was started before: {host.kind.restart}."
    elif step.cause == "does not start" and patient.host:
        yield f"{patient.host.way_out[:1].upper()}{patient.host.way_out[1:]}."
    elif step.cause == "no file" and diagnosis.namesake:
        words = typed([str(diagnosis.namesake), *patient.named_by])
        yield f"One of that name is in {diagnosis.namesake.parent}: `aether-install doctor {words}`."
    elif step.cause.startswith("rename to "):
        yield f"R{step.cause[1:]}: its name is to end so."
    elif step.cause == "refused":
        _, _, way_out = step.detail.rpartition("; ")
        yield f"{way_out[:1].upper()}{way_out[1:]}."
    else:
        suffixes = patient.host.kind.suffixes[:3] if patient.host else (".pth", ".safetensors")
        yield _SENTENCES[step.cause].format(
            torch=diagnosis.installing("torch"),
            newer_torch=diagnosis.installing("torch", upgrade=True),
            spandrel=diagnosis.installing("spandrel"),
            newer_spandrel=diagnosis.installing("spandrel", upgrade=True),
            name_of_module=diagnosis.installing("NAME"),
            options=as_options(patient.named_by),
            name=patient.name,
            models=patient.host.models if patient.host else "",
            listed=" or ".join(suffixes),
            fuse=_fuse(diagnosis),
        )


def _fuse(diagnosis: Diagnosis) -> str:
    """The command that writes a fused model beside where it is typed."""
    file, options = diagnosis.file, diagnosis.patient.named_by
    if file is None:
        return "`aether-install fuse`"
    words = ["--model_path", str(file), "--output_path", f"{file.stem}-fused.pth"]
    return f"`aether-install fuse {typed([*words, *(options if options[:1] != ('--target',) else ())])}`"
