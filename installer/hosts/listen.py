"""Runs a program in another interpreter and hears what it says while it runs; how it ends is told, however that is."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, Queue
from threading import Thread

from .interpreter import command_line, environment


@dataclass(frozen=True)
class Ending:
    """
    How a program in another interpreter ended.

    Attributes:
        reason: in words, or empty if all went well.
        words: what it said on stderr.
    """

    reason: str
    words: str


def listen(
    python: Sequence[str], question: str, arguments: list[str], seconds: float, hear: Callable[[str], None]
) -> Ending:
    """
    Runs a program in an interpreter, hands over its lines on stdout as they come, and tells how it ended.

    Args:
        python: the words that start it.
        seconds: how long it may be silent before it is ended.

    Raises:
        OSError, ValueError: it does not start.
    """
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            command_line(python, question, arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment(),
            encoding="utf-8",
            errors="replace",
        )
        lines: Queue[str | None] = Queue()
        Thread(target=_read_lines, args=(child, lines), daemon=True).start()
        try:
            while (line := lines.get(timeout=seconds)) is not None:
                hear(line)
            reason = exit_reason(child.wait(seconds))
        except (Empty, subprocess.TimeoutExpired):
            reason = f"the process was silent for {seconds:.0f} seconds, and was ended"
        finally:
            child.kill()
            child.wait()
        errors.seek(0)
        return Ending(reason, errors.read().decode("utf-8", "replace").strip())


def _read_lines(child: subprocess.Popen[str], lines: Queue[str | None]) -> None:
    assert child.stdout is not None
    with child.stdout:
        for line in child.stdout:
            lines.put(line)
    lines.put(None)


def exit_reason(status: int) -> str:
    """Why a process with this exit status ended, as a part of a sentence; empty if all went well."""
    if status == 0:
        return ""
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = str(-status)
        return f"the process was ended by signal {name}"
    return f"the process ended with exit status {status if status < 2**31 else hex(status)}"
