"""AetherNet is told from every other network, in both directions."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import pytest
import spandrel
import spandrel.architectures
import torch
from networks import JUNE
from spandrel import MAIN_REGISTRY
from spandrel.architectures import AetherNet
from weights import GOLDEN_NAMES, golden
from weights3 import golden3

from aether_install.models.generations import GENERATIONS

OURS = {architecture().id for architecture in AetherNet.ARCHITECTURES}

ARGUMENTS: dict[str, dict[str, Any]] = {
    "AuraSR": {
        "dim": 16,
        "image_size": 64,
        "input_image_size": 16,
        "style_network": {"dim_in": 16, "dim_out": 16, "depth": 2},
    },
    "MMRealSR": {"num_in_ch": 3, "num_out_ch": 3},
    "SAFMN": {"dim": 36},
    "SAFMNBCIE": {"dim": 36},
    "SPAN": {"num_in_ch": 3, "num_out_ch": 3},
    "SwinIR": {"window_size": 8},
    "Swin2SR": {"window_size": 8},
}
"""What the networks need that cannot be built at their defaults."""


def networks() -> list[Any]:
    """The class of every network in spandrel, as a test parameter."""
    found = []
    for module in pkgutil.iter_modules(spandrel.architectures.__path__):
        if module.name.startswith("__") or module.name == "AetherNet":
            continue
        package = importlib.import_module(f"spandrel.architectures.{module.name}")
        exported = (getattr(package, name) for name in package.__all__)
        classes = [item for item in exported if isinstance(item, type) and issubclass(item, torch.nn.Module)]
        found += [pytest.param(module.name, item, id=f"{module.name}-{item.__name__}") for item in classes]
    return found


@pytest.mark.parametrize(("architecture", "network"), networks())
def test_claims_none_of_spandrels_own_networks(architecture: str, network: type[torch.nn.Module]) -> None:
    weights = network(**ARGUMENTS.get(architecture, {})).state_dict()
    claims = [support.architecture.id for support in MAIN_REGISTRY if support.detect(weights)]
    assert not set(claims) & OURS
    for generation in GENERATIONS:
        assert generation.form(weights) is None
        assert generation.form({"params": weights}) is None
        assert generation.refusal(weights) is None


@pytest.mark.parametrize("name", GOLDEN_NAMES)
@pytest.mark.parametrize("form", ["fused", "unfused"])
def test_none_of_spandrels_own_claims_an_aethernet(name: str, form: str) -> None:
    weights = golden(name).unfused
    if form == "fused":
        weights = JUNE.fuse(weights)
    claims = [support.architecture.id for support in MAIN_REGISTRY if support.detect(weights)]
    assert claims == [f"AetherNet-{form.title()}"]


def test_every_architecture_of_spandrel_is_among_those_built() -> None:
    built = {architecture for architecture, _ in (parameter.values for parameter in networks())}
    assert built == {str(support.architecture.id) for support in MAIN_REGISTRY} - OURS


@pytest.mark.parametrize("form", ["fused", "unfused"])
def test_never_claims_the_later_generation(form: str) -> None:
    weights = golden3("a_x2_base").weights(form)
    assert JUNE.form(weights) is None
    assert JUNE.form({"params_ema": {f"module.{key}": value for key, value in weights.items()}}) is None
    claims = [support.architecture.id for support in MAIN_REGISTRY if support.detect(weights)]
    assert claims == [f"AetherNet3-{form.title()}"]


@pytest.mark.parametrize("oddity", [{}, {"a": None}, {1: 2}, {"layers": {"0": {}}}, {"layers.0.0": torch.zeros(1)}])
def test_asking_never_fails_whatever_the_dict_holds(oddity: dict[Any, Any]) -> None:
    assert JUNE.form(oddity) is None


def test_mappings_that_hold_themselves_cost_nothing() -> None:
    """Looked into along every path, this one would take 300 ** 4 looks, and hang every host that asks."""
    itself: dict[str, Any] = {}
    itself.update({f"key{number}": itself for number in range(300)})
    for generation in GENERATIONS:
        assert generation.form(itself) is None
        assert generation.refusal(itself) is None
    assert JUNE.form({"ema": itself, "params": golden("tiny_x2").unfused}) == "unfused"


def test_weights_are_found_by_a_short_way_where_a_long_one_ends_before_them() -> None:
    group = {"inner": {"params": golden("tiny_x2").unfused}}
    assert JUNE.form({"ema": {"b": {"c": {"d": group}}}, "z": group}) == "unfused"
