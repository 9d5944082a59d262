"""
Draws the README's pictures of the terminal: real commands, on a machine with six applications that it lays out.

    python examples/pictures.py FOLDER

The folder, which is to be new, becomes a user's home with real environments and real spandrels in it. The picture of
ComfyUI portable is drawn by ``python tests/wine/draw.py``.
"""

from __future__ import annotations

import io
import os
import pty
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from environments import make_environment  # noqa: E402 - the tests' own ways to lay out a machine
from machines import COMFYUI, WEBUI, note, touch  # noqa: E402

PICTURES = ROOT / "examples" / "pictures"
COMMAND = Path(sysconfig.get_path("scripts"), "aether-install")
COLUMNS = 120

MODEL = "2x-AetherNet-photo.pth"
SHOTS = {
    "hosts": ["hosts"],
    "doctor": [f"doctor {MODEL} --host comfyui", "spandrel --host comfyui", f"doctor {MODEL} --host comfyui"],
    "all": ["spandrel --all"],
    "fuse": [f"inspect {MODEL}", f"fuse --model_path {MODEL} --output_path fused.safetensors"],
    "uninstall": ["uninstall --host comfyui"],
    "dry-run": ["spandrel --host comfyui --dry-run"],
}
"""What is typed for each picture, one after the other: later ones find what earlier ones have done."""


def lay_out(home: Path) -> None:
    """Puts six applications where their installers and users put them."""
    applications = {
        "ComfyUI": ("0.4.2", "venv", COMFYUI),
        ".config/chaiNNer": ("0.4.1", "python/python", ("settings.json",)),
        "stable-diffusion-webui": ("0.3.4", "venv", WEBUI),
        "stable-diffusion-webui-forge": ("0.3.4", "venv", (*WEBUI, "modules_forge/")),
        "invokeai": ("0.4.2", ".venv", ("invokeai.yaml", "databases/")),
        ".local/share/krita/ai_diffusion/server": (
            "0.4.2",
            "venv",
            (".version", "uv/", "models/upscale_models/", *(f"ComfyUI/{name}" for name in COMFYUI)),
        ),
    }
    for folder, (version, environment, names) in applications.items():
        touch(home / folder, *names)
        make_environment(home / folder / environment, version)
    note(home / ".config/chaiNNer/settings.json", {"useSystemPython": False})
    shutil.copy(ROOT / "examples" / "models" / MODEL, home)


def on_a_terminal(arguments: list[str], home: Path) -> str:
    """What a command writes to a terminal, colours included. Its progress goes elsewhere, for it would be gone."""
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    looks = {"COLUMNS": str(COLUMNS), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    with subprocess.Popen(
        [COMMAND, *arguments],
        cwd=home,
        env={**kept, **looks, "HOME": str(home)},
        stdout=theirs,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(theirs)
        output = b""
        while chunk := _read(ours):
            output += chunk
        assert process.stderr is not None
        output += process.stderr.read()
    os.close(ours)
    return output.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # how Linux says that nobody writes to it any more
        return b""


def draw(name: str, lines: Iterable[tuple[str, str, str]]) -> None:
    """Draws a terminal: the prompt, what is typed and what is shown, as many times."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for prompt, typed, shown in lines:
        console.print(Text.assemble((prompt, "bold blue"), (typed, "bold")))
        console.print(Text.from_ansi(shown), soft_wrap=True)
    console.save_svg(str(PICTURES / f"{name}.svg"), title="aether-install")


def main() -> None:
    home = Path(sys.argv[1]).absolute()
    home.mkdir(parents=True)
    lay_out(home)
    for name, commands in SHOTS.items():
        shown = ((f"aether-install {each}", on_a_terminal(shlex.split(each), home)) for each in commands)
        draw(name, (("$ ", *both) for both in shown))


if __name__ == "__main__":
    main()
