"""doctor does in a host's own Python what the host does with a model file, and says what to do where that fails."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import in_process
import pytest
import torch
from environments import (
    REPOSITORY,
    UNSUPPORTED,
    aether_install,
    aether_json,
    make_environment,
    quietly,
    snapshot,
    taught_spandrel,
    wheel,
    words_of,
)
from imports import spandrel_of
from machines import COMFYUI, environment_in, live_in, touch
from networks import JUNE
from others import copied_by_hand, of_a_fork, of_a_spandrel_to_come
from safetensors.torch import save_file
from trees import Tree
from weights import StateDict, weights_of

from aether_install.hosts import doctor
from aether_install.hosts.discovery import Host
from aether_install.hosts.doctor import Diagnosis, Patient, Step, examine, patient_of_target, request
from aether_install.hosts.kinds import KINDS
from aether_install.hosts.listen import Ending
from aether_install.hosts.programs.does_model_work import READ_BY_FUSE, STEPS, replay
from aether_install.hosts.started import parse_elapsed, started
from aether_install.models.unpickle import _ALLOWED
from aether_install.tree.commands import install
from aether_install.tree.layout import Spandrel
from aether_install.ui.doctor import doctor_view

DEMO = REPOSITORY / "examples" / "models" / "2x-AetherNet-photo.pth"


def told(result: dict[str, Any]) -> tuple[str, str, str]:
    """The step that fails, what is said of it, and the advice. Every step before it went well, none followed."""
    assert [step["step"] for step in result["steps"]] == list(STEPS)
    oks = [step["ok"] for step in result["steps"]]
    failed = oks.index(False)
    assert oks == [True] * failed + [False] + [None] * (len(STEPS) - failed - 1)
    assert result["ok"] is False
    return STEPS[failed], result["steps"][failed]["detail"], " ".join(result["advice"])


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has this process take the steps, and not a Python that is started for them."""

    def listen(*told: Any) -> Ending:
        _, _, (request,), _, hear = told
        asked = json.loads(request)
        replay(asked, lambda **answer: hear(asked["mark"] + json.dumps(answer)))
        return Ending("", "")

    monkeypatch.setattr(doctor, "listen", listen)
    monkeypatch.setattr(sys, "path", list(sys.path))


# In the host's own Python.


@pytest.mark.usefixtures("here")
def test_a_host_is_healed_by_the_advice_alone(tmp_path: Path) -> None:
    """Whatever its packages print, and whatever lies in the current folder."""
    folder = touch(tmp_path / "home" / "ünï 日本" / "ComfyUI", *COMFYUI)
    environment = make_environment(folder / "venv", "0.3.4")
    loud = "import os, sys; os.write(1, b'loud {'); print('noise', flush=True); print('more', file=sys.stderr)\n"
    (environment.site_packages / "loud.pth").write_text(loud)
    elsewhere = touch(tmp_path, "elsewhere/") / "elsewhere"
    for name in ("torch", "spandrel", "einops", "safetensors"):
        (elsewhere / f"{name}.py").write_text(f"raise SystemExit('{name} came from the current folder')")
    model = shutil.copy(DEMO, elsewhere / "mödel 2x.pth").name
    variables = {**environment_in(tmp_path / "home"), "PYTHONPATH": os.pathsep}
    around: dict[str, Any] = {"cwd": elsewhere, "env": variables}

    with spandrel_of(environment.site_packages):
        untaught = in_process.aether_install("doctor", elsewhere / model, "--python", environment.python, check=False)
    assert untaught.returncode == 1
    assert "\ntaught: failed" in untaught.stdout
    _, command, _ = untaught.stdout.splitlines()[-1].split("`")
    program, *arguments = words_of(command)
    assert program == "aether-install"
    aether_install(*arguments, "--no-verify")

    known = snapshot(environment.root, bytecode=True)
    well = aether_json("doctor", model, "--host", folder, **around)
    assert (well["ok"], well["host"]) == (True, "comfyui"), well
    assert [step["step"] for step in well["steps"]] == list(STEPS)
    assert all(step["ok"] is True and step["detail"] for step in well["steps"])
    place = folder / "models" / "upscale_models"
    assert well["advice"] == [f"Put it into {place}, where ComfyUI looks for it."]
    shutil.move(elsewhere / model, place)
    well = aether_json("doctor", place / model, "--host", folder, **around)
    assert (well["ok"], well["advice"]) == (True, [])
    assert snapshot(environment.root, bytecode=True) == known, "looking writes nothing"


def test_a_python_without_torch_is_not_the_right_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody said which Python is meant, as in an environment of the installer alone, those found are named."""
    home = tmp_path / "home"
    bare = make_environment(touch(home / "ComfyUI", *COMFYUI) / "venv", None, borrow=False)
    step, detail, advice = told(aether_json("doctor", "--python", bare.python))
    assert (step, str(bare.python) in detail) == ("python", True)
    assert "no torch" in detail
    assert "--host" in advice
    live_in(home, monkeypatch)
    assert "add --host comfyui" in told(doctor_view(examine(Patient(str(bare.python)), None, quietly)).described)[2]


def test_a_python_without_spandrel_is_told_how_to_get_it(tmp_path: Path) -> None:
    lacking = make_environment(tmp_path / "lacking", None)
    step, _, advice = told(aether_json("doctor", "--python", lacking.python))
    assert step == "spandrel"
    assert "pip install spandrel" in advice or f"pip --python {lacking.python} install spandrel" in advice
    assert f"{lacking.python} -m pip" not in advice, "it has none"


def test_the_spandrel_in_a_folder_runs_in_the_python_around_it(tmp_path: Path, tree: Path) -> None:
    environment = make_environment(tmp_path / "venv", "0.4.1", borrow=False)
    for folder in (environment.site_packages, environment.spandrel):
        assert patient_of_target(folder).executable == str(environment.python)
    assert patient_of_target(tree).executable == sys.executable


def test_models_that_invokeai_knows_already_are_to_be_identified_again() -> None:
    steps = (*(Step(name, True, "seen") for name in STEPS[:2]), Step("taught", False, "none is AetherNet", "untaught"))
    view = doctor_view(
        Diagnosis(Patient("python", named_by=("--host", "invokeai"), host=host("invokeai")), None, steps)
    )
    assert "`aether-install spandrel --host invokeai`" in view.advice[0]
    assert "press Reidentify" in view.advice[1]


def fake_python(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.not_on_windows("a shell script is no interpreter")
@pytest.mark.parametrize(
    "script", ["exit 3", "echo hello", "kill -SEGV $$"], ids=["fails", "talks of something else", "dies"]
)
def test_what_is_no_python_is_told_so(tmp_path: Path, script: str) -> None:
    for executable in (fake_python(tmp_path / "python", script), str(tmp_path / "nothing"), str(tmp_path)):
        view = doctor_view(examine(Patient(executable), None, quietly))
        step, detail, advice = told(view.described)
        assert step == "python"
        assert detail
        assert "--python" in advice


def dying(folder: Path, code: str) -> Patient:
    """A Python whose torch ends the process, or does not come back."""
    folder.mkdir()
    (folder / "torch.py").write_text(code)
    return Patient(fake_python(folder / "python", f'PYTHONPATH="{folder}" exec "{sys.executable}" "$@"'))


@pytest.mark.not_on_windows("a shell script is no interpreter")
def test_a_python_that_dies_on_the_way_is_told_of(tmp_path: Path) -> None:
    crash = "import ctypes\nctypes.string_at(0)\n"
    kill = "import os, signal, sys\nprint('last words', file=sys.stderr, flush=True)\nos.kill(os.getpid(), 9)\n"
    for name, code, signal_name in (("crash", crash, "SIGSEGV"), ("kill", kill, "SIGKILL")):
        step, detail, advice = told(doctor_view(examine(dying(tmp_path / name, code), None, quietly)).described)
        assert (step, signal_name in detail) == ("python", True)
        assert "memory" in advice
    assert detail.endswith("last words")


@pytest.mark.not_on_windows("a shell script is no interpreter")
def test_a_python_that_is_silent_is_not_waited_for_forever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_SILENT_SECONDS", 1)
    code = "import os, time\nopen(__file__ + '.pid', 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    patient = dying(tmp_path / "slow", code)
    step, detail, _ = told(doctor_view(examine(patient, None, quietly)).described)
    assert (step, "silent" in detail) == ("python", True)
    pid = int((tmp_path / "slow" / "torch.py.pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


# In this process, which has torch already, and with a spandrel that is taught.


@pytest.fixture(scope="module", autouse=True)
def _taught() -> Iterator[None]:
    with spandrel_of(taught_spandrel()):
        yield


@pytest.mark.usefixtures("here")
def test_a_folder_without_spandrel_is_named(tmp_path: Path) -> None:
    step, detail, _ = told(in_process.aether_json("doctor", "--target", tmp_path))
    assert step == "spandrel"
    assert str(tmp_path) in detail
    assert "--target" in detail


@pytest.mark.usefixtures("here")
@pytest.mark.not_on_windows("Wine tells no command line of another process")
def test_a_host_that_runs_since_before_it_was_taught_is_to_be_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = touch(tmp_path / "ComfyUI", *COMFYUI)
    environment = make_environment(folder / "venv", "0.3.4", borrow=False)
    (folder / "main.py").write_text("import time\nprint('runs', flush=True)\ntime.sleep(600)\n")
    live_in(tmp_path, monkeypatch)
    running = subprocess.Popen([environment.python, "main.py"], cwd=folder, stdout=subprocess.PIPE)
    worker = subprocess.Popen([environment.python, "-c", "input()"], cwd=folder, stdin=subprocess.PIPE)
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == b"runs\n"
        install(Spandrel(environment.spandrel), progress=quietly)
        with spandrel_of(environment.site_packages):
            stale = in_process.aether_json("doctor", DEMO, "--host", folder)
            for process in (running, worker):
                process.kill()
                process.wait()
            well = in_process.aether_json("doctor", DEMO, "--host", folder)
    finally:
        for process in (running, worker):
            process.kill()
            process.wait()
    assert (stale["ok"], stale["host"]) == (False, "comfyui")
    assert [step["step"] for step in stale["steps"] if not step["ok"]] == ["taught"], stale
    assert str(running.pid) in stale["steps"][STEPS.index("taught")]["detail"]
    numbers = " and ".join(map(str, sorted((running.pid, worker.pid))))
    assert f"; ComfyUI (processes {numbers}) was started before" in stale["steps"][STEPS.index("taught")]["detail"]
    assert stale["advice"][0] == "Restart ComfyUI, which was started before: stop main.py and start it again."
    assert well["ok"] is True


@pytest.mark.usefixtures("here")
def test_an_aethernet_of_others_is_told_for_what_it_is(tmp_path: Path) -> None:
    for make in (of_a_fork, copied_by_hand):
        folder = tmp_path / make.__name__
        shutil.unpack_archive(wheel("0.4.2"), folder, "zip")
        make(Tree(folder))
        with spandrel_of(folder):
            step, detail, advice = told(in_process.aether_json("doctor", DEMO, "--target", folder))
        assert step == ("spandrel" if make is of_a_fork else "taught")
        assert "an AetherNet that is not ours, and it does not work" in detail
        assert ("einstall spandrel" if make is of_a_fork else f"emove {Tree(folder).payload}") in advice
    folder = tmp_path / "native"
    shutil.unpack_archive(wheel("0.4.2"), folder, "zip")
    of_a_spandrel_to_come(Tree(folder))
    with spandrel_of(folder):
        assert in_process.aether_json("doctor", DEMO, "--target", folder)["ok"] is True


def host(name: str) -> Host:
    """A host of a kind, as far as a file is concerned."""
    kind = next(kind for kind in reversed(KINDS) if kind.id == name)
    return Host(name, kind, Path("host"), Path(sys.executable), None, None)


def seen(file: Path | None, folder: Path, kind: str | None = None) -> dict[str, Any]:
    """What doctor says of a file in a host of some kind, without a Python of the host's own."""
    patient = Patient(sys.executable, named_by=("--host", "host"), host=host(kind) if kind else None)
    steps: list[Step] = []

    def hear(**answer: Any) -> None:
        if "ok" in answer:
            steps.append(Step(answer["step"], answer["ok"], answer["detail"], answer.get("cause", "")))

    replay(request(patient, file, str(folder)), hear)
    return doctor_view(Diagnosis(patient, file, tuple(steps))).described


WEIGHTS = weights_of(embed_dim=8, depths=(1,), upscale=2)


def saved(content: object, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(content, path)  # type: ignore[arg-type]
    else:
        torch.save(content, path)
    return path


TORCHSCRIPT = [pytest.mark.not_on_windows("torch.jit.load crashes under Wine on what is no TorchScript")]

FORMS: dict[str, Callable[[Path], Path]] = {
    "pth": lambda folder: saved(WEIGHTS, folder / "m.pth"),
    "old pth": lambda folder: in_old_form(WEIGHTS, folder / "m.pth"),
    "pth, compressed again": lambda folder: recompressed(saved(WEIGHTS, folder / "m.pth")),
    "safetensors": lambda folder: saved(WEIGHTS, folder / "m.safetensors"),
    "sft": lambda folder: saved(WEIGHTS, folder / "m.safetensors").rename(folder / "m.sft"),
    "bin": lambda folder: in_old_form(WEIGHTS, folder / "m.bin"),
    "ckpt": lambda folder: in_old_form(WEIGHTS, folder / "m.ckpt"),
    "pt": lambda folder: in_old_form(WEIGHTS, folder / "m.pt"),
    "BoolStorage beside": lambda folder: in_old_form(
        {"params": WEIGHTS, "mask": torch.ones(3, dtype=torch.bool)}, folder / "m.pth"
    ),
    "profiled": lambda folder: in_old_form(
        {**WEIGHTS, "total_ops": torch.zeros(1, dtype=torch.float64), "layers.0.total_params": torch.zeros(1)},
        folder / "m.pth",
    ),
    "parameters": lambda folder: in_old_form(
        {name: torch.nn.Parameter(value) for name, value in WEIGHTS.items()}, folder / "m.pth"
    ),
    "grey": lambda folder: in_old_form(weights_of(embed_dim=8, depths=(1,), upscale=2, in_chans=1), folder / "m.pth"),
}
"""Forms in which models go round, each written into a folder."""


def in_old_form(content: object, path: Path) -> Path:
    """As torches wrote it until 2020, which every host reads."""
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


def quantised(weights: StateDict) -> dict[str, object]:
    """As torch's own quantisation writes them: quantised tensors beside their scales."""
    content: dict[str, object] = {}
    for key, tensor in weights.items():
        is_weight = key.endswith("weight") and tensor.dim() == 4
        content[key] = torch.quantize_per_tensor(tensor, 0.01, 0, torch.qint8) if is_weight else tensor
    return content


def truncated(path: Path) -> Path:
    saved(WEIGHTS, path)
    path.write_bytes(path.read_bytes()[:-3000])
    return path


def renamed(content: object, path: Path, suffix: str) -> Path:
    return saved(content, path).rename(path.with_suffix(suffix))


def with_nan(weights: StateDict) -> StateDict:
    return {**weights, "conv_last.bias": weights["conv_last.bias"] * float("nan")}


def one_missing(weights: StateDict) -> StateDict:
    return {key: tensor for key, tensor in weights.items() if key != "layers.0.0.norm.bias"}


CAUSES: dict[str, tuple[Callable[[Path], Path], str, str, str]] = {
    "not there": (lambda d: d / "nothing.pth", "file", "nothing.pth", "path"),
    "a folder": (lambda d: d, "file", "folder", "path"),
    "empty": (lambda d: Path(shutil.copy(os.devnull, d / "empty.pth")), "file", "empty", "download"),
    "an unknown suffix": (lambda d: renamed(WEIGHTS, d / "m.pth", ".zip"), "file", ".zip", "ename to .pth"),
    "truncated": (lambda d: truncated(d / "m.pth"), "read", "", "truncated"),
    "a truncated safetensors file": (lambda d: truncated(d / "m.safetensors"), "read", "", "truncated"),
    "parameters": (
        lambda d: saved({k: torch.nn.Parameter(v) for k, v in WEIGHTS.items()}, d / "m.pth"),
        "read",
        "_rebuild_parameter",
        "without nn.Parameter objects",
    ),
    "a whole network": (lambda d: saved(torch.nn.Conv2d(3, 3, 3), d / "m.pth"), "read", "Conv2d", "weights alone"),
    "int8": (lambda d: saved(quantised(WEIGHTS), d / "m.pth"), "read", "qtensor", "use the float file"),
    "int8 in safetensors": (
        lambda d: saved({k: v.to(torch.int8) for k, v in WEIGHTS.items()}, d / "m.safetensors"),
        "detected",
        "int8",
        "se the float file",
    ),
    "a safetensors file by another name": (
        lambda d: renamed(WEIGHTS, d / "m.safetensors", ".pth"),
        "read",
        "by content",
        "ename to .safetensors",
    ),
    "a PyTorch file by another name": (
        lambda d: renamed(WEIGHTS, d / "m.pth", ".safetensors"),
        "read",
        "by content",
        "ename to .pth",
    ),
    "no weights": (lambda d: saved([1, 2], d / "m.pth"), "read", "", "weights"),
    "another network": (
        lambda d: saved({"a.weight": torch.ones(3), "b.weight": torch.ones(3)}, d / "m.pth"),
        "detected",
        "a.weight",
        "model for upscaling",
    ),
    "a missing tensor": (
        lambda d: saved(one_missing(WEIGHTS), d / "m.pth"),
        "loaded",
        "layers.0.0.norm.bias",
        "damaged",
    ),
    "not a number": (lambda d: saved(with_nan(WEIGHTS), d / "m.pth"), "upscaled", "conv_last.bias", "another copy"),
    "overflow": (
        lambda d: saved({**WEIGHTS, "conv_last.bias": torch.full((3,), 2e38)}, d / "m.pth"),
        "half",
        "infinity",
        "half precision",
    ),
}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("cause", CAUSES)
def test_the_first_step_that_fails_says_what_to_do(tmp_path: Path, cause: str) -> None:
    make, step, word, advice = CAUSES[cause]
    result = told(seen(make(tmp_path), tmp_path))
    assert result[0] == step, result
    assert word in result[1]
    assert advice in result[2]


def test_a_spandrel_of_the_old_kind_is_to_be_upgraded(tmp_path: Path) -> None:
    shutil.unpack_archive(wheel(UNSUPPORTED[-1]), tmp_path, "zip")
    with spandrel_of(tmp_path):
        step, detail, advice = told(seen(None, tmp_path))
    assert (step, UNSUPPORTED[-1] in detail) == ("spandrel", True)
    assert "install --upgrade spandrel" in advice


@pytest.mark.filterwarnings("ignore:.*torch.jit.load:FutureWarning")
@pytest.mark.not_on_windows("torch.jit.load crashes under Wine on what is no TorchScript")
def test_a_spandrel_that_takes_any_pt_for_torchscript_is_told_of(tmp_path: Path) -> None:
    """Before 0.3.2."""
    shutil.unpack_archive(wheel("0.3.0"), tmp_path, "zip")
    install(Spandrel(tmp_path / "spandrel"), progress=quietly)
    with spandrel_of(tmp_path):
        step, detail, advice = told(seen(saved(WEIGHTS, tmp_path / "m.pt"), tmp_path))
    assert (step, "TorchScript" in detail) == ("read", True)
    assert "ename to .pth" in advice


def test_a_page_that_was_downloaded_in_place_of_a_model_is_told(tmp_path: Path) -> None:
    page = tmp_path / "m.pth"
    page.write_text("<!DOCTYPE html><html>not found</html>")
    step, _, advice = told(seen(page, tmp_path))
    assert (step, "download" in advice) == ("read", True)


@pytest.mark.parametrize("img_range", [1.0, 255.0])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_model_that_loads_and_is_rendered_wrongly_is_warned_of(tmp_path: Path, suffix: str, img_range: float) -> None:
    path, noted = tmp_path / f"m{suffix}", {"img_range": img_range}
    if suffix == ".pth":
        torch.save({"params": WEIGHTS, "metadata": {"arch_config": noted}}, path)
    else:
        save_file(WEIGHTS, path, {"metadata": json.dumps(noted)})
    for kind in ("comfyui", "chainner"):
        result = seen(path, tmp_path, kind)
        assert result["ok"] is True
        loaded = result["steps"][STEPS.index("loaded")]["detail"]
        assert ("states img_range 255, and it is run with 1" in loaded) is (img_range == 255)
        assert ("renders it wrongly" in " ".join(result["advice"])) is (img_range == 255)


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


def test_fuse_is_advised_for_what_it_reads_alone(tmp_path: Path) -> None:
    for content, reads in (({"a": Hostile()}, False), ({"version": torch.torch_version.TorchVersion("2.0")}, True)):
        step, _, advice = told(seen(saved({**WEIGHTS, **content}, tmp_path / "m.pth"), tmp_path, "chainner"))
        assert (step, "aether-install fuse" in advice) == ("read", reads)
        assert "weights alone" in advice
    assert [name for name in map(".".join, _ALLOWED) if not READ_BY_FUSE.fullmatch(name)] == []
    for name in ("posix.system", "builtins.eval", "torch.load", "torch.nn.modules.conv.Conv2d"):
        assert not READ_BY_FUSE.fullmatch(name)


def test_a_host_reads_as_it_reads(tmp_path: Path) -> None:
    """ComfyUI reads by torch alone, which knows parameters, and lists suffixes of its own."""
    path = saved({key: torch.nn.Parameter(tensor) for key, tensor in WEIGHTS.items()}, tmp_path / "m.bin")
    result = seen(path, tmp_path, "comfyui")
    assert result["ok"] is True
    read = next(step for step in result["steps"] if step["step"] == "read")
    assert "weights_only" in read["detail"]
    assert "spandrel's own reader, as other hosts read, fails" in read["detail"]
    half = result["steps"][-1]
    assert "not used by ComfyUI" in half["detail"]
    assert told(seen(path, tmp_path, "chainner"))[:1] == ("file",)
    assert told(seen(path.rename(tmp_path / "m.pth"), tmp_path, "chainner"))[:1] == ("read",)


def test_a1111_refuses_archives_of_recent_torches_and_safetensors(tmp_path: Path) -> None:
    step, detail, advice = told(seen(saved(WEIGHTS, tmp_path / "m.safetensors"), tmp_path, "a1111"))
    assert (step, "A1111 lists .pth" in detail) == ("file", True)
    assert "aether-install fuse" in advice
    path = saved(WEIGHTS, tmp_path / "m.pth")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("m/.records_of_a_torch_to_come", "1")
    step, detail, advice = told(seen(path, tmp_path, "a1111"))
    assert (step, ".records_of_a_torch_to_come" in detail) == ("file", True)
    assert "aether-install fuse" in advice
    assert seen(path, tmp_path, "forge")["ok"] is True
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False)
    assert seen(path, tmp_path, "a1111")["ok"] is True


def test_a_host_is_given_what_it_feeds(tmp_path: Path) -> None:
    """ComfyUI and most others give three channels to every model; chaiNNer gives each what it takes."""
    grey = tmp_path / "grey.pth"
    weights = weights_of(embed_dim=8, depths=(1,), upscale=2, in_chans=1)
    torch.save(weights, grey, _use_new_zipfile_serialization=False)
    for kind in sorted({kind.id for kind in KINDS if kind.usable}):
        if kind in ("chainner", "mangajanai"):
            assert seen(grey, tmp_path, kind)["ok"] is True
            continue
        step, detail, advice = told(seen(grey, tmp_path, kind))
        assert step == "upscaled"
        assert f"it takes 1 channel, and {host(kind).kind.name.partition(',')[0]} gives 3 to every model" in detail
        assert "chaiNNer" in advice
    assert seen(grey, tmp_path)["ok"] is True, "spandrel itself takes it"


def recompressed(path: Path) -> Path:
    """As archives come from a site or a person that packed them anew."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("file", [pytest.param(file, marks=TORCHSCRIPT * (file == "pt")) for file in sorted(FORMS)])
def test_inspect_and_doctor_agree_about_every_host(tmp_path: Path, file: str) -> None:
    path = FORMS[file](tmp_path)
    told = in_process.aether_json("inspect", path)
    works = {kind.id: seen(path, tmp_path, kind.id) for kind in KINDS if kind.usable}
    assert sorted(told["hosts"]) == sorted(name for name, said in works.items() if said["ok"]), works
    if file == "grey":
        assert "It takes 1 channel, and most applications give three to every model" in told["notes"][0]
        assert "chaiNNer and MangaJaNai Converter" in told["notes"][0]
        return
    fused = tmp_path / "fused" / "m.pth"
    written = in_process.aether_json("fuse", "--model_path", path, "--output_path", fused)
    assert "error" not in written, written
    assert sorted(in_process.aether_json("inspect", fused)["hosts"]) == sorted(works), "every application"


def test_a_host_that_takes_no_models_is_told_so(tmp_path: Path) -> None:
    step, detail, _ = told(seen(DEMO, tmp_path, "sdnext"))
    assert (step, "SD.Next" in detail) == ("file", True)


@pytest.mark.parametrize("kind", sorted({kind.id for kind in KINDS if kind.usable}))
def test_every_kind_of_host_is_well_with_a_model_of_our_own(tmp_path: Path, kind: str) -> None:
    result = seen(None, tmp_path, kind)
    assert result["ok"] is True, result["steps"]
    assert "made for this" in result["steps"][STEPS.index("file")]["detail"]


def test_another_architecture_is_told_by_name(tmp_path: Path) -> None:
    shapes = {"body.0.weight": (8, 3, 3, 3), "body.0.bias": (8,), "body.1.weight": (8,)}
    shapes |= {"body.2.weight": (12, 8, 3, 3), "body.2.bias": (12,)}
    result = seen(saved({key: torch.rand(shape) for key, shape in shapes.items()}, tmp_path / "m.pth"), tmp_path)
    assert result["ok"] is True, result["steps"]
    assert "Compact, which is no AetherNet" in result["steps"][STEPS.index("detected")]["detail"]


def test_fused_and_in_half_precision_is_well_too(tmp_path: Path) -> None:
    fused = {key: tensor.half() for key, tensor in JUNE.fuse(WEIGHTS).items()}
    assert seen(saved(fused, tmp_path / "m.safetensors"), tmp_path)["ok"] is True


# When a program was started.


def test_when_a_process_was_started_is_known() -> None:
    before = time.time()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        since = started(child.pid)
        assert since is not None
        assert before - 0.1 <= since <= time.time() + 0.1
    finally:
        child.kill()
        child.wait()
    if os.name != "nt":  # which knows it for as long as anybody might ask
        assert started(child.pid) is None


def test_elapsed_time_is_read_as_ps_writes_it() -> None:
    assert parse_elapsed("   00:07\n") == 7
    assert parse_elapsed("01:02:03") == 3723
    assert parse_elapsed("12-01:00:01") == 12 * 86400 + 3601
    with pytest.raises(ValueError, match="ELAPSED"):
        parse_elapsed("ELAPSED")
