"""An environment with a version of PyTorch that applications stay on for years; ``make test`` makes it beforehand."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from environments import CACHE, REPOSITORY, run, script
from filelock import FileLock

# What AUTOMATIC1111's web UI pins, and a version that has torch.compiler without all of its functions.
TORCH = "2.1.2"
PACKAGES = (f"torch=={TORCH}", "numpy<2", "packaging", "pytest", "filelock", "safetensors")

ROOT = CACHE / f"torch-{TORCH}"
# Bytecode is kept where it cannot lie between that of other Pythons, and torch is compiled once.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPYCACHEPREFIX": str(ROOT / "pycache")}
ENVIRONMENT.pop("PYTHONDONTWRITEBYTECODE", None)


def python_with_old_torch() -> Path | None:
    """The Python of that environment, some 2 GB to download the first time; None where no Python is old enough."""
    uv = script("uv")
    found = run(uv, "python", "find", "--no-project", ">=3.10,<3.12", check=False)
    if found.returncode != 0:
        return None
    ready, python = ROOT / "ready", ROOT / "bin" / "python"
    CACHE.mkdir(exist_ok=True)
    with FileLock(CACHE / "torch.lock"):
        if not ready.exists() or ready.read_text() != str(PACKAGES):
            shutil.rmtree(ROOT, ignore_errors=True)
            run(uv, "venv", "--quiet", "--python", found.stdout.strip(), ROOT)
            run(uv, "pip", "install", "--quiet", "--python", ROOT, *PACKAGES)
            run(uv, "pip", "install", "--quiet", "--python", ROOT, "--no-deps", "--editable", REPOSITORY)
            run(python, "-c", "import pytest, safetensors.torch, torch._dynamo", env=ENVIRONMENT)
            ready.write_text(str(PACKAGES))
    return python


if __name__ == "__main__":
    python_with_old_torch()
