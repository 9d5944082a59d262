"""What a report of a mistake of our own needs, kept for the user to send."""

from __future__ import annotations

import platform
import sys
import traceback
from pathlib import Path
from tempfile import NamedTemporaryFile

from .. import __version__


def write_report(error: Exception) -> Path:
    """
    Writes versions, the command line and where the error was raised to a new file among the temporary ones.

    Raises:
        OSError: it cannot be written.
    """
    with NamedTemporaryFile("w", prefix="aether-install-", suffix=".log", encoding="utf-8", delete=False) as file:
        print(f"aether-install {__version__} in {Path(__file__).parents[1]}", file=file)
        print(f"Python {sys.version} in {sys.executable} on {platform.platform()}", file=file)
        if "torch" in sys.modules:
            print(f"torch {sys.modules['torch'].__version__}", file=file)
        print(f"arguments: {sys.argv[1:]!a}\n", file=file)
        traceback.print_exception(error, file=file)
    return Path(file.name)
