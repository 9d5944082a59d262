"""
Whether the engine may compute in a network's place: only where nobody can tell the difference, and never in doubt.

Some of the names that are looked up here are PyTorch's own. If one goes, that is an error, and the network computes.
"""

from __future__ import annotations

import _queue
import _thread
import functools
import os
import queue
import re
import sys
import time
import types
from typing import Any, Callable, Dict, FrozenSet, List, Tuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as modules

from ..__arch.aether3_core import aether3
from ..__arch.aether_core import aether
from ..__arch.building import without_memory

MISTAKES = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
"""What Python and PyTorch raise by themselves; not what applications throw at a thread from outside."""

if hasattr(getattr(torch, "compiler", None), "is_compiling"):
    is_compiling = torch.compiler.is_compiling
else:  # before PyTorch 2.3
    is_compiling = getattr(torch._utils, "is_compiling", lambda: True)


class DeclinedError(Exception):
    """The engine is not the one to compute this."""


def may_run(network: Any, x: Any) -> bool:
    """Returns whether the engine may compute what a network makes of what it is given."""
    try:
        return (
            type(network) in (aether, aether3)
            and type(x) is Tensor
            and (x.dim(), x.device.type, x.layout) == (4, "cpu", torch.strided)
            and x.dtype in (torch.float32, torch.float16, torch.bfloat16)
            and _is_ready()
            and not _is_watched()
            and len(x) > 0
            # Below, there is nothing to gain, but that older versions of PyTorch have no float16 on a CPU.
            and (x[0, 0].numel() >= 2**8 or (x.dtype == torch.float16 and x[0, 0].numel() > 0))
            and _is_as_built(network, x.dtype)
        )
    except MISTAKES:
        return False


def _is_ready() -> bool:
    """Whether this process lets threads start, and has not put others in their place, as gevent and eventlet do."""
    return bool(
        os.environ.get("AETHERNET_ENGINE", "1") != "0"
        and vector_width() > 0  # nothing else was ever measured
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not sys.is_finalizing()
        and all(isinstance(f, types.BuiltinFunctionType) for f in (_thread.start_new_thread, time.sleep))
        and queue.SimpleQueue is _queue.SimpleQueue
    )


def _is_watched() -> bool:
    """Whether something records, changes or looks at what this thread computes; it would not see other threads."""
    return bool(
        torch._C._get_tracing_state()
        or _autocasts()
        or torch.are_deterministic_algorithms_enabled()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
        or torch._C._autograd._profiler_enabled()
        or forward_ad._current_level >= 0
        or modules._global_forward_hooks
        or modules._global_forward_pre_hooks
    )


def _autocasts() -> bool:
    try:
        return torch.is_autocast_enabled("cpu")
    except TypeError:  # before PyTorch 2.4
        return torch.is_autocast_cpu_enabled()


def _is_as_built(network: Any, dtype: torch.dtype) -> bool:
    """Whether a network is in evaluation, on the CPU, of one type, and nothing inside it is an application's."""
    generation: Any = type(network)
    own, built = list(network.modules()), _built(generation, tuple(network.hyperparameters.items()), dtype)
    functions = {nn.Module: "__call__", **{kind: "forward" for _, _, (kind, *_) in built}}
    return (
        len(own) == len(built)
        and all(_is_its_own(kind, name) for kind, name in functions.items())
        and all(_look(module, public, "cpu") == look for module, (_, public, look) in zip(own, built))
        and all(vars(module).keys() == names for module, (names, _, _) in zip(own[1:], built[1:]))
        and not any(module._forward_hooks or module._forward_pre_hooks for module in own[1:])
    )


@functools.lru_cache(maxsize=8)
def _built(network: Callable[..., Any], arguments: Tuple[Any, ...], dtype: torch.dtype) -> List[Any]:
    """For each module as it is built: the names of its attributes, the public ones of them, and what it looks like."""
    modules = without_memory(network, **dict(arguments)).eval().to(dtype).modules()
    named = [(module, vars(module).keys(), [name for name in vars(module) if name[0] != "_"]) for module in modules]
    return [(names, public, _look(module, public, "meta")) for module, names, public in named]


def _look(module: nn.Module, public: List[str], device: str) -> Tuple[Any, ...]:
    """What a module is: its class, some attributes, and the kind of its parameters and buffers, on a device."""
    tensors: Dict[str, Any] = {**module._parameters, **module._buffers}
    for name, own in tensors.items():
        ordinary = type(own) in (nn.Parameter, Tensor) and own.device.type == device
        tensors[name] = own if own is None else ordinary and (own.shape, own.dtype, own.layout)
    return type(module), [vars(module)[name] for name in public], tensors


def _is_its_own(kind: type, name: str) -> bool:
    """Whether a class computes as its module says, and not by a function that somebody has put there since."""
    owner = next(each for each in kind.__mro__ if name in vars(each))
    return getattr(kind, name).__globals__ is vars(sys.modules[owner.__module__])


def python_is_busy() -> bool:
    """
    Whether another thread runs Python code all the time.

    Then each operation ends with a wait for Python's lock, which that thread keeps for five milliseconds, and so does a
    sleep, time and again. Beside another program it is as long now and then, but not three times.

    Source: sys.getswitchinterval.
    """
    if len(sys._current_frames()) < 2:
        return False
    if sys.platform == "win32" and sys.version_info < (3, 11):  # where every sleep may take 16 milliseconds
        return True
    return all(_seconds_asleep() > 0.9 * sys.getswitchinterval() for _ in range(3))


def _seconds_asleep() -> float:
    start = time.perf_counter()
    time.sleep(1e-4)
    return time.perf_counter() - start


@functools.lru_cache(maxsize=None)
def vector_width() -> int:
    """Returns how many bits PyTorch computes with at a time on this processor: 256, 512, or 0 for any other number."""
    found = re.search(r"CPU capability usage: AVX(2|512)\b", torch.__config__.show())
    return {"2": 256, "512": 512}[found[1]] if found else 0


def has_bfloat16() -> bool:
    """Returns whether the processor is known to compute in bfloat16 by itself; oneDNN emulates it on the others."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(_described())


def is_of_intel() -> bool:
    """Returns whether the processor is known to be Intel's."""
    return "GenuineIntel" in _described()


@functools.lru_cache(maxsize=None)
def _described() -> FrozenSet[str]:
    """The words by which Linux describes the processor; none on other systems."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
            return frozenset(word for line in lines if line.startswith(("flags", "vendor_id")) for word in line.split())
    except OSError:
        return frozenset()
