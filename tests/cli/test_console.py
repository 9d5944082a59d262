"""What is shown, on terminals and elsewhere, and what is not lost if nobody can see it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from environments import script
from terminals import on_terminal
from trees import Tree

from aether_install.prompt import for_powershell, typed


def shown_on_terminal(*arguments: str | Path, **environment: str) -> tuple[int, str]:
    """The exit status of the real command, and what is shown on a terminal of its own."""
    return on_terminal([script("aether-install"), *arguments], {**os.environ, **environment})


COLOUR = re.compile(r"\x1b\[[0-9;]*[1-9][0-9;]*m")


@pytest.mark.parametrize("setting", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_progress_is_plain_lines_where_nothing_can_be_drawn(setting: dict[str, str]) -> None:
    status, shown = shown_on_terminal("status", "--python", sys.executable, **setting)
    assert status == 1
    assert not COLOUR.search(shown)
    if os.name != "nt":  # where the console draws what it is told, lines and all
        assert f"aether-install: asking {sys.executable} for its spandrel\r\n" in shown
        assert "\x1b" not in shown


def test_a_terminal_of_few_letters_gets_a_table_all_the_same(tree: Path) -> None:
    Tree(tree).install()
    status, shown = shown_on_terminal("status", "--target", tree, TERM="xterm", PYTHONIOENCODING="cp1252")
    assert status == 0
    assert COLOUR.search(shown)
    assert "installed" in shown


def test_work_is_done_though_the_reader_of_stdout_has_gone(tree: Path) -> None:
    for flags in ([], ["--json"]):
        for command, state in (("spandrel", "installed"), ("uninstall", "absent")):
            ours, theirs = os.pipe()
            os.close(ours)
            arguments = [script("aether-install"), command, "--target", tree, *flags]
            result = subprocess.run(arguments, stdout=theirs, stderr=subprocess.PIPE, text=True)
            os.close(theirs)
            assert (result.returncode, result.stderr) == (0, "")
            assert Tree(tree).state == state


def test_a_mistake_of_the_program_is_told_in_a_sentence_and_noted_in_a_file(tree: Path, tmp_path: Path) -> None:
    code = (
        "import aether_install.tree.commands as commands, aether_install.cli as cli\n"
        "commands.status = lambda _: 1 / 0\n"
        "cli.main()\n"
    )
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-c", code, "status", "--target", tree, "--json"]
    for folder, noted in ((temporary, True), (tmp_path / "nowhere", False)):
        # Where no folder for temporary files can be written to, the current one is tried.
        environment = {**os.environ, "TMPDIR": str(folder)}
        result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tree)
        assert result.returncode == 1
        assert len(result.stderr.splitlines()) == 1
        assert "ZeroDivisionError" in json.loads(result.stdout)["error"]
        found = re.search(r"report it with (\S+\.log)", result.stderr)
        assert found is not None
        if noted:
            (log,) = folder.iterdir()
            assert str(log) == found.group(1)
            text = log.read_text()
            assert all(
                part in text for part in ("Traceback", "ZeroDivisionError", sys.executable, ascii(str(tree))[1:-1])
            )
        else:
            Path(found.group(1)).unlink()


def test_advice_is_typed_as_each_system_takes_it() -> None:
    words = ["--host", "C:\\My Apps\\ComfyUI"]
    assert typed(words, windows=True) == '--host "C:\\My Apps\\ComfyUI"'
    assert typed(words, windows=False) == "--host 'C:\\My Apps\\ComfyUI'"


def test_what_cmd_and_powershell_read_as_more_than_a_name_is_quoted() -> None:
    for name in ("R&D", "a;b", "50%", "it's", "(x86)", "a,b", "{x}", "@home", "#1", "a^b", "", "~\\x", "$x", "a`b"):
        assert typed([name], windows=True) == f'"{name}"'
    for name in ("C:\\ComfyUI", "python_embeded\\python.exe", "--model_path=x", "übér", "日本"):
        assert typed([name], windows=True) == name
    assert typed(["C:\\My Apps\\", "x"], windows=True) == '"C:\\My Apps\\\\" x', "a backslash before a mark"


def test_powershell_is_told_to_run_a_program_whose_name_is_quoted() -> None:
    program = '"C:\\My Apps\\python.exe" -m pip'
    assert for_powershell(f"Type `{program}`.", windows=True) == f"Type `{program}` (in PowerShell `& {program}`)."
    assert for_powershell("Type `python -m pip`.", windows=True) == "Type `python -m pip`."
    assert for_powershell(f"Type `{program}`.", windows=False) == f"Type `{program}`."
