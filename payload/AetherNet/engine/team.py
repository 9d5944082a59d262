"""
Threads that share out the strips of an image.

PyTorch by itself shares out each operation and waits for the slowest share, some fifty times in each block: beside
another program nearly always for a thread that the system has put aside, for longer than the operation takes. Here each
thread takes the next strip through a step, and waits only for the strips of the step before that it needs.

They meet in queues, lists and locks of C's, and who fails unlocks all. Nobody waits without a bound: where nothing is
done for long, the network computes. The caller only waits, so that nothing of its own has to be put back, and no thread
stays.
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
        _Team(steps, strips).run(helpers)
    else:
        for step, strip in ((step, strip) for step in steps for strip in strips):
            step.run(*strip)


class _Team:
    def __init__(self, steps: Sequence[Step], strips: Sequence[Tuple[int, int]]) -> None:
        self._steps, self._strips, self._over = steps, strips, False
        self._tasks: queue.SimpleQueue[Optional[Tuple[int, int]]] = queue.SimpleQueue()
        self._undone = [[_thread.allocate_lock() for _ in strips] for _ in steps]  # locked until it is done
        for number, locks in enumerate(self._undone):
            for strip, lock in enumerate(locks):
                lock.acquire()
                self._tasks.put((number, strip))
        self._begun: List[bool] = []  # an exception from outside may end a thread before it begins
        self._ended: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def run(self, helpers: int) -> None:
        ended: List[bool] = []
        before = -1
        try:
            for _ in range(helpers):
                self._tasks.put(None)
                _thread.start_new_thread(self._help, ())
            while not ended or len(ended) < len(self._begun):
                try:
                    ended += self._next_end()
                except queue.Empty:
                    if before == self._tasks.qsize():
                        raise DeclinedError from None
                    before = self._tasks.qsize()
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

    def _stop(self) -> None:
        """Nobody begins anything more, or waits for it."""
        self._over = True
        for lock in (lock for locks in self._undone for lock in locks if lock.locked()):
            with contextlib.suppress(RuntimeError):  # somebody else has unlocked it
                lock.release()

    def _help(self) -> None:
        """What a thread does. Whatever goes wrong, the network computes, and fails as it does."""
        well = False
        try:
            with contextlib.suppress(BaseException):
                self._begun.append(True)
                _use_one_thread()
                with torch.inference_mode():
                    for number, strip in iter(self._tasks.get_nowait, None):
                        self._do(number, strip)
                well = True
        finally:
            if not well:
                self._stop()
            self._ended.put(well)

    def _do(self, number: int, strip: int) -> None:
        step, before = self._steps[number], self._undone[number - 1] if number else []
        for lock in before if step.after_all else before[max(0, strip - 1) : strip + 2]:
            if not lock.acquire(timeout=_PATIENCE):
                raise DeclinedError
            lock.release()
        if self._over:
            raise DeclinedError
        step.run(*self._strips[strip])
        self._undone[number][strip].release()


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
