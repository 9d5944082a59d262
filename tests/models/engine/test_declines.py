"""Where somebody could tell the difference, or in doubt, the engine leaves a picture to the network."""

from __future__ import annotations

import _thread
import functools
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

import pytest
import torch
from networks import JUNE, LATER, aether3_core, aether_core, engine, module
from torch import nn
from torch.autograd import forward_ad
from torch.nn.modules import module as modules
from torch.nn.utils import prune
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from weights import StateDict, plain_output, weights_of
from weights3 import weights3_of

eligible, team = module("engine.eligible"), module("engine.team")

pytestmark = pytest.mark.skipif(not eligible.vector_width(), reason="the engine never runs on this processor")

CONFIG = {"embed_dim": 16, "depths": (1, 1), "upscale": 2, "lk_kernel": 5}
WEIGHTS: StateDict = weights_of(**CONFIG)
X = torch.rand(1, 3, 24, 25)
LARGE = torch.rand(1, 3, 64, 65)


def june() -> Any:
    return JUNE.build(WEIGHTS)


def later() -> Any:
    return LATER.build(weights3_of(embed_dim=16, depths=(1,), scale=2, use_spatial_attn=True))


@torch.inference_mode()
def declines(model: nn.Module, x: torch.Tensor = X) -> bool:
    return engine.infer(model, x) is None


@pytest.mark.parametrize("build", [june, later])
def test_computes_an_ordinary_network(build: Callable[[], Any]) -> None:
    assert not declines(build())
    assert not declines(build().fuse_model())


class _Functions(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **(kwargs or {}))


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **(kwargs or {}))


def _hooked(kind: str) -> Callable[[], AbstractContextManager[Any]]:
    return lambda: getattr(modules, f"register_module_{kind}")(lambda *_: None)


LOOKERS_ON: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "gradients": torch.enable_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "a profiler": torch.profiler.profile,
    "a mode for functions": _Functions,
    "a mode for operators": _Dispatch,
    "a device for new tensors": lambda: torch.device("cpu"),
    "forward derivatives": forward_ad.dual_level,
    "hooks of all modules": _hooked("forward_hook"),
    "earlier hooks of all modules": _hooked("forward_pre_hook"),
    "oneDNN switched off": lambda: torch.backends.mkldnn.flags(enabled=False),
}


@pytest.mark.parametrize("looking_on", LOOKERS_ON.values(), ids=LOOKERS_ON)
@pytest.mark.filterwarnings("ignore")
def test_lookers_on_see_everything(looking_on: Callable[[], AbstractContextManager[Any]]) -> None:
    with torch.no_grad(), looking_on():
        assert engine.infer(june(), X) is None
        assert engine.infer(later(), X) is None
    assert not declines(june()), "afterwards it is as before"


def test_the_same_picture_always_where_algorithms_have_to_be_deterministic() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        assert declines(june())
    finally:
        torch.use_deterministic_algorithms(False)


def test_transforms_see_everything() -> None:
    seen: list[torch.Tensor | None] = []
    with torch.no_grad():
        torch.vmap(lambda x: (seen.append(engine.infer(june(), x[None])), x)[1])(X)
    assert seen == [None]


IMAGES = {
    "few pixels": torch.rand(1, 3, 15, 15),
    "no image": torch.rand(0, 3, 20, 20),
    "float64": X.double(),
    "another dtype": X.half(),
    "on another device": X.to("meta"),
    "three axes": X[0],
    "a class of its own": nn.Parameter(X),
    "sparse": X.to_sparse(),
    "no tensor": X.numpy(),
    "too few channels": X[:, :2],
}


@pytest.mark.parametrize("x", IMAGES.values(), ids=IMAGES)
def test_images_that_are_not_its_own(x: torch.Tensor) -> None:
    assert declines(june(), x)
    assert declines(later(), x)


def _wrap(model: Any, name: str) -> None:
    outside, _, inside = name.rpartition(".")
    setattr(model.get_submodule(outside), inside, nn.Sequential(model.get_submodule(name)))


class _Kind(nn.Parameter):
    pass


def _replace_forward(layer: Any) -> None:
    layer.forward = functools.partial(type(layer).forward, layer)


CHANGES: dict[str, Callable[[Any], object]] = {
    "a hook": lambda model: model.layers[0][0].conv.lk_conv.register_forward_hook(lambda *_: None),
    "an earlier hook": lambda model: model.layers[1][0].ffn.fc2.register_forward_pre_hook(lambda *_: None),
    "a layer in training": lambda model: model.layers[0][0].ffn.drop.train(),
    "all in training": lambda model: model.train(),
    "another forward": lambda model: _replace_forward(model.norm),
    "a wrapped layer": lambda model: _wrap(model, "layers.0.0.ffn.fc1_gate"),
    "a wrapped block": lambda model: _wrap(model, "layers.1.0"),
    "pruned": lambda model: prune.l1_unstructured(model.layers[0][0].conv.lk_conv, "weight", 0.5),
    "weight_norm": lambda model: nn.utils.parametrizations.weight_norm(model.layers[0][0].conv.lk_conv),
    "spectral_norm": lambda model: nn.utils.parametrizations.spectral_norm(model.layers[0][0].ffn.fc2),
    "another padding": lambda model: setattr(model.conv_last, "padding_mode", "reflect"),
    "another eps": lambda model: setattr(model.norm, "eps", 1e-3),
    "no bias": lambda model: setattr(model.conv_last, "bias", None),
    "a bias more": lambda model: setattr(model.layers[0][0].conv.lk_conv, "bias", nn.Parameter(torch.ones(16))),
    "a bias of its own kind": lambda model: setattr(model.layers[0][0].conv.lk_conv, "bias", _Kind(torch.ones(16))),
    "one weight in half precision": lambda model: model.conv_first.half(),
    "weights elsewhere": lambda model: model.layers[0].to("meta"),
    "a larger kernel": lambda model: setattr(model.layers[0][0].conv, "lk_conv", nn.Conv2d(16, 16, 9, groups=16)),
    "one layer more": lambda model: model.upsample.append(nn.LeakyReLU()),
    "one block less": lambda model: model.layers.__delitem__(1),
    "a factor of its own": lambda model: setattr(model.layers[0][0].drop_path, "drop_prob", 0.5),
    "another range": lambda model: setattr(model, "img_range", 2.0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.filterwarnings("ignore")
def test_networks_that_an_application_has_changed(change: Callable[[Any], object]) -> None:
    model = june()
    change(model)
    assert declines(model)


def test_an_application_may_change_a_network_that_the_engine_has_computed() -> None:
    model = june()
    assert not declines(model)
    with torch.inference_mode():
        before = engine.infer(model, X)
        model.layers[0][0].conv.lk_conv.weight.mul_(3)
        after = engine.infer(model, X)
        assert (after - before).abs().max() > 1e-3, "weights are read each time"
    torch.testing.assert_close(after, plain_output(X, model.state_dict(), **CONFIG), rtol=0, atol=1e-5)
    model.layers[0][0].norm.register_forward_hook(lambda *_: None)
    assert declines(model)


@pytest.mark.parametrize("kind", [aether_core.GatedFFN, aether_core.aether, nn.Conv2d, nn.Module, nn.LayerNorm])
def test_classes_that_an_application_has_changed(monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    name = "__call__" if kind is nn.Module else "forward"
    own = getattr(kind, name)
    monkeypatch.setattr(kind, name, lambda *arguments: own(*arguments))
    assert declines(june())


def test_a_network_that_is_derived_from_ours() -> None:
    class Own(aether_core.aether):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + 1

    model = Own(**CONFIG).eval()
    assert declines(model)
    with torch.inference_mode():
        torch.testing.assert_close(model(X), model.requires_grad_(False)(X))


def test_compiling_takes_the_network() -> None:
    torch.compiler.reset()
    with torch.no_grad():
        compiled = torch.compile(june(), backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(X), plain_output(X, WEIGHTS, **CONFIG), rtol=0, atol=1e-5)


SWITCHES: dict[str, Callable[[pytest.MonkeyPatch], object]] = {
    "AETHERNET_ENGINE=0": lambda patch: patch.setenv("AETHERNET_ENGINE", "0"),
    "an unknown processor": lambda patch: patch.setattr(eligible, "vector_width", lambda: 0),
    "the end of the program": lambda patch: patch.setattr(sys, "is_finalizing", lambda: True),
    "threads that are none": lambda patch: patch.setattr(_thread, "start_new_thread", lambda *_: None),
    "a sleep that is none": lambda patch: patch.setattr(time, "sleep", lambda _: None),
    "queues that are others": lambda patch: patch.setattr(eligible.queue, "SimpleQueue", list),
}


@pytest.mark.parametrize("switch", SWITCHES.values(), ids=SWITCHES)
def test_processes_that_it_does_not_suit(
    monkeypatch: pytest.MonkeyPatch, switch: Callable[[pytest.MonkeyPatch], object]
) -> None:
    switch(monkeypatch)
    assert declines(june())


PRIVATE: list[tuple[ModuleType, str]] = [
    (torch._C, "_are_functorch_transforms_active"),
    (torch._C, "_len_torch_dispatch_stack"),
    (torch._C, "_len_torch_function_stack"),
    (torch._C._autograd, "_profiler_enabled"),
    (torch._C, "_get_tracing_state"),
    (forward_ad, "_current_level"),
    (modules, "_global_forward_hooks"),
    (modules, "_global_forward_pre_hooks"),
    (sys, "_current_frames"),
]


@pytest.mark.parametrize(("place", "name"), PRIVATE, ids=[name for _, name in PRIVATE])
def test_a_private_name_that_is_gone_leaves_it_to_the_network(
    monkeypatch: pytest.MonkeyPatch, place: ModuleType, name: str
) -> None:
    model = june()
    with monkeypatch.context() as patch:
        patch.delattr(place, name)
        left_to_the_network = declines(model)
    assert left_to_the_network
    assert not declines(model)


def refuse(*_: object) -> None:
    raise RuntimeError("can't start new thread")


class _Unheeded:
    def omp_set_num_threads(self, threads: int) -> None:
        pass

    MKL_Set_Num_Threads_Local = omp_set_num_threads


def no_library() -> None:
    raise OSError("no such file")


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="two processors")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_thread.start_new_thread", refuse),
        ("_library", no_library),
        ("_library", object),
        ("_library", _Unheeded),
    ],
    ids=["no more threads", "no library", "no function in it", "a number that is not heeded"],
)
def test_where_no_team_is_to_be_had(monkeypatch: pytest.MonkeyPatch, name: str, value: Any) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert not declines(june(), LARGE)
        with monkeypatch.context() as patch:
            patch.setattr(eligible, "_is_ready", lambda: True)  # which looks at the same function
            patch.setattr(f"{team.__name__}.{name}", value)
            team.has_products.cache_clear()
            assert declines(june(), LARGE)
        team.has_products.cache_clear()
        assert not declines(june(), LARGE)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("later_too", [False, True], ids=["2025-06", "3.1"])
def test_an_error_is_the_networks_own(later_too: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which the engine says nothing."""
    programs = module("engine.programs")
    monkeypatch.setattr(programs, "last_steps", lambda *_: 1 / 0)
    assert declines(later() if later_too else june())


def test_networks_pickle_and_copy_without_it() -> None:
    assert "engine" not in vars(june())
    assert {aether_core.aether.__dict__["engine"], aether3_core.aether3.__dict__["engine"]} == {engine.infer}
