"""Applications stay on old versions of PyTorch for years: the tests of networks and engine hold there too."""

from __future__ import annotations

import pytest
from environments import REPOSITORY, run
from old_torch import ENVIRONMENT, TORCH, python_with_old_torch

# What it does not have: export for images of any size; arithmetic in float16 on a CPU, where hooks ask for it.
NOT_THERE = "exports or (hooks and float16)"
# Seams are those of any torch; of the later generation, what is large is the published pictures and those in bfloat16.
TOO_LONG = "seam or (those_of_the_later_generation_do and float32) or (later_generations_picture and 64)"


TESTS = ("network/test_network.py", "engine/test_pictures.py")


def test_networks_and_engine_compute_the_same_on_an_old_torch() -> None:
    python = python_with_old_torch()
    if python is None:
        pytest.skip(f"torch {TORCH} needs Python 3.10 or 3.11, and there is none here")
    # What conftest.py prepares needs a spandrel, which this Python has not got; the plugin is its other half.
    chosen = f"not ({NOT_THERE} or {TOO_LONG})"
    options = ["--noconftest", "-p", "as_in_hosts", "-p", "no:cacheprovider", "-o", "addopts=", "-q"]
    models = REPOSITORY / "tests" / "models"
    environment = {**ENVIRONMENT, "PYTHONPATH": str(models)}
    done = run(python, "-m", "pytest", *options, *TESTS, "-k", chosen, cwd=models, env=environment)
    assert " passed" in done.stdout
    assert "failed" not in done.stdout
