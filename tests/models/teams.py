"""
What a team of threads does in an application, scenario by scenario, in a process with two threads for PyTorch.

Prints what became of each, by its name: ``done``, or how it failed.
"""

from __future__ import annotations

import _thread
import gc
import json
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import CodeType, FrameType, ModuleType
from unittest.mock import patch
from weakref import ReferenceType, ref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from weights import plain_output, weights_of
from weights3 import core3, plain3_output, weights3_of

from aether_install.models.network import core

CONFIG = {"embed_dim": 20, "depths": (2, 1), "lk_kernel": 7, "upscale": 1, "num_feat": 8}
WEIGHTS = weights_of(**CONFIG)
THREADS = _thread._count()


def set_product_threads(threads: int) -> int:
    """Sets the number of threads that MKL uses for this thread, and returns the one before."""
    return core()._product_threads_setter()(threads)


def image(batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, 99, 101)


def check(model: torch.nn.Module, x: torch.Tensor) -> None:
    torch.testing.assert_close(model(x), plain_output(x, WEIGHTS, **CONFIG), rtol=0, atol=1e-5)


def in_a_new_thread(work: Callable[[], object]) -> object:
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(work).result()


def workers(run: Callable[[], object], times: int, place: object = None, name: str = "to_groups") -> int:
    """
    How many threads call a function while something runs: what each slice of pixels calls, if not named.

    That is until there are two, but no more than so many times: one of a team may be quick enough to do it all.
    """
    place = place or core()
    threads: set[int] = set()
    original = getattr(place, name)

    def watched(*arguments: object) -> object:
        threads.add(threading.get_ident())
        return original(*arguments)

    setattr(place, name, watched)
    try:
        for _ in range(times):
            if len(threads) < 2:
                run()
    finally:
        setattr(place, name, original)
    return len(threads)


def slices(model: torch.nn.Module, x: torch.Tensor, generation: ModuleType) -> int:
    """How many slices of pixels all blocks together work on in a forward."""
    with patch.object(generation, "to_groups", wraps=generation.to_groups) as watched:
        model(x)
    return watched.call_count


def assert_untouched() -> None:
    for _ in range(500):  # one that was interrupted while it was waited for may take another moment
        if _thread._count() == THREADS:
            break
        time.sleep(0.02)
    else:
        raise AssertionError(f"{_thread._count()} threads beside this one, and not {THREADS}")
    assert torch.get_num_threads() == 2
    assert set_product_threads(2) == 2
    assert not core()._at_work
    assert in_a_new_thread(torch.get_num_threads) == 2


def computes_the_same(model: torch.nn.Module) -> None:
    for batch in (1, 3):
        with torch.inference_mode():
            check(model, image(batch))
        with torch.no_grad():
            check(model.fuse_model(), image(batch))
    with torch.inference_mode():
        assert workers(lambda: model(image()), 100) == 2
        for height, width in ((1, 9001), (23, 401), (24, 401), (25, 401), (1501, 6)):
            check(model, torch.rand(1, 3, height, width))


def kernels_may_have_any_size(model: torch.nn.Module) -> None:
    x = image()
    blocks = list(model.fuse_model()._blocks())
    with torch.inference_mode():
        for sides in ((3, 3, 3), (11, 11, 11), (3, 7, 11), ()):
            for block, side in zip(blocks, sides, strict=False):  # no blocks at the end
                weight = torch.rand(model.hyperparameters["embed_dim"], 1, side, side) / side**2
                block.conv.fused_conv = convolution = type(block.conv.fused_conv)(
                    len(weight), len(weight), side, padding=side // 2, groups=len(weight)
                )
                convolution.weight = torch.nn.Parameter(weight)
            if not sides:
                model.layers = torch.nn.ModuleList()
            expected = model._restore(model._reconstruct(model._body(model._centre(x))))
            torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def who_is_ahead_waits(model: torch.nn.Module) -> None:
    chances = random.Random(0)
    steps, x = core()._Step, image()

    class Slowed(steps):
        def __init__(self, calls: Sequence[Callable[[], object]]) -> None:
            super().__init__([partial(self.make, call) for call in calls])

        def make(self, call: Callable[[], object]) -> None:
            if chances.random() < 0.05:
                time.sleep(0.02)
            call()
            if chances.random() < 0.05:
                time.sleep(0.02)

    with torch.inference_mode():
        expected = model(x)
        core()._Step = Slowed
        try:
            for _ in range(20):
                assert torch.equal(model(x), expected)
        finally:
            core()._Step = steps
    assert_untouched()


def the_later_generation_too(model: torch.nn.Module) -> None:
    for attentions in ({"use_spatial_attn": True}, {}, {"use_channel_attn": False}):
        config = {"embed_dim": 24, "depths": (1, 1), "lk_kernel": 7, "sk_kernel": 3, "scale": 2, **attentions}
        weights = weights3_of(**config)
        x = torch.rand(2, 3, 91, 97)
        expected = plain3_output(x, weights, **config)
        model = core3().build_aether3(weights)
        with torch.inference_mode():
            for _ in range(2):
                torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-5 * expected.abs().max().item())
                model.fuse_model()
    assert_untouched()


def strips_too(model: torch.nn.Module) -> None:
    config = {"embed_dim": 32, "depths": (1,), "lk_kernel": 7, "upscale": 4, "num_feat": 64}
    weights = weights_of(**config)
    model = core().build_aether(weights)
    with torch.inference_mode():
        for size in ((1, 3, 75, 128), (12, 3, 26, 28)):
            x = torch.rand(size)
            torch.testing.assert_close(model(x), plain_output(x, weights, **config), rtol=0, atol=1e-5)
            assert workers(partial(model, x), 100, type(model.conv_before_upsample), "forward") == 2
    assert_untouched()


def leaves_nothing_behind(model: torch.nn.Module) -> None:
    seen = set()
    stop = threading.Event()

    def others() -> None:  # which use PyTorch for the first time while a team is at work
        while not stop.is_set():
            seen.add(in_a_new_thread(torch.get_num_threads))

    observer = threading.Thread(target=others)
    observer.start()
    with torch.inference_mode():
        for _ in range(20):
            model(image())
    stop.set()
    observer.join()
    assert seen == {2}
    assert_untouched()


def an_error_reaches_the_caller(model: torch.nn.Module) -> None:
    layer = model.layers[1][0].ffn.fc2
    layer.weight = torch.nn.Parameter(layer.weight[:, 1:].clone())
    with torch.inference_mode():
        for _ in range(10):
            try:
                model(image())
            except RuntimeError:
                assert_untouched()
            else:
                raise AssertionError("no error")


def an_error_holds_on_to_nothing(model: torch.nn.Module) -> None:
    caller = threading.get_ident()
    failing = [lambda: threading.get_ident() != caller, lambda: threading.get_ident() == caller, lambda: True]
    original = core().to_groups

    def forward(fails: Callable[[], bool]) -> tuple[bool, ReferenceType[torch.Tensor]]:
        def to_groups(pixels: object, groups: int) -> torch.Tensor:
            if fails():
                time.sleep(0.005)  # so that others begin as well, and may fail too
                raise MemoryError
            return original(pixels, groups)

        core().to_groups = to_groups
        x = image()
        try:
            with torch.inference_mode():
                model(x)
        except MemoryError:
            return True, ref(x)
        finally:
            core().to_groups = original
        return False, ref(x)

    gc.disable()
    try:
        for fails in failing:
            outcomes = [forward(fails) for _ in range(50)]  # or one of a team may do it all
            assert any(failed for failed, _ in outcomes)
            assert not [image for _, image in outcomes if image() is not None]
            assert not [each for each in gc.get_objects() if type(each) in (core().Team, core().Part)]
    finally:
        gc.enable()
    assert_untouched()


def an_interruption_ends_it(model: torch.nn.Module) -> None:
    x = torch.rand(1, 3, 300, 300)
    interrupted = 0
    with torch.inference_mode():
        for attempt in range(10):
            signal.setitimer(signal.ITIMER_REAL, 0.01 * (attempt + 1))
            try:
                for _ in range(100):
                    model(x)
            except KeyboardInterrupt:
                interrupted += 1
                assert_untouched()
        check(model, image())
    assert interrupted == 10


def an_interruption_at_any_instruction_ends_it(model: torch.nn.Module) -> None:
    team = [core().Team, core()._OneThread, core()._Step]
    codes = {function.__code__ for part in team for function in vars(part).values() if hasattr(function, "__code__")}
    network = core().aether
    passed = (core()._take_part, network._infer, network._body_, network._reconstruct_, network._reconstruct_jointly)
    codes |= {part.__code__ for part in passed}
    model = core().build_aether(weights_of(**{**CONFIG, "depths": (1,), "upscale": 2, "num_feat": 64}))
    x = torch.rand(1, 3, 75, 128)

    def run(stop_at: tuple[CodeType, int] | None = None, times: int = 1) -> list[tuple[CodeType, int]]:
        """Returns the instructions that were run, up to the one before which the interruption came."""
        done: list[tuple[CodeType, int]] = []

        def trace(frame: FrameType, event: str, _: object) -> object:
            if frame.f_code not in codes:
                return None
            frame.f_trace_opcodes = True
            if event == "opcode":
                done.append((frame.f_code, frame.f_lasti))
                if done[-1] == stop_at and done.count(stop_at) == times:
                    raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            model(x)
        except KeyboardInterrupt:
            sys.settrace(None)
            assert_untouched()
        finally:
            sys.settrace(None)
        return done

    with torch.inference_mode():
        model(x)
        instructions = set(run())
        assert len(instructions) > 200
        interrupted = 0
        for instruction in instructions:
            interrupted += run(instruction)[-1] == instruction
            if instruction[0].co_name in ("__enter__", "__exit__"):  # the inner beginning, the outer end
                run(instruction, times=2)
        assert interrupted > 0.9 * len(instructions), "some are there only if the other thread is slow"
        check(core().build_aether(WEIGHTS), image())


def forwards_at_once(model: torch.nn.Module) -> None:
    def run(_: int) -> None:
        with torch.inference_mode():
            check(model, image())

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(run, range(12)))
    assert_untouched()


def without_threads(model: torch.nn.Module) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    start = _thread.start_new_thread
    for works_before in (True, False):
        core()._one_thread_works.cache_clear()
        if works_before:
            with torch.inference_mode():
                model(image())
        _thread.start_new_thread = refuse
        try:
            with torch.inference_mode():
                check(model, image())
        finally:
            _thread.start_new_thread = start
        assert_untouched()


def lookers_on_see_everything(model: torch.nn.Module) -> None:
    class Count(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.layers = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.layers += "layer_norm" in str(function)
            return function(*args, **(kwargs or {}))

    with torch.inference_mode():
        with Count() as count:
            model(image())
        assert count.layers == 4
        for looking_on in (torch.profiler.profile(), torch.autocast("cpu", torch.bfloat16), torch.device("cpu")):
            with looking_on:
                assert workers(lambda: model(image()), 5) == 1, looking_on


def few_operations_beside_a_python_loop(model: torch.nn.Module) -> None:
    later = {"embed_dim": 24, "depths": (1, 1), "lk_kernel": 7, "sk_kernel": 3, "scale": 2}
    networks = [(model, core()), (core3().build_aether3(weights3_of(**later)), core3())]
    ended: list[bool] = []

    def loop() -> None:
        turns = 0
        while not ended:
            turns += 1

    for network, generation in networks:
        ended.clear()
        x, blocks = image(), sum(network.hyperparameters["depths"])
        small = x[..., :33, :31]
        with torch.inference_mode(), ThreadPoolExecutor(2) as threads:
            threads.submit(time.sleep, 0).result()  # a thread that has nothing to do counts for nothing
            expected, expected_small = network(x), network(small)
            usual = slices(network, x, generation)
            assert usual > 2 * blocks
            assert slices(network, small, generation) == blocks
            threads.submit(loop)
            try:
                assert any(slices(network, x, generation) == blocks for _ in range(5))
                torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-5)
                assert any(slices(network, small, generation) == 0 for _ in range(5))
                torch.testing.assert_close(network(small), expected_small, rtol=0, atol=1e-5)
            finally:
                ended.append(True)
        with torch.inference_mode():
            assert slices(network, x, generation) == usual
    assert_untouched()


def other_forwards_are_no_python_loop(model: torch.nn.Module) -> None:
    x, channels = image(), CONFIG["embed_dim"]
    inside, leave = threading.Event(), threading.Event()

    def forward() -> None:
        with core().Team(x, channels) as team, team:
            inside.set()
            leave.wait()

    with (
        patch.object(core(), "_seconds_asleep", return_value=1.0),  # as beside a loop, every time
        torch.inference_mode(),
        ThreadPoolExecutor(1) as threads,
    ):
        assert not core().Team(x, channels).coarse, "there is no other thread"
        threads.submit(time.sleep, 0).result()
        for _ in range(2):
            assert slices(model, x, core()) == sum(CONFIG["depths"])
            computing = threads.submit(forward)
            assert inside.wait(60)
            try:
                assert slices(model, x, core()) > 2 * sum(CONFIG["depths"])
            finally:
                leave.set()
            computing.result()
            inside.clear()
            leave.clear()
    assert_untouched()


SCENARIOS = [
    computes_the_same,
    kernels_may_have_any_size,
    who_is_ahead_waits,
    the_later_generation_too,
    strips_too,
    leaves_nothing_behind,
    an_error_reaches_the_caller,
    an_error_holds_on_to_nothing,
    an_interruption_ends_it,
    an_interruption_at_any_instruction_ends_it,
    forwards_at_once,
    without_threads,
    lookers_on_see_everything,
    few_operations_beside_a_python_loop,
    other_forwards_are_no_python_loop,
]


def main() -> None:
    torch.manual_seed(0)
    set_product_threads(2)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    answers = {}
    for scenario in SCENARIOS:
        core()._one_thread_works.cache_clear()
        try:
            scenario(core().build_aether(WEIGHTS))
            answers[scenario.__name__] = "done"
        except BaseException:
            answers[scenario.__name__] = traceback.format_exc()
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
