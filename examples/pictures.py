"""
Draws the README's pictures of the terminal: real commands, in a folder that looks like a user's.

    python examples/pictures.py FOLDER

The folder must hold ComfyUI/venv with a spandrel that does not know AetherNet, and is left as it was.
"""

from __future__ import annotations

import io
import os
import pty
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "examples" / "pictures"
COMMAND = Path(sysconfig.get_path("scripts"), "aether-install")
COLUMNS = 112

PYTHON = "ComfyUI/venv/bin/python"
MODEL = "2x-AetherNet-photo.pth"
SHOTS = {
    "dry-run": [f"spandrel --python {PYTHON} --dry-run"],
    "spandrel": [f"spandrel --python {PYTHON}"],
    "status": [f"status --python {PYTHON}"],
    "fuse": [f"inspect {MODEL}", f"fuse --model_path {MODEL} --output_path fused.safetensors"],
    "uninstall": [f"uninstall --python {PYTHON}"],
}


def on_a_terminal(arguments: list[str], folder: Path) -> str:
    """What a command writes to a terminal, colours included. Its progress goes elsewhere, for it would be gone."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    with subprocess.Popen(
        [COMMAND, *arguments], cwd=folder, env=environment, stdout=theirs, stderr=subprocess.PIPE
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


def main() -> None:
    folder = Path(sys.argv[1]).absolute()
    shutil.copy(ROOT / "examples" / "models" / MODEL, folder)
    for name, commands in SHOTS.items():
        console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
        for command in commands:
            console.print(Text.assemble(("$ ", "bold blue"), (f"aether-install {command}", "bold")))
            console.print(Text.from_ansi(on_a_terminal(command.split(), folder)), soft_wrap=True)
        console.save_svg(str(PICTURES / f"{name}.svg"), title="aether-install")
    for made in (MODEL, "fused.safetensors"):
        (folder / made).unlink()


if __name__ == "__main__":
    main()
