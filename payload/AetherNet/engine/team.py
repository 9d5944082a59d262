"""
Threads that share out the strips of an image.

PyTorch by itself shares out each operation and waits for the slowest share, some fifty times in each block: beside
another program nearly always for a thread that the system has put aside, for longer than the operation takes. Here each
thread takes a strip through a step, and then another one that waits for nothing any more.

They meet in queues and lists that are written in C, which no interruption leaves locked. Nobody waits without a bound:
where nothing is done for long, the network computes. The caller only waits, so that nothing of its own has to be put
back, and no thread stays.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import functools
import os
import queue
import sys
from typing import Callable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import torch

from .eligible import DeclinedError

_PATIENCE = 10.0
"""Seconds to wait for what takes some hundredths of one, beside a busy program some tenths."""


class Step(NamedTuple):
    """What is done to some rows: after the step before has been done to them and the strips next to them, or to all."""

    run: Callable[[int, int], object]
    after_all: bool = False


def do_all(steps: Sequence[Step], strips: Sequence[Tuple[int, int]], helpers: int) -> None:
    """
    Does all steps to all strips, in so many threads, or in the calling one if that is 0.

    Raises:
        DeclinedError: no threads are to be had, or something went wrong in one.
    """
    if helpers:
        _Team(steps, strips, helpers).run()
    else:
        for step, strip in ((step, strip) for step in steps for strip in strips):
            step.run(*strip)


class _Team:
    def __init__(self, steps: Sequence[Step], strips: Sequence[Tuple[int, int]], helpers: int) -> None:
        self._steps: List[Optional[Step]] = list(steps)
        self._strips, self._helpers, self._over = strips, helpers, False
        everything = range(len(strips))
        near = [everything[max(0, strip - 1) : strip + 2] for strip in everything]
        # Those that a strip needs of the step before, which are those that need it. For each there is an item to take;
        # who takes the last one, which is true, goes on with the strip. No two threads ever take the same.
        self._needs = [[everything if step.after_all else near[strip] for strip in everything] for step in steps]
        self._waiting = [[_items(len(needs)) for needs in step] for step in self._needs]
        self._undone = [_items(len(strips)) for _ in steps]
        self._ready: queue.SimpleQueue[Optional[Tuple[int, int]]] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._begun: List[bool] = []  # an exception from outside may end a thread before it begins

    def run(self) -> None:
        for strip in range(len(self._strips)):
            self._ready.put((0, strip))
        ended: List[bool] = []
        before = -1
        try:
            for _ in range(self._helpers):
                _thread.start_new_thread(self._help, ())
            while not ended:  # whoever ends first has seen the end of it all, or failed
                try:
                    ended += self._next_end()
                except queue.Empty:
                    if self._left() == before:
                        raise DeclinedError from None
                    before = self._left()
            if not all(ended):
                raise DeclinedError
        except RuntimeError:  # there are no more threads to be had
            raise DeclinedError from None
        finally:
            self._stop()
            with contextlib.suppress(queue.Empty):
                while len(ended) < len(self._begun):  # what they are at takes no longer than one operation
                    ended += self._next_end()

    def _next_end(self) -> Iterator[bool]:
        """Waits for it when it is added to a list: by one call of C, so that no interruption comes between the two."""
        return map(self._ended.get, [True], [_PATIENCE])

    def _left(self) -> int:
        return sum(map(len, self._undone))

    def _stop(self) -> None:
        """Nobody begins anything more."""
        self._over = True
        for _ in range(self._helpers):
            self._ready.put(None)

    def _help(self) -> None:
        """What a thread does. Whatever goes wrong, the network computes, and fails as it does."""
        try:
            with contextlib.suppress(BaseException):
                self._begun.append(True)
                _use_one_thread()
                with torch.inference_mode():
                    task = self._ready.get(timeout=_PATIENCE)
                    while task is not None and not self._over:
                        self._do(*task)
                        task = self._ready.get(timeout=_PATIENCE)
        finally:
            self._stop()
            self._ended.put(not self._undone[-1])

    def _do(self, number: int, strip: int) -> None:
        self._steps[number].run(*self._strips[strip])  # type: ignore[union-attr]
        if self._undone[number].pop():
            self._steps[number] = None  # with the memory that nothing else needs
        if not self._undone[-1]:
            self._stop()
        elif number + 1 < len(self._steps):
            for each in self._needs[number + 1][strip]:
                if self._waiting[number + 1][each].pop():
                    self._ready.put((number + 1, each))


def _items(number: int) -> List[bool]:
    return [True, *[False] * (number - 1)]


def number_of_threads() -> int:
    """Returns how many threads PyTorch may use here."""
    threads = torch.get_num_threads()
    return min(threads, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else threads)


def _use_one_thread() -> None:
    """
    Has PyTorch use one thread for what this thread does, and as many as ever for all others.

    That is what ``torch.set_num_threads`` cannot do: threads that first use PyTorch afterwards take over its number.

    Source: OpenMP, omp_set_num_threads, which concerns the calling task; MKL, mkl_set_num_threads_local.
    """
    torch.get_num_threads()  # gives a new thread the number that is set for all
    _library().omp_set_num_threads(1)
    if has_products():
        _library().MKL_Set_Num_Threads_Local(1)
    if torch.get_num_threads() != 1:
        raise DeclinedError


@functools.lru_cache(maxsize=None)
def _library() -> ctypes.PyDLL:
    """What PyTorch computes with, in its own packages: whoever cannot find it there does without threads."""
    names = {"win32": "libiomp5md.dll", "darwin": "libtorch_cpu.dylib"}
    return ctypes.PyDLL(
        os.path.join(os.path.dirname(torch.__file__), "lib", names.get(sys.platform, "libtorch_cpu.so"))
    )


@functools.lru_cache(maxsize=None)
def has_products() -> bool:
    """Returns whether there are MKL's matrix products, and it can be told to use one thread in a thread."""
    try:
        return torch.backends.mkl.is_available() and bool(_library().MKL_Set_Num_Threads_Local)
    except (AttributeError, OSError):
        return False
