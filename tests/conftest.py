"""
Gives every test a spandrel that knows AetherNet, without touching the one that this environment has.

The installed spandrel is copied to a temporary folder, taught there by our own installer, and put first on the path.
"""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from environments import copy_spandrel

from aether_install.install import install, uninstall
from aether_install.locate import Spandrel


def _ignore(message: str, *, urgent: bool = False) -> None:
    pass


def _teach_a_copy() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="spandrel-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    package = Spandrel(copy_spandrel(folder))
    uninstall(package, progress=_ignore)
    install(package, progress=_ignore)
    return folder


sys.path.insert(0, str(_teach_a_copy()))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A site-packages folder with a spandrel that does not know AetherNet."""
    folder = tmp_path / "site-packages"
    package = copy_spandrel(folder)
    uninstall(Spandrel(package), progress=_ignore)
    return folder
