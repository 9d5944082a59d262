"""The commands that change a spandrel, or tell its state: install, uninstall, status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from ..errors import AetherInstallError, explained
from .facts import Survey, survey
from .layout import Spandrel
from .lock import locked
from .manifest import shipped_payload
from .plan import Plan, plan_install, plan_uninstall
from .state import State
from .transaction import Transaction, UndoError


class Progress(Protocol):
    """Told what is going on before anything that may take a while; ``urgent`` if it may take forever."""

    def __call__(self, message: str, *, urgent: bool = False) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """
    What a command found and did.

    Attributes:
        before, facts: the state that was found; the facts as they are now, after a dry run as they were.
        plan: what was done or, in a dry run, would be.
        dry_run: whether nothing was written.
        verified: whether the target's interpreter confirmed that AetherNet loads.
    """

    before: State
    facts: Survey
    plan: Plan = field(default_factory=Plan)
    dry_run: bool = False
    verified: bool = False

    @property
    def changed(self) -> list[Path]:
        """The files written or removed."""
        return [] if self.dry_run else list(self.plan.changes)


def status(spandrel: Spandrel) -> Outcome:
    """
    Tells the state of a spandrel.

    Raises:
        AetherInstallError: it cannot be read.
    """
    facts = _survey(spandrel)
    return Outcome(facts.state, facts)


def install(
    spandrel: Spandrel,
    *,
    dry_run: bool = False,
    force: bool = False,
    check: Callable[[], None] | None = None,
    progress: Progress,
) -> Outcome:
    """
    Brings a spandrel to the state ``installed``.

    Args:
        dry_run: only plan.
        force: also where our files were edited; those are kept under another name.
        check: called once everything is written; everything is put back if it raises.

    Raises:
        AetherInstallError: it is refused or fails; nothing is changed then, or the message tells what is.
    """

    def make_plan(facts: Survey) -> Plan:
        _refuse_to_install(facts, force)
        return Plan() if facts.state is State.INSTALLED else plan_install(facts)

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

    def make_plan(facts: Survey) -> Plan:
        if facts.state is State.FOREIGN:
            raise _foreign(facts)
        if facts.state is State.MODIFIED and not force:
            raise _modified(facts)
        return plan_uninstall(facts) if facts.has_traces else Plan()

    return _change(spandrel, make_plan, lambda: None, dry_run, progress)


def _change(
    spandrel: Spandrel,
    make_plan: Callable[[Survey], Plan],
    check: Callable[[], None],
    dry_run: bool,
    progress: Progress,
) -> Outcome:

    def wait() -> None:
        progress(f"waiting for another aether-install to finish with {spandrel.package}", urgent=True)

    if dry_run:
        facts = _survey(spandrel)
        return Outcome(facts.state, facts, make_plan(facts), dry_run=True)
    try:
        with locked(spandrel.package, wait):
            facts = _survey(spandrel)
            plan = make_plan(facts)
            if plan.steps:
                try:
                    _carry_out(plan, check)
                except AetherInstallError as error:
                    error.state = error.state or _survey(spandrel).state.value
                    raise
            return Outcome(facts.state, _survey(spandrel), plan)
    except OSError as error:
        raise explained(error, spandrel.package) from error


def _carry_out(plan: Plan, check: Callable[[], None]) -> None:
    transaction = Transaction()
    try:
        transaction.apply(plan.steps)
        check()
    except BaseException as error:
        try:
            transaction.rollback()
        except UndoError as undo_error:
            first = error.message if isinstance(error, AetherInstallError) else str(error)
            kept = ", ".join(map(str, undo_error.kept)) or "their own names"
            raise AetherInstallError(
                f"{first}; moreover, not everything could be put back ({undo_error.cause}), and originals are kept "
                f"under {kept}; mend the cause and run this again, which finishes or undoes the rest"
            ) from error
        raise
    transaction.commit()


def _survey(spandrel: Spandrel) -> Survey:
    try:
        return survey(spandrel, shipped_payload())
    except OSError as error:
        raise explained(error, spandrel.package) from error


def _refuse_to_install(facts: Survey, force: bool) -> None:
    if facts.state is State.UNSUPPORTED:
        raise AetherInstallError(
            f"spandrel {facts.spandrel.version or '(unknown version)'} in {facts.spandrel.package} has no registry of "
            "the kind that 0.3.0 and later have, so it cannot be taught; upgrade spandrel to 0.3.0 or later",
            state=facts.state.value,
        )
    if facts.state is State.FOREIGN:
        raise _foreign(facts)
    if facts.state is State.MODIFIED and not force:
        raise _modified(facts)


def _foreign(facts: Survey) -> AetherInstallError:
    return AetherInstallError(
        f"{facts.blocked_by or facts.spandrel.payload} is an AetherNet that is not ours, so nothing was touched; use "
        "that one, or remove it, its registry entry included, the way it came",
        state=facts.state.value,
    )


def _modified(facts: Survey) -> AetherInstallError:
    edited = " and ".join(map(str, facts.edited))
    return AetherInstallError(
        f"{edited} was edited since it was installed, so nothing was touched; add --force to go on, which keeps the "
        "edited version under another name",
        state=facts.state.value,
    )
