"""The work of the commands on a site-packages folder, for processes that start for it: nothing else is imported."""

from __future__ import annotations

from pathlib import Path

from aether_install.errors import AetherInstallError
from aether_install.tree.commands import install, uninstall
from aether_install.tree.layout import Spandrel


def quietly(message: str, *, urgent: bool = False) -> None:
    """Progress that nobody wants to see."""


def do_install(site_packages: Path) -> None:
    install(Spandrel(site_packages / "spandrel"), progress=quietly)


def do_uninstall(site_packages: Path) -> None:
    uninstall(Spandrel(site_packages / "spandrel"), progress=quietly)


def do_install_in_vain(site_packages: Path) -> None:
    """Has the check say no, so that all is put back."""
    try:
        install(Spandrel(site_packages / "spandrel"), check=says_no, progress=quietly)
    except AetherInstallError as error:
        assert "everything was put back as it was" in error.message  # noqa: PT017 - there is no pytest here
    else:
        raise AssertionError("it was not asked")


def says_no() -> None:
    raise AetherInstallError("it does not run")
