"""Which spandrels a command is about, and doing its work on each of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import AetherInstallError
from ..ui.console import Console
from .boundary import told

if TYPE_CHECKING:
    from ..hosts.discovery import Discovery
    from ..hosts.host import Host
    from ..hosts.locate import Located
    from ..ui.hosts import Result
    from ..ui.view import View


@dataclass(frozen=True)
class Where:
    """
    What the command line says of where spandrel is; nothing means: in the Python that runs this.

    Attributes:
        python, target: an interpreter, or a folder.
        hosts: ids or folders of hosts.
        all_hosts: every host that is found.
    """

    python: str | None = None
    target: Path | None = None
    hosts: tuple[str, ...] = ()
    all_hosts: bool = False

    @property
    def folders(self) -> list[Path]:
        """The folders among what hosts are named by."""
        return [Path(host).expanduser() for host in self.hosts if os.path.isdir(os.path.expanduser(host))]

    @property
    def is_default(self) -> bool:
        """Whether nothing was said."""
        return self == Where()


def on_each(
    console: Console,
    where: Where,
    work: Callable[[Located], View],
    *,
    changes: bool = True,
    teaches: bool = False,
) -> bool:
    """
    Does a command's work on each spandrel that is meant, and shows what came of it.

    Args:
        work: does it on one spandrel and returns what to show.
        changes: whether it may change them.
        teaches: whether it is to make applications load AetherNet models, so that one is to be told if it does not.

    Returns whether all of them end in the state ``installed``; ends the program where one of several has failed.

    Raises:
        AetherInstallError: the only one has failed.
    """
    if where.all_hosts or len(where.hosts) > 1:
        return _on_several(console, where, work, changes, teaches)
    discovery = None
    if where.hosts:
        from ..hosts.discovery import discover
        from ..hosts.selection import resolve

        console.progress("looking for applications")
        discovery = discover(where.folders)
        view = _done_for(console, resolve(where.hosts[0], discovery), work)
    else:
        try:
            located = _located(console, where, "spandrel" if teaches else "uninstall" if changes else "status")
        except _OfHereError as error:
            if changes:
                raise
            # Nothing is lost by telling of the application that one is in the folder of.
            view = _done_for(console, error.host, work)
        else:
            view = _done(console, located, work)
    if changes:
        view.described["restart"] = []
    tells_if_none = where.is_default and teaches
    is_installed = view.described["state"] == "installed"
    if not changes and is_installed and where.target is None:
        from ..hosts.discovery import discover
        from ..ui.hosts import with_what_is_left

        discovery = discovery or discover()
        view = with_what_is_left(view, discovery)
    if not changes and where.is_default:
        from ..hosts.discovery import discover
        from ..ui.hosts import with_others

        view = with_others(view, discovery or discover())
    is_taught = teaches and "would_change" not in view.described
    if view.described["changed"] or tells_if_none or is_taught:
        from ..hosts.discovery import discover
        from ..ui.hosts import with_users

        discovery = discovery or discover()
        view = with_users(view, discovery, teaches=teaches, tells_if_none=tells_if_none, prefix=Path(sys.prefix))
    console.show(view)
    return bool(view.described["state"] == "installed")


class _OfHereError(AetherInstallError):
    """The running Python has no spandrel, and an application has, in whose folder one is."""

    def __init__(self, message: str, host: Host) -> None:
        super().__init__(message, state="missing")
        self.host = host


def _done_for(console: Console, host: Host, work: Callable[[Located], View]) -> View:
    from ..hosts.selection import locate_host
    from ..ui.hosts import described_as

    console.subject(host.spandrel, host.id)
    console.progress(f"looking for the spandrel of {host.kind.name}")
    return described_as(host, _done(console, locate_host(host), work))


def _done(console: Console, found: Located, work: Callable[[Located], View]) -> View:
    console.subject(found.spandrel)
    try:
        return work(found)
    except AetherInstallError as error:
        from ..ui.tree import with_commands

        error.message = with_commands(error.message, found.named_by, found.interpreter)
        raise


def _located(console: Console, where: Where, command: str) -> Located:
    from ..hosts.locate import NoSpandrelError, locate

    if where.python is not None:
        console.progress(f"asking {where.python} for its spandrel")
    try:
        return locate(where.python, where.target)
    except NoSpandrelError as error:
        if where.is_default:
            from ..hosts.discovery import discover
            from ..ui.hosts import teachable, tool_environment, way_on

            discovery = discover()
            hosts, here = discovery.hosts, discovery.here
            # A spandrel that was installed here would be one that no application uses.
            is_for_others = teachable(hosts) or tool_environment(Path(sys.prefix))
            message = error.complaint if is_for_others else error.message
            error.message = f"{message}; {way_on(discovery, command, here)}"
            if here is not None and here.spandrel and here.kind.usable:
                raise _OfHereError(error.message, here) from error
        raise


def _on_several(console: Console, where: Where, work: Callable[[Located], View], changes: bool, teaches: bool) -> bool:
    from ..hosts.discovery import discover
    from ..ui.hosts import NONE_IS_USABLE, results_view

    console.progress("looking for applications")
    discovery = discover(where.folders)
    console.done()
    results = list(_results(console, where, discovery, work))
    console.show(results_view(results, discovery, changes=changes, teaches=teaches))
    errors = [result.error for result in results if result.error]
    for error in errors:
        console.error(error, final=False)
    if not results:
        console.error(_nothing_found(discovery), final=False)
    elif teaches and not errors and not any(result.view for result in results):
        console.error(AetherInstallError(NONE_IS_USABLE), final=False)
        sys.exit(1)
    if errors or not results:
        sys.exit(1)
    return all(result.view is not None and result.view.described["state"] == "installed" for result in results)


def _results(console: Console, where: Where, discovery: Discovery, work: Callable[[Located], View]) -> Iterator[Result]:
    from ..hosts.selection import locate_host, resolve
    from ..ui.hosts import Result

    names: tuple[str | Host, ...] = discovery.hosts if where.all_hosts else where.hosts
    seen = set()
    for number, name in enumerate(names):
        host = None
        try:
            host = resolve(name, discovery) if isinstance(name, str) else name
            if host.folder in seen:
                continue
            seen.add(host.folder)
            if where.all_hosts and host.spandrel is None and not host.kind.usable:
                yield Result(host.id, host)
                continue
            console.progress(host.kind.name, part=(number, len(names)))
            found = locate_host(host)
            yield Result(host.id, host, view=_done(console, found, work))
        except Exception as error:
            # Not even a mistake of this program's in one is to keep the others from what they need.
            if os.environ.get("AETHER_INSTALL_DEBUG"):
                raise
            yield Result(host.id if host else str(name), host, error=told(error))


def _nothing_found(discovery: Discovery) -> AetherInstallError:
    from ..ui.hosts import without_sudo

    complaint = "no application that uses spandrel was found"
    way_out = "name the folder of yours with --host, or its Python with --python"
    return AetherInstallError("; ".join([complaint, way_out, *without_sudo(discovery)]))
