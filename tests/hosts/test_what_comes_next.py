"""What people see: what is wrong and what to type, and, once a host is taught, what comes next in that very host."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from environments import Environment, aether_install, aether_json, make_environment
from machines import COMFYUI, environment_in, touch
from test_where_nobody_looks import run, with_aether_install

from aether_install.hosts.discovery import Host
from aether_install.hosts.doctor import Diagnosis, Patient, Step
from aether_install.hosts.kinds import KINDS, Kind
from aether_install.hosts.programs.does_model_work import STEPS
from aether_install.ui.doctor import _SENTENCES, doctor_view
from aether_install.ui.next_steps import where_models_go


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ComfyUI in a home of its own, with aether-install in its Python too."""
    folder = touch(tmp_path_factory.mktemp("home") / "ComfyUI", *COMFYUI)
    with_aether_install(make_environment(folder / "venv", "0.4.1", borrow=False))
    return folder


@pytest.fixture
def home(folder: Path) -> Iterator[dict[str, str]]:
    """The environment variables of that home, in which ComfyUI is left untaught."""
    variables = environment_in(folder.parent)
    yield variables
    aether_install("uninstall", "--host", folder, env=variables)


def assert_tells_what_comes_next(folder: Path, shown: str) -> None:
    assert shown.splitlines()[-1] == (
        f"In ComfyUI: put the model into {folder / 'models' / 'upscale_models'}, and choose it in the node Load "
        "Upscale Model."
    )
    assert "Restart programs that use this spandrel" not in shown


# Once a host is taught.


@pytest.mark.parametrize("way", ["--host", "--python", "--target", "--all", "twice", "its own Python"])
def test_what_comes_next_in_the_host_is_the_last_that_is_said(folder: Path, home: dict[str, str], way: str) -> None:
    environment = Environment(folder / "venv")
    options: list[str | Path] = {
        "--host": ["--host", "comfyui"],
        "--python": ["--python", environment.python],
        "--target": ["--target", environment.site_packages],
        "--all": ["--all"],
        "twice": ["--host", "comfyui", "--host", folder],
        "its own Python": [],
    }[way]
    if options:
        shown = aether_install("spandrel", *options, "--no-verify", env=home).stdout
    else:
        # README's line: nothing says which application is meant.
        shown = run(folder.parent, environment, "spandrel", "--no-verify").stdout
    assert_tells_what_comes_next(folder, shown)
    assert "Restart ComfyUI, if it runs: stop main.py and start it again." in shown.splitlines()


def test_it_is_said_again_and_to_scripts_and_not_of_what_does_not_come(folder: Path, home: dict[str, str]) -> None:
    would = aether_install("spandrel", "--host", "comfyui", "--dry-run", env=home).stdout
    aether_install("spandrel", "--host", "comfyui", "--no-verify", env=home)
    again = aether_install("spandrel", "--host", "comfyui", env=home).stdout
    assert "already" in again.splitlines()[0]
    assert_tells_what_comes_next(folder, again)
    assert again.splitlines()[-1] in aether_json("spandrel", "--host", "comfyui", env=home)["next"]
    gone = aether_install("uninstall", "--host", "comfyui", env=home).stdout
    assert "put the model" not in gone + would


def test_one_that_runs_is_to_be_restarted_by_name(folder: Path, home: dict[str, str]) -> None:
    (folder / "main.py").write_text("print('runs', flush=True)\ninput()\n")
    python = Environment(folder / "venv").python
    with subprocess.Popen(
        [python, "main.py"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "runs\n"
        for options in (["--host", "comfyui"], ["--all"]):
            shown = aether_install("spandrel", *options, "--no-verify", env=home).stdout
            assert f"Restart ComfyUI, which is running (process {running.pid})" in shown
            assert "if it runs" not in shown
            assert_tells_what_comes_next(folder, shown)
            aether_install("uninstall", *options, env=home)
        running.kill()


def test_files_are_counted_and_named_to_those_who_ask(folder: Path, home: dict[str, str]) -> None:
    registry = "spandrel/__helpers/main_registry.py"
    shown = aether_install("spandrel", "--host", "comfyui", "--no-verify", env=home).stdout
    assert re.search(r"^files: \d+ added, 2 changed; --verbose names them$", shown, re.MULTILINE)
    assert registry not in shown
    shown = aether_install("uninstall", "--host", "comfyui", "--verbose", env=home).stdout
    assert f"changed: {registry}" in shown.splitlines()
    assert "--verbose" not in shown
    shown = aether_install("spandrel", "--all", "--no-verify", "--verbose", env=home).stdout
    assert f"comfyui, changed: {registry}" in shown.splitlines()
    told = aether_json("uninstall", "--host", "comfyui", env=home)
    assert any(Path(path).as_posix().endswith(registry) for path in told["changed"])
    shown = aether_install("spandrel", "--host", "comfyui", "--dry-run", env=home).stdout
    assert f"would be changed: {registry}" in shown.splitlines(), "what would change is all that is asked for"


def host(kind: Kind) -> Host:
    return Host(kind.id, kind, Path("folder"), Path(sys.executable), None, None)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.usable], ids=lambda kind: kind.name)
def test_every_host_says_where_models_go_and_are_chosen(kind: Kind) -> None:
    (place,) = kind.models[:1] or [None]
    known = host(kind) if place is None else Host(kind.id, kind, Path("folder"), None, None, Path("folder") / place)
    sentence = where_models_go(known)
    assert sentence.startswith(f"In {kind.name.partition(',')[0]}: ")
    assert (str(known.models) in sentence) if place else ("load the model" in sentence)
    assert "choose it in" in sentence or not place
    assert "*" not in sentence
    assert sentence.endswith(".")


# Where something fails: what is wrong, and what to type.


def diagnosis(cause: str, step: str, file: str | None = "m.pth", **named: Any) -> Diagnosis:
    steps = [Step(name, True, "seen") for name in STEPS[: STEPS.index(step)]]
    steps.append(Step(step, False, "what was seen", cause))
    patient = Patient("python", named_by=("--host", "comfyui"), host=host(KINDS[2]))
    return Diagnosis(patient, Path("/models") / file if file else None, tuple(steps), **named)


CAUSES = sorted({*_SENTENCES, "untaught", "broken", "restart", "refused", "rename to .pth"} - {"unheeded"})


@pytest.mark.parametrize("cause", CAUSES)
def test_the_headline_is_a_sentence_and_no_name_of_a_step(cause: str) -> None:
    for step in STEPS:
        headline = doctor_view(diagnosis(cause, step)).headline
        assert headline.startswith("m.pth does not work with ComfyUI: ")
        assert f"{step} fails" not in headline
        assert not headline.endswith(".")
        assert len(headline) > len("m.pth does not work with ComfyUI: ") + 10
        assert not re.search(r"`aether-install (fuse|spandrel)`", headline), "it can be typed as it stands"


def test_a_model_that_does_not_work_there_is_not_to_be_put_there() -> None:
    misplaced = Step("file", True, "", "elsewhere")
    failing = replace(diagnosis("channels", "upscaled"), steps=(misplaced, Step("upscaled", False, "", "channels")))
    assert not any("ut it into" in sentence for sentence in doctor_view(failing).advice)
    well = replace(failing, steps=tuple(misplaced if name == "file" else Step(name, True) for name in STEPS))
    assert any("ut it into" in sentence for sentence in doctor_view(well).advice)


def test_the_headline_says_what_to_type() -> None:
    assert doctor_view(diagnosis("untaught", "taught")).headline == (
        "m.pth does not work with ComfyUI: its spandrel does not know AetherNet; run `aether-install spandrel --host "
        "comfyui` to teach it"
    )
    made = doctor_view(diagnosis("untaught", "taught", file=None)).headline
    assert made.startswith("no AetherNet works with ComfyUI: its spandrel does not know AetherNet; run `")
    fused = doctor_view(diagnosis("parameters", "read"))
    command = f"aether-install fuse --model_path {Path('/models/m.pth')} --output_path m-fused.pth --host comfyui"
    assert f"run `{command}`" in fused.headline
    assert "aether-install fuse --model_path" in fused.advice[0]
    torn = doctor_view(diagnosis("damaged", "read")).headline
    assert torn == "m.pth does not work with ComfyUI: it is truncated or damaged; copy or download it again"
    page = Step("read", False, "it is a web page and no model; save the file by its download button", "refused")
    view = doctor_view(Diagnosis(Patient("python"), Path("m.pth"), (Step("python", True), page)))
    assert view.headline == (
        "m.pth does not work with this spandrel: it is a web page and no model; save the file by its download button"
    )
