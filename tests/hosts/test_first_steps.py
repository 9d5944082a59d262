"""What newcomers type first, in a Python of no application: each answer leads on, to what fits that very command."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from environments import REPOSITORY, Environment, make_environment, needs_torch, words_of
from machines import COMFYUI, touch
from test_where_nobody_looks import run, with_aether_install

MODEL = REPOSITORY / "examples" / "models" / "2x-AetherNet-photo.pth"

Typed = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two ComfyUIs, one of which has its torch elsewhere, as with --system-site-packages."""
    home = tmp_path_factory.mktemp("home")
    make_environment(touch(home / "ComfyUI", *COMFYUI) / "venv", "0.4.1")
    make_environment(touch(home / "other" / "ComfyUI", *COMFYUI) / "venv", "0.4.1")
    return home


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return with_aether_install(make_environment(tmp_path_factory.mktemp("tool") / "tool", None, borrow=False))


@pytest.fixture
def typed(home: Path, tool: Environment) -> Typed:
    """Types a line in that home, in which no spandrel knows AetherNet, with a Python that has no spandrel."""
    for environment in home.rglob("venv"):
        run(home, tool, "uninstall", "--host", str(environment.parent))
    return lambda *words: run(home, tool, *words)


def commands(text: str) -> list[list[str]]:
    """The commands of ours that a text says to type."""
    return [words_of(words) for words in re.findall(r"`aether-install ([^`]*)`", text)]


@pytest.mark.parametrize("command", ["spandrel", "status", "uninstall"])
def test_without_a_spandrel_the_way_on_is_for_the_same_command(typed: Typed, command: str) -> None:
    typed("spandrel", "--host", "comfyui", "--no-verify")
    (sentence,) = typed(command).stderr.splitlines()
    (first, *_) = commands(sentence)
    assert first == [command, "--all"]
    assert "lib-dynload" not in sentence, "no spandrel lies there"
    assert typed(*first, *(["--no-verify"] if command == "spandrel" else [])).returncode == (command == "status")


def test_what_is_done_already_is_not_asked_for_again(typed: Typed) -> None:
    typed("spandrel", "--all", "--no-verify")
    for command in ("spandrel", "status"):
        (sentence,) = typed(command).stderr.splitlines()
        assert "which load AetherNet models already" in sentence
        assert commands(sentence) == [["status", "--all"]]
    typed("uninstall", "--all")
    assert "none of which has an AetherNet of ours" in typed("uninstall").stderr


def test_status_says_what_comes_next(typed: Typed, home: Path) -> None:
    told = typed("status", "--all").stdout
    assert commands(told) == [["spandrel", "--all"], ["spandrel", "--host", "comfyui"]]
    typed(*commands(told)[1], "--no-verify")
    assert commands(typed("status", "--all").stdout) == [["spandrel", "--all"]]
    models = home / "ComfyUI" / "models" / "upscale_models"
    python = Environment(home / "ComfyUI" / "venv").python
    for way in (("--host", "comfyui"), ("--python", str(python))):
        assert f"put the model into {models}" in typed("status", *way).stdout.splitlines()[-1]
        assert "programs that were running" not in typed("status", *way).stdout, "none runs"
    typed("spandrel", "--all", "--no-verify")
    assert commands(typed("status", "--all").stdout) == []


def test_two_of_a_kind_are_told_apart(typed: Typed) -> None:
    assert "ComfyUI (comfyui), ComfyUI (comfyui-2)" in typed("spandrel").stderr


@pytest.mark.parametrize("command", ["inspect", "fuse"])
def test_without_a_torch_the_application_that_has_one_is_named(typed: Typed, tmp_path: Path, command: str) -> None:
    needs_torch()
    words = {"inspect": [str(MODEL)], "fuse": ["--model_path", str(MODEL), "--output_path", str(tmp_path / "x.pth")]}
    (sentence,) = typed(command, *words[command]).stderr.splitlines()
    options = re.findall(r"`(--host [^`]*)`", sentence)
    assert options == ["--host comfyui", "--host comfyui-2"]
    assert "install" not in sentence.partition("; ")[2], "there is no need to"
    assert typed(command, *words[command], *options[0].split()).returncode == 0


def test_doctor_begins_with_the_application_to_ask(typed: Typed) -> None:
    needs_torch()
    told = typed("doctor", str(MODEL))
    assert "; add --host comfyui or --host comfyui-2" in told.stdout.splitlines()[0]
    assert "pip install torch" not in told.stdout
    assert "does not work" not in told.stdout.splitlines()[0], "nothing has tried it"


def test_a_model_is_found_by_its_name_where_the_application_lists_it(typed: Typed, home: Path) -> None:
    needs_torch()
    typed("spandrel", "--host", "comfyui", "--no-verify")
    model = home / "ComfyUI" / "models" / "upscale_models" / "sub" / "photo.pth"
    model.parent.mkdir()
    shutil.copy(MODEL, model)
    told = typed("doctor", "photo.pth", "--host", "comfyui")
    assert told.returncode == 1
    (command,) = dict.fromkeys(map(tuple, commands(told.stdout)))
    assert command == ("doctor", str(model), "--host", "comfyui")
    assert json.loads(typed(*command, "--json").stdout)["ok"]
    shutil.rmtree(model.parent)
    assert "check the path" in typed("doctor", "photo.pth", "--host", "comfyui").stdout.splitlines()[0]
