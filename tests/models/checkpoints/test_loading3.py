"""A patched spandrel loads models of the later generation from their files alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import spandrel
import torch
from networks import LATER, aether3_core, sizes
from safetensors.torch import save_file
from weights3 import FORMS, StateDict, golden3, plain3_output, read_release, weights3_of

SMALL = {"embed_dim": 16, "depths": (1, 2), "lk_kernel": 7, "sk_kernel": 3, "scale": 2}


def load(path: Path) -> spandrel.ImageModelDescriptor[torch.nn.Module]:
    descriptor = spandrel.ModelLoader().load_from_file(path)
    assert isinstance(descriptor, spandrel.ImageModelDescriptor)
    return descriptor


def in_form(weights: StateDict, form: str) -> StateDict:
    fused: StateDict = LATER.fuse(weights)
    return fused if form == "fused" else weights


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".pt", ".ckpt"])
def test_loads_every_format(tmp_path: Path, form: str, suffix: str) -> None:
    case = golden3("a_x2_base")
    path = tmp_path / f"model{suffix}"
    save_file(case.weights(form), path) if suffix == ".safetensors" else torch.save(case.weights(form), path)
    descriptor = load(path)
    assert descriptor.architecture.id == f"AetherNet3-{form.title()}"
    with torch.inference_mode():
        assert (descriptor.model(case.x) - case.y).abs().max() <= 5e-6 * case.span
        assert (descriptor(case.x) - case.y.clamp(0, 1)).abs().max() <= 5e-6 * case.span


def test_loads_what_the_authors_training_writes(tmp_path: Path) -> None:
    """Early ones among these are fused although their configuration says otherwise."""
    config = {**SMALL, "depths": [1, 2], "img_range": 1.0, "res_scale": 0.1, "fused_init": False}
    versions = {"model_version": torch.tensor([3, 1, 1]), "pt_version": torch.tensor([2, 7, 1])}
    for form in FORMS:
        weights = in_form(weights3_of(**SMALL), form)
        torch.save({"arch_config": config, "params": {**weights, **versions}}, tmp_path / "model.pth")
        descriptor = load(tmp_path / "model.pth")
        assert descriptor.architecture.id == f"AetherNet3-{form.title()}"
        loaded = descriptor.model.state_dict()
        assert list(loaded) == list(weights)
        assert all(torch.equal(loaded[key], weights[key]) for key in weights)


def test_a_release_loads_once_its_weights_are_taken_out(tmp_path: Path) -> None:
    weights = LATER.clean(read_release())
    torch.save(LATER.fold(weights, res_scale=0.2), tmp_path / "model.pth")
    descriptor = load(tmp_path / "model.pth")
    expected = LATER.build(weights, res_scale=0.2)
    x = torch.rand(1, 3, 9, 11)
    with torch.inference_mode():
        torch.testing.assert_close(descriptor.model(x), expected(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_loads_a_half_precision_release_as_float32_and_runs_it_in_half(tmp_path: Path, form: str) -> None:
    weights = in_form(weights3_of(**SMALL), form)
    half = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in weights.items()}
    save_file(half, tmp_path / "model.safetensors")
    descriptor = load(tmp_path / "model.safetensors")
    assert descriptor.dtype == torch.float32
    x = torch.rand(1, 3, 9, 7)
    widened = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in half.items()}
    expected = plain3_output(x, widened, **SMALL, fused_init=form == "fused")
    with torch.inference_mode():
        torch.testing.assert_close(descriptor.model(x), expected, rtol=0, atol=1e-5)
        y = descriptor.to(torch.float16).model(x.half())
    assert y.dtype == torch.float16
    torch.testing.assert_close(y.float(), expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("scale", [1, 2])
def test_is_a_descriptor_in_every_respect(scale: int) -> None:
    weights = weights3_of(**{**SMALL, "scale": scale})
    descriptor = spandrel.ModelLoader(device="cpu").load_from_state_dict(weights)
    assert descriptor.purpose == ("SR" if scale > 1 else "Restoration")
    assert descriptor.tiling == spandrel.ModelTiling.SUPPORTED
    assert descriptor.supports_half
    assert descriptor.supports_bfloat16
    assert not descriptor.model.training
    assert descriptor.size_requirements.check(1, 1)
    assert descriptor.tags == ["unfused", "16dim", "3nb", "7ks", "channel attention"]
    assert descriptor(torch.rand(1, 3, 5, 3)).shape == (1, 3, 5 * scale, 3 * scale)


@pytest.mark.parametrize(
    ("variant", "form", "name"),
    [("tiny", "unfused", "AetherNet3 tiny 2x (unfused)"), ("mobile", "fused", "AetherNet3 mobile 2x (fused)")],
)
def test_a_variant_is_named(variant: str, form: str, name: str) -> None:
    weights = aether3_core.aether3(**sizes.LATER_SIZES[variant], scale=2, fused_init=form == "fused").state_dict()
    descriptor = spandrel.ModelLoader().load_from_state_dict(weights)
    assert descriptor.name == name
    assert descriptor.tags[:2] == [variant, form]
    assert descriptor.model.hyperparameters["res_scale"] == 0.2


def test_imports_from_the_architecture() -> None:
    from spandrel.architectures.AetherNet import AetherNet3FusedArch, AetherNet3UnfusedArch, aether3

    for architecture, fused in ((AetherNet3FusedArch(), True), (AetherNet3UnfusedArch(), False)):
        model = aether3(embed_dim=8, depths=(1,), sk_kernel=3, fused_init=fused)
        assert architecture.detect(model.state_dict())
        loaded = architecture.load(model.state_dict())
        assert loaded.model.hyperparameters == model.hyperparameters


def test_models_of_one_state_dict_are_apart() -> None:
    weights = weights3_of(**SMALL)
    first, second = (spandrel.ModelLoader().load_from_state_dict(dict(weights)) for _ in range(2))
    with torch.no_grad():
        for tensor in first.model.state_dict().values():
            tensor.zero_()
    for key, tensor in second.model.state_dict().items():
        assert torch.equal(tensor, weights[key])
