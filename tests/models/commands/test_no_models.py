"""What is taken for a model and is none: inspect, fuse and doctor say what it is, what to do, and the same of it."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
import shutil
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import in_process
import pytest
import torch
from environments import taught_spandrel
from imports import spandrel_of
from model_files import fuse
from networks import JUNE
from networks import sizes as network_sizes
from safetensors.torch import save_file
from weights import weights_of
from weights3 import golden3

from aether_install.errors import AetherInstallError
from aether_install.formats.onnx import SIZES, read_onnx
from aether_install.formats.recognise import recognise
from aether_install.hosts import doctor
from aether_install.hosts.acceptance import name_of
from aether_install.hosts.discovery import Host
from aether_install.hosts.doctor import Patient, examine
from aether_install.hosts.kinds import KINDS
from aether_install.hosts.listen import Ending
from aether_install.hosts.programs.does_model_work import replay
from aether_install.models import fuse as command
from aether_install.models.batch import fuse_all
from aether_install.models.generations import GENERATIONS
from aether_install.models.inspection import inspect_model
from aether_install.ui.doctor import doctor_view
from aether_install.ui.models import inspect_view

WEIGHTS = weights_of(embed_dim=8, depths=(1,), upscale=2)


@pytest.fixture(scope="module", autouse=True)
def _taught() -> Iterator[None]:
    with spandrel_of(taught_spandrel()):
        yield


def diagnosed(monkeypatch: pytest.MonkeyPatch, file: Path, kind: str | None = None) -> dict[str, Any]:
    """What doctor says of a file in a host of some kind, whose Python is this process."""

    def listen(*told: Any) -> Ending:
        _, _, (request,), _, hear = told
        asked = json.loads(request)
        replay(asked, lambda **answer: hear(asked["mark"] + json.dumps(answer)))
        return Ending("", "")

    monkeypatch.setattr(doctor, "listen", listen)
    known = next((known for known in reversed(KINDS) if known.id == kind), None)
    host = Host(known.id, known, Path("host"), Path(sys.executable), None, None) if known else None
    patient = Patient(sys.executable, named_by=("--host", "host"), host=host)
    return doctor_view(examine(patient, file, lambda *_, **__: None)).described


def saved(content: object, path: Path, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def rezipped(path: Path, compression: int = zipfile.ZIP_DEFLATED, folder: str = "archive/") -> Path:
    """A model whose archive was unpacked and packed again."""
    whole = saved(WEIGHTS, path.with_name("whole.pth"))
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(path, "w", compression) as other:
        for entry in archive.infolist():
            other.writestr(folder + entry.filename.partition("/")[2], archive.read(entry))
    whole.unlink()
    return path


def zip_of_a_model(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(saved(WEIGHTS, path.with_name("inner.pth")), "models/inner.pth")


def unpacked(path: Path) -> None:
    whole = saved(WEIGHTS, path.with_name("whole.pth"))
    shutil.unpack_archive(whole, path, "zip")


def exported(path: Path) -> None:
    torch.export.save(torch.export.export(torch.nn.Conv2d(3, 3, 3), (torch.rand(1, 3, 8, 8),)), path)


def torchscript(path: Path) -> None:
    torch.jit.script(torch.nn.Conv2d(3, 3, 3)).save(path)


def state_of_a_training(path: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3])
    content = {"epoch": 1, "iter": 5, "optimizers": [optimizer.state_dict()], "schedulers": [scheduler.state_dict()]}
    torch.save(content, path)


def discriminator(path: Path, norm: Callable[[Any], Any] = torch.nn.utils.spectral_norm) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), norm(torch.nn.Conv2d(8, 1, 3)))
    if path.suffix == ".safetensors":
        save_file(network.state_dict(), path)
    else:
        torch.save({"params": network.state_dict()}, path)


def tar_of_a_model(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(saved(WEIGHTS, path.with_name("inner.pth")), "inner.pth")


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"
PAGE = '<!DOCTYPE html>\n<html lang="en"><head><title>\n Sign in </title></head><body>…</body></html>'

NO_MODELS: dict[str, tuple[str, Callable[[Path], object], str, str]] = {
    "a Git LFS pointer": ("m.pth", lambda p: p.write_text(LFS), "a Git LFS pointer", "git lfs pull"),
    "an LFS pointer as safetensors": (
        "m.safetensors",
        lambda p: p.write_text(LFS),
        "a Git LFS pointer",
        "git lfs pull",
    ),
    "a web page": ("m.pth", lambda p: p.write_text(PAGE, "utf-8"), "web page ('Sign in')", "download button"),
    "a web page as safetensors": ("m.safetensors", lambda p: p.write_text(PAGE), "web page", "download button"),
    "an answer in XML": ("m.pth", lambda p: p.write_text("\ufeff <?xml?><Error/>", "utf-8"), "web page", "button"),
    "JSON": ("m.pth", lambda p: p.write_text('{"error": "Repository not found"}'), "JSON text", "download the model"),
    "JSON like a header": ("m.safetensors", lambda p: p.write_text('{"a":1, {"b'), "JSON text", "download the model"),
    "a text": ("m.pth", lambda p: p.write_text("Not Found"), "a text (Not Found)", "download the model"),
    "gzip": ("m.pth", lambda p: p.write_bytes(gzip.compress(b"model")), "a gzip archive", "unpack it"),
    "xz": ("m.pth", lambda p: p.write_bytes(lzma.compress(b"model")), "an xz archive", "unpack it"),
    "bzip2": ("m.pth", lambda p: p.write_bytes(bz2.compress(b"model")), "a bzip2 archive", "unpack it"),
    "tar": ("m.pth", tar_of_a_model, "a tar archive", "unpack it"),
    "GGUF": ("m.gguf", lambda p: p.write_bytes(b"GGUF\3\0\0\0" + bytes(99)), "a GGUF file", ".safetensors"),
    "a stored zip of a model": ("m.pth", zip_of_a_model, "a zip archive that holds models/inner.pth", "unpack it"),
    "an archive without its folder": ("m.pth", lambda p: rezipped(p, folder=""), "packed again", "download the file"),
    "an archive in a folder more": ("m.pth", lambda p: rezipped(p, folder="a/b/"), "packed again", "download the file"),
    "an unpacked archive": ("m", unpacked, "the folder of an unpacked PyTorch file", "leave it packed"),
    "an exported program": ("m.pt2", exported, "that torch.export wrote", ".safetensors"),
    "a TorchScript program": ("m.pth", torchscript, "a TorchScript program", "the checkpoint"),
    "the state of a training": ("5.state", state_of_a_training, "the state of a training", "net_g_5000.pth"),
    "the same by another name": ("5.pth", state_of_a_training, "the state of a training", "net_g_5000.pth"),
    "a discriminator": ("net_d_5.pth", discriminator, "a discriminator", "the generator"),
    "a discriminator of today": (
        "net_d_5.safetensors",
        lambda p: discriminator(p, torch.nn.utils.parametrizations.spectral_norm),
        "a discriminator",
        "the generator",
    ),
    "a discriminator without such norms": (
        "net_d_latest.pth",
        lambda p: discriminator(p, lambda layer: layer),
        "a discriminator",
        "the generator",
    ),
    "zeros": ("m.pth", lambda p: p.write_bytes(bytes(10_000)), "nothing but zeros", "download it again"),
    "a picture": ("m.pth", lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99)), "a picture", "name the model"),
    "a pickle of another library": (
        "m.pth",
        lambda p: p.write_bytes(b"\x80\4K\1."),
        "a pickle",
        "torch or safetensors",
    ),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*TorchScript archive:UserWarning")
@pytest.mark.parametrize("name", NO_MODELS)
def test_what_is_no_model_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    file_name, make, what, remedy = NO_MODELS[name]
    path = tmp_path / file_name
    make(path)
    inspected = in_process.aether_install("inspect", path, check=False)
    refused = in_process.aether_install("fuse", "--model_path", path, "--output_path", tmp_path / "o.pth", check=False)
    assert refused.returncode == 1
    assert not (tmp_path / "o.pth").exists()
    for told in (inspected.stdout + inspected.stderr, refused.stderr):
        assert what in told
        assert remedy in told
        assert "damaged" not in told
    for kind in (None, "comfyui", "chainner"):
        result = diagnosed(monkeypatch, path, kind)
        assert result["ok"] is False
        failed = next(step for step in result["steps"] if step["ok"] is False)
        assert what in failed["detail"], (kind, failed)
        assert remedy.lower() in result["advice"][0].lower()


def test_what_nobody_knows_is_not_given_a_name(tmp_path: Path) -> None:
    chance = random.Random(0)
    path = tmp_path / "m.pth"
    for size in (1, 10, 300, 5000):
        for _ in range(300):
            path.write_bytes(bytes(chance.choices(range(256), k=size)))
            recognise(path)
    path.write_bytes(b"\xee" + bytes(chance.choices(range(256), k=5000)))
    assert recognise(path) is None
    assert recognise(tmp_path / "nothing") is None
    assert recognise(tmp_path) is None
    assert recognise(saved(WEIGHTS, path)) is None
    assert recognise(saved(WEIGHTS, path, _use_new_zipfile_serialization=False)) is None
    save_file(WEIGHTS, path)
    assert recognise(path) is None


def test_models_in_a_training_checkpoint_are_not_taken_for_its_state(tmp_path: Path) -> None:
    saved({"params": WEIGHTS, "optimizers": [], "schedulers": []}, tmp_path / "m.pth")
    assert inspect_model(tmp_path / "m.pth").identity is not None


# ONNX, of which the author released most.


def written_as_onnx(path: Path, network: torch.nn.Module, **options: Any) -> Path:
    pytest.importorskip("onnx", reason="onnx is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.rand(1, 3, 16, 16),), path, **options)
    return path


@pytest.mark.parametrize(
    ("which", "fused", "dynamo"),
    [
        *((which, fused, False) for which in (0, 1) for fused in (False, True)),
        *((0, False, True), (1, True, True)),  # which takes seconds, and names weights of all kinds in one way
    ],
    ids=lambda value: None if isinstance(value, bool) else GENERATIONS[value].name,
)
def test_an_onnx_model_is_told_by_generation_size_and_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int, fused: bool, dynamo: bool
) -> None:
    if dynamo:
        pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    generation = GENERATIONS[which]
    weights = (weights_of(embed_dim=8, depths=(1, 2), upscale=4), golden3("a_x2_base").weights("unfused"))[which]
    monkeypatch.setenv("AETHERNET_ENGINE", "0")
    network = generation.build(generation.fuse(weights) if fused else weights)
    path = written_as_onnx(tmp_path / "m.onnx", network, dynamo=dynamo)
    scale, size = ((4, (8, (1, 2))), (2, (16, (2, 1, 3))))[which]
    told = inspect_view(inspect_model(path)).described
    assert (told["format"], told["generation"], told["fused"]) == ("onnx", generation.name, fused)
    assert (told["parameters"]["embed_dim"], told["parameters"]["depths"]) == size
    assert (told["parameters"]["upscale"], told["dtype"]) == (scale, "float32")
    shown = in_process.aether_install("inspect", path).stdout
    assert f"an ONNX model, AetherNet{' 3.1' if which else ''} embed_dim {size[0]}" in shown
    assert f"{scale}x" in shown
    assert "use the .pth or .safetensors of the same model" in shown
    with pytest.raises(AetherInstallError, match="an ONNX model"):
        fuse(path, tmp_path / "out.pth")
    for kind in ("comfyui", "chainner"):
        failed = next(step for step in diagnosed(monkeypatch, path, kind)["steps"] if step["ok"] is False)
        assert f"{scale}x" in failed["detail"]


def field(number: int, content: bytes | int) -> bytes:
    """One field of a protocol buffer."""

    def varint(value: int) -> bytes:
        return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)

    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def test_what_an_onnx_file_notes_is_believed(tmp_path: Path) -> None:
    """Names of weights may have gone on the way."""
    noted = {"architecture": "AetherNet3\nFused", "variant": "tiny", "scale": "3"}
    entries = b"".join(field(14, field(1, key.encode()) + field(2, value.encode())) for key, value in noted.items())
    (tmp_path / "m.onnx").write_bytes(field(1, 9) + field(7, field(2, b"graph")) + entries)
    found = read_onnx(tmp_path / "m.onnx")
    assert found is not None
    assert (found.scale, found.generation) == (3, None)
    assert "AetherNet3 Fused" in found.description
    assert inspect_view(inspect_model(tmp_path / "m.onnx")).described["format"] == "onnx"


def test_a_quantised_onnx_model_inside_another_is_told_as_well(tmp_path: Path) -> None:
    names = {"net.conv_first.weight_quantized": (96, 3, 3, 3)}
    names |= {
        f"net.layers.{i}.{j}.conv.fused_conv.weight_quantized": (96, 1, 11, 11) for i in range(4) for j in range(4)
    }
    graph = b"".join(
        field(5, b"".join(field(1, side) for side in shape) + field(2, 3) + field(8, name.encode()))
        for name, shape in names.items()
    )
    shuffle = field(5, field(1, b"blocksize") + field(3, 2)) + field(4, b"DepthToSpace")
    (tmp_path / "m.onnx").write_bytes(field(1, 9) + field(7, graph + field(1, shuffle) * 2))
    found = read_onnx(tmp_path / "m.onnx")
    assert found is not None
    assert found.description == "an ONNX model, AetherNet small, 4x, fused"
    assert found.dtype == "int8"


def test_a_damaged_onnx_file_is_no_riddle(tmp_path: Path) -> None:
    whole = field(1, 9) + field(7, field(5, field(1, 8) + field(1, 3) + field(8, b"conv_first.weight")) * 50)
    chance = random.Random(0)
    path = tmp_path / "m.onnx"
    for _ in range(500):
        content = bytearray(whole[: chance.randint(1, len(whole))])
        content[chance.randrange(len(content))] = chance.randrange(256)
        path.write_bytes(content)
        read_onnx(path)
    path.write_bytes(whole)
    found = read_onnx(path)
    assert found is not None
    assert found.shapes == {"conv_first.weight": (8, 3)}


def test_sizes_of_onnx_models_are_those_of_the_networks() -> None:
    def sizes(variants: dict[str, dict[str, Any]]) -> dict[str, Any]:
        return {name: (config["embed_dim"], tuple(config["depths"])) for name, config in variants.items()}

    assert {"2025-06": sizes(network_sizes.JUNE_SIZES), "3.1": sizes(network_sizes.LATER_SIZES)} == SIZES


# Which host loads what: inspect, fuse and doctor say the same.

LOADED = {
    "booleans": ("m.pth", lambda p: torch.save({**WEIGHTS, "flag": torch.tensor(True)}, p)),
    "bytes and integers beside": (
        "m.pth",
        lambda p: torch.save({"params": WEIGHTS, "a": torch.ones(2).byte(), "b": torch.ones(2).short()}, p),
    ),
    "bin": ("m.bin", lambda p: torch.save(WEIGHTS, p)),
    "sft": ("m.sft", lambda p: save_file(WEIGHTS, p)),
    "safetensors": ("m.safetensors", lambda p: save_file(WEIGHTS, p)),
    "parameters": ("m.pth", lambda p: torch.save({k: torch.nn.Parameter(v) for k, v in WEIGHTS.items()}, p)),
    "a version": ("m.pth", lambda p: torch.save({**WEIGHTS, "v": torch.torch_version.TorchVersion("2.0")}, p)),
    "compressed again": ("m.pth", rezipped),
    "packed again": ("m.pth", lambda p: rezipped(p, zipfile.ZIP_STORED, "m/")),
    "as before 1.6": ("m.pth", lambda p: torch.save(WEIGHTS, p, _use_new_zipfile_serialization=False)),
    "a misleading name": ("m.pth", lambda p: save_file(WEIGHTS, p)),
    "fp8": ("m.pth", lambda p: torch.save(in_fp8(), p)),
    "fp8 as before 1.6": ("m.pth", lambda p: torch.save(in_fp8(), p, _use_new_zipfile_serialization=False)),
    "fp8 in safetensors": ("m.safetensors", lambda p: save_file(in_fp8(), p)),
}


def in_fp8() -> dict[str, torch.Tensor]:
    if not hasattr(torch, "float8_e4m3fn"):
        pytest.skip("this torch has no fp8")
    return {key: tensor.to(torch.float8_e4m3fn) for key, tensor in WEIGHTS.items()}


@pytest.mark.parametrize("name", LOADED)
def test_inspect_and_doctor_agree_about_which_host_reads_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    file_name, make = LOADED[name]
    make(tmp_path / file_name)
    told = inspect_view(inspect_model(tmp_path / file_name)).described
    usable = {kind.id for kind in KINDS if kind.usable}
    well = set()
    for kind in usable:
        steps = {step["step"]: step["ok"] for step in diagnosed(monkeypatch, tmp_path / file_name, kind)["steps"]}
        well |= {kind} if steps["loaded"] else set()
    assert set(told["hosts"]) == well
    shown = in_process.aether_install("inspect", tmp_path / file_name).stdout
    assert ("no host loads this file" in shown) is (not well)
    assert ("every application but A1111" in shown) is (well == usable - {"a1111"})
    assert name_of("comfyui") == "ComfyUI"


def test_fuse_leaves_a_good_file_alone(tmp_path: Path) -> None:
    fused = JUNE.fuse(WEIGHTS)
    torch.save({**fused, "flag": torch.tensor(True)}, tmp_path / "m.pth")
    with pytest.raises(AetherInstallError, match=r"fused already .* use it as it is"):
        fuse(tmp_path / "m.pth", tmp_path / "out.pth")
    for name, save in (("m.bin", torch.save), ("m.sft", save_file)):
        save(fused, tmp_path / name)
        with pytest.raises(AetherInstallError, match=r"fused already .* few hosts load it: .* should end in"):
            fuse(tmp_path / name, tmp_path / ("out.pth" if save is torch.save else "out.safetensors"))


def test_a_name_that_a_host_does_not_list_is_to_be_changed_if_that_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(WEIGHTS, tmp_path / "m.sft")
    for path, suffix in ((saved(WEIGHTS, tmp_path / "m.bin"), ".pth"), (tmp_path / "m.sft", ".safetensors")):
        assert diagnosed(monkeypatch, path, "chainner")["advice"][0] == f"Rename to {suffix}: its name is to end so."
        assert diagnosed(monkeypatch, path, "comfyui")["ok"] is True
    assert "aether-install fuse" in diagnosed(monkeypatch, tmp_path / "m.sft", "a1111")["advice"][0]


def test_a_compressed_archive_is_fused(tmp_path: Path) -> None:
    fuse(rezipped(tmp_path / "m.pth"), tmp_path / "out.pth")
    expected = JUNE.fuse(WEIGHTS)
    read = torch.load(tmp_path / "out.pth")
    assert all(torch.equal(read[key], tensor) for key, tensor in expected.items())


def test_fp8_is_named(tmp_path: Path) -> None:
    save_file(in_fp8(), tmp_path / "m.safetensors")
    torch.save(in_fp8(), tmp_path / "m.pth")
    for path in (tmp_path / "m.safetensors", tmp_path / "m.pth"):
        inspected = inspect_view(inspect_model(path)).described
        assert inspected["dtype"] == "float8_e4m3fn"
        assert "fp8" in inspected["warnings"][0]
        with pytest.raises(AetherInstallError, match="float8_e4m3fn, which is not fused; use the float16 or float32"):
            fuse(path, tmp_path / "out.pth")


def test_a_folder_that_was_an_archive_is_no_folder_of_models(tmp_path: Path) -> None:
    unpacked(tmp_path / "m")
    with pytest.raises(AetherInstallError, match="the folder of an unpacked PyTorch file"):
        fuse_all([tmp_path / "m"], tmp_path / "out", command.Options(), lambda *_, **__: None)
    (tmp_path / "models").mkdir()
    save_file(WEIGHTS, tmp_path / "models" / "a.sft")
    batch = fuse_all([tmp_path / "models"], tmp_path / "out", command.Options(verify=False), lambda *_, **__: None)
    assert [result.written[0].path.name for result in batch.done] == ["a.safetensors"]
