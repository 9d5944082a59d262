"""The one family of errors that commands end with; anything else is a bug."""

from __future__ import annotations

import errno
from pathlib import Path

from .busy import holders, is_busy


class AetherInstallError(Exception):
    """
    Something could not be done.

    Attributes:
        message: one sentence that names the file or interpreter and the way out.
        details: what somebody else said about it, such as a child process, or empty.
        state: the state of the installation, where it is known and matters.
    """

    def __init__(self, message: str, *, details: str = "", state: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.state = state


_REMEDIES = {
    errno.EACCES: "run this as the user who owns that place, or close the program that has the file open",
    errno.EPERM: "run this as the user who owns that place",
    errno.EROFS: "the file system is read-only: make it writable, or work on a copy with --target",
    errno.ENOSPC: "the disk is full: free some space and run this again",
    errno.EDQUOT: "your disk quota is used up: free some space and run this again",
    errno.ENAMETOOLONG: "use a shorter name",
}


def explained(error: OSError, place: str | Path = "") -> AetherInstallError:
    """What the operating system refused, where, and the way out; ``place`` counts where the error names none."""
    what = error.strerror or str(error)
    where = error.filename2 or error.filename or place
    remedy = _REMEDIES.get(error.errno or 0, "fix that and run this again")
    if is_busy(error) and where and (programs := holders(where)):
        remedy = (
            f"close {' and '.join(programs)}, which hold{'s' if len(programs) == 1 else ''} it open, and run this again"
        )
    return AetherInstallError(f"{where}: {what}; {remedy}" if where else f"{what}; {remedy}")
