"""The states of a spandrel."""

from __future__ import annotations

from enum import Enum


class State(str, Enum):
    """The state of a spandrel, as ``status`` reports it."""

    ABSENT = "absent"
    INSTALLED = "installed"
    OUTDATED = "outdated"
    PARTIAL = "partial"
    MODIFIED = "modified"
    FOREIGN = "foreign"
    UNSUPPORTED = "unsupported"
    MISSING = "missing"
