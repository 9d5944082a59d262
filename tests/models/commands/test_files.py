"""Files as hosts and releases of torch want them, and what becomes of those that are damaged or quantised."""

from __future__ import annotations

import os
import random
import re
import signal
import types
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import in_process
import pytest
import torch
from environments import REPOSITORY, wheel
from model_files import fuse, quietly
from networks import JUNE
from safetensors.torch import save_file
from test_fuse import SMALL, TINY
from weights import StateDict, weights_of
from weights3 import RELEASE

from aether_install.errors import AetherInstallError
from aether_install.models import fuse as command
from aether_install.models.batch import fuse_all
from aether_install.models.checkpoint import read_checkpoint
from aether_install.models.inspection import inspect_model

A1111_ALLOWS = re.compile(r"^([^/]+)/((data/\d+)|version|byteorder|.data/serialization_id|(data\.pkl))$")
"""What Stable Diffusion WebUI 1.10 takes in an archive, from its ``modules/safe.py``; one other name and it refuses."""

DEMO = REPOSITORY / "examples" / "models" / "2x-AetherNet-photo.pth"


def names_in(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return archive.namelist()


def test_a1111_takes_what_fuse_writes_and_the_demo_model(tmp_path: Path) -> None:
    torch.save(weights_of(**SMALL), tmp_path / "model.pth")
    written = fuse(tmp_path / "model.pth", tmp_path / "fused.pth").written[0].path
    for path in (written, DEMO):
        names = names_in(path)
        assert [name for name in names if not A1111_ALLOWS.match(name)] == []
        assert len({name.partition("/")[0] for name in names}) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_torch_reads_what_fuse_writes_mapped_or_not(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = {key: tensor.to(dtype) for key, tensor in weights_of(**SMALL).items()}
    torch.save(weights, tmp_path / "model.pth")
    fuse(tmp_path / "model.pth", tmp_path / "fused.pth", verify=False)
    expected = JUNE.fuse(weights)
    for options in ({"mmap": True}, {"weights_only": False}, {}):
        read: StateDict = torch.load(tmp_path / "fused.pth", **options)
        assert list(read) == list(expected)
        assert all(torch.equal(read[key], expected[key]) for key in expected)
        assert all(tensor.data_ptr() % 64 == 0 for tensor in read.values() if "mmap" in options)


@pytest.mark.parametrize("version", ["0.3.4", "0.4.2"])
def test_spandrels_unpickler_takes_what_fuse_writes(tmp_path: Path, version: str) -> None:
    fuse(DEMO, tmp_path / "fused.pth", verify=False)
    unpickler = types.ModuleType("unpickler")
    with zipfile.ZipFile(wheel(version)) as archive:
        exec(archive.read("spandrel/__helpers/unpickler.py"), unpickler.__dict__)
    unpickler.__dict__.update(dump=None, dumps=None)
    read = torch.load(tmp_path / "fused.pth", pickle_module=unpickler.RestrictedUnpickle, weights_only=False)
    assert JUNE.form(read) == "fused"


def test_the_same_weights_make_the_same_file(tmp_path: Path) -> None:
    for name in ("a.pth", "b.pth"):
        fuse(DEMO, tmp_path / name, verify=False)
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()


def intact(folder: Path) -> Iterator[Path]:
    """A small file of each kind."""
    weights = weights_of(**TINY)
    fused = JUNE.fuse(weights)
    noted = {"img_range": 2.0, "scale": 1}
    torch.save({"params": weights, "metadata": noted}, folder / "zip.pth")
    torch.save({key: torch.nn.Parameter(tensor) for key, tensor in fused.items()}, folder / "fused.pth")
    torch.save({"params_ema": weights, "iter": 3}, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(weights, folder / "header.safetensors", {"metadata": '{"img_range": 2.0}'})
    yield from (folder / name for name in ("zip.pth", "fused.pth", "legacy.pth", "header.safetensors"))
    yield fuse(folder / "zip.pth", folder / "ours.pth").written[0].path
    yield RELEASE


def damaged(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """The content with bytes changed, cut off, left out, or taken from another file."""
    what = chance.choice(["bytes", "bytes", "bytes", "byte", "cut", "gap", "splice", "insert"])
    # Most of what a reader goes by is at either end.
    reach = min(len(content), 3000)
    places = [*range(reach), *range(len(content) - reach, len(content))]
    place = chance.choice(places)
    if what in ("byte", "bytes"):
        changed = bytearray(content)
        for _ in range(1 if what == "byte" else chance.randint(2, 20)):
            changed[chance.choice(places)] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        return bytes(changed)
    if what == "cut":
        return content[:place]
    if what == "gap":
        return content[:place] + content[place + chance.randint(1, 200) :]
    other = chance.choice(others)
    if what == "insert":
        return content[:place] + other[: chance.randint(1, 200)] + content[place:]
    return content[:place] + other[place:]


def test_damaged_files_are_told_of_in_a_sentence(tmp_path: Path) -> None:
    """Whatever a byte says that should say something else: no reader may crash, or take all memory."""
    chance = random.Random(0)
    whole = {path: path.read_bytes() for path in intact(tmp_path)}
    told, surprises = [], []
    options = command.Options(force=True, verify=False)
    (tmp_path / "out").mkdir()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(300):
            for path, content in whole.items():
                file = tmp_path / "out" / path.name
                file.write_bytes(damaged(content, list(whole.values()), chance))
                try:
                    inspected = inspect_model(file)
                    if inspected.identity and not inspected.identity.fused:
                        command.fuse(file, [tmp_path / "out" / "fused.pth"], options, quietly)
                except AetherInstallError as error:
                    told.append((str(file), error.message))
                except Exception as error:
                    surprises.append((path.name, repr(error)))
    assert surprises == []
    assert len(told) > 900
    assert [message for file, message in told if file not in message or "\n" in message] == []
    assert [str(warning.message) for warning in caught] == []


def test_a_damaged_file_does_not_end_a_batch(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    torch.save(weights_of(**SMALL), folder / "c.pth")
    content = (folder / "c.pth").read_bytes()
    (folder / "a.pth").write_bytes(content[:-300])
    (folder / "b.pth").write_bytes(content.replace(b"layers.0", b"layers\xff0"))
    (folder / "d.safetensors").write_bytes(b"\xff" * 8 + b"{" + bytes(range(256)))
    batch = fuse_all([folder], tmp_path / "out", command.Options(verify=False), quietly)
    assert [result.written[0].path.name for result in batch.done] == ["c.pth"]
    assert [path.name for path, _ in batch.failed] == ["a.pth", "b.pth", "d.safetensors"]
    assert all("damaged" in error.message for _, error in batch.failed)


def late(*_: object) -> None:
    pytest.fail("it waits")


@pytest.fixture
def _not_for_ever() -> Iterator[None]:
    """Ends a test that waits."""
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes in folders on Windows")
@pytest.mark.usefixtures("_not_for_ever")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    os.mkfifo(folder / "a.pth")
    torch.save(weights_of(**SMALL), folder / "b.pth")
    done = in_process.aether_install("inspect", folder / "a.pth", check=False)
    assert done.returncode == 1
    assert "a.pth is a pipe" in done.stderr
    batch = fuse_all([folder], tmp_path / "out", command.Options(verify=False), quietly)
    assert [result.written[0].path.name for result in batch.done] == ["b.pth"]
    assert [path.name for path, _ in batch.failed] == ["a.pth"]


def test_numbers_that_only_mean_to_fill_memory_are_refused(tmp_path: Path) -> None:
    torch.save(weights_of(**TINY), tmp_path / "model.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "model.pth").read_bytes()
    place = content.index(b"storage")
    size = content.index(b"K", content.index(b"cpu", place))
    (tmp_path / "model.pth").write_bytes(content[:size] + b"J\xff\xff\xff\x7f" + content[size + 2 :])
    with pytest.raises(AetherInstallError, match="damaged"):
        read_checkpoint(tmp_path / "model.pth")


def quantised(weights: StateDict) -> dict[str, Any]:
    """The fused weights as torch's quantisation leaves them in a state dict."""
    fused: dict[str, Any] = dict(JUNE.fuse(weights))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for key in [key for key in fused if key.endswith("weight") and fused[key].dim() > 1]:
            fused[key] = torch.quantize_per_tensor(fused[key], 0.1, 0, torch.qint8)
            fused[key.replace("weight", "scale")] = torch.tensor(0.1)
            fused[key.replace("weight", "zero_point")] = torch.tensor(0)
    return fused


QUANTISED: dict[str, tuple[Any, str]] = {
    "int8": (quantised, "an int8, quantised AetherNet, .* use the float file"),
    "int8 without its scales": (
        lambda weights: {key: value for key, value in quantised(weights).items() if "point" not in key},
        "an int8, quantised AetherNet, .* use the float file",
    ),
    "another network, int8": (
        lambda _: {"conv.weight": quantised(weights_of(**SMALL))["conv_first.weight"]},
        "an int8, quantised model, .* use the float file",
    ),
    "quantisation-aware": (
        lambda weights: {
            **JUNE.fuse(weights),
            "layers.0.0.conv.fused_conv.weight_fake_quant.scale": torch.ones(1),
            "conv_first.activation_post_process.min_val": torch.zeros(1),
        },
        "quantisation-aware training .* use the float file",
    ),
}


@pytest.mark.parametrize(("made", "message"), QUANTISED.values(), ids=QUANTISED)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_quantised_models_are_named_and_the_way_out_is_told(
    tmp_path: Path, made: Any, message: str, legacy: bool
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(made(weights_of(**SMALL)), tmp_path / "model.pth", _use_new_zipfile_serialization=not legacy)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(AetherInstallError, match=message) as refused:
            fuse(tmp_path / "model.pth", tmp_path / "out.pth")
        assert re.search(message, inspect_model(tmp_path / "model.pth").looks_like or "")
    assert "damaged" not in refused.value.message
    assert not caught


def test_two_models_do_not_become_a_folder_with_the_name_of_a_file(tmp_path: Path) -> None:
    for name in ("a.pth", "b.pth"):
        torch.save(weights_of(**SMALL), tmp_path / name)
    for output in ("x.pth", "x.SAFETENSORS"):
        with pytest.raises(AetherInstallError, match="must be a folder"):
            fuse_all([tmp_path / "a.pth", tmp_path / "b.pth"], tmp_path / output, command.Options(), quietly)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth", "b.pth"]


def test_a_model_is_not_refused_for_a_namesake_that_failed(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.pth").write_bytes(b"PK damaged")
    torch.save(weights_of(**SMALL), tmp_path / "a.pth")
    models = [tmp_path / "bad" / "a.pth", tmp_path / "a.pth"]
    batch = fuse_all(models, tmp_path / "out", command.Options(verify=False), quietly)
    assert [result.written[0].path for result in batch.done] == [tmp_path / "out" / "a.pth"]
    assert [path for path, _ in batch.failed] == models[:1]
