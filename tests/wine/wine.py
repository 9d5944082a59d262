"""Wine, and the Windows that are made with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]

WINE = "/usr/lib/wine/wine64"
PACKAGES = ("wine", "wine64")


def wine() -> str:
    """
    The Wine of this system, installed if that is needed and allowed.

    Raises:
        SystemExit: there is none.
    """
    if not _installed() and can_be_installed():
        print("installing Wine", flush=True)
        quietly: dict[str, Any] = {
            "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            "stdout": subprocess.DEVNULL,
        }
        subprocess.run(["apt-get", "update", "-qq"], check=False, **quietly)
        subprocess.run(["apt-get", "install", "-qq", "--no-install-recommends", *PACKAGES], check=False, **quietly)
    found = _installed()
    if not found:
        sys.exit(
            f"Wine is missing, under which the Python of Windows runs; as root, `apt-get install "
            f"--no-install-recommends {' '.join(PACKAGES)}`, and run this again"
        )
    return found


def can_be_installed() -> bool:
    return shutil.which("apt-get") is not None and os.geteuid() == 0


def _installed() -> str | None:
    return WINE if os.path.exists(WINE) else shutil.which("wine64")


@dataclass(frozen=True)
class Windows:
    """
    A Windows.

    Attributes:
        prefix: the folder that it lives in.
        core: the one core that all its processes run on. What is one call on Windows is a dozen messages between
            processes under Wine, and those take several times as long from core to core.
    """

    prefix: Path
    core: int | None = None

    @property
    def drive(self) -> Path:
        """What is ``C:`` there."""
        return self.prefix / "drive_c"

    @property
    def _environment(self) -> dict[str, str]:
        # None of what is about this system's Python.
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_", "XDG_"))}
        return {
            **ours,
            "WINEPREFIX": str(self.prefix),
            "WINEARCH": "win64",
            "WINEDEBUG": "-all",
            "WINEDLLOVERRIDES": "mscoree,mshtml=;winedbg.exe=d",
            "DISPLAY": "",
            "LC_ALL": "C.UTF-8",
            # Intel's OpenMP in torch asks for GetNumaNodeProcessorMaskEx otherwise, which Wine lacks.
            "KMP_AFFINITY": "disabled",
            # Torch would use a processor's matrix tiles (AMX), for which Wine does not ask Linux.
            "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI",
        }

    def start(self, *command: str, **variables: str) -> subprocess.Popen[bytes]:
        """Starts a program; its streams are pipes, since Python cannot use what else Wine makes of Unix's."""
        process = subprocess.Popen(
            [wine(), *command],
            env={**self._environment, **variables},
            cwd=REPOSITORY,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=None if self.core is None else partial(os.sched_setaffinity, 0, {self.core}),
        )
        assert process.stdin
        process.stdin.close()
        return process

    def run(self, *command: str, check: bool = True, **variables: str) -> int:
        """Runs a program and shows what it says; returns its exit status."""
        with self.start(*command, **variables) as process:
            show(process)
        if check and process.returncode != 0:
            sys.exit(f"{' '.join(command)} exited with {process.returncode}")
        return process.returncode

    def copy(self, prefix: Path, core: int, without: frozenset[str] = frozenset()) -> Windows:
        """
        Another one with the same files, as hard links; this one must have ended.

        Args:
            without: what to leave out of ``C:\\``.
        """

        def left_out(folder: str, _: list[str]) -> frozenset[str]:
            return without if Path(folder) == self.drive else frozenset()

        shutil.rmtree(prefix, ignore_errors=True)
        shutil.copytree(self.prefix, prefix, symlinks=True, copy_function=os.link, ignore=left_out)
        return Windows(prefix, core)

    def end(self) -> None:
        """Ends all its processes."""
        subprocess.run(["wineserver", "-k"], env=self._environment, check=False)
        subprocess.run(["wineserver", "-w"], env=self._environment, check=False)


def show(process: subprocess.Popen[bytes]) -> None:
    """Shows what a program says until it ends."""
    assert process.stdout
    while part := process.stdout.read(1 << 16):
        sys.stdout.buffer.write(part)
        sys.stdout.flush()
