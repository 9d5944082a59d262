"""Whether there is a torch to work with."""

from __future__ import annotations

import sys
import warnings

from ..errors import AetherInstallError


def import_torch() -> None:
    """
    Imports torch, which takes a while, and keeps to itself what torch's own code warns programmers of.

    Raises:
        AetherInstallError: the running Python has none, or one that cannot be imported.
    """
    warnings.filterwarnings("ignore", module=r"torch\b")
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise _broken(error) from error
        raise AetherInstallError(
            f"{sys.executable} has no torch, which model files need; name a Python that has, such as your "
            "application's, with --python or --host, or install aether-install[models]"
        ) from error
    except (ImportError, OSError) as error:
        raise _broken(error) from error


def _broken(error: Exception) -> AetherInstallError:
    return AetherInstallError(
        f"{sys.executable} cannot import its torch; install it again there, or name another with --python or --host",
        details=f"{type(error).__name__}: {error}",
    )
