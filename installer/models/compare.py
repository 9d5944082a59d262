"""Whether a written model is what it was made from: tensor by tensor, and in the picture that it makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import AetherInstallError
from .checkpoint import read_checkpoint
from .generations import StateDict
from .identify import Model

TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 3e-2, torch.bfloat16: 3e-2}
"""Largest difference that passes for each dtype, relative to the range of the original model's output."""

_ROUNDINGS = 8
"""How many units in the last place of the largest output two right models may lie apart, whatever the range is."""

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}

_SMALLEST_SIDE = 16


@dataclass(frozen=True)
class Comparison:
    """
    A written model beside the one it was made from.

    Attributes:
        tensors: how many were read back and found to be as they should.
        side: of the square image that both were run on, in pixels.
        max_abs_diff: largest difference of any output value.
        output_range: largest minus smallest output value of the original model.
    """

    tensors: int
    side: int
    max_abs_diff: float
    output_range: float


def compare(
    source: Model, arguments: Mapping[str, float], made: StateDict, written: Path, device: torch.device
) -> Comparison:
    """
    Reads a written model back and compares it with what it was made from.

    Args:
        source: the original.
        arguments: those of its network that leave no trace in the weights, as it was trained.
        made: the weights that were written.
        written: the file.
        device: where the two are run.

    Raises:
        AetherInstallError: they differ, or the original gives no finite output.
    """
    read_back = dict(read_checkpoint(written).content)
    _check_tensors(source, arguments, made, read_back)
    dtype = source.weights["conv_first.weight"].dtype
    # In half precision two right models differ by a step of their last digit, which is more than the weights differ by.
    computed = torch.promote_types(dtype, torch.float32)
    generation = source.identity.generation
    facts = generation.describe(source.identity.parameters)
    side = max(_SMALLEST_SIDE, facts["lk_kernel"])
    image = torch.rand(1, facts["in_chans"], side, side, generator=torch.Generator().manual_seed(0))
    image = image.to(dtype).to(device, computed)
    with _one_thread(), torch.inference_mode():
        expected = generation.build(source.weights, computed, **arguments).to(device)(image)
        got = generation.build(read_back, computed).to(device)(image)
    if not expected.isfinite().all():
        raise AetherInstallError(
            f"{source.identity.path} itself gives no finite output for a test image, so nothing can be compared and "
            "nothing was written; use --no-verify if that is as it should be"
        )
    difference = (got - expected).abs().max().item()
    output_range = (expected.max() - expected.min()).item()
    # Where a network has hardly been trained, the range is small beside the values, and so is what they round to.
    rounding = _ROUNDINGS * torch.finfo(computed).eps * expected.abs().max().item()
    if not difference <= max(TOLERANCE[dtype] * output_range, rounding):
        raise AetherInstallError(
            f"the result differs from {source.identity.path} by {difference:.2g} where outputs span "
            f"{output_range:.2g}, so it was not written; please report this with the model"
        )
    return Comparison(len(made), side, difference, output_range)


def _check_tensors(source: Model, arguments: Mapping[str, float], made: StateDict, read_back: StateDict) -> None:
    """
    Checks that every tensor came back bit for bit, and that each one that was made is right.

    Those that were taken over are the source's own. The others are compared with the same arithmetic in float64, from
    which they may differ by one rounding to their dtype.
    """
    path = source.identity.path
    if set(made) != set(read_back):
        raise AetherInstallError(f"the file made of {path} lost tensors on the disk, so it was not kept; try again")
    for key, tensor in made.items():
        if not _same_bits(tensor, read_back[key]):
            raise AetherInstallError(
                f"{key} of the file made of {path} differs from what was written, so it was not kept; check the disk"
            )
    changed = {key for key, tensor in made.items() if tensor is not source.weights.get(key)}
    gone = source.weights.keys() - made.keys()
    generation = source.identity.generation
    exact = {
        key: tensor.double() if key in changed or key in gone else tensor for key, tensor in source.weights.items()
    }
    exact = generation.fold(exact, **arguments)
    if not source.identity.fused:
        exact = generation.fuse(exact)
    for key in changed:
        eps, tiny = torch.finfo(made[key].dtype).eps, torch.finfo(made[key].dtype).tiny
        if not torch.isclose(made[key].double(), exact[key], rtol=eps, atol=eps * tiny, equal_nan=True).all():
            raise AetherInstallError(
                f"{key} made of {path} is not what it should be, so nothing was written; please report this"
            )


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    # As integers, so that not-a-number equals itself; of the same width, since by single bytes this takes long.
    integers = _INTEGERS[one.element_size()]
    return torch.equal(*(tensor.contiguous().view(-1).view(integers) for tensor in (one, other)))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small images are computed no faster by several threads, and far slower where other programs keep them busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
