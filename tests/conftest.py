"""Where tests work, and the spandrel that they work on. Nothing here, nor in tests/tree, needs torch."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from environments import copy_spandrel

# Several test processes share the cores, and threads that wait for each other by spinning would make every one of them
# many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

MEMORY = Path("/dev/shm")
GIBIBYTE = 2**30


def _runs_programs(folder: Path) -> bool:
    return not os.statvfs(folder).f_flag & os.ST_NOEXEC


if os.name == "posix" and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 4 * GIBIBYTE and _runs_programs(MEMORY):
    # Temporary folders in memory: nothing waits for a disk to flush.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


SLOWEST = (
    "test_interruption",
    "test_absence",
    "test_forms",
    "test_applications",
    "test_pictures",
    "test_old_torch",
    "test_installing",
    "test_no_models",
    "test_first_steps",
    "test_doctor",
    "test_discovery",
    "test_foreign",
    "test_portable",
    "test_package_managers",
    "test_network3",
    "test_interpreters",
    "test_one_file",
    "test_network",
    "test_damage3",
    "test_where_nobody_looks",
    "test_fuse",
    "test_histories",
    "test_states",
    "test_command_line",
)
"""The files whose tests take longest, by and large in this order."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Puts the slowest files first, lest one process works on such a file while the others have none left.

    On Windows it leaves out what cannot run there.
    """
    if sys.platform == "win32":
        for item in items:
            for mark in item.iter_markers("not_on_windows"):
                item.add_marker(pytest.mark.skip(reason=mark.args[0]))
    items.sort(key=lambda item: SLOWEST.index(item.path.stem) if item.path.stem in SLOWEST else len(SLOWEST))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A site-packages folder with a spandrel that does not know AetherNet."""
    folder = tmp_path / "site-packages"
    copy_spandrel(folder)
    return folder
