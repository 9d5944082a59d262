"""
What applications do to a forward, each in a process of its own with two threads for PyTorch; it prints what came of it.

All are forked from one that has imported torch and done nothing with it, which starts no threads.
"""

from __future__ import annotations

import _thread
import ctypes
import faulthandler
import gc
import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import torch
from networks import JUNE, LATER, aether3_core, aether_core, engine, module
from weights import plain_output, weights_of
from weights3 import plain3_output, weights3_of

PATIENCE = 60
"""Seconds after which a process counts as hanging; each takes a few."""

CONFIG = {"embed_dim": 20, "depths": (2, 1), "lk_kernel": 7, "upscale": 1, "num_feat": 8}
WEIGHTS = weights_of(**CONFIG)
SIZE = (1, 3, 99, 101)


SCENARIOS: dict[str, Callable[[], object]] = {}


def scenario(function: Callable[[], object]) -> Callable[[], object]:
    SCENARIOS[function.__name__] = function
    return function


def network() -> Any:
    return JUNE.build(WEIGHTS)


def picture(model: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(x)


def computed(model: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        y = engine.infer(model, x)
    assert y is not None, "the engine left it to the network"
    return y


def check(model: Any, x: torch.Tensor) -> None:
    torch.testing.assert_close(picture(model, x), plain_output(x, WEIGHTS, **CONFIG), rtol=0, atol=1e-5)


def in_a_new_thread(work: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(work).result()


def assert_untouched(threads: int = 0) -> None:
    """No thread is left, and all of them have as many for PyTorch as before."""
    for _ in range(500):  # what was interrupted ends its operation first
        if _thread._count() == threads:
            break
        time.sleep(0.02)
    assert _thread._count() == threads, f"{_thread._count()} threads beside this one"
    assert torch.get_num_threads() == 2
    assert in_a_new_thread(torch.get_num_threads) == 2


@scenario
def with_any_number_of_threads() -> None:
    model, x = network(), torch.rand(SIZE)
    for threads in (1, 2, 3, 7, 16, 64):
        torch.set_num_threads(threads)
        check(model, x)
        assert torch.get_num_threads() == threads
        assert in_a_new_thread(torch.get_num_threads) == threads
    torch.set_num_threads(2)
    computed(model, x)


@scenario
def on_one_processor() -> None:
    os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])
    computed(network(), torch.rand(SIZE))
    check(network(), torch.rand(SIZE))


@scenario
def fewer_threads_than_were_set() -> None:
    """As OMP_THREAD_LIMIT has it; one that is set in time makes for it."""
    assert torch.get_num_threads() == 2
    for _ in range(5):
        check(network(), torch.rand(SIZE))
        check(network(), torch.rand(1, 3, 40, 40))
    later = {"embed_dim": 24, "depths": (1, 1), "lk_kernel": 7, "sk_kernel": 3, "scale": 2}
    weights, x = weights3_of(**later), torch.rand(1, 3, 90, 95)
    expected = plain3_output(x, weights, **later)
    y = picture(LATER.build(weights), x)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@scenario
def leaves_nothing_behind() -> None:
    model, x, seen, stop = network(), torch.rand(SIZE), set(), threading.Event()

    def others() -> None:  # which use PyTorch for the first time while helpers are at work
        while not stop.is_set():
            seen.add(in_a_new_thread(torch.get_num_threads))

    observer = threading.Thread(target=others)
    observer.start()
    for _ in range(20):
        picture(model, x)
    stop.set()
    observer.join()
    assert seen == {2}
    assert_untouched()


@scenario
def forwards_at_once() -> None:
    model, x = network(), torch.rand(SIZE)
    expected = plain_output(x, WEIGHTS, **CONFIG)
    with ThreadPoolExecutor(4) as threads:
        for y in threads.map(lambda _: picture(model, x), range(24)):
            torch.testing.assert_close(y, expected, rtol=0, atol=1e-5)
    assert_untouched()


@scenario
def threads_share_a_network_in_half_precision() -> None:
    model, x = JUNE.build(WEIGHTS, dtype=torch.float16), torch.rand(SIZE).half()
    expected = computed(model, x)
    with ThreadPoolExecutor(4) as threads:
        for y in threads.map(lambda _: picture(model, x), range(12)):
            torch.testing.assert_close(y, expected, rtol=0, atol=2e-3)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}


@scenario
def an_error_in_a_helper() -> None:
    """The network computes, and nothing holds on to the image."""
    layers = module("engine.layers")
    model, original, images = network(), layers.product, []

    def product(*arguments: Any) -> torch.Tensor:
        if random.random() < 0.2:
            raise MemoryError
        return original(*arguments)

    layers.product = product
    gc.disable()
    try:
        for _ in range(20):
            x = torch.rand(SIZE)
            images.append(x.untyped_storage()._weak_ref())
            check(model, x)
            del x
            assert torch.UntypedStorage._expired(images[-1])
    finally:
        layers.product = original
    assert_untouched()


def interrupted_picture(model: Any, x: torch.Tensor, delay: float, more: Sequence[float]) -> bool:
    """Whether an interruption ended one of many forwards; after so many seconds the next ones of a burst follow."""
    burst = list(more)

    def interrupt(_: int, frame: FrameType | None) -> None:
        if burst:
            signal.setitimer(signal.ITIMER_REAL, burst.pop())
        while frame is not None and frame.f_code is not picture.__code__:
            frame = frame.f_back
        if frame is not None:
            raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, delay)
    try:
        for _ in range(100):
            picture(model, x)
    except KeyboardInterrupt:
        while burst or signal.getitimer(signal.ITIMER_REAL)[0]:
            time.sleep(1e-3)
        return True
    return False


@scenario
def an_interruption_ends_it() -> None:
    """Single ones, at any moment, and bursts within a millisecond."""
    moments = random.Random(0)
    model, x = network(), torch.rand(1, 3, 120, 120)
    for attempt in range(60):
        burst = [moments.choice((1e-6, 1e-5, 1e-4, 1e-3)) for _ in range(attempt % 6)]
        assert interrupted_picture(model, x, moments.uniform(1e-4, 0.03), burst)
        assert not torch.is_inference_mode_enabled()
        assert_untouched()
    check(model, torch.rand(SIZE))


@scenario
def an_exception_from_outside() -> None:
    """As libraries for time-outs throw it, at any thread that is the caller's."""
    model, x, moments = network(), torch.rand(SIZE), random.Random(0)
    caller, thrown = threading.get_ident(), 0
    for _ in range(30):
        delay = moments.uniform(1e-4, 0.03)

        def throw(delay: float = delay) -> None:
            time.sleep(delay)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(caller), ctypes.py_object(TimeoutError))

        try:
            thread = threading.Thread(target=throw)
            thread.start()
            for _ in range(100):
                picture(model, x)
        except TimeoutError:
            thrown += 1
        thread.join()
        assert_untouched()
    assert thrown > 20, "in some Pythons a thread that just starts may get it in the caller's place"
    check(model, x)


@scenario
def an_exception_from_outside_at_every_thread() -> None:
    """At the helpers as well, which end, and so does the forward."""
    model, x, stop = network(), torch.rand(SIZE), threading.Event()
    own = {threading.get_ident()}

    def throw() -> None:
        own.add(threading.get_ident())
        while not stop.wait(0.002):
            for ident in set(sys._current_frames()) - own:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(TimeoutError))

    thread = threading.Thread(target=throw)
    thread.start()
    expected = plain_output(x, WEIGHTS, **CONFIG)
    for _ in range(40):
        torch.testing.assert_close(picture(model, x), expected, rtol=0, atol=1e-5)
    stop.set()
    thread.join()
    assert_untouched()


LATE = """
import atexit, os, sys, torch
import applications
from networks import aether_core, engine

aether_core.aether.engine = engine.infer


class Late:
    def __init__(self):
        self.model, self.x = applications.network(), torch.rand(applications.SIZE)
        self.inference, self.write = torch.inference_mode, os.write

    def __del__(self):
        with self.inference():
            self.model(self.x)
        self.write(1, b"deleted ")


applications.computed(applications.network(), torch.rand(applications.SIZE))
atexit.register(applications.check, applications.network(), torch.rand(applications.SIZE))
atexit.register(os.write, 1, b"exiting ")
sys.modules["late"] = Late()
"""


@scenario
def a_forward_at_the_end_of_the_program() -> None:
    """By ``atexit``, and when the last modules go, when threads start and never run."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", LATE], env=environment, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (0, "exiting deleted ", "")


@scenario
def a_fork_during_a_forward() -> None:
    model, x, stop = network(), torch.rand(SIZE), threading.Event()
    torch.set_num_threads(2)

    def forwards() -> None:
        while not stop.is_set():
            picture(model, x)

    thread = threading.Thread(target=forwards)
    thread.start()
    try:
        for _ in range(5):
            time.sleep(0.02)
            if os.fork() == 0:
                torch.set_num_threads(1)  # with OpenMP's threads a fork never goes well
                check(network(), torch.rand(SIZE))
                os._exit(0)
            assert os.wait()[1] == 0
    finally:
        stop.set()
        thread.join()
    assert_untouched()


@scenario
def a_pool_of_processes() -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(check_one, range(4))


def check_one(_: int) -> None:
    torch.set_num_threads(1)
    check(network(), torch.rand(SIZE))


@scenario
def under_gevent() -> None:
    import gevent
    from gevent import monkey

    monkey.patch_all()
    check_green(gevent.spawn, lambda green: gevent.joinall(green, raise_error=True), gevent.sleep)


@scenario
def under_gevent_patched_late() -> None:
    check(network(), torch.rand(SIZE))
    under_gevent()


@scenario
def under_eventlet() -> None:
    import eventlet

    eventlet.monkey_patch()
    check_green(eventlet.spawn, lambda green: [each.wait() for each in green], eventlet.sleep)


def check_green(
    spawn: Callable[..., Any], join: Callable[[list[Any]], object], sleep: Callable[[float], object]
) -> None:
    """Modes belong to the thread: one that yields in a forward would leave inference on for the others in it."""
    seen: set[tuple[bool, bool]] = set()
    ended: list[bool] = []

    def look() -> None:
        while not ended:
            seen.add((torch.is_inference_mode_enabled(), torch.is_grad_enabled()))
            sleep(0)

    def forwards() -> None:
        for _ in range(3):
            check(network(), torch.rand(SIZE))
            sleep(0)

    looking = spawn(look)
    join([spawn(forwards), spawn(forwards)])
    ended.append(True)
    join([looking])
    assert seen == {(False, True)}
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


@scenario
def under_accelerate() -> None:
    """Which gives layers their weights by hooks, as they are called."""
    import accelerate

    later = weights3_of(embed_dim=16, depths=(1, 1), scale=2)
    x = torch.rand(1, 3, 40, 41)
    for build in (network, lambda: LATER.build(later)):
        expected = build()(x).detach()
        for dispatch in (
            lambda model: accelerate.cpu_offload(model, execution_device=torch.device("cpu")),
            lambda model: accelerate.dispatch_model(model, {"": "cpu"}, force_hooks=True),
        ):
            y = picture(dispatch(build()), x)
            torch.testing.assert_close(y, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@scenario
def quantised_by_torch() -> None:
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    x = torch.rand(1, 3, 40, 41)
    expected = network()(x).detach()
    dynamic = torch.ao.quantization.quantize_dynamic(network(), {torch.nn.Linear})
    assert sum(isinstance(each, torch.ao.nn.quantized.dynamic.Linear) for each in dynamic.modules()) == 9, (
        "three in each of three blocks"
    )
    static = prepare_fx(network(), get_default_qconfig_mapping(), (x,))
    static(x)  # which calibrates it, on one image
    for model in (dynamic, convert_fx(static)):
        assert (picture(model, x) - expected).square().mean() < 0.05 * expected.var()


@scenario
def pruned_and_trained() -> None:
    from torch.nn.utils import parametrizations, prune

    for change in (
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
        parametrizations.weight_norm,
        lambda layer: parametrizations.spectral_norm(layer),
    ):
        model = network().train()
        convolution = model.layers[0][0].conv.lk_conv
        change(convolution)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        weights = []
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.rand(1, 3, 12, 12)).square().mean().backward()
            optimizer.step()
            weights.append(convolution.weight.detach().clone())
        assert not torch.equal(weights[0], weights[-1])
        x = torch.rand(1, 3, 40, 41)
        torch.testing.assert_close(picture(model.eval(), x), model(x).detach(), rtol=1e-5, atol=1e-5)


@scenario
def memory_goes_back_to_the_system() -> None:
    """What a host frees after a forward does, as it did before one."""

    def resident() -> int:
        with open("/proc/self/statm") as numbers:
            return int(numbers.read().split()[1]) * resource.getpagesize()

    model, x = network(), torch.rand(SIZE)
    for _ in range(3):
        computed(model, x)
    before = resident()
    buffers = [torch.ones(2**22) for _ in range(30)]  # 16 megabytes each, of which one in two stays for a while
    del buffers[::2]
    kept = resident() - before
    buffers.clear()
    assert kept < 300 * 2**20
    assert resident() - before < 60 * 2**20


@scenario
def a_layer_in_training() -> None:
    """Monte Carlo dropout: one layer in training in a network in evaluation."""
    model = aether_core.aether(**CONFIG, drop_rate=0.5).eval()
    x = torch.rand(SIZE)
    assert torch.equal(picture(model, x), picture(model, x))
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.train()
    assert not torch.equal(picture(model, x), picture(model, x))


@scenario
def the_same_bits_where_they_are_asked_for() -> None:
    """Beside a Python loop, too, which decides about the engine."""
    torch.use_deterministic_algorithms(True)
    model, x, ended = network(), torch.rand(SIZE), []
    alone = picture(model, x)

    def loop() -> None:
        turns = 0
        while not ended:
            turns += 1

    thread = threading.Thread(target=loop)
    thread.start()
    beside = [picture(model, x) for _ in range(5)]
    ended.append(True)
    thread.join()
    assert all(torch.equal(alone, each) for each in beside)


@scenario
def beside_a_python_loop() -> None:
    """The network computes; as soon as the loop ends, the engine does again."""
    model, x, ended = network(), torch.rand(SIZE), []

    def loop() -> None:
        turns = 0
        while not ended:
            turns += 1

    computed(model, x)
    thread = threading.Thread(target=loop)
    thread.start()
    try:
        with torch.inference_mode():
            assert any(engine.infer(model, x) is None for _ in range(5))
        check(model, x)
    finally:
        ended.append(True)
        thread.join()
    computed(model, x)


def outcome(scenario: Callable[[], object]) -> str:
    """``done``, or how it failed."""
    with tempfile.TemporaryFile("w+") as said:
        child = os.fork()
        if child == 0:
            os.dup2(said.fileno(), 2)
            faulthandler.dump_traceback_later(PATIENCE, exit=True)
            try:
                torch.manual_seed(0)
                scenario()
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        said.seek(0)
        return "done" if status == 0 else f"status {status}: {said.read()}"


if __name__ == "__main__":
    torch.testing.assert_close(torch.zeros(1), torch.zeros(1))  # once for all, this imports what it takes a second for
    aether_core.aether.engine = aether3_core.aether3.engine = engine.infer
    print(json.dumps({name: outcome(SCENARIOS[name]) for name in sys.argv[1:] or SCENARIOS}))
