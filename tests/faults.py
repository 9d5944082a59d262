"""
Kills and faults at every step that a piece of code takes in the file system; kills in a process of their own.

Where processes do not fork, work that is to be killed must be such as can be sent to another process.

The steps are counted, never timed: a profile function sees every call of a C function that can change a file, in the
order in which they are made, and the run is repeated with something happening before the first, the second, ...
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from types import FrameType
from typing import TYPE_CHECKING, Any

from aether_install.errors import AetherInstallError

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

_CHANGING = {
    "chmod",
    "chown",
    "fchmod",
    "fchown",
    "flush",
    "fsync",
    "link",
    "mkdir",
    "open",
    "remove",
    "rename",
    "replace",
    "rmdir",
    "sendfile",
    "symlink",
    "truncate",
    "unlink",
    "utime",
    "write",
}


SUCCEEDED_ANYWAY = 10
"""Exit status of work that met a fault and could do without that step."""

REFUSED = 1
"""Exit status of work that ended with a sentence for the user."""

KILLED = -9
"""Exit status of a process that was."""


def _is_about_files(call: Any) -> bool:
    return call.__module__ in (os.name, "_io") or type(call.__self__).__module__ == "_io"


def at_step(number: int, work: Callable[[], None], happen: Callable[[], None]) -> int:
    """
    Does some work in a process of its own, and has something happen before a step of it.

    Returns the exit status of the process; 0: it was done in fewer steps.
    """
    if not hasattr(os, "fork"):
        # What the process outlives needs none of its own, which takes its time to start.
        return _started(number, work, happen) if happen is kill else fails_at_step(number, work, happen)
    child = os.fork()
    if child == 0:
        status = 2
        try:
            status = fails_at_step(number, work, happen)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _started(number: int, work: Callable[[], None], happen: Callable[[], None]) -> int:
    program = f"import sys; sys.path[:] = {sys.path!r}; import faults; faults.main()"
    child = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", program], input=pickle.dumps((number, work, happen))
    )
    return -child.returncode if child.returncode == -KILLED else child.returncode


def main() -> None:
    """What such a process does."""
    number, work, happen = pickle.load(sys.stdin.buffer)
    sys.exit(fails_at_step(number, work, happen))


def fails_at_step(number: int, work: Callable[[], None], happen: Callable[[], None]) -> int:
    """
    Does some work in this process, and has something happen before a step of it that this process outlives.

    Returns 0 if it was done in fewer steps, else ``SUCCEEDED_ANYWAY`` or ``REFUSED``.
    """
    steps = 0

    def count_step(_: str) -> None:
        nonlocal steps
        steps += 1
        if steps == number:
            sys.setprofile(None)  # what follows is not counted, and takes half the time
            happen()

    try:
        with _watched(count_step):
            work()
    except AetherInstallError:
        return REFUSED
    return SUCCEEDED_ANYWAY if steps >= number else 0


@contextmanager
def _watched(before: Callable[[str], None]) -> Iterator[None]:
    """Meanwhile the name of every step is told before it is taken."""

    def look(_: FrameType, event: str, call: Any) -> None:
        if event == "c_call" and call.__name__ in _CHANGING and _is_about_files(call):
            before(call.__name__)

    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(None)


def steps_of(work: Callable[[], None], before: Callable[[int], None]) -> list[str]:
    """Does some work in this process and tells the number of each step before it is taken; returns their names."""
    names: list[str] = []

    def count_step(name: str) -> None:
        names.append(name)
        before(len(names))

    with _watched(count_step):
        work()
    return names


def one_of_each_kind(names: list[str]) -> list[int]:
    """The numbers of the first and the last of the steps that have the same name."""
    last = {name: number for number, name in enumerate(names, 1)}
    return sorted({names.index(name) + 1 for name in last} | set(last.values()))


def kill() -> None:
    """Ends this process as nothing can prevent."""
    os.kill(os.getpid(), getattr(signal, "SIGKILL", -KILLED))


def failing_with(code: int) -> Callable[[], None]:
    """Something that makes a step fail with this errno instead of being taken."""
    return partial(_fail, code)


def _fail(code: int) -> None:
    raise OSError(code, os.strerror(code))


def at_every_step(
    prepare: Callable[[], Callable[[], None]], happen: Callable[[], None], numbers: Iterable[int] | None = None
) -> Iterator[tuple[int, int]]:
    """
    Has something happen before the first step of some work, before the second, and so on until it runs out of steps.

    Args:
        prepare: sets the scene anew and returns the work.
        numbers: of the only steps that it is to happen before.

    Yields:
        the number of the step and the exit status of the process, once it has ended.
    """
    for number in numbers or count(1):
        status = at_step(number, prepare(), happen)
        if status == 0:
            return
        yield number, status


def slim_process() -> ProcessPoolExecutor:
    """
    Another process to have something happen from, which takes module-level functions.

    It imports the modules of those alone. Forking one that has imported torch takes ten times as long, and those that
    run tests have, since they collect the tests of models.
    """
    from concurrent.futures import ProcessPoolExecutor  # Processes that start for one kill need no such thing.
    from multiprocessing import get_context

    return ProcessPoolExecutor(1, get_context("spawn"))
