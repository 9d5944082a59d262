"""Without the engine, deleted or switched off, everything works: the same tests pass."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from environments import REPOSITORY, run

MODELS = Path(__file__).parents[1]


def without_engine(folder: Path) -> Path:
    """The program in another place, from which the engine's folder was deleted."""
    package = folder / "aether_install"
    shutil.copytree(REPOSITORY / "installer", package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(REPOSITORY / "payload", package / "payload", ignore=shutil.ignore_patterns("__pycache__", "engine"))
    return folder


# What starts processes of its own would take the program that this environment has; fusing and the like has no engine.
NOT_OF_IT = ("test_old_torch.py", "test_versions.py", "test_trained_model.py")


TOO_LONG = "not (compiles or exports or spandrels_own)"


@pytest.mark.parametrize(
    ("way", "tests"),
    [
        ("deleted", ["network", "checkpoints", "-k", TOO_LONG]),
        ("switched off", ["network", "-k", "published or hooks"]),
    ],
)
def test_everything_works_without_it(tmp_path: Path, way: str, tests: list[str]) -> None:
    path = [str(without_engine(tmp_path)), *sys.path] if way == "deleted" else sys.path
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    environment |= {"AETHERNET_ENGINE": "0"} if way == "switched off" else {}
    options = [*(f"--ignore-glob=*/{name}" for name in NOT_OF_IT), "-o", "addopts=", "-q", "-p", "no:cacheprovider"]
    done = run(sys.executable, "-m", "pytest", *options, *tests, cwd=MODELS, env=environment)
    assert " passed" in done.stdout
    assert "failed" not in done.stdout


PROGRAM = """
import sys
from environments import taught_spandrel

sys.path.insert(0, str(taught_spandrel()))
import spandrel, torch

for support in spandrel.MAIN_REGISTRY.architectures("detection"):
    if str(support.architecture.id).startswith("AetherNet"):
        model = spandrel.ModelLoader().load_from_state_dict(support.architecture.sample()).model
        with torch.inference_mode():
            print(type(model).engine is not None, model(torch.rand(1, 3, 20, 20)).isfinite().all().item())
"""


@pytest.mark.parametrize("way", ["there", "deleted"])
def test_spandrel_loads_with_it_and_without(tmp_path: Path, way: str) -> None:
    path = [str(without_engine(tmp_path)), *sys.path] if way == "deleted" else sys.path
    done = run(sys.executable, "-c", PROGRAM, env={**os.environ, "PYTHONPATH": os.pathsep.join(path)})
    assert done.stdout.split() == ["False" if way == "deleted" else "True", "True"] * 4
