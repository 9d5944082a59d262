"""The engine makes the network's picture, alone and in a team of threads, and it is the engine that makes it."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from networks import JUNE, LATER, engine, module
from weights import CONFIGS, GOLDEN_NAMES, golden, plain_output, weights_of
from weights3 import BOTH, CONFIGS3, GOLDEN3_NAMES, TINY, golden3, plain3_output, weights3_of

eligible, layers = module("engine.eligible"), module("engine.layers")

pytestmark = pytest.mark.skipif(not eligible.vector_width(), reason="the engine runs on other processors")


PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def infer(model: Any, x: torch.Tensor, threads: int = 1) -> torch.Tensor:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            y = engine.infer(model, x)
    finally:
        torch.set_num_threads(before)
    assert y is not None, "the engine left it to the network"
    return y


def assert_close(y: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Within so much of the output's own range."""
    span = (expected.max() - expected.min()).item()
    torch.testing.assert_close(y.double(), expected.double(), rtol=0, atol=tolerance * max(span, 1e-3))


def assert_computes(model: Any, x: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Alone, and by a team where there are processors for one."""
    for threads in (1, 2)[:PROCESSORS]:
        y = infer(model, x, threads)
        assert y.dtype == x.dtype
        assert_close(y, expected, tolerance)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("size", [(2, 9, 31), (1, 64, 67)], ids=str)
def test_makes_the_picture(config: dict[str, Any], size: tuple[int, int, int]) -> None:
    weights = weights_of(**config)
    x = torch.rand(size[0], config.get("in_chans", 3), *size[1:])
    expected = plain_output(x, weights, **config)
    model = JUNE.build(weights, img_range=config.get("img_range", 1.0))
    tolerance = 1e-5 if config["embed_dim"] > 1 else 1e-4  # all that is left of one channel's norm is rounding errors
    for _ in range(2):
        assert_computes(model, x, expected, tolerance)
        model.fuse_model()


@pytest.mark.parametrize("config", CONFIGS3.values(), ids=CONFIGS3)
@pytest.mark.parametrize("size", [(2, 9, 31), (1, 64, 67)], ids=str)
def test_makes_the_later_generations_picture(config: dict[str, Any], size: tuple[int, int, int]) -> None:
    weights = weights3_of(**config)
    x = torch.rand(size[0], config.get("in_chans", 3), *size[1:]) * config.get("img_range", 1.0)
    expected = plain3_output(x, weights, **config)
    noted = {"img_range": config.get("img_range", 1.0), "res_scale": config.get("res_scale", 0.1)}
    model = LATER.build(weights, **noted)
    for _ in range(2):
        assert_computes(model, x, expected)
        model.fuse_model()


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_makes_the_published_picture(name: str) -> None:
    case = golden(name)
    x = case.x.repeat(1, 1, 4, 4)  # so large that it is worth while
    expected = plain_output(x, case.unfused, **case.config)
    for weights in (case.unfused, JUNE.fuse(case.unfused)):
        assert_close(infer(JUNE.build(weights, img_range=case.config.get("img_range", 1.0)), x), expected)


@pytest.mark.parametrize("name", GOLDEN3_NAMES)
def test_makes_the_later_generations_published_picture(name: str) -> None:
    case = golden3(name)
    x = case.x.repeat(1, 1, 4, 4)
    expected = LATER.build(case.weights("unfused"), **case.noted, dtype=torch.float64)(x.double()).detach()
    for form in ("unfused", "fused"):
        assert_close(infer(LATER.build(case.weights(form), **case.noted), x), expected, 5e-6)


@pytest.mark.parametrize("embed_dim", [48, 34, 20, 16], ids="{} channels".format)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_groups_and_slices_of_large_images_join_without_a_seam(embed_dim: int, dtype: torch.dtype) -> None:
    """So large that it is worked on in slices, and 48, 34, 20 and 16 channels in groups of 16, 34, 10 and 16."""
    config = {"embed_dim": embed_dim, "depths": (1, 1), "upscale": 1, "lk_kernel": 7, "num_feat": 8}
    weights = weights_of(**config)
    x = torch.rand(2, 3, 81, 107)
    expected = plain_output(x, weights, **config)
    model = JUNE.build(weights, dtype=dtype)
    for _ in range(2):
        assert_computes(model, x.to(dtype), expected, 1e-5 if dtype == torch.float32 else 0.05)
        model.fuse_model()


@pytest.mark.parametrize("config", [TINY, BOTH, CONFIGS3["no attention"], CONFIGS3["layernorm"]], ids=range(4))
@pytest.mark.parametrize("embed_dim", [48, 34], ids="{} channels".format)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_those_of_the_later_generation_do(config: dict[str, Any], embed_dim: int, dtype: torch.dtype) -> None:
    config = {**config, "embed_dim": embed_dim, "scale": 1}
    weights = weights3_of(**config)
    x = torch.rand(2, 3, 91, 99)
    expected = plain3_output(x, weights, **config)
    model = LATER.build(weights, dtype=dtype)
    for _ in range(2):
        assert_computes(model, x.to(dtype), expected, 1e-5 if dtype == torch.float32 else 0.05)
        model.fuse_model()


@pytest.mark.parametrize(("upscale", "num_feat"), [(1, 32), (2, 32), (2, 8), (3, 32), (4, 32), (4, 8), (8, 32)])
def test_strips_of_a_large_image_join_without_a_seam(upscale: int, num_feat: int) -> None:
    """With 8 features upsampler and last convolution do not pay as one, and are done to pieces of the strips."""
    config = {"embed_dim": 16, "depths": (1,), "upscale": upscale, "num_feat": num_feat}
    weights = weights_of(**config)
    x = torch.rand(1, 3, 72, 2**16 // max(32, 3 * upscale**2))
    assert_computes(JUNE.build(weights), x, plain_output(x, weights, **config))


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_strips_of_a_large_picture_join_without_a_seam(scale: int) -> None:
    config = {**TINY, "scale": scale}
    weights = weights3_of(**config)
    x = torch.rand(1, 3, 72, 2**16 // max(32, 3 * scale**2))
    assert_computes(LATER.build(weights), x, plain3_output(x, weights, **config))


@pytest.mark.parametrize("size", [(1, 300), (300, 1), (1, 9001), (1501, 6), (23, 401)], ids=str)
def test_images_of_any_shape(size: tuple[int, int]) -> None:
    config = {"embed_dim": 20, "depths": (1,), "lk_kernel": 7, "upscale": 2, "num_feat": 8}
    weights = weights_of(**config)
    x = torch.rand(1, 3, *size)
    assert_close(infer(JUNE.build(weights), x), plain_output(x, weights, **config))


@pytest.mark.parametrize("width", [256, 512])
@pytest.mark.parametrize("mkl", [True, False], ids=["with MKL", "without"])
def test_on_other_processors_too(monkeypatch: pytest.MonkeyPatch, width: int, mkl: bool) -> None:
    monkeypatch.setattr(layers, "vector_width", lambda: width)
    monkeypatch.setattr(layers, "is_of_intel", lambda: False)
    if not mkl:
        for user in (layers, module("engine.team")):
            monkeypatch.setattr(user, "has_products", lambda: False)
    config = {"embed_dim": 24, "depths": (2,), "mlp_ratio": 1.3, "upscale": 2}
    weights = weights_of(**config)
    for size in ((17, 19), (90, 95)):
        x = torch.rand(2, 3, *size)
        assert_computes(JUNE.build(weights), x, plain_output(x, weights, **config))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_computed_in_single_where_the_processor_has_none(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(layers, "has_bfloat16", lambda: False)
    for build in (
        lambda of: JUNE.build(weights_of(**CONFIGS["rgb"]), dtype=of),
        lambda of: LATER.build(weights3_of(**BOTH), dtype=of),
    ):
        model = build(dtype)
        rounded = build(torch.float32)
        rounded.load_state_dict(model.state_dict())
        x = torch.rand(1, 3, 20, 30).to(dtype)
        assert torch.equal(infer(model, x), infer(rounded, x.float()).to(dtype))
        assert {each.dtype for each in model.parameters()} == {dtype}, "the network itself stays as it was"


def test_leaves_its_input_and_the_random_numbers_alone() -> None:
    model = JUNE.build(weights_of(embed_dim=8, depths=(2,), upscale=1))
    x = torch.rand(1, 3, 20, 20).contiguous(memory_format=torch.channels_last)
    before, numbers = x.clone(), torch.get_rng_state()
    assert torch.equal(infer(model, x), infer(model, x))
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), numbers)
