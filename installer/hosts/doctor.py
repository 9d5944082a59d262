"""Has a host's own Python do with a model file what the host does, step by step, and tells which step fails and why."""

from __future__ import annotations

import json
import os
import secrets
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import AetherInstallError
from ..formats.recognise import recognise
from ..tree.commands import Outcome, Progress, status
from ..tree.foreign import Foreign, Worth, foreign
from ..tree.layout import Spandrel
from ..tree.state import State
from .discovery import discover
from .environment import python_in
from .host import Host
from .installing import installing
from .interpreter import Interpreter, other_interpreter
from .listed import lists, model_folders, namesake_of
from .listen import listen
from .locate import flags_of, host_with, locate
from .processes import named
from .programs.does_model_work import STEPS
from .system import this_system

_SILENT_SECONDS = 900
"""Importing torch from a cold network drive has been seen to take minutes."""

_DOING = {
    "python": "starting {python}",
    "spandrel": "importing spandrel",
    "taught": "looking for AetherNet in its registry",
    "file": "looking at the file",
    "read": "reading the file",
    "detected": "detecting the architecture",
    "loaded": "loading the model",
    "upscaled": "upscaling a small picture",
    "half": "upscaling it in half precision",
}


_MEANT_ANOTHER = ("no torch", "no spandrel", "untaught")
"""Why the running Python fails, where it is most likely not the one that was meant."""


@dataclass(frozen=True)
class Patient:
    """
    The host to look at.

    Attributes:
        executable: its interpreter; None if it has none.
        flags: what that is started with.
        package: the spandrel that it imports; None for the one that its interpreter finds.
        named_by: the options that name it on the command line.
        host: what is known of it; None where spandrel's own ways are all that counts.
        problem: why it cannot be looked at.
    """

    executable: str | None
    package: Path | None = None
    named_by: tuple[str, ...] = ()
    host: Host | None = None
    problem: str = ""
    flags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What to call it in sentences."""
        # Without the layout that it comes in.
        return self.host.kind.name.partition(",")[0] if self.host else "spandrel"


def patient_of_python(python: str | None) -> Patient:
    """The one that an interpreter belongs to, the running one by default."""
    executable = python or sys.executable
    named_by = ("--python", python) if python is not None else ()
    host = host_with(executable)
    if host is not None and host.problem:
        return Patient(None, None, named_by, host, f"{host.python} {host.problem}")
    return Patient(executable, None, named_by, host, flags=flags_of(executable))


def patient_of_target(target: Path) -> Patient:
    """The spandrel in a folder, with the Python around that folder or, if there is none, the running one."""
    named_by = ("--target", str(target))
    try:
        package = locate(target=target).spandrel.package
    except AetherInstallError as error:
        return Patient(sys.executable, target / "spandrel", named_by, problem=error.message)
    return Patient(_python_around(package), package, named_by)


def patient_of_host(host: Host, name: str) -> Patient:
    """
    A host, with its own Python; one that carries a spandrel without a Python is run by what ``--target`` takes.

    Args:
        name: what the user calls it.
    """
    named_by = ("--host", name)
    if host.kind.vendored and host.spandrel is not None:
        package = host.spandrel.package
        return Patient(str(host.python) if host.python else _python_around(package), package, named_by, host)
    if host.python and not host.problem:
        return Patient(str(host.python), None, named_by, host, flags=host.flags)
    nowhere = f"no Python was found in {host.folder}, where {host.kind.name} is"
    problem = f"{host.python} {host.problem}" if host.python else nowhere
    return Patient(None, None, named_by, host, problem)


def _python_around(package: Path) -> str:
    """The interpreter of the environment whose site-packages folder holds a package, else the running one."""
    environments = package.parents[2:4] if package.parent.name == "site-packages" else ()
    pythons = (python_in(this_system(), folder) for folder in environments)
    return next((str(python) for python in pythons if python and os.path.isfile(python)), sys.executable)


@dataclass(frozen=True)
class Step:
    """
    One of the steps from a file to a picture.

    Attributes:
        name: as the contract calls it.
        ok: None if it was not reached.
        detail: what was seen.
        cause: a word for why it failed, or what is to be known although it did not.
    """

    name: str
    ok: bool | None = None
    detail: str = ""
    cause: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """
    What became of a model file in a host.

    Attributes:
        patient, file: what was looked at; without a file it was a model of our own making.
        steps: all of them, in their order; those that are not given were not reached.
        package: the spandrel that was imported.
        others: hosts of this machine, where nobody said which is meant and the running Python is none.
        to_restart: hosts that run and were started before their spandrel was taught.
        interpreter: what the patient's interpreter says of itself, where something failed.
        namesake: a file of the same name among the host's models, where the one to look at is not there.
    """

    patient: Patient
    file: Path | None
    steps: tuple[Step, ...]
    package: Path | None = None
    others: tuple[Host, ...] = ()
    to_restart: tuple[Host, ...] = ()
    interpreter: Interpreter | None = None
    namesake: Path | None = None

    def installing(self, package: str, *, upgrade: bool = False) -> str:
        """How to install a package for the interpreter, see ``installing``."""
        unasked = Interpreter(self.patient.executable or "python", "", "", None, (), ())
        return installing(self.interpreter or unasked, package, upgrade=upgrade)

    def __post_init__(self) -> None:
        known = {step.name: step for step in self.steps}
        object.__setattr__(self, "steps", tuple(known.get(name, Step(name)) for name in STEPS))

    @property
    def ok(self) -> bool:
        """Whether every step went well."""
        return all(step.ok for step in self.steps)

    @property
    def failed(self) -> Step | None:
        """The first step that did not."""
        return next((step for step in self.steps if step.ok is False), None)

    @property
    def doing(self) -> str:
        """What was going on in that step."""
        return _DOING[self.failed.name].format(python=self.patient.executable) if self.failed else ""

    @property
    def found(self) -> Outcome | None:
        """The state of the spandrel; None if there is none or it cannot be read."""
        return _found(self.package) if self.package else None


def _found(package: Path) -> Outcome | None:
    with suppress(AetherInstallError):
        return status(Spandrel(package))
    return None


def examine(patient: Patient, file: Path | None, progress: Progress) -> Diagnosis:
    """
    Has a host do with a model file what it always does.

    Args:
        file: the model; None for a small one of our own making.
    """
    if patient.executable is None:
        cause = "does not start" if patient.host and patient.host.python else "no python"
        return Diagnosis(patient, file, (Step("python", False, patient.problem, cause),))
    path = Path(os.path.abspath(file)) if file else None
    with tempfile.TemporaryDirectory(prefix="aether-install-") as folder:
        replay = _Replay(patient, request(patient, path, folder), progress)
        replay.run(patient.executable)
    steps = replay.steps
    if patient.problem:
        steps = [replace(step, detail=patient.problem) if step.cause == "no spandrel" else step for step in steps]
    if path:
        steps = [_by_what_it_is(step, path) for step in steps]
    package = replay.package or patient.package
    found = _found(package) if package else None
    if found and found.before is State.FOREIGN and (theirs := foreign(found.facts)).worth is not Worth.WORKS:
        steps = [_by_others(step, theirs) if step.ok is False else step for step in steps]
    is_taught = any(step.name == "taught" and step.ok for step in steps)
    using = discover().using(package) if package and is_taught else []
    stale = [host for host in using if host.to_restart]
    if stale:
        steps = [_not_yet_taught(step, stale) if step.name == "taught" else step for step in steps]
    is_no_host = not patient.named_by and patient.host is None and steps[-1].cause in _MEANT_ANOTHER
    others = tuple(host for host in discover().hosts if host.python and host.kind.usable) if is_no_host else ()
    interpreter = None
    if not steps[-1].ok and steps[-1].cause != "no python":
        with suppress(AetherInstallError):
            interpreter = other_interpreter(patient.executable, flags=patient.flags)
    is_missing = path is not None and patient.host is not None and steps[-1].cause == "no file"
    namesake = namesake_of(this_system(), patient.host, path.name) if is_missing and path and patient.host else None
    return Diagnosis(patient, path, tuple(steps), package, others, tuple(stale), interpreter, namesake)


def _by_what_it_is(step: Step, path: Path) -> Step:
    """A step that fails for what the file is says so, instead of how its reader stumbled over that."""
    if step.ok is not False or step.name not in ("file", "read", "detected"):
        return step
    known = recognise(path)
    return replace(step, detail=f"it is {known.what}; {known.remedy}", cause="refused") if known else step


def request(patient: Patient, path: Path | None, folder: str) -> dict[str, Any]:
    """What ``does_model_work`` is asked; ``folder`` is for files of its own."""
    kind = patient.host.kind if patient.host else None
    readers = {"weights_only": "torch", "spandrel": "spandrel"}
    return {
        "mark": secrets.token_hex(8),
        "package": str(patient.package) if patient.package else None,
        "file": str(path) if path else None,
        "folder": folder,
        "host": patient.name,
        "suffixes": kind.suffixes if kind else (".pth", ".pt", ".ckpt", ".safetensors"),
        "archive": kind.archive_rule if kind else "",
        "reader": readers[kind.reader] if kind else "both",
        "half": kind is None or kind.half != "never",
        "channels": 3 if kind and not kind.adapts else None,
        "is_listed": _is_listed(patient, path),
    }


def _is_listed(patient: Patient, path: Path | None) -> bool:
    """Whether a file is where a host lists models, as far as that is known."""
    folders = model_folders(this_system(), patient.host) if patient.host and path else ()
    return not folders or path is None or lists(folders, path)


@dataclass
class _Replay:
    """What a host's Python tells of its steps, down to the one during which it ends."""

    patient: Patient
    asked: dict[str, Any]
    progress: Progress
    steps: list[Step] = field(default_factory=list)
    package: Path | None = None
    _doing: str = STEPS[0]
    _answered: bool = False

    def run(self, executable: str) -> None:
        self._begin(STEPS[0])
        arguments = [json.dumps(self.asked)]
        try:
            ending = listen(
                (executable, *self.patient.flags), "does_model_work", arguments, _SILENT_SECONDS, self._hear
            )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self.steps.append(Step("python", False, f"{executable} cannot be run ({reason})", "no python"))
            return
        if len(self.steps) < len(STEPS) and all(step.ok for step in self.steps):
            last_words = ending.words.splitlines()[-1:]
            detail = ": ".join([ending.reason or "the process ended without an answer", *last_words])
            self.steps.append(Step(self._doing, False, detail, "ended" if self._answered else "no python"))

    def _begin(self, step: str) -> None:
        self._doing = step
        self.progress(_DOING[step].format(python=self.patient.executable))

    def _hear(self, line: str) -> None:
        mark = self.asked["mark"]
        if not line.startswith(mark):
            return
        answer = json.loads(line[len(mark) :])
        self._answered = True
        if "package" in answer:
            self.package = Path(answer["package"])
        elif "ok" in answer:
            self.steps.append(Step(answer["step"], answer["ok"], answer["detail"], answer.get("cause", "")))
        else:
            self._begin(answer["step"])


def _by_others(step: Step, theirs: Foreign) -> Step:
    """A step that fails because of an AetherNet that somebody else put there."""
    if step.name not in ("spandrel", "taught"):
        return step
    return replace(step, detail=f"{step.detail}; {theirs.told}", cause="foreign")


def _not_yet_taught(step: Step, stale: list[Host]) -> Step:
    who = " and ".join(f"{host.kind.name} ({named(host.to_restart)})" for host in stale)
    verb = "was" if len(stale) == 1 else "were"
    return replace(step, ok=False, detail=f"{step.detail}; {who} {verb} started before", cause="restart")
