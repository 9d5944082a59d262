"""Builds the network that weights belong to: first without memory, to compare the two, and then with room for them."""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .checkpoint import StateDict, damage

__all__ = ["check_weights", "with_memory", "without_memory"]

Network = TypeVar("Network", bound=nn.Module)


class _Unwritten(TorchFunctionMode):
    """Makes new tensors without memory, which nothing is written to: initialising them takes longer than the rest."""

    _MAKERS = frozenset((torch.empty, torch.full, torch.ones, torch.tensor, torch.zeros))

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name.endswith("_") and not name.endswith(("__", "requires_grad_")):
            return args[0] if args else kwargs["tensor"]
        if func in self._MAKERS:
            kwargs = {"device": "meta", **kwargs}
        return func(*args, **kwargs)


def without_memory(network: Callable[..., Network], **arguments: Any) -> Network:
    """
    Builds a network whose tensors have shapes and hold nothing, in a fraction of the time.

    Raises:
        ValueError: an argument is out of its range.
    """
    with torch.device("meta"), _Unwritten():
        return network(**arguments)


def with_memory(network: Network, dtype: torch.dtype) -> Network:
    """
    Gives such a network memory, of a type for its floating-point numbers, for weights that are loaded next.

    So nothing is initialised in vain, and whoever loads the weights, as spandrel does, makes the only copy of them.
    """
    # Into the modules' own dictionaries, since assigning attributes takes twice as long.
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=dtype, device="cpu")
                module._parameters[name] = nn.Parameter(empty, parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                own = dtype if buffer.is_floating_point() else buffer.dtype
                module._buffers[name] = torch.empty(buffer.shape, dtype=own, device="cpu")
    return network


def check_weights(weights: StateDict, network: nn.Module) -> None:
    """
    Checks that a network can hold these weights, each and no others.

    Raises:
        ValueError: it cannot; names the first key at fault.
    """
    expected: Dict[str, Any] = network.state_dict()
    unknown = next((key for key in weights if key not in expected), None)
    for key, placeholder in expected.items():
        if key not in weights:
            raise damage(key, "is missing" + (f", and {unknown} is unknown" if unknown else ""))
        problem = _problem(weights[key], placeholder)
        if problem:
            raise damage(key, problem)
    if unknown:
        raise damage(unknown, "does not belong to the network")


def _problem(weight: Tensor, placeholder: Tensor) -> Optional[str]:
    if weight.shape != placeholder.shape:
        return f"has shape {tuple(weight.shape)}, where the other tensors ask for {tuple(placeholder.shape)}"
    if weight.is_meta or weight.layout != torch.strided:
        return "holds no values" if weight.is_meta else "is sparse"
    if placeholder.is_floating_point() and not weight.is_floating_point():
        return f"holds {weight.dtype}, which is no floating-point type"
    return None
