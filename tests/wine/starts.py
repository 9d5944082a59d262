"""
A plugin of pytest: has a program's launcher tried again whose program Wine failed to start.

A console script's and an environment's ``python.exe`` start another process, and Wine fails one of some thousand. The
first then ends with 1 or 101 and says nothing. Whatever began is run once: each Python says that it has, through
``sitecustomize``.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

MOST_TRIES = 3

_run = subprocess.run


def run(
    *command: Any, check: bool = False, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """``subprocess.run``, but for what did not begin."""
    with TemporaryDirectory() as folder:
        began = Path(folder, "began")
        variables = {**(os.environ if env is None else env), "TELLS_THAT_IT_BEGAN": str(began)}
        for _ in range(MOST_TRIES):
            result = _run(*command, env=variables, **options)
            if began.exists() or result.returncode not in (1, 101) or result.stdout or result.stderr:
                break
    if check:
        result.check_returncode()
    return result


subprocess.run = run
