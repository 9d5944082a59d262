"""Applications stay on old versions of PyTorch for years: the network's own tests hold there too."""

from __future__ import annotations

import pytest
from environments import REPOSITORY, run
from old_torch import ENVIRONMENT, TORCH, python_with_old_torch

# What it does not have: export for images of any size; arithmetic in float16 on a CPU, where hooks ask for it.
NOT_THERE = "exports or (hooks and float16)"


def test_the_network_computes_the_same_on_an_old_torch() -> None:
    python = python_with_old_torch()
    if python is None:
        pytest.skip(f"torch {TORCH} needs Python 3.10 or 3.11, and there is none here")
    # What conftest.py prepares needs a spandrel, which this Python has not got; the numbers are to stay the same.
    options = ["--noconftest", "-p", "same_numbers", "-p", "no:cacheprovider", "-o", "addopts=", "-q"]
    tests = REPOSITORY / "tests" / "models" / "test_network.py"
    environment = {**ENVIRONMENT, "PYTHONPATH": str(tests.parent)}
    done = run(python, "-m", "pytest", *options, tests, "-k", f"not ({NOT_THERE})", cwd=REPOSITORY, env=environment)
    assert " passed" in done.stdout
    assert "failed" not in done.stdout
