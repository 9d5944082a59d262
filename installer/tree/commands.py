"""The commands that change a spandrel, or tell its state: install, uninstall, status."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from ..errors import AetherInstallError, explained
from .facts import Facts, read_facts
from .files import fingerprint
from .foreign import Worth, foreign
from .layout import Spandrel
from .lock import locked
from .manifest import shipped_payload
from .plan import Plan, plan_clearing, plan_install, plan_uninstall
from .state import State, edited_files, has_traces, state_of
from .transaction import Transaction, UndoError


class Progress(Protocol):
    """Told what is going on before anything that may take a while; ``urgent`` if it may take forever."""

    def __call__(self, message: str, *, urgent: bool = False) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """
    What a command found and did, whether or not it succeeded.

    Attributes:
        before: the state that was found.
        state: the state now; None if it cannot be read any more.
        facts: as they were last read.
        plan: what was done, would be done in a dry run, or failed.
        changed: the files that are not as they were: written, removed, or left behind by undoing that failed.
        undeleted: what was to be deleted in the end and could not be; it harms nobody, and the next run tries again.
        dry_run: whether nothing was to be written.
        verified: whether the check confirmed what was installed.
    """

    before: State
    state: State | None
    facts: Facts
    plan: Plan = field(default_factory=Plan)
    changed: tuple[Path, ...] = ()
    undeleted: tuple[Path, ...] = ()
    dry_run: bool = False
    verified: bool = False


class TreeError(AetherInstallError):
    """A command about a spandrel was refused or failed; ``outcome`` tells how things stand."""

    def __init__(self, message: str, outcome: Outcome, *, details: str = "") -> None:
        super().__init__(message, details=details, state=outcome.state.value if outcome.state else None)
        self.outcome = outcome


def status(spandrel: Spandrel) -> Outcome:
    """
    Tells the state of a spandrel.

    Raises:
        AetherInstallError: it cannot be read.
    """
    facts = _read_facts(spandrel)
    state = state_of(facts)
    return Outcome(state, state, facts)


def install(
    spandrel: Spandrel,
    *,
    dry_run: bool = False,
    force: bool = False,
    check: Callable[[], None] | None = None,
    progress: Progress,
) -> Outcome:
    """
    Brings a spandrel to the state ``installed``, unless it knows AetherNet by itself.

    Args:
        dry_run: only plan.
        force: also where our files were edited; those are kept under another name.
        check: called once everything is written; everything is put back if it raises.

    Raises:
        AetherInstallError: it is refused or fails; nothing is changed then, or the message tells what is.
    """

    def make_plan(facts: Facts) -> Plan:
        state = state_of(facts)
        if state is State.FOREIGN and foreign(facts).worth is Worth.WORKS:
            return Plan()
        _refuse_to_install(facts, state, force)
        return plan_clearing(facts) if state is State.INSTALLED else plan_install(facts)

    outcome = _change(spandrel, make_plan, check or (lambda: None), dry_run, progress)
    return replace(outcome, verified=check is not None and bool(outcome.plan.steps) and not dry_run)


def uninstall(spandrel: Spandrel, *, dry_run: bool = False, force: bool = False, progress: Progress) -> Outcome:
    """
    Removes everything of ours from a spandrel and puts back what we changed.

    Args:
        dry_run: only plan.
        force: also where our files were edited; those are kept under another name.

    Raises:
        AetherInstallError: it is refused or fails; nothing is changed then, or the message tells what is.
    """

    def make_plan(facts: Facts) -> Plan:
        state = state_of(facts)
        if state is State.FOREIGN:
            raise _foreign(facts)
        if state is State.MODIFIED and not force:
            raise _modified(facts)
        return plan_uninstall(facts) if has_traces(facts) else Plan()

    return _change(spandrel, make_plan, lambda: None, dry_run, progress)


def _change(
    spandrel: Spandrel,
    make_plan: Callable[[Facts], Plan],
    check: Callable[[], None],
    dry_run: bool,
    progress: Progress,
) -> Outcome:

    def wait() -> None:
        progress(f"waiting for another aether-install to finish with {spandrel.package}", urgent=True)

    if dry_run:
        found = status(spandrel)
        return replace(found, plan=_planned(found, make_plan), dry_run=True)
    try:
        with locked(spandrel.package, wait):
            found = status(spandrel)
            plan = _planned(found, make_plan)
            return _carry_out(found, plan, check) if plan.steps else found
    except OSError as error:
        raise explained(error, spandrel.package) from error


def _planned(found: Outcome, make_plan: Callable[[Facts], Plan]) -> Plan:
    try:
        return make_plan(found.facts)
    except AetherInstallError as error:
        raise TreeError(error.message, found) from error


def _carry_out(found: Outcome, plan: Plan, check: Callable[[], None]) -> Outcome:
    fingerprints = {path: fingerprint(path) for path in plan.changes}
    transaction = Transaction()
    try:
        transaction.apply(plan.steps)
        check()
    except BaseException as error:
        try:
            transaction.rollback()
        except UndoError as undo_error:
            saved = ", ".join(map(str, undo_error.saved)) or "their own names"
            ending = (
                f"moreover, not everything could be put back ({explained(undo_error.cause)}), and originals are kept "
                f"under {saved}; running this again finishes or undoes the rest"
            )
        else:
            if not isinstance(error, AetherInstallError | OSError):
                raise
            ending = "everything was put back as it was"
        first = explained(error, found.facts.spandrel.package) if isinstance(error, OSError) else error
        details = first.details if isinstance(first, AetherInstallError) else ""
        outcome = _outcome(found, plan, fingerprints)
        raise TreeError(f"{str(first) or 'interrupted'}; {ending}", outcome, details=details) from error
    undeleted = transaction.commit()
    return replace(_outcome(found, plan, fingerprints), undeleted=tuple(undeleted))


def _outcome(found: Outcome, plan: Plan, fingerprints: Mapping[Path, tuple[object, ...]]) -> Outcome:
    """How things stand after a plan was carried out or failed, by a look at every file that it is about."""
    changed = [path for path, was in fingerprints.items() if fingerprint(path) != was]
    try:
        facts = _read_facts(found.facts.spandrel)
    except AetherInstallError:
        return replace(found, state=None, plan=plan, changed=tuple(changed))
    changed += sorted(set(facts.leftovers) - set(found.facts.leftovers))
    return replace(found, state=state_of(facts), facts=facts, plan=plan, changed=tuple(changed))


def _read_facts(spandrel: Spandrel) -> Facts:
    try:
        return read_facts(spandrel, shipped_payload())
    except OSError as error:
        raise explained(error, spandrel.package) from error


def _refuse_to_install(facts: Facts, state: State, force: bool) -> None:
    if state is State.UNSUPPORTED:
        raise AetherInstallError(
            f"spandrel {facts.spandrel.version or '(unknown version)'} in {facts.spandrel.package} has no registry of "
            "the kind that 0.3.0 and later have, so it cannot be taught; upgrade spandrel to 0.3.0 or later"
        )
    if state is State.FOREIGN:
        raise _foreign(facts)
    if state is State.MODIFIED and not force:
        raise _modified(facts)


def _foreign(facts: Facts) -> AetherInstallError:
    found = foreign(facts)
    return AetherInstallError(f"{found.told}; nothing was touched; {found.way_out}")


def _modified(facts: Facts) -> AetherInstallError:
    edited = " and ".join(map(str, edited_files(facts)))
    return AetherInstallError(
        f"{edited} was edited since it was installed, so nothing was touched; add --force to go on, which keeps the "
        "edited version under another name"
    )
