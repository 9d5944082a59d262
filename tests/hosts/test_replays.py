"""
Every host loads and runs AetherNet models in its own way, on the spandrel that it pins, and gets what spandrel gets.

A host's way is written here as the calls that it makes, in its order: a short function from a model file and a picture
to the upscaled picture, (1, 3, H, W) -> (1, 3, s*H, s*W), values in [0, 1].
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from environments import REPOSITORY, quietly
from imports import taught_spandrels
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aether_install.hosts.kinds import KINDS
from aether_install.models import fuse

DEMO = REPOSITORY / "examples" / "models" / "2x-AetherNet-photo.pth"
PHOTO = REPOSITORY / "examples" / "photos" / "chelsea.png"

Host = Callable[[Any, Path, Tensor], Tensor]


def picture(height: int, width: int) -> Tensor:
    """A part of a photo beside itself in a mirror, which makes it wide."""
    with Image.open(PHOTO) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    pixels = np.concatenate((pixels, pixels[:, ::-1]), axis=1)
    return torch.from_numpy(pixels[80 : 80 + height, 100 : 100 + width]).permute(2, 0, 1)[None].contiguous()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The demo model by its form and suffix, each as its trainer or ``fuse`` writes it."""
    folder = tmp_path_factory.mktemp("models")
    files = {"unfused.pth": Path(shutil.copy(DEMO, folder / "unfused.pth"))}
    for suffix in (".pth", ".safetensors"):
        files[f"fused{suffix}"] = folder / f"fused{suffix}"
        fuse.fuse(DEMO, [files[f"fused{suffix}"]], fuse.Options(verify=False), quietly)
    return files


# Spandrels of several versions, in one process: torch is imported once.


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Imports a taught spandrel of some version."""
    return taught_spandrels(tmp_path_factory.mktemp)


# The hosts.


def tiled(model: Callable[[Tensor], Tensor], image: Tensor, tile: int, overlap: int, scale: int) -> Tensor:
    """Tiles of some size, laid so that neighbours overlap, and blended over the overlap by linear ramps."""
    height, width = image.shape[2:]
    if max(height, width) <= tile:
        return model(image)
    total = image.new_zeros(1, 3, height * scale, width * scale)
    weights = image.new_zeros(1, 1, height * scale, width * scale)
    for top, left in product(_starts(height, tile, overlap), _starts(width, tile, overlap)):
        part = image[:, :, top : top + tile, left : left + tile]
        shown = model(part)
        mask = torch.ones_like(shown[:, :1])
        for step in range(overlap * scale):
            ramp = (step + 1) / (overlap * scale)
            mask[:, :, step] *= ramp if top > 0 else 1
            mask[:, :, -1 - step] *= ramp if top + tile < height else 1
            mask[:, :, :, step] *= ramp if left > 0 else 1
            mask[:, :, :, -1 - step] *= ramp if left + tile < width else 1
        corner = top * scale, left * scale
        rows, columns = (slice(at, at + side) for at, side in zip(corner, shown.shape[2:], strict=True))
        total[:, :, rows, columns] += shown * mask
        weights[:, :, rows, columns] += mask
    return total / weights


def _starts(side: int, tile: int, overlap: int) -> list[int]:
    return [0] if side <= tile else [*range(0, side - tile, tile - overlap), side - tile]


def comfyui(spandrel: Any, path: Path, image: Tensor, tile: int = 512) -> Tensor:
    """Reads by torch alone, insists on the class, measures and moves the modules itself, and upscales in tiles."""
    if path.suffix == ".safetensors":
        weights = load_file(path, device="cpu")
    else:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    model = spandrel.ModelLoader().load_from_state_dict(weights).eval()
    assert isinstance(model, spandrel.ImageModelDescriptor)
    assert sum(tensor.nbytes for tensor in model.model.state_dict().values()) > 0
    for _, module in model.model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(parameter.to("cpu"), requires_grad=False))
    model.to("cpu")
    return tiled(lambda part: model(part.float()), image, tile, 32, model.scale).clamp(0, 1)


def comfyui_short_of_memory(spandrel: Any, path: Path, image: Tensor) -> Tensor:
    """Halves its tiles until they fit, down to 128 pixels."""
    return comfyui(spandrel, path, image, tile=128)


def chainner(spandrel: Any, path: Path, image: Tensor, half: bool = False, tile: int = 1 << 20) -> Tensor:
    """Reads through spandrel, and asks the descriptor for everything."""
    model = spandrel.ModelLoader(torch.device("cpu")).load_from_file(path)
    for parameter in model.model.parameters():
        parameter.requires_grad = False
    model.model.eval()
    assert isinstance(model, spandrel.ImageModelDescriptor)
    assert model.tiling == spandrel.ModelTiling.SUPPORTED
    assert model.size_requirements.get_padding(image.shape[3], image.shape[2]) == (0, 0)
    assert (model.input_channels, model.output_channels) == (3, 3)
    assert model.architecture.name
    if half:
        assert model.supports_half
        model.model.half()
    assert model.dtype == (torch.float16 if half else torch.float32)
    with torch.no_grad():
        return tiled(lambda part: model(part.to(model.device, model.dtype)).float(), image, tile, 16, model.scale)


def chainner_in_half(spandrel: Any, path: Path, image: Tensor) -> Tensor:
    return chainner(spandrel, path, image, half=True)


def chainner_in_tiles(spandrel: Any, path: Path, image: Tensor) -> Tensor:
    return chainner(spandrel, path, image, tile=128)


def chainner_saved_again(spandrel: Any, path: Path, image: Tensor) -> Tensor:
    """*Save Model* and *Load Model*, once in each format."""
    for suffix in (".pth", ".safetensors"):
        weights = spandrel.ModelLoader("cpu").load_from_file(path).model.state_dict()
        path = path.with_name(f"{path.stem}-again{suffix}")
        save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    return chainner(spandrel, path, image)


def chainner_interpolated(spandrel: Any, path: Path, image: Tensor) -> Tensor:
    """*Interpolate Models*, of a model and itself."""
    weights = spandrel.ModelLoader("cpu").load_from_file(path).model.state_dict()
    model = spandrel.ModelLoader("cpu").load_from_state_dict({key: 0.5 * w + 0.5 * w for key, w in weights.items()})
    return model(image)


def forge(spandrel: Any, path: Path, image: Tensor) -> Tensor:
    """Feeds the colours from blue to red, in tiles of 192 pixels with 8 in common."""
    model = spandrel.ModelLoader(torch.device("cpu")).load_from_file(str(path))
    model.model.eval()
    with torch.inference_mode():
        shown = tiled(lambda part: model(part), image.flip(1), 192, 8, model.scale)
    return shown.flip(1)


def reforge(spandrel: Any, path: Path, image: Tensor) -> Tensor:
    return forge(spandrel, path, image)


A1111 = next(kind for kind in KINDS if kind.id == "a1111")


def a1111(spandrel: Any, path: Path, image: Tensor) -> Tensor:
    """Looks at what is in the archive before it is read, and goes on as Forge does."""
    assert path.suffix in A1111.suffixes
    with zipfile.ZipFile(path) as archive:
        refused = [name for name in archive.namelist() if not re.fullmatch(A1111.archive_rule, name)]
    assert not refused
    return forge(spandrel, path, image)


def invokeai(spandrel: Any, path: Path, image: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Loads while layers leave out their initialisation, and ends in whole numbers from 0 to 255."""
    kinds = (nn.Linear, nn.Conv2d, nn.LayerNorm, nn.Embedding)
    initialisations = {kind: kind.reset_parameters for kind in kinds}
    for kind in kinds:
        kind.reset_parameters = lambda _: None  # type: ignore[method-assign]
    try:
        model = spandrel.ModelLoader().load_from_file(path)
    finally:
        for kind, initialisation in initialisations.items():
            kind.reset_parameters = initialisation  # type: ignore[method-assign]
    if not isinstance(model, spandrel.ImageModelDescriptor):
        raise TypeError(type(model))
    assert {torch.float16: model.supports_half, torch.bfloat16: model.supports_bfloat16}.get(dtype, True)
    model.to(device=torch.device("cpu"), dtype=dtype)
    with torch.inference_mode():
        shown = model(image.to(dtype))
    return (shown.float() * 255).to(torch.uint8).float() / 255


def invokeai_in_float16(spandrel: Any, path: Path, image: Tensor) -> Tensor:
    return invokeai(spandrel, path, image, torch.float16)


def invokeai_in_bfloat16(spandrel: Any, path: Path, image: Tensor) -> Tensor:
    return invokeai(spandrel, path, image, torch.bfloat16)


def vs_spandrel(spandrel: Any, path: Path, image: Tensor) -> Tensor:
    """Does everything in inference mode, loads the weights once more, and traces."""
    with torch.inference_mode():
        model = spandrel.ModelLoader().load_from_file(path)
        assert isinstance(model, spandrel.ImageModelDescriptor)
        module = model.eval().to(torch.device("cpu"), torch.float32).model
        module.load_state_dict(module.state_dict())
        traced = torch.jit.trace(module, torch.zeros(1, 3, 32, 40), check_trace=False)
        return traced(image).clamp(0, 1)


def mangajanai(spandrel: Any, path: Path, image: Tensor) -> Tensor:
    """Adds architectures of its own to spandrel's registry first."""
    registry, architecture = spandrel.MAIN_REGISTRY, spandrel.Architecture

    class Custom(architecture):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__(id="Custom", detect=lambda weights: "custom.weight" in weights)

        def load(self, state_dict: Any) -> Any:
            raise NotImplementedError

    if "Custom" not in registry:
        registry.add(spandrel.ArchSupport.from_architecture(Custom()))
    return chainner(spandrel, path, image, half=True)


SMALL, LARGE = (36, 44), (132, 200)
BIT_EQUAL, TRUNCATED = 0.0, 1 / 255
HALF, SEAMS = 1 / 255, 2 / 255

HOSTS: dict[str, tuple[Host, str, tuple[int, int], float]] = {
    "ComfyUI": (comfyui, "0.4.2", SMALL, BIT_EQUAL),
    "ComfyUI desktop": (comfyui, "0.4.1", SMALL, BIT_EQUAL),
    "chaiNNer": (chainner, "0.4.1", SMALL, BIT_EQUAL),
    "chaiNNer, half precision": (chainner_in_half, "0.4.1", SMALL, HALF),
    "chaiNNer, Save Model": (chainner_saved_again, "0.4.1", SMALL, BIT_EQUAL),
    "chaiNNer, Interpolate": (chainner_interpolated, "0.4.1", SMALL, BIT_EQUAL),
    "Forge": (forge, "0.3.4", SMALL, BIT_EQUAL),
    "reForge": (reforge, "0.4.1", SMALL, BIT_EQUAL),
    "A1111": (a1111, "0.3.4", SMALL, BIT_EQUAL),
    "InvokeAI": (invokeai, "0.4.2", SMALL, TRUNCATED),
    "InvokeAI, float16": (invokeai_in_float16, "0.4.2", SMALL, TRUNCATED + HALF),
    "InvokeAI, bfloat16": (invokeai_in_bfloat16, "0.4.2", SMALL, TRUNCATED + 4 * HALF),
    "vs-spandrel": (vs_spandrel, "0.4.2", SMALL, 1e-5),
    "MangaJaNai": (mangajanai, "0.4.1", SMALL, HALF),
}
"""The host's way, the spandrel that it pins, the picture's height and width, and how far from spandrel it may be."""

IN_TILES: dict[str, tuple[Host, str, tuple[int, int], float]] = {
    "ComfyUI, 128 pixels": (comfyui_short_of_memory, "0.4.2", LARGE, SEAMS),
    "ComfyUI, 512 pixels": (comfyui, "0.4.2", (40, 540), SEAMS),
    "chaiNNer, 128 pixels": (chainner_in_tiles, "0.4.1", LARGE, SEAMS),
    "Forge, 192 pixels": (forge, "0.3.4", LARGE, SEAMS),
}


def channels_of(host: Host) -> str:
    """The order of colours that is known of the host's kind, by whose id its way is called."""
    name = host.__name__.replace("vs_", "vs-").partition("_")[0]
    (channels,) = {kind.channels for kind in KINDS if kind.id == name}
    return channels


def in_a_host(
    taught: Callable[[str], Any], case: tuple[Host, str, tuple[int, int], float], path: Path
) -> tuple[Tensor, Tensor]:
    """What the host makes of a picture, and what spandrel does, fed in the same order of colours."""
    host, version, size, _ = case
    spandrel, image = taught(version), picture(*size)
    own = spandrel.ModelLoader().load_from_file(path)
    assert own.architecture.id == f"AetherNet-{path.stem.title()}"
    expected = own(image.flip(1)).flip(1) if channels_of(host) == "BGR" else own(image)
    shown = host(spandrel, path, image)
    assert shown.shape == (1, 3, 2 * size[0], 2 * size[1])
    return shown, expected


# Both forms and both formats in every host: how a file is read has nothing to do with what is in it.
@pytest.mark.parametrize("model", ["unfused.pth", "fused.safetensors"])
@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:FutureWarning")
def test_a_host_gets_what_spandrel_gets(
    taught: Callable[[str], Any], models: dict[str, Path], name: str, model: str
) -> None:
    if name == "A1111" and model.endswith(".safetensors"):
        assert ".safetensors" not in A1111.suffixes
        model = "fused.pth"
    shown, expected = in_a_host(taught, HOSTS[name], models[model])
    assert (shown - expected).abs().max() <= HOSTS[name][3]


@pytest.mark.parametrize(("name", "model"), list(zip(IN_TILES, ["unfused.pth", "fused.safetensors"] * 2, strict=True)))
def test_tiles_of_a_host_fit_together(
    taught: Callable[[str], Any], models: dict[str, Path], name: str, model: str
) -> None:
    shown, expected = in_a_host(taught, IN_TILES[name], models[model])
    assert not torch.equal(shown, expected), "it was cut into tiles"
    assert (shown - expected).abs().max() <= IN_TILES[name][3]


def test_colours_in_the_other_order_are_another_picture(taught: Callable[[str], Any], models: dict[str, Path]) -> None:
    """Forge and A1111 feed every model so; it is close, and not the same."""
    shown, _ = in_a_host(taught, HOSTS["Forge"], models["fused.pth"])
    other, _ = in_a_host(taught, HOSTS["chaiNNer"], models["fused.pth"])
    assert 1e-4 < (shown - other).abs().max() < 0.1


@pytest.mark.not_on_windows("its torch, which Wine's numpy allows, imports again by name what was put away")
def test_a_host_exports_what_it_loads(taught: Callable[[str], Any], models: dict[str, Path]) -> None:
    """vs-spandrel compiles for sizes from 32 to 512."""
    sides = {2: torch.export.Dim("height", min=32, max=512), 3: torch.export.Dim("width", min=32, max=512)}
    image = picture(36, 44)
    with torch.inference_mode():
        module = taught("0.4.2").ModelLoader().load_from_file(models["fused.pth"]).model
        exported = torch.export.export(module, (torch.rand(1, 3, 48, 64),), dynamic_shapes=(sides,)).module()
        torch.testing.assert_close(exported(image), module(image), rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:torch.onnx")
@pytest.mark.filterwarnings("ignore:.*legacy TorchScript:DeprecationWarning")
def test_chainner_converts_to_onnx(taught: Callable[[str], Any], models: dict[str, Path], tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    module = taught("0.4.1").ModelLoader().load_from_file(models["fused.pth"]).model
    axes = {name: {2: "height", 3: "width"} for name in ("input", "output")}
    torch.onnx.export(
        module,
        (torch.rand(1, 3, 3, 3),),
        tmp_path / "model.onnx",
        input_names=["input"],
        output_names=["output"],
        dynamic_axes=axes,
        dynamo=False,
    )
    image = picture(36, 44)
    (shown,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"input": image.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(shown), module(image), rtol=0, atol=1e-4)
