"""The rules of Windows' file systems, imposed on Python processes that run elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

MARK = "WINDOWS_RULES"


def windows_rules() -> dict[str, str]:
    """
    The environment for a process, and those that it starts, whose file system is to go by the rules of Windows.

    They are those in ``sitecustomize.py`` beside this file, which every Python loads as it starts (but for ``-I``).
    Windows has rules of its own, or those of Wine.
    """
    if os.name == "nt":
        return dict(os.environ)
    path = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": path, MARK: "1"}
