"""The network computes what the published one does."""

from __future__ import annotations

import copy
import functools
import gc
import json
import os
import pickle
import platform
import queue
import subprocess
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch.autograd import forward_ad
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle
from weights import GOLDEN_NAMES, golden, plain_output, weights_of
from weights3 import core3, weights3_of

from aether_install.models.network import core

CONFIGS = {
    "rgb": {"embed_dim": 12, "depths": (1, 2), "upscale": 2},
    "gray": {"in_chans": 1, "embed_dim": 8, "depths": (1,), "upscale": 4},
    "rgba": {"in_chans": 4, "embed_dim": 10, "depths": (2,), "upscale": 3},
    "gray to rgb": {"in_chans": 1, "out_chans": 3, "embed_dim": 8, "depths": (1,), "upscale": 2},
    "rgb to gray": {"in_chans": 3, "out_chans": 1, "embed_dim": 8, "depths": (1,), "upscale": 2},
    "same size": {"embed_dim": 8, "depths": (1, 1), "upscale": 1},
    "8x": {"embed_dim": 8, "depths": (1,), "upscale": 8},
    "odd ratio": {"embed_dim": 28, "depths": (1,), "mlp_ratio": 3.3, "upscale": 2},
    "equal kernels": {"embed_dim": 8, "depths": (1,), "lk_kernel": 5, "sk_kernel": 5, "upscale": 2},
    "tiny kernels": {"embed_dim": 8, "depths": (1,), "lk_kernel": 1, "sk_kernel": 1, "upscale": 2},
    "narrow upsampler": {"embed_dim": 8, "depths": (1,), "num_feat": 24, "upscale": 4},
    "img_range": {"embed_dim": 8, "depths": (1,), "upscale": 2, "img_range": 255.0},
    "one channel wide": {"embed_dim": 1, "depths": (1,), "mlp_ratio": 4.0, "upscale": 2},
}


@pytest.mark.parametrize("name", GOLDEN_NAMES)
@pytest.mark.parametrize("inference", [True, False], ids=["inference", "with gradients"])
def test_agrees_with_the_published_network(name: str, inference: bool) -> None:
    case = golden(name)
    for weights in (case.unfused, core().fuse_state_dict(case.unfused)):
        with torch.inference_mode(inference):
            y = core().build_aether(weights)(case.x)
        torch.testing.assert_close(y, case.y, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_fuses_to_the_published_bits(name: str) -> None:
    case = golden(name)
    fused = core().fuse_state_dict(case.unfused)
    model = core().build_aether(case.unfused).fuse_model()
    assert list(fused) == case.fused_keys == list(model.state_dict())
    for key, crc in case.fused_crc32.items():
        assert zlib.crc32(fused[key].numpy().tobytes()) == crc
        assert torch.equal(model.state_dict()[key], fused[key])


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (13, 2), (9, 10), (48, 47), (1, 2049), (1030, 2)], ids=str)
def test_agrees_with_the_plain_implementation(config: dict[str, object], size: tuple[int, int]) -> None:
    weights = weights_of(**config)
    x = torch.rand(2, config.get("in_chans", 3), *size)
    expected = plain_output(x, weights, **config)
    model = core().build_aether(weights, img_range=config.get("img_range", 1.0))
    tolerance = 1e-5 if config["embed_dim"] > 1 else 1e-4  # all that is left of one channel's norm is rounding errors
    for _ in range(2):
        with torch.inference_mode():
            torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=tolerance)
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=tolerance)
        model.fuse_model()


@pytest.mark.parametrize("embed_dim", [48, 34, 20, 16], ids="{} channels".format)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_groups_and_slices_of_large_images_join_without_a_seam(embed_dim: int, dtype: torch.dtype) -> None:
    """So large that it is worked on in slices, and 48, 20 and 16 channels in groups of 16, 10 and 16."""
    config = {"embed_dim": embed_dim, "depths": (1, 1), "upscale": 1, "lk_kernel": 7, "num_feat": 8}
    weights = weights_of(**config)
    x = torch.rand(2, 3, 81, 99)
    expected = plain_output(x, weights, **config)
    model = core().build_aether(weights, dtype=dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    with torch.inference_mode():
        for _ in range(2):
            torch.testing.assert_close(model(x.to(dtype)).float(), expected, rtol=0, atol=tolerance)
            model.fuse_model()


@pytest.mark.parametrize(("upscale", "out_chans"), [(1, 3), (2, 3), (2, 30), (3, 3), (4, 3), (4, 30), (8, 3)])
def test_strips_of_a_large_image_join_without_a_seam(upscale: int, out_chans: int) -> None:
    config = {"embed_dim": 16, "depths": (1,), "upscale": upscale, "num_feat": 32, "out_chans": out_chans}
    weights = weights_of(**config)
    x = torch.rand(1, 3, 72, 2**16 // max(32, 3 * upscale**2))
    with torch.inference_mode():
        y = core().build_aether(weights)(x)
    torch.testing.assert_close(y, plain_output(x, weights, **config), rtol=0, atol=1e-5)


@pytest.mark.parametrize("way", ["inner products", "matrix products"])
@pytest.mark.parametrize("size", [(1, 1), (9, 10), (90, 95)], ids=str)
def test_computes_the_same_in_the_way_that_is_faster_elsewhere(
    monkeypatch: pytest.MonkeyPatch, way: str, size: tuple[int, int]
) -> None:
    config = {"embed_dim": 24, "depths": (2,), "mlp_ratio": 1.3, "upscale": 2}
    weights = weights_of(**config)
    x = torch.rand(2, 3, *size)
    monkeypatch.setattr(core(), "_inner_product_saves", lambda *_: 1.0 if way == "inner products" else -1.0)
    with torch.inference_mode():
        y = core().build_aether(weights)(x)
    torch.testing.assert_close(y, plain_output(x, weights, **config), rtol=0, atol=1e-5)


def test_does_without_what_an_old_torch_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("Fusion behavior undefined.")

    core()._inner_product_saves.cache_clear()
    monkeypatch.setattr(core(), "_inner_product", refuse)
    weights = weights_of(**SMALL)
    x = torch.rand(1, 3, 20, 30)
    try:
        with torch.inference_mode():
            y = core().build_aether(weights)(x)
    finally:
        core()._inner_product_saves.cache_clear()
    torch.testing.assert_close(y, plain_output(x, weights, **SMALL), rtol=0, atol=1e-5)


@pytest.mark.parametrize("part", ["ffn.fc1_gate", "ffn.fc2", "conv.fused_conv", "ffn", "conv", "norm", ""])
def test_an_application_may_wrap_a_part_of_a_block(part: str) -> None:
    check_wrapped(f"layers.0.1.{part}".rstrip("."))


@pytest.mark.parametrize("name", ["norm", "conv_before_upsample.0", "upsample.0", "conv_last"])
def test_an_application_may_wrap_what_comes_after_them(name: str) -> None:
    check_wrapped(name)


def check_wrapped(name: str) -> None:
    config = {"embed_dim": 24, "depths": (2,), "upscale": 2}
    weights = weights_of(**config)
    x = torch.rand(1, 3, 20, 30)
    model = core().build_aether(weights).fuse_model()
    outside, _, inside = name.rpartition(".")
    setattr(model.get_submodule(outside), inside, torch.nn.Sequential(model.get_submodule(name)))
    with torch.inference_mode():
        y = model(x)
    torch.testing.assert_close(y, plain_output(x, weights, **config), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["layers.0.0.conv.fused_conv", "upsample.0", "conv_last"])
@pytest.mark.parametrize("mode", ["reflect", "circular"])
def test_an_application_may_have_an_image_continued_past_its_edges(name: str, mode: str) -> None:
    model = core().build_aether(weights_of(**SMALL)).fuse_model()
    model.get_submodule(name).padding_mode = mode
    check_against_training(model)


@pytest.mark.parametrize("name", ["upsample.0", "conv_last"])
def test_an_application_may_take_a_bias_away(name: str) -> None:
    model = core().build_aether(weights_of(**SMALL))
    model.get_submodule(name).bias = None
    check_against_training(model)


def test_an_application_may_put_another_layer_into_the_upsampler() -> None:
    model = core().build_aether(weights_of(**SMALL))
    model.upsample.append(torch.nn.LeakyReLU(0.5))
    check_against_training(model)


def check_against_training(model: torch.nn.Module) -> None:
    x = torch.rand(1, 3, 48, 50)
    with torch.inference_mode():
        y = model(x)
    torch.testing.assert_close(y, model(x), rtol=1e-5, atol=1e-5)


def test_a_function_in_the_place_of_a_layers_own_is_called() -> None:
    model = core().build_aether(weights_of(**SMALL))
    layer = model.layers[0][0].ffn.fc2
    layer.forward = lambda x: type(layer).forward(layer, x) * 0  # as accelerate does
    x = torch.rand(1, 3, 9, 9)
    with torch.inference_mode():
        y = model(x)
    torch.testing.assert_close(y, model(x), rtol=0, atol=1e-5)


def test_forward_derivatives_are_right_without_gradients() -> None:
    model = core().build_aether(weights_of(**SMALL)).requires_grad_(False)
    x, direction = torch.rand(2, 1, 3, 9, 9)

    def derivative() -> torch.Tensor:
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(model(forward_ad.make_dual(x, direction))).tangent

    with torch.no_grad():
        found = derivative()
    torch.testing.assert_close(found, derivative(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("later", [False, True], ids=["2025-06", "3.1"])
def test_results_of_convolutions_do_not_outlive_the_blocks(monkeypatch: pytest.MonkeyPatch, later: bool) -> None:
    config = {"embed_dim": 8, "depths": (1, 1)}
    model = core3().build_aether3(weights3_of(**config)) if later else core().build_aether(weights_of(**config))
    network = core3() if later else core()
    original = network.for_each_pixel
    images, kept = [], []

    def look(function: object, x: torch.Tensor, *arguments: object) -> torch.Tensor:
        images.append(x.untyped_storage().data_ptr())
        parts = (each for each in gc.get_objects() if type(each) is core().Part)
        kept.append(sum(each.pixels.untyped_storage().data_ptr() in images for each in parts))
        return original(function, x, *arguments)

    monkeypatch.setattr(network, "for_each_pixel", look)
    with torch.inference_mode():
        model(torch.rand(1, 3, 9, 9))
    assert kept[-1] == 0


def test_computes_the_same_without_onednn() -> None:
    config = {"embed_dim": 32, "depths": (2,), "upscale": 2}
    weights = weights_of(**config)
    x = torch.rand(1, 3, 90, 95)
    with torch.inference_mode(), torch.backends.mkldnn.flags(enabled=False):
        y = core().build_aether(weights)(x)
    torch.testing.assert_close(y, plain_output(x, weights, **config), rtol=0, atol=1e-5)


def test_what_is_measured_takes_no_random_numbers() -> None:
    before = torch.get_rng_state()
    core()._inner_product_saves.cache_clear()
    with torch.inference_mode():
        core()._inner_product_saves(16, 8, 64, torch.get_num_threads())
    assert torch.equal(torch.get_rng_state(), before)


def test_no_images_make_no_images() -> None:
    model = core().build_aether(weights_of(**SMALL))
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            assert model(torch.rand(0, 3, 8, 9)).shape == (0, 3, 16, 18)


WHERE = """
import torch
from aether_install.models.network import core
from weights import weights_of
with torch.inference_mode():
    core().build_aether(weights_of(embed_dim=8, depths=(1,), upscale=2))(torch.rand(1, 3, 8, 8))
address = torch.ones(2**22).data_ptr()
for line in open("/proc/self/maps"):
    start, end = (int(part, 16) for part in line.split()[0].split("-"))
    if start <= address < end:
        print(line.split()[-1])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library decides what to recycle")
def test_memory_is_recycled_from_the_first_forward_on() -> None:
    """16 megabytes are not mapped by themselves, to be given back to the system at once."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run([sys.executable, "-c", WHERE], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[heap]"


RESIDENT = """
import torch
from aether_install.models.network import core
from weights import weights_of

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))

model = core().build_aether(weights_of(embed_dim=8, depths=(1,), upscale=2))
with torch.no_grad():
    model.train()(torch.rand(1, 3, 8, 8))  # with what PyTorch needs by itself
model.eval()
blocks = [torch.ones(2**13) for _ in range(4000)]
last = torch.ones(2**13)  # behind which nothing goes back by itself
del blocks
before = resident()
with torch.inference_mode():
    model(torch.rand(1, 3, 8, 8))
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library decides what to recycle")
def test_what_was_freed_before_the_first_forward_goes_back_to_the_system() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", RESIDENT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 64 * 2**10  # of 125 megabytes


def test_leaves_its_input_alone() -> None:
    model = core().build_aether(weights_of(embed_dim=8, depths=(2,), upscale=1))
    x = torch.rand(1, 3, 6, 6).contiguous(memory_format=torch.channels_last)
    before = x.clone()
    with torch.inference_mode():
        first, second = model(x), model(x)
    assert torch.equal(x, before)
    assert torch.equal(first, second)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("fused", [False, True])
def test_reads_every_parameter_off_the_shapes(config: dict[str, object], fused: bool) -> None:
    model = core().aether(**{**config, "img_range": 1.0}, fused_init=fused)
    parameters = core()._deduce_aether_params_from_state_dict(model.state_dict())
    rebuilt = core().aether(**parameters)
    assert {k: v.shape for k, v in rebuilt.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    ignored = {"sk_kernel"} if fused else set()
    for name, value in model.hyperparameters.items():
        assert name in ignored or rebuilt.hyperparameters[name] == value, name


@pytest.mark.parametrize("variant", ["small", "medium", "large"])
def test_names_its_variants(variant: str) -> None:
    with torch.device("meta"):
        model = getattr(core(), f"aether_{variant}")(upscale=2)
    assert core().variant_name(model.hyperparameters) == variant
    assert core().variant_name({**model.hyperparameters, "embed_dim": 32}) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("upscale", 5),
        ("upscale", 0),
        ("depths", ()),
        ("depths", (1, 0)),
        ("lk_kernel", 8),
        ("sk_kernel", 13),
        ("embed_dim", 0),
        ("mlp_ratio", 0.0),
        ("img_range", 0.0),
    ],
)
def test_refuses_arguments_out_of_range(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name if name not in ("lk_kernel", "sk_kernel") else "kernels"):
        core().aether(**{"embed_dim": 8, "depths": (1,), name: value})


def test_fused_in_inference_it_still_trains() -> None:
    model = core().build_aether(weights_of(embed_dim=8, depths=(1,), upscale=2))
    with torch.inference_mode():
        model.fuse_model()
    model(torch.rand(1, 3, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_trains_every_parameter() -> None:
    torch.manual_seed(0)
    model = core().aether(embed_dim=8, depths=(2, 1), upscale=2, drop_rate=0.1, drop_path_rate=0.3)
    model(torch.rand(4, 3, 8, 8)).square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients.values())


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop = core().DropPath(0.25)
    x = torch.ones(4000, 2, 2)
    y = drop(x)
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert y.flatten(1).std(dim=1).max() == 0
    assert y.mean().item() == pytest.approx(1, abs=0.05)
    assert drop.eval()(x) is x


SMALL = {"embed_dim": 8, "depths": (1, 1), "upscale": 2}


@pytest.mark.parametrize("fused", [False, True], ids=["unfused", "fused"])
def test_traces_for_images_of_any_size(fused: bool) -> None:
    model = core().build_aether(weights_of(**SMALL))
    model = model.fuse_model() if fused else model
    with torch.no_grad():
        traced = torch.jit.trace(model, torch.rand(1, 3, 8, 8))
        x = torch.rand(1, 3, 150, 70)
        torch.testing.assert_close(traced(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fused", [False, True], ids=["unfused", "fused"])
@pytest.mark.parametrize("gradients", [False, True], ids=["inference", "with gradients"])
def test_exports_for_images_of_any_size(fused: bool, gradients: bool) -> None:
    model = core().build_aether(weights_of(**SMALL))
    model = model.fuse_model() if fused else model
    height, width = torch.export.Dim("height", min=2, max=4096), torch.export.Dim("width", min=2, max=4096)
    with torch.set_grad_enabled(gradients):
        exported = torch.export.export(model, (torch.rand(1, 3, 8, 9),), dynamic_shapes=({2: height, 3: width},))
    x = torch.rand(1, 3, 150, 70)
    with torch.no_grad():
        torch.testing.assert_close(exported.module()(x), model(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_vmap_and_fx_take_it() -> None:
    model = core().build_aether(weights_of(**SMALL))
    x = torch.rand(3, 1, 3, 11, 14)
    expected = torch.stack([model(image) for image in x])
    torch.testing.assert_close(torch.vmap(model)(x), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(x[0]), expected[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("fused", [False, True], ids=["unfused", "fused"])
@pytest.mark.parametrize("gradients", [False, True], ids=["inference", "with gradients"])
def test_compiles_in_one_graph(fused: bool, gradients: bool) -> None:
    model = core().build_aether(weights_of(**SMALL))
    model = model.fuse_model() if fused else model
    x = torch.rand(1, 3, 11, 14)
    torch.compiler.reset()
    with torch.set_grad_enabled(gradients):
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(11, 14), (48, 50)], ids=str)
def test_runs_under_autocast(size: tuple[int, int]) -> None:
    model = core().build_aether(weights_of(**SMALL))
    x = torch.rand(1, 3, *size)
    with torch.inference_mode():
        expected = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(model(x).float(), expected, rtol=0, atol=0.1)


def test_runs_whatever_device_new_tensors_are_for() -> None:
    model = core().build_aether(weights_of(**SMALL))
    x = torch.rand(1, 3, 48, 50)
    with torch.inference_mode():
        expected = model(x)
        with torch.device("meta"):
            assert torch.equal(model(x), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("size", [(7, 9), (48, 50)], ids=str)
def test_keeps_the_dtype_it_is_given(dtype: torch.dtype, size: tuple[int, int]) -> None:
    weights = weights_of(**SMALL)
    model = core().build_aether(weights, dtype=dtype)
    x = torch.rand(1, 3, *size)
    with torch.inference_mode():
        y = model(x.to(dtype))
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), plain_output(x, weights, **SMALL), rtol=0, atol=0.08)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_threads_may_share_a_model(dtype: torch.dtype) -> None:
    model = core().build_aether(weights_of(**SMALL), dtype=dtype)
    x = torch.rand(1, 3, 20, 20, dtype=dtype)

    def run(_: int) -> torch.Tensor:
        with torch.inference_mode():
            return model(x)

    expected = run(0)
    with ThreadPoolExecutor(4) as threads:
        for y in threads.map(run, range(60)):  # which a busy machine may have add in another order
            torch.testing.assert_close(y, expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-3)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


TEAMS = Path(__file__).with_name("teams.py")


@functools.cache
def teams() -> dict[str, str]:
    """What became of each scenario, in a process with two threads for PyTorch, which this one has not."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, TEAMS], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="where OpenMP is found")
@pytest.mark.parametrize(
    "scenario",
    [
        "computes_the_same",
        "kernels_may_have_any_size",
        "who_is_ahead_waits",
        "the_later_generation_too",
        "strips_too",
        "leaves_nothing_behind",
        "an_error_reaches_the_caller",
        "an_error_holds_on_to_nothing",
        "an_interruption_ends_it",
        "an_interruption_at_any_instruction_ends_it",
        "forwards_at_once",
        "without_threads",
        "lookers_on_see_everything",
        "few_operations_beside_a_python_loop",
        "other_forwards_are_no_python_loop",
    ],
)
def test_a_team_of_threads(scenario: str) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two processors are needed")
    assert teams()[scenario] == "done"


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["", "layers.0.0", "layers.1.0.conv", "layers.0.0.ffn.drop", "norm", "upsample.0"])
def test_hooks_are_called_once(dtype: torch.dtype, name: str) -> None:
    model = core().build_aether(weights_of(**SMALL), dtype=dtype)
    model.get_submodule(name).register_forward_hook(lambda _, __, output: output.zero_())
    calls: queue.SimpleQueue[object] = queue.SimpleQueue()  # which cannot be copied
    model.get_submodule(name).register_forward_pre_hook(functools.partial(lambda queue, *_: queue.put(1), calls))
    x = torch.rand(1, 3, 41, 39, dtype=dtype)  # more than one slice of pixels
    with torch.no_grad():
        y = model(x)
    assert calls.qsize() == 1
    torch.testing.assert_close(y, model.requires_grad_(False)(x), rtol=0, atol=1e-5 if dtype == torch.float32 else 0.02)


@pytest.mark.parametrize("register", [register_module_forward_hook, register_module_forward_pre_hook])
def test_hooks_of_all_modules_are_called_for_each(register: Callable[..., RemovableHandle]) -> None:
    model = core().build_aether(weights_of(**SMALL))
    x = torch.rand(1, 3, 9, 9)
    called = []
    handle = register(lambda module, *_: called.append(module))
    try:
        with torch.inference_mode():
            y = model(x)
    finally:
        handle.remove()
    called_by_name = {name for name, module in model.named_modules() if any(module is each for each in called)}
    assert called_by_name >= {"", "layers.0.0", "layers.0.0.norm", "layers.1.0.conv", "layers.1.0.ffn.fc2", "conv_last"}
    assert len(called) == len(set(map(id, called)))
    torch.testing.assert_close(y, model(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("given", [torch.float16, torch.float64], ids=str)
def test_an_image_of_another_dtype_is_refused_as_by_any_network(given: torch.dtype) -> None:
    model = core().build_aether(weights_of(**SMALL))
    for inference in (False, True):
        with torch.inference_mode(inference), pytest.raises(RuntimeError, match="type"):
            model(torch.rand(1, 3, 8, 8, dtype=given))


def test_pickles_and_copies() -> None:
    model = core().build_aether(weights_of(embed_dim=8, depths=(1,), upscale=2))
    x = torch.rand(1, 3, 5, 5)
    with torch.inference_mode():
        for clone in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(clone(x), model(x))
            assert clone.hyperparameters == model.hyperparameters
