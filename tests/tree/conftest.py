"""What these tests work on."""

from __future__ import annotations

from pathlib import Path

import pytest
from trees import Tree


@pytest.fixture
def at(tree: Path) -> Tree:
    return Tree(tree)
