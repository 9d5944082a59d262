"""Damaged weights are refused by the key at fault, or not detected; they are never loaded wrongly."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
import spandrel
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import JUNE
from plain import PlainAether
from weights import StateDict, weights_of

from aether_install.models.generations import GENERATIONS

CONFIG = {"embed_dim": 6, "depths": (2, 1), "upscale": 4, "lk_kernel": 5, "num_feat": 8, "mlp_ratio": 1.5}
UNFUSED = weights_of(**CONFIG)
FUSED: StateDict = JUNE.fuse(UNFUSED)


def load(weights: dict[str, Any]) -> Any:
    return spandrel.ModelLoader().load_from_state_dict(weights)


def refusal(weights: dict[str, Any]) -> str:
    with pytest.raises((ValueError, spandrel.UnsupportedModelError)) as caught:
        load(weights)
    return "not detected" if caught.type is spandrel.UnsupportedModelError else str(caught.value)


each_form = pytest.mark.parametrize("whole", [UNFUSED, FUSED], ids=["unfused", "fused"])


@each_form
def test_any_missing_key_is_named(whole: StateDict) -> None:
    for key in whole:
        damaged = {name: tensor for name, tensor in whole.items() if name != key}
        assert f"{key} is missing" in refusal(damaged)


@each_form
def test_any_renamed_key_is_named(whole: StateDict) -> None:
    for key in whole:
        damaged = {name + "x" if name == key else name: tensor for name, tensor in whole.items()}
        assert f"{key} is missing" in refusal(damaged)


@each_form
def test_any_unknown_key_is_named(whole: StateDict) -> None:
    assert "extra.weight does not belong" in refusal({**whole, "extra.weight": torch.zeros(3)})


@each_form
@pytest.mark.parametrize("reshape", ["longer", "flat", "number", "integers"])
def test_any_wrong_tensor_is_named(whole: StateDict, reshape: str) -> None:
    for key, tensor in whole.items():
        wrong = {
            "longer": torch.cat([tensor, tensor[:1]]),
            "flat": tensor.reshape(-1, 1, 1),
            "number": tensor.reshape(-1)[0],
            "integers": tensor.long(),
        }[reshape]
        message = refusal({**whole, key: wrong})
        assert key in message, (key, message)


def test_a_missing_block_is_named() -> None:
    deeper = weights_of(**{**CONFIG, "depths": (3, 2, 1)})
    for block, first in (
        ("layers.0.1.", "layers.0.1.conv.lk_conv.weight"),
        ("layers.1.0.", "layers.1.0.conv.lk_conv.weight"),
        ("layers.1.", "layers.1.0.conv.lk_conv.weight"),
        ("layers.0.", "layers.0.0.conv.lk_conv.weight"),
        ("upsample.0.", "upsample.0.weight"),
    ):
        damaged = {key: tensor for key, tensor in deeper.items() if not key.startswith(block)}
        assert first in refusal(damaged)


def test_fused_and_unfused_blocks_do_not_mix() -> None:
    fused_first = {k: v for k, v in FUSED.items() if not k.startswith("layers.1.")}
    fused_first.update({k: v for k, v in UNFUSED.items() if k.startswith("layers.1.")})
    assert "layers.1.0.conv." in refusal(fused_first)
    assert "mixed" in refusal(fused_first)
    assert "mixed" in refusal({**UNFUSED, **FUSED})


def test_absurd_numbers_in_keys_cost_nothing() -> None:
    for key in (f"layers.{10**12}.0.norm.weight", f"layers.0.{10**12}.norm.weight", f"upsample.{10**12}.weight"):
        assert f"{key} does not belong" in refusal({**UNFUSED, key: torch.zeros(6)})


def test_stray_and_renamed_keys_of_the_upsampler_and_of_blocks_are_named() -> None:
    whole = weights_of(**{**CONFIG, "upscale": 4})
    for old, new in (("0.weight", "1.weight"), ("2.weight", "3.weight"), ("2.bias", "4.bias"), ("0.bias", "x.bias")):
        renamed = {f"upsample.{new}" if k == f"upsample.{old}" else k: v for k, v in whole.items()}
        assert f"upsample.{old} is missing" in refusal(renamed)
    for key in ("upsample.1.weight", "upsample.9.weight", "upsample.8.bias", "layers.0.7.foo", "layers.5.0.norm.bias"):
        assert f"{key} does not belong" in refusal({**whole, key: torch.zeros(6)})


@pytest.mark.parametrize("key", ["conv_first.weight", "conv_last.weight", "layers.0.0.norm.bias"])
def test_tensors_without_values_are_named(key: str) -> None:
    whole = UNFUSED[key]
    for tensor in (whole.to("meta"), whole.to_sparse(), whole[:0], whole.narrow(-1, 0, 0)):
        assert key in refusal({**UNFUSED, key: tensor}), tensor


def test_the_one_of_three_that_stands_out_is_named() -> None:
    wrong = UNFUSED["conv_last.weight"][1:]
    assert "conv_last.weight" in refusal({**UNFUSED, "conv_last.weight": wrong})


@st.composite
def damage(draw: st.DrawFn) -> dict[str, Any]:
    """A state dict to which one to three things were done."""
    weights: dict[str, Any] = dict(draw(st.sampled_from([UNFUSED, FUSED])))
    for _ in range(draw(st.integers(1, 3))):
        key = draw(st.sampled_from(sorted(weights)))
        what = draw(st.sampled_from(["drop", "rename", "swap", "reshape", "trim", "mix", "dtype", "replace"]))
        other = draw(st.sampled_from(sorted(weights)))
        if what == "drop":
            del weights[key]
        elif what == "rename":
            weights[draw(st.sampled_from(["layers.0.0.conv.x", key.replace("0", "1"), f"module.{key}"]))] = weights.pop(
                key
            )
        elif what == "swap":
            weights[key], weights[other] = weights[other], weights[key]
        elif what == "mix":
            source = draw(st.sampled_from([UNFUSED, FUSED]))
            name = draw(st.sampled_from(sorted(source)))
            weights[name] = source[name]
        elif what == "replace":
            weights[key] = draw(st.sampled_from([None, 3, "text", [], torch.zeros(0), torch.tensor(1.0)]))
        elif isinstance(weights[key], torch.Tensor):
            tensor = weights[key]
            if what == "reshape" and tensor.numel():
                sides = draw(st.permutations(tensor.shape))
                weights[key] = tensor.reshape(sides)
            elif what == "trim" and tensor.dim():
                axis = draw(st.integers(0, tensor.dim() - 1))
                weights[key] = tensor.narrow(axis, 0, draw(st.integers(0, tensor.shape[axis])))
            elif what == "dtype":
                weights[key] = tensor.to(draw(st.sampled_from([torch.int8, torch.bool, torch.complex64, torch.half])))
    return weights


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(damage())
def test_whatever_is_done_to_it_loads_right_or_is_refused(weights: dict[str, Any]) -> None:
    try:
        descriptor = load(weights)
    except (ValueError, spandrel.UnsupportedModelError):
        return
    model = descriptor.model
    unsaid = {"drop_rate", "drop_path_rate"}
    oracle = PlainAether(**{name: value for name, value in model.hyperparameters.items() if name not in unsaid})
    kept = {key: tensor for key, tensor in weights.items() if isinstance(tensor, torch.Tensor) and tensor.dim()}
    oracle.load_state_dict(kept, strict=True)
    x = torch.rand(1, descriptor.input_channels, 4, 5)
    with torch.inference_mode():
        torch.testing.assert_close(model(x), oracle(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("index", ["9" * 5000, "0" * 600, "12345"], ids=["5,000 digits", "600 zeros", "12345"])
def test_a_number_that_no_network_has_is_no_block(index: str) -> None:
    for key in (f"layers.{index}.0.conv.fused_conv.weight", f"layers.0.{index}.conv.fused_conv.weight"):
        assert f"{key} does not belong" in refusal({**FUSED, key: torch.zeros(3)})
        assert JUNE.form({key: torch.zeros(3)}) is None
    assert "does not belong" in refusal({**FUSED, f"upsample.{index}.weight": torch.zeros(3)})


def calls(work: Callable[[], object], events: tuple[str, ...] = ("call", "c_call")) -> int:
    """How many functions are called, which says more of what takes long than seconds do."""
    number = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal number
        number += event in events

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return number


@pytest.mark.parametrize(
    "key", ["upsample.{}.weight", "layers.0.{}.conv.fused_conv.weight", "layers.{}.0.norm.weight", "{}"]
)
def test_strangers_keys_take_no_longer_than_there_are_of_them(key: str) -> None:
    def work(number: int) -> int:
        weights = {**FUSED, **{key.format(index + 10): torch.zeros(3) for index in range(number)}}

        def refused() -> None:
            with pytest.raises(ValueError, match="AetherNet"):
                JUNE.deduce(weights)

        return calls(refused)

    assert work(2000) < 2.5 * work(1000)


@pytest.mark.parametrize("number", [1000, 100_000])
def test_asking_about_other_networks_runs_no_python_for_each_key(number: int) -> None:
    others = {f"model.layers.{index}.mlp.weight": torch.zeros(0) for index in range(number)}
    assert calls(lambda: [generation.form(others) for generation in GENERATIONS], events=("call",)) < 50
