"""The hosts that ``--host`` and ``--all`` mean, and the spandrel of each."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import AetherInstallError
from ..tree.layout import Spandrel
from .discovery import Discovery, around, below, discover
from .host import Host
from .installing import installing
from .interpreter import other_interpreter
from .locate import Located
from .system import System, this_system


def resolve(value: str, discovery: Discovery | None = None, system: System | None = None) -> Host:
    """
    The host that a user means by an id that ``hosts`` shows, or by the folder it lives in or a part of that.

    Raises:
        AetherInstallError: there is no such host, or several are in that folder.
    """
    system = system or this_system()
    discovery = discovery or discover(system=system)
    for host in discovery.hosts:
        if value.lower() in (host.id, host.lasting_id):
            return host
    folder = Path(os.path.abspath(os.path.expanduser(value)))
    if not os.path.isdir(folder):
        known = ", ".join(host.id for host in discovery.hosts)
        raise AetherInstallError(
            f"{value} is neither the id of an application found here ({known or 'none was found'}) nor a folder; "
            "see `aether-install hosts`, or give --host the folder that the application lives in"
        )
    for host in discovery.hosts:
        if os.path.realpath(host.folder) == os.path.realpath(folder):
            return host
    part = around(system, folder)
    found = below(system, folder) or ([part] if part else [])
    if len(found) > 1:
        raise AetherInstallError(
            f"several applications are in {folder}; give --host one of " + ", ".join(str(host.folder) for host in found)
        )
    if not found:
        raise AetherInstallError(
            f"{folder} is not known as the folder of an application that uses spandrel; name its Python with --python, "
            "or its site-packages folder with --target"
        )
    (host,) = found
    same = (known for known in discovery.hosts if os.path.realpath(known.folder) == os.path.realpath(host.folder))
    return next(same, host)


def locate_host(host: Host) -> Located:
    """
    The spandrel of a host, as the host's own Python tells, or the one that it carries.

    Raises:
        AetherInstallError: there is none, with ``state`` ``missing``, or its Python does not start.
    """
    named_by = ("--host", str(host.folder))
    if host.kind.vendored and host.spandrel is not None:
        return Located(Spandrel(host.spandrel.package), named_by=named_by)
    whose = f"{host.kind.name} in {host.folder}"
    interpreter = other_interpreter(executable_of(host), whose, host.flags, host.way_out)
    if interpreter.spandrel is None:
        by_hand = "" if interpreter.is_managed else f", or install it with {installing(interpreter, 'spandrel')}"
        raise AetherInstallError(
            f"{host.kind.name} in {host.folder} has no spandrel; start it once, so that it installs what it "
            f"needs{by_hand}",
            state="missing",
        )
    return Located(Spandrel(interpreter.spandrel), interpreter, named_by)


def executable_of(host: Host) -> str:
    """
    The Python of a host.

    Raises:
        AetherInstallError: it was not found, or is known not to start.
    """
    if host.problem:
        raise AetherInstallError(
            f"{host.python}, the Python of {host.kind.name} in {host.folder}, {host.problem}; {host.way_out}"
        )
    if host.python is None:
        raise AetherInstallError(
            f"no Python was found in {host.folder}, where {host.kind.name} is; start {host.kind.name} and run this "
            "again while it runs, or name its Python with --python",
            state="missing",
        )
    return str(host.python)


def hosts_with_torch() -> list[Host]:
    """
    The hosts of this machine whose Python is known and has a torch.

    That lies beside its spandrel, except where an environment shares one; if no host is known to have one, those count
    whose spandrel must find one somewhere.
    """
    with_spandrel = [host for host in discover().hosts if host.python and not host.problem and host.spandrel]
    beside = [host for host in with_spandrel if host.spandrel and (host.spandrel.package.parent / "torch").is_dir()]
    return beside or with_spandrel
