"""Commands as they are typed at a prompt: that of a POSIX shell or, on Windows, of cmd and PowerShell alike."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence

_WINDOWS = sys.platform == "win32"

_NEEDS_QUOTES = re.compile(r"[^\w\-.:\\/=+]")
"""What separates words, starts another command or means something else to cmd or PowerShell."""

_QUOTED_PROGRAM = re.compile(r"`(\"[^`]*)`")


def typed(words: Sequence[str], windows: bool = _WINDOWS) -> str:
    """Words of a command line as they are typed."""
    return " ".join(map(_quoted, words)) if windows else shlex.join(words)


def as_options(words: Sequence[str]) -> str:
    """Options as they go into a command that is shown: typed, after a space, if there are any."""
    return f" {typed(words)}" if words else ""


def for_powershell(text: str, windows: bool = _WINDOWS) -> str:
    """A text in which commands stand in backticks, with what PowerShell has to be told of a quoted program: run it."""
    return _QUOTED_PROGRAM.sub(r"`\1` (in PowerShell `& \1`)", text) if windows else text


def _quoted(word: str) -> str:
    if word and not _NEEDS_QUOTES.search(word):
        return word
    # A backslash before the closing mark would make that a part of the word.
    return f'"{word}{chr(92) * (len(word) - len(word.rstrip(chr(92))))}"'
