"""Fusing and inspecting the later generation, and files that are fused already and yet not what hosts need."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import spandrel
import torch
from model_files import fuse
from networks import JUNE, LATER, aether3_core, sizes
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_fuse import SMALL, read
from weights import plain_output, weights_of
from weights3 import FORMS, GOLDEN3_NAMES, RELEASE, golden3, release_io

from aether_install.cli.models import VARIANTS
from aether_install.errors import AetherInstallError
from aether_install.models.generations import GENERATIONS
from aether_install.models.inspection import inspect_model
from aether_install.models.network import module
from aether_install.ui.models import fuse_view, inspect_view

ASSUMED = {"img_range": 1.0, "res_scale": 0.1}


def picture(path: Path, x: torch.Tensor) -> torch.Tensor:
    """What a host sees: spandrel is given the file and nothing else."""
    descriptor = spandrel.ModelLoader().load_from_file(path)
    with torch.inference_mode():
        result: torch.Tensor = descriptor.model(x)
    return result


def assert_same_picture(path: Path, x: torch.Tensor, y: torch.Tensor, within: float = 5e-5) -> None:
    limit = within * (y.max() - y.min()).item()
    torch.testing.assert_close(picture(path, x), y.float(), rtol=0, atol=limit)


@pytest.mark.parametrize("name", GOLDEN3_NAMES)
@pytest.mark.parametrize("form", FORMS)
def test_every_golden_model_is_right_in_hosts_once_fused(tmp_path: Path, name: str, form: str) -> None:
    case = golden3(name)
    noted = {**case.config, "fused_init": False}  # as some fused files say too
    torch.save({"arch_config": noted, "params": case.weights(form)}, tmp_path / "model.pth")
    folded = {key: case.config[key] for key, assumed in ASSUMED.items() if case.config[key] != assumed}
    if form == "fused" and not folded:
        with pytest.raises(AetherInstallError, match="is fused already"):
            fuse(tmp_path / "model.pth", tmp_path / "out.pth")
        assert_same_picture(tmp_path / "model.pth", case.x, case.y)
        return
    for suffix in (".pth", ".safetensors"):
        result = fuse(tmp_path / "model.pth", tmp_path / f"out{suffix}")
        assert result.folded == folded
        assert result.fused_layers == (sum(case.config["depths"]) if form == "unfused" else 0)
        assert_same_picture(result.written[0].path, case.x, case.y)
        inspected = inspect_view(inspect_model(result.written[0].path))
        assert (inspected.described["generation"], inspected.described["fused"]) == ("3.1", True)
        assert inspected.described["warnings"] == []
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert json.loads(file.metadata()["metadata"]) == {**noted, **{key: ASSUMED[key] for key in folded}}


def test_fused_weights_are_those_of_the_published_fusion(tmp_path: Path) -> None:
    case = golden3("a_x2_base")
    torch.save(case.weights("unfused"), tmp_path / "model.pth")
    fused = read(fuse(tmp_path / "model.pth", tmp_path / "out.safetensors").written[0].path)
    published = case.weights("fused")
    assert fused.keys() == published.keys()
    for key, tensor in published.items():
        torch.testing.assert_close(fused[key], tensor, rtol=1e-5, atol=1e-6)


def test_a_release_that_no_host_can_load_becomes_one_that_every_host_can(tmp_path: Path) -> None:
    told = inspect_view(inspect_model(RELEASE)).described
    assert (told["generation"], told["fused"], told["spandrel"]["loads"]) == ("3.1", True, False)
    assert "torch.torch_version.TorchVersion" in told["spandrel"]["obstacle"]
    assert len(told["warnings"]) == 2
    result = fuse(RELEASE, tmp_path / "out.pth")
    assert result.folded == {"res_scale": 0.2}
    x, y = release_io()
    assert_same_picture(result.written[0].path, x, y)


@pytest.mark.parametrize("name", ["a_x2_base", "june"])
def test_a_fused_file_that_spandrel_refuses_is_only_written_again(tmp_path: Path, name: str) -> None:
    fused = JUNE.fuse(weights_of(**SMALL)) if name == "june" else golden3(name).weights("fused")
    release = {"state_dict": fused, "metadata": {"pt_version": torch.torch_version.TorchVersion("2.7.1")}}
    torch.save(release, tmp_path / "model.pth")
    result = fuse(tmp_path / "model.pth", tmp_path / "out.pth")
    assert (result.fused_layers, result.folded) == (0, {})
    assert "TorchVersion" in (result.obstacle or "")
    assert "written again" in fuse_view(result).headline
    written = read(result.written[0].path)
    assert all(torch.equal(written[key], tensor) for key, tensor in fused.items())
    with pytest.raises(AetherInstallError, match="is fused already"):
        fuse(result.written[0].path, tmp_path / "again.pth")


def test_a_fused_model_of_the_first_generation_is_folded_too(tmp_path: Path) -> None:
    weights = weights_of(**SMALL)
    noted = json.dumps({"img_range": 255.0, "scale": 2})
    save_file(JUNE.fuse(weights), tmp_path / "model.safetensors", {"metadata": noted})
    result = fuse(tmp_path / "model.safetensors", tmp_path / "out.safetensors")
    assert (result.fused_layers, result.folded) == (0, {"img_range": 255.0})
    x = torch.rand(1, 3, 9, 8)
    assert_same_picture(result.written[0].path, x, plain_output(x, weights, **SMALL, img_range=255.0))


CONTAINERS: dict[str, Any] = {
    "bare": lambda sd: sd,
    "module.": lambda sd: {f"module.{key}": value for key, value in sd.items()},
    "an average beside": lambda sd: {"params": {k: v * 0 for k, v in sd.items()}, "params_ema": sd, "iter": 3},
    "a state dict with version numbers": lambda sd: {
        "state_dict": {**sd, "model_version": torch.tensor([3, 1, 1]), "pt_version": torch.tensor([2, 7, 1])},
        "metadata": {"architecture": "aether_tiny", "quantized": False},
    },
}


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_takes_every_container_of_the_later_generation(tmp_path: Path, container: Any) -> None:
    case = golden3("a_x2_base")
    torch.save(container(case.weights("unfused")), tmp_path / "model.ckpt")
    assert_same_picture(fuse(tmp_path / "model.ckpt", tmp_path / "out.pth").written[0].path, case.x, case.y)


def test_half_precision_of_the_later_generation_is_kept(tmp_path: Path) -> None:
    case = golden3("i_x2_res1_both")
    half = {
        key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in case.weights("unfused").items()
    }
    save_file(half, tmp_path / "model.safetensors", {"arch_config": json.dumps(case.config)})
    result = fuse(tmp_path / "model.safetensors", tmp_path / "out.safetensors")
    assert result.source.dtype == "float16"
    written = load_file(result.written[0].path)
    assert written["scale_tensor"].dtype == torch.int64
    assert {tensor.dtype for key, tensor in written.items() if key != "scale_tensor"} == {torch.float16}
    assert_same_picture(result.written[0].path, case.x, case.y, within=3e-2)
    with safe_open(result.written[0].path, "pt") as file:
        assert json.loads(file.metadata()["arch_config"])["res_scale"] == 0.1


@pytest.mark.parametrize("part", ["fold", "kernels"])
def test_what_is_folded_or_merged_wrongly_does_not_verify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    case = golden3("i_x2_res1_both")
    torch.save({"arch_config": case.config, "params": case.weights("unfused")}, tmp_path / "model.pth")
    if part == "fold":
        monkeypatch.setattr(module("__arch.generations"), "scaled", lambda weights, *_: dict(weights))
    else:
        monkeypatch.setattr(module("__arch.fusing"), "merge_statistics", lambda weight, bias, *_: (weight, bias))
    with pytest.raises(AetherInstallError, match="would differ from"):
        fuse(tmp_path / "model.pth", tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize("seed", range(3))
def test_a_network_that_was_never_trained_differs_by_rounding_alone(tmp_path: Path, seed: int) -> None:
    """Its outputs span some 1e-4 around a half, where one unit in the last place is 6e-8."""
    torch.manual_seed(seed)
    torch.save(aether3_core.aether3(embed_dim=24, depths=(1, 1), scale=8).state_dict(), tmp_path / "fresh.pth")
    comparison = fuse(tmp_path / "fresh.pth", tmp_path / "out.pth").written[0].comparison
    assert comparison is not None
    assert comparison.output_range < 1e-3
    assert comparison.max_abs_diff < 1e-6


@pytest.mark.parametrize("error", [1e-6, 1e-5])
def test_more_than_rounding_does_not_verify_where_outputs_hardly_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: float
) -> None:
    torch.manual_seed(0)
    torch.save(aether3_core.aether3(embed_dim=24, depths=(1, 1), scale=8).state_dict(), tmp_path / "fresh.pth")
    build = LATER.build

    def wrongly(weights: Any, *rest: Any, **named: Any) -> Any:
        network = build(weights, *rest, **named)
        if LATER.form(weights) == "fused":
            network.conv_last.bias.data += error
        return network

    monkeypatch.setattr(LATER, "build", wrongly)
    with pytest.raises(AetherInstallError, match="would differ from"):
        fuse(tmp_path / "fresh.pth", tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


def test_inspect_warns_of_what_hosts_cannot_see(tmp_path: Path) -> None:
    case = golden3("f_x2_gray_r255")
    for key, warned in (("res_scale", r"res_scale 0\.2"), ("img_range", "img_range 255")):
        torch.save({"arch_config": {key: case.config[key]}, "params": case.weights("unfused")}, tmp_path / "model.pth")
        inspected = inspect_model(tmp_path / "model.pth")
        assert [bool(re.search(f"{warned}.*wrongly.*aether-install fuse", text)) for text in inspected.warnings] == [
            True
        ]
        told = inspect_view(inspected).described["parameters"]
        assert told[key] == case.config[key]
        assert (told["embed_dim"], told["depths"], told["upscale"], told["in_chans"]) == (35, (1, 1), 2, 1)


EARLIER: dict[str, Any] = {
    "a version number": lambda sd: {**sd, "model_version": torch.tensor([3, 1, 0])},
    "the old name of the scale": lambda sd: {"scale" if key == "scale_tensor" else key: sd[key] for key in sd},
    "batch norm": lambda sd: {**sd, "stages.0.0.norm.num_batches_tracked": torch.tensor(3)},
}


@pytest.mark.parametrize("made", EARLIER.values(), ids=EARLIER)
def test_earlier_sub_versions_are_named_and_refused(tmp_path: Path, made: Any) -> None:
    torch.save(made(golden3("a_x2_base").weights("unfused")), tmp_path / "model.pth")
    with pytest.raises(AetherInstallError, match="earlier sub-version") as refused:
        fuse(tmp_path / "model.pth", tmp_path / "out.pth")
    assert "damaged" not in refused.value.message
    assert "earlier sub-version" in (inspect_model(tmp_path / "model.pth").looks_like or "")


def test_each_generation_knows_its_architectures_and_sizes() -> None:
    from spandrel.architectures.AetherNet import ARCHITECTURES

    ids = {str(architecture().id) for architecture in ARCHITECTURES}
    assert ids == {generation.architecture(fused) for generation in GENERATIONS for fused in (True, False)}
    assert set(VARIANTS) == {variant for generation in GENERATIONS for variant in generation.variants}
    assert [generation.name for generation in GENERATIONS] == ["2025-06", "3.1"]


def test_the_sizes_of_the_later_generation_are_told_by_name(tmp_path: Path) -> None:
    torch.save(aether3_core.aether3(**sizes.LATER_SIZES["tiny"], scale=2).state_dict(), tmp_path / "tiny.pth")
    result = fuse(tmp_path / "tiny.pth", tmp_path / "out.pth", model_type="aether_tiny", upscale=2)
    assert result.source.variant == "tiny"
    with pytest.raises(AetherInstallError, match=r"is not aether_small but AetherNet 3\.1 tiny"):
        fuse(tmp_path / "tiny.pth", tmp_path / "out2.pth", model_type="aether_small")
