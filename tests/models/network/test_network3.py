"""The later generation's network computes what the published one does."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from networks import LATER, aether3_core, sizes
from plain3 import EPS
from weights3 import (
    BOTH,
    CONFIGS3,
    FORMS,
    GOLDEN3,
    GOLDEN3_NAMES,
    TINY,
    golden3,
    plain3_output,
    read_release,
    weights3_of,
)


def noted(config: dict[str, Any]) -> dict[str, float]:
    return {name: config[name] for name in ("img_range", "res_scale") if name in config}


def assert_close(y: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Within so much of the output's own range."""
    span = (expected.max() - expected.min()).item()
    torch.testing.assert_close(y.double(), expected.double(), rtol=0, atol=tolerance * max(span, 1e-3))


@pytest.mark.parametrize("name", GOLDEN3_NAMES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("inference", [True, False], ids=["inference", "with gradients"])
def test_agrees_with_the_published_network(name: str, form: str, inference: bool) -> None:
    case = golden3(name)
    weights = LATER.clean(case.weights(form))
    as_noted = LATER.build(weights, **case.noted)
    folded = LATER.build(LATER.fold(weights, **case.noted))
    for model in (as_noted, folded):
        with torch.inference_mode(inference):
            assert_close(model(case.x), case.y, 5e-6)


@pytest.mark.parametrize("name", GOLDEN3_NAMES)
def test_in_float64_it_agrees_to_the_last_digits(name: str) -> None:
    case = golden3(name)
    weights = case.weights("unfused")
    for inference in (True, False):
        model = LATER.build(weights, **case.noted, dtype=torch.float64)
        with torch.inference_mode(inference):
            assert_close(model(case.x.double()), case.y, 1e-13)
            assert_close(model.fuse_model()(case.x.double()), case.y, 1e-13)


def test_a_release_makes_the_picture_that_its_author_saw() -> None:
    release = read_release()
    with np.load(GOLDEN3 / "optimized_fp32.io.npz") as arrays:
        x, y = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y_saved_model"])
    model = LATER.build(release, res_scale=release["metadata"]["arch_config"]["res_scale"])
    with torch.inference_mode():
        assert_close(model(x), y)


@pytest.mark.parametrize("name", GOLDEN3_NAMES)
def test_fuses_to_the_published_weights(name: str) -> None:
    case = golden3(name)
    published = case.weights("fused")
    fused = LATER.fuse(LATER.clean(case.weights("unfused")))
    model = LATER.build(case.weights("unfused")).fuse_model()
    assert set(fused) == set(published) == set(model.state_dict())
    for key, tensor in published.items():
        torch.testing.assert_close(fused[key], tensor, rtol=5e-6, atol=1e-7)
        assert torch.equal(model.state_dict()[key], fused[key])
    for key in (key for key in published if ".conv.fused_conv." in key):
        assert torch.equal(fused[key], published[key])


@pytest.mark.parametrize("config", CONFIGS3.values(), ids=CONFIGS3)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (13, 2), (9, 10), (48, 47)], ids=str)
def test_agrees_with_the_plain_implementation(config: dict[str, Any], size: tuple[int, int]) -> None:
    weights = weights3_of(**config)
    x = torch.rand(2, config.get("in_chans", 3), *size) * config.get("img_range", 1.0)
    expected = plain3_output(x, weights, **config)
    model = LATER.build(weights, **noted({"res_scale": 0.1, **config}))
    for _ in range(2):
        with torch.inference_mode():
            assert_close(model(x), expected)
        assert_close(model(x), expected)
        model.fuse_model()


@pytest.mark.parametrize(
    "name",
    [
        *("stages.0.0.ffn.conv_main", "stages.0.0.norm", "stages.0.0.channel_attn.fc.0", "stages.0.0.spatial_attn"),
        *("stages.0.0", "fusion_convs.1", "quant_fusion_layer.fusion_conv", "quant_fusion_layer", "norm", "conv_last"),
    ],
)
def test_an_application_may_wrap_its_layers(name: str) -> None:
    weights = weights3_of(**BOTH)
    x = torch.rand(1, 3, 20, 30)
    model = LATER.build(weights)
    outside, _, inside = name.rpartition(".")
    setattr(model.get_submodule(outside), inside, torch.nn.Sequential(model.get_submodule(name)))
    with torch.inference_mode():
        assert_close(model(x), plain3_output(x, weights, **BOTH))


def test_computes_the_same_without_onednn() -> None:
    weights = weights3_of(**BOTH)
    x = torch.rand(1, 3, 90, 95)
    with torch.inference_mode(), torch.backends.mkldnn.flags(enabled=False):
        y = LATER.build(weights)(x)
    assert_close(y, plain3_output(x, weights, **BOTH))


def test_no_pictures_make_no_pictures() -> None:
    model = LATER.build(weights3_of(**BOTH))
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            assert model(torch.rand(0, 3, 8, 9)).shape == (0, 3, 16, 18)


def test_leaves_its_input_alone() -> None:
    model = LATER.build(weights3_of(**BOTH))
    x = torch.rand(1, 3, 6, 6).contiguous(memory_format=torch.channels_last)
    before = x.clone()
    with torch.inference_mode():
        first, second = model(x), model(x)
    assert torch.equal(x, before)
    assert torch.equal(first, second)


def test_takes_the_mean_from_the_file() -> None:
    weights = weights3_of(**TINY)
    x = torch.rand(1, 3, 6, 6)
    usual = LATER.build(weights)
    weights["mean"] = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
    other = LATER.build(weights)
    with torch.inference_mode():
        assert (usual(x) - other(x)).abs().max() > 0.01
        assert_close(other(x), plain3_output(x, weights, **TINY))


@pytest.mark.parametrize("config", CONFIGS3.values(), ids=CONFIGS3)
@pytest.mark.parametrize("fused", [False, True], ids=["unfused", "fused"])
def test_reads_every_parameter_off_the_shapes(config: dict[str, Any], fused: bool) -> None:
    model = aether3_core.aether3(**{**config, "img_range": 1.0, "res_scale": 0.1}, fused_init=fused)
    parameters = aether3_core._deduce_aether3_params_from_state_dict(model.state_dict())
    rebuilt = aether3_core.aether3(**parameters)
    ignored = {"sk_kernel"} if fused else set()
    for name, value in model.hyperparameters.items():
        assert name in ignored or rebuilt.hyperparameters[name] == value, name
    assert list(rebuilt.state_dict()) == list(model.state_dict())


def test_reads_sizes_off_the_shapes_where_no_formula_gives_them() -> None:
    sizes = {"squeeze": 5, "stage_widths": (3, 8), "upsample_widths": (6, 40)}
    model = aether3_core.aether3(**{**TINY, "scale": 4}, **sizes)
    parameters = aether3_core._deduce_aether3_params_from_state_dict(model.state_dict())
    assert {name: parameters[name] for name in sizes} == sizes


@pytest.mark.parametrize("variant", ["mobile", "tiny", "small", "medium", "large", "pro", "extreme"])
def test_names_its_variants(variant: str) -> None:
    with torch.device("meta"):
        model = aether3_core.aether3(**sizes.LATER_SIZES[variant], scale=2)
        fused = aether3_core.aether3(**{**sizes.LATER_SIZES[variant], "sk_kernel": 3}, scale=2, fused_init=True)
    assert LATER.variant(model.hyperparameters) == LATER.variant(fused.hyperparameters) == variant
    assert LATER.variant({**model.hyperparameters, "embed_dim": 32}) is None
    assert LATER.assumed(model.hyperparameters)["res_scale"] == model.hyperparameters["res_scale"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scale", 5),
        ("scale", 0),
        ("depths", ()),
        ("depths", (1, 0)),
        ("lk_kernel", 8),
        ("sk_kernel", 13),
        ("embed_dim", 0),
        ("embed_dim", 7),
        ("mlp_ratio", 0.0),
        ("img_range", 0.0),
        ("res_scale", float("nan")),
        ("norm_type", "batch"),
        ("in_chans", 0),
    ],
)
def test_refuses_arguments_out_of_range(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name if name not in ("lk_kernel", "sk_kernel") else "kernels"):
        aether3_core.aether3(**{**TINY, name: value})


def test_a_training_step_moves_the_statistics_by_a_tenth_and_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    config = {**BOTH, "scale": 4}
    model = aether3_core.aether3(**config, drop=0.1, drop_path_rate=0.3)
    seen = []
    model.stages[0][0].conv.register_forward_hook(lambda _, __, output: seen.append(output.detach()))
    model(torch.rand(4, 3, 8, 8)).square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    without = [name for name, gradient in gradients.items() if gradient is None or not gradient.abs().sum() > 0]
    assert not without
    norm, (t,) = model.stages[0][0].norm, seen
    mean = t.mean((0, 2, 3), keepdim=True)
    variance = (t - mean).square().mean((0, 2, 3), keepdim=True)
    torch.testing.assert_close(norm.running_mean, 0.1 * mean)
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * variance)
    assert all(statistic.grad_fn is None for statistic in (norm.running_mean, norm.running_var))


def test_in_training_the_norm_uses_the_batch() -> None:
    norm = aether3_core.DeploymentNorm(5)
    x = 3 + 2 * torch.randn(4, 5, 6, 7)
    variance, mean = torch.var_mean(x, (0, 2, 3), unbiased=False, keepdim=True)
    torch.testing.assert_close(norm(x), (x - mean) / (variance + EPS).sqrt())
    with torch.no_grad():
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
    torch.testing.assert_close(norm.eval()(x), (x - mean) / (variance + EPS).sqrt(), rtol=1e-4, atol=1e-5)


def test_evaluation_and_fused_training_leave_the_statistics_alone() -> None:
    model = aether3_core.aether3(**TINY, drop_path_rate=0.0).eval()
    model.load_state_dict(weights3_of(**TINY))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    x = torch.rand(1, 3, 8, 8)
    model(x)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    fused = model.fuse_model()
    assert_close(fused.train()(x).detach(), fused.eval()(x).detach())


def test_fused_in_inference_it_still_trains() -> None:
    model = LATER.build(weights3_of(**BOTH))
    with torch.inference_mode():
        model.fuse_model()
    model(torch.rand(1, 3, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.fused
    assert not [name for name, _ in model.named_buffers() if "running" in name]


@pytest.mark.parametrize("fused", [False, True], ids=["unfused", "fused"])
def test_traces_for_pictures_of_any_size(fused: bool) -> None:
    model = LATER.build(weights3_of(**BOTH))
    model = model.fuse_model() if fused else model
    with torch.no_grad():
        traced = torch.jit.trace(model, torch.rand(1, 3, 8, 8))
        x = torch.rand(2, 3, 150, 70)
        assert_close(traced(x), model(x))


@pytest.mark.parametrize("fused", [False, True], ids=["unfused", "fused"])
@pytest.mark.parametrize("gradients", [False, True], ids=["inference", "with gradients"])
def test_exports_for_pictures_of_any_size(fused: bool, gradients: bool) -> None:
    model = LATER.build(weights3_of(**BOTH))
    model = model.fuse_model() if fused else model
    height, width = torch.export.Dim("height", min=2, max=4096), torch.export.Dim("width", min=2, max=4096)
    with torch.set_grad_enabled(gradients):
        exported = torch.export.export(model, (torch.rand(1, 3, 8, 9),), dynamic_shapes=({2: height, 3: width},))
    x = torch.rand(1, 3, 150, 70)
    with torch.no_grad():
        assert_close(exported.module()(x), model(x))


@torch.no_grad()
def test_vmap_and_fx_take_it() -> None:
    model = LATER.build(weights3_of(**BOTH))
    x = torch.rand(3, 1, 3, 11, 14)
    expected = torch.stack([model(picture) for picture in x])
    assert_close(torch.vmap(model)(x), expected)
    assert_close(torch.fx.symbolic_trace(model)(x[0]), expected[0])


def test_compiles_in_one_graph() -> None:
    model = LATER.build(weights3_of(**BOTH))
    x = torch.rand(1, 3, 11, 14)
    torch.compiler.reset()
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
            assert_close(compiled(x).detach(), model(x).detach())


@pytest.mark.parametrize("size", [(11, 14), (48, 50)], ids=str)
def test_runs_under_autocast(size: tuple[int, int]) -> None:
    model = LATER.build(weights3_of(**BOTH))
    x = torch.rand(1, 3, *size)
    with torch.inference_mode():
        expected = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert_close(model(x), expected, 0.03)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("inference", [True, False], ids=["inference", "with gradients"])
@pytest.mark.parametrize("size", [(7, 9), (48, 50)], ids=str)
def test_keeps_the_dtype_it_is_given(dtype: torch.dtype, size: tuple[int, int], inference: bool) -> None:
    weights = weights3_of(**BOTH)
    model = LATER.build(weights).to(dtype)
    x = torch.rand(1, 3, *size)
    with torch.inference_mode(inference):
        y = model(x.to(dtype))
    assert y.dtype == dtype
    assert model.scale_tensor.dtype == torch.int64
    assert_close(y.detach(), plain3_output(x, weights, **BOTH), 0.05)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["", "stages.0.0", "stages.1.1.norm", "fusion_convs.0", "norm", "upsample.blocks.0"])
def test_hooks_are_called_once(dtype: torch.dtype, name: str) -> None:
    model = LATER.build(weights3_of(**TINY), dtype=dtype)
    calls = []
    model.get_submodule(name).register_forward_hook(lambda _, __, output: calls.append(1) or output * 0)
    x = torch.rand(1, 3, 41, 39, dtype=dtype)  # more than one slice of pixels
    with torch.no_grad():
        y = model(x)
    assert len(calls) == 1
    torch.testing.assert_close(y, model.requires_grad_(False)(x), rtol=0, atol=1e-5 if dtype == torch.float32 else 0.05)


def test_pickles_and_copies() -> None:
    model = LATER.build(weights3_of(**BOTH))
    x = torch.rand(1, 3, 5, 5)
    with torch.inference_mode():
        for clone in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(clone(x), model(x))
            assert clone.hyperparameters == model.hyperparameters


@pytest.mark.parametrize("config", [BOTH, CONFIGS3["no attention"], CONFIGS3["layernorm"]], ids=range(3))
@pytest.mark.parametrize("form", FORMS)
def test_folded_arguments_leave_the_picture_as_it_was(config: dict[str, Any], form: str) -> None:
    weights = weights3_of(**config)
    if form == "fused":
        weights = LATER.fuse(weights)
    x = 200 * torch.rand(1, 3, 9, 8)
    expected = LATER.build(weights, img_range=200.0, res_scale=0.37)
    folded = LATER.build(LATER.fold(weights, img_range=200.0, res_scale=0.37))
    with torch.inference_mode():
        assert_close(folded(x), expected(x))
        assert_close(
            expected(x),
            plain3_output(x, weights, **config, img_range=200.0, res_scale=0.37, fused_init=form == "fused"),
        )


def test_nothing_to_fold_changes_nothing() -> None:
    weights = weights3_of(**BOTH)
    folded = LATER.fold(weights, img_range=1.0, res_scale=0.1)
    assert folded is not weights
    assert all(folded[key] is tensor for key, tensor in weights.items())


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"img_range": 1e9}, "conv_first.weight"),
        ({"img_range": 2e5}, "mean"),
        ({"res_scale": 1e9}, "stages.0.0.ffn.conv_out.weight"),
        ({"res_scale": 1e-9}, "stages.0.0.ffn.conv_out.weight"),
    ],
)
def test_a_half_precision_weight_that_folding_would_lose_is_refused_by_its_key(
    arguments: dict[str, float], key: str
) -> None:
    weights = {name: t.half() if t.is_floating_point() else t for name, t in weights3_of(**BOTH).items()}
    weights["conv_first.weight"] = weights["conv_first.weight"].sign()
    with pytest.raises(ValueError, match=key):
        LATER.fold(weights, **arguments)


@pytest.mark.parametrize("name", ["img_range", "res_scale"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_only_positive_numbers_are_folded(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        LATER.fold(weights3_of(**TINY), **{name: value})


def test_a_merged_weight_beyond_half_precision_is_refused_by_its_key() -> None:
    weights = {name: t.half() if t.is_floating_point() else t for name, t in weights3_of(**TINY).items()}
    weights["stages.1.0.norm.weight"] = torch.full_like(weights["stages.1.0.norm.weight"], 6e4)
    weights["stages.1.0.norm.running_var"] = torch.zeros_like(weights["stages.1.0.norm.running_var"])
    with pytest.raises(ValueError, match=r"stages\.1\.0\.norm\.weight would overflow in float16"):
        LATER.fuse(weights)
