"""With which flags a host starts its Python, which decide on the spandrel that it imports; read, and nothing is run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from .kinds import Kind
from .processes import taken_apart
from .system import System

_STARTERS = ("*.bat", "*.cmd", "*.sh")
_MOST_LINES = 1000

_WORD = re.compile(r'"[^"]*"|[^\s"]+')
_COMMENT = re.compile(r"\s*(?:@?rem\b|::|#)", re.IGNORECASE)
_NO_USER_SITE = re.compile(r"""\s*@?(?:set|export)\s+["']?PYTHONNOUSERSITE=["']?[^\s"']""", re.IGNORECASE)


def starting_flags(system: System, kind: Kind, folder: Path) -> tuple[str, ...]:
    """The flags by the files that start a host in its folder or, if none of them tells, as its kind does."""
    starters = (path for pattern in _STARTERS for path in system.places(pattern, folder))
    told = [flags for path in starters for flags in _told_by(system.read(path, "replace") or "", kind)]
    return told[0] if told and kind.flags not in told else kind.flags


def _told_by(text: str, kind: Kind) -> Iterator[tuple[str, ...]]:
    """The flags on every line of a shell's that has a Python run the host's program."""
    lines = [line for line in text.splitlines()[:_MOST_LINES] if not _COMMENT.match(line)]
    has_no_user_site = any(map(_NO_USER_SITE.match, lines))
    for line in lines:
        words = [word.strip("\"'") for word in _WORD.findall(line)]
        python = next((number for number, word in enumerate(words) if _name(word).startswith("python")), None)
        if python is None:
            continue
        flags, program = taken_apart(words[python + 1 :])
        if program is not None and _name(program) in kind.scripts:
            yield tuple(sorted({*flags, *(["-s"] if has_no_user_site and "-I" not in flags else [])}))


def _name(word: str) -> str:
    """The last part of a path, or the name of a variable that stands for one."""
    return re.split(r"[\\/]", word)[-1].strip("%${}").lower()
