"""The later generation is told from every other network, in both directions, and from what only looks like it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks import JUNE, LATER
from weights import GOLDEN_NAMES, golden
from weights3 import FORMS, StateDict, read_release, weights3_of

SMALL = {"embed_dim": 16, "depths": (1, 1), "lk_kernel": 7, "sk_kernel": 3, "scale": 2}


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_the_generations_do_not_claim_each_other(name: str) -> None:
    june = golden(name).unfused
    later = weights3_of(**SMALL)
    for weights, own, other in ((june, JUNE, LATER), (later, LATER, JUNE)):
        for form in (weights, own.fuse(weights)):
            for container in (form, {"params": form}, {f"module.{key}": tensor for key, tensor in form.items()}):
                assert own.form(container)
                assert other.form(container) is None
                assert other.refusal(container) is None


@pytest.mark.parametrize("oddity", [{}, {"a": None}, {1: 2}, {"stages": {"0": {}}}, {"stages.0.0": torch.zeros(1)}])
def test_asking_never_fails_whatever_the_dict_holds(oddity: dict[Any, Any]) -> None:
    assert LATER.form(oddity) is None
    assert LATER.refusal(oddity) is None
    for odd in (None, 3, "x", torch.zeros(2, 2), torch.zeros(0), torch.ones(3).to("meta"), torch.ones(3).to_sparse()):
        weights = {**weights3_of(**SMALL), "model_version": odd, "stages.0.0.ffn.temperature": odd, "scale_tensor": odd}
        LATER.form(weights)
        LATER.refusal(weights)


CONTAINERS: dict[str, Callable[[StateDict], dict[str, Any]]] = {
    "bare": lambda sd: sd,
    "the author's training": lambda sd: {"arch_config": {"embed_dim": 16, "fused_init": False}, "params": sd},
    "a release": lambda sd: {"state_dict": sd, "metadata": {**read_release()["metadata"]}},
    "both, of which the average counts": lambda sd: {"params": {k: v + 1 for k, v in sd.items()}, "params_ema": sd},
    "net_g with a counter": lambda sd: {"net_g": sd, "iter": 5000},
    "module.": lambda sd: {f"module.{k}": v for k, v in sd.items()},
    "params with _orig_mod.": lambda sd: {"params": {f"_orig_mod.{k}": v for k, v in sd.items()}},
    "averaged model": lambda sd: {"n_averaged": torch.tensor(7), **{f"module.{k}": v for k, v in sd.items()}},
    "version buffers": lambda sd: {
        **sd,
        "model_version": torch.tensor([3, 1, 1]),
        "pt_version": torch.tensor([2, 7, 1]),
    },
    "version buffers in half precision": lambda sd: {
        **sd,
        "model_version": torch.tensor([3.0, 1.0, 1.0]).half(),
        "pt_version": torch.tensor(list(b"2.7"), dtype=torch.uint8),
    },
}


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("form", FORMS)
def test_finds_the_weights_in_every_container(container: Callable[[StateDict], Any], form: str) -> None:
    weights = weights3_of(**SMALL)
    if form == "fused":
        weights = LATER.fuse(weights)
    content = container(weights)
    assert LATER.form(content) == form
    model = LATER.build(content)
    assert list(model.state_dict()) == list(weights)
    assert all(torch.equal(tensor, weights[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_files_load(form: str) -> None:
    weights = weights3_of(**SMALL)
    weights = LATER.fuse(weights) if form == "fused" else weights
    half = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in weights.items()}
    assert half["scale_tensor"].dtype == torch.int64
    everything_in_half = {key: tensor.half() for key, tensor in weights.items()}
    for content in (half, everything_in_half):
        model = LATER.build(content)
        assert model.upscale == 2
        assert torch.equal(model.conv_first.weight, half["conv_first.weight"].float())
        assert model.scale_tensor.dtype == torch.int64
        assert model.scale_tensor == 2


def earlier(**changes: Any) -> Callable[[StateDict], dict[str, Any]]:
    return lambda sd: {**sd, **changes}


def renamed(old: str, new: str) -> Callable[[StateDict], dict[str, Any]]:
    return lambda sd: {new if key == old else key: tensor for key, tensor in sd.items()}


TEMPERATURE = "stages.0.0.ffn.temperature"
SUBVERSIONS: dict[str, tuple[str, Callable[[StateDict], dict[str, Any]]]] = {
    "version 3.1.0": ("unfused", earlier(model_version=torch.tensor([3, 1, 0]))),
    "version 3.0.0, fused": ("fused", earlier(model_version=torch.tensor([3, 0, 0]))),
    "version 2.9.9 in half precision": ("fused", earlier(model_version=torch.tensor([2.0, 9.0, 9.0]).half())),
    "scale in place of scale_tensor": ("unfused", renamed("scale_tensor", "scale")),
    "a temperature without an axis": ("fused", earlier(**{TEMPERATURE: torch.tensor(1.0)})),
    "a counter of batches": ("unfused", earlier(**{"stages.0.0.norm.num_batches_tracked": torch.tensor(9)})),
    "a bias in the large kernel": ("unfused", earlier(**{"stages.0.0.conv.lk_conv.bias": torch.zeros(16)})),
    "statistics in a fused file": ("fused", earlier(**{"norm.running_mean": torch.zeros(1, 16, 1, 1)})),
}


@pytest.mark.parametrize(("form", "change"), SUBVERSIONS.values(), ids=SUBVERSIONS)
def test_earlier_sub_versions_are_named_and_never_detected(form: str, change: Callable[[StateDict], Any]) -> None:
    weights = weights3_of(**SMALL)
    weights = LATER.fuse(weights) if form == "fused" else weights
    for content in (change(weights), {"params": {f"module.{k}": v for k, v in change(weights).items()}}):
        assert LATER.form(content) is None
        assert "earlier sub-version" in LATER.refusal(content)
        with pytest.raises(ValueError, match="earlier sub-version") as caught:
            LATER.build(content)
        assert "damaged" not in str(caught.value)


def test_a_newer_sub_version_is_not_taken_for_this_one() -> None:
    weights = {**weights3_of(**SMALL), "model_version": torch.tensor([3, 2, 0])}
    assert LATER.form(weights) is None
    assert "newer sub-version, 3.2.0" in LATER.refusal(weights)


def quantised(weights: StateDict, key: str) -> dict[str, Any]:
    """As converting to int8 leaves a layer: its weight quantised, the scale of its output, and no bias."""
    layer = key.rpartition(".")[0]
    return {
        **weights,
        key: torch.quantize_per_tensor(weights[key], 0.01, 0, torch.qint8),
        f"{layer}.scale": torch.tensor(0.1),
        f"{layer}.zero_point": torch.tensor(0),
        f"{layer}.bias": None,
    }


def packed(weights: StateDict, key: str) -> dict[str, Any]:
    """As converting to int8 leaves a linear layer."""
    layer = key.rpartition(".")[0]
    rest = {name: tensor for name, tensor in weights.items() if not name.startswith(layer)}
    pair = (torch.quantize_per_tensor(weights[key], 0.01, 0, torch.qint8), None)
    return {**rest, f"{layer}._packed_params._packed_params": pair, f"{layer}._packed_params.dtype": torch.qint8}


def raw(weights: StateDict, key: str) -> dict[str, Any]:
    return {**weights, key: weights[key].to(torch.int8)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [quantised, packed, raw])
@pytest.mark.parametrize("generation", ["2025-06", "3.1"])
def test_int8_files_are_named_and_never_detected(make: Callable[..., dict[str, Any]], generation: str) -> None:
    network, key = (JUNE, "layers.0.0.ffn.fc1_gate.weight")
    if generation == "3.1":
        network, key = (LATER, "stages.0.0.ffn.conv_gate.weight")
    whole = golden("tiny_x2").unfused if generation == "2025-06" else weights3_of(**SMALL)
    content = {"params": make(network.fuse(whole), key)}
    assert network.form(content) is None
    assert "int8, quantised" in network.refusal(content)
    assert "use the float file it was made from" in network.refusal(content)
    with pytest.raises(ValueError, match="int8, quantised"):
        network.clean(content)


@pytest.mark.parametrize("generation", ["2025-06", "3.1"])
def test_checkpoints_of_quantisation_aware_training_are_named_and_never_detected(generation: str) -> None:
    network, whole = (JUNE, golden("tiny_x2").unfused)
    if generation == "3.1":
        network, whole = (LATER, weights3_of(**SMALL))
    fused = network.fuse(whole)
    for noted in ("conv_first.weight_fake_quant.scale", "conv_first.activation_post_process.eps"):
        content = {**fused, noted: torch.ones(1)}
        assert network.form(content) is None
        assert "quantisation-aware training" in network.refusal(content)
