"""The network computes what the published one does."""

from __future__ import annotations

import copy
import functools
import pickle
import queue
import zlib
from collections.abc import Callable

import pytest
import torch
from networks import JUNE, LATER, aether_core
from torch.autograd import forward_ad
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle
from weights import CONFIGS, GOLDEN_NAMES, golden, plain_output, weights_of
from weights3 import weights3_of


@pytest.mark.parametrize("name", GOLDEN_NAMES)
@pytest.mark.parametrize("inference", [True, False], ids=["inference", "with gradients"])
def test_agrees_with_the_published_network(name: str, inference: bool) -> None:
    case = golden(name)
    for weights in (case.unfused, JUNE.fuse(case.unfused)):
        with torch.inference_mode(inference):
            y = JUNE.build(weights)(case.x)
        torch.testing.assert_close(y, case.y, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_fuses_to_the_published_bits(name: str) -> None:
    case = golden(name)
    fused = JUNE.fuse(case.unfused)
    model = JUNE.build(case.unfused).fuse_model()
    assert list(fused) == case.fused_keys == list(model.state_dict())
    for key, crc in case.fused_crc32.items():
        assert zlib.crc32(fused[key].numpy().tobytes()) == crc
        assert torch.equal(model.state_dict()[key], fused[key])


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (13, 2), (9, 10), (48, 47)], ids=str)
def test_agrees_with_the_plain_implementation(config: dict[str, object], size: tuple[int, int]) -> None:
    weights = weights_of(**config)
    x = torch.rand(2, config.get("in_chans", 3), *size)
    expected = plain_output(x, weights, **config)
    model = JUNE.build(weights, img_range=config.get("img_range", 1.0))
    tolerance = 1e-5 if config["embed_dim"] > 1 else 1e-4  # all that is left of one channel's norm is rounding errors
    for _ in range(2):
        with torch.inference_mode():
            torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=tolerance)
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=tolerance)
        model.fuse_model()


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
    model = JUNE.build(weights).fuse_model()
    outside, _, inside = name.rpartition(".")
    setattr(model.get_submodule(outside), inside, torch.nn.Sequential(model.get_submodule(name)))
    with torch.inference_mode():
        y = model(x)
    torch.testing.assert_close(y, plain_output(x, weights, **config), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["layers.0.0.conv.fused_conv", "upsample.0", "conv_last"])
@pytest.mark.parametrize("mode", ["reflect", "circular"])
def test_an_application_may_have_an_image_continued_past_its_edges(name: str, mode: str) -> None:
    model = JUNE.build(weights_of(**SMALL)).fuse_model()
    model.get_submodule(name).padding_mode = mode
    check_against_training(model)


@pytest.mark.parametrize("name", ["upsample.0", "conv_last"])
def test_an_application_may_take_a_bias_away(name: str) -> None:
    model = JUNE.build(weights_of(**SMALL))
    model.get_submodule(name).bias = None
    check_against_training(model)


def test_an_application_may_put_another_layer_into_the_upsampler() -> None:
    model = JUNE.build(weights_of(**SMALL))
    model.upsample.append(torch.nn.LeakyReLU(0.5))
    check_against_training(model)


def check_against_training(model: torch.nn.Module) -> None:
    x = torch.rand(1, 3, 48, 50)
    with torch.inference_mode():
        y = model(x)
    torch.testing.assert_close(y, model(x), rtol=1e-5, atol=1e-5)


def test_a_function_in_the_place_of_a_layers_own_is_called() -> None:
    model = JUNE.build(weights_of(**SMALL))
    layer = model.layers[0][0].ffn.fc2
    layer.forward = lambda x: type(layer).forward(layer, x) * 0  # as accelerate does
    x = torch.rand(1, 3, 9, 9)
    with torch.inference_mode():
        y = model(x)
    torch.testing.assert_close(y, model(x), rtol=0, atol=1e-5)


def test_forward_derivatives_are_right_without_gradients() -> None:
    model = JUNE.build(weights_of(**SMALL)).requires_grad_(False)
    x, direction = torch.rand(2, 1, 3, 9, 9)

    def derivative() -> torch.Tensor:
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(model(forward_ad.make_dual(x, direction))).tangent

    with torch.no_grad():
        found = derivative()
    torch.testing.assert_close(found, derivative(), rtol=0, atol=1e-5)


def test_computes_the_same_without_onednn() -> None:
    config = {"embed_dim": 32, "depths": (2,), "upscale": 2}
    weights = weights_of(**config)
    x = torch.rand(1, 3, 90, 95)
    with torch.inference_mode(), torch.backends.mkldnn.flags(enabled=False):
        y = JUNE.build(weights)(x)
    torch.testing.assert_close(y, plain_output(x, weights, **config), rtol=0, atol=1e-5)


def test_no_images_make_no_images() -> None:
    model = JUNE.build(weights_of(**SMALL))
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            assert model(torch.rand(0, 3, 8, 9)).shape == (0, 3, 16, 18)


def test_leaves_its_input_alone() -> None:
    model = JUNE.build(weights_of(embed_dim=8, depths=(2,), upscale=1))
    x = torch.rand(1, 3, 6, 6).contiguous(memory_format=torch.channels_last)
    before = x.clone()
    with torch.inference_mode():
        first, second = model(x), model(x)
    assert torch.equal(x, before)
    assert torch.equal(first, second)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("fused", [False, True])
def test_reads_every_parameter_off_the_shapes(config: dict[str, object], fused: bool) -> None:
    model = aether_core.aether(**{**config, "img_range": 1.0}, fused_init=fused)
    parameters = aether_core._deduce_aether_params_from_state_dict(model.state_dict())
    rebuilt = aether_core.aether(**parameters)
    assert {k: v.shape for k, v in rebuilt.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    ignored = {"sk_kernel"} if fused else set()
    for name, value in model.hyperparameters.items():
        assert name in ignored or rebuilt.hyperparameters[name] == value, name


@pytest.mark.parametrize("variant", ["small", "medium", "large"])
def test_names_its_variants(variant: str) -> None:
    with torch.device("meta"):
        model = getattr(aether_core, f"aether_{variant}")(upscale=2)
    assert JUNE.variant(model.hyperparameters) == variant
    assert JUNE.variant({**model.hyperparameters, "embed_dim": 32}) is None


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
        aether_core.aether(**{"embed_dim": 8, "depths": (1,), name: value})


def test_fused_in_inference_it_still_trains() -> None:
    model = JUNE.build(weights_of(embed_dim=8, depths=(1,), upscale=2))
    with torch.inference_mode():
        model.fuse_model()
    model(torch.rand(1, 3, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_trains_every_parameter() -> None:
    torch.manual_seed(0)
    model = aether_core.aether(embed_dim=8, depths=(2, 1), upscale=2, drop_rate=0.1, drop_path_rate=0.3)
    model(torch.rand(4, 3, 8, 8)).square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients.values())


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop = aether_core.DropPath(0.25)
    x = torch.ones(4000, 2, 2)
    y = drop(x)
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert y.flatten(1).std(dim=1).max() == 0
    assert y.mean().item() == pytest.approx(1, abs=0.05)
    assert drop.eval()(x) is x


SMALL = {"embed_dim": 8, "depths": (1, 1), "upscale": 2}


@pytest.mark.parametrize("fused", [False, True], ids=["unfused", "fused"])
def test_traces_for_images_of_any_size(fused: bool) -> None:
    model = JUNE.build(weights_of(**SMALL))
    model = model.fuse_model() if fused else model
    with torch.no_grad():
        traced = torch.jit.trace(model, torch.rand(1, 3, 8, 8))
        x = torch.rand(1, 3, 150, 70)
        torch.testing.assert_close(traced(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fused", [False, True], ids=["unfused", "fused"])
@pytest.mark.parametrize("gradients", [False, True], ids=["inference", "with gradients"])
def test_exports_for_images_of_any_size(fused: bool, gradients: bool) -> None:
    model = JUNE.build(weights_of(**SMALL))
    model = model.fuse_model() if fused else model
    height, width = torch.export.Dim("height", min=2, max=4096), torch.export.Dim("width", min=2, max=4096)
    with torch.set_grad_enabled(gradients):
        exported = torch.export.export(model, (torch.rand(1, 3, 8, 9),), dynamic_shapes=({2: height, 3: width},))
    x = torch.rand(1, 3, 150, 70)
    with torch.no_grad():
        torch.testing.assert_close(exported.module()(x), model(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_vmap_and_fx_take_it() -> None:
    model = JUNE.build(weights_of(**SMALL))
    x = torch.rand(3, 1, 3, 11, 14)
    expected = torch.stack([model(image) for image in x])
    torch.testing.assert_close(torch.vmap(model)(x), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(x[0]), expected[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("fused", [False, True], ids=["unfused", "fused"])
@pytest.mark.parametrize("gradients", [False, True], ids=["inference", "with gradients"])
def test_compiles_in_one_graph(fused: bool, gradients: bool) -> None:
    model = JUNE.build(weights_of(**SMALL))
    model = model.fuse_model() if fused else model
    x = torch.rand(1, 3, 11, 14)
    torch.compiler.reset()
    with torch.set_grad_enabled(gradients):
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(11, 14), (48, 50)], ids=str)
def test_runs_under_autocast(size: tuple[int, int]) -> None:
    model = JUNE.build(weights_of(**SMALL))
    x = torch.rand(1, 3, *size)
    with torch.inference_mode():
        expected = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(model(x).float(), expected, rtol=0, atol=0.1)


def test_runs_whatever_device_new_tensors_are_for() -> None:
    model = JUNE.build(weights_of(**SMALL))
    x = torch.rand(1, 3, 48, 50)
    with torch.inference_mode():
        expected = model(x)
        with torch.device("meta"):
            torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("size", [(7, 9), (48, 50)], ids=str)
def test_keeps_the_dtype_it_is_given(dtype: torch.dtype, size: tuple[int, int]) -> None:
    weights = weights_of(**SMALL)
    model = JUNE.build(weights, dtype=dtype)
    x = torch.rand(1, 3, *size)
    with torch.inference_mode():
        y = model(x.to(dtype))
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), plain_output(x, weights, **SMALL), rtol=0, atol=0.08)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["", "layers.0.0", "layers.1.0.conv", "layers.0.0.ffn.drop", "norm", "upsample.0"])
def test_hooks_are_called_once(dtype: torch.dtype, name: str) -> None:
    model = JUNE.build(weights_of(**SMALL), dtype=dtype)
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
    model = JUNE.build(weights_of(**SMALL))
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
    model = JUNE.build(weights_of(**SMALL))
    for inference in (False, True):
        with torch.inference_mode(inference), pytest.raises(RuntimeError, match="type"):
            model(torch.rand(1, 3, 8, 8, dtype=given))


def test_pickles_and_copies() -> None:
    model = JUNE.build(weights_of(embed_dim=8, depths=(1,), upscale=2))
    x = torch.rand(1, 3, 5, 5)
    with torch.inference_mode():
        for clone in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(clone(x), model(x))
            assert clone.hyperparameters == model.hyperparameters


@pytest.mark.parametrize("shape", [(3, 8, 8), (8, 8), (1, 3, 8, 8, 1)], ids=str)
def test_an_image_without_four_axes_is_refused_in_words(shape: tuple[int, ...]) -> None:
    for model in (JUNE.build(weights_of(**SMALL)), LATER.build(weights3_of(embed_dim=8, depths=(1,)))):
        with torch.inference_mode(), pytest.raises(ValueError, match=r"images need four axes, \(B, C, H, W\), not"):
            model(torch.rand(shape))
