"""The hosts of a machine: found whole, where their installers, launchers and users put them."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import environments
import in_process
import pytest
from applications import in_readme
from environments import REPOSITORY, Snapshot, aether_install, aether_json, make_environment
from machines import COMFYUI, Machine, environment_in, machine_with_fourteen_hosts, touch

from aether_install.hosts.discovery import Discovery, discover
from aether_install.hosts.selection import locate_host, resolve
from aether_install.hosts.system import Platform, System

PLATFORM: Platform = "windows" if os.name == "nt" else "linux"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return machine_with_fourteen_hosts(tmp_path_factory.mktemp("machine"))


@pytest.fixture(scope="module")
def command(machine: Machine) -> Callable[..., Any]:
    """Runs the command on that machine, with --json."""

    def run(*arguments: str | Path) -> Any:
        return in_process.aether_json(*arguments, env=machine.variables)

    return run


def snapshot(root: Path, *, bytecode: bool = False) -> Snapshot:
    """As elsewhere, but without the number of hard links: environments of earlier runs share files with these."""
    facts = environments.snapshot(root, bytecode=bytecode)
    return {name: fact[:4] if fact[0] == "file" else fact for name, fact in facts.items()}


@contextmanager
def running(
    machine: Machine, python: Path, folder: Path, script: str, home: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process that runs a script in a folder and waits; of whoever lives in ``home``."""
    (folder / script).write_text("import sys; print('running', flush=True); sys.stdin.read()\n")
    process = subprocess.Popen(
        [python, "-s", script, "--listen"],
        cwd=folder,
        env={**machine.environment, **({"HOME": str(home)} if home else {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    try:
        yield process
    finally:
        process.communicate()
        (folder / script).write_text("")


@pytest.fixture(scope="module")
def system(machine: Machine) -> System:
    return System(PLATFORM, machine.environment, machine.home)


@pytest.fixture(scope="module")
def found(system: System) -> Discovery:
    return discover(system=system)


def test_all_hosts_are_found_and_each_once(machine: Machine, found: Discovery) -> None:
    assert {host.id: host.folder for host in found.hosts} == machine.folders
    assert found.complete


def test_the_spandrel_is_the_one_that_the_host_imports(machine: Machine, found: Discovery) -> None:
    for host in found.hosts:
        assert host.spandrel is not None
        assert host.spandrel.version == machine.versions[host.id]
        assert host.state == "absent"
        if host.id == "vs-spandrel":
            assert host.python is None
        else:
            assert host.python == machine.python(host.id)
            located = locate_host(host)
            assert located.interpreter is not None
            assert located.spandrel == host.spandrel, "the Python itself says the same"


def test_looking_leaves_no_trace(machine: Machine, system: System) -> None:
    before = snapshot(machine.root, bytecode=True)
    discover(system=system)
    assert snapshot(machine.root, bytecode=True) == before


def test_a_host_is_meant_by_its_id_its_folder_or_a_part_of_it(
    machine: Machine, system: System, found: Discovery
) -> None:
    for host in found.hosts:
        for value in (host.id, host.id.upper(), str(host.folder), str(host.folder / "models")):
            if Path(value).is_absolute() and not Path(value).is_dir():
                continue
            assert resolve(value, found, system) == host
    inner = machine.folders["swarmui"] / "dlbackend" / "ComfyUI"
    assert resolve(str(inner), found, system).python == machine.python("swarmui")


def test_hosts_tells_of_each_what_scripts_rely_on(machine: Machine, command: Callable[..., Any]) -> None:
    told = command("hosts")["hosts"]
    assert {host["id"]: host["folder"] for host in told} == {
        name: str(folder) for name, folder in machine.folders.items()
    }
    for host in told:
        spandrel = machine.spandrel(host["id"])
        assert host["spandrel"] == {"version": machine.versions[host["id"]], "path": str(spandrel)}
        assert (host["state"], host["running"]) == ("absent", False)
        assert host["python"] == (None if host["id"] == "vs-spandrel" else str(machine.python(host["id"])))
        assert host["found_by"]
        assert host["models"] is None or Path(host["models"]).is_dir()
        assert set(host["formats"]) <= {".pth", ".pt", ".safetensors", ".ckpt", ".sft", ".bin", ".pkl", ".pt2"}
    by_id = {host["id"]: host for host in told}
    assert by_id["comfyui"]["models"] == str(machine.root / "disk" / "Matrix" / "Models" / "ESRGAN")
    assert by_id["comfyui-5"]["models"] == str(machine.home / "ComfyUI-Shared" / "models" / "upscale_models")
    assert ".safetensors" not in by_id["a1111"]["formats"]
    assert "cannot be given" in by_id["sdnext"]["note"]


def test_hosts_shows_people_where_and_how(machine: Machine) -> None:
    shown = aether_install("hosts", env=machine.environment).stdout
    for name in machine.folders:
        assert any(line.startswith(f"{name}: ") for line in shown.splitlines())
    assert "cannot be given an upscale model of one's own" in shown
    assert "`aether-install spandrel --all`" in shown.splitlines()[-1]


def test_all_are_taught_by_one_command_and_cleared_by_one(machine: Machine, command: Callable[..., Any]) -> None:
    before = snapshot(machine.root)
    results = command("spandrel", "--all", "--no-verify")["results"]
    assert {result["host"]: result["state"] for result in results} == dict.fromkeys(machine.folders, "installed")
    assert all(result["changed"] and "error" not in result for result in results)
    assert {host["state"] for host in command("hosts")["hosts"]} == {"installed"}
    again = command("spandrel", "--all", "--no-verify")["results"]
    assert not any(result["changed"] for result in again)
    two = ("--host", "forge", "--host", "a1111")
    assert aether_install("status", *two, env=machine.environment).returncode == 0
    command("uninstall", "--host", "forge", "--host", str(machine.folders["invokeai"]))
    assert aether_install("status", *two, env=machine.environment, check=False).returncode == 1
    command("uninstall", "--all")
    assert snapshot(machine.root) == before


def test_what_an_update_of_it_undoes_is_said_however_it_was_taught(
    machine: Machine, command: Callable[..., Any]
) -> None:
    for options in (["--all"], ["--host", "chainner"], ["--host", "chainner", "--host", "forge"]):
        shown = aether_install("spandrel", *options, "--no-verify", env=machine.environment).stdout
        assert "\nchaiNNer: after an update of it, start it once and quit it before it is taught again" in shown
        command("uninstall", *options)


def test_a_host_is_taught_by_its_own_python(machine: Machine, command: Callable[..., Any]) -> None:
    taught = command("spandrel", "--host", "invokeai", "--no-verify")
    assert (taught["host"], taught["state"], taught["used_by"]) == ("invokeai", "installed", ["invokeai"])
    shown = aether_install("uninstall", "--host", "invokeai", env=machine.environment).stdout
    assert str(machine.folders["invokeai"]) in shown
    without_torch = machine.spandrel("invokeai").parent / "aaa.pth"
    without_torch.write_text("import sys; sys.modules['torch'] = None\n")
    refused = command("spandrel", "--host", "invokeai")
    without_torch.unlink()
    assert (refused["host"], refused["state"], refused["changed"]) == ("invokeai", "absent", [])
    assert f"{machine.python('invokeai')} cannot run AetherNet" in refused["error"], "which it alone cannot"


@pytest.mark.not_on_windows("the interpreter of an environment is no link")
def test_one_that_fails_stops_none_of_the_others(machine: Machine, command: Callable[..., Any]) -> None:
    registry = machine.spandrel("comfyui-4") / "__helpers" / "main_registry.py"
    python, source = machine.python("reforge"), registry.read_bytes()
    target = os.readlink(python)
    before = snapshot(machine.root)
    registry.unlink()  # it has hard links in uv's cache
    registry.write_bytes(b"nothing = None\n")
    python.unlink()
    python.write_text("#!/bin/sh\nexit 3\n")
    python.chmod(0o755)
    result = aether_install("spandrel", "--all", "--no-verify", "--json", env=machine.environment, check=False)
    assert result.returncode == 1
    results = {entry["host"]: entry for entry in json.loads(result.stdout)["results"]}
    failed = {host for host, entry in results.items() if "error" in entry}
    assert failed == {"comfyui-4", "reforge"}
    assert results["comfyui-4"]["state"] == "unsupported"
    assert str(python) in results["reforge"]["error"]
    assert {entry["state"] for host, entry in results.items() if host not in failed} == {"installed"}
    assert len(result.stderr.splitlines()) == 2
    registry.write_bytes(source)
    python.unlink()
    python.symlink_to(target)
    command("uninstall", "--all")
    contents = ({name: fact[:2] for name, fact in facts.items()} for facts in (snapshot(machine.root), before))
    assert next(contents) == next(contents)


def test_running_hosts_are_told_to_be_restarted(machine: Machine, command: Callable[..., Any]) -> None:
    folder = machine.folders["swarmui"] / "dlbackend" / "ComfyUI"
    with running(machine, machine.python("swarmui"), folder, "main.py") as process:
        assert [host["id"] for host in command("hosts")["hosts"] if host["running"]] == ["swarmui"]
        for options in (["--host", "swarmui", "--host", "a1111"], ["--python", machine.python("swarmui")]):
            assert command("spandrel", *options, "--no-verify")["restart"] == ["SwarmUI"]
            shown = aether_install("uninstall", *options, env=machine.environment).stdout
            assert f"Restart SwarmUI, which is running (process {process.pid})" in shown
        assert not command("uninstall", "--host", "swarmui")["restart"], "nothing was changed"
    assert not any(host["running"] for host in command("hosts")["hosts"])


@pytest.mark.not_on_windows("Wine tells no command line of another process")
def test_a_host_that_runs_since_before_it_was_taught_is_not_said_to_load_anything(
    machine: Machine, command: Callable[..., Any]
) -> None:
    folder, python = machine.folders["swarmui"] / "dlbackend" / "ComfyUI", machine.python("swarmui")
    shown = functools.partial(aether_install, env=machine.environment)
    with (
        running(machine, python, folder, "main.py") as first,
        running(machine, python, folder, "launch.py") as second,
    ):
        command("spandrel", "--all", "--no-verify")
        assert [host["id"] for host in command("hosts")["hosts"] if host["restart"]] == ["swarmui"]
        lines = shown("hosts").stdout.splitlines()
        assert lines[-1].endswith("load them, once they were restarted.")
        numbers = " and ".join(map(str, sorted((first.pid, second.pid))))
        assert any(f"Restart SwarmUI, which runs (processes {numbers}) since before" in line for line in lines)
        for options in (["--host", "swarmui"], ["--python", python]):
            assert command("status", *options)["restart"] is True
            assert "which SwarmUI will once restarted" in shown("status", *options).stdout.splitlines()[0]
            assert command("spandrel", *options, "--no-verify")["restart"] == ["SwarmUI"], "though nothing was changed"
        assert command("status", "--host", "forge")["restart"] is False
        for command_line in (["hosts"], ["status", "--all"]):
            lines = shown(*command_line, check=False).stdout.splitlines()
            (line,) = (line for line in lines if "state installed, to be restarted" in line)
            assert line.startswith("swarmui: ")
            assert lines[-1].endswith("load them, once they were restarted.")
        results = command("status", "--all")["results"]
        assert [result["host"] for result in results if result["restart"]] == ["swarmui"]
    with running(machine, python, folder, "main.py"):
        assert not any(host["restart"] for host in command("hosts")["hosts"]), "it was started since"
        assert command("status", "--host", "swarmui")["restart"] is False
    command("uninstall", "--all")


@pytest.mark.not_on_windows("Wine tells no command line of another process")
def test_a_running_host_is_found_wherever_it_lives(
    machine: Machine, command: Callable[..., Any], tmp_path: Path
) -> None:
    ids = [host["id"] for host in command("hosts")["hosts"]]
    folder = touch(tmp_path / "a" / "b" / "c" / "d" / "ComfyUI", *COMFYUI)
    with running(machine, machine.python("comfyui-4"), folder, "main.py") as process:
        told = command("hosts")["hosts"]
        (new,) = (host for host in told if host["id"] not in ids)
        assert (new["folder"], new["running"]) == (str(folder), True)
        assert new["id"].startswith("comfyui-")
        assert new["python"] == str(machine.python("comfyui-4")), "the Python that runs it, wherever that is"
        assert str(process.pid) in new["found_by"]
    assert [host["id"] for host in command("hosts")["hosts"]] == ids


def left_out(*arguments: Any, **options: Any) -> list[str]:
    return [host["folder"] for host in aether_json(*arguments, **options)["left_out"]]


@pytest.mark.not_on_windows("Wine tells nothing of another process's home")
def test_a_host_that_another_user_runs_is_left_out_with_a_word(machine: Machine, tmp_path: Path) -> None:
    """As with sudo, whose home is not that of the user whose applications run."""
    folder = touch(tmp_path / "theirs" / "ComfyUI", *COMFYUI)
    make_environment(folder / "venv", borrow=False)
    python, home = folder / "venv" / "bin" / "python", tmp_path / "theirs"
    with running(machine, python, folder, "main.py", home) as process:
        told = aether_json("hosts", env=machine.environment)
        assert str(folder) not in [host["folder"] for host in told["hosts"]]
        assert {"name": "ComfyUI", "folder": str(folder)} in told["left_out"], "others may run some as well"
        shown = aether_install("hosts", env=machine.environment).stdout
        (line,) = (line for line in shown.splitlines() if f"{folder} is left out" in line)
        assert f"(process {process.pid}), whose home is {home}" in line
        assert f"--host {folder}" in line
        named = aether_json("spandrel", "--host", folder, "--no-verify", env=machine.environment)
        assert (named["state"], named["restart"]) == ("installed", ["ComfyUI"])
        assert str(folder) not in left_out("hosts", "--search", folder, env=machine.environment)
    assert str(folder) not in left_out("hosts", env=machine.environment)


def test_searching_changes_no_id(machine: Machine, command: Callable[..., Any], tmp_path: Path) -> None:
    before = {host["id"]: host["folder"] for host in command("hosts")["hosts"]}
    folder = touch(tmp_path / "0" / "1" / "ComfyUI", *COMFYUI)
    told = {host["id"]: host for host in command("hosts", "--search", tmp_path / "0")["hosts"]}
    (new,) = (name for name in told if name not in before)
    assert told.pop(new)["folder"] == str(folder)
    assert {name: host["folder"] for name, host in told.items()} == before
    assert len(command("hosts", "--search", tmp_path)["hosts"]) == len(before), "that is three folders deep"
    assert len(command("hosts", "--search", tmp_path / "nothing")["hosts"]) == len(before)
    shown = aether_install("hosts", "--search", folder, env=machine.environment).stdout
    assert f"{folder}" in shown
    if os.name == "nt":
        return  # An environment is no link there.
    (folder / "venv").symlink_to(machine.folders["comfyui-4"] / "venv")
    assert command("spandrel", "--host", folder, "--no-verify")["used_by"] == ["comfyui-4", new]
    assert command("uninstall", "--host", folder)["host"] == new
    (folder / "venv").unlink()
    error = command("spandrel", "--host", folder)
    assert "start ComfyUI" in error["error"], "it has no Python of its own"


def test_what_cannot_be_meant_is_told(machine: Machine, command: Callable[..., Any], tmp_path: Path) -> None:
    assert "comfyui, comfyui-2" in command("spandrel", "--host", "nonsense")["error"]
    assert "--python" in command("spandrel", "--host", tmp_path)["error"]
    several = command("status", "--host", machine.home)["error"]
    assert str(machine.folders["a1111"]) in several
    for options in (["--all", "--host", "forge"], ["--python", "x", "--all"], ["--target", "x", "--host", "y"]):
        assert aether_install("status", *options, env=machine.environment, check=False).returncode == 2
    results = command("status", "--host", "forge", "--host", "nonsense")["results"]
    assert [("error" in result, result["host"]) for result in results] == [(False, "forge"), (True, "nonsense")]
    nobody = environment_in(tmp_path)
    nothing = aether_install("status", "--all", "--json", env=nobody, check=False)
    assert (nothing.returncode, json.loads(nothing.stdout)["results"]) == (1, [])
    assert "--host" in nothing.stderr


def test_a_folder_may_stand_for_its_python(machine: Machine, command: Callable[..., Any], tmp_path: Path) -> None:
    for folder in (machine.folders["forge"] / "venv", machine.folders["forge"], machine.folders["chainner"]):
        assert command("status", "--python", folder)["state"] == "absent"
    error = command("status", "--python", machine.home / "apps")["error"]
    assert f"did you mean --python {machine.python('forge')}?" in error
    error = command("status", "--target", machine.folders["swarmui"])["error"]
    assert f"did you mean --target {machine.spandrel('swarmui')}?" in error
    assert "no environment" in command("status", "--python", tmp_path)["error"]


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:9]),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 10),
    "deep": lambda path: path.write_text("[" * 200_000),
    "huge": lambda path: path.write_bytes(b" " * (5 << 20) + path.read_bytes()),
    "null": lambda path: path.write_text("null"),
    "numbers": lambda path: path.write_text('[1, [2], {}, {"installPath": 3}]'),
    "lists": lambda path: path.write_text('{"InstalledPackages": {"a": 1}, "LibraryPath": [], "home": {}}'),
    "foreign": lambda path: path.write_text(path.read_text().replace("/", "\\u0000").replace("m", "\\ud800")),
    "elsewhere": lambda path: path.write_text(path.read_text().replace("/home", "/nowhere")),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a loop": lambda path: (path.unlink(), path.symlink_to(path.name)),
    "a device": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
    "unreadable": lambda path: path.chmod(0),
}


NO_PIPES = pytest.mark.not_on_windows("there are no named pipes")


@pytest.mark.parametrize("damage", [pytest.param(name, marks=[NO_PIPES] * (name == "a pipe")) for name in DAMAGES])
def test_configuration_files_in_any_condition_cost_no_other_host(
    machine: Machine, system: System, found: Discovery, tmp_path: Path, damage: str
) -> None:
    """Those that nothing but a damaged file knows of may be missed; all others are found, and nothing is raised."""
    home = tmp_path / "home"
    shutil.copytree(
        machine.home, home, symlinks=True, ignore=shutil.ignore_patterns("spandrel-*", "architectures", "bin")
    )
    files = [path for path in home.rglob("*") if path.suffix in (".json", ".ini") and "site-packages" not in path.parts]
    assert len(files) >= 6
    for path in files:
        DAMAGES[damage](path)
    hosts = discover(system=System(PLATFORM, {}, home)).hosts
    known_by_place = {host.folder for host in found.hosts if host.folder.is_relative_to(machine.home)}
    moved = {home / folder.relative_to(machine.home) for folder in known_by_place}
    assert {host.folder for host in hosts} >= moved - {
        home / ".config" / "chaiNNer",
        home / "AppData" / "Roaming" / "chaiNNer",
    }


@pytest.mark.not_on_windows("there are no named pipes, and no folders that nobody may read")
def test_folders_that_lead_in_circles_or_may_not_be_read_are_passed(tmp_path: Path) -> None:
    folder = touch(tmp_path / "home" / "ComfyUI", *COMFYUI)
    (tmp_path / "home" / "again").symlink_to(tmp_path / "home")
    (folder / "venv").symlink_to(folder / "venv")
    touch(tmp_path / "home" / "secret" / "ComfyUI", *COMFYUI)
    (tmp_path / "home" / "secret").chmod(0)
    os.mkfifo(tmp_path / "home" / "Desktop")
    hosts = discover(system=System("linux", {}, tmp_path / "home", (tmp_path / "home" / "again",))).hosts
    (tmp_path / "home" / "secret").chmod(0o700)
    assert folder in {host.folder.resolve() for host in hosts}
    assert len({host.folder.resolve() for host in hosts}) == len(hosts)
    assert {host.state for host in hosts} == {"missing"}


@pytest.mark.not_on_windows("a shell script is no interpreter")
def test_nothing_of_a_host_is_run(tmp_path: Path) -> None:
    folder = touch(tmp_path / "home" / "ComfyUI", *COMFYUI, "venv/bin/python", "venv/lib/python3.12/site-packages/")
    (folder / "venv" / "bin" / "python").write_text(f"#!/bin/sh\ntouch {tmp_path / 'was-run'}\n")
    (folder / "venv" / "bin" / "python").chmod(0o755)
    (host,) = aether_json("hosts", env=environment_in(tmp_path / "home"))["hosts"]
    assert (host["spandrel"], host["state"], host["python"]) == (
        None,
        "missing",
        str(folder / "venv" / "bin" / "python"),
    )
    assert not (tmp_path / "was-run").exists()


def test_what_could_use_no_model_anyhow_does_not_fail_for_want_of_a_spandrel(tmp_path: Path) -> None:
    folder = touch(tmp_path / "sdnext", "webui.py", "installer.py", "venv/bin/python")
    environment = environment_in(tmp_path)
    for host, is_asked_for in (("--all", False), (f"--host={folder}", True)):
        told = aether_install("spandrel", host, "--no-verify", "--json", env=environment, check=False)
        assert told.returncode == 1, "nothing was taught"
        assert ("error" in told.stdout) == is_asked_for
    assert aether_install("uninstall", "--all", env=environment).returncode == 0
    touch(tmp_path / "stable-diffusion-webui", "webui.py", "launch.py", "venv/bin/python")
    told = aether_json("spandrel", "--all", "--no-verify", env=environment)["results"]
    assert [(result["host"], result["state"], "error" in result) for result in told] == [
        ("a1111", None, True),
        ("sdnext", "missing", False),
    ]


def test_the_readme_lists_the_same_applications() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert in_readme(text) == text, "run examples/applications.py"
