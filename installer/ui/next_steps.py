"""What is left for people to do in a host, once it is taught."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ..hosts.processes import named
from .view import without_marks

if TYPE_CHECKING:
    from ..hosts.host import Host


def restart_running(hosts: Iterable[Host]) -> list[str]:
    """One sentence for each of some hosts that run."""
    return [
        f"Restart {host.kind.name}, which is running ({named(host.running[:3])}): {without_marks(host.kind.restart)}."
        for host in hosts
    ]


def restart_stale(hosts: Iterable[Host]) -> list[str]:
    """The same of hosts that run since before they were taught, whatever else was done."""
    return [
        f"Restart {host.kind.name}, which runs ({named(host.to_restart)}) since before its spandrel was taught: "
        f"{without_marks(host.kind.restart)}."
        for host in hosts
    ]


def next_steps(hosts: Iterable[Host], changed: bool) -> Iterator[str]:
    """
    What comes next in hosts that load AetherNet models now.

    Args:
        changed: whether they do since just now, so that those that run have yet to be restarted.
    """
    for host in hosts:
        if changed and host.running:
            yield from restart_running([host])
        elif host.to_restart:
            yield from restart_stale([host])
        elif changed and host.kind.usable:
            yield f"Restart {host.kind.in_lists}, if it runs: {without_marks(host.kind.restart)}."
        if host.kind.usable:
            yield where_models_go(host)


def where_models_go(host: Host) -> str:
    """Where a host finds models, and where in it they are chosen."""
    kind, name = host.kind, host.kind.name.partition(",")[0]
    chosen = f", and choose it in {kind.chosen_in}" if kind.chosen_in else ""
    if host.models:
        return without_marks(f"In {name}: put the model into {host.models}{chosen}.")
    return without_marks(f"In {name}: load the model ({kind.models_by}){chosen}.")
