"""What training leaves beside the weights is skipped, and told of; where it holds the weights, the file is refused."""

from __future__ import annotations

import argparse
import collections
import cProfile
import enum
import functools
import pathlib
import pickle
import random
import re
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import in_process
import numpy as np
import pytest
import spandrel
import torch
from model_files import fuse, quietly
from networks import JUNE
from test_files import damaged
from weights import weights_of

from aether_install.errors import AetherInstallError
from aether_install.models.batch import fuse_all
from aether_install.models.fuse import Options
from aether_install.models.inspection import inspect_model
from aether_install.ui.models import inspect_view

SMALL = {"embed_dim": 8, "depths": (1, 2), "upscale": 2}
WEIGHTS = weights_of(**SMALL)


class Config:
    """Somebody's own class, of which the file has the name alone."""

    def __init__(self) -> None:
        self.scale = 2

    def hook(self) -> None:
        pass


class Outer:
    """What has classes in it, which pickles of torch reach by asking for an attribute."""

    class Mode(enum.Enum):
        FAST = 1

    class Inner:
        pass


class Named:
    """What is made of arguments by name."""

    scale: int

    def __new__(cls, *, scale: int) -> Named:
        made = super().__new__(cls)
        made.scale = scale
        return made

    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, int]]:
        return (), {"scale": 2}


class Reading:
    """An object that would run something when it is read, without any of the functions that are known to."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _ran, (1,)


RAN: list[int] = []


def _ran(number: int) -> None:
    RAN.append(number)


BESIDE: dict[str, tuple[Any, str]] = {
    "a numpy scalar": (np.float64(3.5), "numpy._core.multiarray.scalar"),
    "an array": (np.arange(3), "numpy._core.multiarray._reconstruct"),
    "a namespace": (argparse.Namespace(lr=1e-4, betas=(0.9, 0.99)), "argparse.Namespace"),
    "a path": (pathlib.PurePosixPath("/data/train"), "pathlib.PurePosixPath"),
    "a set": ({1, 2}, "builtins.set"),
    "a frozen set": (frozenset([1]), "builtins.frozenset"),
    "a configuration": (Config(), f"{__name__}.Config"),
    "a callback": ([Config().hook], f"{__name__}.Config"),
    "a member of a class in a class": (Outer.Mode.FAST, f"{__name__}.Outer.Mode"),
    "an object of a class in a class": (Outer.Inner(), f"{__name__}.Outer.Inner"),
    "an object made by names": (Named(scale=2), "functools.partial"),
    "a function": (torch.nn.functional.l1_loss, "torch.nn.functional.l1_loss"),
    "a class": (torch.nn.Conv2d, "torch.nn.modules.conv.Conv2d"),
    "a partial function": (functools.partial(torch.clamp, min=0), "functools.partial"),
    "a dict with defaults": (collections.defaultdict(list, {1: [2]}), "collections.defaultdict"),
    "a queue": (collections.deque([1, 2], maxlen=3), "collections.deque"),
    "a class of torch's own": (torch.Generator, "torch._C.Generator"),
    "a complex number": (1 + 2j, "builtins.complex"),
    "a slice": (slice(1, 2), "builtins.slice"),
    "what runs something": (Reading(), f"{__name__}._ran"),
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(("value", "name"), BESIDE.values(), ids=BESIDE)
def test_what_is_beside_the_weights_is_skipped_and_named(tmp_path: Path, value: Any, name: str, legacy: bool) -> None:
    content = {"params": WEIGHTS, "beside": value, "iter": 5}
    torch.save(content, tmp_path / "net.pth", _use_new_zipfile_serialization=not legacy)
    RAN.clear()
    inspected = inspect_model(tmp_path / "net.pth")
    assert name in inspected.skipped
    result = fuse(tmp_path / "net.pth", tmp_path / "clean.pth")
    assert RAN == []
    assert result.skipped == inspected.skipped
    assert name in result.skipped
    made, expected = torch.load(tmp_path / "clean.pth", weights_only=True), JUNE.fuse(WEIGHTS)
    assert list(made) == list(expected)
    assert all(torch.equal(made[key], expected[key]) for key in expected)
    assert spandrel.ModelLoader().load_from_file(tmp_path / "clean.pth").architecture.id == "AetherNet-Fused"


def test_what_was_skipped_is_counted_and_told(tmp_path: Path) -> None:
    losses = [np.float64(number) for number in range(3)]
    torch.save({"params": WEIGHTS, "losses": losses, "args": argparse.Namespace(x=1)}, tmp_path / "net.pth")
    done = in_process.aether_install(
        "fuse", "--model_path", tmp_path / "net.pth", "--output_path", tmp_path / "clean.pth"
    )
    shown = " ".join(done.stdout.split())
    assert "5 objects that are no weights: 3 numpy._core.multiarray.scalar, numpy.dtype, argparse.Namespace" in shown
    view = inspect_view(inspect_model(tmp_path / "net.pth"))
    assert view.described["skipped"] == {
        "numpy._core.multiarray.scalar": 3,
        "numpy.dtype": 1,
        "argparse.Namespace": 1,
    }
    assert view.described["spandrel"]["loads"] is False
    assert view.described["hosts"] == []


def test_a_fused_model_beside_other_things_is_cleaned(tmp_path: Path) -> None:
    torch.save({"params": JUNE.fuse(WEIGHTS), "args": argparse.Namespace(x=1)}, tmp_path / "net.pth")
    with pytest.raises(pickle.UnpicklingError, match="Namespace"):
        spandrel.ModelLoader().load_from_file(tmp_path / "net.pth")
    result = fuse(tmp_path / "net.pth", tmp_path / "clean.pth")
    assert "argparse.Namespace" in (result.obstacle or "")
    assert spandrel.ModelLoader().load_from_file(tmp_path / "clean.pth").architecture.id == "AetherNet-Fused"


class Holder:
    """An object that holds weights."""

    def __init__(self, weights: Any) -> None:
        self.weights = weights


HOLDING: dict[str, Callable[[], Any]] = {
    "the whole file": lambda: Holder(WEIGHTS),
    "an object in it": lambda: {"net": Holder(WEIGHTS), "iter": 3},
    "a whole network": lambda: JUNE.build(WEIGHTS),
    "a dict of somebody's own": lambda: {"params": collections.UserDict(WEIGHTS)},
    "each of the weights": lambda: {key: Holder(tensor) for key, tensor in WEIGHTS.items()},
    "one of them": lambda: {**WEIGHTS, "norm.weight": Holder(WEIGHTS["norm.weight"])},
    "one of a block": lambda: {
        "params": {
            f"module.{key}": Holder(tensor) if key == "layers.0.0.norm.bias" else tensor
            for key, tensor in WEIGHTS.items()
        }
    },
    "an array": lambda: {key: tensor.numpy() for key, tensor in WEIGHTS.items()},
}


@pytest.mark.parametrize("content", HOLDING.values(), ids=HOLDING)
def test_a_file_in_which_an_object_holds_the_weights_is_refused(tmp_path: Path, content: Callable[[], Any]) -> None:
    torch.save(content(), tmp_path / "net.pth")
    for refuse in (lambda: inspect_model(tmp_path / "net.pth"), lambda: fuse(tmp_path / "net.pth", tmp_path / "o.pth")):
        with pytest.raises(AetherInstallError, match=r"holds [\w.]+, which is no weights, and was not run; get a file"):
            refuse()
    assert not (tmp_path / "o.pth").exists()


class Starting:
    """What a hostile pickle may name."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.made = function, arguments

    def __reduce__(self) -> Any:
        return self.made


@pytest.mark.parametrize(
    ("function", "argument"),
    [
        (subprocess.call, ["touch", "ran"]),
        (eval, "open('ran', 'w')"),
        (exec, "open('ran', 'w')"),
        (open, "ran"),
        (cProfile.run, "open('ran', 'w')"),
        (torch.hub.load, "ran"),
        (pickle.loads, b"."),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_what_runs_programs_is_refused_whatever_is_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Any, argument: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"params": WEIGHTS, "x": Starting(function, argument)}, tmp_path / "net.pth")
    with pytest.raises(AetherInstallError, match=rf"holds [\w.]*{function.__name__}, which is no weights"):
        fuse(tmp_path / "net.pth", tmp_path / "out.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["net.pth"]


def pickled_by_hand(path: Path, opcodes: bytes) -> Path:
    """A file of weights, and of a value that opcodes make, at the key ``x``."""
    torch.save({"params": WEIGHTS, "x": None}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (each for each in entries if each.endswith("data.pkl"))
    before, value, after = entries[name].rpartition(b"N")  # opcode of None, at its end
    assert value
    entries[name] = before + opcodes + after
    with zipfile.ZipFile(path, "w") as archive:
        for each, content in entries.items():
            archive.writestr(each, content)
    return path


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


@pytest.mark.parametrize(
    ("module", "name"), [("torch._utils", "os.system"), ("logging", "os.system"), ("torch", "sys.modules.get")]
)
def test_what_runs_programs_is_found_by_way_of_other_modules(tmp_path: Path, module: str, name: str) -> None:
    path = pickled_by_hand(tmp_path / "net.pth", text(module) + text(name) + b"\x93" + text("touch ran") + b"\x85R")
    with pytest.raises(AetherInstallError, match=rf"holds {module}\.{name}, which is no weights"):
        fuse(path, tmp_path / "out.pth")


@pytest.mark.parametrize("name", ["_os", "os", "_sys"])
def test_what_runs_programs_is_found_by_way_of_attributes(tmp_path: Path, name: str) -> None:
    owner = b"c__builtin__\ngetattr\ncargparse\nother\n" + text(name) + b"\x86R"
    opcodes = b"c__builtin__\ngetattr\n" + owner + text("system") + b"\x86R" + text("touch ran") + b"\x85R"
    with pytest.raises(AetherInstallError, match=rf"holds argparse\.other\.{name}, which is no weights"):
        fuse(pickled_by_hand(tmp_path / "net.pth", opcodes), tmp_path / "out.pth")


def test_a_pickle_changes_nothing_of_ours(tmp_path: Path) -> None:
    state = b"}" + text("update") + b"K\x05s"
    for target in (b"ccollections\nCounter\n", b"ccollections\nOrderedDict\n", b"ctorch.torch_version\nTorchVersion\n"):
        pickled_by_hand(tmp_path / "net.pth", target + b"N" + state + b"\x86b")
        fuse(tmp_path / "net.pth", tmp_path / "out.pth", force=True, verify=False)
    torch.save({"params": WEIGHTS}, tmp_path / "good.pth")
    assert fuse(tmp_path / "good.pth", tmp_path / "out.pth", force=True).fused_layers == 3
    assert collections.Counter("aab")["a"] == 2


def test_keys_and_encodings_without_end_are_told_of(tmp_path: Path) -> None:
    key = b"K\x01" + b"2\x86" * 60  # a pair of the same, sixty times over
    pickled_by_hand(tmp_path / "net.pth", b"}" + key + b"Ns")
    with pytest.raises(AetherInstallError, match=r"truncated or damaged \(a key of too many parts\)"):
        fuse(tmp_path / "net.pth", tmp_path / "out.pth")
    encoded = b"c_codecs\nencode\n" + text("a" * 1000) + text("punycode") + b"\x86R"
    with pytest.raises(AetherInstallError, match=r"holds codecs\.encode, which is no weights"):
        fuse(pickled_by_hand(tmp_path / "net.pth", encoded), tmp_path / "out.pth")


def test_what_is_beside_the_weights_may_be_quantised(tmp_path: Path) -> None:
    beside = torch.quantize_per_tensor(torch.rand(4), 0.1, 0, torch.qint8)
    torch.save({"params": WEIGHTS, "beside": {"x": beside}}, tmp_path / "net.pth")
    assert fuse(tmp_path / "net.pth", tmp_path / "out.pth").fused_layers == 3


def test_names_that_a_file_chooses_do_no_harm_on_the_screen(tmp_path: Path) -> None:
    torch.save({"params": WEIGHTS, "x": Config()}, tmp_path / "net.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "net.pth").read_bytes()
    assert content.count(b"\nConfig\n") == 1
    (tmp_path / "net.pth").write_bytes(content.replace(b"\nConfig\n", b"\nC\x1b[2J" + b"g" * 500 + b"\n"))
    shown = in_process.aether_install("inspect", tmp_path / "net.pth").stdout
    assert "\x1b" not in shown
    (tmp_path / "net\x1b[31m.pth").write_bytes(b"nothing of the kind")
    refused = in_process.aether_install("inspect", tmp_path / "net\x1b[31m.pth", check=False)
    assert "\x1b" not in refused.stdout + refused.stderr
    assert r"net\x1b[31m.pth" in refused.stderr
    assert not re.search("g{100}", shown)


def test_damaged_objects_are_told_of_in_a_sentence(tmp_path: Path) -> None:
    """Whatever a byte says that should say something else, nothing is run and no reader crashes."""
    folder, chance = tmp_path / "damaged", random.Random(31)
    folder.mkdir()
    content = {"params": weights_of(embed_dim=4, depths=(1,), upscale=2), **{k: v for k, (v, _) in BESIDE.items()}}
    files = []
    for legacy in (False, True):
        torch.save(content, tmp_path / "net.pth", _use_new_zipfile_serialization=not legacy)
        files.append((tmp_path / "net.pth").read_bytes())
    RAN.clear()
    for _ in range(150):
        (folder / "net.pth").write_bytes(damaged(chance.choice(files), files, chance))
        batch = fuse_all([folder], tmp_path / "out", Options(verify=False, force=True), quietly)
        assert len(batch.done) + len(batch.failed) == 1
        for _, error in batch.failed:
            assert "\n" not in error.message
    assert RAN == []
