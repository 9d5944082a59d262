"""Damaged weights of the later generation are refused by the key at fault, or not detected; never loaded wrongly."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import LATER
from plain3 import PlainAether3
from weights3 import StateDict, weights3_of

CONFIG: dict[str, Any] = {
    "embed_dim": 17,
    "depths": (2, 1),
    "scale": 4,
    "lk_kernel": 5,
    "sk_kernel": 3,
    "use_spatial_attn": True,
}
UNFUSED = weights3_of(**CONFIG)
FUSED: StateDict = LATER.fuse(UNFUSED)
LAYERNORM = weights3_of(**{**CONFIG, "norm_type": "layernorm", "scale": 1})

each_form = pytest.mark.parametrize("whole", [UNFUSED, FUSED, LAYERNORM], ids=["unfused", "fused", "layernorm"])


def load(weights: dict[str, Any]) -> Any:
    """As the architecture goes about it; None if none of its classes claims the weights."""
    if LATER.form(weights) is None:
        return None
    clean = LATER.clean(weights)
    model = LATER.prepare(clean)
    model.load_state_dict(clean)
    return model


def refusal(weights: dict[str, Any]) -> str:
    with pytest.raises(ValueError, match="damaged AetherNet weights") as caught:
        load(weights)
    return str(caught.value)


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
    for key in (
        "extra.weight",
        "stages.0.0.norm.scale",
        "stages.0.7.foo",
        "stages.5.0.norm.bias",
        "upsample.blocks.8.bias",
    ):
        assert f"{key} does not belong" in refusal({**whole, key: torch.zeros(3)})


# All four in the form with the most keys, and each of them in one of the others.
@pytest.mark.parametrize(
    ("whole", "reshape"),
    [
        *((UNFUSED, reshape) for reshape in ("longer", "flat", "number", "integers")),
        *((FUSED, reshape) for reshape in ("longer", "number")),
        *((LAYERNORM, reshape) for reshape in ("flat", "integers")),
    ],
)
def test_any_wrong_tensor_is_named(whole: StateDict, reshape: str) -> None:
    for key, tensor in whole.items():
        if reshape in ("number", "integers") and tensor.dim() == 0:
            continue  # which is what it has to be
        if reshape == "number" and key.endswith("temperature"):
            continue  # which is how another sub-version is told
        wrong = {
            "longer": torch.cat([tensor.reshape(tensor.shape or 1), tensor.reshape(tensor.shape or 1)[:1]]),
            "flat": tensor.reshape(-1, 1, 1),
            "number": tensor.reshape(-1)[0],
            "integers": tensor.long(),
        }[reshape]
        message = refusal({**whole, key: wrong})
        assert key in message, (key, message)


@pytest.mark.parametrize("scale", [0, 1, 2, 3, 5, 8, -4, 2**40])
def test_a_scale_that_is_not_the_upsamplers_is_named(scale: int) -> None:
    assert "scale_tensor says" in refusal({**UNFUSED, "scale_tensor": torch.tensor(scale)})
    for other in (torch.tensor(4.5), torch.tensor(float("nan")), torch.tensor(4j), torch.tensor(4).to("meta")):
        assert "scale_tensor" in refusal({**UNFUSED, "scale_tensor": other})


def test_a_missing_block_is_named() -> None:
    deeper = weights3_of(**{**CONFIG, "depths": (3, 2, 1)})
    for block, first in (
        ("stages.0.1.", "stages.0.1.conv.lk_conv.weight"),
        ("stages.1.0.", "stages.1.0.conv.lk_conv.weight"),
        ("stages.1.", "stages.1.0.conv.lk_conv.weight"),
        ("stages.0.", "stages.0.0.conv.lk_conv.weight"),
        ("upsample.blocks.0.", "upsample.blocks.0.weight"),
        ("fusion_convs.1.", "fusion_convs.1.weight"),
        ("stages.1.0.channel_attn.", "stages.1.0.channel_attn.fc.0.weight"),
        ("stages.1.0.spatial_attn.", "stages.1.0.spatial_attn.conv.weight"),
    ):
        damaged = {key: tensor for key, tensor in deeper.items() if not key.startswith(block)}
        assert f"{first} is missing" in refusal(damaged)


def test_a_missing_stage_of_the_upsampler_is_named_where_the_rest_would_do_for_a_smaller_scale() -> None:
    for config in (CONFIG, {**CONFIG, "embed_dim": 64}, {**CONFIG, "embed_dim": 96}, {**CONFIG, "scale": 8}):
        stages = {4: 2, 8: 3}[config["scale"]]
        last = f"upsample.blocks.{2 * stages - 2}."
        damaged = {key: tensor for key, tensor in weights3_of(**config).items() if not key.startswith(last)}
        assert f"{last}weight is missing" in refusal(damaged)


def test_an_attention_that_few_blocks_have_does_not_belong() -> None:
    config = {**CONFIG, "use_spatial_attn": False, "depths": (2, 2)}
    stray = "stages.0.1.spatial_attn.conv.weight"
    assert f"{stray} does not belong" in refusal({**weights3_of(**config), stray: torch.zeros(1, 2, 7, 7)})


def test_fused_and_unfused_blocks_do_not_mix() -> None:
    fused_first = {k: v for k, v in FUSED.items() if not k.startswith("stages.1.")}
    fused_first.update({k: v for k, v in UNFUSED.items() if k.startswith("stages.1.")})
    assert "stages.1.0.conv." in refusal(fused_first)
    assert "mixed" in refusal(fused_first)
    assert "mixed" in refusal({**UNFUSED, **FUSED})


def test_absurd_numbers_in_keys_cost_nothing() -> None:
    for key in (
        f"stages.{10**12}.0.norm.weight",
        f"stages.0.{10**12}.norm.weight",
        f"upsample.blocks.{10**12}.weight",
        f"fusion_convs.{10**12}.bias",
    ):
        assert f"{key} does not belong" in refusal({**UNFUSED, key: torch.zeros(6)})


@pytest.mark.parametrize(
    "key", ["conv_first.weight", "conv_last.weight", "stages.0.0.norm.bias", "mean", "norm.running_var"]
)
def test_tensors_without_values_are_named(key: str) -> None:
    whole = UNFUSED[key]
    for tensor in (whole.to("meta"), whole.to_sparse(), whole[:0], whole.narrow(-1, 0, 0)):
        assert key in refusal({**UNFUSED, key: tensor}), tensor


@st.composite
def damage(draw: st.DrawFn) -> dict[str, Any]:
    """A state dict to which one to three things were done."""
    weights: dict[str, Any] = dict(draw(st.sampled_from([UNFUSED, FUSED, LAYERNORM])))
    for _ in range(draw(st.integers(1, 3))):
        key = draw(st.sampled_from(sorted(weights)))
        what = draw(st.sampled_from(["drop", "rename", "swap", "reshape", "trim", "mix", "dtype", "replace"]))
        other = draw(st.sampled_from(sorted(weights)))
        if what == "drop":
            del weights[key]
        elif what == "rename":
            names = ["stages.0.0.conv.x", re.sub("0", "1", key, count=1), f"module.{key}", "scale", "model_version"]
            weights[draw(st.sampled_from(names))] = weights.pop(key)
        elif what == "swap":
            weights[key], weights[other] = weights[other], weights[key]
        elif what == "mix":
            source = draw(st.sampled_from([UNFUSED, FUSED, LAYERNORM]))
            name = draw(st.sampled_from(sorted(source)))
            weights[name] = source[name]
        elif what == "replace":
            weights[key] = draw(st.sampled_from([None, 3, "text", [], torch.zeros(0), torch.tensor(1.0)]))
        elif isinstance(weights[key], torch.Tensor):
            tensor = weights[key]
            if what == "reshape" and tensor.numel():
                weights[key] = tensor.reshape(draw(st.permutations(tensor.shape)))
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
        model = load(weights)
    except ValueError:
        return
    if model is None:
        return
    unsaid = {"drop", "drop_path_rate", "squeeze", "stage_widths", "upsample_widths"}
    oracle = PlainAether3(**{name: value for name, value in model.hyperparameters.items() if name not in unsaid})
    notes = ("model_version", "pt_version")
    kept = {
        key: tensor
        for key, tensor in weights.items()
        if isinstance(tensor, torch.Tensor) and (tensor.dim() or key == "scale_tensor") and key not in notes
    }
    oracle.load_state_dict(kept, strict=True)
    x = torch.rand(1, model.hyperparameters["in_chans"], 4, 5)
    with torch.inference_mode():
        torch.testing.assert_close(model(x), oracle(x), rtol=1e-4, atol=1e-4, equal_nan=True)
