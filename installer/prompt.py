"""Commands as they are typed at this system's prompt."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence


def typed(words: Sequence[str], windows: bool = sys.platform == "win32") -> str:
    """Words of a command line as they are typed at this system's prompt."""
    return subprocess.list2cmdline(words) if windows else shlex.join(words)
