"""The generations of AetherNet: each knows its keys, its parameters and its arithmetic, and nothing else here does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from .network import module

StateDict = dict[str, torch.Tensor]


class Located(Protocol):
    """
    The weights of one network inside a checkpoint.

    Attributes:
        container: the keys that lead to them, outermost first; empty for a bare state dict.
        prefix: what stood before every key, such as ``module.``.
        weights: the state dict under the network's own keys.
    """

    @property
    def container(self) -> tuple[str, ...]: ...
    @property
    def prefix(self) -> str: ...
    @property
    def weights(self) -> StateDict: ...


class Generation(Protocol):
    """
    A generation of the network.

    Arguments that leave no trace in the weights (``img_range``, say) are noted beside them or not at all; whoever loads
    the weights alone has to assume them.
    """

    @property
    def name(self) -> str:
        """As users know it."""

    @property
    def variants(self) -> tuple[str, ...]:
        """The names of its sizes, without ``aether_``."""

    def architecture(self, fused: bool) -> str:
        """The id of what loads it in spandrel."""

    def locate(self, content: Mapping[Any, Any]) -> Located | None:
        """Its weights in a checkpoint; None if there are none. Never raises."""

    def refusal(self, content: Mapping[Any, Any]) -> str | None:
        """What a checkpoint of this generation is that cannot be run here although it is whole, and what to do."""

    def deduce(self, weights: StateDict) -> dict[str, Any]:
        """
        The constructor arguments that the shapes tell.

        Raises:
            ValueError: the weights are damaged; names the first key at fault.
        """

    def assumed(self, parameters: Mapping[str, Any]) -> dict[str, float]:
        """The arguments that leave no trace, as a loader assumes them."""

    def describe(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters by the names that all generations share; None for what cannot be known."""

    def variant(self, parameters: Mapping[str, Any]) -> str | None:
        """Which of ``variants`` it is, if one."""

    def build(self, weights: StateDict, arguments: Mapping[str, float], dtype: torch.dtype) -> torch.nn.Module:
        """
        The network in evaluation mode; where gradients are enabled, it runs its kernels as they are, one by one.

        Args:
            weights: (shapes as ``deduce`` accepts them) are copied.
            arguments: those that leave no trace.
            dtype: of the network's parameters.
        """

    def fold(self, weights: StateDict, arguments: Mapping[str, float]) -> StateDict:
        """
        Weights that do with the assumed arguments what the given ones do with the given arguments.

        Raises:
            ValueError: a weight would vanish or overflow in its dtype; names the key.
        """

    def fuse(self, weights: StateDict) -> StateDict:
        """
        The weights of the fused form. Tensors that do not change are the given ones themselves.

        Raises:
            ValueError: a sum would overflow in its dtype; names the key.
        """


@dataclass(frozen=True)
class _Shipped:
    """
    A generation that a module of the payload defines.

    Attributes:
        family: of architectures in spandrel.
        file: the module's name.
        deducer, builder, folder: functions in it that go by names of their own.
        extras: parameters worth telling that the other generations lack.
    """

    name: str
    family: str
    file: str
    deducer: str
    builder: str
    folder: str
    extras: tuple[str, ...] = ()

    def _call(self, function: str, *positional: Any, **named: Any) -> Any:
        return getattr(module(self.file), function)(*positional, **named)

    @property
    def variants(self) -> tuple[str, ...]:
        return tuple(module(self.file).VARIANTS)

    def architecture(self, fused: bool) -> str:
        return f"{self.family}-{'Fused' if fused else 'Unfused'}"

    def locate(self, content: Mapping[Any, Any]) -> Located | None:
        located: Located | None = self._call("locate_weights", content)
        return located

    def refusal(self, content: Mapping[Any, Any]) -> str | None:
        reason: str | None = self._call("refusal", content)
        return reason

    def deduce(self, weights: StateDict) -> dict[str, Any]:
        parameters: dict[str, Any] = self._call(self.deducer, weights)
        return parameters

    def assumed(self, parameters: Mapping[str, Any]) -> dict[str, float]:
        arguments: dict[str, float] = self._call("assumed_arguments", parameters)
        return arguments

    def describe(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        described: dict[str, Any] = self._call("describe", parameters)
        described.update({name: parameters[name] for name in self.extras})
        if parameters["fused_init"]:
            described["sk_kernel"] = None
        return described

    def variant(self, parameters: Mapping[str, Any]) -> str | None:
        name: str | None = self._call("variant_name", parameters)
        return name

    def build(self, weights: StateDict, arguments: Mapping[str, float], dtype: torch.dtype) -> torch.nn.Module:
        network: torch.nn.Module = self._call(self.builder, weights, **arguments, dtype=dtype)
        return network

    def fold(self, weights: StateDict, arguments: Mapping[str, float]) -> StateDict:
        folded: StateDict = self._call(self.folder, weights, **arguments)
        return folded

    def fuse(self, weights: StateDict) -> StateDict:
        fused: StateDict = self._call("fuse_state_dict", weights)
        return fused


GENERATIONS: tuple[Generation, ...] = (
    _Shipped(
        name="2025-06",
        family="AetherNet",
        file="aether_core",
        deducer="_deduce_aether_params_from_state_dict",
        builder="build_aether",
        folder="fold_img_range",
        extras=("num_feat",),
    ),
    _Shipped(
        name="3.1",
        family="AetherNet3",
        file="aether3_core",
        deducer="_deduce_aether3_params_from_state_dict",
        builder="build_aether3",
        folder="fold_arguments",
    ),
)
