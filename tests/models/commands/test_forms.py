"""One model in every form in which models are released, each read back by what its users would load it with."""

from __future__ import annotations

import errno
import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import in_process
import pytest
import torch
from environments import REPOSITORY, aether_install, quietly, run, script, snapshot
from imports import taught_spandrels
from model_files import fuse
from networks import GENERATIONS, JUNE, LATER
from old_torch import ENVIRONMENT, python_with_old_torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from weights import GOLDEN_NAMES, golden, weights_of
from weights3 import FORMS as FORMS3
from weights3 import GOLDEN3, GOLDEN3_NAMES, golden3

from aether_install.cli import models
from aether_install.errors import AetherInstallError
from aether_install.models import compare, forms, onnx, output
from aether_install.models.checkpoint import read_checkpoint
from aether_install.models.fuse import Fused, Options
from aether_install.models.fuse import fuse as fuse_one
from aether_install.models.identify import identify
from aether_install.models.inspection import inspect_model
from aether_install.ui.models import fuse_view, inspect_view

SMALL = {"embed_dim": 8, "depths": (1, 2), "upscale": 2}
DEMO = REPOSITORY / "examples" / "models" / "2x-AetherNet-photo.pth"
PHOTO = REPOSITORY / "examples" / "photos" / "chelsea.png"

DTYPES = ("float32", "float16", "bfloat16")
FORMS = [(suffix, dtype) for suffix in (".pth", ".safetensors") for dtype in DTYPES]
FORMS += [(".onnx", dtype) for dtype in DTYPES[:2]]
SIZES = [(1, 1, 1), (2, 7, 5), (1, 48, 47)]
"""Images, height, width."""


def release(model: Path, folder: Path, which: list[tuple[str, str]] = FORMS, **options: Any) -> Fused:
    outputs = [folder / f"out_{dtype}{suffix}" for suffix, dtype in which]
    how = Options(dtypes=[dtype for _, dtype in which], **options)
    return fuse_one(model, outputs, how, quietly)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    return taught_spandrels(tmp_path_factory.mktemp)


def by_spandrel(spandrel: Any, path: Path, dtype: str) -> Callable[[Tensor], Tensor]:
    descriptor = spandrel.ModelLoader().load_from_file(path)
    assert descriptor.architecture.id in {generation.architecture(fused=True) for generation in GENERATIONS}
    descriptor.model.to(getattr(torch, dtype))

    def run(image: Tensor) -> Tensor:
        with torch.inference_mode():
            output: Tensor = descriptor.model(image.to(getattr(torch, dtype)))
        return output.float()

    return run


def by_onnxruntime(path: Path, dtype: str) -> Callable[[Tensor], Tensor]:
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["input"]
    assert [each.name for each in session.get_outputs()] == ["output"]
    given = getattr(torch, dtype)
    return lambda image: torch.from_numpy(session.run(None, {"input": image.to(given).numpy()})[0]).float()


def by_openvino(path: Path, dtype: str) -> Callable[[Tensor], Tensor]:
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    # Left to itself it computes in bfloat16 where the processor can.
    how = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(str(path), "CPU", how)
    given = getattr(torch, dtype)
    return lambda image: torch.from_numpy(compiled([image.to(given).numpy()])[0].copy()).float()


def models_of_both_generations(folder: Path) -> Iterator[Path]:
    yield DEMO
    for name in GOLDEN_NAMES:
        torch.save({"params": golden(name).unfused}, folder / f"{name}.pth")
        yield folder / f"{name}.pth"
    for number, name in enumerate(GOLDEN3_NAMES):
        yield golden3(name).path(FORMS3[number % 2])
    yield GOLDEN3 / "optimized_fp32.pth"


ALL = ["demo", *GOLDEN_NAMES, *GOLDEN3_NAMES, "release"]


@pytest.mark.parametrize("which", range(len(ALL)), ids=ALL)
def test_every_form_makes_the_same_picture_in_what_loads_it(
    tmp_path: Path, taught: Callable[[str], Any], which: int
) -> None:
    model = list(models_of_both_generations(tmp_path))[which]
    source = identify(read_checkpoint(model))
    generation, identity = source.identity.generation, source.identity
    known = {**generation.assumed(identity.parameters), **identity.noted}
    network = generation.build(source.weights, **known)
    channels = generation.describe(identity.parameters)["in_chans"]
    images = [torch.rand(b, channels, h, w, generator=torch.Generator().manual_seed(h)) for b, h, w in SIZES]
    with torch.inference_mode():
        expected = [network(image) for image in images]
    span = (max(y.max() for y in expected) - min(y.min() for y in expected)).item()
    result = release(model, tmp_path / "out")
    assert [(written.path.suffix, written.dtype) for written in result.written] == FORMS
    for written, (suffix, dtype) in zip(result.written, FORMS, strict=True):
        assert written.comparison is not None
        if suffix == ".onnx":
            readers = [by_onnxruntime(written.path, dtype), by_openvino(written.path, dtype)]
        else:
            readers = [by_spandrel(taught(version), written.path, dtype) for version in ("0.3.4", "0.4.2")]
        within = 1e-4 if dtype == "float32" else 3e-2
        for read in readers:
            for image, y in zip(images, expected, strict=True):
                assert (read(image) - y).abs().max() <= within * span, (suffix, dtype, image.shape)


@pytest.mark.parametrize(("dtype", "least"), [("float16", 60), ("bfloat16", 45)])
def test_a_photo_in_half_precision(tmp_path: Path, dtype: str, least: float) -> None:
    """Of the colours of pictures, which are of 8 bits, 48 dB is the rounding to the next one."""
    import numpy as np
    from PIL import Image

    with Image.open(PHOTO) as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None, :, 60:188, 100:260]
    release(DEMO, tmp_path, [(".pth", "float32"), (".pth", dtype)], verify=False)
    with torch.inference_mode():
        # The weights alone are of that type; what is computed in it rests with whoever loads them.
        one, other = (
            JUNE.build(torch.load(tmp_path / f"out_{each}.pth"))(image).clamp(0, 1) for each in ("float32", dtype)
        )
    psnr = -10 * (one - other).square().mean().log10().item()
    assert psnr > least


def test_conversion_rounds_the_exact_sum_once(tmp_path: Path) -> None:
    weights = weights_of(**SMALL)
    torch.save(weights, tmp_path / "model.pth")
    release(tmp_path / "model.pth", tmp_path, [(".pth", "bfloat16"), (".safetensors", "float16")])
    fused = JUNE.fuse(weights)
    for made, dtype in (
        (torch.load(tmp_path / "out_bfloat16.pth"), torch.bfloat16),
        (load_file(tmp_path / "out_float16.safetensors"), torch.float16),
    ):
        assert list(made) == list(fused) or dtype == torch.float16  # safetensors sorts them
        assert all(torch.equal(made[key], fused[key].to(dtype)) for key in fused)


def test_widening_sums_in_the_wider_type(tmp_path: Path) -> None:
    halves = {key: tensor.bfloat16() for key, tensor in weights_of(**SMALL).items()}
    save_file(halves, tmp_path / "model.safetensors")
    release(tmp_path / "model.safetensors", tmp_path, [(".pth", "float32")])
    made = torch.load(tmp_path / "out_float32.pth")
    expected = JUNE.fuse({key: tensor.float() for key, tensor in halves.items()})
    assert all(torch.equal(made[key], expected[key]) for key in expected)
    assert not torch.equal(made["layers.0.0.conv.fused_conv.weight"], made["layers.0.0.conv.fused_conv.weight"].half())


@pytest.mark.parametrize("generation", GENERATIONS, ids=lambda each: each.name)
def test_a_fused_file_is_taken_for_another_container_or_dtype_and_for_nothing_else(
    tmp_path: Path, generation: Any
) -> None:
    weights = generation.fuse(weights_of(**SMALL)) if generation is JUNE else golden3("a_x2_base").weights("fused")
    model = tmp_path / "model.pth"
    torch.save(LATER.fold(LATER.clean(weights), img_range=1.0) if generation is LATER else weights, model)
    for suffix, dtype in FORMS:
        output = tmp_path / f"out_{dtype}{suffix}"
        if (suffix, dtype) == (".pth", "float32"):
            with pytest.raises(AetherInstallError, match=r"is fused already .* or ask for another --dtype"):
                fuse(model, output, dtypes=[dtype])
            continue
        result = fuse(model, output, dtypes=[dtype])
        assert "fused before; written in another form" in fuse_view(result).headline
        assert result.fused_layers == 0
    for suffix in (".pth", ".safetensors"):  # and of those, one that is in that form
        with pytest.raises(AetherInstallError, match="is fused already"):
            fuse(tmp_path / f"out_bfloat16{suffix}", tmp_path / f"again{suffix}", dtypes=["bfloat16"])
        assert fuse(tmp_path / f"out_bfloat16{suffix}", tmp_path / f"again{suffix}", dtypes=["float32"]).written
    # Of a whole release, a file in the form that the model has is a part.
    assert len(release(model, tmp_path / "all").written) == len(FORMS)


def test_weights_that_are_too_large_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    weights = weights_of(**SMALL)
    weights["conv_last.bias"][1] = 7e4
    torch.save(weights, tmp_path / "model.pth")
    before = snapshot(tmp_path)
    message = r"holds 7e\+04 in conv_last\.bias, more than float16 can hold \(6\.55e\+04\); write bfloat16 or float32"
    for which in ([(".pth", "float16")], [(".onnx", "float16")], FORMS):
        with pytest.raises(AetherInstallError, match=message):
            release(tmp_path / "model.pth", tmp_path, which)
        assert snapshot(tmp_path) == before
    release(tmp_path / "model.pth", tmp_path, [(".pth", "bfloat16")])


def test_weights_that_vanish_are_counted_and_named(tmp_path: Path) -> None:
    weights = weights_of(**SMALL)
    weights["conv_last.bias"][:2] = 1e-9
    weights["norm.bias"][0] = -1e-10
    torch.save(weights, tmp_path / "model.pth")
    done = in_process.aether_install(
        "fuse", "--model_path", tmp_path / "model.pth", "--output_path", tmp_path / "out.pth", "--dtype", "float16"
    )
    shown = " ".join((done.stdout + done.stderr).split())
    assert "3 weights are too small for float16 and became zero in out.pth, in norm.bias and 1 more" in shown
    assert "bfloat16 and float32 hold them" in shown
    assert fuse(tmp_path / "model.pth", tmp_path / "wide.pth", dtypes=["bfloat16"]).written[0].vanished == {}


def test_what_the_file_states_is_folded_in_every_form(tmp_path: Path) -> None:
    save_file(weights_of(**SMALL), tmp_path / "m.safetensors", {"metadata": json.dumps({"img_range": 255.0})})
    result = release(tmp_path / "m.safetensors", tmp_path)
    assert result.folded == {"img_range": 255.0}
    for written in result.written:
        assert written.comparison is not None  # with the network that has this img_range
        if written.path.suffix == ".safetensors":
            with safe_open(written.path, "pt") as file:
                assert json.loads(file.metadata()["metadata"])["img_range"] == 1.0


@pytest.mark.parametrize(
    ("outputs", "dtypes", "message"),
    [
        (["a.onnx"], ["bfloat16"], r"a\.onnx cannot hold bfloat16; .* float32 or float16"),
        (["a.pth", "./a.pth"], [], "named twice"),
        (["a.pth", "link/a.pth"], [], "named twice"),
        (["a.pth", "sub/../a.pth"], [], "named twice"),
        (["a.pth", "a.pth/b.pth"], [], "is the folder of another output"),
        (["a.pth", "b.npz"], [], r"must end in \.pth or \.safetensors or \.onnx"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is(
    tmp_path: Path, outputs: list[str], dtypes: list[str], message: str
) -> None:
    torch.save(weights_of(**SMALL), tmp_path / "model.pth")
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "sub").mkdir()
    before = snapshot(tmp_path)
    with pytest.raises(AetherInstallError, match=message):
        fuse_one(tmp_path / "model.pth", [tmp_path / name for name in outputs], Options(dtypes=dtypes), quietly)
    assert snapshot(tmp_path) == before


def test_all_files_of_a_release_appear_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(weights_of(**SMALL), tmp_path / "model.pth")
    (tmp_path / "out_bfloat16.pth").write_bytes(b"precious")
    before = snapshot(tmp_path)
    with pytest.raises(AetherInstallError, match=r"out_bfloat16\.pth is there already"):
        release(tmp_path / "model.pth", tmp_path)
    assert snapshot(tmp_path) == before
    monkeypatch.setitem(compare.TOLERANCE, torch.float16, 0.0)
    monkeypatch.setitem(compare.TOLERANCE, torch.float32, 0.0)
    monkeypatch.setattr(compare, "_ROUNDINGS", 0)
    with pytest.raises(AetherInstallError, match="would differ from"):
        release(tmp_path / "model.pth", tmp_path, force=True)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("nameless", [True, False], ids=["without a name", "under a temporary name"])
@pytest.mark.parametrize("failing", range(3))
def test_what_was_there_comes_back_if_one_cannot_get_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int, nameless: bool
) -> None:
    torch.save(weights_of(**SMALL), tmp_path / "model.pth")
    outputs = [tmp_path / name for name in ("a.pth", "b.safetensors", "new/folder/c.pth")]
    outputs[0].write_bytes(b"precious")
    outputs[1].write_bytes(b"precious too")
    before = snapshot(tmp_path)
    replace, link, count = os.replace, os.link, iter(range(9))

    def refused(real: Callable[..., None], source: Any, target: Any, *rest: Any, **options: Any) -> None:
        if Path(target) in outputs and ".aether-before" not in str(source) and next(count) == failing:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        real(source, target, *rest, **options)

    if not nameless:
        monkeypatch.setattr(output, "_open_nameless", lambda _: None)
    monkeypatch.setattr(os, "replace", functools.partial(refused, replace))
    monkeypatch.setattr(os, "link", functools.partial(refused, link))
    with pytest.raises(AetherInstallError, match="cannot be written"):
        fuse_one(tmp_path / "model.pth", outputs, Options(verify=False, force=True), quietly)
    monkeypatch.undo()
    assert snapshot(tmp_path) == before
    result = fuse_one(tmp_path / "model.pth", outputs, Options(verify=False, force=True), quietly)
    assert all(written.path.stat().st_size == written.size for written in result.written)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth", "b.safetensors", "model.pth", "new"]
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["c.pth"]


def test_weights_of_several_dtypes_are_judged_by_the_coarsest(tmp_path: Path) -> None:
    weights = {key: tensor.half() if "layers" in key else tensor for key, tensor in weights_of(**SMALL).items()}
    torch.save(weights, tmp_path / "model.pth")
    assert fuse(tmp_path / "model.pth", tmp_path / "out.pth").written[0].dtype == "mixed"
    assert fuse(tmp_path / "model.pth", tmp_path / "out.onnx").written[0].dtype == "float32"


def test_what_float16_cannot_compute_is_told(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    weights = weights_of(**SMALL)
    weights["conv_before_upsample.0.bias"][:] = 6e4
    weights["upsample.0.weight"] *= 20
    torch.save(weights, tmp_path / "model.pth")
    message = r"half\.onnx would give no finite output .* dtype cannot hold .* write float32"
    with pytest.raises(AetherInstallError, match=message):
        fuse(tmp_path / "model.pth", tmp_path / "half.onnx", dtypes=["float16"])


@pytest.mark.parametrize("how", ["1 / 0", "raise SystemExit('bye')", "'and has nothing else'"])
def test_an_onnxruntime_that_does_not_work_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    torch.save(weights_of(**SMALL), tmp_path / "model.pth")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "onnxruntime.py").write_text(f"print('hello')\n{how}")
    monkeypatch.syspath_prepend(tmp_path / "broken")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # what puts back the one that is there
    del sys.modules["onnxruntime"]
    done = in_process.aether_install(
        "fuse", "--model_path", tmp_path / "model.pth", "--output_path", tmp_path / "out.onnx", "--json"
    )
    assert json.loads(done.stdout)["max_abs_diff"] is None
    assert (tmp_path / "out.onnx").exists()


def test_a_torch_without_numpy_reads_and_writes(tmp_path: Path) -> None:
    torch.save(weights_of(**SMALL), tmp_path / "model.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "numpy.py").write_text("raise ModuleNotFoundError('no numpy', name='numpy')")
    aether_install(
        *("fuse", "--model_path", tmp_path / "model.pth", "--output_path", tmp_path / "out.pth"),
        *("--output_path", tmp_path / "out.onnx"),
        env={**os.environ, "PYTHONPATH": str(tmp_path / "broken")},
    )
    made, expected = torch.load(tmp_path / "out.pth"), JUNE.fuse(weights_of(**SMALL))
    assert all(torch.equal(made[key], expected[key]) for key in expected)


def test_a_full_stdout_is_told_once(tmp_path: Path) -> None:
    torch.save(weights_of(**SMALL), tmp_path / "model.pth")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [script("aether-install"), "inspect", tmp_path / "model.pth", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "No space left" in done.stderr


def test_a_release_is_shown_in_one_table(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    torch.save(weights_of(**SMALL), tmp_path / "model.pth")
    arguments: list[str | Path] = ["fuse", "--model_path", tmp_path / "model.pth"]
    for suffix, dtype in FORMS:
        arguments += ["--output_path", tmp_path / f"out_{dtype}{suffix}", "--dtype", dtype]
    told = json.loads(in_process.aether_install(*arguments, "--json").stdout)
    assert [Path(each["output_path"]).suffix for each in told["outputs"]] == [suffix for suffix, _ in FORMS]
    for each, (suffix, dtype) in zip(told["outputs"], FORMS, strict=True):
        assert each["dtype"] == dtype
        assert each["bytes"] == Path(each["output_path"]).stat().st_size
        assert each["max_abs_diff"] <= (1e-4 if dtype == "float32" else 3e-2) * each["output_range"]
        assert each["seconds"] > 0
        assert each["runtime"] == ("ONNX Runtime" if suffix == ".onnx" else "torch")
    shown = in_process.aether_install(*arguments, "--force").stdout
    assert sum("largest difference" in line for line in shown.splitlines()) == len(FORMS)


def test_several_models_take_one_folder_and_one_dtype(tmp_path: Path) -> None:
    for name in ("a.pth", "b.pth"):
        torch.save(weights_of(**SMALL), tmp_path / name)
    both = ("--model_path", tmp_path / "a.pth", "--model_path", tmp_path / "b.pth")
    refused = in_process.aether_install("fuse", *both, "--output_path", "x", "--output_path", "y", check=False)
    assert refused.returncode == 2
    assert "one folder, in one form" in refused.stderr
    counted = ("--output_path", "x.pth", "--dtype", "float16", "--dtype", "float32")
    wrong = in_process.aether_install("fuse", *both[:2], *counted, check=False)
    assert wrong.returncode == 2
    assert "given 2 times for 1 outputs" in " ".join(wrong.stderr.split())
    in_process.aether_install("fuse", *both, "--output_path", tmp_path / "out", "--dtype", "float16")
    for name in ("a.pth", "b.pth"):
        assert torch.load(tmp_path / "out" / name)["norm.bias"].dtype == torch.float16


# ONNX.


@pytest.mark.parametrize("dtype", DTYPES[:2])
@pytest.mark.parametrize("generation", GENERATIONS, ids=lambda each: each.name)
def test_the_graph_is_plain_and_says_what_it_is(tmp_path: Path, generation: Any, dtype: str) -> None:
    package = pytest.importorskip("onnx", reason="onnx is not installed")
    weights = weights_of(**SMALL) if generation is JUNE else golden3("a_x2_base").weights("unfused")
    save_file(weights, tmp_path / "model.safetensors")
    result = fuse(tmp_path / "model.safetensors", tmp_path / "out.onnx", dtypes=[dtype])
    model = package.load(tmp_path / "out.onnx")
    package.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 17)]
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    for value, name in ((model.graph.input, "input"), (model.graph.output, "output")):
        (each,) = value
        sides = [side.dim_param or side.dim_value for side in each.type.tensor_type.shape.dim]
        assert (each.name, sides) == (name, ["batch", 3, "height", "width"])
        assert each.type.tensor_type.elem_type == (1 if dtype == "float32" else 10)
    stored = sum(int(torch.tensor(each.dims).prod()) for each in model.graph.initializer)
    assert stored <= result.counts[1]
    assert result.written[0].size < result.counts[1] * (4 if dtype == "float32" else 2) + 60_000
    noted = {entry.key: entry.value for entry in model.metadata_props}
    assert noted == {
        "architecture": generation.family,
        "generation": generation.name,
        "variant": "custom",
        "scale": "2",
        "channels": "3",
        "dtype": dtype,
    }
    told = inspect_view(inspect_model(tmp_path / "out.onnx"))
    facts = {"generation": generation.name, "variant": None, "fused": True, "dtype": dtype, "opset": 17}
    assert {key: told.described[key] for key in facts} == facts
    assert told.described["parameters"]["upscale"] == 2
    assert ("opset", "17") in told.facts


@pytest.mark.parametrize(("variant", "name"), [("small", "small_x2")])
def test_a_variant_is_noted(tmp_path: Path, variant: str, name: str) -> None:
    torch.save(golden(name).unfused, tmp_path / "model.pth")
    fuse(tmp_path / "model.pth", tmp_path / "out.onnx", verify=False)
    assert inspect_view(inspect_model(tmp_path / "out.onnx")).described["variant"] == variant


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_a_dtype_that_onnx_has_not_becomes_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.save({key: tensor.to(dtype) for key, tensor in weights_of(**SMALL).items()}, tmp_path / "model.pth")
    assert fuse(tmp_path / "model.pth", tmp_path / "out.onnx").written[0].dtype == "float32"


@pytest.mark.parametrize("missing", [("onnx",), ("onnx", "onnxruntime"), ("onnxruntime",)], ids="+".join)
def test_onnx_is_written_without_its_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...]
) -> None:
    torch.save(weights_of(**SMALL), tmp_path / "model.pth")
    expected = fuse(tmp_path / "model.pth", tmp_path / "all.onnx").written[0].path.read_bytes()
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    result = fuse(tmp_path / "model.pth", tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == expected
    said = " ".join(fuse_view(result).advice)
    if "onnxruntime" in missing:
        assert result.written[0].comparison is None
        assert "Written, not verified" in said
        assert "onnxruntime" in said
    else:
        assert result.written[0].comparison is not None
        assert said == ""


def test_a_torch_that_wants_the_package_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the name that is taken away here it is told not to; another release may have another."""
    torch.save(weights_of(**SMALL), tmp_path / "model.pth")
    monkeypatch.setattr(onnx, "_FUNCTIONS_ADDED_BY", ())
    monkeypatch.setitem(sys.modules, "onnx", None)
    before = snapshot(tmp_path)
    with pytest.raises(AetherInstallError, match=r"needs the package onnx to write ONNX; install that in "):
        fuse(tmp_path / "model.pth", tmp_path / "out.onnx")
    assert snapshot(tmp_path) == before


def test_the_exporter_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.save(weights_of(**SMALL), tmp_path / "model.pth")
    fuse(tmp_path / "model.pth", tmp_path / "out.onnx")
    assert capfd.readouterr() == ("", "")


def test_a_wrong_graph_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    torch.save(weights_of(**SMALL), tmp_path / "model.pth")
    before, export = snapshot(tmp_path), onnx.export

    def damaged(network: Any, *arguments: Any) -> bytes:
        with torch.no_grad():
            network.conv_last.bias[0] += 0.01
        return export(network, *arguments)

    monkeypatch.setattr(onnx, "export", damaged)
    with pytest.raises(AetherInstallError, match="would differ from"):
        fuse(tmp_path / "model.pth", tmp_path / "out.onnx")
    monkeypatch.setattr(onnx, "export", lambda *_: b"nothing")
    with pytest.raises(AetherInstallError, match="ONNX Runtime does not run"):
        fuse(tmp_path / "model.pth", tmp_path / "out.onnx")
    assert snapshot(tmp_path) == before


IN_AN_OLD_TORCH = """
import sys
from pathlib import Path
from aether_install.models.fuse import Options, fuse

for dtype in ("float32", "float16"):
    fuse(Path(sys.argv[1]), [Path(sys.argv[2] % dtype)], Options(dtypes=[dtype]), lambda *_, **__: None)
"""


def test_an_old_torch_writes_the_same_network(tmp_path: Path) -> None:
    python = python_with_old_torch()
    if python is None:
        pytest.skip("needs a Python that torch 2.1 is there for")
    done = run(python, "-c", IN_AN_OLD_TORCH, DEMO, tmp_path / "old_%s.onnx", env=ENVIRONMENT, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot compute in float16 on a CPU, so it writes no such ONNX" in done.stderr.splitlines()[-1]
    release(DEMO, tmp_path, [(".onnx", "float32")])
    image = torch.rand(2, 3, 9, 12, generator=torch.Generator().manual_seed(0))
    old, new = (by_onnxruntime(tmp_path / f"{name}_float32.onnx", "float32")(image) for name in ("old", "out"))
    torch.testing.assert_close(old, new, rtol=0, atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old_float32.onnx", "out_float32.onnx"]


def test_the_python_of_an_application_does_it(tmp_path: Path) -> None:
    torch.save(weights_of(**SMALL), tmp_path / "model.pth")
    aether_install(
        *("fuse", "--python", sys.executable, "--model_path", tmp_path / "model.pth"),
        *("--output_path", tmp_path / "out.onnx", "--output_path", tmp_path / "out.safetensors", "--dtype", "float16"),
    )
    assert (tmp_path / "out.onnx").stat().st_size > 10_000
    assert load_file(tmp_path / "out.safetensors")["norm.bias"].dtype == torch.float16


def test_dtypes_of_the_command_line_are_those_of_the_forms() -> None:
    assert tuple(forms._DTYPES) == models.DTYPES
