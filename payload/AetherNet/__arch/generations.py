"""The generations of AetherNet: what each makes of a checkpoint, from finding its weights to the network of them."""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, Optional, Tuple, Type

import torch
from torch import nn

from . import aether3_core, aether_core, checkpoint
from .building import check_weights, with_memory, without_memory
from .checkpoint import Keys, Located, StateDict
from .fusing import fuse_state_dict, scaled
from .sizes import JUNE_SIZES, LATER_SIZES, assumed_res_scale, check_factors

__all__ = ["GENERATIONS", "JUNE", "LATER", "Generation"]


class Generation:
    """
    A generation of the network.

    Arguments that leave no trace in the weights (``img_range``, say) are noted beside them or not at all; whoever loads
    the weights alone has to assume them.

    Attributes:
        name: as users know it.
        family: what its architectures in spandrel are called, before their form.
        sizes: constructor arguments of the named variants.
    """

    name: str
    family: str
    sizes: Dict[str, Dict[str, Any]]
    _keys: Keys
    _network: Type[nn.Module]
    _read: Callable[[StateDict], Dict[str, Any]]

    @property
    def variants(self) -> Tuple[str, ...]:
        """The names of its sizes, without ``aether_``."""
        return tuple(self.sizes)

    def architecture(self, fused: bool) -> str:
        """Returns the id of what loads it in spandrel."""
        return f"{self.family}-{'Fused' if fused else 'Unfused'}"

    def locate(self, content: Mapping[Any, Any]) -> Optional[Located]:
        """Finds its weights in a checkpoint; see ``checkpoint.locate``."""
        return checkpoint.locate(content, self._keys)

    def refusal(self, content: Mapping[Any, Any]) -> Optional[str]:
        """Says why a checkpoint of it cannot be run here although it is whole; see ``checkpoint.refusal``."""
        return checkpoint.refusal(content, self._keys)

    def form(self, content: Mapping[Any, Any]) -> Optional[str]:
        """Returns ``fused`` or ``unfused``, None for anything else; see ``checkpoint.form_of``."""
        return checkpoint.form_of(content, self._keys)

    def clean(self, content: Mapping[Any, Any]) -> StateDict:
        """
        Returns its weights in a checkpoint, under the network's own keys.

        Raises:
            ValueError: there are none, or they cannot be run here.
        """
        return checkpoint.weights_in(content, self._keys)

    def deduce(self, weights: StateDict) -> Dict[str, Any]:
        """
        Returns the constructor arguments that the shapes of clean weights tell.

        Raises:
            ValueError: the weights are damaged; names the first key at fault.
        """
        return dict(self._empty(weights)[1])

    def prepare(self, weights: StateDict, dtype: torch.dtype = torch.float32, **arguments: float) -> nn.Module:
        """
        Builds the network for clean weights, in evaluation mode, with memory that holds nothing until they are loaded.

        Args:
            weights: nothing but their shapes matters.
            dtype: of the parameters.
            arguments: those that leave no trace in the weights, where they are not as ``assumed`` says.

        Raises:
            ValueError: the weights are damaged; names the first key at fault.
        """
        return with_memory(self._empty(weights, **arguments)[0], dtype).eval()

    def build(self, content: Mapping[Any, Any], dtype: torch.dtype = torch.float32, **arguments: float) -> nn.Module:
        """Builds the network of a checkpoint, with a copy of its weights; see ``clean`` and ``prepare``."""
        weights = self.clean(content)
        network = self.prepare(weights, dtype, **arguments)
        network.load_state_dict(weights)
        return network

    def _empty(self, weights: StateDict, **arguments: float) -> Tuple[nn.Module, Dict[str, Any]]:
        parameters = type(self)._read(weights)
        network = without_memory(self._network, **{**parameters, **arguments})
        check_weights(weights, network)
        return network, parameters

    def fuse(self, weights: StateDict) -> StateDict:
        """
        Returns the weights of the fused form; see ``fuse_state_dict``.

        Raises:
            ValueError: a sum would overflow in its dtype; names the key.
        """
        return fuse_state_dict(weights)

    def fold(self, weights: StateDict, **arguments: float) -> StateDict:
        """
        Returns weights that do with the assumed arguments what the given ones do with the given arguments.

        Dtypes are kept, products are rounded once.

        Raises:
            ValueError: an argument is no positive number, or a weight would vanish or overflow in its dtype.
        """
        check_factors(**arguments)
        for name, value in arguments.items():
            weights = scaled(weights, self._factors(weights, name, value), f"{name} {value:g}")
        return weights

    def _factors(self, weights: StateDict, name: str, value: float) -> Dict[str, float]:
        """By what each weight is multiplied for an argument to be folded into them."""
        raise NotImplementedError

    def assumed(self, parameters: Mapping[str, Any]) -> Dict[str, float]:
        """Returns the arguments that leave no trace in the weights, as a loader has to assume them."""
        raise NotImplementedError

    def describe(self, parameters: Mapping[str, Any]) -> Dict[str, Any]:
        """Returns what parameters say of a network, by names that all generations share; None for what is not known."""
        raise NotImplementedError

    def variant(self, parameters: Mapping[str, Any]) -> Optional[str]:
        """Returns which of ``variants`` has these parameters, None if none."""
        unknown = {"sk_kernel"} if parameters.get("fused_init") else set()
        for name, size in self.sizes.items():
            if all(parameters[key] == value for key, value in size.items() if key not in unknown):
                return name
        return None


class June(Generation):
    """The generation of June 2025."""

    name = "2025-06"
    family = "AetherNet"
    sizes = JUNE_SIZES
    _keys = checkpoint.JUNE
    _network = aether_core.aether
    _read = staticmethod(aether_core.read_parameters)

    def _factors(self, weights: StateDict, name: str, value: float) -> Dict[str, float]:  # noqa: ARG002
        if value == 1:
            return {}
        return {"conv_first.weight": value, "conv_last.weight": 1 / value, "conv_last.bias": 1 / value}

    def assumed(self, parameters: Mapping[str, Any]) -> Dict[str, float]:  # noqa: ARG002
        return {"img_range": 1.0}

    def describe(self, parameters: Mapping[str, Any]) -> Dict[str, Any]:
        sizes = ("embed_dim", "depths", "upscale", "in_chans", "out_chans", "mlp_ratio")
        return _known(parameters, *sizes, "lk_kernel", "sk_kernel", "num_feat")


class Later(Generation):
    """The generation of July and August 2025."""

    name = "3.1"
    family = "AetherNet3"
    sizes = LATER_SIZES
    _keys = checkpoint.LATER
    _network = aether3_core.aether3
    _read = staticmethod(aether3_core.read_parameters)

    def _factors(self, weights: StateDict, name: str, value: float) -> Dict[str, float]:
        if name == "img_range" and value != 1:
            return {
                "conv_first.weight": 1 / value,
                "mean": value,
                "conv_last.weight": value,
                "conv_last.bias": value,
            }
        ratio = value / assumed_res_scale(weights["conv_first.bias"].shape[0])
        if name == "img_range" or ratio == 1:
            return {}
        # Out of the attentions again, which see what the feed-forward layer makes.
        undone = (".channel_attn.fc.0.weight", ".spatial_attn.conv.weight")
        factors = {key: ratio for key in weights if ".ffn.conv_out." in key}
        return {**factors, **{key: 1 / ratio for key in weights if key.endswith(undone)}}

    def assumed(self, parameters: Mapping[str, Any]) -> Dict[str, float]:
        return {"img_range": 1.0, "res_scale": assumed_res_scale(parameters["embed_dim"])}

    def describe(self, parameters: Mapping[str, Any]) -> Dict[str, Any]:
        described = _known(parameters, "embed_dim", "depths", "mlp_ratio", "lk_kernel", "sk_kernel", "in_chans")
        described.update(out_chans=parameters["in_chans"], upscale=parameters["scale"])
        described.update(_known(parameters, "use_channel_attn", "use_spatial_attn", "norm_type"))
        return described


def _known(parameters: Mapping[str, Any], *names: str) -> Dict[str, Any]:
    """Some of the parameters; the small kernel of a fused network is not known any more."""
    unknown = ("sk_kernel",) if parameters.get("fused_init") else ()
    return {name: None if name in unknown else parameters[name] for name in names}


JUNE, LATER = June(), Later()
GENERATIONS: Tuple[Generation, ...] = (JUNE, LATER)
