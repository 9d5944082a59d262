"""
A plugin of pytest: has a program's launcher tried again whose program Wine failed to start.

A console script's and an environment's ``python.exe`` start another process, and Wine fails one of some thousand, of
which nothing has run. The first then ends with 1 or 101 and says nothing; a program that has run says why it failed.
"""

from __future__ import annotations

import subprocess
from typing import Any

_run = subprocess.run


def failed_to_start(result: subprocess.CompletedProcess[Any]) -> bool:
    return result.returncode in (1, 101) and result.stdout in ("", b"") and result.stderr in ("", b"")


def run(*command: Any, check: bool = False, **options: Any) -> subprocess.CompletedProcess[Any]:
    """``subprocess.run``, up to three times."""
    for _ in range(3):
        result = _run(*command, **options)
        if not failed_to_start(result):
            break
    if check:
        result.check_returncode()
    return result


subprocess.run = run
