"""What is left for people to do in a host, once it is taught."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from .view import without_marks

if TYPE_CHECKING:
    from ..hosts.discovery import Host


def restart_running(hosts: Iterable[Host]) -> list[str]:
    """One sentence for each of some hosts that run."""
    lines = []
    for host in hosts:
        processes = " and ".join(str(process.pid) for process in host.running[:3])
        restart = without_marks(host.kind.restart)
        lines.append(f"Restart {host.kind.name}, which is running (process {processes}): {restart}.")
    return lines


def next_steps(hosts: Iterable[Host], changed: bool) -> Iterator[str]:
    """
    What comes next in hosts that load AetherNet models now.

    Args:
        changed: whether they do since just now, so that those that run have yet to be restarted.
    """
    for host in hosts:
        if changed and host.running:
            yield from restart_running([host])
        elif changed and host.kind.usable:
            yield f"Restart {host.kind.name}, if it runs: {without_marks(host.kind.restart)}."
        if host.kind.usable:
            yield where_models_go(host)


def where_models_go(host: Host) -> str:
    """Where a host finds models, and where in it they are chosen."""
    kind, name = host.kind, host.kind.name.partition(",")[0]
    chosen = f", and choose it in {kind.chosen_in}" if kind.chosen_in else ""
    if host.models:
        return without_marks(f"In {name}: put the model into {host.models}{chosen}.")
    return without_marks(f"In {name}: load the model ({kind.models_by}){chosen}.")
