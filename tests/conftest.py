"""
Gives every test a spandrel that knows AetherNet, without touching the one that this environment has.

The installed spandrel is copied to a temporary folder, taught there by our own installer, and put first on the path.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# Before torch is imported: several test processes share the cores, and threads that wait for each other by spinning
# would make every one of them many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from environments import copy_spandrel, quietly, taught_spandrel

from aether_install.tree.commands import uninstall
from aether_install.tree.layout import Spandrel

sys.path.insert(0, str(taught_spandrel()))


@pytest.fixture(autouse=True)
def _same_numbers_in_every_run() -> None:
    torch.manual_seed(0)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A site-packages folder with a spandrel that does not know AetherNet."""
    folder = tmp_path / "site-packages"
    package = copy_spandrel(folder)
    uninstall(Spandrel(package), progress=quietly)
    return folder
