"""
What README says to type into ComfyUI portable's console, and what is shown: ``python first_minute.py OUTPUT``.

On Windows, with torch. ``OUTPUT`` becomes a list in JSON of what was typed and what the console was told to show.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from environments import REPOSITORY
from layouts import ENVIRONMENT, portable
from terminals import on_terminal

MODEL = REPOSITORY / "examples" / "models" / "2x-AetherNet-photo.pth"
TYPED = (
    r"python_embeded\python.exe aether-install.pyz spandrel",
    rf"python_embeded\python.exe aether-install.pyz doctor ComfyUI\models\upscale_models\{MODEL.name}",
)

comfyui = portable(Path("C:\\"))
shutil.copy(MODEL, comfyui.folder / "ComfyUI" / "models" / "upscale_models")
os.chdir(comfyui.folder)
shown = []
for line in TYPED:
    program, *arguments = line.split()
    status, screen = on_terminal([comfyui.folder / program, *arguments], ENVIRONMENT)
    assert status == 0, screen
    shown.append((f"{comfyui.folder}>", line, screen))
Path(sys.argv[1]).write_text(json.dumps(shown), encoding="utf-8")
