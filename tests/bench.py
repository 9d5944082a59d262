"""
Measures what the project promises of speed and size, as ratios within one run on one machine, and prints one table.

The network is compared with the plain implementation beside this file, ONNX Runtime and OpenVINO, the commands with
what they cannot do without. Runs of the two sides alternate and medians count; a limit counts as met with a tenth of
margin. Names of groups as arguments choose among them.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from built import one_file
from environments import copy_spandrel, script, taught_spandrel
from machines import machine_with_fourteen_hosts
from networks import JUNE, LATER, aether3_core, aether_core, engine, sizes
from plain import PlainAether
from plain3 import PlainAether3
from rich import box
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file
from weights import weights_of
from weights3 import weights3_of

aether_core.aether.engine = aether3_core.aether3.engine = engine.infer  # as in spandrel

BARE = [sys.executable, "-c", "import click, rich.console"]

LOAD_AND_SAVE = """
import sys, torch
from safetensors.torch import load_file, save_file
source, target = sys.argv[1:]
weights = load_file(source) if source.endswith("safetensors") else torch.load(source)["params"]
save_file(weights, target) if target.endswith("safetensors") else torch.save(weights, target)
"""

PEAK = """
import resource, sys, torch
sys.path.insert(0, sys.argv[2])
from bench import models
model = models({"embed_dim": 96, "depths": (4,) * 4, "upscale": 4}, fused=True)[sys.argv[1] == "ours"]
x = torch.rand(1, 3, 384, 384)
with torch.inference_mode():
    model(x[..., :16, :16])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model(x)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""

FIRST = """
import sys, time, torch
sys.path.insert(0, sys.argv[2])
from bench import models
model = models({"embed_dim": 128, "depths": (6,) * 6, "upscale": 2}, fused=True)[sys.argv[1] == "ours"]
x = torch.rand(1, 3, 128, 128)
with torch.inference_mode():
    start = time.perf_counter()
    model(x)
print(time.perf_counter() - start)
"""

LAUNCH = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
output = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True, check=True).stdout
seconds = time.perf_counter() - start
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3, output]))
"""


@dataclass(frozen=True)
class Row:
    """
    One line of the table.

    Attributes:
        at_least: whether the limit is a speed-up to reach and not a cost to stay under.
        limit: None where nothing is promised.
    """

    what: str
    ours: float
    plain: float
    unit: str
    limit: float | None
    at_least: bool = False

    @property
    def ratio(self) -> float:
        return self.plain / self.ours if self.at_least else self.ours / self.plain

    @property
    def met(self) -> bool:
        if self.limit is None:
            return True
        return self.ratio >= 1.1 * self.limit if self.at_least else self.ratio <= 0.9 * self.limit


def alternate(runs: int, ours: Callable[[], float], plain: Callable[[], float]) -> list[tuple[float, float]]:
    """What the two sides return, for each turn of both."""
    return [(ours(), plain()) for _ in range(runs)]


def middle(turns: list[tuple[float, float]]) -> tuple[float, float]:
    """
    The turn whose ratio is the median.

    Where the machine is slower for a while, both sides of a turn are; medians of each side alone may be of such a while
    and of another.
    """
    return sorted(turns, key=lambda turn: turn[0] / turn[1])[len(turns) // 2]


def seconds(work: Callable[[], object]) -> Callable[[], float]:
    """A function that does some work and returns how long it took."""

    def timed() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return timed


def process(command: list[str]) -> tuple[float, float, str]:
    """
    Wall-clock seconds, peak megabytes and output of a process.

    A small process starts it, since Linux has the peak of a new one begin at that of the one it was started by.
    """
    launched = subprocess.run([sys.executable, "-c", LAUNCH, *command], capture_output=True, text=True, check=False)
    assert launched.returncode == 0, (command, launched.stderr)
    taken, peak, output = json.loads(launched.stdout)
    return taken, peak, output


def command_rows(folder: Path) -> Iterator[Row]:
    site_packages = folder / "site-packages"
    copy_spandrel(site_packages)
    ours = str(script("aether-install"))
    pyz = [sys.executable, str(one_file())]
    target = ["--target", str(site_packages)]

    def install() -> float:
        taken, *_ = process([ours, "spandrel", *target])
        process([ours, "uninstall", *target])
        return taken

    measured: dict[str, tuple[Callable[[], float], float]] = {
        "aether-install --help": (lambda: process([ours, "--help"])[0], 2.5),
        "aether-install status --target": (
            lambda: process([sys.executable, ours, "status", *target, "--json"])[0],
            2.5,
        ),
        "aether-install.pyz --help": (lambda: process([*pyz, "--help"])[0], 4),
        "aether-install.pyz status --target": (lambda: process([*pyz, "status", *target, "--json"])[0], 5),
        "aether-install spandrel --target": (install, 4),
    }
    process([ours, "spandrel", *target])  # status exits with 0 only where it is installed
    for what, (run, limit) in measured.items():
        if run is install:
            process([ours, "uninstall", *target])
        times = middle(alternate(15, run, lambda: process(BARE)[0]))
        yield Row(what, *times, "s", limit)


def hosts_rows(folder: Path) -> Iterator[Row]:
    """Fourteen hosts in a home with thousands of other folders; the limit is in seconds."""
    machine = machine_with_fourteen_hosts(folder / "machine")
    for number in range(3000):
        (machine.home / f"folder {number // 60}" / f"{number}" / "another").mkdir(parents=True)
    command = [
        "env",
        *(f"{name}={value}" for name, value in machine.environment.items()),
        str(script("aether-install")),
    ]
    taken = statistics.median(process([*command, "hosts"])[0] for _ in range(9))
    yield Row("aether-install hosts, with 14 hosts, against a second", taken, 1.0, "s", 2)


def fuse_rows(folder: Path) -> Iterator[Row]:
    large = aether_core.aether_large(upscale=4).state_dict()
    torch.save({"params": large}, folder / "large.pth")
    save_file(large, folder / "large.safetensors")
    for suffix in ("pth", "safetensors"):
        source, target = str(folder / f"large.{suffix}"), folder / f"out.{suffix}"
        paths = ["--model_path", source, "--output_path", str(target)]
        plain = [sys.executable, "-c", LOAD_AND_SAVE, source, str(target)]
        verified = [str(script("aether-install")), "fuse", *paths]

        def beside_plain(
            command: list[str], target: Path = target, plain: list[str] = plain
        ) -> list[tuple[float, ...]]:
            """Seconds, and the peak in MB, of a command and of what it cannot do without."""

            def run(one: list[str]) -> tuple[float, float]:
                target.unlink(missing_ok=True)
                return process(one)[:2]

            runs = [(*run(command), *run(plain)) for _ in range(8)][1:]
            return list(zip(*runs, strict=True))

        times, _, plain_times, _ = map(statistics.median, beside_plain(verified))
        yield Row(f"fuse with verification, large .{suffix}", times, plain_times, "s", 2)
        times, peak, plain_times, plain_peak = map(statistics.median, beside_plain([*verified, "--no-verify"]))
        yield Row(f"fuse --no-verify, large .{suffix}", times, plain_times, "s", 1.3)
        extra, size = max(0.0, peak - plain_peak), Path(source).stat().st_size / 1e6
        yield Row("  memory beyond load and save, over file size", extra, size, "MB", 1)


def loading_rows(folder: Path) -> Iterator[Row]:
    import spandrel

    path = folder / "large.pth"
    torch.save({"params": aether_core.aether_large(upscale=4).state_dict()}, path)
    loader = spandrel.ModelLoader()
    times = middle(alternate(45, seconds(lambda: loader.load_from_file(path)), seconds(lambda: torch.load(path))))
    yield Row("spandrel loads aether_large, against torch.load", *times, "s", 2)


def detection_rows() -> Iterator[Row]:
    """What spandrel asks each of our classes about every model of another architecture."""
    import spandrel

    supports = spandrel.MAIN_REGISTRY.architectures("detection")
    ours = [each for each in supports if str(each.architecture.id).startswith("AetherNet")]
    others = {f"model.layers.{index}.mlp.weight": torch.zeros(0) for index in range(5000)}
    taken = min(seconds(lambda: [each.detect(others) for each in ours])() for _ in range(50))
    yield Row("our classes turn down 5,000 keys, against a thousandth of a second", taken, 1e-3, "s", 10)


def models(config: dict[str, object], fused: bool) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The plain network and ours, of the same weights."""
    weights = weights_of(**config)
    weights = JUNE.fuse(weights) if fused else weights
    plain = PlainAether(**config, fused_init=fused)
    plain.load_state_dict(weights)
    return plain.eval(), JUNE.build(weights)


def later_models(config: dict[str, object], fused: bool) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The same of the later generation."""
    weights = weights3_of(**config)
    weights = LATER.fuse(weights) if fused else weights
    plain = PlainAether3(**config, fused_init=fused)
    plain.load_state_dict(weights)
    return plain.eval(), LATER.build(weights)


ON_ONE_CORE, PYTHON_LOOP = "on one core", "beside a Python loop in the process"


def spin() -> None:
    while True:
        pass


@contextlib.contextmanager
def busy(programs: int) -> Iterator[None]:
    """Keeps so many cores busy."""
    with contextlib.ExitStack() as running:
        for _ in range(programs):
            program = running.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            running.callback(program.kill)
        yield


@dataclass(frozen=True)
class Forward:
    """One case of a forward of the medium variant, 2x, of a square image."""

    device: str
    dtype: torch.dtype
    fused: bool
    side: int
    limit: float | None = None
    later: bool = False
    condition: str = ""

    def __str__(self) -> str:
        variant = f"{'3.1 ' * self.later}medium 2x {'fused' if self.fused else 'unfused'}"
        where = f", {self.condition}" if self.condition else ""
        return f"forward on {self.device}, {variant}, {str(self.dtype)[6:]}, {self.side}x{self.side}{where}"

    @functools.cache  # noqa: B019 - in a process that measures nothing else
    def network(self, ours: bool) -> Callable[[], torch.Tensor]:
        """Returns what runs one of the two."""
        if self.later:
            pair = later_models({**sizes.LATER_SIZES["medium"], "scale": 2}, self.fused)
        else:
            pair = models({**sizes.JUNE_SIZES["medium"], "upscale": 2}, self.fused)
        model = pair[ours].to(self.device, self.dtype)
        if self.condition == ON_ONE_CORE:
            os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])
        elif self.condition == PYTHON_LOOP:
            threading.Thread(target=spin, daemon=True).start()
        x = torch.rand(1, 3, self.side, self.side, generator=torch.Generator().manual_seed(0))
        x = x.to(self.device, self.dtype)

        def run() -> torch.Tensor:
            with torch.inference_mode():
                y = model(x)
            if self.device == "cuda":
                torch.cuda.synchronize()
            return y

        return run

    def output(self, ours: bool) -> np.ndarray:
        return self.network(ours)().float().cpu().numpy()

    def seconds(self, ours: bool) -> float:
        run = self.network(ours)
        run()
        return seconds(run)()


def forward_rows(device: str) -> Iterator[Row]:
    on_cpu = device == "cpu"
    cases = [
        Forward(device, torch.float32, True, 128, 1.5 if on_cpu else None),
        Forward(device, torch.float32, False, 128, 1.0 if on_cpu else None),
        Forward(device, torch.bfloat16, True, 128, 1.0),
        Forward(device, torch.bfloat16, False, 128),
        Forward(device, torch.float16, True, 24 if on_cpu else 128),
        Forward(device, torch.float32, True, 32),
        Forward(device, torch.float32, True, 128, 1.3 if on_cpu else None, later=True),
    ]
    for case in cases:
        with in_two_processes(case) as (run, difference):
            assert difference < (1e-4 if case.dtype == torch.float32 else 1.0), difference
            times = middle(alternate(7, lambda run=run: run(True), lambda run=run: run(False)))
        yield Row(str(case), *times, "s", case.limit, at_least=True)


def condition_rows() -> Iterator[Row]:
    """Nowhere slower than the plain network, but for what cannot be told from noise."""
    cases = [
        (Forward("cpu", torch.float32, True, 128), 1),
        (Forward("cpu", torch.float32, True, 128), 2),
        (Forward("cpu", torch.float32, True, 32), 1),
        (Forward("cpu", torch.float32, True, 128, condition=ON_ONE_CORE), 0),
        (Forward("cpu", torch.float32, True, 64, condition=PYTHON_LOOP), 0),
        (Forward("cpu", torch.float32, True, 64, condition=PYTHON_LOOP, later=True), 0),
        (Forward("cpu", torch.bfloat16, True, 128), 1),
        (Forward("cpu", torch.float16, True, 64), 1),
        (Forward("cpu", torch.float32, True, 128, later=True), 1),
    ]
    for case, programs in cases:
        with in_two_processes(case) as (run, _), busy(programs):
            times = middle(alternate(5, lambda run=run: run(True), lambda run=run: run(False)))
        beside = f", beside {programs} busy program{'s' * (programs > 1)}" if programs else ""
        yield Row(f"{case}{beside}", *times, "s", 0.9 / 1.1, at_least=True)


def first_rows() -> Iterator[Row]:
    def run(which: str) -> float:
        return float(process([sys.executable, "-c", FIRST, which, str(Path(__file__).parent)])[2])

    times = middle(alternate(5, lambda: run("ours"), lambda: run("plain")))
    yield Row("first forward of a process, medium 2x fused, float32, 128x128", *times, "s", 1.0, at_least=True)


@dataclass(frozen=True)
class Exported:
    """
    The weights of a model, ``PATH.pth``, and the same for another library, ``PATH.onnx``, with square images.

    Attributes:
        forwards: of how many in a row the quickest counts. A short one takes long after the other side's, which has
            had the caches, and applications restore one tile after the other.
        library: ``ONNX Runtime`` or ``OpenVINO``.
    """

    path: str
    side: int
    threads: int
    forwards: int
    library: str

    @functools.cache  # noqa: B019 - in a process that measures nothing else
    def network(self, ours: bool) -> Callable[[], np.ndarray]:
        """Returns what runs one of the two."""
        x = np.random.default_rng(0).random((1, 3, self.side, self.side), dtype="float32")
        if not ours and self.library == "OpenVINO":
            import openvino

            settings = {"INFERENCE_NUM_THREADS": self.threads, "INFERENCE_PRECISION_HINT": "f32"}
            compiled = openvino.Core().compile_model(f"{self.path}.onnx", "CPU", settings)
            return lambda: compiled([x])[0]
        if not ours:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self.threads
            session = onnxruntime.InferenceSession(f"{self.path}.onnx", options, providers=["CPUExecutionProvider"])
            return lambda: session.run(None, {session.get_inputs()[0].name: x})[0]
        torch.set_num_threads(self.threads)
        model = JUNE.build(torch.load(f"{self.path}.pth"))

        def run() -> np.ndarray:
            with torch.inference_mode():
                return model(torch.from_numpy(x)).numpy()

        return run

    def output(self, ours: bool) -> np.ndarray:
        return self.network(ours)()

    def seconds(self, ours: bool) -> float:
        time.sleep(0.2)  # ONNX Runtime's threads are busy waiting for the next forward for a tenth of a second
        return min(seconds(self.network(ours))() for _ in range(self.forwards))


@contextlib.contextmanager
def in_two_processes(case: Forward | Exported) -> Iterator[tuple[Callable[[bool], float], float]]:
    """
    Yields what runs one of the two sides, and by how much their outputs differ.

    Each is in a new process of its own, since what one has left to the memory allocator speeds up the other.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as plain, ProcessPoolExecutor(1, mp_context=spawn) as ours:
        sides = plain, ours
        expected, actual = (sides[side].submit(case.output, side).result() for side in (False, True))
        difference = np.abs(actual - expected).max() / max(1, np.abs(expected).max())
        yield lambda side: sides[side].submit(case.seconds, side).result(), float(difference)


def peer_rows(folder: Path) -> Iterator[Row]:
    """Against ONNX Runtime and OpenVINO with the same model, for images of one size, and as many threads."""
    runtime, openvino = "ONNX Runtime", "OpenVINO"
    cases = [
        ("small", 2, True, 192, 1, {runtime: (1.15, 1.2), openvino: (1.05, 1.1)}),
        ("medium", 2, True, 128, 1, {runtime: (1.15, 1.2), openvino: (1.05, 1.1)}),
        ("medium", 2, False, 128, 1, {runtime: (1.15, 1.2)}),
        ("small", 4, True, 256, 1, {runtime: (1.15, 1.2), openvino: (1.05, 1.1)}),
        ("small", 2, True, 96, 3, {runtime: (1.0, None)}),
        ("medium", 2, True, 96, 1, {runtime: (1.0, None)}),
        ("large", 2, True, 96, 1, {runtime: (1.0, None)}),
        ("medium", 2, True, 32, 15, {runtime: (0.7, None)}),
        ("medium", 2, False, 32, 15, {runtime: (0.7, None)}),
    ]
    for variant, upscale, fused, side, forwards, limits in cases:
        plain, _ = models({**sizes.JUNE_SIZES[variant], "upscale": upscale}, fused)
        path = str(folder / "model")
        torch.save(plain.state_dict(), f"{path}.pth")
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            image = torch.rand(1, 3, side, side)
            torch.onnx.export(plain, (image,), f"{path}.onnx", dynamo=True, external_data=False)
        for library, (limit, beside_busy) in limits.items():
            case = Exported(path, side, torch.get_num_threads(), forwards, library)

            def measured(pairs: int, runs: int, case: Exported = case) -> tuple[float, float]:
                """The turn in the middle of those of several pairs of processes, since these differ as well."""
                turns = []
                for _ in range(pairs):
                    with in_two_processes(case) as (run, difference):
                        assert difference < 1e-4, difference
                        turns += alternate(runs, lambda run=run: run(True), lambda run=run: run(False))
                return middle(turns)

            what = f"forward against {library}, {variant} {upscale}x {'fused' if fused else 'unfused'}, {side}x{side}"
            yield Row(what, *measured(pairs=5, runs=5), "s", limit, at_least=True)
            if beside_busy is not None:
                with busy(1):
                    times = measured(pairs=3, runs=3)
                yield Row("  beside a process that keeps a core busy", *times, "s", beside_busy, at_least=True)


def processor() -> str:
    """The processor's name, where the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def memory_rows() -> Iterator[Row]:
    peaks = {}
    for which in ("ours", "plain"):
        _, _, peak = process([sys.executable, "-c", PEAK, which, str(Path(__file__).parent)])
        peaks[which] = int(peak) / 1e3
    yield Row("peak memory of forward, small 4x fused, float32, 384x384", peaks["ours"], peaks["plain"], "MB", 1)


def main() -> None:
    sys.path.insert(0, str(taught_spandrel()))
    folder = Path(tempfile.mkdtemp(prefix="aether-bench-"))
    table = Table(box=box.ROUNDED, title=f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for column in ("what", "ours", "plain", "ratio", "limit", ""):
        table.add_column(column, justify="left" if column == "what" else "right")
    console = Console(width=None if sys.stdout.isatty() else 140)
    missed = 0
    try:
        with console.status("measuring; this takes three quarters of an hour") as status:
            devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
            groups: dict[str, Callable[[], Iterable[Row]]] = {
                "commands": lambda: command_rows(folder),
                "hosts": lambda: hosts_rows(folder),
                "fuse": lambda: fuse_rows(folder),
                "loading": lambda: loading_rows(folder),
                "detection": detection_rows,
                "memory": memory_rows,
                "first": first_rows,
                "forwards": lambda: chain.from_iterable(map(forward_rows, devices)),
                "conditions": condition_rows,
                "peers": lambda: peer_rows(folder),
            }
            for name in sys.argv[1:] or groups:
                for row in groups[name]():
                    missed += not row.met
                    status.update(f"measured {row.what.strip()}: {row.ratio:.2f}x")
                    limit = "" if row.limit is None else f"{'>=' if row.at_least else '<='} {row.limit:g}"
                    verdict = "" if row.limit is None else "[green]met" if row.met else "[red]not met"
                    form = "{:.3f} s" if row.unit == "s" else "{:.0f} MB"
                    ratio = f"{row.ratio:.2f}x"
                    table.add_row(row.what, form.format(row.ours), form.format(row.plain), ratio, limit, verdict)
    finally:
        shutil.rmtree(folder)
    console.print(table)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
