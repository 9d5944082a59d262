"""Every version of spandrel loads every golden file as what it is, and is as before once AetherNet is removed."""

from __future__ import annotations

import importlib
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from environments import SUPPORTED, quietly, snapshot, wheel
from imports import spandrel_of
from model_files import fuse
from networks import JUNE, LATER
from safetensors.torch import save_file
from weights import GOLDEN_NAMES, golden
from weights3 import FORMS, GOLDEN3_NAMES, RELEASE, golden3, release_io

from aether_install.tree.commands import install, uninstall
from aether_install.tree.layout import Spandrel

ATTENTIONS = {"use_channel_attn": "channel attention", "use_spatial_attn": "spatial attention"}


@dataclass(frozen=True)
class Case:
    """
    A model file, and what becomes of it.

    Attributes:
        family, form: of which its architecture is.
        size: by which its name calls it.
        config: the arguments of the network, as far as a descriptor tells of them.
        x, y: a picture, and what the published network makes of it.
        within: how far from that it may be.
    """

    path: Path
    family: str
    form: str
    size: str
    config: dict[str, Any]
    x: torch.Tensor
    y: torch.Tensor
    within: float


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    folder = tmp_path_factory.mktemp("models")
    made = []
    for name in GOLDEN_NAMES:
        june = golden(name)
        size = "small" if name == "small_x2" else f"{june.config['embed_dim']}dim"
        for form, weights in (("unfused", june.unfused), ("fused", JUNE.fuse(june.unfused))):
            path = folder / f"{name}.{form}.pth"
            torch.save(weights, path)
            made.append(Case(path, "AetherNet", form, size, june.config, june.x, june.y, 1e-5))
    for name in GOLDEN3_NAMES:
        later = golden3(name)
        size, config = f"{later.config['embed_dim']}dim", {"upscale": later.config["scale"], **later.config}
        for form in FORMS:
            path = folder / f"{name}.{form}.safetensors"
            save_file(LATER.fold(LATER.clean(later.weights(form)), **later.noted), path)
            made.append(Case(path, "AetherNet3", form, size, config, later.x, later.y, 5e-6 * later.span))
    x, y = release_io()
    fuse(RELEASE, folder / "release.pth")
    span = (y.max() - y.min()).item()
    return [
        *made,
        Case(folder / "release.pth", "AetherNet3", "fused", "16dim", {"upscale": 2, "in_chans": 3}, x, y, 5e-5 * span),
    ]


def assert_loads(spandrel: Any, case: Case) -> None:
    descriptor = spandrel.ModelLoader().load_from_file(case.path)
    claims = [s.architecture.id for s in spandrel.MAIN_REGISTRY if s.detect(descriptor.model.state_dict())]
    assert claims == [descriptor.architecture.id] == [f"{case.family}-{case.form.title()}"]
    assert descriptor.name == f"{case.family} {case.size} {case.config['upscale']}x ({case.form})"
    assert descriptor.scale == case.config["upscale"]
    assert [descriptor.input_channels, descriptor.output_channels] == [case.config["in_chans"]] * 2
    assert case.form in descriptor.tags
    for argument, tag in ATTENTIONS.items():
        assert argument not in case.config or (tag in descriptor.tags) == case.config[argument]
    with torch.inference_mode():
        assert (descriptor.model(case.x) - case.y).abs().max() <= case.within


def compact() -> dict[str, torch.Tensor]:
    """A network of another architecture."""
    shapes = {"body.0.weight": (8, 3, 3, 3), "body.0.bias": (8,), "body.1.weight": (8,)}
    shapes |= {"body.2.weight": (12, 8, 3, 3), "body.2.bias": (12,)}
    return {key: torch.zeros(shape) for key, shape in shapes.items()}


@pytest.mark.parametrize("version", SUPPORTED)
def test_loads_every_golden_file_and_no_other_architecture_claims_it(
    tmp_path: Path, cases: list[Case], version: str
) -> None:
    shutil.unpack_archive(wheel(version), tmp_path, "zip")
    before, own = snapshot(tmp_path), Spandrel(tmp_path / "spandrel")
    install(own, progress=quietly)
    with spandrel_of(tmp_path), warnings.catch_warnings(record=True) as caught:
        spandrel = importlib.import_module("spandrel")
        assert spandrel.__version__ == version
        for case in cases:
            assert_loads(spandrel, case)
        assert spandrel.ModelLoader().load_from_state_dict(compact()).architecture.id == "Compact"
    assert [str(warning.message) for warning in caught if "AetherNet" in str(warning.message)] == []
    uninstall(own, progress=quietly)
    assert snapshot(tmp_path) == before
