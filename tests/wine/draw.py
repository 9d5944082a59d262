"""Draws README's picture of ComfyUI portable's console, with the Python of Windows: ``python tests/wine/draw.py``."""

from __future__ import annotations

import json
import sys

from run import CACHE, PYTHON, REPOSITORY, WINDOWS, make_windows

sys.path.insert(0, str(REPOSITORY / "examples"))

from pictures import draw

if __name__ == "__main__":
    make_windows(has_torch=True)
    windows, shown = WINDOWS.copy(CACHE / "prefix-of-picture", core=0), CACHE / "first-minute.json"
    try:
        program = f"Z:{REPOSITORY}/tests/portable/first_minute.py"
        windows.run(PYTHON, program, f"Z:{shown}", PYTHONPATH=f"Z:{REPOSITORY}/tests")
    finally:
        windows.end()
    draw("portable", json.loads(shown.read_text()))
