"""
Gives tests of models a spandrel that knows AetherNet, without touching the one that this environment has.

A copy of spandrel is put into a temporary folder, taught there by our own installer, and put first on the path.
"""

from __future__ import annotations

import sys

import pytest
import torch
from environments import taught_spandrel

sys.path.insert(0, str(taught_spandrel()))


@pytest.fixture(autouse=True)
def _same_numbers_in_every_run() -> None:
    torch.manual_seed(0)
