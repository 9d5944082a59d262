"""
What the shapes of weights tell of a network's sizes.

Sizes that many tensors share are put to the vote, so that a damaged tensor is the one that stands out when all are
compared with the network of these sizes (``building.py``).
"""

from __future__ import annotations

from collections import Counter
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from .checkpoint import Keys, StateDict, damage
from .refusals import integers
from .sizes import steps_of

__all__ = ["Votes", "block_names", "check_kernels", "deduce_depths", "deduce_mlp_ratio", "most_have"]

_MOST_STEPS = 16
"""Steps of two that an upsampler is taken to have at most, whatever the keys say."""


class Votes:
    """
    What several tensors say of a size that they share: the most frequent answer.

    Args:
        weights: a clean state dict.
        blocks: what the keys of each block start with.
        axes_of: how many axes the tensor of a key has to have for its answer to count.
    """

    def __init__(self, weights: StateDict, blocks: Sequence[str], axes_of: Callable[[str], int]) -> None:
        self.weights = weights
        self.blocks = blocks
        self.axes_of = axes_of

    def __call__(self, *axes: Tuple[str, int], formula: Optional[int] = None) -> int:
        """
        Returns the size.

        Args:
            axes: the keys that tell, and along which axis.
            formula: what one more voice says, if the size also follows from others.

        Raises:
            ValueError: no tensor tells; names the first key.
        """
        present = [(key, axis) for key, axis in axes if key in self.weights and self._counts(key)]
        if not present:
            key = axes[0][0]
            problem = "is missing"
            if key in self.weights:
                problem = f"has {self.weights[key].dim()} axes instead of {self.axes_of(key)}"
            raise damage(key, problem)
        voices = [self.weights[key].shape[axis] for key, axis in present]
        winner = Counter(voices if formula is None else [*voices, formula]).most_common(1)[0][0]
        if winner == 0:
            raise damage(present[0][0], "is empty")
        return winner

    def in_blocks(self, *axes: Tuple[str, int], formula: Optional[int] = None) -> int:
        """Returns the size by these keys of every block."""
        return self(*((block + key, axis) for block in self.blocks for key, axis in axes), formula=formula)

    def _counts(self, key: str) -> bool:
        return self.weights[key].dim() == self.axes_of(key)


def deduce_depths(weights: StateDict, keys: Keys, fused: bool) -> Tuple[int, ...]:
    """
    Returns the number of blocks in each group.

    What most of a block is there of counts as a block, so that neither a lost key nor a stray one changes them.

    Raises:
        ValueError: a block is missing; names its first key.
    """
    inside = keys.fused_block if fused else keys.unfused_block
    matches = filter(None, map(keys.block.match, weights))
    found = Counter((int(match[1]), int(match[2])) for match in matches if match[3] in inside)
    whole = [block for block, number in found.items() if 2 * number > len(inside)]
    if not whole:
        raise damage(f"{keys.group}.0.0.{inside[0]}", "is missing, with most of every block")
    last: Dict[int, int] = {}
    for group, block in whole:
        last[group] = max(block, last.get(group, 0))
    depths: List[int] = []
    for group in range(max(last) + 1):
        depths.append(last.get(group, 0) + 1)
        for block in range(depths[-1]):
            if (group, block) not in found:
                raise damage(f"{keys.group}.{group}.{block}.{inside[0]}", "is missing, with all of its block")
    return tuple(depths)


def block_names(keys: Keys, depths: Sequence[int]) -> List[str]:
    """Returns what the keys of each block start with."""
    return [f"{keys.group}.{group}.{block}." for group, depth in enumerate(depths) for block in range(depth)]


def check_kernels(block: str, large: str, lk_kernel: int, sk_kernel: int) -> None:
    """
    Checks the sides of the kernels.

    Raises:
        ValueError: one is even, or the small one is larger; names its key in the given block.
    """
    for key, side, limit in ((large, lk_kernel, lk_kernel), ("conv.sk_conv.weight", sk_kernel, lk_kernel)):
        if side % 2 == 0 or side > limit:
            raise damage(block + key, f"has a kernel of {side}, which is even or larger than the large one")


def deduce_mlp_ratio(dim: int, hidden: int) -> float:
    """Returns the ratio with the fewest decimals for which ``int(dim * ratio) == hidden``."""
    for power in (10**digits for digits in range(1, 18)):
        smallest = -(-hidden * power // dim)
        for ratio in (smallest / power, (smallest + 1) / power):
            if int(dim * ratio) == hidden:
                return ratio
    raise ValueError(f"no mlp_ratio makes {hidden} hidden units of {dim}")


def most_have(weights: Mapping[str, object], blocks: Sequence[str], keys: Sequence[str]) -> bool:
    """Returns whether at least half of the blocks have one of these keys."""
    having = sum(any(block + key in weights for key in keys) for block in blocks)
    return having > 0 and 2 * having >= len(blocks)


def deduce_upscale(weights: StateDict, num_feat: int) -> int:
    """Returns the scale whose keys differ least from those there are; of equals the largest, as keys get lost."""
    present = {key for key in weights if key.startswith("upsample.")}

    def faults(steps: int) -> int:
        return len(present ^ {f"upsample.{2 * i}.{part}" for i in range(steps) for part in ("weight", "bias")})

    steps = min(range(_MOST_STEPS, -1, -1), key=faults)
    if steps == 1 and any(weights[key].shape[:1] == (9 * num_feat,) for key in present):
        return 3
    return int(2**steps)


def deduce_width(vote: Votes, key: str, step: int, width: int) -> int:
    """
    Returns the channels after a step of an upsampler, whose convolution has this key.

    Raises:
        ValueError: they cannot be shuffled so.
    """
    channels = vote((f"{key}.weight", 0), (f"{key}.bias", 0), formula=step * step * width)
    if channels % (step * step):
        raise damage(f"{key}.weight", f"has {channels} channels, which cannot be shuffled to {step}x")
    return channels // (step * step)


def deduce_noted_scale(weights: StateDict) -> int:
    """
    Returns the scale that ``scale_tensor`` gives, if the upsampler agrees.

    Where the two differ, the one that fewest keys and shapes speak against tells which of them is at fault.

    Raises:
        ValueError: they differ, or there is no ``scale_tensor``.
    """
    present = {key for key in weights if key.startswith("upsample.")}
    width = weights["conv_last.weight"].shape[1:2] if "conv_last.weight" in weights else ()
    noted = (integers(weights.get("scale_tensor")) or (0,))[0]

    def wanted(scale: int) -> List[str]:
        return [f"upsample.blocks.{2 * i}.{part}" for i in range(len(steps_of(scale))) for part in ("weight", "bias")]

    def faults(scale: int) -> Tuple[int, bool]:
        keys = wanted(scale)
        channels = [weights[key].shape[:1] for key in keys[-2:] if key in weights]
        misshapen = sum(shape != tuple(steps_of(scale)[-1] ** 2 * size for size in width) for shape in channels)
        return len(present.symmetric_difference(keys)) + misshapen + (noted != scale), noted != scale

    scales = [1, 3, *(2**steps for steps in range(1, _MOST_STEPS + 1))]
    scale = min(scales, key=faults)
    if "scale_tensor" not in weights:
        raise damage("scale_tensor", "is missing")
    if noted != scale:
        lacking = [key for key in wanted(noted) if key not in weights] if noted in scales else []
        alternative = f"; or {lacking[0]} is missing" if lacking else ""
        raise damage("scale_tensor", f"says {noted}, where the upsampler has the scale {scale}{alternative}")
    return scale
