"""
A plugin for pytest: networks are given the engine, as they are in spandrel.

Random numbers are the same in every run, for some networks are badly conditioned.
"""

from __future__ import annotations

import pytest
import torch
from networks import aether3_core, aether_core, engine


@pytest.fixture(autouse=True)
def same_numbers_in_every_run() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def with_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    for network in (aether_core.aether, aether3_core.aether3):
        monkeypatch.setattr(network, "engine", engine and engine.infer)
