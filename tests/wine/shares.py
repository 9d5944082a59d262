"""
A plugin of pytest: of several processes that are to run the same tests, each runs the files that no other has begun.

They tell each other by folders in the one that ``CLAIMED_TESTS`` names.
"""

from __future__ import annotations

import atexit
import os
from itertools import groupby
from pathlib import Path

import pytest

STATUS = pytest.StashKey[int]()


def claim(file: Path) -> bool:
    """Whether this process is the first to want a file."""
    try:
        Path(os.environ["CLAIMED_TESTS"], file.name).mkdir()
    except FileExistsError:
        return False
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Runs file by file; what fixtures have made for a file is taken away before the next one."""
    if session.testsfailed or session.config.option.collectonly:
        return None
    for file, tests in groupby(session.items, lambda item: item.path):
        if claim(file):
            items = list(tests)
            for item, following in zip(items, [*items[1:], None], strict=True):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if session.shouldfail:
                    raise session.Failed(session.shouldfail)
    return True


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends here, since Wine now and then crashes where torch is unloaded."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if STATUS in config.stash and reporter is not None:
        reporter.flush()
        atexit._run_exitfuncs()
        os._exit(config.stash[STATUS])
