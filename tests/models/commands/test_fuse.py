"""Fusing gives the same picture, in a file that every host loads, and touches nothing that it should not."""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import signal
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import spandrel
import torch
from environments import snapshot
from faults import KILLED, at_every_step, failing_with, fails_at_step, kill
from model_files import CONTAINERS, fuse, quietly
from networks import JUNE, aether_core
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from weights import GOLDEN_NAMES, StateDict, golden, plain_output, weights_of

from aether_install.errors import AetherInstallError
from aether_install.models import fuse as command
from aether_install.models import saving
from aether_install.models.batch import fuse_all
from aether_install.models.network import module

SMALL = {"embed_dim": 8, "depths": (1, 2), "upscale": 2}


def read(path: Path) -> StateDict:
    weights: StateDict = load_file(path) if path.suffix == ".safetensors" else torch.load(path)
    return weights


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.pth"
    torch.save({"params_ema": weights_of(**SMALL)}, path)
    return path


@pytest.mark.parametrize(("name", "suffix"), zip(GOLDEN_NAMES, [".pth", ".safetensors"] * 2, strict=True))
def test_float32_equals_the_published_fusion_bit_for_bit(tmp_path: Path, name: str, suffix: str) -> None:
    case = golden(name)
    torch.save({"params": case.unfused}, tmp_path / "model.pth")
    result = fuse(tmp_path / "model.pth", tmp_path / f"out{suffix}")
    fused = read(result.written[0].path)
    assert set(fused) == set(case.fused_keys)
    assert all(zlib.crc32(fused[key].numpy().tobytes()) == crc for key, crc in case.fused_crc32.items())
    assert result.written[0].comparison is not None
    assert result.written[0].comparison.max_abs_diff < 1e-5 * result.written[0].comparison.output_range * 10
    descriptor = spandrel.ModelLoader().load_from_file(result.written[0].path)
    assert descriptor.architecture.id == "AetherNet-Fused"
    with torch.inference_mode():
        torch.testing.assert_close(descriptor.model(case.x), case.y, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_the_exact_sum_rounded_once(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = {key: tensor.to(dtype) for key, tensor in weights_of(**SMALL).items()}
    save_file(weights, tmp_path / "model.safetensors")
    fused = read(fuse(tmp_path / "model.safetensors", tmp_path / "out.pth").written[0].path)
    for key, tensor in fused.items():
        assert tensor.dtype == dtype
        block, conv, part = key.partition(".conv.fused_conv.")
        if not conv:
            assert torch.equal(tensor, weights[key])
            continue
        if part == "weight":
            large, small = (weights[f"{block}.conv.{size}_conv.weight"].double() for size in ("lk", "sk"))
            pad = (large.shape[-1] - small.shape[-1]) // 2
            large[:, :, pad : pad + small.shape[-1], pad : pad + small.shape[-1]] += small
        else:
            large = weights[f"{block}.conv.lk_bias"].double() + weights[f"{block}.conv.sk_bias"].double()
        assert torch.equal(tensor, large.to(dtype)), key


def assert_fused_from(path: Path, weights: StateDict) -> None:
    fused = read(fuse(path, path.with_name("out.pth"), verify=False).written[0].path)
    expected = JUNE.fuse(weights)
    assert list(fused) == list(expected)
    assert all(torch.equal(fused[key], expected[key]) for key in expected)


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_takes_every_container(tmp_path: Path, container: Callable[[StateDict], Any]) -> None:
    weights = weights_of(**SMALL)
    torch.save(container(weights), tmp_path / "model.pth")
    assert_fused_from(tmp_path / "model.pth", weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_takes_files_as_torch_wrote_them_before_1_6(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = {key: tensor.to(dtype) for key, tensor in weights_of(**SMALL).items()}
    torch.save({"params_ema": weights, "iter": 3}, tmp_path / "model.ckpt", _use_new_zipfile_serialization=False)
    assert_fused_from(tmp_path / "model.ckpt", weights)


def test_takes_parameters_and_says_why_spandrel_does_not(tmp_path: Path) -> None:
    from aether_install.models.inspection import inspect_model

    parameters = {key: torch.nn.Parameter(tensor) for key, tensor in weights_of(**SMALL).items()}
    torch.save(parameters, tmp_path / "model.pth")
    inspected = inspect_model(tmp_path / "model.pth").spandrel
    assert inspected is not None
    assert "torch._utils._rebuild_parameter" in (inspected.obstacle or "")
    with pytest.raises(pickle.UnpicklingError, match="_rebuild_parameter"):
        spandrel.ModelLoader().load_from_file(tmp_path / "model.pth")
    output = fuse(tmp_path / "model.pth", tmp_path / "out.pth").written[0].path
    assert spandrel.ModelLoader().load_from_file(output).architecture.id == "AetherNet-Fused"


def trainner_file(tmp_path: Path, **hyperparameters: Any) -> Path:
    """A file as traiNNer-redux writes it."""
    path = tmp_path / "trained.safetensors"
    noted = {"network_type": "aether", "scale": 2, **hyperparameters}
    save_file(weights_of(**SMALL), path, {"format": "pt", "metadata": json.dumps(noted)})
    return path


@pytest.mark.parametrize("img_range", [255.0, 2.0, 0.1])
def test_img_range_of_the_metadata_is_folded_in(tmp_path: Path, img_range: float) -> None:
    source = trainner_file(tmp_path, img_range=img_range)
    result = fuse(source, tmp_path / "out.safetensors")
    assert result.folded == {"img_range": img_range}
    with safe_open(result.written[0].path, "pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "pt"
    assert json.loads(metadata["metadata"]) == {"network_type": "aether", "scale": 2, "img_range": 1.0}
    x = torch.rand(1, 3, 9, 8)
    expected = plain_output(x, weights_of(**SMALL), **SMALL, img_range=img_range)
    descriptor = spandrel.ModelLoader().load_from_file(result.written[0].path)
    with torch.inference_mode():
        rounding = 1e-5 * max(1, 1 / img_range)
        torch.testing.assert_close(descriptor.model(x), expected, rtol=1e-5, atol=rounding)


def test_metadata_is_kept_as_it_is_where_nothing_is_folded(tmp_path: Path) -> None:
    source = trainner_file(tmp_path, img_range=1.0, note="keep me")
    result = fuse(source, tmp_path / "out.safetensors")
    with safe_open(source, "pt") as before, safe_open(result.written[0].path, "pt") as after:
        assert after.metadata()["format"] == before.metadata()["format"]
        assert json.loads(after.metadata()["metadata"]) == json.loads(before.metadata()["metadata"])


def test_img_range_of_the_flag_must_agree_with_the_file(tmp_path: Path, model: Path) -> None:
    source = trainner_file(tmp_path, img_range=255.0)
    with pytest.raises(AetherInstallError, match=r"states img_range 255 .* --img_range says 1"):
        fuse(source, tmp_path / "out.pth", img_range=1.0)
    assert fuse(source, tmp_path / "out.pth", img_range=255.0).arguments["img_range"] == 255
    assert fuse(model, tmp_path / "out2.pth", img_range=255.0).arguments["img_range"] == 255
    with pytest.raises(AetherInstallError, match="positive"):
        fuse(model, tmp_path / "out3.pth", img_range=0.0)


@pytest.mark.parametrize(("img_range", "what"), [(1e7, "overflow"), (1e-7, "vanish")])
def test_half_precision_that_cannot_take_img_range_asks_for_float32(
    tmp_path: Path, img_range: float, what: str
) -> None:
    torch.save({key: tensor.half() for key, tensor in weights_of(**SMALL).items()}, tmp_path / "half.pth")
    with pytest.raises(AetherInstallError, match=rf"conv_\w+\.weight.*{what}.*float32"):
        fuse(tmp_path / "half.pth", tmp_path / "out.pth", img_range=img_range)
    assert not (tmp_path / "out.pth").exists()


class Malicious:
    """What a hostile pickle looks like: reading it naively runs a program."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.touched}",)


def write_malicious(path: Path) -> None:
    torch.save({"params": weights_of(**SMALL), "bomb": Malicious(path.with_name("ran"))}, path)


def write_truncated(path: Path) -> None:
    torch.save(weights_of(**SMALL), path)
    path.write_bytes(path.read_bytes()[:-5000])


def write_short_safetensors(path: Path) -> None:
    save_file(weights_of(**SMALL), path)
    path.write_bytes(path.read_bytes()[:-5000])


def write_zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 50_000_000)


def write_inflated(path: Path) -> None:
    """A few kilobytes that claim to be gigabytes."""
    with torch.device("meta"):
        shapes = {
            key: tensor.shape for key, tensor in aether_core.aether(embed_dim=4096, depths=(1,)).state_dict().items()
        }
    torch.save({key: torch.zeros(1).expand(shape) for key, shape in shapes.items()}, path)


def write_torchscript(path: Path) -> None:
    with torch.no_grad():
        torch.jit.trace(JUNE.build(weights_of(**SMALL)), torch.rand(1, 3, 8, 8)).save(str(path))


def write_mixed(path: Path) -> None:
    weights = weights_of(**SMALL)
    fused = JUNE.fuse(weights)
    mixed = {key: tensor for key, tensor in weights.items() if not key.startswith("layers.1.")}
    torch.save({**mixed, **{key: tensor for key, tensor in fused.items() if key.startswith("layers.1.")}}, path)


def write_swinir(path: Path) -> None:
    from spandrel.architectures.SwinIR import SwinIR

    torch.save({"params": SwinIR(window_size=8, embed_dim=12, depths=[1], num_heads=[2]).state_dict()}, path)


def later_generation_in_part() -> dict[str, torch.Tensor]:
    return {
        "scale_tensor": torch.tensor(2),
        "conv_first.weight": torch.zeros(8, 3, 3, 3),
        "stages.0.0.conv.lk_conv.weight": torch.zeros(8, 1, 11, 11),
        "stages.0.0.conv.sk_conv.weight": torch.zeros(8, 1, 3, 3),
        "stages.0.0.ffn.conv_gate.weight": torch.zeros(16, 8, 1, 1),
    }


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "an empty file": (lambda path: path.write_bytes(b""), "is empty"),
    "a random file": (lambda path: path.write_bytes(bytes(range(256)) * 40), "neither a PyTorch nor a safetensors"),
    "a web page": (lambda path: path.write_text("<html>404</html>"), "is a web page"),
    "a truncated file": (write_truncated, "truncated or damaged"),
    "a truncated safetensors file": (write_short_safetensors, "truncated or damaged"),
    "a zip bomb": (write_zip_bomb, "compressed archive"),
    "a pickle that runs code": (write_malicious, r"holds posix\.system, which is no weights, and was not run"),
    "a program": (write_torchscript, "TorchScript"),
    "a plain pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "a pickle that torch did not write"),
    "a list": (lambda path: torch.save([torch.zeros(1)], path), "holds a list"),
    "a fused model": (lambda path: torch.save(JUNE.fuse(weights_of(**SMALL)), path), "is fused already"),
    "a mixed model": (write_mixed, r"layers\.1\.0\.conv\.fused_conv\.weight is fused .* mixed"),
    "another network": (write_swinir, "a SwinIR model"),
    "an unknown network": (lambda path: torch.save({"a": torch.zeros(3)}, path), "no network known here"),
    "a damaged model of the later generation": (
        lambda path: torch.save(later_generation_in_part(), path),
        r"holds damaged AetherNet weights: stages\.0\.0\.\S+ is missing",
    ),
    "a missing file": (Path.exists, "No such file"),
    "a folder": (lambda path: path.mkdir(), "is a folder"),
    "numbers that are not there": (write_inflated, "holds fewer bytes than its tensors claim"),
}


@pytest.mark.parametrize(("write", "message"), REFUSED.values(), ids=REFUSED)
def test_refuses_what_is_no_unfused_aethernet(tmp_path: Path, write: Callable[[Path], object], message: str) -> None:
    path = tmp_path / "model.pth"
    write(path)
    before = snapshot(tmp_path)
    with pytest.raises(AetherInstallError, match=message) as caught:
        fuse(path, tmp_path / "out" / "fused.pth")
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert snapshot(tmp_path) == before


def test_a_fused_model_by_a_wrong_name_is_to_be_renamed(tmp_path: Path) -> None:
    save_file(JUNE.fuse(weights_of(**SMALL)), tmp_path / "model.pth")
    with pytest.raises(
        AetherInstallError, match=r"fused already .* should end in \.safetensors; rename the file"
    ) as refused:
        fuse(tmp_path / "model.pth", tmp_path / "fused.safetensors")
    assert "as it is" not in refused.value.message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_type": "aether_small"}, r"not aether_small but AetherNet embed_dim 8, depths \(1, 2\), 2x"),
        ({"upscale": 4}, "does not upscale 4x: it is AetherNet"),
        ({"device": "cuda:99"}, "device cuda:99 cannot be used"),
        ({"device": "nonsense"}, "device nonsense cannot be used"),
    ],
    ids=str,
)
def test_refuses_promises_that_the_file_does_not_keep(
    tmp_path: Path, model: Path, options: dict[str, Any], message: str
) -> None:
    before = snapshot(tmp_path)
    with pytest.raises(AetherInstallError, match=message):
        fuse(model, tmp_path / "out" / "fused.pth", **options)
    assert snapshot(tmp_path) == before


def test_refuses_outputs_that_are_in_the_way(tmp_path: Path, model: Path) -> None:
    (tmp_path / "there.pth").write_bytes(b"precious")
    (tmp_path / "link.pth").symlink_to(model)
    os.link(model, tmp_path / "hardlink.pth")
    before = snapshot(tmp_path)
    for name, message in {
        "there.pth": "--force",
        "model.pth": "the model itself",
        "link.pth": "the model itself",
        "hardlink.pth": "the model itself",
        "out.gguf": r"must end in \.pth or \.safetensors or \.onnx",
        "out": r"must end in \.pth or \.safetensors or \.onnx",
        "model.pth/out.pth": "cannot be written",
    }.items():
        force = message != "--force"
        with pytest.raises(AetherInstallError, match=message):
            fuse(model, tmp_path / name, force=force)
        assert snapshot(tmp_path) == before
    assert fuse(model, tmp_path / "there.pth", force=True).written[0].path.read_bytes() != b"precious"


def test_makes_missing_folders_and_takes_variants_at_their_word(tmp_path: Path) -> None:
    torch.save(golden("small_x2").unfused, tmp_path / "small.pth")
    output = tmp_path / "a" / "b" / "out.PTH"
    result = fuse(tmp_path / "small.pth", output, model_type="aether_small", upscale=2, verify=False)
    assert result.source.variant == "small"
    assert output.stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_file_that_does_not_verify_is_not_kept(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_wrongly(weights: StateDict, *rest: Any) -> None:
        saving.write_weights({key: tensor * 1.01 for key, tensor in weights.items()}, *rest)

    monkeypatch.setattr(command, "write_weights", write_wrongly)
    (tmp_path / "there.pth").write_bytes(b"precious")
    before = snapshot(tmp_path)
    for name in ("out.pth", "there.pth"):
        with pytest.raises(AetherInstallError, match=r"differs from what was written, so it was not kept"):
            fuse(model, tmp_path / name, force=True)
    assert snapshot(tmp_path) == before


def test_kernels_that_are_merged_wrongly_do_not_verify(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module("__arch.fusing"), "merge_kernels", lambda lk_weight, lk_bias, *_: (lk_weight, lk_bias))
    with pytest.raises(AetherInstallError, match="would differ from"):
        fuse(model, tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


def test_a_model_without_finite_output_is_told_apart(tmp_path: Path) -> None:
    weights = weights_of(**SMALL)
    weights["conv_first.bias"][0] = float("nan")
    torch.save(weights, tmp_path / "model.pth")
    with pytest.raises(AetherInstallError, match="itself gives no finite output"):
        fuse(tmp_path / "model.pth", tmp_path / "out.pth")
    assert fuse(tmp_path / "model.pth", tmp_path / "out.pth", verify=False).written[0].path.exists()


TINY = {"embed_dim": 2, "depths": (1,), "upscale": 1, "num_feat": 2, "lk_kernel": 3}
"""Few tensors, each of which takes a step to write."""


@dataclass(frozen=True)
class Fusing:
    """A small model that is fused into an empty folder, or onto a file that is there."""

    model: Path
    output: Path
    replacing: bool

    def run(self) -> None:
        fuse(self.model, self.output, force=True, verify=False)

    def prepare(self) -> Callable[[], None]:
        """Sets the scene anew, and returns the work."""
        for path in self.output.parent.iterdir():
            path.unlink()
        if self.replacing:
            self.output.write_bytes(b"precious")
        return self.run

    def left(self) -> list[Path]:
        """What lies beside the output, which is whole or as before."""
        content = self.output.read_bytes() if self.output.exists() else None
        whole = self.model.with_name(f"whole{self.output.suffix}").read_bytes()
        assert content in (b"precious" if self.replacing else None, whole)
        return [path for path in self.output.parent.iterdir() if path != self.output]


def fusing(folder: Path, suffix: str, replacing: bool) -> Fusing:
    torch.save(weights_of(**TINY), folder / "model.pth")
    fuse(folder / "model.pth", folder / f"whole{suffix}", verify=False)
    (folder / "folder").mkdir()
    return Fusing(folder / "model.pth", folder / "folder" / f"out{suffix}", replacing)


@pytest.mark.parametrize("replacing", [False, True])
def test_killed_at_any_step_the_output_is_whole_or_as_before(tmp_path: Path, replacing: bool) -> None:
    scene, kills = fusing(tmp_path, ".safetensors", replacing), 0
    for kills, ended in at_every_step(scene.prepare, kill):  # noqa: B007 - counted below
        assert ended == KILLED
        left = scene.left()
        assert not left or replacing, left
        if left:
            (path,) = left
            assert path.name.startswith(".")
            assert path.name.endswith(".aether-new")
            scene.run()
            assert scene.left() == []
    assert kills > 5


@pytest.mark.parametrize(("suffix", "replacing"), [(".safetensors", True), (".pth", False)])
def test_when_the_disk_is_full_the_output_is_whole_or_as_before(tmp_path: Path, suffix: str, replacing: bool) -> None:
    scene = fusing(tmp_path, suffix, replacing)
    for step in count(1):
        if not fails_at_step(step, scene.prepare(), failing_with(errno.ENOSPC)):
            break
        assert scene.left() == []
    assert step > 5


def test_killed_from_outside_at_any_moment_it_leaves_nothing_half_done(tmp_path: Path, model: Path) -> None:
    whole = fuse(model, tmp_path / "whole.pth", verify=False).written[0].path.read_bytes()
    folder = tmp_path / "folder"
    folder.mkdir()
    for pause in range(10):
        child = os.fork()
        if child == 0:
            while True:
                fuse(model, folder / "out.pth", verify=False)
                (folder / "out.pth").unlink()
        time.sleep(0.005 * pause)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        left = list(folder.iterdir())
        assert not left or (left == [folder / "out.pth"] and left[0].read_bytes() == whole)
        for path in left:
            path.unlink()


def test_several_models_are_fused_in_one_go(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    weights = weights_of(**SMALL)
    torch.save(weights, folder / "a.pth")
    save_file(weights, folder / "b.safetensors")
    torch.save({"state_dict": weights}, folder / "c.ckpt")
    torch.save(JUNE.fuse(weights), folder / "fused.pth")
    write_malicious(folder / "hostile.pth")
    (folder / "notes.txt").write_text("no model")
    batch = fuse_all([folder], tmp_path / "out", command.Options(), quietly)
    assert {result.written[0].path.name for result in batch.done} == {"a.pth", "b.safetensors", "c.pth"}
    assert {path.name: error.message.partition(" (")[0] for path, error in batch.failed} == {
        "fused.pth": f"{folder / 'fused.pth'} is fused already",
        "hostile.pth": f"{folder / 'hostile.pth'} holds posix.system, which is no weights, and was not run; "
        "get a file of weights alone",
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.pth", "b.safetensors", "c.pth"]
    assert not (folder / "ran").exists()


def test_several_models_never_cost_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    (folder / "more").mkdir(parents=True)
    weights = weights_of(**SMALL)
    torch.save(weights, folder / "a.ckpt")
    torch.save(weights_of(**{**SMALL, "upscale": 4}), folder / "a.pth")
    torch.save(weights, folder / "more" / "a.pth")
    before = snapshot(folder)
    batch = fuse_all([folder], folder, command.Options(force=True), quietly)
    assert not batch.done
    assert "another of the models" in batch.failed[0][1].message
    assert snapshot(folder) == before
    both = [folder / "a.pth", folder / "more" / "a.pth"]
    batch = fuse_all(both, tmp_path / "out", command.Options(force=True), quietly)
    assert [result.source.parameters["upscale"] for result in batch.done] == [4]
    assert f"as {both[0]} did" in batch.failed[0][1].message


@pytest.mark.parametrize(
    "pair", [("net_g", "ema"), ("net_g", "net_g_ema"), ("generator", "ema_model"), ("model", "model_ema")]
)
def test_averaged_weights_win_wherever_both_are(tmp_path: Path, pair: tuple[str, str]) -> None:
    weights = weights_of(**SMALL)
    averaged = {key: tensor * 0.5 for key, tensor in weights.items()}
    torch.save({pair[0]: weights, pair[1]: averaged, "iter": 3}, tmp_path / "model.pth")
    assert fuse(tmp_path / "model.pth", tmp_path / "fused.pth").source.container == pair[1]
    assert torch.equal(read(tmp_path / "fused.pth")["conv_last.bias"], averaged["conv_last.bias"])


def test_tensors_that_share_memory_are_written_apart(tmp_path: Path) -> None:
    weights = weights_of(**SMALL)
    weights["layers.1.1.norm.weight"] = weights["layers.1.0.norm.weight"]
    weights["layers.1.1.norm.bias"] = torch.zeros(1).expand(8)
    torch.save(weights, tmp_path / "model.pth")
    for suffix in (".pth", ".safetensors"):
        output = fuse(tmp_path / "model.pth", tmp_path / f"fused{suffix}").written[0].path
        assert torch.equal(read(output)["layers.1.1.norm.weight"], weights["layers.1.0.norm.weight"])


@pytest.mark.parametrize(
    "metadata", [{}, {"metadata": '{"név": "å\\n\\u0007"}\t\U0001f600'}], ids=["bare", "with metadata"]
)
def test_safetensors_are_those_of_the_library_to_the_byte(tmp_path: Path, metadata: dict[str, str]) -> None:
    dtypes = [torch.float16, torch.float64, torch.bfloat16, torch.float32]
    weights = {key: tensor.to(dtypes[i % 4]) for i, (key, tensor) in enumerate(weights_of(**SMALL).items())}
    weights |= {"scalar": torch.tensor(2.0), "empty": torch.zeros(3, 0), 'ké"y': torch.zeros(1).bfloat16()}
    saving.write_weights(weights, tmp_path / "model.safetensors", ".safetensors", metadata)
    assert (tmp_path / "model.safetensors").read_bytes() == save(weights, metadata or None)


def test_half_precision_sums_that_overflow_are_refused(tmp_path: Path) -> None:
    weights = {key: tensor.half() for key, tensor in weights_of(**SMALL).items()}
    weights["layers.0.0.conv.lk_bias"][0] = weights["layers.0.0.conv.sk_bias"][0] = 60000
    torch.save(weights, tmp_path / "model.pth")
    with pytest.raises(AetherInstallError, match=r"layers\.0\.0\.conv\.fused_conv\.bias would overflow in float16"):
        fuse(tmp_path / "model.pth", tmp_path / "fused.pth", verify=False)


def test_an_untrained_model_in_half_precision_verifies(tmp_path: Path) -> None:
    """Its outputs span little, and bfloat16 has few digits."""
    for dtype in (torch.float16, torch.bfloat16):
        torch.manual_seed(0)
        torch.save(
            aether_core.aether(embed_dim=16, depths=(1,), upscale=4).to(dtype).state_dict(), tmp_path / "model.pth"
        )
        assert fuse(tmp_path / "model.pth", tmp_path / "fused.pth", force=True).written[0].comparison


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_grows_too_large_is_explained_and_leaves_nothing(tmp_path: Path, model: Path, suffix: str) -> None:
    before = snapshot(tmp_path)
    output = tmp_path / "new" / "folder" / f"fused{suffix}"
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
        try:
            fuse(model, output)
        except AetherInstallError as error:
            os.write(sender, error.message.encode())
        os._exit(0)
    os.close(sender)
    os.waitpid(child, 0)
    with os.fdopen(receiver) as told:
        assert f"{output} cannot be written (File too large)" in told.read()
    assert snapshot(tmp_path) == before


def test_names_may_be_as_long_as_names_can_be(tmp_path: Path, model: Path) -> None:
    output = tmp_path / ("x" * 251 + ".pth")
    fuse(model, output)
    fuse(model, output, force=True)
    assert output.exists()


def test_text_that_is_no_metadata_of_ours_is_kept(tmp_path: Path) -> None:
    save_file(weights_of(**SMALL), tmp_path / "model.safetensors", {"metadata": "trained by Bob"})
    fuse(tmp_path / "model.safetensors", tmp_path / "fused.safetensors", img_range=255.0)
    with safe_open(tmp_path / "fused.safetensors", "pt") as file:
        assert file.metadata() == {"metadata": "trained by Bob"}


def test_metadata_within_itself_is_written_once(tmp_path: Path) -> None:
    noted: dict[str, Any] = {"betas": [0.9, 0.99]}
    noted["also"] = noted["betas"]
    noted["itself"] = {f"key{number}": noted for number in range(300)}
    torch.save({"params": weights_of(**SMALL), "metadata": noted}, tmp_path / "model.pth")
    fuse(tmp_path / "model.pth", tmp_path / "fused.safetensors", verify=False)
    with safe_open(tmp_path / "fused.safetensors", "pt") as file:
        kept = json.loads(file.metadata()["metadata"])
    assert kept["betas"] == kept["also"] == [0.9, 0.99]
    assert list(kept["itself"].values())[1:] == ["..."] * 299
