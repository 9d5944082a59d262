"""
Where a checkpoint keeps the weights of an AetherNet: containers, prefixes, and the form that the keys tell.

What a checkpoint holds is other people's: nothing here takes long or fails, whatever it is, unless it says so.
"""

from __future__ import annotations

import re
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Pattern, Tuple

from torch import Tensor

from .refusals import is_another_version, quantisation

__all__ = ["JUNE", "LATER", "Keys", "Located", "damage", "form_of", "locate", "refusal", "the_one_form", "weights_in"]

StateDict = Dict[str, Tensor]

# The first ones are those that spandrel unwraps by itself, in its order, so that both of us pick the same weights.
_CONTAINERS = (
    "model_state_dict",
    "state_dict",
    "params_ema",
    "params-ema",
    "params",
    "model",
    "net",
    "net_g",
    "generator",
)
_BOOKKEEPING = frozenset(
    ("n_averaged", "step", "initted", "num_updates", "decay", "iter", "epoch", "total_ops", "total_params")
)
_DEEPEST = 4
_LONGEST = 512
"""Characters of a key that may tell of a network; longer ones are nobody's, and take long to look at."""

_PREFIX = r"(?:(?:module|_orig_mod|netG|net_g|net_g_ema|ema_model|ema|model|net|generator|params|params_ema)\.)*"
_NUMBER = r"(?:0|[1-9][0-9]{0,3})"
_FUSED = r"conv\.fused_conv\."
_UNFUSED = r"conv\.(?:lk_conv\.|sk_conv\.|lk_bias$|sk_bias$)"


class Keys:
    """
    How the keys of a generation look.

    Args:
        network: what the generation is called in errors.
        group: what the keys of blocks start with.
        layers: of the feed-forward layer, the first two being the gate and what it gates.
        others: further keys that every block has.
        notes: entries that are no weights.
        scalars: weights without an axis, which otherwise are bookkeeping.
        versions: whether there are sub-versions, to be told apart.

    Attributes:
        signature: matches a key that no other network has, from its prefix, the first group, on.
        block: matches a key of a block: group, block, the key inside it; then what makes it fused, or unfused, if so.
        fused_block, unfused_block: the keys inside a block.
    """

    def __init__(
        self,
        network: str,
        group: str,
        layers: Tuple[str, str, str],
        others: Tuple[str, ...] = (),
        notes: Tuple[str, ...] = (),
        scalars: Tuple[str, ...] = (),
        versions: bool = False,
    ) -> None:
        self.network, self.group, self.notes, self.scalars, self.versions = network, group, notes, scalars, versions
        self.marks = (".fused_conv.", ".lk_", ".sk_", *(f".ffn.{layer}." for layer in layers[:2]))
        gates = "|".join(layers[:2])
        inside = rf"(?:{_FUSED}|{_UNFUSED}|ffn\.(?:{gates})\.)"
        self.signature: Pattern[str] = re.compile(rf"({_PREFIX}){group}\.{_NUMBER}\.{_NUMBER}\.{inside}")
        self.block: Pattern[str] = re.compile(
            rf"{group}\.({_NUMBER})\.({_NUMBER})\.((?:({_FUSED})|({_UNFUSED}))?.*)$", re.DOTALL
        )
        shared = (
            "norm.weight",
            "norm.bias",
            *others,
            *(f"ffn.{layer}.{part}" for layer in layers for part in ("weight", "bias")),
        )
        self.fused_block = ("conv.fused_conv.weight", "conv.fused_conv.bias", *shared)
        self.unfused_block = ("conv.lk_conv.weight", "conv.sk_conv.weight", "conv.lk_bias", "conv.sk_bias", *shared)

    def may_be_in(self, checkpoint: Mapping[Any, Any]) -> bool:
        """Whether a look at each key is worth its time; in next to none, since hosts ask about every network."""
        names = "\n".join([key for key in checkpoint if isinstance(key, str)])
        return f"{self.group}." in names and any(mark in names for mark in self.marks)


JUNE = Keys("AetherNet", "layers", ("fc1_gate", "fc1_main", "fc2"))
LATER = Keys(
    "AetherNet 3.1",
    "stages",
    ("conv_gate", "conv_main", "conv_out"),
    others=("ffn.temperature",),
    notes=("model_version", "pt_version"),
    scalars=("scale_tensor",),
    versions=True,
)


class Located(NamedTuple):
    """
    The weights of one network inside a checkpoint.

    Attributes:
        container: the keys that lead to them, outermost first; empty for a bare state dict.
        prefix: what stood before every key, such as ``module.``.
        weights: the state dict, without that prefix and without bookkeeping.
    """

    container: Tuple[str, ...]
    prefix: str
    weights: StateDict


def locate(checkpoint: Mapping[Any, Any], keys: Keys) -> Optional[Located]:
    """
    Finds the weights of a generation in a checkpoint: bare, under the keys that trainers use, with or without prefixes.

    Where a checkpoint holds several, averaged (EMA) weights win over raw ones, and then those that spandrel would
    unwrap. Returns None if there are none.
    """
    found = _find(checkpoint, keys)
    return found and found._replace(weights=_weights(found.weights, keys))


def refusal(checkpoint: Mapping[Any, Any], keys: Keys) -> Optional[str]:
    """
    Says what a checkpoint of a generation is if it cannot be run here although nothing is wrong with it: quantised, or
    of another sub-version, which shares the keys and not the function; and what to do about it.

    Returns None for any other checkpoint.
    """
    found = _find(checkpoint, keys)
    return _refusal(found.weights, keys) if found else None


def form_of(checkpoint: Mapping[Any, Any], keys: Keys) -> Optional[str]:
    """
    Returns ``fused`` or ``unfused`` for a checkpoint that holds weights of a generation, whole or damaged, else None.

    A block of each form makes it ``unfused``. None, too, for what ``refusal`` names.
    """
    found = _find(checkpoint, keys)
    if found is None or _refusal(found.weights, keys):
        return None
    return _form(_weights(found.weights, keys), keys)


def weights_in(checkpoint: Mapping[Any, Any], keys: Keys) -> StateDict:
    """
    Returns the weights of a generation in a checkpoint under the network's own keys; see ``locate``.

    Raises:
        ValueError: there are none, or they cannot be run here; see ``refusal``.
    """
    found = _find(checkpoint, keys)
    if found is None:
        raise ValueError(
            f"these are no {keys.network} weights: no key such as {keys.group}.0.0.{keys.unfused_block[0]}"
        )
    reason = _refusal(found.weights, keys)
    if reason:
        raise ValueError(f"this is {reason}")
    return _weights(found.weights, keys)


def the_one_form(weights: Iterable[str], keys: Keys) -> str:
    """
    Returns the form that all blocks have; weights without a key that tells count as unfused, and lack some.

    Raises:
        ValueError: there are blocks of both; names the first key of the second.
    """
    forms = _forms(weights, keys)
    for form, key in forms:
        if form != forms[0][0]:
            raise damage(key, f"is {form} while {forms[0][1]} is {forms[0][0]}: fused and unfused blocks are mixed")
    return forms[0][0] if forms else "unfused"


def damage(key: str, problem: str) -> ValueError:
    """The error for weights of which something is missing or wrong."""
    return ValueError(f"damaged AetherNet weights: {key} {problem}")


def _find(
    checkpoint: Mapping[Any, Any],
    keys: Keys,
    container: Tuple[str, ...] = (),
    visited: Optional[Dict[int, int]] = None,
) -> Optional[Located]:
    """
    The entries of a network, bookkeeping included, by keys which only it has.

    A mapping may be in another many times over, itself included: ``visited`` says how deep each was when last looked
    into, by identity, and only one that is found higher up, from where more can be reached, is worth another look.
    """
    if keys.may_be_in(checkpoint):
        names = [key for key in checkpoint if isinstance(key, str)]
        short = (key for key in names if len(key) < _LONGEST)
        prefixes = {match.group(1) for match in map(keys.signature.match, short) if match}
        if prefixes:
            prefix = min(prefixes, key=lambda candidate: ("ema" not in candidate, len(candidate), candidate))
            own = {key[len(prefix) :]: checkpoint[key] for key in names if key.startswith(prefix)}
            return Located(container, prefix, own)
    visited = {} if visited is None else visited
    visited[id(checkpoint)] = len(container)
    if len(container) < _DEEPEST:
        for key in _inner_containers(checkpoint):
            inner = checkpoint[key]
            if visited.get(id(inner), _DEEPEST + 1) > len(container) + 1:
                found = _find(inner, keys, (*container, key), visited)
                if found:
                    return found
    return None


def _inner_containers(checkpoint: Mapping[Any, Any]) -> List[str]:
    def preference(key: str) -> Tuple[bool, int]:
        return "ema" not in key.lower(), _CONTAINERS.index(key) if key in _CONTAINERS else len(_CONTAINERS)

    mappings = {kind for kind in set(map(type, checkpoint.values())) if issubclass(kind, Mapping)}
    if not mappings:
        return []
    inner = (key for key, value in checkpoint.items() if type(value) in mappings and isinstance(key, str))
    return sorted(inner, key=preference)


def _weights(entries: Mapping[str, Any], keys: Keys) -> StateDict:
    """The entries without what is beside the weights."""
    return {key: value for key, value in entries.items() if not _is_bookkeeping(key, value, keys)}


def _is_bookkeeping(key: str, value: Any, keys: Keys) -> bool:
    if not isinstance(value, Tensor) or key in keys.notes or key.rpartition(".")[2] in _BOOKKEEPING:
        return True
    return value.dim() == 0 and key not in keys.scalars


def _refusal(entries: Mapping[str, Any], keys: Keys) -> Optional[str]:
    reason = quantisation(entries)
    if reason or not keys.versions:
        return reason
    return is_another_version(entries, fused=_form(entries, keys) == "fused")


def _form(weights: Iterable[str], keys: Keys) -> Optional[str]:
    forms = {form for form, _ in _forms(weights, keys)}
    if not forms:
        return None
    return "fused" if forms == {"fused"} else "unfused"


def _forms(weights: Iterable[str], keys: Keys) -> List[Tuple[str, str]]:
    """The form of each convolution key, in the order of the keys: (form, key)."""
    matches = ((keys.block.match(key), key) for key in weights)
    parts = ((match[4], match[5], key) for match, key in matches if match)
    return [("fused" if fused else "unfused", key) for fused, unfused, key in parts if fused or unfused]
