"""
The whole story on a real photograph: teach spandrel, fuse a model, upscale with both, and leave no trace.

    make demo

The pictures are written to demo/. The spandrel that is taught is the one of the environment that runs this.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import track
from rich.table import Table

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "examples" / "models" / "2x-AetherNet-photo.pth"
PHOTOS = ROOT / "examples" / "photos"
OUTPUT = ROOT / "demo"
COMMAND = Path(sysconfig.get_path("scripts"), "aether-install")
CROPS = {"astronaut": (168, 68, 112), "chelsea": (108, 72, 112)}
"""Left, top and side, in pixels of the original, of the part of each photo that is shown enlarged."""

RUNS = 9

console = Console(highlight=False)


def main() -> None:
    OUTPUT.mkdir(exist_ok=True)
    fused, onnx = OUTPUT / f"{MODEL.stem}-fused.pth", OUTPUT / f"{MODEL.stem}-fused.onnx"
    with taught_spandrel():
        run("fuse", "--model_path", MODEL, "--output_path", fused, "--output_path", onnx, "--force")
        compare(MODEL, fused)
    compare_onnx(fused, onnx)
    console.print(f"The pictures are in [bold]{OUTPUT}[/]; look at before-after-*.png first.")


@contextmanager
def taught_spandrel() -> Iterator[None]:
    """Installs for as long as it takes, unless somebody had installed before, and shows that nothing is left."""
    answer = subprocess.run([COMMAND, "status", "--json"], capture_output=True, text=True)
    status = json.loads(answer.stdout)
    if status["state"] == "installed":
        console.print("This environment's spandrel knows AetherNet already, and keeps it.\n")
        yield
        return
    site_packages = Path(status["spandrel"]["path"]).parent
    before = snapshot(site_packages)
    try:
        run("spandrel")
        yield
    finally:
        run("uninstall")
        if snapshot(site_packages) != before:
            sys.exit(f"{site_packages} is not as it was")
        console.print(f"All {len(before)} files of spandrel are as they were, to the byte and the nanosecond.\n")


def snapshot(site_packages: Path) -> dict[Path, tuple[str, int, int]]:
    """Bytes, mode and time of every file of spandrel; bytecode apart, which Python writes by itself."""
    files = [path for path in site_packages.glob("spandrel*/**/*") if path.is_file() and path.suffix != ".pyc"]
    return {
        path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mode, path.stat().st_mtime_ns)
        for path in files
    }


def run(*arguments: str | Path) -> None:
    """Runs a command of aether-install for all to see."""
    shown = [str(argument.relative_to(ROOT)) if isinstance(argument, Path) else argument for argument in arguments]
    console.print(f"[bold blue]$ aether-install {' '.join(shown)}[/]", soft_wrap=True)
    sys.stdout.flush()
    if subprocess.run([COMMAND, *arguments]).returncode != 0:
        sys.exit(1)
    console.print()


def compare(unfused: Path, fused: Path) -> None:
    """Restores photos from half their size with both models, and shows how well and how fast."""
    with console.status("starting torch and spandrel"):
        from quality import enlarge, psnr_y, read_photo, shrink, to_image, trimmed
        from spandrel import ImageModelDescriptor, ModelLoader

    models = {}
    for name, path in {"AetherNet": unfused, "AetherNet, fused": fused}.items():
        model = ModelLoader().load_from_file(path)
        assert isinstance(model, ImageModelDescriptor)
        print(f"spandrel loads {path.name}: {model.architecture.name}, {model.scale}x, tags {', '.join(model.tags)}")
        models[name] = model

    table = Table("", title="Photographs that training never saw, restored from half their size", title_justify="left")
    columns: list[list[str]] = []
    for photo in track(sorted(CROPS), "upscaling", console=console, transient=True):
        original = trimmed(read_photo(PHOTOS / f"{photo}.png"), 2)
        small = shrink(original, 2)
        restored = {"bicubic": enlarge(small, 2)} | {name: model(small) for name, model in models.items()}
        psnr = {name: psnr_y(picture, original) for name, picture in restored.items()}
        for name, picture in {"original": original, **restored}.items():
            to_image(picture[0]).save(OUTPUT / f"{photo}-{name.replace(', ', '-').lower()}.png")
        before, after = ((to_image(restored[n][0]), f"{n}, {psnr[n]:.2f} dB") for n in ("bicubic", "AetherNet"))
        before_after(before, after, CROPS[photo]).save(OUTPUT / f"before-after-{photo}.png")

        runs = [[seconds_of(model, small) for model in models.values()] for _ in range(RUNS)]
        slow, fast = map(statistics.median, zip(*runs, strict=True))
        table.add_column(f"{photo}, {original.shape[3]}x{original.shape[2]}")
        columns.append(
            [
                *(f"{value:.2f} dB ({value - psnr['bicubic']:+.2f})" for value in psnr.values()),
                f"{(restored['AetherNet'] - restored['AetherNet, fused']).abs().max():.1e}",
                f"{slow * 1e3:.0f} ms",
                f"{fast * 1e3:.0f} ms, {slow / fast:.2f}x as fast",
            ]
        )
    names = [*psnr, "fused and unfused differ by", "time unfused", "time fused"]
    for row in zip(names, *columns, strict=True):
        table.add_row(*row)
    console.print()
    console.print(table)
    console.print(
        f"PSNR of the luma, and what is gained over bicubic; time of one run, the median of {RUNS}. On a CPU both "
        "forms take as long, since inference merges unfused kernels by itself.\n"
    )


def compare_onnx(fused: Path, onnx: Path) -> None:
    """Shows that ONNX Runtime makes the same picture of the ONNX file."""
    import numpy as np
    from onnxruntime import InferenceSession
    from PIL import Image
    from quality import read_photo, shrink, to_image, trimmed

    photo = sorted(CROPS)[0]
    small = shrink(trimmed(read_photo(PHOTOS / f"{photo}.png"), 2), 2)
    session = InferenceSession(onnx, providers=["CPUExecutionProvider"])
    (restored,) = session.run(None, {"input": small.numpy()})
    picture = np.asarray(to_image(small.new_tensor(restored)[0]), dtype=int)
    with Image.open(OUTPUT / f"{photo}-aethernet-fused.png") as shown:
        difference = np.abs(picture - np.asarray(shown, dtype=int))
    console.print(
        f"ONNX Runtime makes the same {photo} of {onnx.name} as spandrel of {fused.name}: "
        f"{(difference > 0).mean():.2%} of the 8-bit values differ, by {difference.max()} at most.\n"
    )


def seconds_of(model: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor) -> float:
    """How long one run takes."""
    start = time.perf_counter()
    model(image)
    return time.perf_counter() - start


def before_after(before: tuple[Image, str], after: tuple[Image, str], crop: tuple[int, int, int]) -> Image:
    """The same part of two pictures, enlarged pixel by pixel, side by side under their captions."""
    from PIL import Image, ImageDraw, ImageFont

    left, top, side = crop
    enlargement, bar, gap = 4, 40, 6
    width = side * enlargement
    sheet = Image.new("RGB", (2 * width + gap, width + bar), "white")
    draw = ImageDraw.Draw(sheet)
    for x, (picture, caption) in zip((0, width + gap), (before, after), strict=True):
        part = picture.crop((left, top, left + side, top + side))
        sheet.paste(part.resize((width, width), Image.Resampling.NEAREST), (x, bar))
        draw.text((x + 8, 8), caption, fill="black", font=ImageFont.load_default(22))
    return sheet


if __name__ == "__main__":
    main()
