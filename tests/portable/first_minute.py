"""
What README says to type into ComfyUI portable's console, and what is shown: ``python first_minute.py OUTPUT``.

On Windows, with torch. ``OUTPUT`` becomes a list in JSON of what was typed and what was shown, colours included.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from environments import REPOSITORY
from layouts import ENVIRONMENT, portable

MODEL = REPOSITORY / "examples" / "models" / "2x-AetherNet-photo.pth"
TYPED = (
    r"python_embeded\python.exe aether-install.pyz spandrel",
    rf"python_embeded\python.exe aether-install.pyz doctor ComfyUI\models\upscale_models\{MODEL.name}",
)

comfyui = portable(Path("C:\\"))
shutil.copy(MODEL, comfyui.folder / "ComfyUI" / "models" / "upscale_models")
looks = {"FORCE_COLOR": "1", "COLUMNS": "120", "COLORTERM": "truecolor", "PYTHONIOENCODING": "utf-8"}
shown = []
for line in TYPED:
    done = subprocess.run(
        f"{comfyui.folder}\\{line}",
        cwd=comfyui.folder,
        env={**ENVIRONMENT, **looks},
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    shown.append((f"{comfyui.folder}>", line, done.stdout))
Path(sys.argv[1]).write_text(json.dumps(shown), encoding="utf-8")
