"""The one family of errors that commands end with; what is no AetherInstallError is a bug."""

from __future__ import annotations


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
