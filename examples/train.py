"""
Trains a small AetherNet as a training framework would, and writes it the way neosr does: raw and averaged weights.

    python examples/train.py --photos FOLDER --hold-out astronaut.png chelsea.png --output model.pth

Every photo is shrunk by the upscale factor with an antialiasing bicubic filter, and the network learns the way back.
The held-out photos are never trained on; how well they are restored is printed beside what bicubic makes of them.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from quality import enlarge, psnr_y, read_photo, shrink, trimmed

from aether_install.models.network import core


def random_patches(photos: list[torch.Tensor], size: int, batch: int, random: np.random.Generator) -> torch.Tensor:
    """(batch, 3, size, size): squares cut from anywhere, flipped and turned at random."""
    areas = np.array([photo[0].numel() for photo in photos], dtype=float)
    patches = []
    for index in random.choice(len(photos), batch, p=areas / areas.sum()):
        photo = photos[index]
        top = random.integers(photo.shape[1] - size + 1)
        left = random.integers(photo.shape[2] - size + 1)
        patch = photo[:, top : top + size, left : left + size]
        patch = patch.flip(-1) if random.random() < 0.5 else patch
        patches.append(torch.rot90(patch, int(random.integers(4)), (1, 2)))
    return torch.stack(patches)


def evaluate(model: torch.nn.Module, photos: dict[str, torch.Tensor], factor: int) -> dict[str, tuple[float, float]]:
    """PSNR in dB of bicubic enlargement and of the model, for each photo."""
    scores = {}
    for name, photo in photos.items():
        original = trimmed(photo, factor)
        small = shrink(original, factor)
        with torch.inference_mode():
            scores[name] = (psnr_y(enlarge(small, factor), original), psnr_y(model(small), original))
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--hold-out", nargs="+", default=[], metavar="NAME", help="photos to test on only")
    parser.add_argument("--output", type=Path, required=True, help="the .pth file to write")
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--patch", type=int, default=64, help="side of a training patch before shrinking, in pixels")
    parser.add_argument("--upscale", type=int, default=2)
    parser.add_argument("--embed-dim", type=int, default=32)
    parser.add_argument("--depths", type=int, nargs="+", default=[3, 3])
    parser.add_argument("--rate", type=float, default=8e-4, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    random = np.random.default_rng(options.seed)
    files = sorted(path for path in options.photos.iterdir() if path.suffix in (".png", ".jpg"))
    held_out = {path.name: read_photo(path) for path in files if path.name in options.hold_out}
    photos = [read_photo(path, 1200) for path in files if path.name not in options.hold_out]
    print(f"{len(photos)} photos to learn from, {sum(photo[0].numel() for photo in photos) / 1e6:.1f} megapixels")

    model = core().aether(
        embed_dim=options.embed_dim, depths=tuple(options.depths), upscale=options.upscale, drop_path_rate=0.0
    )
    average = copy.deepcopy(model).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.rate, betas=(0.9, 0.99), weight_decay=0.0)
    warm_up = 200

    def rate_at(step: int) -> float:
        return min(1.0, (step + 1) / warm_up) * (0.5 + 0.5 * math.cos(math.pi * step / options.steps)) + 1e-3

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate_at)
    start = time.monotonic()
    for step in range(1, options.steps + 1):
        original = random_patches(photos, options.patch, options.batch, random)
        loss = F.l1_loss(model(shrink(original, options.upscale)), original)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), max(0.001, 10 / (step + 10)))
        if step % 500 == 0 or step == options.steps:
            scores = evaluate(average, held_out, options.upscale)
            shown = ", ".join(
                f"{name} {ours:.2f} dB ({ours - bicubic:+.2f})" for name, (bicubic, ours) in scores.items()
            )
            print(f"step {step}, {time.monotonic() - start:.0f} s, loss {loss.item():.5f}; {shown}", flush=True)
            torch.save({"params": model.state_dict(), "params_ema": average.state_dict()}, options.output)


if __name__ == "__main__":
    main()
