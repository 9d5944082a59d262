"""
Applications stay on old versions of PyTorch for years: the network's own tests hold there too.

The first run downloads one, some 2 GB, and keeps it in ``.cache``.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from environments import CACHE, REPOSITORY, run, script
from filelock import FileLock

# What AUTOMATIC1111's web UI pins, and a version that has torch.compiler without all of its functions.
TORCH = "2.1.2"
PACKAGES = (f"torch=={TORCH}", "numpy<2", "packaging", "pytest", "filelock", "safetensors")

# What it does not have: export for images of any size; arithmetic in float16 on a CPU, where hooks ask for it.
NOT_THERE = "exports or (hooks and float16)"


def environment_with_old_torch() -> Path:
    """The Python of an environment with that version, made once; skips where no Python is found that is old enough."""
    uv = script("uv")
    found = run(uv, "python", "find", "--no-project", ">=3.10,<3.12", check=False)
    if found.returncode != 0:
        pytest.skip(f"torch {TORCH} needs Python 3.10 or 3.11, and there is none here")
    root = CACHE / f"torch-{TORCH}"
    ready = root / "ready"
    CACHE.mkdir(exist_ok=True)
    with FileLock(CACHE / "torch.lock"):
        if not ready.exists() or ready.read_text() != str(PACKAGES):
            shutil.rmtree(root, ignore_errors=True)
            run(uv, "venv", "--quiet", "--python", found.stdout.strip(), root)
            run(uv, "pip", "install", "--quiet", "--python", root, *PACKAGES)
            run(uv, "pip", "install", "--quiet", "--python", root, "--no-deps", "--editable", REPOSITORY)
            ready.write_text(str(PACKAGES))
    return root / "bin" / "python"


def test_the_network_computes_the_same_on_an_old_torch() -> None:
    python = environment_with_old_torch()
    command = [python, "-m", "pytest", "--noconftest", "-q", "-p", "no:cacheprovider", "-o", "addopts="]
    tests = REPOSITORY / "tests" / "models" / "test_network.py"
    # Bytecode is kept where it cannot lie between that of other Pythons, and torch is compiled once.
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPYCACHEPREFIX": str(CACHE / f"torch-{TORCH}" / "pycache"),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = run(*command, tests, "-k", f"not ({NOT_THERE})", cwd=REPOSITORY, env=environment)
    assert " passed" in done.stdout
    assert "failed" not in done.stdout
