"""Tells what network a checkpoint holds: an AetherNet, whole or damaged, one that cannot be run here, or another."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import AetherInstallError
from ..formats.recognise import recognise
from .checkpoint import UNPACKED_AT_MOST, Checkpoint, size_of, undamaged
from .generations import GENERATIONS, Generation, Located, StateDict
from .skipped import ForbiddenError, is_skipped
from .unpickle import Quantised


@dataclass(frozen=True)
class Identity:
    """
    What an AetherNet is, and where in its file it was.

    Attributes:
        path: the file.
        generation: of the network.
        container: the keys that led to it, joined by dots, or ``bare``.
        prefix: what stood before every key.
        passed_over: the container of other weights of the network in the file, which its average was preferred to.
        parameters: constructor arguments as the shapes tell them.
        noted: those that leave no trace in the shapes, such as ``img_range``, as far as the file states them.
        dtype: of all weights, or ``mixed``.
        count: number of weights.
    """

    path: Path
    generation: Generation
    container: str
    prefix: str
    passed_over: str | None
    parameters: dict[str, Any]
    noted: dict[str, float]
    dtype: str
    count: int

    @property
    def fused(self) -> bool:
        """Whether each block has one kernel."""
        return bool(self.parameters["fused_init"])

    @property
    def variant(self) -> str | None:
        """Such as ``small``; None for a size of its own."""
        return self.generation.variant(self.parameters)

    @property
    def described(self) -> dict[str, Any]:
        """The parameters by the names that all generations share; the rest as noted or, failing that, assumed."""
        generation = self.generation
        return {**generation.describe(self.parameters), **generation.assumed(self.parameters), **self.noted}

    @property
    def unheeded(self) -> dict[str, float]:
        """What is noted and differs from what every loader of the bare weights assumes."""
        assumed = self.generation.assumed(self.parameters)
        return {name: value for name, value in self.noted.items() if not math.isclose(value, assumed[name])}

    @property
    def whereabouts(self) -> str:
        """Where in the file the weights were, in words."""
        place = "a bare state dict" if self.container == "bare" else self.container
        place += f", the average, and not {self.passed_over}" if self.passed_over else ""
        return place + (f", without the prefix {self.prefix}" if self.prefix else "")

    @property
    def description(self) -> str:
        """One line about the network."""
        facts = self.generation.describe(self.parameters)
        size = self.variant or f"embed_dim {facts['embed_dim']}, depths {facts['depths']}"
        later = "" if self.generation is GENERATIONS[0] else f" {self.generation.name}"
        return f"AetherNet{later} {size}, {facts['upscale']}x, {'fused' if self.fused else 'unfused'}"


@dataclass(frozen=True)
class Model:
    """An AetherNet in a checkpoint, with its clean state dict, which may be mapped from the file."""

    identity: Identity
    checkpoint: Checkpoint
    weights: StateDict


class UnsupportedError(AetherInstallError):
    """
    A file holds something else than an AetherNet that can be worked with.

    Attributes:
        looks_like: what it holds instead.
    """

    def __init__(self, path: Path, looks_like: str, remedy: str = "") -> None:
        super().__init__(f"{path} is {looks_like}{remedy}")
        self.looks_like = looks_like


def identify(checkpoint: Checkpoint) -> Model:
    """
    Finds the AetherNet in a checkpoint.

    Raises:
        UnsupportedError: there is none, or one that cannot be run here.
        AetherInstallError: it is damaged.
    """
    with undamaged(checkpoint.path):
        for generation in GENERATIONS:
            reason = generation.refusal(checkpoint.content)
            if reason:
                raise UnsupportedError(checkpoint.path, reason)
            located = generation.locate(checkpoint.content)
            if located is not None:
                _check_not_quantised(checkpoint, dict(_entries(checkpoint, located)), "AetherNet")
                return _identified(checkpoint, generation, located)
        _check_not_quantised(checkpoint, checkpoint.content, "model")
        name = _spandrel_name(checkpoint.content)
        known = None if name else recognise(checkpoint.path)
        if known:
            raise UnsupportedError(checkpoint.path, f"{known.what}; {known.remedy}")
        if checkpoint.skipped and not name:  # which may well hold the weights
            raise ForbiddenError(next(iter(checkpoint.skipped)))
        if not name:
            raise UnsupportedError(checkpoint.path, "no network known here", "; check that it is the right file")
        raise UnsupportedError(checkpoint.path, f"a {name} model")


def _check_not_quantised(checkpoint: Checkpoint, content: Mapping[Any, Any], what: str) -> None:
    quantised = next((value for value in _values(content) if isinstance(value, Quantised)), None)
    if quantised:
        kind = f"an fp8 ({quantised.dtype})" if quantised.dtype.startswith("float8") else "an int8, quantised"
        reason = f"{kind} {what}, which cannot be run here; use the float file it was made from"
        raise UnsupportedError(checkpoint.path, reason)


def _values(content: Any) -> Iterator[Any]:
    """What is in a checkpoint, in dicts and tuples a few levels deep, each of which counts once."""
    level, visited = [content], set()
    for _ in range(6):
        inside: list[Any] = []
        for value in level:
            if id(value) in visited:
                continue
            visited.add(id(value))
            if isinstance(value, Mapping):
                inside += value.values()
            elif isinstance(value, tuple) and not isinstance(value, Quantised):
                inside += value
            else:
                yield value
        level = inside


def _identified(checkpoint: Checkpoint, generation: Generation, located: Located) -> Model:
    path, weights = checkpoint.path, located.weights
    # A file may well be smaller than its tensors, which may share what is in it, but not by so much.
    if sum(map(size_of, weights.values())) > UNPACKED_AT_MOST * path.stat().st_size + 2**26:
        raise AetherInstallError(
            f"{path} holds fewer bytes than its tensors claim, so they are not trained weights; "
            "get an undamaged copy of the file"
        )
    try:
        parameters = generation.deduce(weights)
    except ValueError as error:
        for key, value in _entries(checkpoint, located):
            if is_skipped(value) and f" {key} " in str(error):
                raise ForbiddenError(value.name) from error
        raise AetherInstallError(f"{path} holds {error}; get an undamaged copy of the file") from error
    container = ".".join(located.container) or "bare"
    dtypes = {str(tensor.dtype).removeprefix("torch.") for tensor in weights.values() if tensor.is_floating_point()}
    identity = Identity(
        path=path,
        generation=generation,
        container=container,
        prefix=located.prefix,
        passed_over="params" if container.endswith("params_ema") and "params" in checkpoint.content else None,
        parameters=parameters,
        noted=_noted(checkpoint, generation.assumed(parameters)),
        dtype=dtypes.pop() if len(dtypes) == 1 else "mixed",
        count=sum(tensor.numel() for tensor in weights.values()),
    )
    return Model(identity, checkpoint, weights)


def _entries(checkpoint: Checkpoint, located: Located) -> Iterator[tuple[str, Any]]:
    """What is where weights were found, whatever it is, under keys without their prefix."""
    entries: Mapping[Any, Any] = checkpoint.content
    for key in located.container:
        entries = entries[key]
    for key, value in entries.items():
        if isinstance(key, str) and key.startswith(located.prefix):
            yield key[len(located.prefix) :], value


def _noted(checkpoint: Checkpoint, names: Mapping[str, float]) -> dict[str, float]:
    """The arguments of these names that the file states."""
    stated = dict(checkpoint.hyperparameters)
    for arch_config in (stated.get("arch_config"), checkpoint.content.get("arch_config")):
        stated.update(arch_config if isinstance(arch_config, Mapping) else {})
    return {name: _factor(checkpoint.path, name, stated[name]) for name in names if stated.get(name) is not None}


def _factor(path: Path, name: str, noted: Any) -> float:
    try:
        factor = float(noted)
    except (OverflowError, TypeError, ValueError):
        factor = math.nan
    if not 0 < factor < math.inf:
        way_out = "remove it and give the right one with --img_range" if name == "img_range" else "correct it"
        shown = reprlib.repr(noted)  # which may hold itself
        raise AetherInstallError(f"{path} notes {name} as {shown}, which is not a positive number; {way_out}")
    return factor


def _spandrel_name(content: Mapping[Any, Any]) -> str | None:
    """What the spandrel at hand takes the weights for; it has seen far more networks than this program."""
    try:
        import spandrel

        weights = spandrel.canonicalize_state_dict(dict(content))
        for support in spandrel.MAIN_REGISTRY.architectures("detection"):
            if support.detect(weights):
                return str(support.architecture.name)
    except Exception:  # Whatever ails somebody else's detection or installation, here it only costs us a name.
        return None
    return None
