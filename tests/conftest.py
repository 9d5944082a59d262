"""Where tests work, and the spandrel that they work on. Nothing here, nor in tests/tree, needs torch."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from environments import copy_spandrel

# Several test processes share the cores, and threads that wait for each other by spinning would make every one of them
# many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

MEMORY = Path("/dev/shm")
GIBIBYTE = 2**30


def _runs_programs(folder: Path) -> bool:
    return not os.statvfs(folder).f_flag & os.ST_NOEXEC


if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 4 * GIBIBYTE and _runs_programs(MEMORY):
    # Temporary folders in memory: nothing waits for a disk to flush.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A site-packages folder with a spandrel that does not know AetherNet."""
    folder = tmp_path / "site-packages"
    copy_spandrel(folder)
    return folder
