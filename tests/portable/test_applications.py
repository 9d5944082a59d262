"""Every command from the one file, run by the Python of an application."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from environments import snapshot
from layouts import ENVIRONMENT, Application, a1111, chainner, portable


def test_every_command_in_comfyui_portable(comfyui: Application) -> None:
    before, files = snapshot(comfyui.site_packages, bytecode=True), snapshot(comfyui.folder, bytecode=True)
    assert comfyui.run("--version", check=True).stdout.startswith("aether-install, version ")
    assert "Find the applications" in comfyui.run("--help", check=True).stdout
    assert comfyui.told("status")["state"] == "absent"
    (host,) = comfyui.told("hosts")["hosts"]
    assert (host["id"], host["folder"], host["state"]) == ("comfyui", str(comfyui.folder), "absent")
    assert host["models"] == str(comfyui.folder / "ComfyUI" / "models" / "upscale_models")
    assert "Dry run: nothing was changed." in comfyui.run("spandrel", "--dry-run", check=True).stdout
    assert snapshot(comfyui.site_packages, bytecode=True) == before

    told = comfyui.told("spandrel", "--no-verify")
    assert (told["state"], told["used_by"]) == ("installed", ["comfyui"])
    assert comfyui.told("spandrel", "--no-verify")["changed"] == []
    package = str(comfyui.spandrel)
    for where in (
        ("--host", "comfyui"),
        ("--host", comfyui.folder),
        ("--host", f"{comfyui.folder}\\"),
        ("--python", comfyui.python),
        ("--python", "python_embeded\\python.exe"),
        ("--target", comfyui.site_packages),
        ("--target", comfyui.site_packages.as_posix()),
        ("--target", str(comfyui.site_packages).upper()),
        ("--target", "python_embeded\\Lib\\site-packages\\spandrel"),
        ("--target", "python_embeded/Lib/../Lib/site-packages"),
    ):
        told = comfyui.told("status", *where)
        assert (told["state"], os.path.normcase(told["spandrel"]["path"])) == ("installed", os.path.normcase(package))
    told = comfyui.told("uninstall")
    assert (told["state"], told.get("undeleted")) == ("absent", None)
    assert snapshot(comfyui.folder, bytecode=True) == files


def test_an_application_is_taught_from_another_ones_python(comfyui: Application, tmp_path: Path) -> None:
    profile = tmp_path / "Jürgen 日本"
    others = [chainner(profile), a1111(profile)]
    home = {
        **ENVIRONMENT,
        "USERPROFILE": str(profile),
        "APPDATA": str(profile / "AppData" / "Roaming"),
        "LOCALAPPDATA": str(profile / "AppData" / "Local"),
    }
    found = {host["id"]: host for host in comfyui.told("hosts", env=home)["hosts"]}
    assert {"chainner", "a1111", "comfyui"} <= found.keys()
    for host, application in zip(("chainner", "a1111"), others, strict=True):
        before = snapshot(application.folder)
        assert found[host]["folder"] == str(application.folder)
        told = comfyui.told("spandrel", "--host", host, "--no-verify", env=home)
        assert (told["state"], told["spandrel"]["path"]) == ("installed", str(application.spandrel)), told
        assert comfyui.told("status", "--python", application.python, env=home)["state"] == "installed"
        assert comfyui.told("uninstall", "--host", application.folder, env=home)["state"] == "absent"
        assert snapshot(application.folder) == before
    assert comfyui.told("spandrel", "--all", "--no-verify", env=home)["results"]
    assert not any(result.get("error") for result in comfyui.told("uninstall", "--all", env=home)["results"])


def test_a_running_application_is_named_with_its_process(comfyui: Application) -> None:
    command = [comfyui.python, "-s", "ComfyUI\\main.py", "--windows-standalone-build"]
    with subprocess.Popen(
        command, cwd=comfyui.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n"
        assert comfyui.told("hosts")["hosts"][0]["running"]
        shown = comfyui.run("spandrel", "--no-verify", check=True).stdout
        assert f"Restart ComfyUI, portable, which is running (process {running.pid})" in shown
        assert "running: process" in shown or str(running.pid) in shown
        assert comfyui.told("uninstall")["restart"] == ["ComfyUI, portable"]
        running.communicate()


def test_the_application_whose_python_runs_the_one_file_is_found_however_deep_it_lies(tmp_path: Path) -> None:
    comfyui = portable(tmp_path / "a" / "b" / "c" / "d" / "e" / "f")
    assert [host["folder"] for host in comfyui.told("hosts")["hosts"]] == [str(comfyui.folder)]
    shown = comfyui.run("spandrel", "--no-verify", check=True).stdout
    assert "no application" not in shown
    assert comfyui.told("status", "--host", "comfyui")["state"] == "installed"


def test_two_installers_at_once_take_turns(comfyui: Application) -> None:
    before = snapshot(comfyui.folder, bytecode=True)
    for command, state in (("spandrel", "installed"), ("uninstall", "absent")):
        options = ["--no-verify"] if command == "spandrel" else []
        several = [
            subprocess.Popen(
                [comfyui.python, "aether-install.pyz", command, *options, "--json"],
                cwd=comfyui.folder,
                env=ENVIRONMENT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for _ in range(3)
        ]
        for process in several:
            _, words = process.communicate()
            assert process.returncode == 0, words
        assert comfyui.told("status")["state"] == state
    assert snapshot(comfyui.folder, bytecode=True) == before


@pytest.mark.parametrize("arguments", [["status", "--json"], ["spandrel", "--no-verify"], ["hosts"], ["--help"]])
def test_a_stdout_that_nobody_reads_any_more_ends_quietly(comfyui: Application, arguments: list[str]) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    command = [comfyui.python, "aether-install.pyz", *arguments]
    done = subprocess.run(command, cwd=comfyui.folder, env=ENVIRONMENT, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    assert done.stderr == b""
    assert done.returncode == (1 if arguments[0] in ("status", "--help") else 0)


def test_what_another_python_says_arrives_whole(comfyui: Application, tmp_path: Path) -> None:
    """An isolated Python heeds no variable that says how to encode what it says."""
    (comfyui.site_packages / "torch.py").write_text("raise ImportError('日本 ü — torch')\n", encoding="utf-8")
    (comfyui.site_packages / "torch.pth").unlink(missing_ok=True)
    done = comfyui.run("spandrel", env={**ENVIRONMENT, "PYTHONUTF8": "1"}, encoding="utf-8")
    told = comfyui.told("spandrel")
    assert told["state"] == "absent"
    # The one file's own Python says it in what its console's code page can say.
    assert "\\u65e5\\u672c" in done.stderr or "日本" in done.stderr, done.stderr


def test_a_quotation_mark_after_a_backslash_is_no_part_of_a_name(comfyui: Application) -> None:
    """``"C:\\...\\site-packages\\" --json`` arrives as one word."""
    line = f'"{comfyui.python}" aether-install.pyz status --target "{comfyui.site_packages}\\"'
    done = subprocess.run(line, cwd=comfyui.folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert "absent: " in done.stdout, done.stderr
    done = subprocess.run(f"{line} --json", cwd=comfyui.folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2
    assert f'type "{comfyui.site_packages}"' in done.stderr


def test_commands_that_are_shown_can_be_typed_at_either_prompt(tmp_path: Path) -> None:
    comfyui = portable(tmp_path / "My R&D")
    line = f'"{comfyui.python}" aether-install.pyz status'
    shown = subprocess.run(line, cwd=comfyui.folder, env=ENVIRONMENT, capture_output=True, text=True).stdout
    command = f'"{comfyui.python}" aether-install.pyz spandrel'
    assert f"`{command}` (in PowerShell `& {command}`)" in shown
    assert "~" not in comfyui.run("hosts").stdout
    shown = comfyui.run("status", "--target", comfyui.site_packages).stdout
    assert f'--target "{comfyui.site_packages}"' in shown


def test_no_file_of_the_archive_stays_behind(comfyui: Application, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {**ENVIRONMENT, "TMP": str(temporary), "TEMP": str(temporary)}
    assert comfyui.told("spandrel", "--no-verify", env=environment)["state"] == "installed"
    assert not list(temporary.iterdir())
    shutil.rmtree(temporary)
