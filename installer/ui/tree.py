"""What status, spandrel and uninstall show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..hosts.installing import installing
from ..prompt import as_options
from ..tree.commands import TreeError, status
from ..tree.foreign import REINSTALL, TRIES_IT, foreign
from ..tree.manifest import shipped_payload
from ..tree.plan import Change, Plan
from ..tree.state import State, edited_files
from ..tree.steps import Put, PutBack
from .view import View

if TYPE_CHECKING:
    from pathlib import Path

    from ..errors import AetherInstallError
    from ..hosts.interpreter import Interpreter
    from ..hosts.locate import Located
    from ..tree.commands import Outcome
    from ..tree.layout import Spandrel

RESTART = "Restart programs that use this spandrel."

_STATES = {
    "absent": (
        "this spandrel does not load AetherNet models",
        "Run `aether-install spandrel{options}` to teach it.",
    ),
    "installed": (
        "this spandrel loads AetherNet models",
        "Nothing is left to do, but to restart programs that were running when it was installed.",
    ),
    "outdated": (
        "this spandrel loads AetherNet models with the payload of another aether-install",
        "Run `aether-install spandrel{options}` to bring it up to date.",
    ),
    "partial": (
        "AetherNet is here in part: an installation was interrupted, or spandrel was reinstalled over it",
        "Run `aether-install spandrel{options}` to complete it, `aether-install uninstall{options}` to clear it away.",
    ),
    "modified": (
        "files that aether-install put here were edited since",
        "Run `aether-install spandrel --force{options}`, or the same with uninstall; both keep the edited files.",
    ),
    "unsupported": (
        "this spandrel has no registry of the kind that 0.3.0 and later have",
        "Upgrade spandrel to 0.3.0 or later.",
    ),
}


def state_advice(outcome: Outcome, named_by: Sequence[str], interpreter: Interpreter | None = None) -> str:
    """What to do about a spandrel in its state, which these options name on the command line."""
    advice = _meaning(outcome)[1].format(options=as_options(named_by))
    return with_commands(advice, named_by, interpreter) if outcome.before is State.FOREIGN else advice


def with_commands(text: str, named_by: Sequence[str], interpreter: Interpreter | None) -> str:
    """What is said of an AetherNet that is not ours, with commands that are about the same spandrel."""
    text = text.replace(TRIES_IT, TRIES_IT.replace("doctor", f"doctor{as_options(named_by)}"))
    if interpreter is None or interpreter.is_managed:
        return text
    return text.replace(REINSTALL, f"{REINSTALL} with {installing(interpreter, 'spandrel', again=True)}")


def _meaning(outcome: Outcome) -> tuple[str, str]:
    """What a state means, and what to do about it."""
    if outcome.before is not State.FOREIGN:
        return _STATES[outcome.before.value]
    found = foreign(outcome.facts)
    advice = f"{found.way_out[:1].upper()}{found.way_out[1:]}."
    return found.told, advice.replace("{", "{{").replace("}", "}}")


def status_view(located: Located, outcome: Outcome) -> View:
    """The state of a spandrel."""
    state = outcome.before.value
    meaning, _ = _meaning(outcome)
    view = View(f"{state}: {meaning}", "good" if state == "installed" else "bad")
    view.advice.append(state_advice(outcome, located.named_by, located.interpreter))
    view.facts += _whereabouts(located, outcome)
    view.facts += [("edited", str(path)) for path in edited_files(outcome.facts) if state == "modified"]
    view.facts += [("left behind", str(path)) for path in outcome.facts.leftovers]
    view.described = {**described(outcome), "not_used": [str(path) for path in _not_used(located)]}
    return view


def install_view(located: Located, outcome: Outcome) -> View:
    """What installing did or would do."""
    version, where = outcome.facts.shipped.version, _name(outcome)
    if outcome.before is State.FOREIGN:
        view = View(f"Nothing to do: {where} knows AetherNet by itself", "none")
        view.advice.append(state_advice(outcome, located.named_by))
        return _change_view(located, view, outcome)
    if outcome.before.value == "installed":
        cleared = "what an earlier run left behind was deleted" if outcome.changed else "nothing was changed"
        return _change_view(located, View(f"AetherNet {version} is in {where} already; {cleared}", "none"), outcome)
    if outcome.dry_run:
        return _change_view(located, View(f"AetherNet {version} would be installed in {where}", "none"), outcome)
    view = View(f"AetherNet {version} installed: {where} loads AetherNet models")
    _change_view(located, view, outcome)
    if outcome.verified:
        view.facts.append(("verified", "this Python runs an AetherNet with it"))
    else:
        view.advice.append("Not verified: no interpreter was asked to run a model.")
    view.advice.append(RESTART)
    return view


def uninstall_view(located: Located, outcome: Outcome) -> View:
    """What uninstalling did or would do."""
    where = _name(outcome)
    if not outcome.plan.steps:
        return _change_view(located, View(f"AetherNet is not in {where}; nothing was changed", "none"), outcome)
    if outcome.dry_run:
        return _change_view(located, View(f"AetherNet would be removed from {where}", "none"), outcome)
    result = "is as it was before"
    if outcome.undeleted:
        result = "no longer loads AetherNet models"
    elif outcome.plan.set_aside:
        result = "no longer loads AetherNet models; edited files are kept in it under another name"
    return _change_view(located, View(f"AetherNet removed: {where} {result}"), outcome)


def _change_view(located: Located, view: View, outcome: Outcome) -> View:
    view.facts += _whereabouts(located, outcome)
    view.facts += [("edited version kept as", str(path)) for path in outcome.plan.set_aside]
    view.advice += [
        f"Warning: {path} could not be deleted; it does no harm, and the next run of this command deletes it."
        for path in outcome.undeleted
    ]
    view.described = {**described(outcome), "not_used": [str(path) for path in _not_used(located)]}
    root = outcome.facts.spandrel.site_packages
    changes = [(change.value, path.relative_to(root).as_posix()) for path, change in outcome.plan.changes.items()]
    changes.sort(key=lambda fact: fact[0])
    if changes and not outcome.dry_run:
        kinds = [change for change, _ in changes]
        counted = ", ".join(f"{kinds.count(change)} {change}" for change in dict.fromkeys(kinds))
        view.details, view.summary = changes, [("files", f"{counted}; --verbose names them")]
    if outcome.dry_run:
        view.facts += [(f"would be {change}", path) for change, path in changes]
        view.diff = "".join(_diff(outcome.plan))
        view.advice.append("Dry run: nothing was changed.")
        view.described["would_change"] = [str(path) for path in outcome.plan.changes]
        view.described["diff"] = view.diff
    return view


def _name(outcome: Outcome) -> str:
    return f"spandrel {outcome.facts.spandrel.version or ''}".rstrip()


def _not_used(located: Located) -> tuple[Path, ...]:
    """Spandrels that are there for an interpreter and not imported by it."""
    return (*located.interpreter.also, *located.interpreter.left_out) if located.interpreter else ()


def _whereabouts(located: Located, outcome: Outcome) -> Iterator[tuple[str, str]]:
    found = outcome.facts.spandrel
    yield "spandrel", f"{found.version or 'unknown version'} in {found.package}"
    if located.interpreter:
        yield "python", f"{located.interpreter.version}, {located.interpreter.executable}"
        yield "prefix", located.interpreter.prefix
        for other in located.interpreter.also:
            yield "not used", f"{other}, which the one above hides"
        for other in located.interpreter.left_out:
            yield "not used", f"{other}, since {' '.join(located.interpreter.flags)} leaves out the user's own packages"
    shipped, there = outcome.facts.shipped.version, outcome.facts.manifest
    yield "payload", f"{there.version if there else 'none'} installed, {shipped} available"


def described(outcome: Outcome) -> dict[str, Any]:
    """
    What scripts are told of a spandrel, after success and failure alike.

    ``state`` is what it is now, null if that cannot be read; ``changed`` the files that are not as they were;
    ``undeleted`` those of them that are rubbish, which the next run deletes; ``foreign`` what somebody else's AetherNet
    is good for.
    """
    found, manifest = outcome.facts.spandrel, outcome.facts.manifest
    return {
        "state": outcome.state.value if outcome.state else None,
        "spandrel": {"version": found.version, "path": str(found.package)},
        "payload": {"version": outcome.facts.shipped.version, "installed": manifest.version if manifest else None},
        "changed": [str(path) for path in outcome.changed],
        **({"foreign": foreign(outcome.facts).worth.value} if outcome.state is State.FOREIGN else {}),
        **({"undeleted": [str(path) for path in outcome.undeleted]} if outcome.undeleted else {}),
    }


def described_failure(error: AetherInstallError, found: Spandrel | None) -> dict[str, Any]:
    """
    The same of a command that failed, with ``error``.

    Args:
        found: the spandrel that it was about, if one was found.
    """
    if isinstance(error, TreeError):
        known = described(error.outcome)
    elif found and error.state is None:
        known = _described_now(found)
    else:
        known = described_unread(found, error.state)
    return {**known, "error": error.message}


def _described_now(found: Spandrel) -> dict[str, Any]:
    try:
        return described(status(found))
    except Exception:
        # What went wrong before is what the user is to be told.
        return described_unread(found, None)


def described_unread(found: Spandrel | None, state: str | None) -> dict[str, Any]:
    """The same of a spandrel that nothing was read or written of."""
    return {
        "state": state,
        "spandrel": {"version": found.version if found else None, "path": str(found.package) if found else None},
        "payload": {"version": shipped_payload().version},
        "changed": [],
    }


def _diff(plan: Plan) -> Iterator[str]:
    """A unified diff of the files that change; those that come or go are listed, which says enough."""
    import difflib  # only a dry run needs it

    after = {}
    for step in plan.steps:
        match step:
            case Put(path, data):
                after[path] = data
            case PutBack(name, path):
                after[path] = name.read_bytes()
    for path, data in after.items():
        if path.suffix != ".pyc" and plan.changes[path] is Change.CHANGED:
            yield from difflib.unified_diff(_lines(path.read_bytes()), _lines(data), str(path), str(path))


def _lines(data: bytes) -> list[str]:
    lines = [line + "\n" for line in data.decode("utf-8", "replace").split("\n")]
    last = lines.pop().removesuffix("\n")
    return [*lines, f"{last}\n\\ No newline at end of file\n"] if last else lines
