"""What hosts shows, and what the commands about a spandrel show of hosts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..hosts.processes import named
from ..prompt import typed
from .next_steps import next_steps, restart_running, restart_stale
from .tree import RESTART, described_failure, described_unread
from .view import View, without_marks

if TYPE_CHECKING:
    from ..errors import AetherInstallError
    from ..hosts.discovery import Discovery
    from ..hosts.host import Host

_TO_BE_RESTARTED = "installed, to be restarted"

TEACH_ALL = "aether-install spandrel --all"

NONE_IS_USABLE = (
    "none of the applications that were found has a spandrel that it would load models with; name the folder of yours "
    "with --host, or its Python with --python"
)


@dataclass(frozen=True)
class Result:
    """
    What a command did to one of several hosts.

    Attributes:
        named: its id or, of one that could not be found, what the user called it.
        host: the host.
        view: what would have been shown of it alone; None if it failed or there was nothing that it could have done.
        error: why it failed.
    """

    named: str
    host: Host | None = None
    view: View | None = None
    error: AetherInstallError | None = None


def hosts_view(discovery: Discovery, searched: Sequence[Path]) -> View:
    """The hosts of this machine."""
    hosts = discovery.hosts
    that_use = "that uses" if len(hosts) == 1 else "that use"
    view = View(f"{_how_many(hosts)} found {that_use} spandrel", "good" if hosts else "none")
    view.columns = ["host", "where", "spandrel", "state", "models go to", "running"]
    described = []
    for host in hosts:
        state, version = host.state, host.spandrel.version if host.spandrel else None
        models = _inside(host.models, host.folder) if host.models else host.kind.models_by if host.kind.usable else ""
        running = "yes" if host.running else "no"
        described.append(_described(host, version, state))
        told = _TO_BE_RESTARTED if described[-1]["restart"] else state or "cannot be read"
        view.rows.append((host.id, _place(host), version or "", told, without_marks(models), running))
    left_out = [{"name": host.kind.name, "folder": str(host.folder)} for host in discovery.of_others]
    view.described = {"hosts": described, "left_out": left_out}
    notes = [f"{host.kind.name}: {without_marks(host.kind.note)}." for host in hosts if host.kind.note]
    view.advice += dict.fromkeys(notes)
    view.advice += [f"{folder} is not a folder." for folder in searched if not os.path.isdir(folder)]
    if not discovery.complete:
        view.advice.append("There was no time to look into every folder; name that of a missing one with --search.")
    view.advice += (
        f"{host.kind.in_lists} imports the spandrel in {host.spandrel.package}, and not that in {host.not_used}."
        for host in hosts
        if host.spandrel and host.not_used
    )
    view.advice += (
        f"{host.python}, the Python of {host.kind.name}, {host.problem}: {host.way_out}."
        for host in hosts
        if host.problem
    )
    view.advice += map(_left_to_others, discovery.of_others)
    view.advice += [f"{_capitalised(sentence)}." for sentence in without_sudo(discovery)]
    stale = [host for host, facts in zip(hosts, described, strict=True) if facts["restart"]]
    view.advice += restart_stale(stale)
    states = {facts["id"]: facts["state"] for facts in described}
    view.advice.append(_command(states, hosts, once_restarted=bool(stale)) if hosts else _where_else())
    return view


def results_view(results: Sequence[Result], discovery: Discovery, *, changes: bool, teaches: bool) -> View:
    """
    What a command did to several hosts, one in a row.

    Args:
        changes, teaches: whether it changes spandrels, and whether it makes them load AetherNet models.
    """
    described = [_facts(result) for result in results]
    installed = sum(facts["state"] == "installed" for facts in described)
    headline = f"AetherNet is installed in {installed} of {_how_many(results)}" if results else "no application found"
    view = View(headline)
    is_well = any(result.view for result in results) if changes and teaches else changes or installed == len(results)
    view.mood = "bad" if not results or not is_well or any(result.error for result in results) else "good"
    view.columns = ["host", "where", "spandrel", "state", *(["done"] if changes else [])]
    changed: list[Host] = []
    for result, facts in zip(results, described, strict=True):
        if facts["changed"]:
            changed += [user for user in discovery.using(Path(facts["spandrel"]["path"])) if user not in changed]
        place = _place(result.host) if result.host else ""
        is_stale = not changes and result.host is not None and _is_stale(result.host, facts["state"])
        state = _TO_BE_RESTARTED if is_stale else facts["state"] or ""
        row = (result.named, place, facts["spandrel"]["version"] or "", state)
        view.rows.append((*row, _done(result, facts)) if changes else row)
        view.details += [
            (f"{result.named}, {name}", path) for name, path in (result.view.details if result.view else ())
        ]
    restart = [host for host in changed if host.running]
    stale = [
        result.host
        for result, facts in zip(results, described, strict=True)
        if result.host and result.host not in changed and _is_stale(result.host, facts["state"])
    ]
    if not changes:
        for result, facts in zip(results, described, strict=True):
            facts["restart"] = result.host in stale
    if teaches:
        view.advice += [*_afterwards(changed), *next_steps(changed, changed=True)]
    else:
        view.advice += restart_running(restart)
    view.advice += restart_stale(stale)
    looked_at = [result.host for result in results if result.host and not changes]
    if looked_at:
        states = {facts["host"]: facts["state"] for facts in described}
        are_all = len(looked_at) >= len(discovery.hosts)
        view.advice.append(_command(states, looked_at, once_restarted=bool(stale), are_all=are_all))
    restart += stale
    view.described = {"results": described, "restart": [host.kind.name for host in restart]}
    return view


def described_as(host: Host, view: View) -> View:
    """A view of what was done to one host."""
    view.facts.insert(0, ("host", f"{host.kind.name} in {host.folder}"))
    view.described = {"host": host.id, **view.described}
    return view


def with_what_is_left(view: View, discovery: Discovery) -> View:
    """A view of a spandrel that is taught, with what is left to do in the applications that use it."""
    users = discovery.using(Path(view.described["spandrel"]["path"]))
    stale = [host for host in users if host.to_restart]
    view.described["restart"] = bool(stale)
    view.advice = list(next_steps(users, changed=False)) or view.advice
    if stale:
        view.headline += f", which {' and '.join(host.kind.name for host in stale)} will once restarted"
        view.mood = "bad"
    return view


def with_others(view: View, discovery: Discovery) -> View:
    """A view of the state of the running Python's spandrel, with applications where none of them uses that one."""
    usable = teachable(discovery.hosts)
    if usable and not discovery.using(Path(view.described["spandrel"]["path"])):
        view.headline = view.headline.replace(
            "this spandrel", "this spandrel, which no application found here uses,", 1
        )
        if discovery.here in usable:
            view.advice = []
        view.advice.append(f"{_capitalised(way_on(discovery, 'status', discovery.here))}.")
    return view


def with_users(view: View, discovery: Discovery, *, teaches: bool, tells_if_none: bool, prefix: Path) -> View:
    """
    A view of what was done to one spandrel, with what that means for the applications that use it.

    Args:
        teaches: whether it is to load AetherNet models now.
        tells_if_none: whether to say so if there is no such application.
        prefix: the environment of the Python that runs this.
    """
    users = discovery.using(Path(view.described["spandrel"]["path"]))
    is_changed, state = bool(view.described["changed"]), view.described["state"]
    restart = [host for host in users if host.running and (is_changed or _is_stale(host, state))]
    view.described["used_by"] = [host.id for host in users]
    view.described["restart"] = [host.kind.name for host in restart]
    if teaches and is_changed:
        view.advice += _afterwards(users)
    if teaches and view.described["state"] == "installed":
        view.described["next"] = list(next_steps(users, is_changed))
        view.advice = [line for line in view.advice if line != RESTART or not users] + view.described["next"]
    elif restart:
        view.advice = [line for line in view.advice if line != RESTART]
        view.advice += restart_running(restart) if is_changed else restart_stale(restart)
    if not users and tells_if_none:
        tool = tool_environment(prefix)
        nobody = f"no application uses, since {tool} made it for a tool" if tool else "no application found here uses"
        done, colon, _ = view.headline.partition(":")
        view.headline = f"{done}{' in a spandrel that' if colon else ', a spandrel that'} {nobody}"
        view.mood = "bad"
        view.advice = [line for line in view.advice if line != RESTART]
        sentence = way_on(discovery, "spandrel")
        view.advice.append(f"{_capitalised(sentence)}.")
    return view


def tool_environment(prefix: Path) -> str:
    """The program that made an environment for one command-line tool: uv or pipx; empty if neither did."""
    if (prefix / "uv-receipt.toml").is_file():
        return "uv"
    return "pipx" if (prefix / "pipx_metadata.json").is_file() else ""


def without_sudo(discovery: Discovery) -> list[str]:
    """What to do where sudo keeps the applications of whoever typed it from being found, as a part of a sentence."""
    home = discovery.passed_over
    return [f"run this without sudo to find what is in {home}, the home of {home.name}"] if home else []


def way_on(discovery: Discovery, command: str, here: Host | None = None) -> str:
    """
    Which applications there are, and how a command is given for them, as a part of a sentence.

    Args:
        command: its name.
        here: the one in whose folder this was asked.
    """
    hosts = discovery.hosts
    usable = teachable(hosts)
    if here is not None and here.spandrel and here in usable:
        version, state = here.spandrel.version or "of unknown version", here.state or "which cannot be read"
        return (
            f"{here.kind.name}, in whose folder this is, has one: spandrel {version}, {state}; for that one add "
            f"`--host {typed([str(here.folder)])}`"
        )
    if not usable:
        otherwise = _where_else().rstrip(".").replace("Name", f"{_none_found(hosts)}; name", 1)
        return "; ".join([otherwise, *without_sudo(discovery)])
    names = [host.kind.in_lists + (f" ({host.id})" if usable[1:] else "") for host in usable]
    found, them = f"found on this machine: {', '.join(names)}", "them" if usable[1:] else "it"
    each = f"`aether-install {command} --all`, or {'one' if usable[1:] else 'by its name'} with `--host {usable[0].id}`"
    if command == "uninstall":
        if all(host.state in ("absent", "missing", "foreign") for host in usable):
            return f"{found}, {'none of which has an' if usable[1:] else 'which has no'} AetherNet of ours"
        return f"{found}; clear {them} with {each}"
    if all(host.state == "installed" or host.knows_by_itself for host in usable):
        load = "load" if usable[1:] else "loads"
        return f"{found}, which {load} AetherNet models already: see `aether-install status --all`"
    if command == "status":
        return f"{found}; see {each}, and teach {them} with `{TEACH_ALL}`"
    return f"{found}; teach {them} with {each}"


def teachable(hosts: Sequence[Host]) -> list[Host]:
    """Those of some hosts that can use an AetherNet model."""
    return [host for host in hosts if host.kind.usable]


def _none_found(hosts: Sequence[Host]) -> str:
    return f"no application that {'can use AetherNet models' if hosts else 'uses spandrel'} was found"


def _described(host: Host, version: str | None, state: str | None) -> dict[str, Any]:
    return {
        "id": host.id,
        "name": host.kind.name,
        "folder": str(host.folder),
        "python": str(host.python) if host.python and not host.kind.vendored else None,
        "spandrel": {"version": version, "path": str(host.spandrel.package)} if host.spandrel else None,
        "state": state,
        "models": str(host.models) if host.models else None,
        "formats": list(host.kind.suffixes),
        "running": bool(host.running),
        "restart": _is_stale(host, state),
        "problem": host.problem or None,
        "not_used": str(host.not_used) if host.not_used else None,
        "found_by": host.found_by,
        "note": host.kind.note or None,
    }


def _facts(result: Result) -> dict[str, Any]:
    if result.view:
        return {**result.view.described, "host": result.named}
    found = result.host.spandrel if result.host else None
    facts = described_failure(result.error, found) if result.error else described_unread(found, "missing")
    return {**facts, "host": result.named}


def _done(result: Result, facts: dict[str, Any]) -> str:
    if result.error:
        return "failed, see below"
    changed, would_change = len(facts["changed"]), len(facts.get("would_change", ()))
    if would_change:
        return f"{would_change} files would change"
    is_verified = result.view is not None and any(name == "verified" for name, _ in result.view.facts)
    return f"{changed} files changed{', verified' if is_verified else ''}" if changed else "nothing to do"


def _left_to_others(host: Host) -> str:
    homes = {process.home for process in host.running if process.home}
    whose = f", whose home is {' or '.join(map(str, sorted(homes)))}" if homes else ""
    return (
        f"{host.kind.name} in {host.folder} is left out: another user runs it ({named(host.running)}){whose}. As that "
        f"user run this again, or name it with --host {typed([str(host.folder)])}."
    )


def _is_stale(host: Host, state: str | None) -> bool:
    return state == "installed" and bool(host.to_restart)


def _afterwards(hosts: Iterable[Host]) -> list[str]:
    notes = ((host, host.kind.afterwards or ("" if host.kind.usable else host.kind.note)) for host in hosts)
    return list(dict.fromkeys(f"{host.kind.name}: {without_marks(note)}." for host, note in notes if note))


def _command(
    states: Mapping[str, str | None], hosts: Sequence[Host], *, once_restarted: bool, are_all: bool = True
) -> str:
    """
    The command that teaches those of some hosts that are not taught yet, or why there is none.

    Args:
        states: those of their spandrels, by their ids.
        once_restarted: whether some that are taught have to be restarted.
        are_all: whether they are all that there are.
    """
    usable = teachable(hosts)
    with_spandrel = [host for host in usable if host.spandrel and not host.problem]
    left = [host for host in with_spandrel if states[host.id] != "installed" and not host.knows_by_itself]
    if not usable:
        return f"{_capitalised(_none_found(hosts))}."
    if not with_spandrel:
        if all(host.problem for host in usable):
            return "None that can use AetherNet models has a Python that starts."
        return "None that can use AetherNet models has a spandrel yet; start them once, so that they install it."
    if not left:
        once = ", once they were restarted" if once_restarted else ""
        if any(host.problem for host in usable):
            return f"All whose Python starts, that have a spandrel and can use AetherNet models, load them{once}."
        return f"All that have a spandrel and can use AetherNet models load them{once}."
    if not are_all:
        options = typed([word for host in left for word in ("--host", host.id)])
        return f"To have them load AetherNet models: `aether-install spandrel {options}`."
    only_searched = [host for host in left if host.is_named_only]
    commands = [f"aether-install spandrel --host {typed([str(host.folder)])}" for host in only_searched]
    if len(left) > len(only_searched):
        commands.insert(0, TEACH_ALL)
    one = f"; one of them: `aether-install spandrel --host {left[0].id}`" if not only_searched and left[1:] else ""
    return f"To have them load AetherNet models: `{'` and `'.join(commands)}`{one}."


def _where_else() -> str:
    return (
        "Name the folder of yours with --host, its Python with --python, or a folder to look into with "
        "`aether-install hosts --search`."
    )


def _how_many(things: Sequence[object]) -> str:
    return f"{len(things)} application{'' if len(things) == 1 else 's'}"


def _place(host: Host) -> str:
    return f"{host.kind.name}\n{_short(host.folder)}"


def _short(path: Path) -> str:
    home = os.path.expanduser("~")
    if sys.platform == "win32":  # where neither prompts nor the Explorer know a name for it
        return str(path)
    return f"~{os.sep}{path.relative_to(home)}" if path.is_relative_to(home) and str(path) != home else str(path)


def _inside(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else _short(path)


def _capitalised(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
