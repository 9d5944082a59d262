"""What these tests work on, and what of them a system cannot run."""

from __future__ import annotations

from pathlib import Path

import pytest
from trees import Tree

# They fork, kill by signals, link symbolically, or impose on others the rules that hold there anyway.
POSIX = ["test_histories.py", "test_interruption.py", "test_package_managers.py", "test_windows_rules.py"]

collect_ignore: list[str] = []


@pytest.fixture
def at(tree: Path) -> Tree:
    return Tree(tree)
