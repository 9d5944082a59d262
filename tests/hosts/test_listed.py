"""In which folders a host lists models, so that doctor says of a file that it lies where nobody looks."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import in_process
import pytest
from environments import make_environment
from machines import COMFYUI, WEBUI, live_in, touch

from aether_install.hosts.discovery import Host, discover
from aether_install.hosts.listed import lists, model_folders, noted_folders
from aether_install.hosts.processes import Process
from aether_install.hosts.system import System

YAML = """\
# Rename this to extra_model_paths.yaml
comfyui:
    base_path: path/to/comfyui/   # relative to this file
    is_default: true
    checkpoints: models/checkpoints/
    upscale_models: models/upscale_models/
    clip: |
        models/clip/
        upscale_models: no key, but a folder

"a111":
    base_path: "/srv/stable diffusion"
    checkpoints: models/Stable-diffusion
    upscale_models: |
                  models/ESRGAN
                  models/RealESRGAN

                  /abs/SwinIR
    vae: models/VAE
home:
    upscale_models: ~/mine
variable:
    base_path: ${WHERE}/there
    'upscale_models': 'up scale'  # quoted
#   upscale_models: commented out
no base:
    upscale_models: beside
"""


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System("linux", {"WHERE": "/var"}, tmp_path / "home")


def comfyui(system: System, folder: Path, *processes: Process) -> Host:
    touch(folder, *COMFYUI)
    (host,) = discover([folder], replace(system, processes=lambda: list(processes))).hosts
    return host


def test_what_the_file_names_is_read_as_comfyui_reads_it(system: System, tmp_path: Path) -> None:
    assert list(noted_folders(system, YAML, Path("/c/extra_model_paths.yaml"))) == [
        Path("/c/path/to/comfyui/models/upscale_models"),
        Path("/srv/stable diffusion/models/ESRGAN"),
        Path("/srv/stable diffusion/models/RealESRGAN"),
        Path("/abs/SwinIR"),
        tmp_path / "home" / "mine",
        Path("/var/there/up scale"),
        Path("/c/beside"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0\0",
        ":",
        "a:\n  upscale_models:\n",
        "a:\n\tupscale_models: '\n",
        "- upscale_models",
        "x: {upscale_models: [",
        "\ufeff%",
    ],
)
def test_a_file_in_any_condition_is_read_for_what_it_is_worth(system: System, text: str) -> None:
    assert all(folder.is_absolute() for folder in noted_folders(system, text, Path("/c/x.yaml")))


@pytest.mark.not_on_windows("Wine does not follow symbolic links")
def test_a_model_is_looked_for_in_the_folders_that_the_host_lists(system: System, tmp_path: Path) -> None:
    folder = tmp_path / "ComfyUI"
    other = touch(tmp_path / "other", "deep/", "gone/")
    (tmp_path / "link").symlink_to(other)
    host = comfyui(system, folder)
    own = folder / "models" / "upscale_models"
    assert model_folders(system, host) == (own,)
    (folder / "extra_model_paths.yaml").write_text(f"x:\n  upscale_models: |\n    {tmp_path}/link\n    /nowhere\n")
    folders = model_folders(system, host)
    assert folders == (own, tmp_path / "link", Path("/nowhere"))
    for place in (own, own / "4x", other, other / "deep", tmp_path / "link"):
        assert lists(folders, place / "m.pth"), place
    for place in (tmp_path, folder, folder / "models", tmp_path / "others"):
        assert not lists(folders, place / "m.pth"), place


def test_of_a_file_that_cannot_be_read_nothing_is_claimed(system: System, tmp_path: Path) -> None:
    folder = tmp_path / "ComfyUI"
    host = comfyui(system, folder)
    yaml = folder / "extra_model_paths.yaml"
    yaml.write_bytes(b"#" * (5 << 20))
    assert model_folders(system, host) == ()
    yaml.unlink()
    yaml.mkdir()
    assert model_folders(system, host) == ()


@pytest.mark.parametrize(
    "text",
    [
        '{"a": {"base_path": "/m", "upscale_models": "ESRGAN"}}',
        "a: {base_path: /m, upscale_models: ESRGAN}",
        "# x\na:\n  b: {c: d}\n",
    ],
)
def test_of_a_file_in_a_form_that_is_not_understood_nothing_is_claimed(
    system: System, tmp_path: Path, text: str
) -> None:
    folder = touch(tmp_path / "ComfyUI", *COMFYUI)
    (folder / "extra_model_paths.yaml").write_text("# {a: b}\na:\n  base_path: ${HOME}\n")
    (host,) = discover([folder], system).hosts
    assert model_folders(system, host)
    (folder / "extra_model_paths.yaml").write_text(text)
    assert model_folders(system, host) == ()


def test_what_a_host_that_runs_was_told_counts(system: System, tmp_path: Path) -> None:
    folder = tmp_path / "ComfyUI"
    (tmp_path / "more.yaml").write_text("x:\n  base_path: .\n  upscale_models: here\n")
    words = ("main.py", "--base-directory", "../base", "--extra-model-paths-config", "/none.yaml", "--listen")
    assert model_folders(system, comfyui(system, folder, Process(7, Path("/p"), words, folder))) == ()
    words = ("main.py", "--base-directory=../base", "--extra-model-paths-config", str(tmp_path / "more.yaml"))
    assert model_folders(system, comfyui(system, folder, Process(7, Path("/p"), words, folder))) == (
        folder / "models" / "upscale_models",
        tmp_path / "here",
        tmp_path / "base" / "models" / "upscale_models",
    )
    webui = touch(tmp_path / "stable-diffusion-webui", *WEBUI)
    process = Process(7, Path("/p"), ("launch.py", "--esrgan-models-path", "/m"), webui)
    (host,) = discover([webui], replace(system, processes=lambda: [process])).hosts
    assert model_folders(system, host) == (webui / "models" / "ESRGAN", Path(webui.anchor, "m"))


def test_doctor_says_where_the_model_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host of another kind takes it from anywhere."""
    from aether_install.hosts.doctor import patient_of_host, request

    folder = touch(tmp_path / "ComfyUI", *COMFYUI)
    make_environment(folder / "venv", borrow=False)
    live_in(tmp_path, monkeypatch)
    file = tmp_path / "Downloads" / "m.pth"
    (host,) = discover().hosts
    assert request(patient_of_host(host, "comfyui"), file, "")["is_listed"] is False
    (folder / "extra_model_paths.yaml").write_text(f"x:\n  upscale_models: {file.parent}\n")
    assert request(patient_of_host(host, "comfyui"), file, "")["is_listed"] is True
    settings = os.environ.get("APPDATA", tmp_path / ".config")
    chainner = touch(Path(settings, "chaiNNer"), "settings.json", "python/python/")
    (host,) = (host for host in discover().hosts if host.folder == chainner)
    assert request(patient_of_host(host, "chainner"), file, "")["is_listed"] is True
    assert in_process.aether_json("hosts")["hosts"]
